/* request.c - point-to-point messages and non-blocking collectives.
 *
 * A request holds a view of its tensor, so the bytes outlive the Lua value. A request that is freed before it is done
 * (such as an unfinished one that Lua collects) goes to a list, and its memory is freed when MPI no longer uses it.
 * Freeing never calls MPI, so finalizers may do it. Path: stage 7.
 */
#include "comm/comm.h"
#include "tensor/tensor.h"
#include <pthread.h>

struct atomo_request {
    struct atomo_request *next; /* in the list of abandoned requests */
    const char *what;           /* static text: "irecv" */
    atomo_tensor *hold;         /* a view of the tensor; NULL: the operation has none */
    bool receives, writes;      /* it is a receive, whose length is checked; it changes the tensor */
    bool open;                  /* counted in open_count */
    atomo_comm *comm;           /* held */
    atomo_flight_group group;   /* the ranks that take part, for the flight recorder */
    int32_t peer;               /* the other rank of a message, in MPI_COMM_WORLD */
    int n, done, failed;        /* number of pieces; pieces done; status of the first failure, 0: none */
    int64_t *expected;          /* [n] bytes of each piece of a receive */
    MPI_Request piece[];        /* [n] */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards abandoned */
static atomo_request *abandoned;
static _Atomic int open_count; /* unfinished requests that other ranks may wait for */

int atomo__requests_open(void)
{
    return open_count;
}

static int hold_view(const atomo_tensor *t, atomo_tensor **out)
{
    return atomo_tensor_view(t, t->ndim, t->shape, t->stride, 0, out);
}

static void request_release(atomo_request *r)
{
    atomo_tensor_free(r->hold);
    atomo__comm_drop(r->comm);
    atomo__free(r);
}

/* Counts r in open_count, or no longer. */
static void count_open(atomo_request *r, bool open)
{
    if (r->open != open) open_count += open ? 1 : -1;
    r->open = open;
}

/* *out = a request of n pieces; t may be NULL. peer: the other rank of a message; -1: all ranks of c take part. */
static int request_new(const char *what, atomo_comm *c, int peer, const atomo_tensor *t, int n, atomo_request **out)
{
    void *p;
    size_t head = sizeof(atomo_request) + (size_t)n * sizeof(MPI_Request), pad = (8 - head % 8) % 8;
    ATOMO_TRY(atomo__calloc(&p, head + pad + (size_t)n * sizeof(int64_t)));
    atomo_request *r = p;
    r->what = what;
    r->n = n;
    r->comm = atomo__comm_hold(c);
    r->peer = peer < 0 ? 0 : c->world_rank[peer];
    r->group = peer < 0 ? c->group : (atomo_flight_group){.ranks = &r->peer, .size = 1};
    r->group.message = true;
    r->group.number = 0;
    r->expected = (int64_t *)((char *)p + head + pad);
    for (int i = 0; i < n; i++) r->piece[i] = MPI_REQUEST_NULL;
    int status = t ? hold_view(t, &r->hold) : ATOMO_OK;
    if (status < 0) {
        request_release(r);
        return status;
    }
    *out = r;
    return ATOMO_OK;
}

static int pieces_of(const atomo_tensor *t) /* at least 1, since an empty message is sent, too */
{
    int64_t bytes = (int64_t)atomo__tensor_bytes(t);
    return bytes == 0 ? 1 : (int)((bytes + atomo__comm_chunk - 1) / atomo__comm_chunk);
}

/* Returns the address of the i-th piece of t; *count = its number of elements. */
static char *piece_of(const atomo_tensor *t, int i, int *count)
{
    int64_t size = (int64_t)atomo__dtype_size(t->dtype), each = atomo__comm_chunk / size;
    *count = (int)ATOMO_MIN(each, (int64_t)t->numel - i * each);
    return (char *)t->data + i * each * size;
}

/* Records that the next piece has ended with MPI's code rc; checks the length of a receive. */
static int piece_done(atomo_request *r, int rc, const MPI_Status *s)
{
    int i = r->done++, got = 0;
    if (rc != MPI_SUCCESS) return r->failed = atomo__mpi_fail(rc, r->what);
    if (!r->receives) return ATOMO_OK;
    ATOMO_MPI(MPI_Get_count, s, MPI_BYTE, &got);
    if (got == r->expected[i]) return ATOMO_OK;
    return r->failed = atomo__fail(ATOMO_EMISMATCH, "%s: rank %d sent %d bytes with tag %d, %s %s here expects %lld",
                                   r->what, s->MPI_SOURCE, got, s->MPI_TAG, atomo__dtype_name(r->hold->dtype),
                                   atomo__shape_text(r->hold), (long long)r->expected[i]);
}

/* Tests, or with block waits for, the pieces of r. Returns 1 if all are done, 0 if not yet, or the status of the first
 * failure, in later calls too. */
static int request_advance(atomo_request *r, bool block)
{
    if (r->failed) return r->failed;
    while (r->done < r->n) {
        MPI_Status s;
        int over = 1, rc = block ? MPI_Wait(&r->piece[r->done], &s) : MPI_Test(&r->piece[r->done], &over, &s);
        if (rc == MPI_SUCCESS && !over) return 0;
        const int status = piece_done(r, rc, &s);
        if (status < 0 || r->done == r->n) count_open(r, false);
        ATOMO_TRY(status);
        if (r->done == r->n && r->writes) atomo_tensor_touch(r->hold);
    }
    return 1;
}

void atomo__requests_reap(bool last)
{
    pthread_mutex_lock(&lock);
    for (atomo_request **at = &abandoned; *at;) {
        atomo_request *r = *at;
        if (last && r->receives && r->done < r->n && MPI_Cancel(&r->piece[r->done]) == MPI_SUCCESS) r->receives = false;
        int over = request_advance(r, false);
        if (over == 0) { /* MPI still uses its memory, so it is kept; at the end the process's exit frees it */
            at = &r->next;
            continue;
        }
        *at = r->next;
        if (over == 1) request_release(r);
    }
    pthread_mutex_unlock(&lock);
}

int atomo_request_wait(atomo_request *r)
{
    ATOMO_REQUIRE(r && atomo_mpi_started(), ATOMO_EMPI, "request:wait: the request is freed or MPI is not running");
    atomo__gate();
    ATOMO_FLIGHT(r->what, &r->group, r->hold ? atomo__tensor_bytes(r->hold) : 0);
    int over = request_advance(r, true);
    return over < 0 ? over : ATOMO_OK;
}

int atomo_request_test(atomo_request *r)
{
    ATOMO_REQUIRE(r && atomo_mpi_started(), ATOMO_EMPI, "request:test: the request is freed or MPI is not running");
    atomo__gate();
    return request_advance(r, false);
}

void atomo_request_free(atomo_request *r)
{
    if (!r) return;
    if (r->done == r->n) {
        request_release(r);
        return;
    }
    pthread_mutex_lock(&lock);
    r->next = abandoned;
    abandoned = r;
    pthread_mutex_unlock(&lock);
}

/* Handles a failed post. If some pieces were posted, MPI still uses the memory, so the request is abandoned, not freed.
 */
static int post_failed(atomo_request *r, int posted, int rc, const char *fn)
{
    count_open(r, false);
    if (posted == 0)
        request_release(r);
    else
        atomo_request_free(r);
    return atomo__mpi_fail(rc, fn);
}

static int post_message(atomo_comm *c, const atomo_tensor *t, int peer, int tag, bool sends, atomo_request **out)
{
    const char *what = sends ? "isend" : "irecv";
    ATOMO_TRY(atomo__comm_usable(c, what));
    ATOMO_TRY(atomo__comm_buffer(t, sends ? "send: tensor" : "recv: tensor"));
    ATOMO_TRY(atomo__comm_root(c, peer, sends ? "send: destination" : "recv: source"));
    ATOMO_REQUIRE(tag >= 0 && tag <= ATOMO_COMM_TAG_MAX, ATOMO_EARG, "%s: tag %d, expected 0 to %d",
                  sends ? "send" : "recv", tag, (int)ATOMO_COMM_TAG_MAX);
    atomo__requests_reap(false);
    atomo_request *r = NULL;
    ATOMO_TRY(request_new(what, c, peer, t, pieces_of(t), &r));
    r->receives = r->writes = !sends;
    count_open(r, sends);
    MPI_Datatype type = atomo__mpi_type(t->dtype);
    for (int i = 0, count; i < r->n; i++) {
        char *p = piece_of(t, i, &count);
        r->expected[i] = count * (int64_t)atomo__dtype_size(t->dtype);
        int rc = sends ? MPI_Isend(p, count, type, peer, tag, c->mpi, &r->piece[i])
                       : MPI_Irecv(p, count, type, peer, tag, c->mpi, &r->piece[i]);
        if (rc != MPI_SUCCESS) return post_failed(r, i, rc, sends ? "MPI_Isend" : "MPI_Irecv");
    }
    double bytes = atomo__tensor_bytes(t);
    atomo__comm_count(c, sends ? bytes : 0, sends ? 0 : bytes);
    *out = r;
    return ATOMO_OK;
}

int atomo_comm_isend(atomo_comm *c, const atomo_tensor *t, int dst, int tag, atomo_request **out)
{
    return post_message(c, t, dst, tag, true, out);
}

int atomo_comm_irecv(atomo_comm *c, atomo_tensor *t, int src, int tag, atomo_request **out)
{
    return post_message(c, t, src, tag, false, out);
}

static int wait_and_free(atomo_request *r)
{
    int status = atomo_request_wait(r);
    atomo_request_free(r);
    return status;
}

int atomo_comm_send(atomo_comm *c, const atomo_tensor *t, int dst, int tag)
{
    atomo_request *r = NULL;
    ATOMO_TRY(post_message(c, t, dst, tag, true, &r));
    return wait_and_free(r);
}

int atomo_comm_recv(atomo_comm *c, atomo_tensor *t, int src, int tag)
{
    atomo_request *r = NULL;
    ATOMO_TRY(post_message(c, t, src, tag, false, &r));
    return wait_and_free(r);
}

int atomo_comm_ibarrier(atomo_comm *c, atomo_request **out)
{
    ATOMO_TRY(atomo__comm_usable(c, "ibarrier"));
    ATOMO_TRY(atomo__fingerprint_compare_if_all(c, COMM_BARRIER, 0, 1, 0));
    atomo_request *r = NULL;
    ATOMO_TRY(request_new("ibarrier", c, -1, NULL, 1, &r));
    count_open(r, true);
    int rc = MPI_Ibarrier(c->mpi, &r->piece[0]);
    if (rc != MPI_SUCCESS) return post_failed(r, 0, rc, "MPI_Ibarrier");
    *out = r;
    return ATOMO_OK;
}

int atomo_comm_iallreduce(atomo_comm *c, atomo_tensor *t, int op, atomo_request **out)
{
    MPI_Op mpi_op;
    ATOMO_TRY(atomo__comm_usable(c, "iallreduce"));
    ATOMO_TRY(atomo__comm_buffer(t, "iallreduce: tensor"));
    ATOMO_TRY(atomo__mpi_op(op, "iallreduce", &mpi_op));
    ATOMO_TRY(atomo__fingerprint_compare_if_all(c, COMM_ALLREDUCE, t->dtype, op, t->numel));
    atomo__requests_reap(false);
    atomo_request *r = NULL;
    ATOMO_TRY(request_new("iallreduce", c, -1, t, pieces_of(t), &r));
    count_open(r, true);
    r->writes = true;
    for (int i = 0, count; i < r->n; i++) {
        char *p = piece_of(t, i, &count);
        int rc = MPI_Iallreduce(MPI_IN_PLACE, p, count, atomo__mpi_type(t->dtype), mpi_op, c->mpi, &r->piece[i]);
        if (rc != MPI_SUCCESS) return post_failed(r, i, rc, "MPI_Iallreduce");
    }
    double bytes = 2 * atomo__tensor_bytes(t) * (c->size - 1) / c->size;
    atomo__comm_count(c, bytes, bytes);
    *out = r;
    return ATOMO_OK;
}

int atomo_comm_ibcast(atomo_comm *c, atomo_tensor *t, int root, atomo_request **out)
{
    ATOMO_TRY(atomo__comm_usable(c, "ibcast"));
    ATOMO_TRY(atomo__comm_buffer(t, "ibcast: tensor"));
    ATOMO_TRY(atomo__comm_root(c, root, "ibcast: root"));
    ATOMO_TRY(atomo__fingerprint_compare_if_all(c, COMM_BCAST, t->dtype, root, t->numel));
    atomo__requests_reap(false);
    atomo_request *r = NULL;
    ATOMO_TRY(request_new("ibcast", c, -1, t, pieces_of(t), &r));
    count_open(r, true);
    r->writes = c->rank != root;
    for (int i = 0, count; i < r->n; i++) {
        char *p = piece_of(t, i, &count);
        int rc = MPI_Ibcast(p, count, atomo__mpi_type(t->dtype), root, c->mpi, &r->piece[i]);
        if (rc != MPI_SUCCESS) return post_failed(r, i, rc, "MPI_Ibcast");
    }
    double bytes = atomo__tensor_bytes(t);
    atomo__comm_count(c, c->rank == root ? bytes * (c->size - 1) : 0, c->rank == root ? 0 : bytes);
    *out = r;
    return ATOMO_OK;
}
