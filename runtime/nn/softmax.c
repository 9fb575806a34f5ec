/* softmax.c - softmax and log softmax. The row's maximum is subtracted first, so that exp cannot overflow; sums are
 * double, in order. Path: stage 3. */
#include "nn/nn.h"
#include <math.h>

typedef struct rows { /* x as [outer, n, inner]: the softmax runs over n, whose elements are `inner` apart */
    int64_t outer, n, inner;
} rows;

static int check(const char *fn, const atomo_tensor *x, int dim, rows *r)
{
    ATOMO_TRY(atomo__expect(x, ATOMO_F32, -1, fn));
    ATOMO_REQUIRE(dim >= 0 && dim < x->ndim, ATOMO_ESHAPE, "%s: dimension %d of input %s", fn, dim + 1,
                  atomo__shape_text(x));
    *r = (rows){1, atomo__size(x, dim), 1};
    for (int i = 0; i < dim; i++) r->outer *= atomo__size(x, i);
    for (int i = dim + 1; i < x->ndim; i++) r->inner *= atomo__size(x, i);
    return ATOMO_OK;
}

/* y = softmax(x) or log softmax(x) */
static void softmax_row(const float *x, int64_t n, int64_t stride, int log_form, float *y)
{
    float top = x[0];
    for (int64_t i = 1; i < n; i++)
        if (!(x[i * stride] <= top)) top = x[i * stride]; /* NaN becomes the maximum */
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        float e = expf(x[i * stride] - top);
        sum += (double)e;
        y[i * stride] = e;
    }
    const double rest = log(sum); /* not added to top first: a large top would absorb it */
    const float scale = (float)(1 / sum);
    for (int64_t i = 0; i < n; i++)
        y[i * stride] = log_form ? (float)(((double)x[i * stride] - (double)top) - rest) : y[i * stride] * scale;
}

/* Returns the offset of row k; its elements are r->inner apart. */
static int64_t first(const rows *r, int64_t k)
{
    return k / r->inner * r->n * r->inner + k % r->inner;
}

int atomo_softmax(const atomo_tensor *x, int dim, int log_form, atomo_tensor **out)
{
    ATOMO_MAKING(made, x);
    rows r;
    ATOMO_TRY(check(log_form ? "log_softmax" : "softmax", x, dim, &r));
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, x->ndim, x->shape, "softmax"));
    if (r.n == 0) return atomo__made(&made, ATOMO_OK);
    const float *xd = atomo__f32(x);
    float *y = atomo__f32(*out);
    ATOMO_FOR(k, r.outer * r.inner, 1, x->numel > ATOMO_PARALLEL_MIN,
              softmax_row(xd + first(&r, k), r.n, r.inner, log_form, y + first(&r, k)));
    return atomo__made(&made, ATOMO_OK);
}

static void backward_row(const float *y, const float *gy, int64_t at, int64_t n, int64_t stride, int log_form,
                         float *gx)
{
    const int64_t end = at + n * stride;
    double sum = 0; /* softmax: sum gy y; log softmax: sum gy */
    for (int64_t k = at; k < end; k += stride) sum += (double)gy[k] * (log_form ? 1 : (double)y[k]);
    const float s = (float)sum;
    for (int64_t k = at; k < end; k += stride) gx[k] = log_form ? gy[k] - expf(y[k]) * s : y[k] * (gy[k] - s);
}

int atomo_softmax_backward(const atomo_tensor *y, const atomo_tensor *gy, int dim, int log_form, atomo_tensor **gx)
{
    ATOMO_MAKING(made, y, gy);
    rows r;
    ATOMO_TRY(check("softmax backward", y, dim, &r));
    ATOMO_TRY(atomo__expect_gradient(gy, y->ndim, y->shape, "softmax backward"));
    ATOMO_TRY(atomo__make(&made, gx, ATOMO_F32, y->ndim, y->shape, "softmax backward: gx"));
    const float *yd = atomo__f32(y), *gd = atomo__f32(gy);
    float *out = atomo__f32(*gx);
    ATOMO_FOR(k, r.outer * r.inner, 1, y->numel > ATOMO_PARALLEL_MIN,
              backward_row(yd, gd, first(&r, k), r.n, r.inner, log_form, out));
    return atomo__made(&made, ATOMO_OK);
}
