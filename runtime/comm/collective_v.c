/* collective_v.c - collectives over tensors whose lengths differ from rank to rank.
 *
 * Lengths are exchanged first: in the fingerprints (fingerprint.c), which also name the operation, or for alltoallv by
 * an all-gather. All-gathered parts are planned by the caller: their fingerprint has a checksum of owners and sizes.
 * Path: stage 7; parts: stage 9, the weights that a sharded optimizer has updated.
 */
#include "comm/comm.h"
#include "tensor/tensor.h"
#include <limits.h>
#include <string.h>

static void free_all(atomo_tensor **list, int n)
{
    for (int i = 0; i < n; i++) {
        atomo_tensor_free(list[i]);
        list[i] = NULL;
    }
}

/* out[r] = a 1-D view of counts[r] elements of one new tensor, *whole. The caller frees *whole and the views. */
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
    ATOMO_FLIGHT("allgatherv", &c->group, atomo__tensor_bytes(t));
    ATOMO_TRY(atomo__fingerprint_compare(c, COMM_ALLGATHERV, t->dtype, 0, atomo__tensor_bytes(t), false));
    void *p;
    ATOMO_TRY(atomo__alloc(&p, (size_t)c->size * sizeof(double)));
    double *counts = p;
    for (int r = 0; r < c->size; r++) counts[r] = c->fingerprints[r].count / (double)atomo__dtype_size(t->dtype);
    atomo_tensor *whole;
    int status = make_blocks(c->size, t->dtype, counts, &whole, out);
    atomo__free(p);
    ATOMO_TRY(status);
    status = atomo__gather_blocks(c, t->data, whole->data);
    atomo_tensor_free(whole);
    if (status < 0) free_all(out, c->size);
    return status;
}

/* ---- all-to-all by point-to-point messages, since MPI_Alltoallv of Open MPI 4.1.4 overflows -------------------- */

static int pieces(double bytes)
{
    return (int)(((int64_t)bytes + atomo__comm_chunk - 1) / atomo__comm_chunk);
}

