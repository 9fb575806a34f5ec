/* tree_reduce.c - the sum (max, min, product) of a buffer over all ranks, on one of them.
 *
 * Buffers of less than REDUCE_MIN bytes use the MPI library's own algorithm. Larger ones go through a tree of ranks in
 * segments: a rank adds its children's segment to its own, and passes it on while the next one arrives. Open MPI's
 * non-blocking reduction cuts a buffer into 16 KiB pieces and begins each from a poll, so a wait that sleeps between
 * polls (wait.c) takes seconds for tens of megabytes.
 *
 * The tree is a chain for up to CHAIN ranks, where every rank adds once, and binomial for more, whose depth is log2 of
 * the ranks. Children are added in a fixed order, so the result is bit-identical in every run. Path: stage 7.
 */
#include "comm/comm.h"
#include <string.h>

enum { REDUCE_MIN = 32 << 10, SEGMENT = 256 << 10, WINDOW = 4, CHAIN = 4 }; /* bytes, bytes, segments, ranks */
enum { MOST_CHILDREN = 32 };

typedef struct reduction {
    atomo_comm *c;
    char *data;
    size_t size; /* bytes of an element */
    int count, each, segments;
    MPI_Datatype type;
    MPI_Op op;
    int parent, child[MOST_CHILDREN], children; /* ranks; parent -1: this rank is the root */
    char *landing, *sums;                       /* [WINDOW * SEGMENT] each: received segments, sums to be sent */
    MPI_Request receives[WINDOW], sends[WINDOW];
} reduction;

/* Who adds whose segments. Ranks are counted from the root. */
static void plan_tree(reduction *g, int root)
{
    const int ranks = g->c->size, at = (g->c->rank - root + ranks) % ranks;
    int parent = at - 1;
    if (ranks <= CHAIN) {
        if (at + 1 < ranks) g->child[g->children++] = at + 1;
    } else {
        parent = at & (at - 1); /* without its lowest bit */
        const int lowest = at ? at & -at : ranks;
        for (int bit = 1; bit < lowest && at + bit < ranks; bit <<= 1) g->child[g->children++] = at + bit;
    }
    g->parent = at ? (parent + root) % ranks : -1;
    for (int k = 0; k < g->children; k++) g->child[k] = (g->child[k] + root) % ranks;
}

static int elements_of(const reduction *g, int segment)
{
    return ATOMO_MIN(g->each, g->count - segment * g->each);
}

/* Receive i is the segment i / children of child i % children. */
static int post_receive(reduction *g, int i)
{
    ATOMO_MPI(MPI_Irecv, g->landing + (size_t)(i % WINDOW) * SEGMENT, elements_of(g, i / g->children), g->type,
              g->child[i % g->children], TAG_REDUCE, g->c->mpi, &g->receives[i % WINDOW]);
    return ATOMO_OK;
}

/* Adds the children's segments to what is at `sum`. */
static int add_children(reduction *g, int segment, char *sum)
{
    for (int i = segment * g->children; i < (segment + 1) * g->children; i++) {
        ATOMO_TRY(atomo__comm_wait(g->c, 1, &g->receives[i % WINDOW]));
        ATOMO_MPI(MPI_Reduce_local, g->landing + (size_t)(i % WINDOW) * SEGMENT, sum, elements_of(g, segment), g->type,
                  g->op);
        if (i + WINDOW < g->segments * g->children) ATOMO_TRY(post_receive(g, i + WINDOW));
    }
    return ATOMO_OK;
}

static int run(reduction *g)
{
    for (int i = 0; i < WINDOW && i < g->segments * g->children; i++) ATOMO_TRY(post_receive(g, i));
    for (int j = 0; j < g->segments; j++) {
        char *own = g->data + (size_t)j * SEGMENT, *sum = own;
        if (g->parent >= 0) {
            ATOMO_TRY(atomo__comm_wait(g->c, 1, &g->sends[j % WINDOW])); /* the send from this memory must have ended */
            if (g->children)
                sum = memcpy(g->sums + (size_t)(j % WINDOW) * SEGMENT, own, g->size * (size_t)elements_of(g, j));
        }
        ATOMO_TRY(add_children(g, j, sum));
        if (g->parent >= 0)
            ATOMO_MPI(MPI_Isend, sum, elements_of(g, j), g->type, g->parent, TAG_REDUCE, g->c->mpi,
                      &g->sends[j % WINDOW]);
    }
    return atomo__comm_wait(g->c, WINDOW, g->sends);
}

int atomo__reduce(atomo_comm *c, void *data, int count, MPI_Datatype type, MPI_Op op, int root)
{
    int size;
    ATOMO_MPI(MPI_Type_size, type, &size);
    if (c->size == 1) return ATOMO_OK;
    if ((int64_t)count * size < REDUCE_MIN) {
        const bool here = c->rank == root;
        MPI_Request request;
        ATOMO_MPI(MPI_Ireduce, here ? MPI_IN_PLACE : data, here ? data : NULL, count, type, op, root, c->mpi, &request);
        return atomo__comm_wait(c, 1, &request);
    }
    reduction g = {.c = c, .data = data, .size = (size_t)size, .count = count, .type = type, .op = op};
    g.each = SEGMENT / size;
    g.segments = (int)(((int64_t)count + g.each - 1) / g.each);
    for (int i = 0; i < WINDOW; i++) g.receives[i] = g.sends[i] = MPI_REQUEST_NULL;
    plan_tree(&g, root);
    void *space;
    ATOMO_TRY(atomo__alloc(&space, (size_t)2 * WINDOW * SEGMENT));
    g.landing = space;
    g.sums = g.landing + (size_t)WINDOW * SEGMENT;
    ATOMO_TRY(run(&g)); /* after a failure the memory is not freed: MPI may still write to it */
    atomo__free(space);
    return ATOMO_OK;
}
