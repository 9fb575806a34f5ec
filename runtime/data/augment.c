/* augment.c - changes an image by a list of transforms, in their order. Path: stage 2.
 *
 * Random numbers are keyed by (seed, epoch, image, transform), so an image depends neither on the ranks nor on the
 * batch that it is in. MIXUP draws its partner from the whole set: the partner's pixels are changed by the transforms
 * before MIXUP with the partner's own random numbers, and the mixture by the transforms after it.
 */
#include "data/batch.h"
#include <math.h>
#include <string.h>

typedef struct {
    atomo__batcher *b;
    double epoch;
    uint32_t image;
    int k; /* the transform */
} place;

/* v = block i of the random stream of the current transform. */
static void draw(const place *at, uint32_t i, uint32_t v[4])
{
    const atomo_stream s = atomo__augment_stream(at->b, at->epoch, at->image);
    atomo_random_block(&s, ((uint32_t)at->k + 1) << 16 | i, v);
}

/* v = the words of a CROP or FLIP: the first one of its kind shares block 0, as without a list. */
static void draw_shared(const place *at, uint32_t v[4])
{
    const atomo_transform *t = at->b->o.transform;
    for (int i = 0; i < at->k; i++)
        if (t[i].kind == t[at->k].kind) {
            draw(at, 0, v);
            return;
        }
    const atomo_stream s = atomo__augment_stream(at->b, at->epoch, at->image);
    atomo_random_block(&s, 0, v);
}

static void load(const atomo__batcher *b, int64_t at, float *x)
{
    const int64_t row = b->w * b->c, from = at * b->h * row;
    const uint8_t *bytes = (const uint8_t *)b->images + from;
    const float *floats = (const float *)b->images + from;
    for (int64_t y = 0; y < b->h; y++)
        for (int64_t i = 0; i < row; i++, x++)
            *x = (b->bytes ? (float)bytes[y * row + i] : floats[y * row + i]) * b->scale[i] + b->shift[i];
}

static void normalise(const atomo__batcher *b, const atomo_transform *t, float *x)
{
    for (int64_t i = 0; i < b->h * b->w; i++)
        for (int64_t k = 0; k < b->c; k++, x++) *x = (*x - t->p[k]) / t->p[8 + k];
}

/* Moves the image by at most p[0] pixels; zeros fill the border. */
static void crop(const place *at, const atomo_transform *t, float *x, float *moved)
{
    const atomo__batcher *b = at->b;
    const int64_t most = (int64_t)t->p[0], span = 2 * most + 1, row = b->w * b->c;
    uint32_t v[4];
    draw_shared(at, v);
    const int64_t dy = (int64_t)((uint64_t)span * v[0] >> 32) - most,
                  dx = (int64_t)((uint64_t)span * v[1] >> 32) - most;
    const int64_t x0 = ATOMO_MAX(0, -dx), len = ATOMO_MIN(b->w, b->w - dx) - x0;
    memset(moved, 0, (size_t)(b->h * row) * sizeof *moved);
    for (int64_t y = ATOMO_MAX(0, -dy); len > 0 && y < ATOMO_MIN(b->h, b->h - dy); y++)
        memcpy(moved + y * row + x0 * b->c, x + (y + dy) * row + (x0 + dx) * b->c, (size_t)(len * b->c) * sizeof *x);
    memcpy(x, moved, (size_t)(b->h * row) * sizeof *x);
}

static void flip(const place *at, const atomo_transform *t, float *x)
{
    const int64_t w = at->b->w, c = at->b->c;
    uint32_t v[4];
    draw_shared(at, v);
    if ((double)~v[2] >= (double)t->p[0] * 0x1p32) return;
    for (int64_t y = 0; y < at->b->h; y++, x += w * c)
        for (int64_t i = 0; i < w / 2; i++)
            for (int64_t k = 0; k < c; k++) {
                const float other = x[(w - 1 - i) * c + k];
                x[(w - 1 - i) * c + k] = x[i * c + k];
                x[i * c + k] = other;
            }
}

static void cutout(const place *at, const atomo_transform *t, float *x)
{
    const atomo__batcher *b = at->b;
    const int64_t side = (int64_t)t->p[0];
    uint32_t v[4];
    draw(at, 0, v);
    const int64_t y0 = (int64_t)atomo__below(v[0], v[1], (uint32_t)b->h) - side / 2;
    const int64_t x0 = (int64_t)atomo__below(v[2], v[3], (uint32_t)b->w) - side / 2;
    const int64_t from = ATOMO_MAX(0, x0), to = ATOMO_MIN(b->w, x0 + side);
    for (int64_t y = ATOMO_MAX(0, y0); y < ATOMO_MIN(b->h, y0 + side); y++)
        memset(x + (y * b->w + from) * b->c, 0, (size_t)(ATOMO_MAX(0, to - from) * b->c) * sizeof *x);
}

