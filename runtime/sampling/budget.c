/* budget.c - Algorithm 1: keep-probabilities from coefficients, prices and a budget; stage 5 of the path.
 *
 * Wang et al., "ATOMO: Communication-efficient Learning via Atomic Sparsification", NeurIPS 2018, Algorithm 1, with a
 * price per atom: minimise sum lambda^2/p subject to sum c p <= B, 0 < p <= 1. The KKT conditions give p = min(1,
 * |lambda| / (T sqrt(c))). With x = 1/T the spending g(x) = sum min(c, x |lambda| sqrt(c)) is concave, increasing and
 * piecewise linear, so Newton's method reaches g(x) = B from the left, monotonically, in finitely many passes. Each
 * pass is O(n) and divides the budget that saturated atoms leave among the others, which is the paper's loop without
 * its sort. Result, for many segments at once: sum c p = B up to rounding (double accumulators), or p = 1 for all if B
 * is enough.
 */
#include "sampling/sampling.h"
#include "tensor/tensor.h"
#include <math.h>

enum { MAX_PASSES = 400 };
/* Relative change of T that ends Newton's method: about a thousand times the rounding of a double, 1.1e-16. */
static const double STANDS_STILL = 1e-13;

static void split_f64(atomo__segment *s, double T)
{
    s->kept = s->kept_cost = s->kept_sum = s->rest_sum = 0;
    for (int64_t i = 0; i < s->n; i++) {
        double a = fabs(s->f64[i]), c = s->cost ? s->cost[i] : s->unit, root = sqrt(c);
        if (a == 0) continue;
        if (a >= T * root) {
            s->kept++;
            s->kept_cost += c;
            s->kept_sum += a;
        } else {
            s->rest_sum += a * root;
        }
    }
    s->expected = s->kept;
    if (!(T > 0)) return;
    for (int64_t i = 0; i < s->n; i++) {
        double a = fabs(s->f64[i]), root = sqrt(s->cost ? s->cost[i] : s->unit);
        if (a < T * root) s->expected += a / (T * root);
    }
}

static void split_spectrum(atomo__segment *s, double T)
{
    const atomo__spectrum *x = s->spectrum;
    double root = sqrt(s->unit), tau = T * root;
    s->kept = x->nonzero;
    s->kept_sum = x->total;
    if (tau > 0) atomo__spectrum_above(x, tau, &s->kept, &s->kept_sum);
    double rest = x->total - s->kept_sum;
    s->kept_cost = s->kept * s->unit;
    s->expected = ATOMO_MIN(s->kept + (tau > 0 ? rest / tau : 0), x->nonzero);
    s->rest_sum = rest * root;
}

/* Prices between which the tangent of a curve is taken, as a factor of T: an eighth of an octave, wider than the steps
 * of its quantisers. */
static const double TANGENT = 1.0905077326652577;

double atomo__budget_elastic(const atomo__segment *s, double T)
{
    if (!(T > 0) || !isfinite(T)) return 0;
    atomo__curve_at(s->curve, T * TANGENT);
    const double fewer = s->curve->bits;
    atomo__curve_at(s->curve, T);
    return (s->curve->bits - fewer) / (1 - 1 / TANGENT);
}

void atomo__curve_at(atomo__curve *c, double T)
{
    if (c->at == T) return;
    c->evaluate(c, T);
    c->at = T;
}

static void split_curve(atomo__segment *s, double T)
{
    atomo__curve_at(s->curve, T);
    s->kept = s->kept_sum = s->rest_sum = 0;
    s->kept_cost = s->curve->bits;
    s->expected = s->curve->nonzero;
}

void atomo__budget_evaluate(atomo__segment *s, double T)
{
    if (s->curve)
        split_curve(s, T);
    else if (s->spectrum)
        split_spectrum(s, T);
    else
        split_f64(s, T);
}

/* Evaluates all segments at T: *cost = summed price of the saturated atoms, *rest = summed |lambda| sqrt(c) of the
 * others.
 */
static void pass(atomo__segment *seg, int count, double T, double *cost, double *rest)
{
    *cost = *rest = 0;
    for (int i = 0; i < count; i++) {
        atomo__budget_evaluate(&seg[i], T);
        *cost += seg[i].kept_cost;
        *rest += seg[i].rest_sum;
    }
}

