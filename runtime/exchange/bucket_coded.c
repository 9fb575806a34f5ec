/* bucket_coded.c - parcels: the messages of neighbouring tensors, coded by the coding thread (engine.c) and sent as
 * one.
 *
 * A parcel is encoded by its codec's streaming form when its gradients are there, and sent as soon as it is coded, the
 * main thread going on. An answer is a parcel too: what came from the ranks is averaged and encoded again; so is what
 * is only decoded. One thread codes for all, in the order of posting, so the bits do not depend on how coding and
 * travel overlap; it decodes for this rank alone in between, which no message depends on. A gradient that cannot be
 * encoded (NaN) leaves its parcel empty, so that the ranks still meet; atomo_parcel_wait says why.
 * Path: stages 6 and 8.
 */
#include "codec/codec.h"
#include "exchange/engine.h"
#include "tensor/tensor.h"
#include <stdio.h>
#include <string.h>

struct atomo_parcel {
    _Atomic int holders;
    atomo_codec *codec;
    int first, count, ranks;
    int32_t *to;                /* [count] the rank that a message is for (or from); NULL: all are one block */
    double *sizes, total, room; /* sizes [ranks]: bytes for each rank; out is [room] */
    uint8_t *out;
    atomo_tensor *grad; /* [count] held while they are coded */
    int lane;           /* of the engine, */
    double ticket;      /* and the job of its coding there */
    double sent;        /* the job of its travel */
    double seconds[2];  /* encoding, decoding */
    int failed;         /* status of the first failure, and its text */
    char why[512];
    struct { /* what is decoded: blocks of messages, rank after rank */
        atomo_codec *codec;
        double step, rank; /* rank: whose random streams; below 0: each block's its own rank's */
        atomo_inbox *inbox;
        int blocks;
    } from; /* held while it is decoded */
};

atomo_parcel *atomo__parcel_hold(atomo_parcel *b)
{
    b->holders++;
    return b;
}

/* What one coding needed. */
static void let_go(atomo_parcel *b)
{
    for (int k = 0; b->grad && k < b->count; k++) atomo__tensor_drop(&b->grad[k]);
    atomo_codec_free(b->from.codec);
    atomo_inbox_free(b->from.inbox);
    b->from.codec = NULL;
    b->from.inbox = NULL;
}

void atomo_parcel_free(atomo_parcel *b)
{
    if (!b || --b->holders > 0) return;
    let_go(b);
    atomo_codec_free(b->codec);
    atomo__free(b->out);
    atomo__free(b->grad);
    atomo__free(b->sizes);
    atomo__free(b->to);
    atomo__free(b);
}

static int make_room(atomo_parcel *b, const int32_t *to)
{
    for (int k = 0; k < b->count; k++) b->room += atomo_codec_wire_max(b->codec, b->first + k);
    ATOMO_TRY(atomo__calloc((void **)&b->grad, sizeof *b->grad * (size_t)(b->count + 1)));
    ATOMO_TRY(atomo__calloc((void **)&b->sizes, sizeof *b->sizes * (size_t)b->ranks));
    if (!to || b->count == 0) return ATOMO_OK;
    ATOMO_TRY(atomo__alloc((void **)&b->to, sizeof *to * (size_t)b->count));
    memcpy(b->to, to, sizeof *to * (size_t)b->count);
    return ATOMO_OK;
}

int atomo_parcel_new(atomo_codec *codec, int first, int count, const int32_t *to, int ranks, atomo_parcel **out)
{
    *out = NULL;
    ATOMO_REQUIRE(codec && first >= 1 && count >= 0 && ranks >= 1, ATOMO_EARG,
                  "parcel: %d tensors from number %d on, for %d ranks", count, first, ranks);
    for (int k = 0; k < count; k++)
        ATOMO_REQUIRE(atomo_codec_wire_max(codec, first + k) > 0 && (!to || (to[k] >= 0 && to[k] < ranks)), ATOMO_EARG,
                      "parcel: tensor %d is not planned, or is for a rank outside 0 to %d", first + k, ranks - 1);
    atomo_parcel *b;
    ATOMO_TRY(atomo__calloc((void **)&b, sizeof *b));
    b->holders = 1;
    b->codec = atomo__codec_hold(codec);
    b->first = first;
    b->count = count;
    b->ranks = ranks;
    const int status = make_room(b, to);
    if (status < 0) {
        atomo_parcel_free(b);
        return status;
    }
    *out = b;
    return ATOMO_OK;
}

/* ---- on the coding thread --------------------------------------------------------------------------------------- */

static void empty(atomo_parcel *b)
{
    b->total = 0;
    memset(b->sizes, 0, sizeof *b->sizes * (size_t)b->ranks);
}

