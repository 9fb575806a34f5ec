/* transform1d.c - orthonormal real Fourier and cosine transforms of one line of entries, by FFTW; stage 4 of the path.
 *
 * Fourier: n reals to n reals, 1/sqrt(n) for DC (and Nyquist, n even), sqrt(2/n) times cosine and sine for the others,
 * in the order DC, cos 1, sin 1, cos 2, sin 2, ... Cosine: DCT-II and its inverse, DCT-III, by a Fourier transform of
 * the same length [Makhoul, "A fast cosine transform in one and two dimensions", IEEE Trans. ASSP 1980]: its input is
 * the even entries forwards, then the odd ones backwards, and its coefficient k is rotated by -pi k / 2n. Both use
 * FFTW's real-to-complex transform in place. It is ten times as fast for millions of entries as FFTW's halfcomplex and
 * cosine transforms, which have no vector code. Plans are made with FFTW_ESTIMATE, so they are the same in every run,
 * and for any alignment. FFTW's code depends on the CPU, so ranks with different types of CPU may differ in the last
 * bit after decoding.
 */
#include "atoms/common/transform1d.h"
#include "core/packages.h"
#include <math.h>

enum { FINE = 128 };

static double angle_of(const atomo__line *l, int64_t k)
{
    const double pi = 3.14159265358979323846;
    return pi * (double)k / (2 * (double)l->n);
}

/* Makes l->turn: cos and sin of pi k / 2n for k = 0 .. FINE-1, then for the multiples of FINE up to n/2. */
static int make_turns(atomo__line *l)
{
    const int64_t coarse = l->n / 2 / FINE + 1;
    ATOMO_TRY(atomo__alloc((void **)&l->turn, sizeof(double) * 2 * (size_t)(FINE + coarse)));
    for (int64_t i = 0; i < FINE + coarse; i++) {
        const double a = angle_of(l, i < FINE ? i : (i - FINE) * FINE);
        l->turn[2 * i] = cos(a);
        l->turn[2 * i + 1] = sin(a);
    }
    return ATOMO_OK;
}

int atomo__line_plan(atomo__line *l, int kind, int64_t n, float *work)
{
    l->kind = kind;
    l->n = n;
    const atomo__fftw_table *fftw = atomo__fftw();
    const unsigned flags = ATOMO__FFTW_ESTIMATE | ATOMO__FFTW_UNALIGNED;
    atomo__fft_lock();
    l->forward = fftw->plan_r2c((int)n, work, (atomo__complex *)(void *)work, flags);
    l->backward = fftw->plan_c2r((int)n, (atomo__complex *)(void *)work, work, flags);
    atomo__fft_unlock();
    if (!l->forward || !l->backward) return ATOMO_ENUMERIC;
    return kind == ATOMO__DCT ? make_turns(l) : ATOMO_OK;
}

void atomo__line_free(atomo__line *l)
{
    atomo__fft_lock();
    if (l->forward) atomo__fftw()->destroy(l->forward);
    if (l->backward) atomo__fftw()->destroy(l->backward);
    atomo__fft_unlock();
    atomo__free(l->turn);
    memset(l, 0, sizeof *l);
}

ATOMO_CLONES static void multiply(const float *restrict from, int64_t n, float by, float *restrict to)
{
    for (int64_t i = 0; i < n; i++) to[i] = from[i] * by;
}

/* FFTW's coefficients are re 0, 0, re 1, im 1, ...; those in x leave out the second one. */
static void fourier(const atomo__line *l, float *x, bool inverse, float *work)
{
    const int64_t n = l->n;
    const float one = (float)sqrt(1 / (double)n), two = (float)sqrt((inverse ? 0.5 : 2) / (double)n);
    if (inverse) {
        work[0] = x[0] * one;
        work[1] = 0;
        multiply(x + 1, n - 1, two, work + 2);
        if (n % 2 == 0) {
            work[n] = x[n - 1] * one;
            work[n + 1] = 0;
        }
        atomo__fftw()->execute_c2r(l->backward, (atomo__complex *)(void *)work, work);
        memcpy(x, work, sizeof(float) * (size_t)n);
        return;
    }
    memcpy(work, x, sizeof(float) * (size_t)n);
    atomo__fftw()->execute_r2c(l->forward, work, (atomo__complex *)(void *)work);
    x[0] = work[0] * one;
    multiply(work + 2, n - 1, two, x + 1);
    if (n % 2 == 0) x[n - 1] = work[n] * one;
}

