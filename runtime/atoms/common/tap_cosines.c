/* tap_cosines.c - cosines over the taps of each convolution kernel [out, kh, kw, in]; stage 4 of the path.
 *
 * The orthonormal DCT-II along kh and kw; channels are not transformed (atoms/taps.c gives the reason). The result is
 * exact except for rounding and bit-identical on every CPU. It takes 2 (kh + kw) flops per entry.
 */
#include "atoms/common/tap_cosines.h"
#include <math.h>
#include <string.h>

enum { TILE = 256 };

/* The DCT-II of `taps` points, orthonormal, and its transpose. */
static int make_axis(atomo__tap_axis *a, double blocks, double taps, double inner)
{
    const double pi = 3.14159265358979323846;
    *a = (atomo__tap_axis){
        .blocks = (int64_t)blocks, .taps = taps <= ATOMO__MAX_TAPS ? (int64_t)taps : 1, .inner = (int64_t)inner};
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

int atomo__tap_cosines_make(atomo__tap_cosines *k, int ndim, const double *shape)
{
    if (ndim != 4) return ATOMO_OK;
    ATOMO_TRY(make_axis(&k->row, shape[0] * shape[1], shape[2], shape[3]));
    return make_axis(&k->column, shape[0], shape[1], shape[2] * shape[3]);
}

void atomo__tap_cosines_free(atomo__tap_cosines *k)
{
    atomo__free(k->row.forward);
    atomo__free(k->row.backward);
    atomo__free(k->column.forward);
    atomo__free(k->column.backward);
    memset(k, 0, sizeof *k);
}

/* x [3, n] <- m [3,3] x, for the usual kernels of three taps. */
ATOMO_CLONES static void mix_three(const float *m, float *restrict a, float *restrict b, float *restrict c, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float x = a[i], y = b[i], z = c[i];
        a[i] = m[0] * x + m[1] * y + m[2] * z;
        b[i] = m[3] * x + m[4] * y + m[5] * z;
        c[i] = m[6] * x + m[7] * y + m[8] * z;
    }
}

/* `count` columns of x [taps, stride] <- m times them; work: taps * count floats. */
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

/* One block [taps, inner] of an axis. */
static void run(const atomo__tap_axis *a, float *x, bool inverse, float *work)
{
    const float *m = inverse ? a->backward : a->forward;
    const int64_t n = a->inner;
    if (a->taps == 3) {
        mix_three(m, x, x + n, x + 2 * n, n);
        return;
    }
    for (int64_t at = 0; at < n; at += TILE) mix(m, a->taps, x + at, n, ATOMO_MIN((int64_t)TILE, n - at), work);
}

void atomo__tap_cosines_channel(const atomo__tap_cosines *k, int64_t size, float *x, bool inverse, float *work)
{
    const int64_t rows = k->row.blocks / k->column.blocks;
    if (inverse && k->column.taps > 1) run(&k->column, x, inverse, work);
    for (int64_t r = 0; r < rows && k->row.taps > 1; r++) run(&k->row, x + r * (size / rows), inverse, work);
    if (!inverse && k->column.taps > 1) run(&k->column, x, inverse, work);
}

void atomo__tap_cosines_run(const atomo__tap_cosines *k, int64_t n, float *x, bool inverse, float *work)
{
    const int64_t size = k->column.blocks ? n / k->column.blocks : 0;
    for (int64_t o = 0; o < k->column.blocks; o++) atomo__tap_cosines_channel(k, size, x + o * size, inverse, work);
}