static float factor(uint32_t bits, float width)
{
    const float lo = ATOMO_MAX(0.0f, 1 - width);
    return lo + (1 + width - lo) * atomo__to_uniform(bits);
}

static float grey(const float *x, int64_t c) /* ITU-R 601 for three channels, else their mean */
{
    if (c == 3) return 0.299f * x[0] + 0.587f * x[1] + 0.114f * x[2];
    float sum = 0;
    for (int64_t k = 0; k < c; k++) sum += x[k];
    return sum / (float)c;
}

/* x = to + f (x - to), clamped to [0, 1], for n values. */
static void blend(float *x, int64_t n, float to, float f)
{
    for (int64_t i = 0; i < n; i++) x[i] = ATOMO_MIN(1.0f, ATOMO_MAX(0.0f, to + f * (x[i] - to)));
}

static void colour_jitter(const place *at, const atomo_transform *t, float *x)
{
    const int64_t c = at->b->c, n = at->b->h * at->b->w;
    uint32_t v[4];
    draw(at, 0, v);
    if (t->p[0] > 0) blend(x, n * c, 0, factor(v[0], t->p[0]));
    if (t->p[1] > 0) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += (double)grey(x + i * c, c);
        blend(x, n * c, (float)(sum / (double)n), factor(v[1], t->p[1]));
    }
    if (t->p[2] > 0)
        for (int64_t i = 0; i < n; i++) blend(x + i * c, c, grey(x + i * c, c), factor(v[2], t->p[2]));
}

/* Returns a number from Beta(alpha, alpha) by Joehnk's method: u^(1/alpha) / (u^(1/alpha) + v^(1/alpha)) given that the
 * sum is at most 1. It is rounded to a multiple of 2^-16, so that the last bits of exp and log, which differ between
 * CPUs, do not matter. */
static float draw_beta(const place *at, double alpha)
{
    for (uint32_t i = 1; i < 1 << 15; i++) {
        uint32_t v[4];
        draw(at, i, v);
        const double a = log(((double)v[0] + 0.5) * 0x1p-32) / alpha, b = log(((double)v[1] + 0.5) * 0x1p-32) / alpha;
        const double sum = exp(a) + exp(b);
        if (sum > 1) continue;
        const double part = sum > 0 ? exp(a) / sum : a > b; /* both may be 0 for a small alpha */
        return (float)(floor(part * 0x1p16 + 0.5) * 0x1p-16);
    }
    return 0.5f;
}

static void apply_one(const place *at, const atomo_transform *t, float *x, float *scratch)
{
    switch (t->kind) {
    case ATOMO_NORMALISE:
        if (at->k > 0) normalise(at->b, t, x); /* the first one is part of load */
        break;
    case ATOMO_CROP:
        crop(at, t, x, scratch);
        break;
    case ATOMO_FLIP:
        flip(at, t, x);
        break;
    case ATOMO_CUTOUT:
        cutout(at, t, x);
        break;
    default:
        colour_jitter(at, t, x);
        break;
    }
}

/* Applies transforms from at->k on, up to a MIXUP. */
static void apply(place *at, float *x, float *scratch)
{
    const atomo_loader_options *o = &at->b->o;
    for (; at->k < o->transforms && o->transform[at->k].kind != ATOMO_MIXUP; at->k++)
        apply_one(at, &o->transform[at->k], x, scratch);
}

static void mix(const place *at, float *x, float *other_x, float *scratch, uint32_t *other, float *part)
{
    atomo__batcher *b = at->b;
    uint32_t v[4];
    draw(at, 0, v);
    *other = atomo__below(v[0], v[1], (uint32_t)b->n);
    *part = draw_beta(at, (double)b->o.transform[at->k].p[0]);
    place there = {b, at->epoch, *other, 0};
    load(b, *other, other_x);
    apply(&there, other_x, scratch);
    for (int64_t i = 0; i < b->h * b->w * b->c; i++) x[i] = *part * x[i] + (1 - *part) * other_x[i];
}

void atomo__augment(atomo__batcher *b, double epoch, uint32_t image, int64_t index, float *x, uint32_t *other,
                    float *part)
{
    float *scratch = b->scratch, *other_x = scratch + b->h * b->w * b->c;
    place at = {b, epoch, image, 0};
    *part = 1;
    load(b, index, x);
    apply(&at, x, scratch);
    if (at.k == b->o.transforms) return;
    mix(&at, x, other_x, scratch, other, part);
    at.k++;
    apply(&at, x, scratch);
}
