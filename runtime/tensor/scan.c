/* scan.c - running sums and products, and products of elements, along a dimension. f32 accumulates in double, in the
 * order of the elements; integers are exact. Path: every stage. */
#include "tensor/tensor.h"

/* Element i of a line stands at (line / inner) * n * inner + line % inner + i * inner. */
typedef struct lines {
    int64_t count, n, inner; /* lines, elements of one, distance of its elements */
} lines;

/* Lines along dim, or one line of all elements if dim is -1. */
static int lines_of(const atomo_tensor *a, int dim, const char *what, lines *l)
{
    ATOMO_REQUIRE(dim >= -1 && dim < a->ndim, ATOMO_EARG, "%s: dimension %d of a tensor with %d", what, dim + 1,
                  a->ndim);
    *l = (lines){.count = 1, .n = dim < 0 ? atomo__numel(a) : atomo__size(a, dim), .inner = 1};
    for (int i = 0; dim >= 0 && i < a->ndim; i++) {
        if (i > dim) l->inner *= atomo__size(a, i);
        if (i != dim) l->count *= atomo__size(a, i);
    }
    return ATOMO_OK;
}

static int64_t line_start(const lines *l, int64_t r)
{
    return r / l->inner * l->n * l->inner + r % l->inner;
}

/* ---- running sums ------------------------------------------------------------------------------------------------ */

static void sum_floats(const float *x, const lines *l, bool reverse, float *o)
{
    for (int64_t r = 0; r < l->count; r++) {
        const int64_t step = reverse ? -l->inner : l->inner;
        int64_t at = line_start(l, r) + (reverse ? (l->n - 1) * l->inner : 0);
        double sum = 0;
        for (int64_t i = 0; i < l->n; i++, at += step) o[at] = (float)(sum += (double)x[at]);
    }
}

static int sum_integers(const atomo_tensor *c, const lines *l, bool reverse, int32_t *o)
{
    for (int64_t r = 0; r < l->count; r++) {
        const int64_t step = reverse ? -l->inner : l->inner;
        int64_t sum = 0, at = line_start(l, r) + (reverse ? (l->n - 1) * l->inner : 0);
        for (int64_t i = 0; i < l->n; i++, at += step) {
            sum += atomo__integer_at(c, at);
            ATOMO_REQUIRE(atomo__fits_i32((double)sum), ATOMO_ELIMIT,
                          "cumsum: %lld does not fit i32; convert the tensor first (t:to \"f32\")", (long long)sum);
            o[at] = (int32_t)sum;
        }
    }
    return ATOMO_OK;
}

