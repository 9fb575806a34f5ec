/* requests.c - requests by signal to a training run that saves: to save and continue, or to save and stop. A signal
 * handler notes them, because it cannot save itself; atomo.train takes them after a step, when all ranks can save. */
#include "core/core.h"
#include <stdatomic.h>

enum { EXIT_SAVED = 75 }; /* EX_TEMPFAIL of BSD: run the command again, it continues */

static _Atomic int is_open; /* a run that takes requests is under way */
static _Atomic int noted;   /* sum of the requests that have not been taken */
static _Atomic int stopped; /* a run has saved because it was asked to stop */

void atomo_requests_open(int on)
{
    is_open = on != 0;
}

int atomo_requests_note(int asked)
{
    if (!is_open) return 0;
    noted |= asked;
    return 1;
}

int atomo_requests_take(void)
{
    return atomic_exchange(&noted, 0);
}

int atomo_requests_stop(void)
{
    stopped = EXIT_SAVED;
    return EXIT_SAVED;
}

int atomo_requests_stopped(void)
{
    return stopped;
}
