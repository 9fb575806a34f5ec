/* engine.h - buckets (bucket.c), their operations (operations.c, bucket_coded.c, bucket_linear.c) and the two threads
 * that run them (engine.c). Private.
 *
 * A bucket holds a reference to everything that its operations touch: the storages of tensors, messages, sums, inboxes
 * and communicators. The threads' queues hold references to buckets. So a script may free, drop or close any of them at
 * any time and in any order, and the threads never access freed memory. */
#ifndef ATOMO_ENGINE_H
#define ATOMO_ENGINE_H

#include "comm/comm.h"

/* Queues of operations: the communication thread's; the coding thread's two, for operations that other ranks wait for
 * and for decoding for this rank. */
enum { ENGINE_COMM, ENGINE_CODE, ENGINE_DECODE, ENGINE_QUEUES };

typedef struct atomo__operation atomo__operation;
struct atomo__operation {
    int what;         /* ATOMO_OP_... */
    atomo_comm *comm; /* held; NULL: an operation of the coding thread */
    bool back;        /* belongs to the second way */
};

struct atomo_bucket {
    _Atomic int holders;
    int count, second; /* number of operations; index of the first one of the second way (count: there is none) */
    atomo__operation program[ATOMO_BUCKET_MAX];
    atomo_bucket *before; /* held: the bucket whose second way is started after this one's first way; NULL: none */
    bool last;            /* its own second way is started directly after its first */
    char note[ATOMO_FLIGHT_NOTE]; /* its name, for the flight recorder and error texts */
    /* from the plan (atomo_bucket_plan); pointers are held */
    atomo_tensor tensor;
    double *grains; /* [grain_count], a copy; NULL: no grains */
    int grain_count;
    atomo_messages *up, *down, *result;
    atomo_inbox *inbox, *answer;
    atomo_sums *sums;
    double rank;
    bool into_gradients; /* result is decoded into the step's gradients */
    /* of the current step */
    double step;
    int posted, done;  /* operations posted to the threads' queues, operations done; guarded by the engine's lock */
    atomo_tensor send; /* held: the bytes given to atomo_bucket_send */
    double at, *sizes; /* offset of the first byte in send; [ranks] bytes for each rank */
};

/* The properties of an operation (operations.c). */
typedef struct atomo__operation_kind {
    int queue;                                                     /* ENGINE_COMM, ENGINE_CODE or ENGINE_DECODE */
    int (*run)(atomo_bucket *, const atomo__operation *);          /* a failure stops the work of both threads */
    bool (*check)(const atomo_bucket *, const atomo__operation *); /* whether the bucket has the fields that it needs */
} atomo__operation_kind;
const atomo__operation_kind *atomo__operation_of(int what);

/* Appends operations first .. end - 1 of b, the next after those posted already, to the threads' queues. */
int atomo__engine_post(atomo_bucket *b, int first, int end);
/* Waits until all posted operations of b are done. *seconds = the time waited, without that for decoding. Returns the
 * status of the first failed communication operation of any bucket. */
int atomo__engine_wait_for(atomo_bucket *b, double *seconds);

/* Each adds a holder and returns its argument; atomo_inbox_free, atomo_messages_free, ... remove a holder. */
atomo_inbox *atomo__inbox_hold(atomo_inbox *b);
atomo_messages *atomo__messages_hold(atomo_messages *m);
atomo_sums *atomo__sums_hold(atomo_sums *l);
atomo_bucket *atomo__bucket_hold(atomo_bucket *b);

/* ---- coded messages (bucket_coded.c) ---- */
int atomo__messages_reserve(atomo_messages *m); /* allocates memory for encoding; called when a bucket is planned */
int atomo__messages_count(const atomo_messages *m);
int atomo__messages_ranks(const atomo_messages *m);
/* Sets the tensors [count] to encode, or to write averages to, for this step or (for_good) for all steps. They are
 * held. tensors NULL: there are none. EDTYPE, ESHAPE: not contiguous f32. */
int atomo__messages_set(atomo_messages *m, const atomo_tensor *const *tensors, bool for_good);
void atomo__messages_begin(atomo_messages *m);       /* begins a step: no messages, no failure, 0 seconds */
void atomo__messages_busy(atomo_messages *m, int n); /* counts its codec as in use (n = 1) or no longer in use (-1) */
/* The operations. They record failures in m and leave the messages empty, so that communication continues on all ranks.
 * average: m's tensors become the averages of the messages in the inbox, decoded by `from`'s codec. */
void atomo__messages_encode(atomo_messages *m);
void atomo__messages_average(atomo_messages *m, const atomo_messages *from, const atomo_inbox *inbox, double step,
                             double rank);
void atomo__messages_let_go(atomo_messages *m); /* drops tensors that were set for this step */
/* Returns the encoded messages; *total: their bytes; *sizes [ranks]: bytes for each rank. */
const uint8_t *atomo__messages_bytes(const atomo_messages *m, double *total, const double **sizes);
/* Adds the seconds of encoding and decoding to seconds [2]; returns the status of the first failure. */
int atomo__messages_result(const atomo_messages *m, double *seconds);

/* ---- sums of compressed gradients (bucket_linear.c) ---- */
/* Sets and holds the gradients [count] of the next run; NULL: they count as zeros. */
int atomo__sums_set(atomo_sums *l, const atomo_tensor *const *grads, double step);
int atomo__sums_run(atomo_sums *l);          /* [collective] */
void atomo__sums_busy(atomo_sums *l, int n); /* as atomo__messages_busy */
int atomo__sums_failed(const atomo_sums *l); /* status and text of this rank's first bad gradient, which counted as 0 */

#endif
