/* query.h - how the watchdogs of a job reach each other. Private to runtime/watchdog. */
#ifndef ATOMO_QUERY_H
#define ATOMO_QUERY_H

#include "comm/comm.h"

enum { QUERY_ADDRESSES = 6, QUERY_HOST = 64 };

/* What a rank does, as its watchdog says it. */
typedef struct atomo_query_state {
    int32_t waiting;    /* 1: in an operation, 0: in its script */
    int32_t ended;      /* 1: at the end of the program, with nothing left to send */
    uint32_t number;    /* of the collective, or of the last one */
    double seconds;     /* in the operation without progress, or since the last one */
    double step;        /* of training, -1: none */
    char operation[24]; /* under way, or the last one; "" before the first */
    char note[ATOMO_FLIGHT_NOTE];
} atomo_query_state;

/* A rank of the job. */
typedef struct atomo_peer {
    int32_t rank, pid; /* in MPI_COMM_WORLD */
    uint64_t key;      /* what packets to it must carry */
    uint32_t address[QUERY_ADDRESSES];
    uint16_t addresses, port; /* network order; port 0: it cannot be asked */
    char host[QUERY_HOST];
    /* here only: */
    int32_t answered;
    atomo_query_state state;
} atomo_peer;

enum { QUERY_ASK = 1, QUERY_ANSWER = 2, QUERY_WRITE = 3 };

typedef struct atomo_packet {
    uint32_t kind, round;
    uint64_t key;
    int32_t from, unused;
    atomo_query_state state;
} atomo_packet;

/* Opens the socket and tells all ranks of c, the whole job, how to reach this one: *peers [size of c], to be freed by
 * atomo__free. Once a process. [collective] */
int atomo__query_open(atomo_comm *c, atomo_peer **peers);
void atomo__query_close(void);

/* Sends to one peer, by every address that may be its. [local] */
void atomo__query_send(const atomo_peer *to, int kind, uint32_t round, const atomo_query_state *state);
/* Waits up to `seconds` for a packet that carries this process's key: false where none came. */
bool atomo__query_receive(double seconds, atomo_packet *out);

#endif
