/* signals.c - SIGINT, SIGTERM, SIGUSR1 and SIGUSR2.
 *
 * A signal sets a Lua hook, which stops interpreted Lua at its next instruction with an error and a traceback. The hook
 * stays set, so that code whose pcall catches the error is stopped again at its next instruction. Hooks do not stop
 * compiled loops and C calls. So a timer fires soon after, prints a last word and ends the process. A second Ctrl-C
 * ends it at once. If no script runs (while MPI starts or ends, or a Lua state is closed) only the timer is used.
 *
 * While a training run saves checkpoints, SIGTERM is a request to it (runtime/core/requests.c): the run saves after its
 * step and ends the program with code 75. The timer ends the program with code 143 if the run does not get that far
 * before SIGKILL is due. SIGUSR2 is the same with more time, because mpirun forwards it and kills nobody. SIGUSR1 asks
 * the run to save and to continue.
 *
 * Handlers use async-signal-safe calls only; lua_sethook may be called in handlers.
 */
#define _GNU_SOURCE
#include "host/host.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static lua_State *volatile state;  /* NULL: no script runs */
static volatile sig_atomic_t said; /* a last word has been printed */
static volatile sig_atomic_t terminated;
static volatile sig_atomic_t raised;       /* the hook has raised its error */
static volatile sig_atomic_t to_all_ranks; /* the newest signal came from the launcher, which sends it to all ranks */
volatile int host_interrupts;

static int term_grace, user_grace; /* milliseconds from SIGTERM, SIGUSR2 to the timer, for a run that saves */

enum { EXIT_INTERRUPTED = 130, EXIT_TERMINATED = 143 };
enum { SAVE = 1, STOP = 2 }; /* of atomo_requests_note */

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

#define TERMINATED "terminated (SIGTERM: the job was cancelled, or another rank failed)"

static void hook(lua_State *L, lua_Debug *ar)
{
    const char *what = !terminated ? "interrupted" : to_all_ranks ? TERMINATED : "terminated (SIGTERM)";
    raised = 1;
    if (lua_getinfo(L, "Sl", ar) && ar->currentline > 0)
        lua_pushfstring(L, "%s:%d: %s", ar->short_src, ar->currentline, what);
    else
        lua_pushstring(L, what);
    lua_error(L);
}

static void start_timer(int milliseconds)
{
    struct itimerval t = {{0, 0}, {milliseconds / 1000, milliseconds % 1000 * 1000}};
    setitimer(ITIMER_REAL, &t, NULL);
}

static void stop_soon(int milliseconds)
{
    atomo_child_terminate();
    if (state) lua_sethook(state, hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
    start_timer(milliseconds);
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
    /* In a job mpirun takes a second to see that a rank has left, and the others half a second to end. */
    stop_soon(host_is_alone() ? 1000 : 500);
}

/* Returns whether this rank says that a signal has arrived. Of a signal to all ranks only rank 0 speaks, and nobody if
 * another rank has said what it ends the job for. */
static bool speaks(void)
{
    if (!to_all_ranks) return true;
    return strncmp(atomo_mpi_label(), "rank 0 ", 7) == 0 && !atomo_failure_elsewhere();
}

static void note_sender(const siginfo_t *info)
{
    const bool launcher = info->si_pid == getppid() || info->si_pid == 0; /* 0: a process outside this container */
    to_all_ranks = launcher && strncmp(atomo_mpi_label(), "rank ", 5) == 0;
}

static void on_terminate(int sig, siginfo_t *info, void *context) /* SIGTERM, SIGUSR2 */
{
    (void)context;
    if (terminated) return;
    terminated = 1;
    note_sender(info);
    if (atomo_requests_note(STOP))
        start_timer(sig == SIGTERM ? term_grace : user_grace);
    else
        stop_soon(500); /* mpirun sends SIGKILL after a second */
}

static void on_save(int sig, siginfo_t *info, void *context) /* SIGUSR1 */
{
    (void)sig;
    (void)context;
    note_sender(info);
    if (!atomo_requests_note(SAVE) && speaks()) last_word("SIGUSR1: no training run that saves is under way\n");
}

static void on_alarm(int sig)
{
    (void)sig;
    const bool is_saved = atomo_requests_stopped();
    if (!said && !is_saved && (!terminated || speaks()))
        last_word(terminated ? TERMINATED "\n"
                             : "interrupted in compiled code or a C call, leaving without a traceback (-joff shows "
                               "one)\n");
    _exit(host_signal_code(EXIT_INTERRUPTED));
}

bool host_was_terminated(void)
{
    return terminated || atomo_requests_stopped();
}

bool host_job_is_ending(void)
{
    return host_was_terminated() && (to_all_ranks || atomo_requests_stopped());
}

bool host_is_spoken_for(void)
{
    return raised && terminated && !speaks();
}

int host_signal_code(int code)
{
    if (atomo_requests_stopped()) return atomo_requests_stopped();
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
    host_interrupts = said = raised = 0;
}

void host_signals_script(lua_State *L)
{
    state = L;
}

/* Returns the seconds in an environment variable; `absent` if it is not set, or is no number of seconds. */
static double env_seconds(const char *name, double absent)
{
    const char *text = getenv(name);
    if (!text || !*text) return absent;
    char *end;
    const double v = strtod(text, &end);
    return *end == 0 && v > 0 && v < 1e6 ? v : absent;
}

/* Returns how long a run that saves may take from the signal on, in milliseconds: as the user says in ATOMO_GRACE, else
 * until mpirun sends SIGKILL, which it does not after SIGUSR2. A sixth of it, at most a second, stays for the end. */
static int grace(int signal)
{
    double seconds = signal == SIGTERM ? 10 : 30;
    if (signal == SIGTERM && getenv("OMPI_COMM_WORLD_SIZE"))
        seconds = env_seconds("OMPI_MCA_odls_base_sigkill_timeout", 1);
    seconds = env_seconds("ATOMO_GRACE", seconds);
    return (int)(1000 * (seconds < 6 ? seconds * 5 / 6 : seconds - 1));
}

void host_signals_install(void)
{
    term_grace = grace(SIGTERM);
    user_grace = grace(SIGUSR2);
    struct sigaction a;
    memset(&a, 0, sizeof a);
    sigemptyset(&a.sa_mask);
    a.sa_handler = on_interrupt; /* without SA_RESTART: a read of the REPL is interrupted */
    sigaction(SIGINT, &a, NULL);
    a.sa_handler = on_alarm;
    sigaction(SIGALRM, &a, NULL);
    a.sa_flags = SA_SIGINFO;
    a.sa_sigaction = on_terminate;
    sigaction(SIGTERM, &a, NULL);
    a.sa_flags |= SA_RESTART;
    sigaction(SIGUSR2, &a, NULL);
    a.sa_sigaction = on_save;
    sigaction(SIGUSR1, &a, NULL);
}
