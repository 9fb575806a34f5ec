/* exit.c - the end of a process: turns errors into text, prints the last word, and ends MPI or aborts the job. */
#include "host/host.h"
#include <errno.h>
#include <luajit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Appends a remedy in parentheses to the error text on top of the stack, if it is one of Lua itself for which
 * atomo.host.remedy has one. */
static void add_remedy(lua_State *L)
{
    const char *text = lua_tostring(L, -1);
    const int top = lua_gettop(L);
    if ((!strstr(text, "attempt to") && !strstr(text, "bad argument")) || !lua_checkstack(L, 8)) return;
    lua_getglobal(L, "require");
    lua_pushliteral(L, "atomo.host.remedy");
    if (lua_pcall(L, 1, 1, 0) == 0) {
        lua_pushvalue(L, top);
        if (lua_pcall(L, 1, 1, 0) == 0 && lua_isstring(L, -1)) {
            lua_pushfstring(L, "%s (%s)", text, lua_tostring(L, -1));
            lua_replace(L, top);
        }
    }
    lua_settop(L, top);
}

/* Pushes a text for the error value at index i: the value if it is a string, else by its __tostring, its field
 * `message`, or its type. */
static void push_error_text(lua_State *L, int i)
{
    if (lua_type(L, i) == LUA_TSTRING || lua_type(L, i) == LUA_TNUMBER) {
        lua_pushvalue(L, i);
        lua_tostring(L, -1); /* converts a number */
        add_remedy(L);
        return;
    }
    if (luaL_callmeta(L, i, "__tostring")) {
        if (lua_isstring(L, -1)) return;
        lua_pop(L, 1);
    }
    if (lua_istable(L, i)) {
        lua_getfield(L, i, "message");
        if (lua_isstring(L, -1)) {
            lua_pushfstring(L, "%s (a table with this message was raised)", lua_tostring(L, -1));
            lua_remove(L, -2);
            return;
        }
        lua_pop(L, 1);
    }
    lua_pushfstring(L, "the error value is a %s, expected a string%s", luaL_typename(L, i),
                    lua_isnil(L, i) ? " (error() without a message)" : "");
}

int host_traceback(lua_State *L)
{
    push_error_text(L, 1);
    host_push_traceback(L, lua_tostring(L, -1));
    lua_concat(L, 2);
    return 1;
}

int host_pcall(lua_State *L, int nargs, int nresults)
{
    int base = lua_gettop(L) - nargs;
    lua_pushcfunction(L, host_traceback);
    lua_insert(L, base);
    int status = lua_pcall(L, nargs, nresults, base);
    lua_remove(L, base);
    return status;
}

static const char rule[] = "------------------------------------------------------------------------------------------";

bool host_is_alone(void)
{
    return !atomo_mpi_started() || strstr(atomo_mpi_label(), " of 1 on ");
}

static void nap(void) /* 30 ms */
{
    nanosleep(&(struct timespec){0, 30000000}, NULL);
}

/* How this rank reports the error that it ends with. If several ranks end with the same error, the lowest of them
 * prints it in a frame, and the others print nothing and wait until it has ended the job. A rank that is terminated
 * while it has an error of its own prints one line. */
enum report { REPORT_FRAME, REPORT_LINE, REPORT_NONE };

static enum report report_of(const char *text)
{
    /* naps of 30 ms: 0.3 s for a lower rank's error; 0.45 s for it after being terminated, since on a busy machine the
     * end of the job may come before the word why (mpirun kills after 1 s); 3 s for the end */
    enum { FOR_OTHERS = 10, FOR_A_LATE_ONE = 15, FOR_THE_END = 100 };
    const bool first = strncmp(atomo_mpi_label(), "rank 0 ", 7) == 0;
    atomo_failure_tell(text, 0);
    for (int i = 0; !first && i < FOR_OTHERS && !atomo_failure_is_told(text) && !host_was_terminated(); i++) nap();
    for (int i = 0; i < FOR_A_LATE_ONE && host_job_is_ending() && !atomo_failure_is_told(text); i++) nap();
    if (atomo_failure_is_told(text)) {
        for (int i = 0; i < FOR_THE_END && !host_was_terminated(); i++) nap();
        return REPORT_NONE;
    }
    if (host_was_terminated()) return REPORT_LINE;
    atomo_failure_tell(text, 1);
    return REPORT_FRAME;
}

