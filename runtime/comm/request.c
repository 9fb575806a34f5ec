/* request.c - point-to-point messages, and the life of requests.
 *
 * The sender sends a head of 16 bytes ahead of each message, with its type and length. So a receive of another type or
 * length fails with an error that names both. atomo_comm_set_checked turns heads off; both sides must agree. All pieces
 * of a message except the first have a tag of their own, which the head contains; the receiver posts their receives
 * after it has read the head. So a refused message is received as a whole, and the next message is not affected.
 *
 * A request holds a view of its tensor, so the bytes outlive the Lua value. A request that is freed before it is done
 * (such as an unfinished one that Lua collects) is abandoned, and its memory is freed when MPI no longer uses it.
 * Freeing never calls MPI, so finalizers may do it. Path: stage 7.
 */
#include "comm/request.h"
#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the lists */
static atomo_request *in_use, *abandoned;                /* unfinished requests; those that were freed */
static _Atomic int open_count;                           /* unfinished requests that other ranks may wait for */

int atomo__requests_open(void)
{
    return open_count;
}

static int hold_view(const atomo_tensor *t, atomo_tensor **out)
{
    return atomo_tensor_view(t, t->ndim, t->shape, t->stride, 0, out);
}

static void enlist(atomo_request *r, atomo_request **list)
{
    r->next = *list;
    r->at = list;
    if (r->next) r->next->at = &r->next;
    *list = r;
}

static void delist(atomo_request *r)
{
    *r->at = r->next;
    if (r->next) r->next->at = r->at;
}

/* Moves r, of which a script holds the handle, to the abandoned ones, or with list NULL to none. */
static void move_to(atomo_request *r, atomo_request **list)
{
    pthread_mutex_lock(&lock);
    delist(r);
    if (list) enlist(r, list);
    pthread_mutex_unlock(&lock);
}

static void request_release(atomo_request *r)
{
    if (atomo__objects_kept()) return;
    atomo_tensor_free(r->hold);
    atomo__comm_drop(r->comm);
    atomo__free(r);
}

void atomo__request_count_open(atomo_request *r, bool open)
{
    if (r->open != open) open_count += open ? 1 : -1;
    r->open = open;
}

static int pieces_of(const atomo_tensor *t) /* at least one: an empty message is sent, too */
{
    int64_t bytes = t ? (int64_t)atomo__tensor_bytes(t) : 0;
    return bytes == 0 ? 1 : (int)((bytes + atomo__comm_chunk - 1) / atomo__comm_chunk);
}

int atomo__request_new(const char *what, atomo_comm *c, int peer, const atomo_tensor *t, bool compares,
                       atomo_request **out)
{
    void *p;
    const int n = pieces_of(t) + (compares ? 1 : 0);
    const size_t compared = compares && peer < 0 ? (size_t)c->size * sizeof(atomo_fingerprint) : 0;
    size_t head = sizeof(atomo_request) + (size_t)n * sizeof(MPI_Request), pad = (8 - head % 8) % 8;
    ATOMO_TRY(atomo__calloc(&p, head + pad + (size_t)n * sizeof(int64_t) + compared));
    atomo_request *r = p;
    r->what = what;
    r->n = n;
    r->compares = compares;
    r->first = compares ? 1 : 0;
    r->comm = atomo__comm_hold(c);
    r->message = peer >= 0;
    r->peer = peer < 0 ? 0 : c->world_rank[peer];
    r->group = peer < 0 ? c->group : (atomo_flight_group){.ranks = &r->peer, .size = 1};
    r->group.message = true;
    r->group.number = 0;
    r->expected = (int64_t *)((char *)p + head + pad);
    r->fingerprints = (atomo_fingerprint *)(void *)(r->expected + n);
    for (int i = 0; i < n; i++) r->piece[i] = MPI_REQUEST_NULL;
    int status = t ? hold_view(t, &r->hold) : ATOMO_OK;
    if (status < 0) {
        request_release(r);
        return status;
    }
    pthread_mutex_lock(&lock);
    enlist(r, &in_use);
    pthread_mutex_unlock(&lock);
    *out = r;
    return ATOMO_OK;
}

char *atomo__request_piece(const atomo_tensor *t, int i, int *count)
{
    int64_t size = (int64_t)atomo__dtype_size(t->dtype), each = atomo__comm_chunk / size;
    *count = (int)ATOMO_MIN(each, (int64_t)t->numel - i * each);
    return (char *)t->data + i * each * size;
}

static int post_piece(atomo_request *r, int i, bool sends)
{
    const bool later = r->compares && i > r->first;
    const int peer = r->source, tag = later ? r->head.tag : r->tag;
    MPI_Comm to = later ? r->comm->control : r->comm->mpi;
    MPI_Datatype type = atomo__mpi_type(r->hold->dtype);
    int count;
    char *p = atomo__request_piece(r->hold, i - r->first, &count);
    r->expected[i] = count * (int64_t)atomo__dtype_size(r->hold->dtype);
    return sends ? MPI_Isend(p, count, type, peer, tag, to, &r->piece[i])
                 : MPI_Irecv(p, count, type, peer, tag, to, &r->piece[i]);
}

