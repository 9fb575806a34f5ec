/* bucket_coded.c - messages of neighbouring tensors, coded by the coding thread (engine.c) and sent together.
 *
 * An atomo_messages object encodes gradients, averages and encodes again (an answer), or only decodes. Messages are
 * encoded by their codec's streaming form as soon as their gradients are ready, and sent when they are coded, while the
 * main thread continues. One thread does all coding, in the order in which buckets were started, so the bits do not
 * depend on how coding and communication overlap. Decoding, which only this rank waits for, is done in between; no
 * message depends on it. If a gradient cannot be encoded (NaN), all messages of the bucket are left empty, so that the
 * other ranks are not left waiting, and atomo_bucket_wait returns the failure. Path: stages 6 and 8.
 */
#include "codec/codec.h"
#include "exchange/engine.h"
#include "tensor/tensor.h"
#include <stdio.h>
#include <string.h>

struct atomo_messages {
    _Atomic int holders;
    atomo_codec *codec;
    int first, count, ranks;
    int32_t *to;                /* [count] the rank that each message is for (or from); NULL: all are one block */
    double *sizes, total, room; /* bytes: for each rank [ranks]; of all messages; of out */
    uint8_t *out;               /* [room] the encoded messages; NULL: nothing is encoded */
    uint8_t *opened;            /* [opened_room] the messages of received bundles (codec/bundle.c) */
    double opened_room;
    atomo_tensor *tensor;  /* [count] held: the tensors to encode, or to write averages to */
    bool filled, for_good; /* tensor is set; it stays set after the step */
    double seconds[2];     /* encoding, decoding */
    int failed;            /* status of the first failure; 0: none */
    char why[512];         /* its text */
};

atomo_messages *atomo__messages_hold(atomo_messages *m)
{
    m->holders++;
    return m;
}

static void drop_tensors(atomo_messages *m)
{
    for (int k = 0; m->tensor && k < m->count; k++) atomo__tensor_drop(&m->tensor[k]);
    m->filled = false;
}

void atomo_messages_free(atomo_messages *m)
{
    if (!m || atomo__objects_kept() || --m->holders > 0) return;
    drop_tensors(m);
    atomo_codec_free(m->codec);
    atomo__free(m->out);
    atomo__free(m->opened);
    atomo__free(m->tensor);
    atomo__free(m->sizes);
    atomo__free(m->to);
    atomo__free(m);
}

static int reserve(atomo_messages *m, const int32_t *to)
{
    for (int k = 0; k < m->count; k++) m->room += atomo_codec_wire_max(m->codec, m->first + k);
    ATOMO_TRY(atomo__calloc((void **)&m->tensor, sizeof *m->tensor * (size_t)(m->count + 1)));
    ATOMO_TRY(atomo__calloc((void **)&m->sizes, sizeof *m->sizes * (size_t)m->ranks));
    if (!to || m->count == 0) return ATOMO_OK;
    ATOMO_TRY(atomo__alloc((void **)&m->to, sizeof *to * (size_t)m->count));
    memcpy(m->to, to, sizeof *to * (size_t)m->count);
    return ATOMO_OK;
}

int atomo_messages_new(atomo_codec *codec, int first, int count, const int32_t *to, int ranks, atomo_messages **out)
{
    *out = NULL;
    ATOMO_REQUIRE(codec && first >= 1 && count >= 0 && ranks >= 1, ATOMO_EARG,
                  "messages: %d tensors from number %d on, for %d ranks", count, first, ranks);
    for (int k = 0; k < count; k++)
        ATOMO_REQUIRE(atomo_codec_wire_max(codec, first + k) > 0 && (!to || (to[k] >= 0 && to[k] < ranks)), ATOMO_EARG,
                      "messages: tensor %d is not planned, or is for a rank outside 0 to %d", first + k, ranks - 1);
    atomo_messages *m;
    ATOMO_TRY(atomo__calloc((void **)&m, sizeof *m));
    m->holders = 1;
    m->codec = atomo__codec_hold(codec);
    m->first = first;
    m->count = count;
    m->ranks = ranks;
    const int status = reserve(m, to);
    if (status < 0) {
        atomo_messages_free(m);
        return status;
    }
    *out = m;
    return ATOMO_OK;
}

/* ---- on the coding thread --------------------------------------------------------------------------------------- */

static void empty(atomo_messages *m)
{
    m->total = 0;
    memset(m->sizes, 0, sizeof *m->sizes * (size_t)m->ranks);
}

/* Returns the end of the run of messages from k on that are for the same rank. */
static int run_end(const atomo_messages *m, int k)
{
    const int from = k;
    while (k < m->count && (!m->to || m->to[k] == m->to[from])) k++;
    return k;
}

/* Encodes messages k .. end - 1, which are for one rank, and makes a bundle of them. */
static int encode_run(atomo_messages *m, int k, int end)
{
    const struct atomo__price *step = &m->codec->stream;
    uint8_t *start = m->out + (size_t)m->total;
    double size = 0, n;
    for (int i = k; i < end; i++) {
        ATOMO_TRY(atomo_codec_push(m->codec, m->first + i, &m->tensor[i], start + (size_t)size,
                                   m->room - m->total - size, &n));
        size += n;
    }
    ATOMO_TRY(atomo__bundle_make(m->codec, m->first + k, end - k, step->rank, step->step, start, &size));
    m->total += size;
    m->sizes[m->to ? m->to[k] : 0] += size;
    return ATOMO_OK;
}

static int encode(atomo_messages *m)
{
    for (int k = 0, end; k < m->count; k = end) {
        end = run_end(m, k);
        ATOMO_TRY(encode_run(m, k, end));
    }
    return ATOMO_OK;
}

