/* signals.c - SIGINT and SIGTERM.
 *
 * A signal sets a Lua hook, which stops interpreted Lua at its next instruction with an error and a traceback. The hook
 * stays set, so that code whose pcall catches the error is stopped again at its next instruction. Hooks do not stop
 * compiled loops and C calls. So a timer fires soon after, prints a last word and ends the process. A second Ctrl-C
 * ends it at once. If no script runs (while MPI starts or ends, or a Lua state is closed) only the timer is used.
 * Handlers use async-signal-safe calls only; lua_sethook may be called in handlers.
 */
#define _GNU_SOURCE
#include "host/host.h"
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static lua_State *volatile state;  /* NULL: no script runs */
static volatile sig_atomic_t said; /* a last word has been printed */
static volatile sig_atomic_t terminated;
volatile int host_interrupts;

enum { EXIT_INTERRUPTED = 130, EXIT_TERMINATED = 143 };

static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0) _exit(EXIT_INTERRUPTED);
}

static void last_word(const char *what)
{
    say("\natomo-lua: ");
    if (*atomo_mpi_label()) {
        say(atomo_mpi_label());
        say(": ");
    }
    say(what);
}

static void stop_timer(void)
{
    struct itimerval none = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &none, NULL);
}

static void hook(lua_State *L, lua_Debug *ar)
{
    const char *what = terminated ? "terminated (SIGTERM)" : "interrupted";
    if (lua_getinfo(L, "Sl", ar) && ar->currentline > 0)
        lua_pushfstring(L, "%s:%d: %s", ar->short_src, ar->currentline, what);
    else
        lua_pushstring(L, what);
    lua_error(L);
}

static void stop_soon(int milliseconds)
{
    atomo_child_terminate();
    struct itimerval t = {{0, 0}, {milliseconds / 1000, milliseconds % 1000 * 1000}};
    if (state) lua_sethook(state, hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
    setitimer(ITIMER_REAL, &t, NULL);
}

/* Returns the seconds since the last SIGINT. mpirun and timeout send SIGINT twice, to the process and to its group. */
static double since_last(void)
{
    static double last = -1e9;
    double before = last;
    last = atomo_time();
    return last - before;
}

static void on_interrupt(int sig)
{
    (void)sig;
    if (since_last() < 0.1 || terminated) return;
    if (++host_interrupts > 1) {
        last_word("interrupted twice, leaving\n");
        _exit(EXIT_INTERRUPTED);
    }
    stop_soon(1000);
}

static void on_terminate(int sig)
{
    (void)sig;
    if (terminated) return;
    terminated = 1;
    stop_soon(500); /* mpirun sends SIGKILL after a second */
}

static void on_alarm(int sig)
{
    (void)sig;
    /* mpirun terminates all ranks when one has failed, and then only rank 0 prints a last word */
    if (said) _exit(terminated ? EXIT_TERMINATED : EXIT_INTERRUPTED);
    if (!terminated || strncmp(atomo_mpi_label(), "rank ", 5) != 0 || strncmp(atomo_mpi_label(), "rank 0 ", 7) == 0)
        last_word(terminated
                      ? "terminated (SIGTERM: the job was cancelled, or another rank failed)\n"
                      : "interrupted in compiled code or a C call, leaving without a traceback (-joff shows one)\n");
    _exit(terminated ? EXIT_TERMINATED : EXIT_INTERRUPTED);
}

bool host_was_terminated(void)
{
    return terminated;
}

int host_signal_code(int code)
{
    return terminated ? EXIT_TERMINATED : host_interrupts ? EXIT_INTERRUPTED : code;
}

void host_signals_said(void)
{
    said = 1;
}

void host_interrupt_forget(void)
{
    if (terminated) return;
    stop_timer();
    atomo_child_forgive();
    lua_sethook(state, NULL, 0, 0);
    host_interrupts = said = 0;
}

void host_signals_script(lua_State *L)
{
    state = L;
}

void host_signals_install(void)
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    sigemptyset(&a.sa_mask);
    a.sa_handler = on_interrupt; /* without SA_RESTART: a read of the REPL is interrupted */
    sigaction(SIGINT, &a, NULL);
    a.sa_handler = on_terminate;
    sigaction(SIGTERM, &a, NULL);
    a.sa_handler = on_alarm;
    sigaction(SIGALRM, &a, NULL);
}