ATOMO_CLONES static void interleave(const float *restrict x, int64_t n, float *restrict v)
{
    for (int64_t i = 0; i < n / 2; i++) {
        v[i] = x[2 * i];
        v[n - 1 - i] = x[2 * i + 1];
    }
    if (n & 1) v[n / 2] = x[n - 1];
}

ATOMO_CLONES static void deinterleave(const float *restrict v, int64_t n, float *restrict x)
{
    for (int64_t i = 0; i < n / 2; i++) {
        x[2 * i] = v[i];
        x[2 * i + 1] = v[n - 1 - i];
    }
    if (n & 1) x[n - 1] = v[n / 2];
}

/* x_k - i x_(n-k) = scale (re + i im)_k rotated by -pi k / 2n, for `count` values of k from `first` on. */
ATOMO_CLONES static void turn(const double *restrict fine, const double *coarse, int64_t first, int count, double scale,
                              const float *restrict v, float *restrict x, float *restrict mirror)
{
    const double c0 = coarse[0] * scale, s0 = coarse[1] * scale;
    for (int i = 0; i < count; i++) {
        double c = c0 * fine[2 * i] - s0 * fine[2 * i + 1], s = s0 * fine[2 * i] + c0 * fine[2 * i + 1];
        double re = (double)v[2 * (first + i)], im = (double)v[2 * (first + i) + 1];
        x[first + i] = (float)(c * re + s * im);
        mirror[-i] = (float)(s * re - c * im);
    }
}

ATOMO_CLONES static void turn_back(const double *restrict fine, const double *coarse, int64_t first, int count,
                                   double scale, const float *restrict x, const float *restrict mirror,
                                   float *restrict v)
{
    const double c0 = coarse[0] * scale, s0 = coarse[1] * scale;
    for (int i = 0; i < count; i++) {
        double c = c0 * fine[2 * i] - s0 * fine[2 * i + 1], s = s0 * fine[2 * i] + c0 * fine[2 * i + 1];
        double re = (double)x[first + i], im = -(double)mirror[-i];
        v[2 * (first + i)] = (float)(c * re - s * im);
        v[2 * (first + i) + 1] = (float)(c * im + s * re);
    }
}

static void cosine(const atomo__line *l, float *x, bool inverse, float *work)
{
    const int64_t n = l->n, last = n / 2;
    const double scale = sqrt((inverse ? 0.5 : 2) / (double)n);
    const float one = (float)sqrt(1 / (double)n);
    if (!inverse) {
        interleave(x, n, work);
        atomo__fftw()->execute_r2c(l->forward, work, (atomo__complex *)(void *)work);
    }
    for (int64_t at = 0; at <= last; at += FINE) { /* without k = 0, which has another scale and no mirror */
        const int skip = at == 0, count = (int)ATOMO_MIN((int64_t)FINE, last + 1 - at) - skip;
        const double *fine = l->turn + 2 * skip, *coarse = l->turn + 2 * (FINE + at / FINE);
        if (inverse)
            turn_back(fine, coarse, at + skip, count, scale, x, x + n - at - skip, work);
        else
            turn(fine, coarse, at + skip, count, scale, work, x, x + n - at - skip);
    }
    if (!inverse) {
        x[0] = work[0] * one;
        return;
    }
    work[0] = x[0] * one;
    work[1] = 0;
    atomo__fftw()->execute_c2r(l->backward, (atomo__complex *)(void *)work, work);
    deinterleave(work, n, x);
}

void atomo__line_run(const atomo__line *l, float *x, bool inverse, float *work)
{
    if (l->n == 1) return;
    if (l->kind == ATOMO__DCT)
        cosine(l, x, inverse, work);
    else
        fourier(l, x, inverse, work);
}