/* Returns the cost of all segments at T (if the budget counts atoms, their number). It falls as T grows. */
static double spending(atomo__segment *seg, int count, double T, bool atoms)
{
    double all = 0;
    for (int i = 0; i < count; i++) {
        atomo__budget_evaluate(&seg[i], T);
        all += atoms ? seg[i].expected : seg[i].kept_cost + (T > 0 ? seg[i].rest_sum / T : 0);
    }
    return all;
}

enum { WIDENINGS = 10 };
/* A price so low that all entries, also subnormal ones, have the finest quantiser. */
static const double LEAST_PRICE = 0x1p-300;
/* The ratio of T's bounds at which the search ends: one quantiser is further from the next than this. */
static const double NARROW = 1.001;

/* Returns the T at which the cost is `budget`: brackets it by growing factors, then halves the bracket in log T. */
static double solve_falling(atomo__segment *seg, int count, double budget, bool atoms)
{
    if (spending(seg, count, 0, atoms) <= budget) return 0;
    double low = 1, high = 1, factor = 2, cost = spending(seg, count, 1, atoms);
    const bool up = cost > budget;
    for (int i = 0; i < WIDENINGS && (cost > budget) == up; i++, factor *= factor) {
        const double before = cost;
        if (up)
            low = high, high *= factor;
        else
            high = low, low /= factor;
        cost = spending(seg, count, up ? high : low, atoms);
        /* The finest quantisers take less than the budget. The cost also stays where T is far above all entries. */
        if (!up && cost == before && cost == spending(seg, count, LEAST_PRICE, atoms)) return low;
    }
    while (high > low * NARROW) {
        const double T = sqrt(low) * sqrt(high);
        if (spending(seg, count, T, atoms) > budget)
            low = T;
        else
            high = T;
    }
    spending(seg, count, high, atoms);
    return high;
}

static bool has_curve(const atomo__segment *seg, int count)
{
    for (int i = 0; i < count; i++)
        if (seg[i].curve) return true;
    return false;
}

double atomo__budget_atoms(atomo__segment *seg, double atoms)
{
    return seg->curve ? solve_falling(seg, 1, atoms, true) : atomo__budget_solve(seg, 1, atoms * seg->unit, 0);
}

double atomo__budget_solve(atomo__segment *seg, int count, double budget, double hint)
{
    if (has_curve(seg, count)) return solve_falling(seg, count, budget, false);
    double cost, rest;
    double T = hint > 0 && isfinite(hint) ? hint : INFINITY;
    bool left = false; /* T is the result of a Newton step, so it is at or above the solution */
    pass(seg, count, 0, &cost, &rest);
    if (cost <= budget) return 0; /* the budget holds all atoms */
    for (int k = 0; k < MAX_PASSES; k++) {
        pass(seg, count, T, &cost, &rest);
        double room = budget - cost;
        if (room <= 0) { /* the hint was too low, or the last step was rounded */
            if (left || isinf(T)) return T;
            T = INFINITY;
            continue;
        }
        double next = rest / room;
        if (left && next >= T * (1 - STANDS_STILL)) return T;
        if (next <= 0 || !isfinite(next)) return T;
        T = next;
        left = true;
    }
    pass(seg, count, T, &cost, &rest);
    return T;
}

int atomo_probabilities_f64(const double *lambda, const double *cost, double n, double s, double *p)
{
    ATOMO_REQUIRE(s > 0, ATOMO_EARG, "probabilities: s is %g, expected a budget above 0", s);
    int64_t count = (int64_t)n;
    double largest = 0;
    for (int64_t i = 0; i < count; i++) {
        ATOMO_REQUIRE(isfinite(lambda[i]), ATOMO_ENONFINITE, "probabilities: lambda[%.0f] is %g", (double)i + 1,
                      lambda[i]);
        if (cost)
            ATOMO_REQUIRE(cost[i] > 0 && isfinite(cost[i]), ATOMO_EARG,
                          "probabilities: cost[%.0f] is %g, expected a finite price above 0", (double)i + 1, cost[i]);
        largest = ATOMO_MAX(largest, fabs(lambda[i]));
    }
    int e = 0; /* lambda is scaled by 2^-e so that sums do not overflow; p does not depend on the scale */
    frexp(largest, &e);
    for (int64_t i = 0; i < count; i++) p[i] = ldexp(lambda[i], -e);
    atomo__segment seg = {.f64 = p, .cost = cost, .unit = 1, .n = count};
    double T = atomo__budget_solve(&seg, 1, s, 0);
    for (int64_t i = 0; i < count; i++) {
        double a = fabs(p[i]), t = T * sqrt(cost ? cost[i] : 1);
        p[i] = a == 0 && lambda[i] == 0 ? 0 : a >= t ? 1 : a / t;
    }
    return ATOMO_OK;
}

