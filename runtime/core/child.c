/* child.c - the process that a script has started and waits for (atomo.experiment). A signal that ends this process
 * reaches the child first, because a script that a signal stops runs no more of its own code. */
#include "core/core.h"
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

static volatile sig_atomic_t child; /* process id; 0: none */

void atomo_child_note(int pid)
{
    child = pid;
}

void atomo_child_terminate(void)
{
    if (child > 0) kill((pid_t)child, SIGTERM);
}

void atomo_child_await(double seconds)
{
    const double until = atomo_time() + seconds;
    while (child > 0 && waitpid((pid_t)child, NULL, WNOHANG) == 0 && atomo_time() < until)
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    child = 0;
}
