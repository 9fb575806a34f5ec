/* decode_step.c - decodes the messages of a step, or of some of its tensors, into sums or averages; stage 8 of the
 * path. */
#include "codec/codec.h"
#include <math.h>

/* Returns a failure if an argument is wrong, before anything is changed. */
static int check_arguments(const atomo_codec *c, int count, const int32_t *tensors, int blocks,
                           const atomo_codec_block *block, double scale, int which, atomo_tensor *const *acc)
{
    const int flags = ATOMO_DECODE_FIRST | ATOMO_DECODE_LAST | ATOMO_DECODE_ALL;
    ATOMO_REQUIRE(count >= 0, ATOMO_EARG, "%s: decode_add_step: %d tensors, expected 0 or more", c->name, count);
    ATOMO_REQUIRE(blocks >= 1, ATOMO_EARG, "%s: decode_add_step: %d blocks, expected 1 or more", c->name, blocks);
    ATOMO_REQUIRE((which & ~flags) == 0, ATOMO_EARG, "%s: decode_add_step: which is %d, expected 0 to %d", c->name,
                  which, flags);
    ATOMO_REQUIRE(isfinite(scale), ATOMO_EARG, "%s: decode_add_step: scale is %g, expected a finite number", c->name,
                  scale);
    ATOMO_REQUIRE(scale > 0 || !(which & ATOMO_DECODE_LAST), ATOMO_EARG,
                  "%s: decode_add_step: scale is %g, expected a number above 0 with ATOMO_DECODE_LAST", c->name, scale);
    for (int i = 0; i < count; i++) {
        atomo__plan *p;
        ATOMO_TRY(atomo__plan_find(c, tensors[i], acc[i], "decode: acc", &p));
        for (int r = 0; r < blocks; r++)
            ATOMO_TRY(atomo__plan_apart(c, acc[i], block[r].at, block[r].left, "decode: acc"));
    }
    return ATOMO_OK;
}

/* Returns a failure unless the block begins with messages whose headers are for these tensors, in this order, and, if
 * `all`, ends with them. number: the block's, from 1. */
static int check_headers(const atomo_codec *c, int count, const int32_t *tensors, double step,
                         const atomo_codec_block *block, int number, bool all)
{
    const uint8_t *at = block->at;
    double left = block->left;
    ATOMO_REQUIRE(left >= 0, ATOMO_EARG, "%s: decode_add_step: block %d has %g bytes, expected 0 or more", c->name,
                  number, left);
    for (int i = 0; i < count; i++) {
        const atomo__plan *p = atomo__plan_of(c, tensors[i]);
        const atomo__frame want = atomo__frame_wanted(p, block->rank, step);
        size_t length;
        ATOMO_TRY(atomo__frame_length(&want, p->name, at, (size_t)left, &length));
        at += length;
        left -= (double)length;
    }
    ATOMO_REQUIRE(left == 0 || !all, ATOMO_EFORMAT,
                  "%s: decode_add_step: %.0f bytes follow the last message of block %d", c->name, left, number);
    return ATOMO_OK;
}

static int set_zero(atomo_tensor *acc)
{
    if (!atomo_tensor_is_contiguous(acc)) return atomo_fill(acc, 0);
    memset(acc->data, 0, sizeof(float) * (size_t)acc->numel);
    return ATOMO_OK;
}

/* PART: entries that stay in the cache. TOGETHER: blocks whose parts are added one after the other. CHECKSUM: bytes at
 * the end of a message. */
enum { PART = 4096, TOGETHER = 16, CHECKSUM = 4 };

/* Returns whether the next messages can be decoded part by part. */
static bool in_parts(const atomo__plan *p, int blocks, const atomo_codec_block *block, const atomo_tensor *acc)
{
    size_t body;
    if (!p->stages->decode_part || p->codec->scaled || p->n <= PART || !atomo_tensor_is_contiguous(acc)) return false;
    for (int r = 0; r < blocks; r++)
        if (!atomo__frame_body(block[r].at, (size_t)block[r].left, &body) || body != p->body_max) return false;
    return true;
}

