/* batch.c - makes a batch of floats from records: shuffles, divides over the ranks, augments, normalises. Path:
 * stage 2.
 *
 * All random numbers are counter-based: the order of an epoch is a Fisher-Yates shuffle keyed by (seed, SHUFFLE,
 * epoch), and crop and flip are keyed by (seed, AUGMENT, epoch, image). So the pixels of an image in an epoch depend
 * neither on the number of ranks nor on the thread that makes them. Padding is 0 after normalisation, as in
 * fb.resnet.torch (a padded pixel has the mean colour). It takes one pass over memory, from bytes to floats.
 */
#include "data/batch.h"
#include <string.h>

static atomo_stream stream_of(const atomo__batcher *b, uint32_t purpose, double epoch, uint32_t image)
{
    uint64_t s = (uint64_t)b->o.seed;
    return (atomo_stream){{(uint32_t)s, (uint32_t)(s >> 32)}, purpose, 0, (uint32_t)epoch, image};
}

/* Returns a whole number in [0, n), n < 2^31, from 64 random bits; its bias is below 2^-22. */
static inline uint32_t below(uint32_t hi, uint32_t lo, uint32_t n)
{
    uint64_t bits = (uint64_t)hi << 32 | lo;
    return (uint32_t)((double)(bits >> 11) * 0x1p-53 * (double)n);
}

void atomo__batch_order(atomo__batcher *b, double epoch)
{
    for (int64_t i = 0; i < b->n; i++) b->order[i] = (int32_t)i;
    b->order_epoch = epoch;
    if (!b->o.shuffle) return;
    const atomo_stream s = stream_of(b, ATOMO_RNG_SHUFFLE, epoch, 0);
    uint32_t v[4];
    for (int64_t i = b->n - 1, k = 0; i > 0; i--, k++) { /* two draws per block */
        if ((k & 1) == 0) atomo_random_block(&s, (uint32_t)(k >> 1), v);
        uint32_t j = below(v[2 * (k & 1)], v[2 * (k & 1) + 1], (uint32_t)i + 1);
        int32_t t = b->order[i];
        b->order[i] = b->order[j];
        b->order[j] = t;
    }
}

void atomo__batch_share(const atomo__batcher *b, int64_t step, int64_t *first, int32_t *n, int32_t *total)
{
    const int64_t whole = (int64_t)b->o.batch * b->o.size, start = step * whole, t = ATOMO_MIN(whole, b->n - start);
    const int64_t lo = t * b->o.rank / b->o.size, hi = t * (b->o.rank + 1) / b->o.size;
    *first = start + lo;
    *n = (int32_t)(hi - lo);
    *total = (int32_t)t;
}

ATOMO_CLONES static void normalise(const uint8_t *in, const float *scale, const float *shift, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++) out[i] = (float)in[i] * scale[i] + shift[i];
}

static void mirror(const uint8_t *in, int64_t pixels, int64_t c, uint8_t *out)
{
    for (int64_t i = 0; i < pixels; i++)
        for (int64_t k = 0; k < c; k++) out[i * c + k] = in[(pixels - 1 - i) * c + k];
}

/* out(y, x) = in(y + dy, x + dx) normalised, 0 outside of the image; with flip mirrored in x. */
static void image_make(atomo__batcher *b, const uint8_t *in, int64_t dy, int64_t dx, bool flip, float *out)
{
    const int64_t w = b->w, c = b->c, x0 = ATOMO_MAX(0, -dx), x1 = ATOMO_MIN(w, w - dx), row = w * c;
    const int64_t to = flip ? w - x1 : x0, len = ATOMO_MAX(0, x1 - x0);
    for (int64_t y = 0; y < b->h; y++, out += row) {
        if (y + dy < 0 || y + dy >= b->h || len == 0) {
            memset(out, 0, (size_t)row * sizeof *out);
            continue;
        }
        const uint8_t *src = in + (y + dy) * row + (x0 + dx) * c;
        if (flip) {
            mirror(src, len, c, b->row);
            src = b->row;
        }
        memset(out, 0, (size_t)(to * c) * sizeof *out);
        normalise(src, b->scale, b->shift, len * c, out + to * c);
        memset(out + (to + len) * c, 0, (size_t)((w - to - len) * c) * sizeof *out);
    }
}

int atomo__batch_make(atomo__batcher *b, double epoch, int64_t first, int32_t n, float *x, int32_t *y)
{
    const int64_t pixels = b->h * b->w * b->c, span = 2 * (int64_t)b->o.crop + 1;
    for (int32_t i = 0; i < n; i++) {
        const int32_t image = b->order[first + i], label = b->labels[image];
        ATOMO_REQUIRE(b->o.classes == 0 || (label >= 0 && label < b->o.classes), ATOMO_EFORMAT,
                      "loader: label %d of image %d, expected 0 to %d", label, image + 1, b->o.classes - 1);
        y[i] = label;
        uint32_t v[4] = {0, 0, 0, 0};
        if (b->o.crop > 0 || b->o.flip) {
            const atomo_stream s = stream_of(b, ATOMO_RNG_AUGMENT, epoch, (uint32_t)image);
            atomo_random_block(&s, 0, v);
        }
        const int64_t dy = (int64_t)((uint64_t)span * v[0] >> 32) - b->o.crop;
        const int64_t dx = (int64_t)((uint64_t)span * v[1] >> 32) - b->o.crop;
        image_make(b, b->images + image * pixels, dy, dx, b->o.flip && (v[2] >> 31), x + i * pixels);
    }
    return ATOMO_OK;
}
