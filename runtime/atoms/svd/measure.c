/* measure.c - measures spectral atoms: computes a basis, lambda of its atoms (exactly or from the Gram matrix), and
 * their prices. Stages 4 and 5 of the path. */
#include "atoms/svd/state.h"
#include "core/packages.h"
#include <math.h>

/* The largest entry for which lambda w v / p cannot overflow f32. */
static const float LARGEST = 0x1p100f;
/* Entries whose largest magnitude is between 2^-30 and 2^30 need no scaling: squares and their sums do not overflow. */
enum { NEAR_ONE = 30 };
/* The largest accepted error of an eigenvector's |w|^2, far above f32's rounding, 6e-8. */
static const double UNIT_ERROR = 1e-3;
/* A lambda below this fraction of the largest one is measured. Its square, 1.6e-5 of the largest square, would not be
 * known to 1 % from a Gram matrix in f32, whose rounding is 6e-8 of the largest square. */
static const double LOST_IN_SQUARES = 0.004;

/* Returns the bits of an atom with rounded factors: the coefficient and both factors. */
static double price_of(const svd_state *s)
{
    return 32.0 + s->bits * (double)(s->k + s->l);
}

/* Computes the Gram matrix of the short side in the upper triangle of gram [k, k]. */
static void gram_of(const svd_state *s, const float *matrix, float *gram)
{
    const int k = (int)s->k, l = (int)s->l;
    atomo__blas()->ssyrk(CblasRowMajor, CblasUpper, s->tall ? CblasTrans : CblasNoTrans, k, l, 1, matrix,
                         s->tall ? k : l, 0, gram, k);
}

/* s->basis = the eigenvectors of the Gram matrix, as rows; m->values = its eigenvalues. */
static int decompose(atomo__plan *plan, const float *matrix, const svd_scratch *m)
{
    svd_state *s = plan->state;
    const int k = (int)s->k;
    if (k == 1) {
        s->basis[0] = 1;
        return ATOMO_OK;
    }
    gram_of(s, matrix, s->basis);
    /* row-major upper is column-major lower; column j of the result is row j of ours */
    int info;
    atomo__blas()->ssyevd("V", "L", &k, s->basis, &k, m->values, m->work, &m->lwork, m->iwork, &m->liwork, &info, 1, 1);
    ATOMO_REQUIRE(info == 0, ATOMO_ENUMERIC,
                  "svd: LAPACK did not converge on tensor %s, folded to %.0f x %.0f (info %d)", plan->name,
                  (double)s->fold.rows, (double)s->fold.cols, info);
    for (int i = 0; i < k; i++) { /* info = 0 is not enough: every w must be finite and of unit length */
        double sum, square;
        float most;
        atomo__measure(s->basis + (size_t)i * (size_t)k, k, &sum, &square, &most);
        ATOMO_REQUIRE(fabs(square - 1) < UNIT_ERROR, ATOMO_ENUMERIC, "svd: eigenvector %d of tensor %s has length %g",
                      i + 1, plan->name, sqrt(square));
    }
    return ATOMO_OK;
}

/* Sets ||g||^2, and the power of two that scales g to near 1, which is part of the message. */
static int measure_scale(atomo__plan *plan, const float *g)
{
    svd_state *s = plan->state;
    double sum;
    float largest;
    int e = 0;
    atomo__measure(g, plan->n, &sum, &plan->square, &largest);
    if (!isfinite(sum)) return atomo__refuse_nonfinite(plan, g);
    ATOMO_REQUIRE(largest <= LARGEST, ATOMO_ENONFINITE,
                  "%s: gradient of tensor %s: entries up to %g; rank-one terms of more than 2^100 may leave the range",
                  plan->codec->name, plan->name, (double)largest);
    if (largest > 0) frexpf(largest, &e);
    s->exponent = e > NEAR_ONE || e < -NEAR_ONE ? -e : 0;
    return ATOMO_OK;
}

/* Returns lambda of one atom, with the variance of rounding its factors. */
static double weigh(const svd_state *s, const float *shorts, const float *longs)
{
    double square, unit, ev, ew;
    const int bits = svd_rotates(s) ? 32 : s->bits; /* 32: exact */
    atomo__quant_variance(longs, s->l, bits, &square, &ev);
    atomo__quant_variance(shorts, s->k, bits, &unit, &ew);
    return ldexp(sqrt((square + ev) * (unit + ew)), -s->exponent);
}

/* Measures lambda of atoms first .. first + count - 1 exactly. */
static void measure_exactly(const svd_state *s, const float *matrix, int64_t first, int count, const svd_scratch *m)
{
    const float *basis = s->basis + first * s->k;
    atomo__svd_project(s, matrix, basis, count, m->longs);
    for (int j = 0; j < count; j++) s->lambda[first + j] = weigh(s, basis + j * s->k, m->longs + j * s->l);
}

/* Measures lambda of all atoms exactly. */
static void measure_all(const svd_state *s, const float *matrix, const svd_scratch *m)
{
    for (int64_t i = 0; i < s->k; i += SVD_BLOCK)
        measure_exactly(s, matrix, i, (int)ATOMO_MIN((int64_t)SVD_BLOCK, s->k - i), m);
}

