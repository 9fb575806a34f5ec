/* comm.h - what the files of runtime/comm share: the communicator, the wrapped MPI call, the agreement of ranks.
 * Private. */
#ifndef ATOMO_COMM_H
#define ATOMO_COMM_H

#include "comm/flight_recorder.h"
#include "core/core.h"
#include <mpi.h>
#include <stdatomic.h>

/* Every MPI call goes through this: a failure becomes ATOMO_EMPI with the function's name and MPI's own text. */
#define ATOMO_MPI(fn, ...)                                                                                             \
    do {                                                                                                               \
        int mpi_rc_ = fn(__VA_ARGS__);                                                                                 \
        if (mpi_rc_ != MPI_SUCCESS) return atomo__mpi_fail(mpi_rc_, #fn);                                              \
    } while (0)
int atomo__mpi_fail(int rc, const char *fn);

enum { ATOMO_COMM_TAG_MAX = 32000 }; /* users' tags: 0 .. this; ours are above */
enum {
    TAG_GATHER = ATOMO_COMM_TAG_MAX + 1,
    TAG_ALLTOALLV = ATOMO_COMM_TAG_MAX + 2,
    TAG_RING = ATOMO_COMM_TAG_MAX + 3
}; /* MPI promises 32767 tags */

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
    X(SPLIT, "split")                                                                                                  \
    X(CHECK, "check")                                                                                                  \
    X(END, "the end of the program")
#define ATOMO_COMM_OPERATION_ENUM(name, text) COMM_##name,
enum { ATOMO_COMM_OPERATIONS(ATOMO_COMM_OPERATION_ENUM) COMM_OPERATIONS };

/* What a rank says of the operation that it is in; 48 bytes, the same on every rank where `exact`, else but for count.
 */
typedef struct atomo_fingerprint {
    uint32_t sequence; /* agreements on this communicator so far */
    uint16_t operation, dtype;
    int32_t detail; /* root, reduction, or 0 */
    uint32_t crc;   /* of the whole tag, or of the value compared */
    double count;   /* elements, or bytes of this rank's message */
    char tag[24];   /* as much of the tag as fits */
} atomo_fingerprint;
_Static_assert(sizeof(atomo_fingerprint) == 48, "ranks exchange it as bytes");

/* A communicator is opened with CHECK_BLOCKING; atomo_comm_set_checked asks for the others. */
enum { CHECK_NONE, CHECK_BLOCKING, CHECK_ALL };

struct atomo_comm {
    _Atomic int holders;
    bool closed;           /* its MPI communicators are gone; the rest goes with the last holder */
    MPI_Comm mpi, control; /* control: agreements, so that they never meet another operation's messages */
    int rank, size, local_rank, local_size;
    uint32_t sequence;        /* agreements */
    atomo_flight_group group; /* for the flight recorder; its ranks lie in world_rank */
    int32_t *world_rank;      /* [size] */
    int checked;              /* CHECK_*: which collectives are preceded by an agreement */
    char tag[64];             /* what the next operations are for; part of their fingerprints */
    _Atomic int64_t bytes_out, bytes_in;
    atomo_fingerprint *peers; /* [size], of the last agreement */
    int *counts, *displs;     /* [size] */
};

extern int64_t atomo__comm_chunk; /* bytes of the largest single message */
extern int atomo__comm_checked;   /* so on every communicator */

int atomo__comm_open(MPI_Comm from, atomo_comm **out);
atomo_comm *atomo__comm_hold(atomo_comm *c); /* returns it */
void atomo__comm_drop(atomo_comm *c);        /* NULL is fine; never calls MPI */
int atomo__comm_usable(const atomo_comm *c, const char *fn);
int atomo__comm_root(const atomo_comm *c, int root, const char *fn);
int atomo__comm_buffer(const atomo_tensor *t, const char *what); /* not NULL, contiguous */
MPI_Datatype atomo__mpi_type(int dtype);
int atomo__mpi_op(int op, const char *fn, MPI_Op *out);

/* [collective] Exchanges fingerprints (c->peers) and compares; EMISMATCH on every rank, naming two that differ. */
int atomo__fingerprint_compare(atomo_comm *c, int operation, int dtype, int detail, double count, bool exact);
/* The same where the communicator is checked (unless atomo_comm_set_checked says no), else nothing. */
int atomo__fingerprint_compare_if_checked(atomo_comm *c, int operation, int dtype, int detail, double count);
/* The same for a collective that does not block: an agreement waits for all ranks, so only a communicator whose
 * collectives are all checked has it. */
int atomo__fingerprint_compare_if_all(atomo_comm *c, int operation, int dtype, int detail, double count);

/* One all-reduce of at most INT_MAX elements in place. */
int atomo__allreduce(atomo_comm *c, void *data, int count, MPI_Datatype type, MPI_Op op);
/* A sum of f32 made of grains [grains] elements long, `count` together; the bits do not depend on the grouping. */
int atomo__allreduce_grains(atomo_comm *c, float *data, int64_t count, const double *grain, int grains);
/* A sum of f32 that travels in 16 bits, rounded as `how` says (tensor/float16.h). */
struct atomo__rounding;
int atomo__allreduce_half(atomo_comm *c, float *data, int count, const struct atomo__rounding *how);
/* Blocks of c->peers[r].count bytes from every rank to `recv`, one after the other. */
int atomo__gather_blocks(atomo_comm *c, const void *send, void *recv);

/* ---- what layers above this one have a say in (gate.c) ---- */
/* Every operation of a communicator first calls the gate: whoever else calls MPI, on a thread of its own, sets one that
 * waits until that thread is out of it. NULL: there is no such thread. */
void atomo__gate_set(void (*gate)(void));
void atomo__gate(void);
/* Registers what begins with MPI and ends with it, once each; at most ATOMO__HOOKS of a kind.
 * start: [collective], when MPI is up, with the communicator of all ranks.
 * before: at the end, also where MPI never ran, before anything else. after: when MPI is down. */
enum { ATOMO__HOOKS = 4 };
void atomo__at_start(int (*start)(atomo_comm *world));
void atomo__at_finalize(void (*before)(void), void (*after)(void)); /* NULL: nothing */
int atomo__run_start(atomo_comm *world);
void atomo__run_finalize(bool after);

/* Waits for all requests without keeping a core from others: polls, then gives way, then sleeps a little. */
int atomo__comm_wait(int n, MPI_Request *requests);

typedef struct atomo_blocks {
    void *data;
    double bytes;
} atomo_blocks;
/* send[r] to rank r, recv[r] from rank r ([size] each); the lengths are known at both ends. */
int atomo__comm_swap(atomo_comm *c, const atomo_blocks *send, const atomo_blocks *recv);

static inline void atomo__comm_count(atomo_comm *c, double out, double in)
{
    atomic_fetch_add_explicit(&c->bytes_out, (int64_t)out, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->bytes_in, (int64_t)in, memory_order_relaxed);
}

static inline double atomo__tensor_bytes(const atomo_tensor *t)
{
    return t->numel * (t->dtype == ATOMO_U8 ? 1 : 4);
}

int atomo__requests_open(void);       /* messages that this rank sends, and collectives, that are not over */
void atomo__requests_reap(bool last); /* gives back what unfinished, collected requests held */

#endif
