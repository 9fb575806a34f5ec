/* budget.c - Algorithm 1: keep-probabilities from coefficients, prices and a budget; stage 5 of the path.
 *
 * Wang et al., "ATOMO: Communication-efficient Learning via Atomic Sparsification", NeurIPS 2018, Algorithm 1, with a
 * price per atom: minimise sum lambda^2/p subject to sum c p <= B, 0 < p <= 1. KKT: p = min(1, |lambda| / (T sqrt(c))).
 * With x = 1/T the spending g(x) = sum min(c, x |lambda| sqrt(c)) is concave, increasing and piecewise linear, so
 * Newton's method comes to g(x) = B from the left, monotonically, in finitely many passes; each pass is O(n) and hands
 * the budget of the atoms it saturates on to the others, which is the paper's loop without its sort. Promise: sum c p =
 * B to rounding (double accumulators), p = 1 for all where B is enough, for many segments at once.
 */
#include "coding/coding.h"
#include <math.h>

enum { LANES = 16, MAX_PASSES = 400 };

ATOMO_CLONES void atomo__measure(const float *x, int64_t n, double *sum, double *square, float *largest)
{
    /* written in vectors: left to itself the compiler mixes them with scalars, at a quarter of the speed */
    typedef int32_t ints __attribute__((vector_size(32)));
    typedef float floats __attribute__((vector_size(32)));
    typedef double doubles __attribute__((vector_size(64)));
    doubles sums[2] = {{0}}, squares[2] = {{0}};
    ints most[2] = {{0}};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int h = 0; h < 2; h++) {
            ints bits;
            memcpy(&bits, x + i + 8 * h, sizeof bits);
            bits &= INT32_MAX;
            ints more = bits > most[h];
            most[h] = (bits & more) | (most[h] & ~more); /* sizes order as their bits do */
            doubles a = __builtin_convertvector((floats)bits, doubles);
            sums[h] += a;
            squares[h] += a * a;
        }
    double s[LANES], q[LANES];
    float m[LANES];
    memcpy(s, sums, sizeof s);
    memcpy(q, squares, sizeof q);
    memcpy(m, most, sizeof m);
    for (int l = 0; i < n; i++, l++) {
        float a = fabsf(x[i]);
        s[l] += (double)a;
        q[l] += (double)a * (double)a;
        m[l] = a > m[l] ? a : m[l];
    }
    *sum = *square = 0;
    *largest = 0;
    for (int l = 0; l < LANES; l++) {
        *sum += s[l];
        *square += q[l];
        *largest = ATOMO_MAX(*largest, m[l]);
    }
}

/* Entries with |x| >= cut (cut > 0): how many, their sum; and the sum of the others. */
ATOMO_CLONES static void split_f32(const float *x, int64_t n, float cut, double *count, double *above, double *below)
{
    double all[LANES] = {0}, up[LANES] = {0};
    int64_t k[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            float a = fabsf(x[i + l]);
            bool in = a >= cut;
            all[l] += (double)(in ? 0.0f : a);
            up[l] += (double)(in ? a : 0.0f);
            k[l] += in;
        }
    for (int l = 0; i < n; i++, l++) {
        float a = fabsf(x[i]);
        bool in = a >= cut;
        all[l] += (double)(in ? 0.0f : a);
        up[l] += (double)(in ? a : 0.0f);
        k[l] += in;
    }
    *count = *above = *below = 0;
    for (int l = 0; l < LANES; l++) {
        *count += (double)k[l];
        *above += up[l];
        *below += all[l];
    }
}

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

/* The float at which |x| counts as saturated: the sampler compares with the same one. */
static float cut_of(double tau)
{
    if (tau > 3.4028234e38) return INFINITY;
    float cut = (float)tau;
    return cut > 0 ? cut : 0x1p-149f;
}

void atomo__budget_evaluate(atomo__segment *s, double T)
{
    if (s->f64) {
        split_f64(s, T);
        return;
    }
    double root = sqrt(s->unit), tau = T * root;
    split_f32(s->f32, s->n, cut_of(tau), &s->kept, &s->kept_sum, &s->rest_sum);
    s->kept_cost = s->kept * s->unit;
    s->expected = s->kept + (tau > 0 ? s->rest_sum / tau : 0);
    s->rest_sum *= root;
}

