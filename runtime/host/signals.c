/* signals.c - SIGINT and SIGTERM.
 *
 * A signal sets a hook, which stops interpreted Lua at its next line with an error and a traceback. Compiled loops and C
 * calls see no hooks: an alarm fires a second later, says a last word and ends the process. A second Ctrl-C ends it at
 * once. Handlers use async-signal-safe calls only; lua_sethook is made for them.
 */
#define _GNU_SOURCE
#include "host/host.h"
#include <signal.h>
#include <string.h>
#include <unistd.h>

static lua_State *state;
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

static void hook(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    lua_sethook(L, NULL, 0, 0);
    alarm(0);
    luaL_error(L, terminated ? "terminated (SIGTERM)" : "interrupted");
}

static void stop_soon(void)
{
    lua_sethook(state, hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
    alarm(1);
}

static void on_interrupt(int sig)
{
    (void)sig;
    if (++host_interrupts > 1) {
        last_word("interrupted twice, leaving\n");
        _exit(EXIT_INTERRUPTED);
    }
    stop_soon();
}

static void on_terminate(int sig)
{
    (void)sig;
    if (terminated) return;
    terminated = 1;
    stop_soon();
}

static void on_alarm(int sig)
{
    (void)sig;
    last_word(terminated ? "terminated (SIGTERM) in compiled code or a C call\n"
                         : "interrupted in compiled code or a C call, leaving without a traceback (-joff shows one)\n");
    _exit(terminated ? EXIT_TERMINATED : EXIT_INTERRUPTED);
}

bool host_was_terminated(void)
{
    return terminated;
}

void host_interrupt_forget(void)
{
    alarm(0);
    lua_sethook(state, NULL, 0, 0);
    host_interrupts = 0;
}

void host_signals_install(lua_State *L)
{
    state = L;
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
