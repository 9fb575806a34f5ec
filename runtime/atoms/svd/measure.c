/* measure.c - measures spectral atoms: computes a basis, lambda of its atoms (exactly or from the Gram matrix), their
 * prices, and for `auto` the bits of each atom. Stages 4 and 5 of the path. */
#include "atoms/svd/state.h"
#include <cblas.h>
#include <lapacke.h>
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
/* An atom's magnitude is familiar if it has changed by at most this factor since the last search. */
static const double FAMILIAR = 2;
/* The variance of rounding to this many bits or fewer depends much on the gradient, so it is measured. */
enum { FEW_BITS = 4 };

/* Returns the bits of an atom: the coefficient, both factors, and with mixed bits the number of its width. */
static double price_of(const svd_state *s, int bits)
{
    return 32.0 + (s->mixed ? SVD_WIDTH_BITS : 0) + bits * (double)(s->k + s->l);
}

/* Computes the Gram matrix of the short side in the upper triangle of gram [k, k]. */
static void gram_of(const svd_state *s, const float *matrix, float *gram)
{
    const int k = (int)s->k, l = (int)s->l;
    cblas_ssyrk(CblasRowMajor, CblasUpper, s->tall ? CblasTrans : CblasNoTrans, k, l, 1, matrix, s->tall ? k : l, 0,
                gram, k);
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
    lapack_int info = LAPACKE_ssyevd_work(LAPACK_COL_MAJOR, 'V', 'L', k, s->basis, k, m->values, m->work, m->lwork,
                                          m->iwork, m->liwork);
    ATOMO_REQUIRE(info == 0, ATOMO_ENUMERIC,
                  "svd: LAPACK did not converge on tensor %s, folded to %.0f x %.0f (info %d)", plan->name,
                  (double)s->fold.rows, (double)s->fold.cols, (int)info);
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
    s->norm = sqrt(plan->square);
    return ATOMO_OK;
}

/* Returns lambda of one atom, with the variance of rounding its factors to `bits` and the plan's weight. */
static double weigh(const atomo__plan *plan, const float *shorts, const float *longs, int bits)
{
    const svd_state *s = plan->state;
    double square, unit, ev, ew;
    atomo__quant_variance(longs, s->l, bits, &square, &ev);
    atomo__quant_variance(shorts, s->k, bits, &unit, &ew);
    return atomo__svd_weight(plan) * ldexp(sqrt((square + ev) * (unit + ew)), -s->exponent);
}

static bool is_familiar(const svd_state *s, int64_t i, double size)
{
    const double then = s->table[SVD_WIDTHS * s->k + i] * s->norm / s->searched_norm;
    return size <= FAMILIAR * then && then <= FAMILIAR * size;
}

/* Measures lambda of atoms first .. first + count - 1 exactly. */
static void measure_exactly(const atomo__plan *plan, const float *matrix, int64_t first, int count,
                            const svd_scratch *m)
{
    const svd_state *s = plan->state;
    const float *basis = s->basis + first * s->k;
    atomo__svd_project(s, matrix, basis, count, m->longs);
    for (int j = 0; j < count; j++) {
        const float *shorts = basis + j * s->k, *longs = m->longs + j * s->l;
        const int64_t i = first + j;
        const double plain = s->mixed ? weigh(plan, shorts, longs, 32) : 0;
        s->lambda[i] = weigh(plan, shorts, longs, atomo__svd_bits(s, i));
        if (s->mixed) s->swell[i] = plain > 0 ? s->lambda[i] / plain : 1;
    }
}

/* Measures lambda of all atoms exactly. */
static void measure_all(const atomo__plan *plan, const float *matrix, const svd_scratch *m)
{
    const svd_state *s = plan->state;
    for (int64_t i = 0; i < s->k; i += SVD_BLOCK) {
        int count = (int)ATOMO_MIN((int64_t)SVD_BLOCK, s->k - i);
        measure_exactly(plan, matrix, i, count, m);
    }
}

/* Returns whether lambda of atom i must be measured: it is `least` or less, so that its square is not accurate, or the
 * variance of its rounding is not known from the last search. */