static int encode(atomo_parcel *b)
{
    for (int k = 0; k < b->count; k++) {
        double n;
        ATOMO_TRY(
            atomo_codec_push(b->codec, b->first + k, &b->grad[k], b->out + (size_t)b->total, b->room - b->total, &n));
        b->total += n;
        b->sizes[b->to ? b->to[k] : 0] += n;
    }
    return ATOMO_OK;
}

/* acc becomes the average of the messages for tensor number `tensor` in `count` blocks from `first` on; `at` and `left`
 * [blocks] move on. */
static int average_one(const atomo_parcel *b, int tensor, int first, int count, const uint8_t **at, double *left,
                       atomo_tensor *acc)
{
    atomo_codec *codec = b->from.codec;
    const double scale = 1.0 / count;
    memset(acc->data, 0, (size_t)atomo__tensor_bytes(acc));
    if (count > 1) ATOMO_TRY(atomo_codec_sum(codec, tensor));
    for (int r = first; r < first + count; r++) {
        const double rank = b->from.rank < 0 ? r : b->from.rank;
        double used;
        ATOMO_TRY(atomo_codec_decode_add(codec, tensor, b->from.step, rank, at[r], left[r], scale, acc, &used));
        at[r] += (size_t)used;
        left[r] -= used;
    }
    return atomo_codec_finish(codec, tensor, scale, acc);
}

static int average_all(atomo_parcel *b, const uint8_t **at, double *left)
{
    const uint8_t *start = b->from.inbox->slot[0] ? b->from.inbox->slot[0]->data : NULL;
    for (int r = 0; r < b->from.blocks; start += (size_t)left[r++]) {
        at[r] = start;
        left[r] = b->from.inbox->counts[r];
    }
    for (int k = 0; k < b->count; k++) {
        atomo_tensor *acc = &b->grad[k];
        ATOMO_TRY(average_one(b, b->first + k, b->to ? b->to[k] : 0, b->to ? 1 : b->from.blocks, at, left, acc));
    }
    for (int r = 0; r < b->from.blocks; r++)
        ATOMO_REQUIRE(left[r] == 0, ATOMO_EFORMAT, "exchange: %.0f bytes follow the last message of block %d", left[r],
                      r + 1);
    return ATOMO_OK;
}

static int average(atomo_parcel *b)
{
    void *p;
    ATOMO_TRY(atomo__alloc(&p, (size_t)b->from.blocks * (sizeof(double) + sizeof(uint8_t *))));
    double *left = p;
    const int status = average_all(b, (const uint8_t **)(void *)(left + b->from.blocks), left);
    atomo__free(p);
    return status;
}

static void note_failure(atomo_parcel *b, int status)
{
    if (status >= 0) return;
    b->failed = status;
    snprintf(b->why, sizeof b->why, "%s", atomo_last_error());
    empty(b);
}

/* Never fails: the ranks must meet. */
static int run_code(const atomo__job *j)
{
    atomo_parcel *b = j->parcel;
    const double from = atomo_time();
    empty(b);
    if (b->from.codec) note_failure(b, average(b));
    b->seconds[1] = atomo_time() - from;
    if (j->again && !b->failed) note_failure(b, encode(b));
    b->seconds[0] = atomo_time() - from - b->seconds[1];
    if (b->from.codec) b->from.codec->busy--;
    b->codec->busy--;
    let_go(b);
    return ATOMO_OK;
}

/* ---- posting ---------------------------------------------------------------------------------------------------- */

/* A step that was left in the middle may have left it under way. */
static int await_last(const atomo_parcel *b)
{
    ATOMO_TRY(atomo__engine_wait_for(b->lane, b->ticket));
    return atomo__engine_wait_for(ENGINE_COMM, b->sent);
}

/* grads NULL: none, for what is not coded. from: whose messages are averaged first, NULL: none are. */
static int code(atomo_parcel *b, int lane, const atomo_tensor *const *grads, bool again, atomo_codec *from,
                atomo_inbox *inbox, double after)
{
    for (int k = 0; k < b->count && grads; k++) ATOMO_TRY(atomo__expect(grads[k], ATOMO_F32, -1, "exchange: gradient"));
    ATOMO_REQUIRE(!from || inbox, ATOMO_EARG, "exchange: an inbox is needed");
    ATOMO_TRY(await_last(b));
    if (again && !b->out) ATOMO_TRY(atomo__alloc((void **)&b->out, (size_t)b->room + 1)); /* an average needs none */
    let_go(b);
    for (int k = 0; k < b->count && grads; k++) atomo__tensor_hold(&b->grad[k], grads[k]);
    b->from.codec = from ? atomo__codec_hold(from) : NULL;
    b->from.inbox = from ? atomo__inbox_hold(inbox) : NULL;
    b->failed = 0;
    b->lane = lane;
    b->codec->busy++;
    if (from) from->busy++;
    const atomo__job j = {.run = run_code, .parcel = b, .again = again, .after = after};
    const int status = atomo__engine_post(lane, &j, 0, &b->ticket);
    if (status < 0) {
        if (from) from->busy--;
        b->codec->busy--;
        let_go(b);
    }
    return status;
}