/* Does as atomo_codec_decode_add for the next messages of at most TOGETHER blocks, in one pass over acc and messages,
 * and checks their checksums. first: acc is set to 0 before. Returns false if a message is damaged; the blocks stay
 * where they were, and acc holds a part of the sum. */
static bool add_parts(const atomo__plan *p, double step, int blocks, atomo_codec_block *block, float scale, bool first,
                      float *acc)
{
    atomo__reader body[TOGETHER];
    uint32_t wanted[TOGETHER], found[TOGETHER];
    bool fine = true;
    for (int r = 0; r < blocks; r++) {
        const atomo__frame want = atomo__frame_wanted(p, block[r].rank, step);
        atomo__frame got;
        if (atomo__frame_head(&want, p->name, block[r].at, (size_t)block[r].left, &body[r], &wanted[r], &got) < 0)
            return false;
        found[r] = atomo__crc32(0, block[r].at, (size_t)(body[r].data - block[r].at));
    }
    for (int64_t at = 0; at < p->n && fine; at += PART) {
        const int64_t n = ATOMO_MIN((int64_t)PART, p->n - at);
        if (first) memset(acc + at, 0, sizeof(float) * (size_t)n);
        for (int r = 0; r < blocks; r++) {
            const size_t before = body[r].at;
            fine = p->stages->decode_part(&body[r], n, scale, acc + at) == 0 && fine;
            found[r] = atomo__crc32(found[r], body[r].data + before, body[r].at - before);
        }
    }
    for (int r = 0; r < blocks; r++) fine = fine && wanted[r] == found[r] && atomo__at_end(&body[r]);
    for (int r = 0; r < blocks && fine; r++) {
        block[r].left -= (double)(body[r].data - block[r].at) + (double)body[r].size + CHECKSUM;
        block[r].at += (body[r].data - block[r].at) + (ptrdiff_t)body[r].size + CHECKSUM;
    }
    return fine;
}

/* acc += scale * (the sum of the next messages of all blocks, which are for this tensor). */
static int decode_tensor(atomo_codec *c, int tensor, double step, int blocks, atomo_codec_block *block, double scale,
                         int which, atomo_tensor *acc)
{
    const atomo__plan *p = atomo__plan_of(c, tensor);
    const bool parts = in_parts(p, blocks, block, acc);
    int r = 0; /* blocks that have been added */
    while (parts && r < blocks) {
        const int n = ATOMO_MIN(blocks - r, (int)TOGETHER);
        if (!add_parts(p, step, n, block + r, (float)scale, r == 0 && which & ATOMO_DECODE_FIRST, acc->data)) break;
        r += n;
    }
    if (r == 0 && which & ATOMO_DECODE_FIRST) ATOMO_TRY(set_zero(acc));
    if (r < blocks && which & ATOMO_DECODE_LAST && blocks > 1) ATOMO_TRY(atomo_codec_sum(c, tensor));
    for (; r < blocks; r++) { /* after a failure in parts: finds the same one, and its text */
        double used;
        ATOMO_TRY(
            atomo_codec_decode_add(c, tensor, step, block[r].rank, block[r].at, block[r].left, scale, acc, &used));
        block[r].at += (size_t)used;
        block[r].left -= used;
    }
    return which & ATOMO_DECODE_LAST ? atomo_codec_finish(c, tensor, scale, acc) : ATOMO_OK;
}

int atomo_codec_decode_add_step(atomo_codec *c, int count, const int32_t *tensors, double step, int blocks,
                                atomo_codec_block *block, double scale, int which, atomo_tensor *const *acc)
{
    ATOMO_TRY(check_arguments(c, count, tensors, blocks, block, scale, which, acc));
    for (int r = 0; r < blocks; r++)
        ATOMO_TRY(check_headers(c, count, tensors, step, &block[r], r + 1, which & ATOMO_DECODE_ALL));
    for (int i = 0; i < count; i++) ATOMO_TRY(decode_tensor(c, tensors[i], step, blocks, block, scale, which, acc[i]));
    return ATOMO_OK;
}