/* Estimates lambda from `squares` [k], w^T (G G^T) w, and measures each lambda that is too small for an accurate
 * square. squares may be in the memory where projections are written. */
static void estimate(const svd_state *s, const float *matrix, const float *squares, const svd_scratch *m)
{
    double *lambda = s->lambda, most = 0;
    const double usual =
        svd_rotates(s)
            ? 1
            : sqrt((1 + atomo__svd_usual_rounding(s->l, s->bits)) * (1 + atomo__svd_usual_rounding(s->k, s->bits)));
    for (int64_t i = 0; i < s->k; i++) {
        lambda[i] = sqrt(ATOMO_MAX(0, (double)squares[i]));
        most = ATOMO_MAX(most, lambda[i]);
    }
    const double least = LOST_IN_SQUARES * most;
    for (int64_t i = 0; i < s->k;) {
        int small = 0;
        while (small < SVD_BLOCK && i + small < s->k && lambda[i + small] <= least) small++;
        if (small > 0) {
            measure_exactly(s, matrix, i, small, m);
            i += small;
            continue;
        }
        lambda[i] = ldexp(lambda[i] * usual, -s->exponent);
        i++;
    }
}

/* m->squares[i] = w_i^T (G G^T) w_i, for the basis of an earlier step. */
static void squares_along(const svd_state *s, const float *matrix, const svd_scratch *m)
{
    const int k = (int)s->k;
    const size_t n = (size_t)k;
    gram_of(s, matrix, m->gram);
    atomo__blas()->ssymm(CblasRowMajor, CblasRight, CblasUpper, k, k, 1, m->gram, k, s->basis, k, 0, m->product, k);
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t j = 0; j < n; j++) sum += (double)m->product[i * n + j] * (double)s->basis[i * n + j];
        m->squares[i] = (float)sum;
    }
}

/* lambda includes no variance of rounding with rotated factors, and little with 8 and 16 bits. It is then estimated
 * from the squares.
 */
static bool has_estimates(const svd_state *s)
{
    return s->k > 1 && (svd_rotates(s) || s->bits == 8 || s->bits == 16);
}

/* Measures lambda of this gradient in the basis of an earlier step. That step's lambda are not used, since directions
 * without energy then may have all of it now. */
static void measure_kept(atomo__plan *plan, const float *g, const svd_scratch *m)
{
    svd_state *s = plan->state;
    const float *matrix = atomo__svd_matrix(s, g, m);
    s->rough = has_estimates(s);
    if (!s->rough) {
        measure_all(s, matrix, m);
        return;
    }
    squares_along(s, matrix, m);
    estimate(s, matrix, m->squares, m);
}

/* Computes a new basis and its lambda. Estimates need no long factors, whose computation takes twice the time of the
 * Gram matrix. */
static int refresh(atomo__plan *plan, const float *g, const svd_scratch *m)
{
    svd_state *s = plan->state;
    const float *matrix = atomo__svd_matrix(s, g, m);
    s->kept_for = 0;
    ATOMO_TRY(decompose(plan, matrix, m));
    s->rough = has_estimates(s);
    if (s->rough)
        estimate(s, matrix, m->values, m);
    else
        measure_all(s, matrix, m);
    return ATOMO_OK;
}

static uint32_t age_of(const atomo__plan *plan, const atomo__context *c)
{
    return 1 + c->stream.step / (uint32_t)plan->option[SVD_EVERY];
}

static double fixed_bits(const svd_state *s)
{
    return ATOMO__SVD_FIXED_BITS + (svd_rotates(s) && !svd_rounds_all(s->l) ? SVD_PRICE_BITS : 0);
}

/* Sets the plan's segment: lambda and the price of an atom, or with rotated factors the curve of bits and error over
 * the price. */
static void present(atomo__plan *plan)
{
    svd_state *s = plan->state;
    plan->fixed_bits = fixed_bits(s);
    if (!svd_rotates(s)) {
        plan->segment = (atomo__segment){.f64 = s->lambda, .n = s->k, .unit = price_of(s)};
        return;
    }
    svd_rates_measure(s, plan->weight > 0 ? plan->weight : 1);
    plan->segment = (atomo__segment){.curve = &s->rates.curve, .n = s->k, .unit = 1};
}

int atomo__svd_measure(atomo__plan *plan, const float *g, atomo__context *c)
{
    svd_state *s = plan->state;
    ATOMO_TRY(measure_scale(plan, g));
    const uint32_t want = age_of(plan, c);
    const svd_scratch m = atomo__svd_scratch_of(s, c);
    if (plan->option[SVD_EVERY] > 1 && s->kept_for == want) {
        measure_kept(plan, g, &m);
    } else {
        ATOMO_TRY(refresh(plan, g, &m));
        s->kept_for = want;
    }
    present(plan);
    return ATOMO_OK;
}

void atomo__svd_price(atomo__plan *plan, double T)
{
    const svd_state *s = plan->state;
    plan->priced_unit = svd_rotates(s) ? 0 : plan->segment.unit;
    plan->priced_fixed = fixed_bits(s);
    if (!svd_rotates(s)) return;
    atomo__curve_at(plan->segment.curve, T);
    plan->priced_fixed += plan->segment.curve->bits;
}