/* Replaces blocks [m->ranks] that are bundles by their messages, in m->opened. */
static int open_bundles(atomo_messages *m, const atomo_codec *codec, atomo_codec_block *block)
{
    double room = 0, n;
    for (int r = 0; r < m->ranks; r++) {
        if (!atomo__is_bundle(block[r].at, block[r].left)) continue;
        ATOMO_TRY(atomo__bundle_room(codec, block[r].at, block[r].left, &n));
        room += n;
    }
    if (room > m->opened_room) {
        atomo__free(m->opened);
        m->opened = NULL;
        m->opened_room = 0;
        ATOMO_TRY(atomo__alloc((void **)&m->opened, (size_t)(2 * room)));
        m->opened_room = 2 * room;
    }
    uint8_t *at = m->opened;
    for (int r = 0; r < m->ranks; r++) {
        if (!atomo__is_bundle(block[r].at, block[r].left)) continue;
        n = atomo__bundle_open(codec, block[r].at, block[r].left, at);
        block[r].at = at;
        block[r].left = n;
        at += (size_t)n;
    }
    return ATOMO_OK;
}

/* Sets m's tensors to the averages of the messages in the blocks [m->ranks], which `codec` decodes. */
static int average_all(atomo_messages *m, atomo_codec *codec, atomo_codec_block *block, double step)
{
    const int count = m->to ? 1 : m->ranks; /* messages for each tensor */
    for (int k = 0; k < m->count; k++) {
        const int32_t tensor = m->first + k;
        ATOMO_TRY(atomo_codec_decode_add_step(codec, 1, &tensor, step, count, block + (m->to ? m->to[k] : 0),
                                              1.0 / count, ATOMO_DECODE_FIRST | ATOMO_DECODE_LAST,
                                              &(atomo_tensor *){&m->tensor[k]}));
    }
    for (int r = 0; r < m->ranks; r++)
        ATOMO_REQUIRE(block[r].left == 0, ATOMO_EFORMAT, "exchange: %.0f bytes follow the last message of block %d",
                      block[r].left, r + 1);
    return ATOMO_OK;
}

/* rank: of all messages; < 0: block r is from rank r. */
static int average(atomo_messages *m, atomo_codec *codec, const atomo_inbox *inbox, double step, double rank)
{
    void *p;
    ATOMO_TRY(atomo__alloc(&p, (size_t)m->ranks * sizeof(atomo_codec_block)));
    atomo_codec_block *block = p;
    const uint8_t *start = inbox->slot[0] ? inbox->slot[0]->data : NULL;
    for (int r = 0; r < m->ranks; start += (size_t)block[r++].left)
        block[r] = (atomo_codec_block){start, inbox->counts[r], rank < 0 ? r : rank};
    int status = open_bundles(m, codec, block);
    if (status >= 0) status = average_all(m, codec, block, step);
    atomo__free(p);
    return status;
}

static void note_failure(atomo_messages *m, int status)
{
    if (status >= 0) return;
    m->failed = status;
    snprintf(m->why, sizeof m->why, "%s", atomo_last_error());
    empty(m);
}

void atomo__messages_encode(atomo_messages *m)
{
    const double from = atomo_time();
    if (!m->failed && (m->filled || m->count == 0)) note_failure(m, encode(m));
    m->seconds[0] += atomo_time() - from;
}

void atomo__messages_average(atomo_messages *m, const atomo_messages *from, const atomo_inbox *inbox, double step,
                             double rank)
{
    const double begin = atomo_time();
    if (m->filled || m->count == 0) note_failure(m, average(m, from->codec, inbox, step, rank));
    m->seconds[1] += atomo_time() - begin;
}

/* ---- before and after ------------------------------------------------------------------------------------------- */

int atomo__messages_reserve(atomo_messages *m)
{
    for (int k = 0, end; k < m->count; k = end) {
        end = run_end(m, k);
        atomo__bundle_plan(m->codec, m->first + k, end - k);
    }
    return m->out ? ATOMO_OK : atomo__alloc((void **)&m->out, (size_t)m->room + 1);
}

int atomo__messages_count(const atomo_messages *m)
{
    return m->count;
}

int atomo__messages_ranks(const atomo_messages *m)
{
    return m->ranks;
}

void atomo__messages_begin(atomo_messages *m)
{
    empty(m);
    m->failed = 0;
    m->seconds[0] = m->seconds[1] = 0;
}

int atomo__messages_set(atomo_messages *m, const atomo_tensor *const *tensors, bool for_good)
{
    for (int k = 0; k < m->count && tensors; k++)
        ATOMO_TRY(atomo__expect(tensors[k], ATOMO_F32, -1, "exchange: gradient"));
    drop_tensors(m);
    for (int k = 0; k < m->count && tensors; k++) atomo__tensor_hold(&m->tensor[k], tensors[k]);
    m->filled = tensors != NULL;
    m->for_good = for_good;
    return ATOMO_OK;
}

void atomo__messages_let_go(atomo_messages *m)
{
    if (!m->for_good) drop_tensors(m);
}

void atomo__messages_busy(atomo_messages *m, int n)
{
    m->codec->busy += n;
}

const uint8_t *atomo__messages_bytes(const atomo_messages *m, double *total, const double **sizes)
{
    *total = m->total;
    *sizes = m->sizes;
    return m->out;
}

int atomo__messages_result(const atomo_messages *m, double *seconds)
{
    seconds[0] += m->seconds[0];
    seconds[1] += m->seconds[1];
    return m->failed ? atomo__fail(m->failed, "%s", m->why) : ATOMO_OK;
}
