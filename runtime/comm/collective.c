/* collective.c - blocking collectives over tensors that have the same shape on all ranks.
 *
 * Arguments are checked before MPI is called. Transfers are divided into pieces of at most atomo__comm_chunk bytes (256
 * MiB), so counts stay far below INT_MAX. The counted bytes are the least that a rank must send and receive, see
 * atomo_comm_bytes. Path: stage 7.
 */
#include "comm/comm.h"
#include "tensor/tensor.h"
#include <limits.h>
#include <string.h>

/* A loop over the pieces of t: p points to the current piece (it starts at t->data), n is its number of elements. */
#define FOR_PIECES(p, n, t)                                                                                            \
    for (int64_t left_ = (int64_t)(t)->numel, size_ = (int64_t)atomo__dtype_size((t)->dtype),                          \
                 piece_ = atomo__comm_chunk / size_, n = ATOMO_MIN(left_, piece_);                                     \
         left_ > 0; p += n * size_, left_ -= n, n = ATOMO_MIN(left_, piece_))

int atomo_comm_barrier(atomo_comm *c)
{
    ATOMO_TRY(atomo__comm_usable(c, "barrier"));
    ATOMO_FLIGHT("barrier", &c->group, 0);
    ATOMO_TRY(atomo__fingerprint_compare_if_checked(c, COMM_BARRIER, 0, 0, 0));
    atomo__requests_reap(false);
    MPI_Request request; /* a wait that sleeps, then one that spins: ranks leave it at the same time, for benchmarks */
    ATOMO_MPI(MPI_Ibarrier, c->mpi, &request);
    ATOMO_TRY(atomo__comm_wait(c, 1, &request));
    ATOMO_MPI(MPI_Barrier, c->mpi);
    return ATOMO_OK;
}

int atomo_comm_bcast(atomo_comm *c, atomo_tensor *t, int root)
{
    ATOMO_TRY(atomo__comm_usable(c, "bcast"));
    ATOMO_TRY(atomo__comm_buffer(t, "bcast: tensor"));
    ATOMO_TRY(atomo__comm_root(c, root, "bcast: root"));
    ATOMO_FLIGHT("bcast", &c->group, atomo__tensor_bytes(t));
    ATOMO_TRY(atomo__fingerprint_compare_if_checked(c, COMM_BCAST, t->dtype, root, t->numel));
    char *p = t->data;
    FOR_PIECES(p, n, t)
    {
        MPI_Request request;
        ATOMO_MPI(MPI_Ibcast, p, (int)n, atomo__mpi_type(t->dtype), root, c->mpi, &request);
        ATOMO_TRY(atomo__comm_wait(c, 1, &request));
    }
    double bytes = atomo__tensor_bytes(t);
    if (c->rank == root)
        atomo__comm_count(c, bytes * (c->size - 1), 0);
    else
        atomo__comm_count(c, 0, bytes);
    if (c->rank != root) atomo_tensor_touch(t);
    return ATOMO_OK;
}

int atomo_comm_allreduce(atomo_comm *c, atomo_tensor *t, int op)
{
    MPI_Op mpi_op;
    ATOMO_TRY(atomo__comm_usable(c, "allreduce"));
    ATOMO_TRY(atomo__comm_buffer(t, "allreduce: tensor"));
    ATOMO_TRY(atomo__mpi_op(op, t->dtype, "allreduce", &mpi_op));
    ATOMO_FLIGHT("allreduce", &c->group, atomo__tensor_bytes(t));
    ATOMO_TRY(atomo__fingerprint_compare_if_checked(c, COMM_ALLREDUCE, t->dtype, op, t->numel));
    char *p = t->data;
    FOR_PIECES(p, n, t) ATOMO_TRY(atomo__allreduce(c, p, (int)n, atomo__mpi_type(t->dtype), mpi_op));
    double bytes = 2 * atomo__tensor_bytes(t) * (c->size - 1) / c->size;
    atomo__comm_count(c, bytes, bytes);
    atomo_tensor_touch(t);
    return ATOMO_OK;
}

int atomo_comm_allreduce_plain(atomo_comm *c, atomo_tensor *t)
{
    ATOMO_TRY(atomo__comm_usable(c, "allreduce"));
    ATOMO_TRY(atomo__comm_buffer(t, "allreduce: tensor"));
    ATOMO_FLIGHT("allreduce", &c->group, atomo__tensor_bytes(t));
    char *p = t->data;
    FOR_PIECES(p, n, t)
    ATOMO_MPI(MPI_Allreduce, MPI_IN_PLACE, p, (int)n, atomo__mpi_type(t->dtype), MPI_SUM, c->mpi);
    double bytes = 2 * atomo__tensor_bytes(t) * (c->size - 1) / c->size;
    atomo__comm_count(c, bytes, bytes);
    atomo_tensor_touch(t);
    return ATOMO_OK;
}

