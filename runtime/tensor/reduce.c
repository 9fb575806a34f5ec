/* reduce.c - sum, mean, maximum, minimum and their indices along a dimension. f32 sums accumulate in double in a fixed
 * order (16 lanes along a contiguous run), so the bits do not depend on the vector width or the number of threads.
 * Integers are summed as integers. */
#include "tensor/iterator.h"

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

/* acc[j] (double) += a[j] for a row of n. */
ATOMO_CLONES static void add_row(double *acc, const float *a, int64_t n)
{
    for (int64_t j = 0; j < n; j++) acc[j] += (double)a[j];
}

static const char *const names[ATOMO_REDUCE_COUNT] = {"sum", "mean", "max", "min", "argmax", "argmin"};

/* Returns the index of the largest (or smallest) of n elements that are `stride` apart: the first NaN if there is one,
 * as in PyTorch, else the first of equals. */
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

/* extreme() and the sum for integers. */
#define INTEGER_RUNS(T, name)                                                                                          \
    static int64_t name##_extreme(const T *a, int64_t n, int64_t stride, bool largest)                                 \
    {                                                                                                                  \
        int64_t best = 0;                                                                                              \
        for (int64_t i = 1; i < n; i++)                                                                                \
            if (largest ? a[i * stride] > a[best * stride] : a[i * stride] < a[best * stride]) best = i;               \
        return best;                                                                                                   \
    }                                                                                                                  \
    static int64_t name##_sum(const T *a, int64_t n, int64_t stride)                                                   \
    {                                                                                                                  \
        int64_t sum = 0;                                                                                               \
        for (int64_t i = 0; i < n; i++) sum += a[i * stride];                                                          \
        return sum;                                                                                                    \
    }
INTEGER_RUNS(int32_t, i32)
INTEGER_RUNS(uint8_t, u8)

/* Writes out: i32 for sums (ELIMIT if one does not fit), f32 for means, which are rounded once, i32 for indices, c's
 * dtype for max and min. */
static int reduce_integers(int op, const atomo_tensor *c, int64_t outer, int64_t n, int64_t inner, atomo_tensor *out)
{
    const bool bytes = c->dtype == ATOMO_U8, largest = op == ATOMO_MAX_OF || op == ATOMO_ARGMAX;
    const uint8_t *u = c->data;
    const int32_t *x = c->data;
    for (int64_t r = 0; r < outer * inner; r++) {
        const int64_t at = r / inner * n * inner + r % inner;
        if (op <= ATOMO_MEAN) {
            const int64_t sum = bytes ? u8_sum(u + at, n, inner) : i32_sum(x + at, n, inner);
            ATOMO_REQUIRE(op == ATOMO_MEAN || atomo__fits_i32((double)sum), ATOMO_ELIMIT,
                          "sum: %lld does not fit i32; convert the tensor first (t:to \"f32\")", (long long)sum);
            if (op == ATOMO_MEAN)
                atomo__f32(out)[r] = (float)((double)sum / (double)n);
            else
                atomo__i32(out)[r] = (int32_t)sum;
            continue;
        }
        const int64_t best = bytes ? u8_extreme(u + at, n, inner, largest) : i32_extreme(x + at, n, inner, largest);
        if (op >= ATOMO_ARGMAX)
            atomo__i32(out)[r] = (int32_t)best;
        else if (bytes)
            ((uint8_t *)out->data)[r] = u[at + best * inner];
        else
            atomo__i32(out)[r] = x[at + best * inner];
    }
    return ATOMO_OK;
}

static int reduce_floats(int op, const atomo_tensor *c, int64_t outer, int64_t n, int64_t inner, atomo_tensor *out)
{
    const float *x = atomo__f32(c);
    if (op <= ATOMO_MEAN) {
        void *acc;
        ATOMO_TRY(atomo__alloc(&acc, (size_t)inner * sizeof(double)));
        reduce_sums(x, outer, n, inner, op == ATOMO_MEAN ? 1.0 / (double)n : 1.0, acc, atomo__f32(out));
        atomo__free(acc);
        return ATOMO_OK;
    }
    for (int64_t r = 0; r < outer * inner; r++) {
        const float *base = x + (r / inner) * n * inner + r % inner;
        const int64_t best = extreme(base, n, inner, op == ATOMO_MAX_OF || op == ATOMO_ARGMAX);
        if (op >= ATOMO_ARGMAX)
            atomo__i32(out)[r] = (int32_t)best;
        else
            atomo__f32(out)[r] = base[best * inner];
    }
    return ATOMO_OK;
}

static int result_dtype(int op, int dtype)
{
    if (op >= ATOMO_ARGMAX) return ATOMO_I32;
    if (op == ATOMO_MEAN || dtype == ATOMO_F32) return ATOMO_F32;
    return op == ATOMO_SUM ? ATOMO_I32 : dtype;
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
    ATOMO_TRY(atomo__expect_numbers(a, names[op]));
    ATOMO_REQUIRE(op < ATOMO_ARGMAX || n <= INT32_MAX, ATOMO_ELIMIT, "%s: %s is longer than i32 can number", names[op],
                  atomo__shape_text(a));
    ATOMO_TRY(atomo__dense(a, a->dtype, &c, &hold));
    ATOMO_MAKING(made, a);
    int rc = atomo__make(&made, out, result_dtype(op, a->dtype), ndim, shape, names[op]);
    if (rc == 0) rc = (a->dtype == ATOMO_F32 ? reduce_floats : reduce_integers)(op, c, outer, n, inner, *out);
    atomo_tensor_free(hold);
    return atomo__made(&made, rc);
}

/* out = the sum of c (contiguous) over out's broadcast dimensions; acc [numel of out] is scratch, all zeros on entry.
 */
static void sum_down(const atomo_tensor *c, const atomo_tensor *out, double *acc)
{
    const atomo_tensor *const t[2] = {c, out};
    atomo__iterator it;
    atomo__iterator_init(&it, c->ndim, c->shape, 2, t);
    const int64_t so = it.stride[1][it.ndim - 1];
    for (int64_t r = 0; r < it.rows; r++) {
        int64_t at[3];
        atomo__iterator_row(&it, r, at);
        const float *x = atomo__f32(c) + at[0];
        if (so == 0)
            acc[at[1]] += sum_run(x, it.row);
        else if (so == 1)
            add_row(acc + at[1], x, it.row);
        else
            for (int64_t i = 0; i < it.row; i++) acc[at[1] + i * so] += (double)x[i];
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

ATOMO_CLONES double atomo__sum_chunk(double *x, int n)
{
    double sum[16] = {0};
    for (int i = n; i < ATOMO__CHUNK; i++) x[i] = 0;
    for (int i = 0; i < ATOMO__CHUNK; i += 16)
        for (int l = 0; l < 16; l++) sum[l] += x[i + l];
    for (int l = 1; l < 16; l++) sum[0] += sum[l];
    return sum[0];
}
