/* reduce.c - sums, extremes, norms. Sums accumulate in double in 16 fixed lanes, so the bits do not depend on the
 * vector width or the number of threads. */
#include "tensor/walk.h"
#include <float.h>
#include <math.h>

enum { LANES = 16 };

ATOMO_CLONES static double sum_run(const float *a, int64_t n)
{
    double lane[LANES] = {0}, total = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lane[j] += (double)a[i + j];
    for (; i < n; i++) lane[0] += (double)a[i];
    for (int j = 0; j < LANES; j++) total += lane[j];
    return total;
}

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

/* acc[j] (double) += a[j] for a row of n. */
ATOMO_CLONES static void add_row(double *acc, const float *a, int64_t n)
{
    for (int64_t j = 0; j < n; j++) acc[j] += (double)a[j];
}

static const char *const names[ATOMO_REDUCE_COUNT] = {"sum", "mean", "max", "min", "argmax", "argmin"};

/* One output of max/min/argmax/argmin: n elements, stride apart. NaN wins, as in PyTorch. */
static int64_t extreme(const float *a, int64_t n, int64_t stride, bool largest)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        float x = a[i * stride], b = a[best * stride];
        if (b != b) break;
        if (x != x || (largest ? x > b : x < b)) best = i;
    }
    return best;
}

static void reduce_sums(const float *x, int64_t outer, int64_t n, int64_t inner, double scale, double *acc, float *o)
{
    if (inner == 1) {
        for (int64_t r = 0; r < outer; r++) o[r] = (float)(sum_run(x + r * n, n) * scale);
        return;
    }
    for (int64_t r = 0; r < outer; r++) {
        for (int64_t j = 0; j < inner; j++) acc[j] = 0;
        for (int64_t i = 0; i < n; i++) add_row(acc, x + (r * n + i) * inner, inner);
        for (int64_t j = 0; j < inner; j++) o[r * inner + j] = (float)(acc[j] * scale);
    }
}

int atomo_reduce(int op, const atomo_tensor *a, int dim, int keepdim, atomo_tensor **out)
{
    ATOMO_REQUIRE(op >= 0 && op < ATOMO_REDUCE_COUNT, ATOMO_EARG, "reduce: unknown operation %d", op);
    ATOMO_REQUIRE(dim >= -1 && dim < a->ndim, ATOMO_EARG, "%s: dimension %d of a tensor with %d", names[op], dim + 1,
                  a->ndim);
    int64_t outer = 1, inner = 1, n = dim < 0 ? atomo__numel(a) : atomo__size(a, dim);
    double shape[ATOMO_MAX_DIM];
    int ndim = 0;
    for (int i = 0; i < a->ndim; i++) {
        if (dim >= 0 && i < dim) outer *= atomo__size(a, i);
        if (dim >= 0 && i > dim) inner *= atomo__size(a, i);
        if (dim >= 0 && i != dim)
            shape[ndim++] = a->shape[i];
        else if (keepdim)
            shape[ndim++] = 1;
    }
    ATOMO_REQUIRE(n > 0 || op == ATOMO_SUM, ATOMO_ESHAPE, "%s: nothing to reduce in %s", names[op],
                  atomo__shape_text(a));
    const atomo_tensor *c;
    atomo_tensor *hold;
    ATOMO_TRY(atomo__contiguous(a, &c, &hold));
    void *acc = NULL;
    ATOMO_MAKING(made, a);
    int rc = atomo__make(&made, out, op >= ATOMO_ARGMAX ? ATOMO_I32 : ATOMO_F32, ndim, shape, names[op]);
    if (rc == 0) rc = atomo__alloc(&acc, (size_t)inner * sizeof(double));
    if (rc == 0) {
        const float *x = atomo__f32(c);
        if (op <= ATOMO_MEAN) {
            reduce_sums(x, outer, n, inner, op == ATOMO_MEAN ? 1.0 / (double)n : 1.0, acc, atomo__f32(*out));
        } else {
            for (int64_t r = 0; r < outer * inner; r++) {
                const float *base = x + (r / inner) * n * inner + r % inner;
                int64_t best = extreme(base, n, inner, op == ATOMO_MAX_OF || op == ATOMO_ARGMAX);
                if (op >= ATOMO_ARGMAX)
                    atomo__i32(*out)[r] = (int32_t)best;
                else
                    atomo__f32(*out)[r] = base[best * inner];
            }
        }
    }
    atomo__free(acc);
    atomo_tensor_free(hold);
    return atomo__made(&made, rc);
}