int atomo_comm_allreduce_grains(atomo_comm *c, atomo_tensor *t, const double *grain, int grains)
{
    ATOMO_TRY(atomo__comm_usable(c, "allreduce"));
    ATOMO_TRY(atomo__comm_buffer(t, "allreduce: tensor"));
    double total = 0;
    for (int i = 0; i < grains; i++) total += grain[i];
    ATOMO_REQUIRE(t->dtype == ATOMO_F32 && grains > 0 && total == t->numel, ATOMO_EARG,
                  "allreduce: %d grains of %.0f elements together, the tensor is %s %s", grains, total,
                  atomo__dtype_name(t->dtype), atomo__shape_text(t));
    ATOMO_FLIGHT("allreduce", &c->group, atomo__tensor_bytes(t));
    ATOMO_TRY(atomo__fingerprint_compare_if_checked(c, COMM_ALLREDUCE, t->dtype, ATOMO_MPI_SUM, t->numel));
    ATOMO_TRY(atomo__allreduce_grains(c, atomo__f32(t), (int64_t)t->numel, grain, grains));
    double bytes = 2 * atomo__tensor_bytes(t) * (c->size - 1) / c->size;
    atomo__comm_count(c, bytes, bytes);
    atomo_tensor_touch(t);
    return ATOMO_OK;
}

int atomo_comm_reduce(atomo_comm *c, atomo_tensor *t, int op, int root)
{
    MPI_Op mpi_op;
    ATOMO_TRY(atomo__comm_usable(c, "reduce"));
    ATOMO_TRY(atomo__comm_buffer(t, "reduce: tensor"));
    ATOMO_TRY(atomo__mpi_op(op, t->dtype, "reduce", &mpi_op));
    ATOMO_TRY(atomo__comm_root(c, root, "reduce: root"));
    ATOMO_FLIGHT("reduce", &c->group, atomo__tensor_bytes(t));
    ATOMO_TRY(atomo__fingerprint_compare_if_checked(c, COMM_REDUCE, t->dtype, root << 2 | op, t->numel));
    bool here = c->rank == root;
    char *p = t->data;
    FOR_PIECES(p, n, t) ATOMO_TRY(atomo__reduce(c, p, (int)n, atomo__mpi_type(t->dtype), mpi_op, root));
    double bytes = atomo__tensor_bytes(t);
    atomo__comm_count(c, here ? 0 : bytes, here ? bytes * (c->size - 1) : 0);
    if (here) atomo_tensor_touch(t);
    return ATOMO_OK;
}

/* Makes *out, of shape [size, t's shape]. */
static int gathered(const atomo_comm *c, const atomo_tensor *t, const char *what, atomo_making *made,
                    atomo_tensor **out)
{
    double shape[ATOMO_MAX_DIM] = {c->size};
    ATOMO_REQUIRE(t->ndim < ATOMO_MAX_DIM, ATOMO_ESHAPE,
                  "%s: tensor %s would give a result of %d dimensions, at most %d", what, atomo__shape_text(t),
                  t->ndim + 1, ATOMO_MAX_DIM);
    for (int i = 0; i < t->ndim; i++) shape[i + 1] = t->shape[i];
    return atomo__make(made, out, t->dtype, t->ndim + 1, shape, what);
}

static int receive_piece(atomo_comm *c, void *to, int n, MPI_Datatype type, int rank)
{
    MPI_Request request;
    ATOMO_MPI(MPI_Irecv, to, n, type, rank, TAG_GATHER, c->mpi, &request);
    return atomo__comm_wait(c, 1, &request);
}

static int send_piece(atomo_comm *c, const void *from, int n, MPI_Datatype type, int rank)
{
    MPI_Request request;
    ATOMO_MPI(MPI_Isend, from, n, type, rank, TAG_GATHER, c->mpi, &request);
    return atomo__comm_wait(c, 1, &request);
}

/* The gather for tensors that are too large for one MPI_Gather: every rank sends its pieces to the root. */
static int gather_pieces(atomo_comm *c, const atomo_tensor *t, int root, atomo_tensor *out)
{
    const MPI_Datatype type = atomo__mpi_type(t->dtype);
    const size_t block = (size_t)atomo__tensor_bytes(t);
    for (int r = 0; r < c->size; r++) {
        if (c->rank != root && c->rank != r) continue;
        char *p = c->rank == root ? (char *)out->data + (size_t)r * block : t->data;
        if (r == root) {
            if (block) memcpy(p, t->data, block);
        } else if (c->rank == root) {
            FOR_PIECES(p, n, t) ATOMO_TRY(receive_piece(c, p, (int)n, type, r));
        } else {
            FOR_PIECES(p, n, t) ATOMO_TRY(send_piece(c, p, (int)n, type, root));
        }
    }
    return ATOMO_OK;
}

