/* main.c - atomo-lua, the host program: embeds LuaJIT, starts MPI under mpirun, runs a script, the tests or the prompt.
 *
 * It takes the options of luajit. Exit codes: 0, 1 error in the script, 2 wrong usage, 130 interrupted, 143 terminated.
 * If the script of a rank fails, the whole job ends.
 */
#include "host/host.h"
#include <errno.h>
#include <fcntl.h>
#include <luajit.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: atomo-lua [options] [script.lua [arguments]]\n"
    "       atomo-lua [options] test [busted's arguments]     runs specs; e.g. atomo-lua test tests/spec\n"
    "                 test --slowest N [busted's arguments]   and lists the N that took longest\n"
    "       atomo-lua doctor                                  checks machine and build\n"
    "       atomo-lua new train|basis|model NAME              writes NAME.lua, a starter file that runs at once\n"
    "       mpirun -n 4 atomo-lua script.lua [arguments]      one process per rank\n"
    "options:\n"
    "  -e CODE      run CODE\n"
    "  -l NAME      require NAME\n"
    "  -i           prompt after the script\n"
    "  -v           print the version\n"
    "  -E           ignore LUA_INIT\n"
    "  -jCMD        LuaJIT: -joff, -jv, -jdump, -jp, ...\n"
    "  -O[OPT]      LuaJIT optimisation: -O2, -O-fold, -Ohotloop=10\n"
    "  --           end of options\n"
    "  -            run standard input\n"
    "  --help       this text\n"
    "  --version    versions of everything\n"
    "  --completion bash             completion for bash: source <(atomo-lua --completion bash)\n"
    "Without a script: the prompt on a terminal, else standard input is run. Exit codes: 0, 1 error in the script, 2 "
    "usage.\n";

/* The parsed command line. */
typedef struct plan {
    int argc, script; /* script: index of the first argument that is not an option; argc: there is none */
    char **argv;
    const char *completion; /* the shell to write a completion script for, or NULL */
    bool prompt, version, help, versions, any_code, no_init, run_stdin;
    int status;
} plan;

static int usage_error(const char *what, const char *arg)
{
    fprintf(stderr, "atomo-lua: %s%s%s%s\n%s", what, arg ? " '" : "", arg ? arg : "", arg ? "'" : "", usage);
    return HOST_USAGE;
}

/* Parses the options without running any; returns HOST_OK or HOST_USAGE. */
static int plan_read(plan *p)
{
    int i = 1;
    for (; i < p->argc; i++) {
        const char *a = p->argv[i];
        if (a[0] != '-' || !a[1]) break; /* a script, or "-" */
        if (strcmp(a, "--") == 0) {
            i++;
            break;
        }
        if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0)
            p->help = true;
        else if (strcmp(a, "--version") == 0)
            p->versions = true;
        else if (strcmp(a, "--completion") == 0) {
            if (++i >= p->argc) return usage_error("an argument is missing after", a);
            p->completion = p->argv[i];
            if (strcmp(p->completion, "bash") != 0) return usage_error("--completion knows bash only, not", p->argv[i]);
        } else if (strcmp(a, "-i") == 0)
            p->prompt = true;
        else if (strcmp(a, "-v") == 0)
            p->version = true;
        else if (strcmp(a, "-E") == 0)
            p->no_init = true;
        else if (a[1] == 'e' || a[1] == 'l' || a[1] == 'j') {
            p->any_code |= a[1] != 'j';
            if (!a[2] && ++i >= p->argc) return usage_error("an argument is missing after", a);
        } else if (a[1] != 'O')
            return usage_error("unknown option", a);
    }
    p->script = i;
    return HOST_OK;
}

static bool first_rank(void)
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    return !rank || strcmp(rank, "0") == 0;
}

static void print_versions(void)
{
    static const char *const keys[] = {"compiler", "mpi", "blas", "fftw", "onednn", "cpu"};
    printf("atomo-lua %s\n  luajit    %s\n", atomo_version(), LUAJIT_VERSION);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *text = atomo_build_info(keys[i]);
        printf("  %-9s %s\n", keys[i], text ? text : "none");
    }
}

/* ---- running ------------------------------------------------------------------------------------------------------
 */

