/* ring_allreduce.c - the dense all-reduce: the sum (max, min, product) of a buffer over all ranks, on all ranks.
 *
 * Buffers of less than RING_MIN bytes per rank use the MPI library's own algorithm. Larger ones use a ring [Patarasuk &
 * Yuan 2009], which moves 2 n (P-1)/P bytes over every link, the least possible: P chunks go around the ring once to be
 * summed (reduce-scatter) and once to be distributed (all-gather). Chunks are sent in segments, each passed on as soon
 * as it is summed, so that sending and summing overlap. Open MPI's choice is a third slower on 100 Mbit/s links. A
 * chunk is always summed in the order of the ring, and distributed unchanged, so results are bit-identical on all ranks
 * and in every run. A buffer may consist of grains, each divided into chunks by itself. Then the bits of an element do
 * not depend on which other grains are in the buffer.
 *
 * In 16 bits (fp16, bf16) sums are kept in f32 and rounded whenever they are sent. A rank rounds every element once:
 * the partial sum that it sends on, or in the chunk that it completes the whole sum, of which it keeps the rounded
 * value, too. So an element is rounded P times, to nearest (ties to even) or stochastically; stochastic rounding is
 * unbiased. Path: stage 7.
 */
#include "comm/comm.h"
#include "tensor/float16.h"
#include <string.h>

enum { RING_MIN = 32 << 10, SEGMENT = 256 << 10, WINDOW = 4 }; /* bytes, bytes, segments received ahead */

/* The state of one all-reduce. Hop j sends segment j % segments of one chunk to the next rank, and receives the same
 * segment of the previous chunk. Hops below `turn` sum (reduce-scatter), the others distribute (all-gather). In the
 * hops below turn + segments a rank sends every chunk once; these sends round. */
typedef struct ring {
    atomo_comm *c;
    char *data, *landing; /* the buffer; [WINDOW * SEGMENT] bytes for received segments that are to be added */
    int64_t count;        /* elements of data */
    const double *grain;  /* [grains] elements of each grain, `count` together; NULL: data is one grain */
    int grains;
    size_t size;        /* bytes of an element on the wire */
    int segments, each; /* segments of a chunk, over all grains; elements of a full segment */
    int turn, hops;     /* first hop of the all-gather; number of all hops */
    MPI_Datatype type;
    MPI_Op op;
    const atomo__rounding *rounding; /* NULL: data is sent as it is */
    uint16_t *codes;                 /* [count] with rounding: the rounded values that are sent and received */
    MPI_Request *sends, *receives;   /* [hops] */
} ring;

/* Returns the number of segments in a chunk of a grain of n elements, at least 1. */
static int segments_of(const ring *g, int64_t n)
{
    const int64_t chunk = (n + g->c->size - 1) / g->c->size;
    return (int)ATOMO_MAX(1, (chunk + g->each - 1) / g->each);
}

/* Returns the first element of the segment that hop j sends (back = 0) or receives (back = 1); *n = its number of
 * elements, which may be 0. */
static int64_t segment(const ring *g, int j, int back, int *n)
{
    const int ranks = g->c->size, step = j / g->segments;
    const int chunk = (int)(((int64_t)g->c->rank - step - back + 3 * (int64_t)ranks) % ranks);
    int k = j % g->segments, i = 0;
    int64_t start = 0, length = (int64_t)g->grain[0];
    for (int own; (own = segments_of(g, length)) <= k; length = (int64_t)g->grain[++i]) {
        k -= own;
        start += length;
    }
    const int64_t from = start + length * chunk / ranks, to = start + length * (chunk + 1) / ranks;
    const int64_t at = ATOMO_MIN(from + (int64_t)k * g->each, to);
    *n = (int)ATOMO_MIN(to - at, g->each);
    return at;
}

static char *wire(const ring *g, int64_t at)
{
    return (g->rounding ? (char *)g->codes : g->data) + (size_t)at * g->size;
}

static int post_receive(ring *g, int j)
{
    const int from = (g->c->rank + g->c->size - 1) % g->c->size;
    int n;
    char *place = wire(g, segment(g, j, 1, &n));
    if (j < g->turn)
        place = g->landing + (size_t)(j % WINDOW) * SEGMENT;
    else
        ATOMO_TRY(atomo__comm_wait(g->c, 1, &g->sends[j - g->turn])); /* the send from this memory must have ended */
    ATOMO_MPI(MPI_Irecv, place, n, g->type, from, TAG_RING, g->c->mpi, &g->receives[j]);
    return ATOMO_OK;
}

static int post_send(ring *g, int j)
{
    int n;
    const int64_t at = segment(g, j, 0, &n);
    if (g->rounding && j < g->turn + g->segments)
        atomo__half_round(g->rounding, at, (const float *)(const void *)g->data + at, n, g->codes + at);
    ATOMO_MPI(MPI_Isend, wire(g, at), n, g->type, (g->c->rank + 1) % g->c->size, TAG_RING, g->c->mpi, &g->sends[j]);
    return ATOMO_OK;
}

