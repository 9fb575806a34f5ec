/* repl.c - the interactive prompt: prints the values of expressions, reads statements of several lines, keeps a
 * history.
 *
 * Tab completes names of globals, fields and methods. Under mpirun rank 0 reads, and all ranks run each statement.
 * Without readline, or if the input is not a terminal, lines are read without editing and history.
 */
#include "host/host.h"
#include <errno.h>
#include <luajit.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef ATOMO_HAVE_READLINE
#include <readline/history.h>
#include <readline/readline.h>
#endif

static bool terminal; /* standard input is a terminal */
static bool shared;   /* under mpirun: rank 0 reads, and all ranks run each statement */

#ifdef ATOMO_HAVE_READLINE
static char history_file[1024];

/* Reads the history from $XDG_STATE_HOME/atomo/history or ~/.local/state/atomo/history, and makes the folders. */
static void history_open(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (state && *state)
        snprintf(history_file, sizeof history_file, "%s/atomo/history", state);
    else if (home && *home)
        snprintf(history_file, sizeof history_file, "%s/.local/state/atomo/history", home);
    else
        return;
    for (char *p = history_file + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(history_file, 0700);
        *p = '/';
    }
    stifle_history(5000);
    read_history(history_file);
}

/* Ends readline's line after Ctrl-C or SIGTERM. readline calls this ten times a second; its hook for signals cannot end
 * a line. */
static int on_event(void)
{
    if (host_interrupts || host_was_terminated()) {
        rl_replace_line("", 0);
        rl_done = 1;
    }
    return 0;
}

static lua_State *completing; /* the state whose names Tab completes */
static void push_prompt(lua_State *L, const char *name);

/* Returns the names that complete `word`, for readline: the word that they have in common first, NULL last. */
static char **complete(const char *word, int start, int end)
{
    (void)start, (void)end;
    rl_attempted_completion_over = 1; /* no names of files */
    rl_completion_append_character = 0;
    lua_State *L = completing;
    const int top = lua_gettop(L);
    push_prompt(L, "complete");
    lua_pushstring(L, word);
    char **list = NULL;
    if (lua_pcall(L, 1, 1, 0) == 0 && lua_istable(L, -1) && lua_objlen(L, -1) > 0) {
        const size_t n = lua_objlen(L, -1);
        list = malloc((n + 1) * sizeof *list);
        for (size_t i = 0; list && i < n; i++) {
            lua_rawgeti(L, -1, (int)i + 1);
            list[i] = strdup(lua_tostring(L, -1));
            lua_pop(L, 1);
        }
        if (list) list[n] = NULL;
    }
    lua_settop(L, top);
    return list;
}

static void complete_names(lua_State *L)
{
    completing = L;
    rl_attempted_completion_function = complete;
    rl_completer_word_break_characters = " \t\n\"\\'`@$><=;|&{}()[]+-*/^%~,#";
}

static char *read_edited(const char *prompt)
{
    rl_event_hook = on_event;
    char *line = readline(prompt);
    if (line && *line) {
        add_history(line);
        if (*history_file && write_history(history_file) != 0) *history_file = 0; /* not writable: no history */
    }
    return line;
}
#else
static void history_open(void)
{
}

static void complete_names(lua_State *L)
{
    (void)L;
}

static char *read_edited(const char *prompt)
{
    (void)prompt;
    return NULL;
}
#endif

static char *read_plain(const char *prompt)
{
    char *line = NULL;
    size_t size = 0;
    if (terminal || shared) fputs(prompt, stdout);
    fflush(stdout);
    errno = 0;
    ssize_t n = getline(&line, &size, stdin);
    if (n < 0) {
        free(line);
        if (errno != EINTR) return NULL;
        clearerr(stdin);
        return strdup("");
    }
    if (n > 0 && line[n - 1] == '\n') line[n - 1] = 0;
    return line;
}

/* Returns the next line, which the caller frees: "" if it was interrupted, NULL at the end of input. */
static char *read_line(const char *prompt)
{
#ifdef ATOMO_HAVE_READLINE
    return terminal ? read_edited(prompt) : read_plain(prompt);
#else
    (void)read_edited;
    return read_plain(prompt);
#endif
}

/* Returns whether the error message on the top of the stack says that the statement is incomplete. */
static bool incomplete(lua_State *L, int status)
{
    static const char end[] = "'<eof>'";
    size_t n;
    const char *message = lua_tolstring(L, -1, &n);
    return status == LUA_ERRSYNTAX && message && n >= sizeof end - 1 &&
           strcmp(message + n - (sizeof end - 1), end) == 0;
}

/* Compiles `head` and then `text`; pushes the function or the error message, and returns a Lua status. */
static int load_after(lua_State *L, const char *head, const char *text)
{
    size_t n;
    lua_pushfstring(L, "%s%s", head, text);
    const char *whole = lua_tolstring(L, -1, &n);
    const int status = luaL_loadbuffer(L, whole, n, "=stdin");
    lua_remove(L, -2);
    return status;
}

/* Compiles the text at index 1 as an expression, or if that fails as statements. Pushes the function or the error
 * message and returns a Lua status. The function of an expression returns a nil before its values, *leads_with_nil: so
 * a call is no tail call, and the line keeps its place in errors. */
static int compile(lua_State *L, bool *leads_with_nil)
{
    const char *text = lua_tostring(L, 1), *value = *text == '=' ? text + 1 : text;
    *leads_with_nil = false;
    int status = load_after(L, "return ", value);
    if (status == 0 && load_after(L, "return nil, ", value) == 0) {
        *leads_with_nil = true;
        lua_remove(L, -2);
    } else if (status == 0) {
        lua_pop(L, 1); /* there is no value: an empty line */
    }
    if (status == 0 || *text == '=') return status;
    lua_pop(L, 1);
    return load_after(L, "", text);
}