enum { TAU_PASSES = 60 };
/* Relative change of tau that ends the passes: the remaining error is of the order of its square, 1e-10, below f32's
 * rounding. */
static const double LAST_MOVE = 1e-5;

/* *tau = the tau of f32 coefficients without costs, by Newton's method with exact passes, started from the tau of a
 * histogram of probes; 0 if the budget holds all atoms. ENONFINITE, without a text, if x is not finite. */
static int tau_of(const float *x, int64_t n, double s, double *tau)
{
    atomo__spectrum probes;
    double count, above, below, T;
    atomo__spectrum_of(&probes, x, n, false);
    atomo__segment seg = {.spectrum = &probes, .unit = 1, .n = n};
    T = atomo__budget_solve(&seg, 1, s, 0);
    *tau = 0;
    for (int k = 0; k < TAU_PASSES; k++) {
        float cut = atomo__cut_of(T);
        atomo__split(x, n, cut, &count, &above, &below);
        if (!isfinite(above) || !isfinite(below)) return ATOMO_ENONFINITE;
        if (below <= 0 && count <= s) return ATOMO_OK;            /* all atoms fit */
        double next = count < s ? below / (s - count) : INFINITY; /* if not, T was too low */
        if (isinf(next) && isinf(cut)) break;
        double step = fabs(next - T);
        T = next;
        if (isfinite(step) && step <= LAST_MOVE * T) break;
    }
    *tau = T;
    return ATOMO_OK;
}

ATOMO_CLONES static void divide_all(const float *x, int64_t n, float cut, double inverse, float *p)
{
    for (int64_t i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        p[i] = a >= cut ? 1.0f : (float)((double)a * inverse);
    }
}

static int refuse_nonfinite(const atomo_tensor *lambda)
{
    double bad, first;
    ATOMO_TRY(atomo_count_nonfinite(lambda, &bad, &first));
    return atomo__fail(ATOMO_ENONFINITE,
                       "probabilities: %.0f of %s coefficients are NaN or Inf, the first is number %.0f", bad,
                       atomo__shape_text(lambda), first + 1);
}

int atomo_probabilities(const atomo_tensor *lambda, double s, const atomo_tensor *cost, atomo_tensor **p)
{
    ATOMO_REQUIRE(s > 0, ATOMO_EARG, "probabilities: s is %g, expected a budget above 0", s);
    ATOMO_TRY(atomo__expect(lambda, ATOMO_F32, -1, "probabilities: lambda"));
    if (cost) {
        ATOMO_TRY(atomo__expect(cost, ATOMO_F32, -1, "probabilities: cost"));
        ATOMO_REQUIRE(cost->numel == lambda->numel, ATOMO_ESHAPE, "probabilities: lambda is %s, cost is %s",
                      atomo__shape_text(lambda), atomo__shape_text(cost));
    }
    ATOMO_MAKING(made, lambda, cost);
    ATOMO_TRY(atomo__make(&made, p, ATOMO_F32, lambda->ndim, lambda->shape, "probabilities"));
    int64_t n = atomo__numel(lambda);
    if (!cost) {
        double tau = 0;
        if (n > 0 && tau_of(atomo__f32(lambda), n, s, &tau) < 0) return refuse_nonfinite(lambda);
        divide_all(atomo__f32(lambda), n, atomo__cut_of(tau), tau > 0 ? 1 / tau : 0, atomo__f32(*p));
        return atomo__made(&made, ATOMO_OK);
    }
    double *work, bad, first;
    ATOMO_TRY(atomo_count_nonfinite(lambda, &bad, &first));
    if (bad > 0) return refuse_nonfinite(lambda);
    ATOMO_TRY(atomo__alloc((void **)&work, 3 * sizeof(double) * (size_t)ATOMO_MAX(n, 1)));
    for (int64_t i = 0; i < n; i++) {
        work[i] = (double)atomo__f32(lambda)[i];
        work[n + i] = (double)atomo__f32(cost)[i];
    }
    int rc = atomo_probabilities_f64(work, work + n, (double)n, s, work + 2 * n);
    for (int64_t i = 0; rc == 0 && i < n; i++) atomo__f32(*p)[i] = (float)work[2 * n + i];
    atomo__free(work);
    return atomo__made(&made, rc);
}
