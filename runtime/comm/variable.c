/* variable.c - collectives whose messages differ in length from rank to rank: encoded gradients above all.
 *
 * The lengths travel first, in fingerprints (agree.c) that also say what the message is. Nothing is allocated where the
 * receiver's buffer is large enough. Path: stage 7.
 */
#include "comm/comm.h"
#include "tensor/tensor.h"
#include <string.h>

static double total_count(const atomo_comm *c)
{
    double total = 0;
    for (int r = 0; r < c->size; r++) total += c->peers[r].count;
    return total;
}

int atomo_comm_allgatherv_bytes(atomo_comm *c, const void *send, double nbytes, atomo_tensor **recv, double *counts)
{
    ATOMO_TRY(atomo__comm_usable(c, "allgatherv"));
    ATOMO_REQUIRE(nbytes >= 0 && nbytes <= 0x1p53 && (send || nbytes == 0), ATOMO_EARG, "allgatherv: %g bytes at %p",
                  nbytes, send);
    ATOMO_REQUIRE(!*recv || ((*recv)->dtype == ATOMO_U8 && (*recv)->ndim == 1 && atomo_tensor_is_contiguous(*recv)),
                  ATOMO_EDTYPE, "allgatherv: the receiving tensor is %s %s, expected contiguous u8 of one dimension",
                  atomo__dtype_name((*recv)->dtype), atomo__shape_text(*recv));
    ATOMO_TRY(atomo__comm_agree(c, COMM_ALLGATHERV, ATOMO_U8, 0, nbytes, false));
    double total = total_count(c);
    if (!*recv || (*recv)->numel < total) {
        double capacity = total + (*recv ? total / 4 : 0); /* growing: with room, so that it seldom happens again */
        capacity -= capacity - (double)(int64_t)capacity;
        atomo_tensor_free(*recv);
        *recv = NULL;
        ATOMO_TRY(atomo_tensor_new(ATOMO_U8, 1, &capacity, recv));
    }
    for (int r = 0; r < c->size; r++) counts[r] = c->peers[r].count;
    ATOMO_TRY(atomo__gather_blocks(c, send, (*recv)->data));
    atomo_tensor_touch(*recv);
    return ATOMO_OK;
}

static void free_all(atomo_tensor **list, int n)
{
    for (int i = 0; i < n; i++) {
        atomo_tensor_free(list[i]);
        list[i] = NULL;
    }
}

/* out[r]: 1-D views, count(r) elements each, of one new tensor. *whole is that tensor: the caller frees it. */
static int make_blocks(int ranks, int dtype, const double *counts, atomo_tensor **whole, atomo_tensor **out)
{
    double total = 0, at = 0, one = 1;
    for (int r = 0; r < ranks; r++) {
        total += counts[r];
        out[r] = NULL;
    }
    *whole = NULL;
    ATOMO_TRY(atomo_tensor_new(dtype, 1, &total, whole));
    for (int r = 0; r < ranks; at += counts[r++]) {
        int status = atomo_tensor_view(*whole, 1, &counts[r], &one, at, &out[r]);
        if (status < 0) {
            free_all(out, r);
            atomo_tensor_free(*whole);
            return status;
        }
    }
    return ATOMO_OK;
}

int atomo_comm_allgatherv(atomo_comm *c, const atomo_tensor *t, atomo_tensor **out)
{
    ATOMO_TRY(atomo__comm_usable(c, "allgatherv"));
    ATOMO_TRY(atomo__comm_buffer(t, "allgatherv: tensor"));
    ATOMO_REQUIRE(t->ndim == 1, ATOMO_ESHAPE, "allgatherv: tensor has shape %s, expected 1 dimension",
                  atomo__shape_text(t));
    ATOMO_TRY(atomo__comm_agree(c, COMM_ALLGATHERV, t->dtype, 0, atomo__tensor_bytes(t), false));
    void *p;
    ATOMO_TRY(atomo__alloc(&p, (size_t)c->size * sizeof(double)));
    double *counts = p;
    for (int r = 0; r < c->size; r++) counts[r] = c->peers[r].count / (double)atomo__dtype_size(t->dtype);
    atomo_tensor *whole;
    int status = make_blocks(c->size, t->dtype, counts, &whole, out);
    atomo__free(p);
    ATOMO_TRY(status);
    status = atomo__gather_blocks(c, t->data, whole->data);
    atomo_tensor_free(whole);
    if (status < 0) free_all(out, c->size);
    return status;
}