/* Waits for the segment that hop j receives, and in the reduce-scatter adds it to data. */
static int add_received(ring *g, int j)
{
    ATOMO_TRY(atomo__comm_wait(g->c, 1, &g->receives[j]));
    if (j >= g->turn) return ATOMO_OK;
    int n;
    const int64_t at = segment(g, j, 1, &n);
    const char *landed = g->landing + (size_t)(j % WINDOW) * SEGMENT;
    if (n > 0 && g->rounding)
        g->rounding->format->add((const uint16_t *)(const void *)landed, n, 1, 1, (float *)(void *)g->data + at);
    else if (n > 0)
        ATOMO_MPI(MPI_Reduce_local, landed, g->data + (size_t)at * g->size, n, g->type, g->op);
    return ATOMO_OK;
}

static int go_round(ring *g)
{
    const int ahead = ATOMO_MIN(WINDOW, g->segments); /* so memory is sent from before it is received into */
    for (int j = 0; j < ahead; j++) ATOMO_TRY(post_receive(g, j));
    for (int j = 0; j < g->segments; j++) ATOMO_TRY(post_send(g, j));
    for (int j = 0; j < g->hops; j++) {
        ATOMO_TRY(add_received(g, j));
        if (j + g->segments < g->hops) ATOMO_TRY(post_send(g, j + g->segments));
        if (j + ahead < g->hops) ATOMO_TRY(post_receive(g, j + ahead));
    }
    return atomo__comm_wait(g->c, g->hops, g->sends);
}

/* Sets the sizes, allocates the buffers, runs the ring and, with rounding, converts the result to f32. */
static int run(ring *g)
{
    const double whole = (double)g->count;
    if (!g->grain) {
        g->grain = &whole;
        g->grains = 1;
    }
    g->each = (int)(SEGMENT / g->size);
    for (int i = 0; i < g->grains; i++) g->segments += segments_of(g, (int64_t)g->grain[i]);
    g->turn = (g->c->size - 1) * g->segments;
    g->hops = 2 * g->turn;
    void *p;
    const size_t requests = 2 * (size_t)g->hops, codes = g->rounding ? 2 * (size_t)g->count : 0;
    ATOMO_TRY(atomo__alloc(&p, (size_t)WINDOW * SEGMENT + requests * sizeof(MPI_Request) + codes));
    g->landing = p;
    g->sends = (MPI_Request *)(void *)(g->landing + (size_t)WINDOW * SEGMENT);
    g->receives = g->sends + g->hops;
    g->codes = (uint16_t *)(void *)(g->receives + g->hops);
    for (size_t i = 0; i < requests; i++) g->sends[i] = MPI_REQUEST_NULL;
    if (g->c->size > 1)
        ATOMO_TRY(go_round(g)); /* after a failure p is not freed: MPI may still write to it */
    else if (g->rounding)
        atomo__half_round(g->rounding, 0, (const float *)(const void *)g->data, g->count, g->codes);
    if (g->rounding) {
        memset(g->data, 0, sizeof(float) * (size_t)g->count);
        g->rounding->format->add(g->codes, (int)g->count, 1, 1, (float *)(void *)g->data);
    }
    atomo__free(p);
    return ATOMO_OK;
}

int atomo__allreduce_half(atomo_comm *c, float *data, int count, const atomo__rounding *how)
{
    ring g = {.c = c, .data = (char *)data, .count = count, .size = 2, .type = MPI_UINT16_T, .rounding = how};
    return run(&g);
}

int atomo__allreduce_grains(atomo_comm *c, float *data, int64_t count, const double *grain, int grains)
{
    if (c->size == 1) return ATOMO_OK;
    if (grains == 1 && count * (int64_t)sizeof(float) < (int64_t)RING_MIN * c->size)
        return atomo__allreduce(c, data, (int)count, MPI_FLOAT, MPI_SUM);
    ring g = {.c = c,
              .data = (char *)data,
              .count = count,
              .grain = grain,
              .grains = grains,
              .size = sizeof(float),
              .type = MPI_FLOAT,
              .op = MPI_SUM};
    return run(&g);
}

int atomo__allreduce(atomo_comm *c, void *data, int count, MPI_Datatype type, MPI_Op op)
{
    int size;
    MPI_Request request;
    ATOMO_MPI(MPI_Type_size, type, &size);
    if (c->size == 1) return ATOMO_OK;
    if ((int64_t)count * size >= (int64_t)RING_MIN * c->size) {
        ring g = {.c = c, .data = data, .count = count, .size = (size_t)size, .type = type, .op = op};
        return run(&g);
    }
    ATOMO_MPI(MPI_Iallreduce, MPI_IN_PLACE, data, count, type, op, c->mpi, &request);
    return atomo__comm_wait(c, 1, &request);
}