/* Prints the last word with one write, so that those of several ranks do not mix. */
static void print_frame(const char *step, const char *text)
{
    size_t n = strlen(text) + 1024;
    char *frame = malloc(n);
    if (!frame) return;
    int head = snprintf(frame, 512, "\n---- %s%s: stopped by an error ", atomo_mpi_label(), step);
    int k =
        head + snprintf(frame + head, n - (size_t)head,
                        "%s\n%s\nWhat to do: all ranks end with this one. The first line says where and why; to look "
                        "closer,\nrun it with one rank (mpirun -n 1, or no mpirun).\n%s\n",
                        head < (int)sizeof rule ? rule + head - 1 : "", text, rule);
    fwrite(frame, 1, (size_t)k < n ? (size_t)k : n - 1, stderr);
    free(frame);
}

void host_last_word(const char *text)
{
    char step[48] = "";
    if (atomo_noted_step() >= 0) snprintf(step, sizeof step, ", step %.0f", atomo_noted_step());
    fflush(stdout);
    const enum report report = host_is_spoken_for() ? REPORT_NONE : host_is_alone() ? REPORT_LINE : report_of(text);
    if (host_is_alone())
        fprintf(stderr, "atomo-lua%s: %s\n", step, text);
    else if (report == REPORT_LINE)
        fprintf(stderr, "atomo-lua: %s%s: %.*s\n", atomo_mpi_label(), step, (int)strcspn(text, "\n"), text);
    else if (report == REPORT_FRAME)
        print_frame(step, text);
    fflush(stderr);
    host_signals_said();
}

bool host_output_is_whole(void)
{
    errno = 0;
    const bool whole = fflush(stdout) == 0 && !ferror(stdout);
    if (!whole)
        fprintf(stderr, "atomo-lua: writing standard output: %s\n",
                errno ? strerror(errno) : "an earlier write failed");
    return whole;
}

/* The ranks disagree, and this one is at its end. Returns whether a rank in its script says so and ends the job: only
 * that one can name the place. */
static bool another_says(void)
{
    enum { FOR_ITS_SIGN = 33, FOR_THE_END = 333 }; /* naps of 30 ms: 1 s; 10 s, as its output is read before it ends */
    for (int i = 0; i < FOR_ITS_SIGN && !host_was_terminated() && !atomo_failure_elsewhere(); i++) nap();
    for (int i = 0; i < FOR_THE_END && !host_was_terminated() && atomo_failure_elsewhere(); i++) nap();
    return host_was_terminated() || atomo_failure_elsewhere();
}

void host_leave(int code)
{
    enum { READ_WITHIN = 5 };                        /* seconds, on a busy machine */
    if (host_signal_code(0)) atomo_child_await(0.4); /* the signal was passed on to the child process */
    if (code == 0 && (host_finalizer_failed() || !host_output_is_whole())) code = HOST_SCRIPT_ERROR;
    fflush(NULL);
    if (host_job_is_ending() && !host_is_alone()) _exit(code); /* by mpirun, or by ranks that have saved */
    if (code != 0 && atomo_mpi_started()) {
        /* gives mpirun time to read the output: it drops what it has not read when it learns of the abort */
        atomo_await_readers(READ_WITHIN);
        nanosleep(&(struct timespec){0, 100000000}, NULL);
        if (!host_is_alone()) atomo_mpi_abort(code);
    }
    if (atomo_mpi_finalize() < 0 && code == 0) {
        code = HOST_SCRIPT_ERROR;
        if (!another_says()) fprintf(stderr, "atomo-lua: %s\n", atomo_last_error());
        if (host_was_terminated()) _exit(code);
    }
    exit(host_signal_code(code));
}

static int discard_compiled(lua_State *L) /* raises in a finalizer */
{
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_FLUSH);
    return 0;
}

void host_close(lua_State *L)
{
    static bool begun; /* os.exit(0, true) in a finalizer at the end */
    if (begun) return;
    /* A compiled loop over pairs() never ends in a finalizer of LuaJIT 2.1 of 2022 if its table is of another kind. */
    if (lua_cpcall(L, discard_compiled, NULL)) return;
    begun = true;
    atomo_keep_objects();
    lua_close(L);
}

int host_os_exit(lua_State *L)
{
    int code = lua_isboolean(L, 1) ? !lua_toboolean(L, 1) : (int)luaL_optinteger(L, 1, 0);
    host_signals_script(NULL);
    if (lua_toboolean(L, 2)) host_close(L);
    host_leave(host_signal_code(code & 255 || code == 0 ? code & 255 : 1)); /* 256 must not look like success */
    return 0;
}
