/* wait.c - waits for requests without occupying a core.
 *
 * MPI_Wait spins. If there are more ranks and communication threads than cores, a spinning wait takes CPU time from
 * another rank's backward pass. This wait polls, which also drives Open MPI's progress, and yields between polls. After
 * SPINS polls it sleeps for 50 microseconds at a time, which is less than the latency of the links for which
 * compression pays. If one yield takes long, other threads want this core, and it sleeps from then on: a sleeping
 * thread runs when its time is over, whereas a yielding one waits for its turn in the run queue.
 *
 * With tens of ranks on a core the polls themselves would keep it busy. So once a sleep has ended late, which shows
 * that others run, sleeps become longer: a SHARE of the time that this wait has taken, which is then the most that it
 * can be late by. Path: stage 7.
 */
#include "comm/comm.h"
#include <sched.h>
#include <time.h>

enum { SPINS = 200 };                           /* polls before the first sleep */
static const double LONG = 1e-4;                /* seconds: a yield that takes longer means that the core is busy */
static const double LEAST = 50e-6, MOST = 2e-3; /* seconds: the shortest and the longest sleep */
static const double LATE = 5e-4;                /* seconds: a sleep that ends later means that the core is busy */
static const double SHARE = 1.0 / 16;
static const double LOOK = 0.02; /* seconds between two looks for ranks that have ended */

static void sleep_for(double seconds)
{
    nanosleep(&(struct timespec){0, (long)(1e9 * seconds)}, NULL);
}

atomo__pauses atomo__pauses_begin(void)
{
    return (atomo__pauses){.began = atomo_time(), .sleep = LEAST};
}

bool atomo__pauses_look(atomo__pauses *p)
{
    if (p->polls < SPINS || atomo_time() < p->look) return false;
    p->look = atomo_time() + LOOK;
    return true;
}

void atomo__pause(atomo__pauses *p)
{
    const double from = atomo_time();
    if (++p->polls < SPINS) {
        sched_yield();
        if (atomo_time() - from > LONG) p->polls = SPINS;
        return;
    }
    sleep_for(p->sleep);
    const double now = atomo_time();
    if (now - from > p->sleep + LATE) p->late = true;
    if (p->late) p->sleep = ATOMO_MAX(LEAST, ATOMO_MIN(SHARE * (now - p->began), MOST));
}

int atomo__comm_wait(atomo_comm *c, int n, MPI_Request *requests)
{
    atomo__pauses pauses = atomo__pauses_begin();
    for (int over = 0;;) {
        ATOMO_MPI(MPI_Testall, n, requests, &over, MPI_STATUSES_IGNORE);
        if (over) break;
        atomo__pause(&pauses);
        if (atomo__pauses_look(&pauses)) ATOMO_TRY(atomo__ended_look(c, &pauses));
    }
    atomo__flight_progress();
    return ATOMO_OK;
}