static int post(atomo_comm *c, char *p, double bytes, int peer, bool sends, MPI_Request *req, int *posted)
{
    for (int64_t left = (int64_t)bytes; left > 0;) {
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

/* Posts all receives, then all sends. Each rank starts with its next neighbour, so that the ranks do not all send to
 * the same rank first. */
static int post_all(atomo_comm *c, const atomo_blocks *send, const atomo_blocks *recv, MPI_Request *req, int *posted)
{
    for (int k = 1; k < c->size; k++) {
        int from = (c->rank + c->size - k) % c->size;
        ATOMO_TRY(post(c, recv[from].data, recv[from].bytes, from, false, req, posted));
    }
    for (int k = 1; k < c->size; k++) {
        int to = (c->rank + k) % c->size;
        ATOMO_TRY(post(c, send[to].data, send[to].bytes, to, true, req, posted));
        atomo__comm_count(c, send[to].bytes, recv[to].bytes);
    }
    return ATOMO_OK;
}

int atomo__comm_swap(atomo_comm *c, const atomo_blocks *send, const atomo_blocks *recv)
{
    size_t n = 0;
    for (int r = 0; r < c->size; r++) n += (size_t)pieces(send[r].bytes) + (size_t)pieces(recv[r].bytes);
    void *requests;
    ATOMO_TRY(atomo__alloc(&requests, (n + 1) * sizeof(MPI_Request)));
    size_t own = (size_t)send[c->rank].bytes;
    if (own) memcpy(recv[c->rank].data, send[c->rank].data, own);
    int posted = 0, status = post_all(c, send, recv, requests, &posted);
    if (status == ATOMO_OK) status = atomo__comm_wait(c, posted, requests);
    if (status == ATOMO_OK) atomo__free(requests); /* after a failure MPI may still write there */
    return status;
}

/* out[i] = address and bytes of tensor i of n. */
static void blocks_of(const atomo_tensor *const *list, int n, atomo_blocks *out)
{
    for (int r = 0; r < n; r++) out[r] = (atomo_blocks){list[r]->data, atomo__tensor_bytes(list[r])};
}

static int swap_tensors(atomo_comm *c, const atomo_tensor *const *send, atomo_tensor *const *recv)
{
    void *p;
    ATOMO_TRY(atomo__alloc(&p, 2 * (size_t)c->size * sizeof(atomo_blocks)));
    atomo_blocks *from = p, *to = from + c->size;
    blocks_of(send, c->size, from);
    blocks_of((const atomo_tensor *const *)recv, c->size, to);
    int status = atomo__comm_swap(c, from, to);
    atomo__free(p);
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
    ATOMO_FLIGHT("alltoallv", &c->group, atomo__tensor_bytes(send[c->rank]));
    ATOMO_TRY(atomo__fingerprint_compare(c, COMM_ALLTOALLV, send[0]->dtype, 0, 0, true));
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
    status = swap_tensors(c, send, recv);
    atomo_tensor_free(whole);
    if (status < 0) free_all(recv, c->size);
    return status;
}

/* ---- all-gather in place --------------------------------------------------------------------------------------- */

/* Checks the parts; *sum is a checksum of their owners and sizes, total and mine are bytes: of all, and of this rank's.
 * Returns the number of messages that this rank sends and receives, a negative status if a part is wrong. */
static int survey_parts(const atomo_comm *c, atomo_tensor *const *parts, const int *owners, int n, uint32_t *sum,
                        double *total, double *mine)
{
    int64_t messages = 0;
    for (int i = 0; i < n; i++) {
        ATOMO_TRY(atomo__comm_root(c, owners[i], "allgather_parts: owner"));
        ATOMO_TRY(atomo__comm_buffer(parts[i], "allgather_parts: a part"));
        const double bytes = atomo__tensor_bytes(parts[i]), key[2] = {owners[i], bytes};
        const bool own = owners[i] == c->rank;
        *sum = atomo__crc32(*sum, key, sizeof key);
        *total += bytes;
        *mine += own ? bytes : 0;
        messages += (int64_t)pieces(bytes) * (own ? c->size - 1 : 1);
    }
    ATOMO_REQUIRE(messages < INT_MAX, ATOMO_EARG, "allgather_parts: %.0f messages, expected less than 2^31",
                  (double)messages);
    return (int)messages;
}

/* Posts the receives of the other ranks' parts, then the sends of this rank's: all parts to the next rank, then all to
 * the one after it. */
static int post_parts(atomo_comm *c, atomo_tensor *const *parts, const int *owners, int n, MPI_Request *req,
                      int *posted)
{
    for (int i = 0; i < n; i++)
        if (owners[i] != c->rank)
            ATOMO_TRY(post(c, parts[i]->data, atomo__tensor_bytes(parts[i]), owners[i], false, req, posted));
    for (int k = 1; k < c->size; k++)
        for (int i = 0; i < n; i++)
            if (owners[i] == c->rank)
                ATOMO_TRY(
                    post(c, parts[i]->data, atomo__tensor_bytes(parts[i]), (c->rank + k) % c->size, true, req, posted));
    return ATOMO_OK;
}

int atomo_comm_allgather_parts(atomo_comm *c, atomo_tensor *const *parts, const int *owners, int n)
{
    ATOMO_TRY(atomo__comm_usable(c, "allgather_parts"));
    uint32_t sum = 0;
    double total = 0, mine = 0;
    const int messages = survey_parts(c, parts, owners, n, &sum, &total, &mine);
    ATOMO_TRY(messages);
    ATOMO_FLIGHT("allgather_parts", &c->group, mine);
    if (c->size == 1) return ATOMO_OK;
    ATOMO_TRY(atomo__fingerprint_compare(c, COMM_ALLGATHER_PARTS, ATOMO_U8, (int32_t)sum, total, true));
    void *requests;
    ATOMO_TRY(atomo__alloc(&requests, ((size_t)messages + 1) * sizeof(MPI_Request)));
    int posted = 0, status = post_parts(c, parts, owners, n, requests, &posted);
    if (status == ATOMO_OK) status = atomo__comm_wait(c, posted, requests);
    if (status == ATOMO_OK) atomo__free(requests); /* after a failure MPI may still use it */
    atomo__comm_count(c, mine * (c->size - 1), total - mine);
    for (int i = 0; i < n; i++)
        if (owners[i] != c->rank) atomo_tensor_touch(parts[i]);
    return status;
}
