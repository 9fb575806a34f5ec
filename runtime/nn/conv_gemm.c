/* conv_gemm.c - convolution by im2col and sgemm: the engine of builds without oneDNN, and the reference in tests of the
 * other engines.
 *
 * Per group: patches [images oh ow, kh kw c/groups] are gathered for as many images as stay in cache, then
 *   y = patches w^T,   gpatches = gy w (scattered back into gx),   gw += gy^T patches.
 * For a 1x1 convolution with stride 1 and no padding, x is the patch matrix and nothing is gathered. Path: stage 3.
 */
#include "nn/conv.h"
#include "nn/nn.h"
#include <limits.h>
#include <string.h>

enum { PATCH_FLOATS = 1 << 18 }; /* patches gathered at a time: 1 MB */

typedef struct patches {
    int64_t cg, og, k; /* channels in and out of a group; k = kh kw cg, the length of a patch */
    int64_t images;    /* images gathered at a time */
    bool whole;        /* x itself is the patch matrix */
    float *space;      /* the gathered patches; NULL if whole; freed by the caller of patches_new */
} patches;

static int patches_new(const conv_shape *s, patches *p)
{
    *p = (patches){.cg = s->c / s->groups, .og = s->oc / s->groups};
    p->k = s->kh * s->kw * p->cg;
    p->whole =
        s->kh == 1 && s->kw == 1 && s->stride[0] == 1 && s->stride[1] == 1 && s->padding[0] == 0 && s->padding[1] == 0;
    int64_t per_image = s->oh * s->ow * p->k;
    p->images = p->whole ? s->n : ATOMO_MIN(s->n, ATOMO_MAX(1, PATCH_FLOATS / per_image));
    ATOMO_REQUIRE(p->images * s->oh * s->ow <= INT_MAX && p->k <= INT_MAX && s->oc <= INT_MAX && s->c <= INT_MAX,
                  ATOMO_ELIMIT, "conv2d (gemm): %lld images of %lld positions are too many for BLAS",
                  (long long)p->images, (long long)(s->oh * s->ow));
    if (p->whole) return ATOMO_OK;
    size_t bytes;
    void *space;
    ATOMO_TRY(atomo__size_mul((size_t)(p->images * s->oh * s->ow), (size_t)p->k, sizeof(float), &bytes));
    ATOMO_TRY(atomo__scratch(&space, bytes));
    p->space = space;
    return ATOMO_OK;
}

/* Returns how many taps of a kernel row are adjacent both in x and in the patch, and so are copied together. */
static int64_t side_by_side(const conv_shape *s)
{
    return s->groups == 1 && s->dilation[1] == 1 ? s->kw : 1;
}

typedef struct run { /* n taps that are copied together */
    bool inside;     /* they are inside the image; if not, their values are 0 */
    int64_t ix, n;   /* column of the first one in the image, number of taps */
} run;

static run run_at(const conv_shape *s, int64_t o, int64_t kx, int64_t taps)
{
    run r = {.ix = o * s->stride[1] + kx * s->dilation[1] - s->padding[1], .n = 1};
    r.inside = r.ix >= 0 && r.ix < s->w;
    if (r.inside) r.n = ATOMO_MIN(ATOMO_MIN(taps, s->kw - kx), s->w - r.ix);
    return r;
}

/* Writes the patches of one row of outputs of one image to `out`; x points to the first channel of the group. */
static void gather_row(const conv_shape *s, const patches *p, const float *x, int64_t row, float *out)
{
    const int64_t taps = side_by_side(s);
    for (int64_t ky = 0; ky < s->kh; ky++) {
        const int64_t iy = row * s->stride[0] + ky * s->dilation[0] - s->padding[0];
        const bool inside = iy >= 0 && iy < s->h;
        for (int64_t o = 0; o < s->ow; o++) {
            float *to = out + o * p->k + ky * s->kw * p->cg;
            for (int64_t kx = 0; kx < s->kw;) {
                const run r = run_at(s, o, kx, taps);
                const size_t bytes = (size_t)(r.n * p->cg) * sizeof(float);
                if (inside && r.inside)
                    memcpy(to + kx * p->cg, x + (iy * s->w + r.ix) * s->c, bytes);
                else
                    memset(to + kx * p->cg, 0, bytes);
                kx += r.n;
            }
        }
    }
}

static void gather(const conv_shape *s, const patches *p, const float *x, int64_t images)
{
#pragma omp parallel for collapse(2) if (images * s->oh * s->ow * p->k > ATOMO_PARALLEL_MIN)
    for (int64_t i = 0; i < images; i++)
        for (int64_t row = 0; row < s->oh; row++)
            gather_row(s, p, x + i * s->h * s->w * s->c, row, p->space + (i * s->oh + row) * s->ow * p->k);
}