int atomo_comm_gather(atomo_comm *c, const atomo_tensor *t, int root, atomo_tensor **out)
{
    ATOMO_MAKING(made, t);
    ATOMO_TRY(atomo__comm_usable(c, "gather"));
    ATOMO_TRY(atomo__comm_buffer(t, "gather: tensor"));
    ATOMO_TRY(atomo__comm_root(c, root, "gather: root"));
    bool here = c->rank == root;
    if (here) ATOMO_TRY(gathered(c, t, "gather", &made, out));
    ATOMO_FLIGHT("gather", &c->group, atomo__tensor_bytes(t));
    ATOMO_TRY(atomo__fingerprint_compare_if_checked(c, COMM_GATHER, t->dtype, root, t->numel));
    double bytes = atomo__tensor_bytes(t);
    MPI_Datatype type = atomo__mpi_type(t->dtype);
    if (bytes * c->size > (double)atomo__comm_chunk)
        ATOMO_TRY(gather_pieces(c, t, root, here ? *out : NULL));
    else if (bytes > 0) {
        MPI_Request request;
        ATOMO_MPI(MPI_Igather, t->data, (int)t->numel, type, here ? (*out)->data : NULL, (int)t->numel, type, root,
                  c->mpi, &request);
        ATOMO_TRY(atomo__comm_wait(c, 1, &request));
    }
    atomo__comm_count(c, here ? 0 : bytes, here ? bytes * (c->size - 1) : 0);
    if (here) atomo_tensor_touch(*out);
    return atomo__made(&made, ATOMO_OK);
}

int atomo_comm_allgather(atomo_comm *c, const atomo_tensor *t, atomo_tensor **out)
{
    ATOMO_MAKING(made, t);
    ATOMO_TRY(atomo__comm_usable(c, "allgather"));
    ATOMO_TRY(atomo__comm_buffer(t, "allgather: tensor"));
    ATOMO_TRY(gathered(c, t, "allgather", &made, out));
    ATOMO_FLIGHT("allgather", &c->group, atomo__tensor_bytes(t));
    ATOMO_TRY(atomo__fingerprint_compare_if_checked(c, COMM_ALLGATHER, t->dtype, 0, t->numel));
    const double bytes = atomo__tensor_bytes(t);
    for (int r = 0; r < c->size; r++) c->fingerprints[r].count = bytes;
    ATOMO_TRY(atomo__gather_blocks(c, t->data, (*out)->data));
    atomo_tensor_touch(*out);
    return atomo__made(&made, ATOMO_OK);
}

int atomo__gather_blocks(atomo_comm *c, const void *send, void *recv)
{
    double total = 0, largest = 0, mine = c->fingerprints[c->rank].count;
    for (int r = 0; r < c->size; r++) {
        total += c->fingerprints[r].count;
        largest = ATOMO_MAX(largest, c->fingerprints[r].count);
    }
    atomo__comm_count(c, mine * (c->size - 1), total - mine);
    if (total == 0) return ATOMO_OK;
    if (total <= INT_MAX && largest <= (double)atomo__comm_chunk) {
        for (int r = 0, at = 0; r < c->size; at += c->counts[r++]) {
            c->counts[r] = (int)c->fingerprints[r].count;
            c->displs[r] = at;
        }
        MPI_Request request;
        ATOMO_MPI(MPI_Iallgatherv, send, (int)mine, MPI_BYTE, recv, c->counts, c->displs, MPI_BYTE, c->mpi, &request);
        return atomo__comm_wait(c, 1, &request);
    }
    char *at = recv; /* too large for one call: every rank broadcasts its block in turn */
    for (int r = 0; r < c->size; r++) {
        int64_t left = (int64_t)c->fingerprints[r].count;
        if (r == c->rank && left) memcpy(at, send, (size_t)left);
        while (left > 0) {
            int n = (int)ATOMO_MIN(left, atomo__comm_chunk);
            MPI_Request request;
            ATOMO_MPI(MPI_Ibcast, at, n, MPI_BYTE, r, c->mpi, &request);
            ATOMO_TRY(atomo__comm_wait(c, 1, &request));
            at += n;
            left -= n;
        }
    }
    return ATOMO_OK;
}
