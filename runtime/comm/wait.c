/* wait.c - waiting for requests without stealing a core.
 *
 * MPI_Wait spins. Where the ranks (and their communication threads) outnumber the cores, a spinning wait takes the
 * time that a neighbour's backward pass needs. Here a wait polls, which also drives Open MPI's progress, gives way
 * between polls, and after a while sleeps for 50 microseconds at a time: below the latency of the links that are worth
 * compressing for. Path: stage 7.
 */
#include "comm/comm.h"
#include <sched.h>
#include <time.h>

enum { SPINS = 200 }; /* polls before the first sleep */

int atomo__comm_wait(int n, MPI_Request *requests)
{
    const struct timespec nap = {0, 50000};
    for (int polls = 0, over = 0;;) {
        ATOMO_MPI(MPI_Testall, n, requests, &over, MPI_STATUSES_IGNORE);
        if (over) {
            atomo__flight_progress();
            return ATOMO_OK;
        }
        if (++polls < SPINS)
            sched_yield();
        else
            nanosleep(&nap, NULL);
    }
}