int atomo_cumsum(const atomo_tensor *a, int dim, int reverse, atomo_tensor **out)
{
    ATOMO_REQUIRE(dim >= 0, ATOMO_EARG, "cumsum: dimension %d, expected at least 1", dim + 1);
    lines l;
    ATOMO_TRY(lines_of(a, dim, "cumsum", &l));
    ATOMO_TRY(atomo__expect_numbers(a, "cumsum"));
    const atomo_tensor *c;
    atomo_tensor *hold;
    ATOMO_TRY(atomo__dense(a, a->dtype, &c, &hold));
    ATOMO_MAKING(made, a);
    const bool f32 = a->dtype == ATOMO_F32;
    int rc = atomo__make(&made, out, f32 ? ATOMO_F32 : ATOMO_I32, a->ndim, a->shape, "cumsum");
    if (rc == 0 && f32) sum_floats(atomo__f32(c), &l, reverse != 0, atomo__f32(*out));
    if (rc == 0 && !f32) rc = sum_integers(c, &l, reverse != 0, atomo__i32(*out));
    atomo_tensor_free(hold);
    return atomo__made(&made, rc);
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* The product is exact as long as it is below 2^53, which is far beyond i32; a 0 makes it 0 whatever came before. */
static int product_of_integers(const atomo_tensor *c, int64_t at, const lines *l, int32_t *o)
{
    double product = 1;
    bool zero = false;
    for (int64_t i = 0; i < l->n; i++) {
        const int64_t v = atomo__integer_at(c, at + i * l->inner);
        zero = zero || v == 0;
        product *= (double)v;
    }
    ATOMO_REQUIRE(zero || atomo__fits_i32(product), ATOMO_ELIMIT,
                  "prod: %.17g does not fit i32; convert the tensor first (t:to \"f32\")", product);
    *o = zero ? 0 : (int32_t)product;
    return ATOMO_OK;
}

static float product_of_floats(const float *x, const lines *l)
{
    double product = 1;
    for (int64_t i = 0; i < l->n; i++) product *= (double)x[i * l->inner];
    return (float)product;
}

int atomo_prod(const atomo_tensor *a, int dim, int keepdim, atomo_tensor **out)
{
    lines l;
    ATOMO_TRY(lines_of(a, dim, "prod", &l));
    double shape[ATOMO_MAX_DIM];
    int ndim = 0;
    for (int i = 0; i < a->ndim; i++) {
        const bool reduced = dim < 0 || i == dim;
        if (!reduced || keepdim) shape[ndim++] = reduced ? 1 : a->shape[i];
    }
    ATOMO_TRY(atomo__expect_numbers(a, "prod"));
    const atomo_tensor *c;
    atomo_tensor *hold;
    ATOMO_TRY(atomo__dense(a, a->dtype, &c, &hold));
    ATOMO_MAKING(made, a);
    const bool f32 = a->dtype == ATOMO_F32;
    int rc = atomo__make(&made, out, f32 ? ATOMO_F32 : ATOMO_I32, ndim, shape, "prod");
    for (int64_t r = 0; rc == 0 && r < l.count; r++) {
        const int64_t at = line_start(&l, r);
        if (f32)
            atomo__f32(*out)[r] = product_of_floats(atomo__f32(c) + at, &l);
        else
            rc = product_of_integers(c, at, &l, atomo__i32(*out) + r);
    }
    atomo_tensor_free(hold);
    return atomo__made(&made, rc);
}

/* o[i] = g * the product of all elements of a line but the i-th; before [n] is scratch. */
static void products_of_others(const float *x, const lines *l, double g, double *before, float *o)
{
    double product = 1;
    for (int64_t i = 0; i < l->n; i++) {
        before[i] = product;
        product *= (double)x[i * l->inner];
    }
    product = g;
    for (int64_t i = l->n - 1; i >= 0; i--) {
        o[i * l->inner] = (float)(before[i] * product);
        product *= (double)x[i * l->inner];
    }
}

int atomo_prod_backward(const atomo_tensor *a, int dim, const atomo_tensor *gy, atomo_tensor **out)
{
    lines l;
    ATOMO_TRY(lines_of(a, dim, "prod", &l));
    ATOMO_TRY(atomo__expect(a, ATOMO_F32, -1, "prod: tensor"));
    ATOMO_TRY(atomo__expect(gy, ATOMO_F32, -1, "prod: gy"));
    ATOMO_REQUIRE(atomo__numel(gy) == l.count, ATOMO_ESHAPE, "prod: gy is %s, the tensor %s", atomo__shape_text(gy),
                  atomo__shape_text(a));
    ATOMO_MAKING(made, a, gy);
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, a->ndim, a->shape, "prod"));
    void *before;
    ATOMO_TRY(atomo__alloc(&before, (size_t)l.n * sizeof(double)));
    for (int64_t r = 0; r < l.count; r++) {
        const int64_t at = line_start(&l, r);
        products_of_others(atomo__f32(a) + at, &l, (double)atomo__f32(gy)[r], before, atomo__f32(*out) + at);
    }
    atomo__free(before);
    return atomo__made(&made, ATOMO_OK);
}

/* ---- running products -------------------------------------------------------------------------------------------- */

static void multiply_floats(const float *x, const lines *l, float *o)
{
    double product = 1;
    for (int64_t i = 0; i < l->n; i++) o[i * l->inner] = (float)(product *= (double)x[i * l->inner]);
}

