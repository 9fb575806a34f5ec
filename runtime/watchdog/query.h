/* query.h - UDP packets between the watchdogs of a job. Private to runtime/watchdog. */
#ifndef ATOMO_QUERY_H
#define ATOMO_QUERY_H

#include "comm/comm.h"

enum { QUERY_ADDRESSES = 6, QUERY_HOST = 64 };

/* The state of a rank, which its watchdog sends. */
typedef struct atomo_query_state {
    int32_t waiting;              /* 1: in an operation, 0: in its script */
    int32_t ended;                /* 1: at the end of the program, with no unfinished request */
    uint32_t number;              /* of the current collective, or of the last one; 0: no collective */
    double seconds;               /* time in the operation without progress, or since the last operation */
    double step;                  /* training step, -1: none */
    char operation[24];           /* current operation, or the last one; "" before the first */
    char note[ATOMO_FLIGHT_NOTE]; /* its purpose */
} atomo_query_state;

/* A rank of the job. The ranks send each other the fields up to `host` at the start. */
typedef struct atomo_peer {
    int32_t rank, pid;                 /* rank in MPI_COMM_WORLD, process id */
    uint64_t key;                      /* packets to this rank must carry it */
    uint32_t address[QUERY_ADDRESSES]; /* IPv4, network byte order */
    uint16_t addresses, port;          /* number of addresses; UDP port, network byte order, 0: it cannot be asked */
    char host[QUERY_HOST];
    /* set by the rank that asks: */
    int32_t answered; /* 1: it has answered the current question */
    atomo_query_state state;
} atomo_peer;

/* Kinds of packets. WRITE: the job ends, and the receiver writes its flight recorder. FAILED: the sender ends with an
 * error, the checksum of whose first line is state.number; state.ended: 1 if it has printed the error. */
enum { QUERY_ASK = 1, QUERY_ANSWER = 2, QUERY_WRITE = 3, QUERY_FAILED = 4 };

typedef struct atomo_packet {
    uint32_t kind, round;    /* QUERY_*; number of the question, which the answer repeats */
    uint64_t key;            /* of the receiver */
    int32_t from, unused;    /* rank of the sender */
    atomo_query_state state; /* in answers */
} atomo_packet;

/* Opens the socket and exchanges addresses with all ranks of c, the whole job: *peers [size of c], which the caller
 * frees by atomo__free. Once per process. [collective] */
int atomo__query_open(atomo_comm *c, atomo_peer **peers);
void atomo__query_close(void);

/* Sends a packet to one peer, to each of its addresses; state may be NULL. [local] */
void atomo__query_send(const atomo_peer *to, int kind, uint32_t round, const atomo_query_state *state);
/* Waits up to `seconds` for a packet that carries this process's key; false if none came. */
bool atomo__query_receive(double seconds, atomo_packet *out);

#endif
