/* request.h - requests, which stand for unfinished messages (request.c) and non-blocking collectives (icollective.c).
 * Private. */
#ifndef ATOMO_REQUEST_H
#define ATOMO_REQUEST_H

#include "comm/comm.h"
#include "tensor/tensor.h"

/* Type and length of a message. The sender sends it ahead of the message, on the control communicator. */
typedef struct atomo__message_head {
    int32_t dtype;
    int32_t tag; /* of the message's pieces after the first, on the control communicator */
    double bytes;
} atomo__message_head;

struct atomo_request {
    struct atomo_request *next, **at; /* in a list of unfinished requests; what points to this one there */
    const char *what;                 /* the operation's name in errors: "irecv" */
    atomo_tensor *hold;               /* a view of the tensor, which keeps its memory; NULL: none (a barrier) */
    bool message;                     /* else a collective */
    bool receives;                    /* a message to this rank, whose length is checked */
    bool writes;                      /* the operation changes the tensor */
    bool open;                        /* unfinished, and other ranks may wait for it: counted by atomo__requests_open */
    bool compares;                    /* piece 0 is a message's head, or all ranks' fingerprints */
    bool mismatch;                    /* the head's type or length differs from the tensor's */
    int operation;                    /* of a collective: COMM_*; 0: a message */
    atomo_comm *comm;
    atomo_flight_group group; /* the ranks that take part */
    uint32_t ordinal;         /* of a collective: number among the communicator's non-blocking ones */
    int32_t peer;             /* of a message: the other rank, in MPI_COMM_WORLD */
    int source, tag;          /* of a message: the other rank, in comm; its tag */
    int n, done, failed;      /* number of pieces; of pieces that are done; status of the first failure */
    int first;                /* the tensor's first piece: 1 if `compares`, else 0 */
    atomo__message_head head;
    atomo_fingerprint own, *fingerprints; /* of a collective: this rank's; [size] all ranks' */
    int64_t *expected;                    /* of a receive: [n] bytes of each piece */
    MPI_Request piece[];
};

/* Makes a request without pieces under way. peer: the other rank of a message; -1: all ranks of c take part. t may be
 * NULL. what, compares: as in the struct. */
int atomo__request_new(const char *what, atomo_comm *c, int peer, const atomo_tensor *t, bool compares,
                       atomo_request **out);
/* Returns the address of the i-th piece of t, and its number of elements in *count. */
char *atomo__request_piece(const atomo_tensor *t, int i, int *count);
/* Notes tag and rank of message r as the purpose of the wait with token `flight`; look: with the tag of another message
 * that is here, or not at all. */
void atomo__request_note_tag(const atomo_request *r, uint64_t flight, bool look);
/* Returns the tag of the first message from r's source that nobody has received, if not r's, else -1. */
int atomo__request_other_tag(const atomo_request *r);
/* Waits for piece i, as MPI_Wait does; while the head of a message does not come, looks for others. Sets r->failed if a
 * rank that it needs has ended. */
int atomo__request_wait_piece(atomo_request *r, int i, uint64_t flight, MPI_Status *s);
/* Called in a wait for piece i: EMISMATCH if it is in vain, because a rank has ended (ended.c). */
int atomo__ended_look_request(atomo_request *r, int i, atomo__pauses *pauses);
/* Sets r->open, and counts r among the open requests or no longer. */
void atomo__request_count_open(atomo_request *r, bool open);
/* Frees a request of which MPI function `fn` could not start piece number `posted`; MPI still works on the pieces
 * before it. Returns the status for MPI's code rc. */
int atomo__request_post_failed(atomo_request *r, int posted, int rc, const char *fn);

#endif