int atomo_parcel_encode(atomo_parcel *b, const atomo_tensor *const *grads)
{
    return code(b, ENGINE_CODE, grads, true, NULL, NULL, 0);
}

int atomo_parcel_empty(atomo_parcel *b)
{
    return code(b, ENGINE_CODE, NULL, false, NULL, NULL, 0);
}

/* Whose random streams, of which step, the blocks that came are of. */
static void take_from(atomo_parcel *b, double step, double rank)
{
    b->from.step = step;
    b->from.rank = rank;
    b->from.blocks = b->ranks;
}

int atomo_parcel_answer(atomo_parcel *b, atomo_codec *from, double step, atomo_inbox *inbox, atomo_tensor *const *accs,
                        int again, double after)
{
    ATOMO_TRY(await_last(b));
    take_from(b, step, -1);
    return code(b, ENGINE_CODE, (const atomo_tensor *const *)accs, again != 0, from, inbox, after);
}

int atomo_parcel_decode(atomo_parcel *b, double step, double rank, atomo_inbox *inbox, atomo_tensor *const *accs,
                        double after)
{
    ATOMO_TRY(await_last(b));
    take_from(b, step, rank);
    return code(b, ENGINE_DECODE, (const atomo_tensor *const *)accs, false, b->codec, inbox, after);
}

int atomo_parcel_wait(atomo_parcel *b, double *seconds)
{
    seconds[0] = seconds[1] = 0;
    ATOMO_TRY(atomo__engine_wait_for(b->lane, b->ticket));
    memcpy(seconds, b->seconds, sizeof b->seconds);
    return b->failed ? atomo__fail(b->failed, "%s", b->why) : ATOMO_OK;
}

static int run_allgather(const atomo__job *j)
{
    const atomo_parcel *b = j->parcel;
    return atomo_comm_allgatherv_bytes(j->comm, b->out, b->total, j->inbox->slot, j->inbox->counts);
}

static int run_alltoall(const atomo__job *j)
{
    const atomo_parcel *b = j->parcel;
    return atomo_comm_alltoallv_bytes(j->comm, b->out, b->sizes, j->inbox->slot, j->inbox->counts);
}

static int run_bcast(const atomo__job *j)
{
    const atomo_parcel *b = j->parcel;
    return atomo_comm_bcast_bytes(j->comm, b->out, b->total, j->root, j->inbox->slot, j->inbox->counts);
}

static int run_bcast_tensor(const atomo__job *j)
{
    atomo_tensor t = j->tensor;
    return atomo_comm_bcast(j->comm, &t, j->root);
}

static int send(atomo__job j, atomo_parcel *b, atomo_comm *c, double *ticket)
{
    ATOMO_REQUIRE(b && c && !c->closed && atomo_mpi_started() && c->size == b->ranks, ATOMO_EMPI,
                  "exchange: a parcel for %d ranks: the communicator is closed or another, or MPI is not running",
                  b ? b->ranks : 0);
    ATOMO_REQUIRE(j.inbox || j.tensor.storage, ATOMO_EARG, "exchange: an inbox is needed");
    j.parcel = b;
    j.comm = c;
    j.after = b->ticket;
    ATOMO_TRY(atomo__engine_post(ENGINE_COMM, &j, 0, ticket));
    b->sent = *ticket;
    return ATOMO_OK;
}

int atomo_parcel_allgather(atomo_parcel *b, atomo_comm *c, atomo_inbox *inbox, double *ticket)
{
    return send((atomo__job){.run = run_allgather, .inbox = inbox}, b, c, ticket);
}

int atomo_parcel_alltoall(atomo_parcel *b, atomo_comm *c, atomo_inbox *inbox, double *ticket)
{
    return send((atomo__job){.run = run_alltoall, .inbox = inbox}, b, c, ticket);
}

int atomo_parcel_bcast(atomo_parcel *b, atomo_comm *c, int root, atomo_inbox *inbox, double *ticket)
{
    return send((atomo__job){.run = run_bcast, .root = root, .inbox = inbox}, b, c, ticket);
}

int atomo_parcel_bcast_tensor(atomo_parcel *b, atomo_comm *c, atomo_tensor *t, int root, double *ticket)
{
    ATOMO_TRY(atomo__comm_buffer(t, "exchange: averages"));
    return send((atomo__job){.run = run_bcast_tensor, .tensor = *t, .root = root}, b, c, ticket);
}
