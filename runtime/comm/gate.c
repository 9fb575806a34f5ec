/* gate.c - functions that higher layers register: a gate before every operation, and functions to run when MPI starts
 * and ends. So comm need not know the exchange's threads or the watchdog. Path: stage 7. */
#include "comm/comm.h"

static _Atomic(void (*)(void)) current;

void atomo__gate_set(void (*gate)(void))
{
    current = gate;
}

void atomo__gate(void)
{
    void (*gate)(void) = current;
    if (gate) gate();
}

/* ---- the beginning and the end ---- */

static int (*starts[ATOMO__HOOKS])(atomo_comm *);
static struct {
    void (*before)(void), (*after)(void);
} ends[ATOMO__HOOKS];

void atomo__at_start(int (*start)(atomo_comm *world))
{
    int i = 0;
    while (i < ATOMO__HOOKS - 1 && starts[i] && starts[i] != start) i++;
    starts[i] = start;
}

void atomo__at_finalize(void (*before)(void), void (*after)(void))
{
    int i = 0;
    while (i < ATOMO__HOOKS - 1 && (ends[i].before || ends[i].after) &&
           (ends[i].before != before || ends[i].after != after))
        i++;
    ends[i].before = before;
    ends[i].after = after;
}

int atomo__run_start(atomo_comm *world)
{
    for (int i = 0; i < ATOMO__HOOKS && starts[i]; i++) ATOMO_TRY(starts[i](world));
    return ATOMO_OK;
}

void atomo__run_finalize(bool after)
{
    for (int i = 0; i < ATOMO__HOOKS; i++) {
        void (*end)(void) = after ? ends[i].after : ends[i].before;
        if (end) end();
    }
}