/* Sets the global `arg` as luajit does: arg[0] is the script, positive indices its arguments, negative ones the words
 * before it. */
static void set_arg(lua_State *L, const plan *p)
{
    int zero = p->script < p->argc ? p->script : 0;
    lua_createtable(L, p->argc - zero, zero + 1);
    for (int i = 0; i < p->argc; i++) {
        lua_pushstring(L, p->argv[i]);
        lua_rawseti(L, -2, i - zero);
    }
    lua_setglobal(L, "arg");
}

/* Calls the function `name` of atomo/host/init.lua with one string; returns a Lua status. */
static int call_module(lua_State *L, const char *name, const char *text)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "atomo.host");
    lua_getfield(L, -1, name);
    lua_remove(L, -2);
    lua_pushstring(L, text);
    return host_pcall(L, 1, 0);
}

static int run_chunk(lua_State *L, int status)
{
    return status ? status : host_pcall(L, 0, 0);
}

/* Runs the options -e, -l, -j and -O in the order given; returns a Lua status. */
static int run_options(lua_State *L, const plan *p)
{
    for (int i = 1; i < p->script; i++) {
        const char *a = p->argv[i];
        char kind = a[1];
        if (a[0] != '-' || !strchr("eljO", kind)) continue;
        const char *text = a[2] || kind == 'O' ? a + 2 : p->argv[++i];
        int status = 0;
        if (kind == 'e') {
            status = run_chunk(L, luaL_loadbuffer(L, text, strlen(text), "=(command line)"));
        } else if (kind == 'l') {
            lua_getglobal(L, "require");
            lua_pushstring(L, text);
            status = host_pcall(L, 1, 0);
        } else {
            status = call_module(L, kind == 'j' ? "jit_command" : "jit_options", text);
        }
        if (status) return status;
    }
    return 0;
}

/* Reads standard input to its end; *n = bytes. The caller frees the result, which is NULL if memory runs out. */
static char *read_stdin(size_t *n)
{
    size_t room = 1 << 16;
    char *text = malloc(room);
    for (*n = 0; text;) {
        errno = 0;
        const size_t got = fread(text + *n, 1, room - *n, stdin);
        if (got == 0 && (feof(stdin) || errno != EINTR)) return text;
        clearerr(stdin);
        *n += got;
        if (*n == room) text = realloc(text, room *= 2);
    }
    return NULL;
}

/* Loads a script from standard input on all ranks. mpirun connects it to rank 0 only, which broadcasts the script. */
static int load_shared_stdin(lua_State *L)
{
    atomo_comm *world;
    atomo_inbox *all = NULL;
    size_t n = 0;
    int status = atomo_comm_world(&world);
    const bool here = status == 0 && atomo_comm_rank(world) == 0;
    char *text = here ? read_stdin(&n) : NULL;
    if (status == 0) status = atomo_inbox_new(1, &all);
    atomo_flight_note("the script on standard input");
    if (status == 0) status = atomo_comm_bcast_bytes(world, text, text ? (double)n : 0, 0, all->slot, all->counts);
    free(text);
    if (status == 0) {
        const char *script = all->slot[0]->data;
        n = (size_t)all->counts[0];
        const char *line =
            n && *script == '#' ? memchr(script, '\n', n) : script; /* skips a #! line, as luaL_loadfile does */
        status = luaL_loadbuffer(L, line ? line : "", line ? n - (size_t)(line - script) : 0, "=stdin");
    } else {
        lua_pushfstring(L, "the script on standard input does not reach all ranks: %s", atomo_last_error());
    }
    atomo_inbox_free(all);
    return status;
}

static int load_stdin(lua_State *L)
{
    return atomo_mpi_launched() ? load_shared_stdin(L) : luaL_loadfile(L, NULL);
}

