/* request.h - an operation under way: what messages (request.c) and collectives that do not block (icollective.c)
 * share. Private. */
#ifndef ATOMO_REQUEST_H
#define ATOMO_REQUEST_H

#include "comm/comm.h"
#include "tensor/tensor.h"

/* What goes ahead of a message, on the control communicator: what its sender sends. */
typedef struct atomo__message_head {
    int32_t dtype, unused;
    double bytes;
} atomo__message_head;

struct atomo_request {
    struct atomo_request *next; /* in the list of abandoned ones */
    const char *what;           /* "irecv" */
    atomo_tensor *hold;         /* a view of the tensor */
    bool receives, writes;      /* a message whose length is checked; the tensor changes */
    bool open;                  /* counted among those that others may wait for */
    bool compares;              /* piece 0 tells what the other ranks do: a message's head, or fingerprints */
    bool unlike;                /* the head tells of another type or length than the tensor has */
    int operation;              /* COMM_*, of a collective */
    atomo_comm *comm;
    atomo_flight_group group; /* who takes part */
    int32_t peer;             /* of a message, in MPI_COMM_WORLD */
    int source, tag;          /* of a message: the other rank, in comm */
    int n, done, failed;      /* pieces; pieces finished; status of the first failure */
    int first;                /* the tensor's first piece: 1 where it compares, else 0 */
    atomo__message_head head;
    atomo_fingerprint own, *peers; /* this rank's; [size] */
    int64_t *expected;             /* [n] bytes, where receives */
    MPI_Request piece[];
};

/* peer: the other rank of a message, -1: all ranks of c take part. t: may be NULL. compares: as in the struct. */
int atomo__request_new(const char *what, atomo_comm *c, int peer, const atomo_tensor *t, bool compares,
                       atomo_request **out);
/* The i-th piece of t: its address, and its number of elements. */
char *atomo__request_piece(const atomo_tensor *t, int i, int *count);
/* Others may wait for what is posted (open), and need not any more when it is over. */
void atomo__request_count_open(atomo_request *r, bool open);
/* A failed post of piece `posted`: those before it stay with MPI. */
int atomo__request_post_failed(atomo_request *r, int posted, int rc, const char *fn);

#endif