static bool is_uncertain(const atomo__plan *plan, int64_t i, double lambda, double least)
{
    const svd_state *s = plan->state;
    if (lambda <= least) return true;
    if (!s->mixed) return false;
    return atomo__svd_bits(s, i) <= FEW_BITS ||
           !is_familiar(s, i, ldexp(lambda * atomo__svd_weight(plan), -s->exponent));
}

/* Estimates lambda from `squares` [k], w^T (G G^T) w, and measures the uncertain ones. squares may be in the memory
 * where projections are written. */
static void estimate(const atomo__plan *plan, const float *matrix, const float *squares, const svd_scratch *m)
{
    const svd_state *s = plan->state;
    double *lambda = s->lambda, most = 0;
    const double usual =
        s->mixed
            ? 0
            : sqrt((1 + atomo__svd_usual_rounding(s->l, s->bits)) * (1 + atomo__svd_usual_rounding(s->k, s->bits)));
    for (int64_t i = 0; i < s->k; i++) {
        lambda[i] = sqrt(ATOMO_MAX(0, (double)squares[i]));
        most = ATOMO_MAX(most, lambda[i]);
    }
    const double least = LOST_IN_SQUARES * most;
    for (int64_t i = 0; i < s->k;) {
        int small = 0;
        while (small < SVD_BLOCK && i + small < s->k && is_uncertain(plan, i + small, lambda[i + small], least))
            small++;
        if (small > 0) {
            measure_exactly(plan, matrix, i, small, m);
            i += small;
            continue;
        }
        const double noise = s->mixed ? s->swell[i] : usual;
        lambda[i] = ldexp(lambda[i] * noise * atomo__svd_weight(plan), -s->exponent);
        i++;
    }
}

/* m->squares[i] = w_i^T (G G^T) w_i, for the basis of an earlier step. */
static void squares_along(const svd_state *s, const float *matrix, const svd_scratch *m)
{
    const int k = (int)s->k;
    const size_t n = (size_t)k;
    gram_of(s, matrix, m->gram);
    cblas_ssymm(CblasRowMajor, CblasRight, CblasUpper, k, k, 1, m->gram, k, s->basis, k, 0, m->product, k);
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t j = 0; j < n; j++) sum += (double)m->product[i * n + j] * (double)s->basis[i * n + j];
        m->squares[i] = (float)sum;
    }
}

/* With 8 and 16 bits the variance of rounding is small, so lambda is estimated from the squares. */
static bool bits_hardly_weigh(const svd_state *s)
{
    return s->bits == 8 || s->bits == 16;
}

/* Measures lambda of this gradient in the basis of an earlier step. That step's lambda are not used, since directions
 * without energy then may have all of it now. */
static void measure_kept(atomo__plan *plan, const float *g, const svd_scratch *m)
{
    svd_state *s = plan->state;
    const float *matrix = atomo__svd_matrix(s, g, m);
    s->searched = false;
    s->rough = s->k > 1 && bits_hardly_weigh(s);
    if (!s->rough) {
        measure_all(plan, matrix, m);
        return;
    }
    squares_along(s, matrix, m);
    estimate(plan, matrix, m->squares, m);
}

/* Computes a new basis and its lambda. With 8 and 16 bits, and with mixed bits, for which the last search has measured
 * the rounding, they are estimated without all the long factors, whose computation costs twice the Gram matrix. Else
 * they are exact. */
static int refresh(atomo__plan *plan, const float *g, const svd_scratch *m)
{
    svd_state *s = plan->state;
    const float *matrix = atomo__svd_matrix(s, g, m);
    s->kept_for = 0;
    s->searched = false;
    ATOMO_TRY(decompose(plan, matrix, m));
    s->rough = s->k > 1 && (bits_hardly_weigh(s) || s->mixed);
    if (s->rough)
        estimate(plan, matrix, m->values, m);
    else
        measure_all(plan, matrix, m);
    return ATOMO_OK;
}

/* Returns the fraction of the energy in atoms whose magnitude is not familiar. */
static double strange_share(const svd_state *s)
{
    double all = 0, strange = 0;
    for (int64_t i = 0; i < s->k; i++) {
        const double plain = s->lambda[i] / s->swell[i];
        all += plain * plain;
        if (!is_familiar(s, i, plain)) strange += plain * plain;
    }
    return all > 0 ? strange / all : 0;
}

static uint32_t age_of(const atomo__plan *plan, const atomo__context *c)
{
    return 1 + c->stream.step / (uint32_t)plan->option[SVD_EVERY];
}

