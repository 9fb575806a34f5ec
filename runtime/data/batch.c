/* batch.c - makes a batch of floats from records: shuffles, divides over the ranks, augments, normalises. Path:
 * stage 2.
 *
 * All random numbers are counter-based: the order of an epoch is a Fisher-Yates shuffle keyed by (seed, SHUFFLE,
 * epoch), and crop and flip are keyed by (seed, AUGMENT, epoch, image). So the pixels of an image in an epoch depend
 * neither on the number of ranks nor on the thread that makes them. Padding is 0 after normalisation, as in
 * fb.resnet.torch (a padded pixel has the mean colour). It takes one pass over memory, from bytes to floats; lists of
 * transforms other than normalise, crop, flip are in augment.c.
 */
#include "data/batch.h"
#include <string.h>

static atomo_stream stream_of(double seed, uint32_t purpose, double epoch, uint32_t image)
{
    uint64_t s = (uint64_t)seed;
    return (atomo_stream){{(uint32_t)s, (uint32_t)(s >> 32)}, purpose, 0, (uint32_t)epoch, image};
}

atomo_stream atomo__augment_stream(const atomo__batcher *b, double epoch, uint32_t image)
{
    return stream_of(b->o.seed, ATOMO_RNG_AUGMENT, epoch, image);
}

uint32_t atomo__below(uint32_t hi, uint32_t lo, uint32_t n)
{
    uint64_t bits = (uint64_t)hi << 32 | lo;
    return (uint32_t)((double)(bits >> 11) * 0x1p-53 * (double)n);
}

void atomo__order(double seed, double epoch, bool shuffle, int64_t n, int32_t *order)
{
    for (int64_t i = 0; i < n; i++) order[i] = (int32_t)i;
    if (!shuffle) return;
    const atomo_stream s = stream_of(seed, ATOMO_RNG_SHUFFLE, epoch, 0);
    uint32_t v[4];
    for (int64_t i = n - 1, k = 0; i > 0; i--, k++) { /* two draws per block */
        if ((k & 1) == 0) atomo_random_block(&s, (uint32_t)(k >> 1), v);
        uint32_t j = atomo__below(v[2 * (k & 1)], v[2 * (k & 1) + 1], (uint32_t)i + 1);
        int32_t t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}

void atomo__share(int64_t n_all, int64_t batch, int64_t rank, int64_t size, int64_t step, int64_t *first, int32_t *n,
                  int32_t *total)
{
    const int64_t whole = batch * size, start = step * whole, t = ATOMO_MIN(whole, n_all - start);
    const int64_t lo = t * rank / size, hi = t * (rank + 1) / size;
    *first = start + lo;
    *n = (int32_t)(hi - lo);
    *total = (int32_t)t;
}

/* ---- the fused pass ---------------------------------------------------------------------------------------------- */

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

static void make_fused(atomo__batcher *b, double epoch, uint32_t image, int64_t at, float *x)
{
    const int64_t span = 2 * (int64_t)b->o.crop + 1;
    uint32_t v[4] = {0, 0, 0, 0};
    if (b->o.crop > 0 || b->o.flip) {
        const atomo_stream s = atomo__augment_stream(b, epoch, image);
        atomo_random_block(&s, 0, v);
    }
    const int64_t dy = (int64_t)((uint64_t)span * v[0] >> 32) - b->o.crop;
    const int64_t dx = (int64_t)((uint64_t)span * v[1] >> 32) - b->o.crop;
    const uint8_t *in = (const uint8_t *)b->images + at * b->h * b->w * b->c;
    image_make(b, in, dy, dx, b->o.flip && (v[2] >> 31), x);
}

/* ---- batches ----------------------------------------------------------------------------------------------------- */

void atomo__batch_image(atomo__batcher *b, double epoch, uint32_t image, int64_t at, float *x, uint32_t *other,
                        float *part)
{
    *part = 1;
    if (b->fused)
        make_fused(b, epoch, image, at, x);
    else
        atomo__augment(b, epoch, image, at, x, other, part);
}

static int label_of(const atomo__batcher *b, int64_t image, int32_t *label)
{
    *label = b->labels[image];
    ATOMO_REQUIRE(b->o.classes == 0 || (*label >= 0 && *label < b->o.classes), ATOMO_EFORMAT,
                  "loader: label %d of image %lld, expected 0 to %d", *label, (long long)image + 1, b->o.classes - 1);
    return ATOMO_OK;
}

/* Sets a row of probabilities: `part` for this image's class, the rest for the other's. */
static int mix_labels(const atomo__batcher *b, int32_t label, uint32_t other, float part, float *y)
{
    int32_t label2;
    ATOMO_TRY(label_of(b, other, &label2));
    memset(y, 0, (size_t)b->o.classes * sizeof *y);
    y[label] += part;
    y[label2] += 1 - part;
    return ATOMO_OK;
}

int atomo__batch_make(atomo__batcher *b, double epoch, int64_t first, int32_t n, float *x, void *y)
{
    const int64_t pixels = b->h * b->w * b->c;
    for (int32_t i = 0; i < n; i++) {
        const int32_t image = b->order[first + i];
        int32_t label;
        uint32_t other = (uint32_t)image;
        float part;
        ATOMO_TRY(label_of(b, image, &label));
        atomo__batch_image(b, epoch, (uint32_t)image, image, x + i * pixels, &other, &part);
        if (b->mixes)
            ATOMO_TRY(mix_labels(b, label, other, part, (float *)y + (int64_t)i * b->o.classes));
        else
            ((int32_t *)y)[i] = label;
    }
    return ATOMO_OK;
}