/* out = the sum of c (contiguous) over out's broadcast dimensions; acc: zeros, as many as out has elements. */
static void sum_down(const atomo_tensor *c, const atomo_tensor *out, double *acc)
{
    const atomo_tensor *const t[2] = {c, out};
    atomo_walk w;
    atomo__walk_init(&w, c->ndim, c->shape, 2, t);
    const int64_t so = w.stride[1][w.ndim - 1];
    for (int64_t r = 0; r < w.rows; r++) {
        int64_t at[3];
        atomo__walk_row(&w, r, at);
        const float *x = atomo__f32(c) + at[0];
        if (so == 0)
            acc[at[1]] += sum_run(x, w.row);
        else if (so == 1)
            add_row(acc + at[1], x, w.row);
        else
            for (int64_t i = 0; i < w.row; i++) acc[at[1] + i * so] += (double)x[i];
    }
    for (int64_t i = 0; i < atomo__numel(out); i++) atomo__f32(out)[i] = (float)acc[i];
}

int atomo_sum_to(const atomo_tensor *a, const atomo_tensor *like, atomo_tensor **out)
{
    int ndim;
    double shape[ATOMO_MAX_DIM];
    ATOMO_TRY(atomo__broadcast_shape(a, like, "sum_to", &ndim, shape));
    bool fits = ndim == a->ndim;
    for (int i = 0; fits && i < ndim; i++) fits = shape[i] == a->shape[i];
    ATOMO_REQUIRE(fits, ATOMO_ESHAPE, "sum_to: %s does not broadcast to %s", atomo__shape_text(like),
                  atomo__shape_text(a));
    const atomo_tensor *c;
    atomo_tensor *hold;
    ATOMO_TRY(atomo__contiguous(a, &c, &hold));
    ATOMO_MAKING(made, a);
    void *accv = NULL;
    int rc = atomo__make(&made, out, ATOMO_F32, like->ndim, like->shape, "sum_to");
    if (rc == 0) rc = atomo__calloc(&accv, (size_t)atomo__numel(like) * sizeof(double));
    if (rc == 0) sum_down(c, *out, accv);
    atomo__free(accv);
    atomo_tensor_free(hold);
    return atomo__made(&made, rc);
}

int atomo_dot(const atomo_tensor *a, const atomo_tensor *b, double *out)
{
    ATOMO_REQUIRE(a->numel == b->numel, ATOMO_ESHAPE, "dot: %s and %s have different sizes", atomo__shape_text(a),
                  atomo__shape_text(b));
    const atomo_tensor *ca, *cb = NULL;
    atomo_tensor *ha, *hb = NULL;
    ATOMO_TRY(atomo__contiguous(a, &ca, &ha));
    int rc = atomo__contiguous(b, &cb, &hb);
    if (rc == 0) *out = dot_run(atomo__f32(ca), atomo__f32(cb), atomo__numel(a));
    atomo_tensor_free(ha);
    atomo_tensor_free(hb);
    return rc;
}

int atomo_norm(const atomo_tensor *a, double p, double *out)
{
    ATOMO_REQUIRE(p > 0, ATOMO_EARG, "norm: p = %g, expected above 0", p);
    const atomo_tensor *c;
    atomo_tensor *hold;
    ATOMO_TRY(atomo__contiguous(a, &c, &hold));
    const float *x = atomo__f32(c);
    double sum = 0;
    int64_t n = atomo__numel(a);
    if (p == 2) {
        sum = sqrt(dot_run(x, x, n));
    } else if (isinf(p)) {
        for (int64_t i = 0; i < n; i++) {
            double v = fabs((double)x[i]);
            if (v > sum || v != v) sum = v;
            if (sum != sum) break;
        }
    } else {
        for (int64_t i = 0; i < n; i++) sum += p == 1 ? fabs((double)x[i]) : pow(fabs((double)x[i]), p);
        if (p != 1) sum = pow(sum, 1 / p);
    }
    *out = sum;
    atomo_tensor_free(hold);
    return ATOMO_OK;
}

/* x - x is 0 for finite x and NaN otherwise: one vector compare an element. */
ATOMO_CLONES static int64_t nonfinite_run(const float *a, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += !(a[i] - a[i] == 0.0f);
    return count;
}

int atomo_count_nonfinite(const atomo_tensor *a, double *count, double *first)
{
    const atomo_tensor *c;
    atomo_tensor *hold;
    ATOMO_TRY(atomo__contiguous(a, &c, &hold));
    const float *x = atomo__f32(c);
    int64_t n = atomo__numel(a), bad = nonfinite_run(x, n);
    *count = (double)bad;
    *first = -1;
    for (int64_t i = 0; bad && i < n; i++)
        if (!isfinite(x[i])) {
            *first = (double)i;
            break;
        }
    atomo_tensor_free(hold);
    return ATOMO_OK;
}
