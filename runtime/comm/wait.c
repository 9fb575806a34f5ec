/* wait.c - waits for requests without occupying a core.
 *
 * MPI_Wait spins. If there are more ranks and communication threads than cores, a spinning wait takes CPU time from
 * another rank's backward pass. This wait polls, which also drives Open MPI's progress, and yields between polls. After
 * SPINS polls it sleeps for 50 microseconds at a time, which is less than the latency of the links for which
 * compression pays. If one yield takes long, other threads want this core, and it sleeps from then on: a sleeping
 * thread runs when its time is over, whereas a yielding one waits for its turn in the run queue. Path: stage 7.
 */
#include "comm/comm.h"
#include <sched.h>
#include <time.h>

enum { SPINS = 200 };            /* polls before the first sleep */
static const double LONG = 1e-4; /* seconds: a yield that takes longer means that the core is busy */

int atomo__comm_wait(int n, MPI_Request *requests)
{
    const struct timespec nap = {0, 50000};
    for (int polls = 0, over = 0;;) {
        ATOMO_MPI(MPI_Testall, n, requests, &over, MPI_STATUSES_IGNORE);
        if (over) {
            atomo__flight_progress();
            return ATOMO_OK;
        }
        if (++polls < SPINS) {
            const double from = atomo_time();
            sched_yield();
            if (atomo_time() - from > LONG) polls = SPINS;
        } else {
            nanosleep(&nap, NULL);
        }
    }
}