static int run_script(lua_State *L, const plan *p)
{
    const char *name = p->argv[p->script];
    const bool is_file = strcmp(p->argv[p->script - 1], "--") == 0; /* whatever its name is */
    static const char *const commands[] = {"test", "doctor", "new"};
    for (size_t i = 0; !is_file && i < sizeof commands / sizeof *commands; i++)
        if (strcmp(name, commands[i]) == 0) return call_module(L, name, name);
    const bool on_stdin = !is_file && strcmp(name, "-") == 0;
    int status = on_stdin ? load_stdin(L) : luaL_loadfile(L, name);
    if (status == LUA_ERRFILE) {
        lua_pushliteral(L, "; expected the path of a script, or a command of atomo-lua --help");
        lua_concat(L, 2);
    }
    if (status) return status;
    int n = p->argc - p->script - 1;
    luaL_checkstack(L, n, "too many arguments for the script");
    for (int i = 1; i <= n; i++) lua_pushstring(L, p->argv[p->script + i]);
    return host_pcall(L, n, 0);
}

static int run_init(lua_State *L)
{
    const char *init = getenv("LUA_INIT");
    if (!init) return 0;
    return run_chunk(L,
                     *init == '@' ? luaL_loadfile(L, init + 1) : luaL_loadbuffer(L, init, strlen(init), "=LUA_INIT"));
}

static int run_all(lua_State *L, plan *p)
{
    int status = host_load_modules(L, p->argv[0]);
    if (status) return status;
    lua_setfield(L, LUA_REGISTRYINDEX, "atomo.host");
    set_arg(L, p);
    if (p->completion) return call_module(L, "completion", p->completion);
    if (!p->no_init && (status = run_init(L))) return status;
    if (p->version) puts("atomo-lua " ATOMO_VERSION ", " LUAJIT_VERSION);
    if ((status = run_options(L, p))) return status;
    if (p->script < p->argc) {
        status = run_script(L, p);
        if (status && p->prompt && !host_was_terminated()) {
            host_last_word(lua_tostring(L, -1));
            status = 0;
        }
    } else if (!p->prompt && !p->any_code && !p->version) {
        p->prompt = isatty(STDIN_FILENO); /* false under mpirun, which gives ranks a pipe */
        if (!p->prompt) status = run_chunk(L, load_stdin(L));
    }
    if (status == 0 && p->prompt) {
        host_repl(L);
        host_finalizer_forget(); /* errors at the prompt do not change the exit code */
    }
    return status;
}

static int protected_main(lua_State *L)
{
    plan *p = lua_touserdata(L, 1);
    luaL_openlibs(L);
    lua_getglobal(L, "os");
    lua_pushcfunction(L, host_os_exit);
    lua_setfield(L, -2, "exit");
    lua_pushcfunction(L, host_guard_finalizer);
    lua_setfield(L, LUA_REGISTRYINDEX, "atomo.guard_finalizer");
    lua_settop(L, 0);
    host_signals_script(L);
    p->status = run_all(L, p);
    if (p->status) {
        const char *text = lua_tostring(L, -1);
        host_last_word(text ? text : "an error without text");
    }
    return 0;
}

/* Opens /dev/null for each standard stream that the caller has closed; if not, a file opened later would take its
 * number. */
static void fill_standard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd) _exit(HOST_SCRIPT_ERROR);
}

int main(int argc, char **argv)
{
    plan p = {.argc = argc, .argv = argv};
    fill_standard_streams();
    signal(SIGXFSZ, SIG_IGN); /* so that a write beyond the file size limit returns an error */
    int bad = plan_read(&p);
    if (bad) return bad;
    if (p.help || p.versions) {
        if (first_rank() && p.help) fputs(usage, stdout);
        if (first_rank() && p.versions) print_versions();
        return host_output_is_whole() ? HOST_OK : HOST_SCRIPT_ERROR;
    }
    host_signals_install();
    if (atomo_mpi_launched() && atomo_mpi_init() < 0) {
        host_last_word(atomo_last_error());
        host_leave(HOST_SCRIPT_ERROR);
    }
    lua_State *L = luaL_newstate();
    if (!L) {
        host_last_word("cannot make a Lua state: out of memory");
        host_leave(HOST_SCRIPT_ERROR);
    }
    if (lua_cpcall(L, protected_main, &p)) {
        host_last_word(lua_tostring(L, -1));
        p.status = 1;
    }
    host_signals_script(NULL);
    int code = host_signal_code(p.status ? HOST_SCRIPT_ERROR : HOST_OK);
    if (code == 0) host_close(L); /* not after an error: finalizers could use objects in a bad state */
    host_leave(host_signal_code(code));
}
