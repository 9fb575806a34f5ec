/* engine.h - the queues of the exchange's two threads (engine.c) and their jobs. Private.
 *
 * A job holds everything that it touches, from its posting until it is over: tensors by their storages, parcels, sums,
 * inboxes and communicators by their counts of holders, arrays of numbers by a copy. So whatever a script frees, drops
 * or closes in the meantime, and in whatever order, the threads never meet memory that is gone. */
#ifndef ATOMO_ENGINE_H
#define ATOMO_ENGINE_H

#include "comm/comm.h"

/* The communication thread's queue; the coding thread's two: what ranks wait for, and the decoding for this one. */
enum { ENGINE_COMM, ENGINE_CODE, ENGINE_DECODE, ENGINE_LANES };

typedef struct atomo__job atomo__job;
struct atomo__job {
    int (*run)(const atomo__job *);
    double
        after;   /* ticket that must be over before: a communication job's, or of one of those ENGINE_CODE's; 0: none */
    int threads; /* of its kernels: the poster's */
    atomo_comm *comm;
    atomo_tensor tensor; /* that the operation is on, or in which the bytes lie that are sent; storage NULL: none */
    double at, nbytes;   /* those bytes */
    int root, grains;
    double *numbers; /* grains' sizes, or bytes for each rank; the job's own */
    atomo_inbox *inbox;
    atomo_sums *linear;
    atomo_parcel *parcel; /* what is sent; its bytes are known when it is coded */
    bool again;
    char note[ATOMO_FLIGHT_NOTE]; /* what it is for */
};

/* Queues a job; *ticket (out) counts the jobs of that queue. The job's comm, tensor, inbox, linear and parcel are the
 * caller's: the queue holds them for itself, and copies `count` numbers. A failure of a communication job ends the
 * engine's work, one of a coding job is the parcel's own affair: its run returns 0. */
int atomo__engine_post(int to, const atomo__job *j, int count, double *ticket);
/* Waits for a job of a queue; the first failure of a communication job. */
int atomo__engine_wait_for(int in, double ticket);

/* ---- sums of compressed gradients (bucket_linear.c) ---- */
int atomo__sums_set(atomo_sums *l, const atomo_tensor *const *grads, double step); /* what the next run adds up */
int atomo__sums_run(atomo_sums *l);                                                /* [collective] */
void atomo__sums_posted(atomo_sums *l, double ticket);                             /* its job; 0: there is none */

/* Counts of holders: each returns what it holds; atomo_comm_drop, atomo_sums_free, ... let go of it. */
atomo_inbox *atomo__inbox_hold(atomo_inbox *b);
atomo_parcel *atomo__parcel_hold(atomo_parcel *b);
atomo_sums *atomo__sums_hold(atomo_sums *l);

#endif
