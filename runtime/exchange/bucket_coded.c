/* bucket_coded.c - parcels: the messages of neighbouring tensors, coded by the coding thread (engine.c) and sent as
 * one.
 *
 * A parcel is encoded by its codec's streaming form when its gradients are there, and sent as soon as it is coded, the
 * main thread going on. An answer is a parcel too: what came from the ranks is averaged and encoded again; so is what
 * is only decoded. One thread codes for all, in the order in which buckets were started, so the bits do not depend on
 * how coding and travel overlap; it decodes for this rank alone in between, which no message depends on. A gradient
 * that cannot be encoded (NaN) leaves its parcel empty, so that the ranks still meet; atomo_bucket_wait says why. Path:
 * stages 6 and 8.
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
    atomo_tensor *tensor; /* [count] held: what is encoded, or what the averages become */
    bool filled, for_good;
    double seconds[2]; /* encoding, decoding */
    int failed;        /* status of the first failure, and its text */
    char why[512];
};

atomo_parcel *atomo__parcel_hold(atomo_parcel *b)
{
    b->holders++;
    return b;
}

static void drop_tensors(atomo_parcel *b)
{
    for (int k = 0; b->tensor && k < b->count; k++) atomo__tensor_drop(&b->tensor[k]);
    b->filled = false;
}

void atomo_parcel_free(atomo_parcel *b)
{
    if (!b || --b->holders > 0) return;
    drop_tensors(b);
    atomo_codec_free(b->codec);
    atomo__free(b->out);
    atomo__free(b->tensor);
    atomo__free(b->sizes);
    atomo__free(b->to);
    atomo__free(b);
}

static int reserve(atomo_parcel *b, const int32_t *to)
{
    for (int k = 0; k < b->count; k++) b->room += atomo_codec_wire_max(b->codec, b->first + k);
    ATOMO_TRY(atomo__calloc((void **)&b->tensor, sizeof *b->tensor * (size_t)(b->count + 1)));
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
    const int status = reserve(b, to);
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
            atomo_codec_push(b->codec, b->first + k, &b->tensor[k], b->out + (size_t)b->total, b->room - b->total, &n));
        b->total += n;
        b->sizes[b->to ? b->to[k] : 0] += n;
    }
    return ATOMO_OK;
}

/* Blocks of messages, rank after rank, of the random streams of `rank` (below 0: each block's own rank's). */
typedef struct blocks {
    atomo_codec *codec;
    double step, rank;
    const uint8_t **at; /* [count] */
    double *left;       /* [count] */
    int count;
} blocks;

/* acc becomes the average of the messages for tensor number `tensor` in `count` blocks from `first` on, which move on.
 */
static int average_one(const blocks *from, int tensor, int first, int count, atomo_tensor *acc)
{
    const double scale = 1.0 / count;
    memset(acc->data, 0, (size_t)atomo__tensor_bytes(acc));
    if (count > 1) ATOMO_TRY(atomo_codec_sum(from->codec, tensor));
    for (int r = first; r < first + count; r++) {
        const double rank = from->rank < 0 ? r : from->rank;
        double used;
        ATOMO_TRY(atomo_codec_decode_add(from->codec, tensor, from->step, rank, from->at[r], from->left[r], scale, acc,
                                         &used));
        from->at[r] += (size_t)used;
        from->left[r] -= used;
    }
    return atomo_codec_finish(from->codec, tensor, scale, acc);
}

static int average_all(atomo_parcel *b, const blocks *from, const atomo_inbox *inbox)
{
    const uint8_t *start = inbox->slot[0] ? inbox->slot[0]->data : NULL;
    for (int r = 0; r < from->count; start += (size_t)from->left[r++]) {
        from->at[r] = start;
        from->left[r] = inbox->counts[r];
    }
    for (int k = 0; k < b->count; k++)
        ATOMO_TRY(average_one(from, b->first + k, b->to ? b->to[k] : 0, b->to ? 1 : from->count, &b->tensor[k]));
    for (int r = 0; r < from->count; r++)
        ATOMO_REQUIRE(from->left[r] == 0, ATOMO_EFORMAT, "exchange: %.0f bytes follow the last message of block %d",
                      from->left[r], r + 1);
    return ATOMO_OK;
}

static int average(atomo_parcel *b, blocks *from, const atomo_inbox *inbox)
{
    void *p;
    ATOMO_TRY(atomo__alloc(&p, (size_t)from->count * (sizeof(double) + sizeof(uint8_t *))));
    from->left = p;
    from->at = (const uint8_t **)(void *)(from->left + from->count);
    const int status = average_all(b, from, inbox);
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

void atomo__parcel_encode(atomo_parcel *b)
{
    const double from = atomo_time();
    if (!b->failed && (b->filled || b->count == 0)) note_failure(b, encode(b));
    b->seconds[0] += atomo_time() - from;
}

void atomo__parcel_average(atomo_parcel *b, const atomo_parcel *from, const atomo_inbox *inbox, double step,
                           double rank)
{
    const double begin = atomo_time();
    blocks sources = {.codec = from->codec, .step = step, .rank = rank, .count = b->ranks};
    if (b->filled || b->count == 0) note_failure(b, average(b, &sources, inbox));
    b->seconds[1] += atomo_time() - begin;
}

/* ---- before and after ------------------------------------------------------------------------------------------- */

int atomo__parcel_reserve(atomo_parcel *b)
{
    return b->out ? ATOMO_OK : atomo__alloc((void **)&b->out, (size_t)b->room + 1);
}

int atomo__parcel_count(const atomo_parcel *b)
{
    return b->count;
}

int atomo__parcel_ranks(const atomo_parcel *b)
{
    return b->ranks;
}

void atomo__parcel_begin(atomo_parcel *b)
{
    empty(b);
    b->failed = 0;
    b->seconds[0] = b->seconds[1] = 0;
}

int atomo__parcel_set(atomo_parcel *b, const atomo_tensor *const *tensors, bool for_good)
{
    for (int k = 0; k < b->count && tensors; k++)
        ATOMO_TRY(atomo__expect(tensors[k], ATOMO_F32, -1, "exchange: gradient"));
    drop_tensors(b);
    for (int k = 0; k < b->count && tensors; k++) atomo__tensor_hold(&b->tensor[k], tensors[k]);
    b->filled = tensors != NULL;
    b->for_good = for_good;
    return ATOMO_OK;
}

void atomo__parcel_let_go(atomo_parcel *b)
{
    if (!b->for_good) drop_tensors(b);
}

void atomo__parcel_busy(atomo_parcel *b, int n)
{
    b->codec->busy += n;
}

const uint8_t *atomo__parcel_bytes(const atomo_parcel *b, double *total, const double **sizes)
{
    *total = b->total;
    *sizes = b->sizes;
    return b->out;
}

int atomo__parcel_result(const atomo_parcel *b, double *seconds)
{
    seconds[0] += b->seconds[0];
    seconds[1] += b->seconds[1];
    return b->failed ? atomo__fail(b->failed, "%s", b->why) : ATOMO_OK;
}
