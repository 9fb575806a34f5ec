/* ring_allreduce.c - the dense all-reduce: the sum (max, min, product) of a buffer over all ranks, on all ranks.
 *
 * Small buffers take the MPI library's own algorithm. From RING_MIN bytes a rank on, a ring [Patarasuk & Yuan 2009]
 * moves 2 n (P-1)/P bytes over every link, the least there is: P chunks go round once to be added up and once to be
 * handed out. They go in segments, each sent on as soon as it is added, so that links and adding overlap; Open MPI's
 * own choice is a third slower on 100 Mbit/s links. A chunk is added in the order of the ring wherever it ends, and
 * handed out as it is: all ranks get the same bits, and the same in every run. A buffer may be made of grains, each cut
 * into chunks by itself: then an element's bits do not depend on which grains travel with its own.
 *
 * In 16 bits (fp16, bf16) sums are kept in f32 and rounded whenever they are sent: a rank rounds every element once,
 * the partial sum that it sends on or, of its own chunk, the whole sum, which it too takes as rounded. So an element is
 * rounded P times in all, to nearest (ties to even) or stochastically, and then the mean over the drawings is the sum.
 * Path: stage 7.
 */
#include "comm/comm.h"
#include "tensor/float16.h"
#include <string.h>

enum { RING_MIN = 32 << 10, SEGMENT = 256 << 10, WINDOW = 4 }; /* bytes, bytes, segments received ahead */

/* One all-reduce under way. Hop j sends segment j % segments of one chunk to the next rank and receives the same
 * segment of the chunk before; hops below `turn` add up, the others hand out. Over the hops below turn + segments a
 * rank sends every chunk once: those are the sends that round. */
typedef struct ring {
    atomo_comm *c;
    char *data, *landing; /* landing: [WINDOW * SEGMENT] bytes for what is to be added */
    int64_t count;
    const double *grain; /* [grains] elements each, `count` together: every grain is cut into P chunks by itself */
    int grains;
    size_t size;        /* bytes of an element on the wire */
    int segments, each; /* of a chunk, over all grains; elements of one */
    int turn, hops;
    MPI_Datatype type;
    MPI_Op op;
    const atomo__rounding *rounding; /* NULL: data goes as it is */
    uint16_t *codes;                 /* [count] with rounding: what is sent and handed out instead of data */
    MPI_Request *sends, *receives;   /* [hops] */
} ring;

/* Segments of a chunk of n elements' grain: one at least. */
static int segments_of(const ring *g, int64_t n)
{
    const int64_t chunk = (n + g->c->size - 1) / g->c->size;
    return (int)ATOMO_MAX(1, (chunk + g->each - 1) / g->each);
}

/* The segment that hop j sends (back = 0) or receives (back = 1): its first element, and how many, which may be 0. */
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
        ATOMO_TRY(atomo__comm_wait(1, &g->sends[j - g->turn])); /* what was sent from this place has long arrived */
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

/* Hop j has arrived: adds it where that is due. */
static int add_received(ring *g, int j)
{
    ATOMO_TRY(atomo__comm_wait(1, &g->receives[j]));
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
    const int ahead = ATOMO_MIN(WINDOW, g->segments); /* so a place is sent from before it is received into */
    for (int j = 0; j < ahead; j++) ATOMO_TRY(post_receive(g, j));
    for (int j = 0; j < g->segments; j++) ATOMO_TRY(post_send(g, j));
    for (int j = 0; j < g->hops; j++) {
        ATOMO_TRY(add_received(g, j));
        if (j + g->segments < g->hops) ATOMO_TRY(post_send(g, j + g->segments));
        if (j + ahead < g->hops) ATOMO_TRY(post_receive(g, j + ahead));
    }
    return atomo__comm_wait(g->hops, g->sends);
}

/* The part of a ring that does not depend on what is added: sizes, buffers; then the round. */
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
        ATOMO_TRY(go_round(g)); /* after a failure MPI may still write there: the memory is left to it */
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
    return atomo__comm_wait(1, &request);
}