/* Reads a complete statement and compiles it. Returns 0 with a function on the stack, a Lua status with a message on
 * the stack, or -1 at the end of input. leads_with_nil: see compile. */
static int read_statement(lua_State *L, bool *leads_with_nil)
{
    lua_settop(L, 0);
    host_interrupt_forget();
    for (;;) {
        char *line = read_line(lua_gettop(L) ? ">> " : "> ");
        if (!line) return -1;
        if (host_interrupts) { /* Ctrl-C: drop the lines read so far */
            free(line);
            host_interrupt_forget();
            fputs("\n", stdout);
            lua_settop(L, 0);
            continue;
        }
        if (lua_gettop(L) == 0) {
            lua_pushstring(L, line);
        } else {
            lua_pushfstring(L, "%s\n%s", lua_tostring(L, 1), line);
            lua_replace(L, 1);
        }
        free(line);
        int status = compile(L, leads_with_nil);
        if (!incomplete(L, status)) return status;
        lua_settop(L, 1);
    }
}

/* Pushes a function of atomo/host/prompt.lua. */
static void push_prompt(lua_State *L, const char *name)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "atomo.host");
    lua_getfield(L, -1, "prompt");
    lua_getfield(L, -1, name);
    lua_replace(L, -3);
    lua_pop(L, 1);
}

static void print_values(lua_State *L)
{
    int n = lua_gettop(L);
    if (n == 0) return;
    push_prompt(L, "show");
    lua_insert(L, 1);
    if (host_pcall(L, n, 0)) fprintf(stderr, "atomo-lua: print failed: %s\n", lua_tostring(L, -1));
}

/* Defines atomo, help and time. Without atomo (a library is missing) the prompt still works. */
static void define_globals(lua_State *L)
{
    push_prompt(L, "begin");
    lua_getglobal(L, "require");
    lua_pushliteral(L, "atomo");
    if (host_pcall(L, 1, 1)) {
        fprintf(stderr, "atomo is not loaded: %s\n", lua_tostring(L, -1));
        lua_pop(L, 1);
        lua_pushnil(L);
    }
    if (host_pcall(L, 1, 0)) fprintf(stderr, "%s\n", lua_tostring(L, -1));
}

/* Runs the function at the top of the stack, which is the only one left on it; returns a Lua status with its values or
 * the error's text on the stack. leads_with_nil: drops the first value (see compile). */
static int run_statement(lua_State *L, bool leads_with_nil)
{
    lua_replace(L, 1);
    lua_settop(L, 1);
    luaJIT_setmode(L, 1, LUAJIT_MODE_ALLFUNC | LUAJIT_MODE_OFF); /* Ctrl-C cannot end a compiled loop alone */
    host_interrupts = 0;
    const int status = host_pcall(L, 0, LUA_MULTRET);
    if (status == 0 && leads_with_nil) lua_remove(L, 1);
    return status;
}

static void print_error(lua_State *L)
{
    const char *text = lua_tostring(L, -1);
    fflush(stdout);
    fprintf(stderr, "%s\n", text ? text : "(an error without text)");
}

/* Reads statements and runs them, in one process. */
static void run_alone(lua_State *L)
{
    bool leads_with_nil;
    for (int status; (status = read_statement(L, &leads_with_nil)) != -1;) {
        if (status == 0) status = run_statement(L, leads_with_nil);
        if (status) {
            print_error(L);
            if (host_was_terminated()) break;
        } else {
            print_values(L);
        }
    }
}

/* Replaces the stack by the statement that all ranks run next, a text that rank 0 has read, or by nil at the end.
 * Returns whether that succeeded. [collective] */
static bool share_statement(lua_State *L, bool reads)
{
    bool ignored; /* rank 0 compiles the text again, as every rank does */
    for (int status; reads && (status = read_statement(L, &ignored)) != 0; print_error(L)) {
        if (status != -1) continue;
        lua_settop(L, 0);
        lua_pushnil(L);
        break;
    }
    lua_settop(L, 1);
    push_prompt(L, "share");
    lua_insert(L, 1);
    if (host_pcall(L, 1, 1) == 0) return true;
    print_error(L);
    return false;
}

/* The same on several ranks. Rank 0 prints values and the errors of all ranks. [collective] */
static void run_together(lua_State *L, bool reads)
{
    while (share_statement(L, reads) && lua_isstring(L, 1) && !host_was_terminated()) {
        bool leads_with_nil;
        int status = compile(L, &leads_with_nil);
        if (status == 0) status = run_statement(L, leads_with_nil);
        if (status == 0 && reads) print_values(L);
        push_prompt(L, "report");
        if (status)
            lua_pushvalue(L, -2);
        else
            lua_pushnil(L);
        if (host_pcall(L, 1, 0)) print_error(L);
        fflush(stdout);
        lua_settop(L, 0);
    }
}

void host_repl(lua_State *L)
{
    const bool reads = !atomo_mpi_launched() || strncmp(atomo_mpi_label(), "rank 0 ", 7) == 0;
    shared = atomo_mpi_launched();
    terminal = !shared && isatty(STDIN_FILENO);
    if (terminal) {
        history_open();
        complete_names(L);
    }
    if (terminal || (shared && reads))
        printf("atomo-lua %s, %s (help() describes, Ctrl-D leaves)\n", atomo_version(), LUAJIT_VERSION);
    define_globals(L);
    if (shared)
        run_together(L, reads);
    else
        run_alone(L);
    if (terminal || (shared && reads)) fputs("\n", stdout);
    lua_settop(L, 0);
}