static int multiply_integers(const atomo_tensor *c, int64_t at, const lines *l, int32_t *o)
{
    int64_t product = 1; /* each factor and each product before it fits i32, so that the next one fits int64_t */
    for (int64_t i = 0; i < l->n; i++) {
        product *= atomo__integer_at(c, at + i * l->inner);
        ATOMO_REQUIRE(atomo__fits_i32((double)product), ATOMO_ELIMIT,
                      "cumprod: %lld does not fit i32; convert the tensor first (t:to \"f32\")", (long long)product);
        o[i * l->inner] = (int32_t)product;
    }
    return ATOMO_OK;
}

int atomo_cumprod(const atomo_tensor *a, int dim, atomo_tensor **out)
{
    ATOMO_REQUIRE(dim >= 0, ATOMO_EARG, "cumprod: dimension %d, expected at least 1", dim + 1);
    lines l;
    ATOMO_TRY(lines_of(a, dim, "cumprod", &l));
    ATOMO_TRY(atomo__expect_numbers(a, "cumprod"));
    const atomo_tensor *c;
    atomo_tensor *hold;
    ATOMO_TRY(atomo__dense(a, a->dtype, &c, &hold));
    ATOMO_MAKING(made, a);
    const bool f32 = a->dtype == ATOMO_F32;
    int rc = atomo__make(&made, out, f32 ? ATOMO_F32 : ATOMO_I32, a->ndim, a->shape, "cumprod");
    for (int64_t r = 0; rc == 0 && r < l.count; r++) {
        const int64_t at = line_start(&l, r);
        if (f32)
            multiply_floats(atomo__f32(c) + at, &l, atomo__f32(*out) + at);
        else
            rc = multiply_integers(c, at, &l, atomo__i32(*out) + at);
    }
    atomo_tensor_free(hold);
    return atomo__made(&made, rc);
}

/* o[i] = the product of the elements before i, times s[i] = g[i] + x[i + 1] s[i + 1]; before [n] is scratch. */
static void running_product_slopes(const float *x, const lines *l, const float *g, double *before, float *o)
{
    double product = 1, s = 0, next = 0;
    for (int64_t i = 0; i < l->n; i++) {
        before[i] = product;
        product *= (double)x[i * l->inner];
    }
    for (int64_t i = l->n - 1; i >= 0; i--) {
        s = i == l->n - 1 ? (double)g[i * l->inner] : (double)g[i * l->inner] + next * s;
        o[i * l->inner] = (float)(before[i] * s);
        next = (double)x[i * l->inner];
    }
}

int atomo_cumprod_backward(const atomo_tensor *a, int dim, const atomo_tensor *gy, atomo_tensor **out)
{
    ATOMO_REQUIRE(dim >= 0, ATOMO_EARG, "cumprod: dimension %d, expected at least 1", dim + 1);
    lines l;
    ATOMO_TRY(lines_of(a, dim, "cumprod", &l));
    ATOMO_TRY(atomo__expect(a, ATOMO_F32, -1, "cumprod: tensor"));
    ATOMO_TRY(atomo__expect(gy, ATOMO_F32, -1, "cumprod: gy"));
    ATOMO_REQUIRE(atomo__same_shape(gy, a), ATOMO_ESHAPE, "cumprod: gy is %s, the tensor %s", atomo__shape_text(gy),
                  atomo__shape_text(a));
    ATOMO_MAKING(made, a, gy);
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, a->ndim, a->shape, "cumprod"));
    void *before;
    ATOMO_TRY(atomo__alloc(&before, (size_t)l.n * sizeof(double)));
    for (int64_t r = 0; r < l.count; r++) {
        const int64_t at = line_start(&l, r);
        running_product_slopes(atomo__f32(a) + at, &l, atomo__f32(gy) + at, before, atomo__f32(*out) + at);
    }
    atomo__free(before);
    return atomo__made(&made, ATOMO_OK);
}
