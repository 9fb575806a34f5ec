/* collective_bytes.c - collectives over bytes, with lengths that differ between ranks: encoded gradients of a bucket.
 *
 * Lengths are exchanged first, in the fingerprints (fingerprint.c). Once the receiving tensor is large enough, nothing
 * is allocated from the system. Path: stage 7.
 */
#include "comm/comm.h"
#include "tensor/tensor.h"
#include <string.h>

static int check_bytes(const void *data, double nbytes, const atomo_tensor *recv, const char *fn)
{
    ATOMO_REQUIRE(nbytes >= 0 && nbytes <= 0x1p53 && (data || nbytes == 0), ATOMO_EARG,
                  "%s: %g bytes at %p, expected 0 to 2^53 bytes and an address", fn, nbytes, data);
    ATOMO_REQUIRE(!recv || (recv->dtype == ATOMO_U8 && recv->ndim == 1 && atomo_tensor_is_contiguous(recv)),
                  ATOMO_EDTYPE, "%s: the receiving tensor is %s %s, expected contiguous u8 of one dimension", fn,
                  atomo__dtype_name(recv->dtype), atomo__shape_text(recv));
    return ATOMO_OK;
}

/* Makes *recv large enough for `total` bytes. If it must grow it gets a quarter more than needed, so that it seldom
 * grows again; its old content is lost. */
static int reserve(atomo_tensor **recv, double total)
{
    if (*recv && (*recv)->numel >= total) return ATOMO_OK;
    double capacity = total + (*recv ? total / 4 : 0);
    capacity -= capacity - (double)(int64_t)capacity;
    atomo_tensor_free(*recv);
    *recv = NULL;
    return atomo_tensor_new(ATOMO_U8, 1, &capacity, recv);
}

int atomo_comm_allgatherv_bytes(atomo_comm *c, const void *send, double nbytes, atomo_tensor **recv, double *counts)
{
    ATOMO_TRY(atomo__comm_usable(c, "allgatherv"));
    ATOMO_TRY(check_bytes(send, nbytes, *recv, "allgatherv"));
    ATOMO_FLIGHT("allgatherv", &c->group, nbytes);
    ATOMO_TRY(atomo__fingerprint_compare(c, COMM_ALLGATHERV, ATOMO_U8, 0, nbytes, false));
    double total = 0;
    for (int r = 0; r < c->size; r++) total += counts[r] = c->fingerprints[r].count;
    ATOMO_TRY(reserve(recv, total));
    ATOMO_TRY(atomo__gather_blocks(c, send, (*recv)->data));
    atomo_tensor_touch(*recv);
    return ATOMO_OK;
}

/* counts_in[r] = the bytes that rank r sends to this rank. */
static int exchange_counts(atomo_comm *c, const double *counts_out, double *counts_in)
{
    MPI_Request request;
    ATOMO_MPI(MPI_Ialltoall, counts_out, 1, MPI_DOUBLE, counts_in, 1, MPI_DOUBLE, c->mpi, &request);
    ATOMO_TRY(atomo__comm_wait(c, 1, &request));
    double bytes = (c->size - 1.0) * sizeof(double);
    atomo__comm_count(c, bytes, bytes);
    return ATOMO_OK;
}

/* out[r] = block r of counts[r] bytes, of n blocks that are adjacent in memory from `data` on. */
static void lay_out(const void *data, const double *counts, int n, atomo_blocks *out)
{
    char *at = (char *)(uintptr_t)data;
    for (int r = 0; r < n; at += (int64_t)counts[r++]) out[r] = (atomo_blocks){at, counts[r]};
}

int atomo_comm_alltoallv_bytes(atomo_comm *c, const void *send, const double *counts_out, atomo_tensor **recv,
                               double *counts_in)
{
    ATOMO_TRY(atomo__comm_usable(c, "alltoallv"));
    double total = 0;
    for (int r = 0; r < c->size; r++) {
        ATOMO_TRY(check_bytes(send, counts_out[r], *recv, "alltoallv"));
        total += counts_out[r];
    }
    ATOMO_FLIGHT("alltoallv", &c->group, total);
    ATOMO_TRY(atomo__fingerprint_compare(c, COMM_ALLTOALLV, ATOMO_U8, 0, total, false));
    ATOMO_TRY(exchange_counts(c, counts_out, counts_in));
    total = 0;
    for (int r = 0; r < c->size; r++) total += counts_in[r];
    ATOMO_TRY(reserve(recv, total));
    void *p;
    ATOMO_TRY(atomo__alloc(&p, 2 * (size_t)c->size * sizeof(atomo_blocks)));
    atomo_blocks *from = p, *to = from + c->size;
    lay_out(send, counts_out, c->size, from);
    lay_out((*recv)->data, counts_in, c->size, to);
    int status = atomo__comm_swap(c, from, to);
    atomo__free(p);
    atomo_tensor_touch(*recv);
    return status;
}

int atomo_comm_bcast_bytes(atomo_comm *c, const void *data, double nbytes, int root, atomo_tensor **recv, double *count)
{
    ATOMO_TRY(atomo__comm_usable(c, "bcast"));
    ATOMO_TRY(atomo__comm_root(c, root, "bcast: root"));
    ATOMO_TRY(check_bytes(data, c->rank == root ? nbytes : 0, *recv, "bcast"));
    ATOMO_FLIGHT("bcast", &c->group, nbytes);
    ATOMO_TRY(atomo__fingerprint_compare(c, COMM_BCAST, ATOMO_U8, root, c->rank == root ? nbytes : 0, false));
    *count = nbytes = c->fingerprints[root].count;
    ATOMO_TRY(reserve(recv, nbytes));
    char *p = (*recv)->data;
    if (c->rank == root && nbytes > 0) memcpy(p, data, (size_t)nbytes);
    for (int64_t left = (int64_t)nbytes; left > 0;) {
        int n = (int)ATOMO_MIN(left, atomo__comm_chunk);
        MPI_Request request;
        ATOMO_MPI(MPI_Ibcast, p, n, MPI_BYTE, root, c->mpi, &request);
        ATOMO_TRY(atomo__comm_wait(c, 1, &request));
        p += n;
        left -= n;
    }
    if (c->rank == root)
        atomo__comm_count(c, nbytes * (c->size - 1), 0);
    else
        atomo__comm_count(c, 0, nbytes);
    atomo_tensor_touch(*recv);
    return ATOMO_OK;
}