/* Posts receives for the pieces after the first one of a message whose head has arrived. */
static int receive_rest(atomo_request *r)
{
    for (int i = r->first + 1; i < r->n; i++) {
        const int rc = post_piece(r, i, false);
        if (rc != MPI_SUCCESS) return atomo__mpi_fail(rc, "MPI_Irecv");
    }
    return ATOMO_OK;
}

/* Receives the pieces after the first one of a refused message into no memory, so that they leave the queue. MPI
 * reports this as truncated, which is ignored. */
static void discard_rest(atomo_request *r)
{
    for (double left = r->head.bytes - (double)atomo__comm_chunk; left > 0; left -= (double)atomo__comm_chunk)
        MPI_Recv(NULL, 0, MPI_BYTE, r->source, r->head.tag, r->comm->control, MPI_STATUS_IGNORE);
    r->done = r->n;
}

/* Compares piece 0, the head or the fingerprints, with this rank's tensor or operation. */
static int compare(atomo_request *r)
{
    if (r->receives) {
        r->mismatch = r->head.dtype != r->hold->dtype || r->head.bytes != atomo__tensor_bytes(r->hold);
        return r->mismatch ? ATOMO_OK : receive_rest(r);
    }
    return r->operation ? atomo__fingerprint_judge_late(r->comm, r->fingerprints, r->operation) : ATOMO_OK;
}

/* Fails for a message whose head has another type or length than this rank's tensor. */
static int refuse_message(const atomo_request *r)
{
    const bool truncated = r->head.bytes > atomo__tensor_bytes(r->hold);
    return atomo__fail(ATOMO_EMISMATCH, "%s: rank %d sent %.0f bytes with tag %d (%s), %s %s here takes %.0f%s",
                       r->what, r->source, r->head.bytes, r->tag, atomo__dtype_name(r->head.dtype),
                       atomo__dtype_name(r->hold->dtype), atomo__shape_text(r->hold), atomo__tensor_bytes(r->hold),
                       truncated ? ": truncated" : "");
}

/* Records that the next piece has ended with MPI's code rc; checks the length of a receive. */
static int piece_done(atomo_request *r, int rc, const MPI_Status *s)
{
    int i = r->done++, got = 0;
    if (i < r->first) return r->failed = rc == MPI_SUCCESS ? compare(r) : atomo__mpi_fail(rc, r->what);
    if (r->mismatch) {
        discard_rest(r);
        return r->failed = refuse_message(r);
    }
    if (rc != MPI_SUCCESS) return r->failed = atomo__mpi_fail(rc, r->what);
    if (!r->receives) return ATOMO_OK;
    ATOMO_MPI(MPI_Get_count, s, MPI_BYTE, &got);
    if (got == r->expected[i]) return ATOMO_OK;
    return r->failed = atomo__fail(ATOMO_EMISMATCH, "%s: rank %d sent %d bytes with tag %d, %s %s here expects %lld",
                                   r->what, s->MPI_SOURCE, got, s->MPI_TAG, atomo__dtype_name(r->hold->dtype),
                                   atomo__shape_text(r->hold), (long long)r->expected[i]);
}

/* Tests, or with block waits for, the pieces of r; flight: the token of the wait. Returns 1 if all are done, 0 if not
 * yet, or the status of the first failure, in later calls too. */
static int request_advance(atomo_request *r, bool block, uint64_t flight)
{
    if (r->failed) return r->failed;
    while (r->done < r->n) {
        MPI_Status s;
        int over = 1, i = r->done;
        const int rc = block ? atomo__request_wait_piece(r, i, flight, &s) : MPI_Test(&r->piece[i], &over, &s);
        if (rc == MPI_SUCCESS && !over) return 0;
        const int status = r->failed ? r->failed : piece_done(r, rc, &s);
        if (status < 0 || r->done == r->n) atomo__request_count_open(r, false);
        ATOMO_TRY(status);
        if (r->done == r->n && r->writes) atomo_tensor_touch(r->hold);
    }
    return 1;
}

static void cancel(atomo_request *r)
{
    for (int i = r->done; i < r->n; i++)
        if (r->piece[i] != MPI_REQUEST_NULL && MPI_Cancel(&r->piece[i]) == MPI_SUCCESS) r->receives = false;
}

void atomo__requests_reap(bool last)
{
    static bool ending; /* nobody waits for those in use either */
    ending |= last;
    pthread_mutex_lock(&lock);
    for (atomo_request *r = abandoned, *next; r; r = next) {
        next = r->next;
        if (last && r->receives) cancel(r);
        const int over = request_advance(r, false, 0);
        if (over == 0) continue; /* MPI still uses its memory, so it is kept; at the end the process's exit frees it */
        delist(r);
        if (over == 1) request_release(r);
    }
    for (atomo_request *r = in_use; ending && r; r = r->next) {
        if (last && r->receives) cancel(r);
        request_advance(r, false, 0);
    }
    pthread_mutex_unlock(&lock);
}

static bool receives_from(const atomo_request *r, const atomo_comm *c, int rank)
{
    return r->message && r->writes && r->comm == c && r->source == rank && r->done < r->n && !r->failed;
}

