/* image_resize.c - scales an image of bytes to cover a given size, and keeps the centre. Path: stage 1.
 *
 * Two passes, along x and then along y. An output pixel is the mean of the input pixels under a triangle, as wide as
 * two pixels of the coarser of the two grids, so that a reduced image has no aliasing. Only + - * / are used, which
 * round in the same way on every CPU.
 */
#include "io/image.h"
#include <string.h>

typedef struct {
    int64_t first, count; /* input pixels of an output pixel */
    float *weight;        /* [count], their sum is 1 */
} taps;

typedef struct {
    int64_t n, most; /* output pixels; the largest count */
    taps *at;        /* [n] */
    float *weights;
} filter;

static void set_taps(taps *t, double centre, double half, int64_t n_in)
{
    const double lo = centre - half, hi = centre + half;
    t->first = lo > 0 ? (int64_t)lo : 0;
    const int64_t end = ATOMO_MIN(n_in, hi < (double)n_in ? (int64_t)hi + 1 : n_in);
    double sum = 0;
    t->count = end - t->first;
    for (int64_t i = 0; i < t->count; i++) {
        const double d = ((double)(t->first + i) + 0.5 - centre) / half, v = d < 0 ? 1 + d : 1 - d;
        t->weight[i] = v > 0 ? (float)v : 0;
        sum += (double)t->weight[i];
    }
    for (int64_t i = 0; i < t->count; i++) t->weight[i] = (float)((double)t->weight[i] / sum);
}

/* n output pixels over the part [from, from + length) of n_in input pixels. */
static int make_filter(filter *f, int64_t n, int64_t n_in, double from, double length)
{
    const double scale = length / (double)n, half = scale > 1 ? scale : 1;
    void *p;
    f->n = n;
    f->most = (int64_t)(2 * half) + 3;
    ATOMO_TRY(atomo__alloc(&p, (size_t)n * sizeof(taps)));
    f->at = p;
    ATOMO_TRY(atomo__alloc(&p, (size_t)(n * f->most) * sizeof(float)));
    f->weights = p;
    for (int64_t i = 0; i < n; i++) {
        f->at[i].weight = f->weights + i * f->most;
        set_taps(&f->at[i], from + ((double)i + 0.5) * scale, half, n_in);
    }
    return ATOMO_OK;
}

static void free_filter(filter *f)
{
    atomo__free(f->at);
    atomo__free(f->weights);
}

static void along_x(const uint8_t *in, int64_t c, const filter *f, float *out)
{
    for (int64_t x = 0; x < f->n; x++)
        for (int64_t k = 0; k < c; k++) {
            const taps *t = &f->at[x];
            float sum = 0;
            for (int64_t i = 0; i < t->count; i++) sum += t->weight[i] * (float)in[(t->first + i) * c + k];
            out[x * c + k] = sum;
        }
}

static uint8_t to_byte(float v)
{
    return v <= 0 ? 0 : v >= 255 ? 255 : (uint8_t)(v + 0.5f);
}

static void along_y(const float *rows, int64_t first_row, int64_t width, const taps *t, uint8_t *out)
{
    for (int64_t x = 0; x < width; x++) {
        float sum = 0;
        for (int64_t i = 0; i < t->count; i++) sum += t->weight[i] * rows[(t->first - first_row + i) * width + x];
        out[x] = to_byte(sum);
    }
}

static int resize(const uint8_t *in, int64_t iw, int64_t c, const filter *fx, const filter *fy, uint8_t *out)
{
    const int64_t width = fx->n * c, from = fy->at[0].first;
    const int64_t to = fy->at[fy->n - 1].first + fy->at[fy->n - 1].count;
    void *p;
    ATOMO_TRY(atomo__scratch(&p, (size_t)((to - from) * width) * sizeof(float)));
    float *rows = p;
    for (int64_t y = from; y < to; y++) along_x(in + y * iw * c, c, fx, rows + (y - from) * width);
    for (int64_t y = 0; y < fy->n; y++) along_y(rows, from, width, &fy->at[y], out + y * width);
    atomo__free(rows);
    return ATOMO_OK;
}

int atomo__image_resize(const uint8_t *in, int64_t ih, int64_t iw, int64_t c, int64_t h, int64_t w, uint8_t *out)
{
    const double tall = (double)ih / (double)h, wide = (double)iw / (double)w, scale = ATOMO_MIN(tall, wide);
    const double used_h = scale * (double)h, used_w = scale * (double)w; /* input pixels that are kept */
    filter fx = {0}, fy = {0};
    int rc = make_filter(&fx, w, iw, ((double)iw - used_w) / 2, used_w);
    if (rc == ATOMO_OK) rc = make_filter(&fy, h, ih, ((double)ih - used_h) / 2, used_h);
    if (rc == ATOMO_OK) rc = resize(in, iw, c, &fx, &fy, out);
    free_filter(&fx);
    free_filter(&fy);
    return rc;
}
