/* wait.c - waiting for requests without stealing a core.
 *
 * MPI_Wait spins. Where the ranks (and their communication threads) outnumber the cores, a spinning wait takes the
 * time that a neighbour's backward pass needs. Here a wait polls, which also drives Open MPI's progress, gives way
 * between polls, and after a while sleeps for 50 microseconds at a time: below the latency of the links that are worth
 * compressing for. Where giving way took long others want this core: it sleeps from then on, for a sleeper is woken
 * when its time comes, where one that gives way waits for its turn. Path: stage 7.
 */
#include "comm/comm.h"
#include <sched.h>
#include <time.h>

enum { SPINS = 200 };            /* polls before the first sleep */
static const double LONG = 1e-4; /* seconds that giving way takes on a busy machine */

int atomo__comm_wait(int n, MPI_Request *requests)
{
    const struct timespec nap = {0, 50000};
    for (int polls = 0, over = 0;;) {
        ATOMO_MPI(MPI_Testall, n, requests, &over, MPI_STATUSES_IGNORE);
        if (over) return ATOMO_OK;
        if (++polls < SPINS) {
            const double from = atomo_time();
            sched_yield();
            if (atomo_time() - from > LONG) polls = SPINS;
        } else {
            nanosleep(&nap, NULL);
        }
    }
}
