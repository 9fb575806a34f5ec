/* taps.c - cosines over the taps of each convolution kernel; channels are not transformed; stage 4 of the path.
 *
 * For a pair of channels, the gradient of a convolution's weight [out, kh, kw, in] is the correlation of two images at
 * kh x kw neighbouring shifts. Images are smooth, so neighbouring taps are similar, and the DCT-II over the taps
 * concentrates most of the energy in their mean. docs/compressors.md has measurements. A tensor that is no kernel (not
 * four-dimensional, or 1x1), and an axis of more than 64 taps, is not transformed; such tensors are coded like `entry`.
 * The transform is exact except for rounding, gives the same bits on every CPU, and takes 2 (kh + kw) flops per entry.
 */
#include "atoms/common/basis.h"
#include <math.h>

enum { MAX_TAPS = 64, TILE = 256 };

static const struct atomo__option options[] = {ATOMO__STEP_OPTION, {0}};

typedef struct {
    int64_t blocks, taps, inner; /* the tensor as [blocks, taps, inner]; taps 1: not transformed */
    float *forward, *backward;   /* [taps, taps] the transform and its inverse; NULL if taps is 1 */
} axis;

typedef struct {
    axis row, column; /* along kw, along kh */
} kernel;

static int plan(atomo__plan *plan)
{
    return atomo__basis_plan(plan, sizeof(kernel));
}

/* Sets up *a with the orthonormal DCT-II of `taps` points and its transpose. */
static int make_axis(axis *a, double blocks, double taps, double inner)
{
    const double pi = 3.14159265358979323846;
    *a = (axis){.blocks = (int64_t)blocks, .taps = taps <= MAX_TAPS ? (int64_t)taps : 1, .inner = (int64_t)inner};
    if (a->taps < 2) return ATOMO_OK;
    const size_t size = sizeof(float) * (size_t)(a->taps * a->taps);
    ATOMO_TRY(atomo__alloc((void **)&a->forward, size));
    ATOMO_TRY(atomo__alloc((void **)&a->backward, size));
    for (int64_t k = 0; k < a->taps; k++)
        for (int64_t i = 0; i < a->taps; i++) {
            const double x = sqrt((k > 0 ? 2 : 1) / taps) * cos(pi * (double)(k * (2 * i + 1)) / (2 * taps));
            a->forward[k * a->taps + i] = a->backward[i * a->taps + k] = (float)x;
        }
    return ATOMO_OK;
}

static int start(atomo__plan *plan)
{
    kernel *k = atomo__basis_state(plan);
    if (plan->ndim != 4) return ATOMO_OK;
    const double *s = plan->shape;
    ATOMO_TRY(make_axis(&k->row, s[0] * s[1], s[2], s[3]));
    return make_axis(&k->column, s[0], s[1], s[2] * s[3]);
}

static void stop(atomo__plan *plan)
{
    kernel *k = atomo__basis_state(plan);
    atomo__free(k->row.forward);
    atomo__free(k->row.backward);
    atomo__free(k->column.forward);
    atomo__free(k->column.backward);
    memset(k, 0, sizeof *k);
}

/* x = m x for x [3, n] with rows a, b, c and m [3, 3]: the usual case, kernels of three taps. */
ATOMO_CLONES static void mix_three(const float *m, float *restrict a, float *restrict b, float *restrict c, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float x = a[i], y = b[i], z = c[i];
        a[i] = m[0] * x + m[1] * y + m[2] * z;
        b[i] = m[3] * x + m[4] * y + m[5] * z;
        c[i] = m[6] * x + m[7] * y + m[8] * z;
    }
}

/* Multiplies `count` columns of x [taps, stride] by m [taps, taps]; work: scratch of taps * count floats. */
ATOMO_CLONES static void mix(const float *m, int64_t taps, float *restrict x, int64_t stride, int64_t count,
                             float *restrict work)
{
    for (int64_t j = 0; j < taps; j++) memcpy(work + j * count, x + j * stride, sizeof(float) * (size_t)count);
    for (int64_t k = 0; k < taps; k++, x += stride, m += taps) {
        for (int64_t i = 0; i < count; i++) x[i] = m[0] * work[i];
        for (int64_t j = 1; j < taps; j++)
            for (int64_t i = 0; i < count; i++) x[i] += m[j] * work[j * count + i];
    }
}

/* Transforms one block [taps, inner] of an axis. */
static void run(const axis *a, float *x, bool inverse, float *work)
{
    const float *m = inverse ? a->backward : a->forward;
    const int64_t n = a->inner;
    if (a->taps == 3) {
        mix_three(m, x, x + n, x + 2 * n, n);
        return;
    }
    for (int64_t at = 0; at < n; at += TILE) mix(m, a->taps, x + at, n, ATOMO_MIN((int64_t)TILE, n - at), work);
}

/* Transforms both axes of one output channel after the other, so that each stays in cache. */
static void transform(const atomo__plan *plan, float *x, bool inverse, float *work)
{
    const kernel *k = atomo__basis_state(plan);
    const int64_t size = k->column.blocks ? plan->n / k->column.blocks : 0;
    const int64_t rows = size ? k->row.blocks / k->column.blocks : 0;
    for (int64_t o = 0; o < k->column.blocks; o++, x += size) {
        if (inverse && k->column.taps > 1) run(&k->column, x, inverse, work);
        for (int64_t r = 0; r < rows && k->row.taps > 1; r++) run(&k->row, x + r * (size / rows), inverse, work);
        if (!inverse && k->column.taps > 1) run(&k->column, x, inverse, work);
    }
}

const struct atomo_atoms atomo_atoms_taps = {
    .name = "taps",
    .summary = "cosines over the taps of each convolution kernel; of other tensors single entries",
    .source = "Ahmed, Natarajan and Rao, Discrete cosine transform, IEEE Trans. Computers 1974; docs/compressors.md",
    .options = options,
    .stages = {.plan = plan, .start = start, .stop = stop, ATOMO__BASIS_STAGES},
    .transform = transform,
};