bool atomo__requests_receive_from(const atomo_comm *c, int rank)
{
    bool found = false;
    pthread_mutex_lock(&lock);
    for (const atomo_request *r = abandoned; r; r = r->next) found |= receives_from(r, c, rank);
    for (const atomo_request *r = in_use; r; r = r->next) found |= receives_from(r, c, rank);
    pthread_mutex_unlock(&lock);
    return found;
}

int atomo_request_wait(atomo_request *r)
{
    ATOMO_REQUIRE(r && atomo_mpi_started(), ATOMO_EMPI, "request:wait: the request is freed or MPI is not running");
    atomo__gate();
    ATOMO_FLIGHT(r->what, &r->group, r->hold ? atomo__tensor_bytes(r->hold) : 0);
    if (!r->operation) atomo__request_note_tag(r, flight_, false);
    int over = request_advance(r, true, flight_);
    return over < 0 ? over : ATOMO_OK;
}

int atomo_request_test(atomo_request *r)
{
    ATOMO_REQUIRE(r && atomo_mpi_started(), ATOMO_EMPI, "request:test: the request is freed or MPI is not running");
    atomo__gate();
    return request_advance(r, false, 0);
}

void atomo_request_free(atomo_request *r)
{
    if (!r) return;
    const bool done = r->done == r->n;
    move_to(r, done ? NULL : &abandoned);
    if (done) request_release(r);
}

int atomo__request_post_failed(atomo_request *r, int posted, int rc, const char *fn)
{
    atomo__request_count_open(r, false);
    if (posted == 0) {
        move_to(r, NULL);
        request_release(r);
    } else {
        atomo_request_free(r);
    }
    return atomo__mpi_fail(rc, fn);
}

static int post_head(atomo_request *r, int peer, int tag, bool sends)
{
    const int n = (int)sizeof r->head;
    if (sends)
        r->head = (atomo__message_head){.dtype = r->hold->dtype,
                                        .tag = TAG_PIECES + (int32_t)(r->comm->messages++ % PIECES_TAGS),
                                        .bytes = atomo__tensor_bytes(r->hold)};
    const int rc = sends ? MPI_Isend(&r->head, n, MPI_BYTE, peer, tag, r->comm->control, &r->piece[0])
                         : MPI_Irecv(&r->head, n, MPI_BYTE, peer, tag, r->comm->control, &r->piece[0]);
    return rc == MPI_SUCCESS ? ATOMO_OK : atomo__request_post_failed(r, 0, rc, sends ? "MPI_Isend" : "MPI_Irecv");
}

/* what: the call's name in errors. */
static int post_message(const char *what, atomo_comm *c, const atomo_tensor *t, int peer, int tag, bool sends,
                        atomo_request **out)
{
    ATOMO_TRY(atomo__comm_usable(c, what));
    ATOMO_TRY(atomo__comm_buffer(t, sends ? "send: tensor" : "recv: tensor"));
    ATOMO_TRY(atomo__comm_root(c, peer, sends ? "send: destination" : "recv: source"));
    ATOMO_REQUIRE(tag >= 0 && tag <= ATOMO_COMM_TAG_MAX, ATOMO_EARG, "%s: tag %d, expected 0 to %d",
                  sends ? "send" : "recv", tag, (int)ATOMO_COMM_TAG_MAX);
    atomo__requests_reap(false);
    atomo_request *r = NULL;
    const bool compares = c->checked || atomo__comm_checked;
    ATOMO_TRY(atomo__request_new(what, c, peer, t, compares, &r));
    r->receives = r->writes = !sends;
    r->source = peer;
    r->tag = tag;
    atomo__request_count_open(r, sends);
    if (compares) ATOMO_TRY(post_head(r, peer, tag, sends));
    const int n = compares && !sends ? r->first + 1 : r->n; /* the rest of a receive waits for the head */
    for (int i = r->first; i < n; i++) {
        const int rc = post_piece(r, i, sends);
        if (rc != MPI_SUCCESS) return atomo__request_post_failed(r, i, rc, sends ? "MPI_Isend" : "MPI_Irecv");
    }
    double bytes = atomo__tensor_bytes(t) + (compares ? (double)sizeof r->head : 0);
    atomo__comm_count(c, sends ? bytes : 0, sends ? 0 : bytes);
    *out = r;
    return ATOMO_OK;
}

int atomo_comm_isend(atomo_comm *c, const atomo_tensor *t, int dst, int tag, atomo_request **out)
{
    return post_message("isend", c, t, dst, tag, true, out);
}

int atomo_comm_irecv(atomo_comm *c, atomo_tensor *t, int src, int tag, atomo_request **out)
{
    return post_message("irecv", c, t, src, tag, false, out);
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
    ATOMO_TRY(post_message("send", c, t, dst, tag, true, &r));
    return wait_and_free(r);
}

int atomo_comm_recv(atomo_comm *c, atomo_tensor *t, int src, int tag)
{
    atomo_request *r = NULL;
    ATOMO_TRY(post_message("recv", c, t, src, tag, false, &r));
    return wait_and_free(r);
}