/* ---- all-to-all: point-to-point messages (Open MPI 4.1.4's alltoallv overflows) -------------------------------- */

static int pieces(double bytes)
{
    return (int)(((int64_t)bytes + atomo__comm_chunk - 1) / atomo__comm_chunk);
}

static int post(atomo_comm *c, const atomo_tensor *t, int peer, bool sends, MPI_Request *req, int *posted)
{
    char *p = t->data;
    for (int64_t left = (int64_t)atomo__tensor_bytes(t); left > 0;) {
        int n = (int)ATOMO_MIN(left, atomo__comm_chunk);
        if (sends)
            ATOMO_MPI(MPI_Isend, p, n, MPI_BYTE, peer, TAG_ALLTOALLV, c->mpi, &req[*posted]);
        else
            ATOMO_MPI(MPI_Irecv, p, n, MPI_BYTE, peer, TAG_ALLTOALLV, c->mpi, &req[*posted]);
        ++*posted;
        p += n;
        left -= n;
    }
    return ATOMO_OK;
}

static int swap_blocks(atomo_comm *c, const atomo_tensor *const *send, atomo_tensor *const *recv)
{
    size_t n = 0;
    for (int r = 0; r < c->size; r++)
        n += (size_t)pieces(atomo__tensor_bytes(send[r])) + (size_t)pieces(atomo__tensor_bytes(recv[r]));
    void *requests;
    ATOMO_TRY(atomo__alloc(&requests, (n + 1) * sizeof(MPI_Request)));
    int posted = 0, status = ATOMO_OK;
    for (int k = 1; k < c->size && status == ATOMO_OK; k++)
        status = post(c, recv[(c->rank + c->size - k) % c->size], (c->rank + c->size - k) % c->size, false, requests,
                      &posted);
    for (int k = 1; k < c->size && status == ATOMO_OK; k++) {
        int to = (c->rank + k) % c->size;
        status = post(c, send[to], to, true, requests, &posted);
        atomo__comm_count(c, atomo__tensor_bytes(send[to]), atomo__tensor_bytes(recv[to]));
    }
    size_t own = (size_t)atomo__tensor_bytes(send[c->rank]);
    if (own) memcpy(recv[c->rank]->data, send[c->rank]->data, own);
    if (status == ATOMO_OK) {
        int rc = MPI_Waitall(posted, requests, MPI_STATUSES_IGNORE);
        if (rc != MPI_SUCCESS) status = atomo__mpi_fail(rc, "MPI_Waitall");
    }
    if (status == ATOMO_OK) atomo__free(requests); /* after a failure MPI may still write there */
    return status;
}

int atomo_comm_alltoallv(atomo_comm *c, const atomo_tensor *const *send, atomo_tensor **recv)
{
    ATOMO_TRY(atomo__comm_usable(c, "alltoallv"));
    for (int r = 0; r < c->size; r++) {
        ATOMO_TRY(atomo__comm_buffer(send[r], "alltoallv: a tensor of the list"));
        ATOMO_REQUIRE(send[r]->dtype == send[0]->dtype, ATOMO_EDTYPE, "alltoallv: tensor %d is %s, the first is %s",
                      r + 1, atomo__dtype_name(send[r]->dtype), atomo__dtype_name(send[0]->dtype));
    }
    ATOMO_TRY(atomo__comm_agree(c, COMM_ALLTOALLV, send[0]->dtype, 0, 0, true));
    size_t n = (size_t)c->size;
    void *p;
    ATOMO_TRY(atomo__alloc(&p, (n + n * n) * sizeof(double)));
    double *mine = p, *all = mine + n; /* all[s][r]: elements from s to r */
    for (size_t r = 0; r < n; r++) mine[r] = send[r]->numel;
    int rc = MPI_Allgather(mine, c->size, MPI_DOUBLE, all, c->size, MPI_DOUBLE, c->mpi);
    for (size_t s = 0; s < n; s++) mine[s] = all[s * n + (size_t)c->rank];
    atomo_tensor *whole = NULL;
    int status = rc == MPI_SUCCESS ? make_blocks(c->size, send[0]->dtype, mine, &whole, recv)
                                   : atomo__mpi_fail(rc, "MPI_Allgather");
    atomo__free(p);
    ATOMO_TRY(status);
    status = swap_blocks(c, send, recv);
    atomo_tensor_free(whole);
    if (status < 0) free_all(recv, c->size);
    return status;
}