/* Sets the plan's segment: lambda and the price of each atom. */
static void present(atomo__plan *plan)
{
    const svd_state *s = plan->state;
    plan->segment = (atomo__segment){.f64 = s->lambda,
                                     .cost = s->cost,
                                     .n = s->k,
                                     .unit = price_of(s, s->mixed ? atomo__svd_widths[SVD_USUAL] : s->bits)};
    for (int64_t i = 0; s->cost && i < s->k; i++) s->cost[i] = price_of(s, atomo__svd_bits(s, i));
    plan->fixed_bits = ATOMO__SVD_FIXED_BITS;
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
    if (s->mixed) s->strange = strange_share(s);
    present(plan);
    return ATOMO_OK;
}

/* If atoms differ in price, the unit is the mean price of the uncertain atoms, and the price of the certain ones is
 * fixed.
 */
void atomo__svd_price(atomo__plan *plan, double T)
{
    const atomo__segment *g = &plan->segment;
    const double free_atoms = g->expected - g->kept, spent = T > 0 ? g->rest_sum / T : 0;
    plan->priced_unit = g->unit;
    plan->priced_fixed = ATOMO__SVD_FIXED_BITS;
    if (!g->cost) return;
    if (free_atoms > 0) plan->priced_unit = spent / free_atoms;
    plan->priced_fixed += g->kept_cost + spent - plan->priced_unit * g->expected;
}

/* ---- functions for auto (atoms/svd.h) ---- */

int atomo__svd_search(atomo__plan *plan, const float *g, atomo__context *c)
{
    svd_state *s = plan->state;
    const svd_scratch m = atomo__svd_scratch_of(s, c);
    ATOMO_TRY(measure_scale(plan, g));
    const float *matrix = atomo__svd_matrix(s, g, &m), *basis = s->basis;
    s->kept_for = 0;
    ATOMO_TRY(decompose(plan, matrix, &m));
    for (int64_t i = 0; i < s->k; i++) {
        const int j = (int)(i % SVD_BLOCK);
        if (j == 0)
            atomo__svd_project(s, matrix, basis + i * s->k, (int)ATOMO_MIN((int64_t)SVD_BLOCK, s->k - i), m.longs);
        for (int b = 0; b < SVD_WIDTHS; b++)
            s->table[b * s->k + i] = weigh(plan, basis + i * s->k, m.longs + j * s->l, atomo__svd_widths[b]);
        s->table[SVD_WIDTHS * s->k + i] = weigh(plan, basis + i * s->k, m.longs + j * s->l, 32);
    }
    s->rough = false;
    s->searched = true;
    s->searched_norm = s->norm;
    s->strange = 0;
    s->kept_for = age_of(plan, c);
    atomo__svd_choose(plan, 0);
    return ATOMO_OK;
}

double atomo__svd_strange(const atomo__plan *plan)
{
    return ((const svd_state *)plan->state)->strange;
}

/* Returns what an atom of magnitude v (rounding included) in `bits` bits adds to variance + T^2 bits, plus lambda^2,
 * which is the same for all bits. With price c and p = min(1, v / (T sqrt(c))) it adds v^2/p - lambda^2 to the variance
 * and p c bits. The sum is 2 T v sqrt(c) - lambda^2 for p < 1, and v^2 + T^2 c - lambda^2 for p = 1. */
static double cost_at(const svd_state *s, double T, double v, int bits)
{
    const double t = T * sqrt(price_of(s, bits));
    return v < t ? 2 * v * t : v * v + t * t;
}

void atomo__svd_choose(atomo__plan *plan, double T)
{
    const svd_state *s = plan->state;
    for (int64_t i = 0; s->searched && i < s->k; i++) {
        double least = INFINITY;
        for (int b = 0; b < SVD_WIDTHS; b++) {
            const double v = s->table[b * s->k + i], cost = cost_at(s, T, v, atomo__svd_widths[b]);
            if (!(cost < least)) continue;
            least = cost;
            s->width[i] = (uint8_t)b;
            s->lambda[i] = v;
        }
        const double plain = s->table[SVD_WIDTHS * s->k + i];
        s->swell[i] = plain > 0 ? s->lambda[i] / plain : 1;
    }
    present(plan);
}
