/* separable.c - real orthonormal Fourier and cosine transforms along the axes of a matrix, through FFTW; stage 4 of the
 * path.
 *
 * Fourier: n reals to n reals, 1/sqrt(n) for DC (and Nyquist, n even), sqrt(2/n) times cosine and sine for the others:
 * r0 r1 .. r(n/2) i((n+1)/2 - 1) .. i1 (FFTW's halfcomplex order). Cosine: DCT-II, its inverse DCT-III. FFTW's factors
 * are made orthonormal here. Plans are estimated, so they are the same in every run, and take any alignment. FFTW's
 * code depends on the CPU: ranks of different CPU types may differ in the last bit after decoding.
 */
#include "coding/coding.h"
#include <fftw3.h>
#include <math.h>

/* Transforms of `length` along an axis: one for each element of the other. */
static int plan_axis(const atomo__separable *s, int axis, int64_t length, bool inverse, float *work, void **out)
{
    const fftw_r2r_kind kinds[2][2] = {{FFTW_R2HC, FFTW_HC2R}, {FFTW_REDFT10, FFTW_REDFT01}};
    const fftw_r2r_kind kind = kinds[s->kind][inverse];
    const int n = (int)length, many = (int)(axis ? s->cols : s->rows);
    const int stride = axis ? (int)s->cols : 1, apart = axis ? 1 : (int)s->cols;
    atomo__fft_lock();
    *out = fftwf_plan_many_r2r(1, &n, many, work, NULL, stride, apart, work, NULL, stride, apart, &kind,
                               FFTW_ESTIMATE | FFTW_UNALIGNED);
    atomo__fft_unlock();
    return *out ? ATOMO_OK : ATOMO_ENUMERIC;
}

int atomo__separable_plan(atomo__separable *s, float *work, const char *name)
{
    for (int axis = 0; axis < 2; axis++) {
        int64_t size = axis ? s->rows : s->cols;
        s->chunk[axis] = ATOMO_MIN(s->chunk[axis], size);
        if (size == 1) continue;
        int64_t last = size % s->chunk[axis];
        for (int inverse = 0; inverse < 2; inverse++) {
            int rc = plan_axis(s, axis, s->chunk[axis], inverse, work, &s->plan[inverse][axis][0]);
            if (rc == 0 && last) rc = plan_axis(s, axis, last, inverse, work, &s->plan[inverse][axis][1]);
            ATOMO_REQUIRE(rc == 0, rc, "%s: FFTW has no plan for %.0f x %.0f", name, (double)s->rows, (double)s->cols);
        }
    }
    return ATOMO_OK;
}

void atomo__separable_free(atomo__separable *s)
{
    atomo__fft_lock();
    for (int i = 0; i < 8; i++) {
        void **p = &s->plan[i >> 2][i >> 1 & 1][i & 1];
        if (*p) fftwf_destroy_plan(*p);
        *p = NULL;
    }
    atomo__fft_unlock();
}

/* What coefficient k of `length` is multiplied by: after FFTW forwards, before it backwards. */
static float factor(const atomo__separable *s, int64_t k, int64_t length, bool inverse)
{
    const double n = (double)length;
    if (s->kind == ATOMO__DCT) return (float)(k > 0 ? sqrt(0.5 / n) : inverse ? sqrt(1 / n) : sqrt(0.25 / n));
    if (k == 0 || 2 * k == length) return (float)sqrt(1 / n);
    return (float)(inverse ? sqrt(0.5 / n) : sqrt(2 / n));
}

ATOMO_CLONES static void multiply(float *x, int64_t n, float by)
{
    for (int64_t i = 0; i < n; i++) x[i] *= by;
}

/* The coefficients of the transforms that start at `at` along an axis. */
static void scale(const atomo__separable *s, float *x, int axis, int64_t at, int64_t length, bool inverse)
{
    if (axis) {
        for (int64_t k = 0; k < length; k++) multiply(x + (at + k) * s->cols, s->cols, factor(s, k, length, inverse));
        return;
    }
    const int64_t middle = length % 2 == 0 && length > 1 ? length / 2 : 0;
    const float most = factor(s, 1, length, inverse), first = factor(s, 0, length, inverse),
                half = factor(s, middle, length, inverse);
    for (int64_t r = 0; r < s->rows; r++) {
        float *to = x + r * s->cols + at, x0 = to[0], xh = to[middle];
        multiply(to, length, most);
        to[middle] = xh * half;
        to[0] = x0 * first;
    }
}

static void run_axis(const atomo__separable *s, float *x, int axis, bool inverse)
{
    const int64_t size = axis ? s->rows : s->cols;
    if (size == 1) return;
    for (int64_t at = 0; at < size; at += s->chunk[axis]) {
        int64_t length = ATOMO_MIN(s->chunk[axis], size - at);
        float *from = x + (axis ? at * s->cols : at);
        if (inverse) scale(s, x, axis, at, length, inverse);
        fftwf_execute_r2r(s->plan[inverse][axis][length < s->chunk[axis]], from, from);
        if (!inverse) scale(s, x, axis, at, length, inverse);
    }
}

void atomo__separable_run(const atomo__separable *s, float *x, bool inverse)
{
    run_axis(s, x, inverse, inverse);
    run_axis(s, x, !inverse, inverse);
}
