/* norm.c - inner product, p-norm, number of NaN and Inf entries. f32 inner products and 2-norms accumulate in double in
 * 16 fixed lanes, so their bits do not depend on the vector width; integer inner products are exact. Path: every stage.
 */
#include "tensor/iterator.h"
#include <math.h>

enum { LANES = 16 };

ATOMO_CLONES static double dot_run(const float *a, const float *b, int64_t n)
{
    double lane[LANES] = {0}, total = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lane[j] += (double)a[i + j] * (double)b[i + j];
    for (; i < n; i++) lane[0] += (double)a[i] * (double)b[i];
    for (int j = 0; j < LANES; j++) total += lane[j];
    return total;
}

static int dot_integers(const atomo_tensor *a, const atomo_tensor *b, double *out)
{
    int64_t sum = 0;
    bool fits = true;
    for (int64_t i = 0; fits && i < atomo__numel(a); i++)
        fits = !__builtin_add_overflow(sum, atomo__integer_at(a, i) * atomo__integer_at(b, i), &sum);
    ATOMO_REQUIRE(fits && atomo__whole((double)sum), ATOMO_ELIMIT,
                  "dot: the sum of %s passes 2^53; convert the tensors first (t:to \"f32\")",
                  atomo__dtype_name(a->dtype));
    *out = (double)sum;
    return ATOMO_OK;
}

int atomo_dot(const atomo_tensor *a, const atomo_tensor *b, double *out)
{
    ATOMO_REQUIRE(a->numel == b->numel, ATOMO_ESHAPE, "dot: %s and %s have different sizes", atomo__shape_text(a),
                  atomo__shape_text(b));
    ATOMO_REQUIRE(a->dtype == b->dtype, ATOMO_EDTYPE, "dot: %s and %s do not mix, convert one (t:to \"f32\")",
                  atomo__dtype_name(a->dtype), atomo__dtype_name(b->dtype));
    ATOMO_TRY(atomo__expect_numbers(a, "dot"));
    const atomo_tensor *ca, *cb = NULL;
    atomo_tensor *ha, *hb = NULL;
    ATOMO_TRY(atomo__dense(a, a->dtype, &ca, &ha));
    int rc = atomo__dense(b, b->dtype, &cb, &hb);
    if (rc == 0 && a->dtype == ATOMO_F32) *out = dot_run(atomo__f32(ca), atomo__f32(cb), atomo__numel(a));
    if (rc == 0 && a->dtype != ATOMO_F32) rc = dot_integers(ca, cb, out);
    atomo_tensor_free(ha);
    atomo_tensor_free(hb);
    return rc;
}

static double number_at(const atomo_tensor *c, int64_t i)
{
    return c->dtype == ATOMO_F32 ? (double)atomo__f32(c)[i] : (double)atomo__integer_at(c, i);
}

static double largest(const atomo_tensor *c)
{
    double most = 0;
    for (int64_t i = 0; i < atomo__numel(c) && most == most; i++) {
        const double v = fabs(number_at(c, i));
        if (!(v <= most)) most = v; /* true for NaN, too, which ends the loop */
    }
    return most;
}

/* Returns the sum of |v / scale|^p over c's entries. */
static double power_sum(const atomo_tensor *c, double p, double scale)
{
    double sum = 0;
    for (int64_t i = 0; i < atomo__numel(c); i++) {
        const double v = fabs(number_at(c, i)) / scale;
        sum += p == 1 ? v : p == 2 ? v * v : pow(v, p);
    }
    return sum;
}

/* Returns the p-norm. If the sum of powers overflows or is near underflow, the entries are divided by the largest
 * magnitude first. */
static double power_norm(const atomo_tensor *c, double p)
{
    const double sum = power_sum(c, p, 1), most = sum > 1e-290 && sum < INFINITY ? 0 : largest(c);
    if (most > 0 && most < INFINITY) return most * pow(power_sum(c, p, most), 1 / p);
    return p == 1 ? sum : p == 2 ? sqrt(sum) : pow(sum, 1 / p);
}

int atomo_norm(const atomo_tensor *a, double p, double *out)
{
    ATOMO_REQUIRE(p > 0, ATOMO_EARG, "norm: p = %g, expected above 0", p);
    ATOMO_TRY(atomo__expect_numbers(a, "norm"));
    const atomo_tensor *c;
    atomo_tensor *hold;
    ATOMO_TRY(atomo__dense(a, a->dtype, &c, &hold));
    if (isinf(p))
        *out = largest(c);
    else if (p == 2 && c->dtype == ATOMO_F32)
        *out = sqrt(dot_run(atomo__f32(c), atomo__f32(c), atomo__numel(c)));
    else
        *out = power_norm(c, p);
    atomo_tensor_free(hold);
    return ATOMO_OK;
}

/* Returns the number of NaN and Inf. x - x is 0 for finite x and NaN otherwise, which vectorises. */
ATOMO_CLONES static int64_t nonfinite_run(const float *a, int64_t stride, int64_t n)
{
    int64_t count = 0;
    if (stride == 1)
        for (int64_t i = 0; i < n; i++) count += !(a[i] - a[i] == 0.0f);
    else
        for (int64_t i = 0; i < n; i++) count += !(a[i * stride] - a[i * stride] == 0.0f);
    return count;
}

static void count_piece(const atomo__iterator *it, int64_t i, const float *x, int64_t *total)
{
    const atomo_piece p = atomo__piece(it, i);
    const int64_t bad = nonfinite_run(x + p.at[0], it->stride[0][it->ndim - 1], p.n);
    if (bad) __atomic_fetch_add(total, bad, __ATOMIC_RELAXED);
}

/* Returns the flat index of the first NaN or Inf, -1 if there is none. */
static int64_t first_nonfinite(const atomo__iterator *it, const float *x)
{
    const int64_t stride = it->stride[0][it->ndim - 1];
    for (int64_t i = 0; i < atomo__pieces(it); i++) {
        const atomo_piece p = atomo__piece(it, i);
        for (int64_t k = 0; k < p.n; k++)
            if (!isfinite(x[p.at[0] + k * stride])) return p.out + k;
    }
    return -1;
}

int atomo_count_nonfinite(const atomo_tensor *a, double *count, double *first)
{
    int64_t bad = 0;
    atomo__iterator it;
    *first = -1;
    atomo_tensor *hold = NULL;
    if (a->dtype == ATOMO_F16 || a->dtype == ATOMO_BF16) ATOMO_TRY(atomo__dense(a, ATOMO_F32, &a, &hold));
    if (a->dtype == ATOMO_F32) {
        const float *x = atomo__f32(a);
        atomo__iterator_init(&it, a->ndim, a->shape, 1, &a);
        ATOMO_FOR(i, atomo__pieces(&it), 1, atomo__iterator_is_wide(&it), count_piece(&it, i, x, &bad));
        if (bad) *first = (double)first_nonfinite(&it, x);
    }
    atomo_tensor_free(hold);
    *count = (double)bad;
    return ATOMO_OK;
}

int atomo_find_nonfinite(const atomo_tensor *const *list, int n, int *which)
{
    *which = -1;
    for (int i = 0; i < n && *which < 0; i++) {
        if (!list[i]) continue;
        double bad, first;
        ATOMO_TRY(atomo_count_nonfinite(list[i], &bad, &first));
        if (bad > 0) *which = i;
    }
    return ATOMO_OK;
}
