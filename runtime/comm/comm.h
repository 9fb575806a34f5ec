/* comm.h - the communicator, the macro for MPI calls, and fingerprints, which the files of runtime/comm share. Private.
 */
#ifndef ATOMO_COMM_H
#define ATOMO_COMM_H

#include "comm/flight_recorder.h"
#include "tensor/tensor.h"
#include <mpi.h>
#include <stdatomic.h>

/* Calls an MPI function; on failure returns ATOMO_EMPI from the caller, with the function's name and MPI's error text.
 */
#define ATOMO_MPI(fn, ...)                                                                                             \
    do {                                                                                                               \
        int mpi_rc_ = fn(__VA_ARGS__);                                                                                 \
        if (mpi_rc_ != MPI_SUCCESS) return atomo__mpi_fail(mpi_rc_, #fn);                                              \
    } while (0)
int atomo__mpi_fail(int rc, const char *fn);

enum { ATOMO_COMM_TAG_MAX = 32000 }; /* users' tags are 0 .. this, the library's are above */
enum {
    TAG_GATHER = ATOMO_COMM_TAG_MAX + 1,
    TAG_ALLTOALLV = ATOMO_COMM_TAG_MAX + 2,
    TAG_RING = ATOMO_COMM_TAG_MAX + 3,
    TAG_REDUCE = ATOMO_COMM_TAG_MAX + 4,
    TAG_PIECES = ATOMO_COMM_TAG_MAX + 5, /* .. + PIECES_TAGS - 1 on `control`: later pieces of messages (request.c) */
    PIECES_TAGS = 512,
    TAG_ASK = TAG_PIECES + PIECES_TAGS, /* on `mpi`: has your script ended? (ended.c) */
    TAG_ENDED = TAG_ASK + 1             /* on both: it has */
};                                      /* MPI guarantees tags up to 32767 */

/* The operations that a fingerprint names. */
#define ATOMO_COMM_OPERATIONS(X)                                                                                       \
    X(BARRIER, "barrier")                                                                                              \
    X(BCAST, "bcast")                                                                                                  \
    X(ALLREDUCE, "allreduce")                                                                                          \
    X(REDUCE, "reduce")                                                                                                \
    X(GATHER, "gather")                                                                                                \
    X(ALLGATHER, "allgather")                                                                                          \
    X(ALLGATHERV, "allgatherv")                                                                                        \
    X(ALLTOALLV, "alltoallv")                                                                                          \
    X(ALLGATHER_PARTS, "allgather_parts")                                                                              \
    X(SPLIT, "split")                                                                                                  \
    X(IBARRIER, "ibarrier")                                                                                            \
    X(IBCAST, "ibcast")                                                                                                \
    X(IALLREDUCE, "iallreduce")                                                                                        \
    X(CHECK, "check")                                                                                                  \
    X(END, "the end of the program")
#define ATOMO_COMM_OPERATION_ENUM(name, text) COMM_##name,
enum { ATOMO_COMM_OPERATIONS(ATOMO_COMM_OPERATION_ENUM) COMM_OPERATIONS };

/* Describes the operation that a rank is about to run, in 48 bytes. It must be equal on all ranks; `count` may differ
 * unless the comparison is exact. */
typedef struct atomo_fingerprint {
    uint32_t sequence;         /* comparisons on this communicator so far */
    uint16_t operation, dtype; /* COMM_*, ATOMO_F32 ... */
    int32_t detail;            /* root, reduction, or 0 */
    uint32_t crc;              /* CRC-32 of the whole tag and note, or of the value compared */
    double count;              /* elements, or bytes of this rank's message */
    char tag[24];              /* the first bytes of the tag, or of the note if there is no tag */
} atomo_fingerprint;
_Static_assert(sizeof(atomo_fingerprint) == 48, "ranks exchange it as bytes");

/* Which collectives compare fingerprints first: none, the blocking ones (the default), all (atomo_comm_set_checked). */
enum { CHECK_NONE, CHECK_BLOCKING, CHECK_ALL };

/* How many collectives of a communicator a rank has begun: blocking and other ones. */
typedef struct atomo_collectives {
    uint32_t blocking, other;
} atomo_collectives;

/* What a rank knows of the end of another one's script (ended.c). */
typedef struct atomo__end {
    bool asked, here, here_control; /* that rank was asked; its answer has come on `mpi`, on `control` */
    bool asks;                      /* it has asked, and was not answered yet */
    atomo_collectives begun;        /* by that rank, from its answer */
} atomo__end;

struct atomo_comm {
    struct atomo_comm *next; /* in the list of open communicators */
    _Atomic int holders;
    bool closed;           /* its MPI communicators are freed; the rest is freed with the last holder */
    MPI_Comm mpi, control; /* control: for fingerprints, so that they cannot match another operation's messages */
    int rank, size, local_rank, local_size;
    uint32_t sequence;        /* comparisons of fingerprints so far */
    uint32_t messages;        /* messages with a head sent so far */
    atomo_flight_group group; /* for the flight recorder; its ranks are world_rank */
    int32_t *world_rank;      /* [size] rank in MPI_COMM_WORLD */
    int checked;              /* CHECK_*: which collectives compare fingerprints first */
    char tag[64];             /* purpose of the next operations, part of their fingerprints; "": none */
    char parted[320];         /* error text after ranks began different collectives: c is unusable; "": usable */
    _Atomic int64_t bytes_out, bytes_in;
    atomo_fingerprint *fingerprints; /* [size] of all ranks, in the last comparison */
    atomo__end *ends;                /* [size] */
    int unanswered;                  /* ranks that ask */
    atomo_collectives begun;         /* by this rank; `blocking` is set at the end */
    int *counts, *displs;            /* [size] scratch for MPI_Iallgatherv */
};

extern int64_t atomo__comm_chunk;     /* bytes of the largest single message, a multiple of 4 */
extern int atomo__comm_checked;       /* 1: all collectives on all communicators compare fingerprints first */
extern atomo_comm *atomo__comms_open; /* the newest open communicator; the last of the list is the world */

int atomo__comm_open(MPI_Comm from, atomo_comm **out); /* [collective] */
atomo_comm *atomo__comm_hold(atomo_comm *c);           /* adds a holder; returns c */
void atomo__comm_drop(atomo_comm *c);                  /* removes a holder; NULL is allowed; never calls MPI */
/* Checks that c is open and MPI runs, then passes the gate; fn is the operation's name in errors. */
int atomo__comm_usable(const atomo_comm *c, const char *fn);
int atomo__comm_root(const atomo_comm *c, int root, const char *fn); /* EARG unless 0 <= root < size */
int atomo__comm_buffer(const atomo_tensor *t, const char *what);     /* checks that t is not NULL and contiguous */
MPI_Datatype atomo__mpi_type(int dtype);
int atomo__mpi_op(int op, int dtype, const char *fn, MPI_Op *out); /* op: ATOMO_MPI_* */

/* [collective] Exchanges fingerprints (into c->fingerprints) and compares them; EMISMATCH on every rank, with a text
 * that names two ranks that differ. exact: counts must be equal, too. */
int atomo__fingerprint_compare(atomo_comm *c, int operation, int dtype, int detail, double count, bool exact);
/* The same, exact, if c->checked or atomo__comm_checked asks for it, else nothing. */
int atomo__fingerprint_compare_if_checked(atomo_comm *c, int operation, int dtype, int detail, double count);
/* The same for non-blocking collectives. A comparison waits for all ranks, so it is made only with CHECK_ALL or
 * atomo__comm_checked. Otherwise ranks compare when they wait for the request (icollective.c). */
int atomo__fingerprint_compare_if_all(atomo_comm *c, int operation, int dtype, int detail, double count);
bool atomo__comm_compares_late(const atomo_comm *c);
/* Returns this rank's fingerprint of its next operation, to be sent to all ranks. */
atomo_fingerprint atomo__fingerprint_make(atomo_comm *c, int operation, int dtype, int detail, double count);
/* Compares all ranks' fingerprints [size] of a collective that has begun. EMISMATCH on every rank if they
 * differ; then c->parted is set, because MPI cannot cancel the collective. */
int atomo__fingerprint_judge_late(atomo_comm *c, const atomo_fingerprint *fingerprints, int operation);

/* All-reduce of `count` elements in place. */
int atomo__allreduce(atomo_comm *c, void *data, int count, MPI_Datatype type, MPI_Op op);
/* The same on rank root, in place there; on the others data is unchanged. */
int atomo__reduce(atomo_comm *c, void *data, int count, MPI_Datatype type, MPI_Op op, int root);
/* Sum of f32 in place. data consists of `grains` grains of grain[i] elements, `count` together. The bits of a grain do
 * not depend on the others. */
int atomo__allreduce_grains(atomo_comm *c, float *data, int64_t count, const double *grain, int grains);
/* Sum of f32 in place that is sent in 16 bits, rounded as `how` says (tensor/float16.h). */
struct atomo__rounding;
int atomo__allreduce_half(atomo_comm *c, float *data, int count, const struct atomo__rounding *how);
/* All-gather of c->fingerprints[r].count bytes from each rank r; recv holds the blocks in the order of ranks. */
int atomo__gather_blocks(atomo_comm *c, const void *send, void *recv);

/* ---- functions that higher layers register (gate.c) ---- */
/* Every operation on a communicator first calls the gate. A layer that calls MPI on a thread of its own sets a gate
 * that waits until that thread no longer calls MPI. NULL: there is no such thread. */
void atomo__gate_set(void (*gate)(void));
void atomo__gate(void);
/* Registers functions to run when MPI starts and ends, each only once; at most ATOMO__HOOKS of each kind.
 * start: [collective], after MPI has started, with the communicator of all ranks.
 * before: at the end of the program, before MPI ends, also if MPI never ran. after: after MPI has ended. */
enum { ATOMO__HOOKS = 4 };
void atomo__at_start(int (*start)(atomo_comm *world));
void atomo__at_finalize(void (*before)(void), void (*after)(void)); /* either may be NULL */
int atomo__run_start(atomo_comm *world);
void atomo__run_finalize(bool after);

/* Pauses between the polls of a wait: yields at first, later sleeps (wait.c). Begin anew with every wait. */
typedef struct atomo__pauses {
    double began, sleep; /* seconds: when the wait began; the next sleep */
    double look, vain;   /* when to look next for ranks that have ended; when one was found, 0: none */
    int polls;
    bool late; /* a sleep has ended late, so others want this core */
} atomo__pauses;
atomo__pauses atomo__pauses_begin(void);
void atomo__pause(atomo__pauses *pauses);
bool atomo__pauses_look(atomo__pauses *pauses); /* returns whether it is time to look for ranks that have ended */
/* Waits for n requests of a collective of c without occupying a core, by polls with pauses. EMISMATCH: a rank that it
 * needs has ended. */
int atomo__comm_wait(atomo_comm *c, int n, MPI_Request *requests);

/* ---- ranks whose scripts have ended (ended.c) ---- */
/* Called in a wait for the newest blocking collective of c: EMISMATCH if a rank that has not begun it has ended. At the
 * end of the program: answers the ranks that ask. */
int atomo__ended_look(atomo_comm *c, atomo__pauses *pauses);
void atomo__ended_script(void); /* this rank's script has ended */
/* Nothing more is sent: from now on ranks that ask are answered. Fails if a wait failed since the script's end. */
int atomo__ended_begin(void);

typedef struct atomo_blocks {
    void *data;
    double bytes;
} atomo_blocks;
/* All-to-all: sends send[r] to rank r and receives recv[r] from rank r ([size] each). Lengths must match at both ends.
 */
int atomo__comm_swap(atomo_comm *c, const atomo_blocks *send, const atomo_blocks *recv);

static inline void atomo__comm_count(atomo_comm *c, double out, double in)
{
    atomic_fetch_add_explicit(&c->bytes_out, (int64_t)out, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->bytes_in, (int64_t)in, memory_order_relaxed);
}

static inline double atomo__tensor_bytes(const atomo_tensor *t)
{
    return t->numel * (double)atomo__dtype_size(t->dtype);
}

int atomo__requests_open(void);       /* number of unfinished sends and non-blocking collectives of this rank */
void atomo__requests_reap(bool last); /* frees abandoned requests that are done; last: cancels all receives */
/* Returns whether a message from that rank of c is being received. */
bool atomo__requests_receive_from(const atomo_comm *c, int rank);

#endif