/* The transpose of gather_row: adds each element of the patches to its pixel in gx. */
static void scatter_row(const conv_shape *s, const patches *p, const float *from, int64_t row, float *gx)
{
    const int64_t taps = side_by_side(s);
    for (int64_t ky = 0; ky < s->kh; ky++) {
        const int64_t iy = row * s->stride[0] + ky * s->dilation[0] - s->padding[0];
        if (iy < 0 || iy >= s->h) continue;
        for (int64_t o = 0; o < s->ow; o++)
            for (int64_t kx = 0; kx < s->kw;) {
                const run r = run_at(s, o, kx, taps);
                const float *patch = from + o * p->k + (ky * s->kw + kx) * p->cg;
                if (r.inside) atomo__add_to(r.n * p->cg, patch, gx + (iy * s->w + r.ix) * s->c);
                kx += r.n;
            }
    }
}

/* Images are scattered in parallel, since patches of different images share no pixel. */
static void scatter(const conv_shape *s, const patches *p, float *gx, int64_t images)
{
#pragma omp parallel for if (images * s->oh * s->ow * p->k > ATOMO_PARALLEL_MIN)
    for (int64_t i = 0; i < images; i++)
        for (int64_t row = 0; row < s->oh; row++)
            scatter_row(s, p, p->space + (i * s->oh + row) * s->ow * p->k, row, gx + i * s->h * s->w * s->c);
}

static int forward(const conv_shape *s, const float *x, const float *w, const float *b, float *y)
{
    patches p;
    ATOMO_TRY(patches_new(s, &p));
    int64_t hw = s->oh * s->ow;
    int rc = ATOMO_OK;
    if (b)
        for (int64_t r = 0; r < s->n * hw; r++) memcpy(y + r * s->oc, b, (size_t)s->oc * sizeof(float));
    for (int64_t i = 0; i < s->n && rc == 0; i += p.images)
        for (int64_t g = 0; g < s->groups && rc == 0; g++) {
            int64_t images = ATOMO_MIN(p.images, s->n - i);
            const float *xi = x + i * s->h * s->w * s->c + g * p.cg;
            if (!p.whole) gather(s, &p, xi, images);
            rc = atomo__sgemm(false, true, images * hw, p.og, p.k, p.whole ? xi : p.space, p.whole ? s->c : p.k,
                              w + g * p.og * p.k, p.k, b ? 1 : 0, y + i * hw * s->oc + g * p.og, s->oc);
        }
    atomo__free(p.space);
    return rc;
}

static int backward_data(const conv_shape *s, const float *gy, const float *w, float *gx)
{
    patches p;
    ATOMO_TRY(patches_new(s, &p));
    int64_t hw = s->oh * s->ow;
    int rc = ATOMO_OK;
    if (!p.whole) memset(gx, 0, (size_t)(s->n * s->h * s->w * s->c) * sizeof(float));
    for (int64_t i = 0; i < s->n && rc == 0; i += p.images)
        for (int64_t g = 0; g < s->groups && rc == 0; g++) {
            int64_t images = ATOMO_MIN(p.images, s->n - i);
            float *gxi = gx + i * s->h * s->w * s->c + g * p.cg;
            rc = atomo__sgemm(false, false, images * hw, p.k, p.og, gy + i * hw * s->oc + g * p.og, s->oc,
                              w + g * p.og * p.k, p.k, 0, p.whole ? gxi : p.space, p.whole ? s->c : p.k);
            if (!p.whole) scatter(s, &p, gxi, images);
        }
    atomo__free(p.space);
    return rc;
}

static int backward_weights(const conv_shape *s, const float *x, const float *gy, float *gw)
{
    patches p;
    ATOMO_TRY(patches_new(s, &p));
    int64_t hw = s->oh * s->ow;
    int rc = ATOMO_OK;
    for (int64_t i = 0; i < s->n && rc == 0; i += p.images)
        for (int64_t g = 0; g < s->groups && rc == 0; g++) {
            int64_t images = ATOMO_MIN(p.images, s->n - i);
            const float *xi = x + i * s->h * s->w * s->c + g * p.cg;
            if (!p.whole) gather(s, &p, xi, images);
            rc = atomo__sgemm(true, false, p.og, p.k, images * hw, gy + i * hw * s->oc + g * p.og, s->oc,
                              p.whole ? xi : p.space, p.whole ? s->c : p.k, i ? 1 : 0, gw + g * p.og * p.k, p.k);
        }
    atomo__free(p.space);
    return rc;
}

/* Measured on Zen 5 with AVX-512, batch 64 and 128. im2col with sgemm is faster for 1x1 layers, for the gradient of the
 * weights with 64 channels or more, and for the gradient of the data if the number of channels is not a multiple of
 * oneDNN's vectors (LeNet's second layer). */
bool atomo__conv_gemm_pays(const conv_shape *s, enum conv_pass pass)
{
    if (!atomo__sgemm_is_wide() || s->groups > 1) return false;
    if (pass == PASS_DATA && s->c % 16 != 0) return s->c >= 16;
    return s->c >= 64 && s->oc >= 64 && (pass == PASS_WEIGHTS || (s->kh == 1 && s->kw == 1));
}

const conv_engine atomo__conv_gemm = {"gemm", forward, backward_data, backward_weights, NULL};
