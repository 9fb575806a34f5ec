/* engine.h - buckets (bucket.c), their operations (operations.c, bucket_coded.c, bucket_linear.c) and the two threads
 * that carry them out (engine.c). Private.
 *
 * A bucket holds everything that its operations touch: tensors by their storages, messages, sums, inboxes and
 * communicators by their counts of holders; and the lists of the threads hold buckets. So whatever a script frees,
 * drops or closes in the meantime, and in whatever order, the threads never meet memory that is gone. */
#ifndef ATOMO_ENGINE_H
#define ATOMO_ENGINE_H

#include "comm/comm.h"

/* The communication thread's list; the coding thread's two: what ranks wait for, and the decoding for this one. */
enum { ENGINE_COMM, ENGINE_CODE, ENGINE_DECODE, ENGINE_LANES };

typedef struct atomo__operation atomo__operation;
struct atomo__operation {
    int what;         /* ATOMO_OP_... */
    atomo_comm *comm; /* held; NULL: the coding thread's */
    bool back;        /* of the second way */
};

struct atomo_bucket {
    _Atomic int holders;
    int count, second; /* operations; index of the first of the second way */
    atomo__operation program[ATOMO_BUCKET_MAX];
    atomo_bucket *before; /* held; whose second way follows this one's first; NULL: none */
    bool last;            /* its own second way follows at once */
    char note[ATOMO_FLIGHT_NOTE];
    atomo_tensor tensor; /* held */
    double *grains;
    int grain_count;
    atomo_messages *up, *down, *result; /* held, as all below */
    atomo_inbox *inbox, *answer;
    atomo_sums *sums;
    double rank;
    bool into_gradients; /* result is decoded into the step's gradients */
    /* of a step */
    double step;
    int posted, done;  /* operations in the threads' lists so far, and over; under the engine's lock */
    atomo_tensor send; /* held; bytes at .. at + sizes of it */
    double at, *sizes; /* [ranks] */
};

/* What there is to know of an operation (operations.c). */
typedef struct atomo__operation_kind {
    int lane;
    int (*run)(atomo_bucket *, const atomo__operation *); /* a failure of a communication operation ends all work */
    bool (*check)(const atomo_bucket *, const atomo__operation *); /* that the bucket has what it needs */
} atomo__operation_kind;
const atomo__operation_kind *atomo__operation_of(int what);

/* Puts operations first .. end - 1 of b, which follow those that were posted, into the threads' lists. */
int atomo__engine_post(atomo_bucket *b, int first, int end);
/* Waits for what was posted of b; seconds (out): how long, but for decoding. The first failure of communication. */
int atomo__engine_wait_for(atomo_bucket *b, double *seconds);

/* Counts of holders: each returns what it holds; atomo_comm_drop, atomo_sums_free, ... let go of it. */
atomo_inbox *atomo__inbox_hold(atomo_inbox *b);
atomo_messages *atomo__messages_hold(atomo_messages *m);
atomo_sums *atomo__sums_hold(atomo_sums *l);
atomo_bucket *atomo__bucket_hold(atomo_bucket *b);

/* ---- coded messages (bucket_coded.c) ---- */
int atomo__messages_reserve(atomo_messages *m); /* makes room for messages: it will be encoded */
int atomo__messages_count(const atomo_messages *m);
int atomo__messages_ranks(const atomo_messages *m);
/* Tensors [count] of this step, or for good: what is encoded, or becomes the averages; EARG: not f32. NULL: none. */
int atomo__messages_set(atomo_messages *m, const atomo_tensor *const *tensors, bool for_good);
void atomo__messages_begin(atomo_messages *m);       /* a step's coding begins: nothing is in it, nothing has failed */
void atomo__messages_busy(atomo_messages *m, int n); /* its codec is in use (1), is not any more (-1) */
/* The operations; never fail: the ranks must meet. */
void atomo__messages_encode(atomo_messages *m);
void atomo__messages_average(atomo_messages *m, const atomo_messages *from, const atomo_inbox *inbox, double step,
                             double rank);
void atomo__messages_let_go(atomo_messages *m); /* of this step's tensors */
/* What it holds now, for this rank or all; sizes [ranks]. */
const uint8_t *atomo__messages_bytes(const atomo_messages *m, double *total, const double **sizes);
int atomo__messages_result(const atomo_messages *m, double *seconds); /* adds encoding's and decoding's [2] */

/* ---- sums of compressed gradients (bucket_linear.c) ---- */
int atomo__sums_set(atomo_sums *l, const atomo_tensor *const *grads, double step); /* what the next run adds up */
int atomo__sums_run(atomo_sums *l);                                                /* [collective] */
void atomo__sums_busy(atomo_sums *l, int n);                                       /* as of messages */
int atomo__sums_failed(const atomo_sums *l); /* what was wrong with a gradient, which counted as zeros */

#endif
