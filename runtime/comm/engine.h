/* engine.h - the queues of the exchange's two threads (engine.c) and their jobs. Private. */
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
    atomo_tensor *tensor;
    const void *send;
    double nbytes;
    int root, grains;
    const double *grain;
    const double *counts_out;
    atomo_tensor **recv;
    double *counts;
    atomo_sums *linear;
    atomo_parcel *parcel; /* what is sent; nbytes and counts_out are known when it is coded */
    bool again;
    char note[ATOMO_FLIGHT_NOTE]; /* what it is for */
};

/* Queues a job; *ticket (out) counts the jobs of that queue. A failure of a communication job ends the engine's work,
 * one of a coding job is the parcel's own affair: its run returns 0. */
int atomo__engine_post(int to, const atomo__job *j, double *ticket);
/* Waits for a job of a queue; the first failure of a communication job. */
int atomo__engine_wait_for(int in, double ticket);

#endif
