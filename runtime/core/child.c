/* child.c - the one child process that a script has started and waits for (atomo.experiment). A signal that ends this
 * process is passed on to the child first, because the script itself runs no more code after the signal.
 *
 * A signal that arrives before the child's process id is stored is remembered in `told` and sent as soon as the id is
 * known. The id is cleared before the process is reaped, and reaping waits until no signal handler is between reading
 * the id and calling kill(), so a signal cannot hit another process that reuses the id. Handlers may run on any
 * thread. */
#include "core/core.h"
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static _Atomic int child;   /* process id; 0: none */
static _Atomic int told;    /* 1: a signal is ending this process, so a child that starts later is ended at once */
static _Atomic int sending; /* number of handlers that may have read `child` and not yet called kill() */

static void send_signal(int signal)
{
    sending++;
    const int pid = child;
    if (pid > 0) kill((pid_t)pid, signal);
    sending--;
}

void atomo_child_terminate(void)
{
    told = 1;
    send_signal(SIGTERM);
}

void atomo_child_forgive(void)
{
    told = 0;
}

int atomo_child_start(const char *line)
{
    ATOMO_REQUIRE(line, ATOMO_EARG, "process: a command is needed");
    ATOMO_REQUIRE(child == 0, ATOMO_EARG, "process: one is running already, expected at most one at a time");
    char shell[] = "sh", flag[] = "-c";
    char *argv[] = {shell, flag, (char *)(uintptr_t)line, NULL};
    pid_t pid;
    const int rc = posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ);
    ATOMO_REQUIRE(rc == 0, ATOMO_EIO, "process: cannot start /bin/sh: %s", strerror(rc));
    child = (int)pid;
    if (told) send_signal(SIGTERM);
    return ATOMO_OK;
}

void atomo_child_kill(int signal)
{
    send_signal(signal);
}

int atomo_child_poll(int *code)
{
    const int pid = child;
    ATOMO_REQUIRE(pid > 0 && code, ATOMO_EARG, "process: none is running, expected one that was started");
    siginfo_t over = {0};
    int rc, status = 0;
    do rc = waitid(P_PID, (id_t)pid, &over, WEXITED | WNOHANG | WNOWAIT);
    while (rc < 0 && errno == EINTR);
    if (rc == 0 && over.si_pid == 0) return 0;
    child = 0;
    while (sending) nanosleep(&(struct timespec){0, 1000}, NULL);
    ATOMO_REQUIRE(rc == 0 && waitpid((pid_t)pid, &status, 0) == pid, ATOMO_EIO, "process: cannot wait for its end: %s",
                  strerror(errno));
    *code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    return 1;
}

void atomo_child_await(double seconds)
{
    const double until = atomo_time() + seconds;
    int code;
    while (child > 0 && atomo_child_poll(&code) == 0 && atomo_time() < until)
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    child = 0;
}