/* One pass over all segments: what the saturated cost, and the sum that T divides. */
static void pass(atomo__segment *seg, int count, double T, double *cost, double *rest)
{
    *cost = *rest = 0;
    for (int i = 0; i < count; i++) {
        atomo__budget_evaluate(&seg[i], T);
        *cost += seg[i].kept_cost;
        *rest += seg[i].rest_sum;
    }
}

double atomo__budget_solve(atomo__segment *seg, int count, double budget, double hint)
{
    double cost, rest;
    double T = hint > 0 && isfinite(hint) ? hint : INFINITY;
    bool left = false; /* T came from a Newton step, so it is at or above the solution */
    for (int k = 0; k < MAX_PASSES; k++) {
        pass(seg, count, T, &cost, &rest);
        double room = budget - cost;
        if (rest <= 0 && room >= 0) { /* everything saturated and paid for */
            if (T > 0) pass(seg, count, 0, &cost, &rest);
            return 0;
        }
        if (room <= 0) { /* the hint was too low, or rounding at the last step */
            if (left || isinf(T)) return T;
            T = INFINITY;
            continue;
        }
        double next = rest / room;
        if (left && next >= T * (1 - 1e-13)) return T;
        if (next <= 0 || !isfinite(next)) return left ? T : (pass(seg, count, 0, &cost, &rest), 0);
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
    int e = 0; /* scaled so that sums stay in range; p does not depend on the scale */
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

/* f32 tensors without costs: no copy in double. */
static void probabilities_f32(const float *x, int64_t n, double s, float *p)
{
    atomo__segment seg = {.f32 = x, .unit = 1, .n = n};
    double T = atomo__budget_solve(&seg, 1, s, 0);
    float cut = cut_of(T);
    for (int64_t i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        p[i] = a >= cut ? 1 : (float)((double)a / T);
    }
}

int atomo_probabilities(const atomo_tensor *lambda, double s, const atomo_tensor *cost, atomo_tensor **p)
{
    ATOMO_REQUIRE(s > 0, ATOMO_EARG, "probabilities: s is %g, expected a budget above 0", s);
    ATOMO_TRY(atomo__expect(lambda, ATOMO_F32, -1, "probabilities: lambda"));
    double bad, first;
    ATOMO_TRY(atomo_count_nonfinite(lambda, &bad, &first));
    ATOMO_REQUIRE(bad == 0, ATOMO_ENONFINITE,
                  "probabilities: %.0f of %s coefficients are NaN or Inf, the first is number %.0f", bad,
                  atomo__shape_text(lambda), first + 1);
    if (cost) {
        ATOMO_TRY(atomo__expect(cost, ATOMO_F32, -1, "probabilities: cost"));
        ATOMO_REQUIRE(cost->numel == lambda->numel, ATOMO_ESHAPE, "probabilities: lambda is %s, cost is %s",
                      atomo__shape_text(lambda), atomo__shape_text(cost));
    }
    ATOMO_TRY(atomo__output(p, ATOMO_F32, lambda->ndim, lambda->shape, "probabilities"));
    int64_t n = atomo__numel(lambda);
    if (!cost) {
        probabilities_f32(atomo__f32(lambda), n, s, atomo__f32(*p));
        return ATOMO_OK;
    }
    double *work;
    ATOMO_TRY(atomo__alloc((void **)&work, 3 * sizeof(double) * (size_t)ATOMO_MAX(n, 1)));
    for (int64_t i = 0; i < n; i++) {
        work[i] = (double)atomo__f32(lambda)[i];
        work[n + i] = (double)atomo__f32(cost)[i];
    }
    int rc = atomo_probabilities_f64(work, work + n, (double)n, s, work + 2 * n);
    for (int64_t i = 0; rc == 0 && i < n; i++) atomo__f32(*p)[i] = (float)work[2 * n + i];
    atomo__free(work);
    return rc;
}
