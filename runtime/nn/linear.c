/* linear.c - the fully connected layer: y = x w^T + b with w [out,in], as in PyTorch. Path: stage 3. */
#include "nn/nn.h"
#include "tensor/float16.h"
#include <limits.h>
#include <string.h>

typedef struct dims {
    int64_t rows, in, out;
} dims;

static int check(const char *fn, const atomo_tensor *x, const atomo_tensor *w, int precision, dims *d)
{
    ATOMO_TRY(atomo__expect_precision(fn, precision));
    ATOMO_TRY(atomo__expect(x, ATOMO_F32, -1, "linear: input"));
    ATOMO_TRY(atomo__expect(w, ATOMO_F32, 2, "linear: weight"));
    ATOMO_REQUIRE(x->ndim >= 1, ATOMO_ESHAPE, "%s: input is a scalar, expected [..., %.0f]", fn, w->shape[1]);
    ATOMO_REQUIRE(w->numel > 0, ATOMO_ESHAPE, "%s: weight is %s, it has no elements", fn, atomo__shape_text(w));
    d->out = atomo__size(w, 0), d->in = atomo__size(w, 1);
    ATOMO_REQUIRE(atomo__size(x, -1) == d->in, ATOMO_ESHAPE,
                  "%s: weight is %s, input is %s: its last size is %d, expected %d", fn, atomo__shape_text(w),
                  atomo__shape_text(x), (int)atomo__size(x, -1), (int)d->in);
    d->rows = atomo__numel(x) / d->in;
    ATOMO_REQUIRE(d->rows <= INT_MAX && d->in <= INT_MAX && d->out <= INT_MAX, ATOMO_ELIMIT, "%s: %s x %s is too large",
                  fn, atomo__shape_text(x), atomo__shape_text(w));
    return ATOMO_OK;
}

static void y_shape(const atomo_tensor *x, const dims *d, double *shape)
{
    for (int i = 0; i < x->ndim; i++) shape[i] = x->shape[i];
    shape[x->ndim - 1] = (double)d->out;
}

/* y [rows, out] = x w^T + b */
static int forward(const dims *d, int precision, const float *x, const float *w, const float *b, float *y)
{
    atomo__factor fx = {0}, fw = {0};
    int rc = atomo__factor_make(precision, d->rows, d->in, x, d->in, &fx);
    if (rc == 0) rc = atomo__factor_make(precision, d->out, d->in, w, d->in, &fw);
    if (rc == 0) rc = atomo__affine(d->rows, d->out, d->in, &fx, &fw, b, y);
    atomo__factor_free(&fx);
    atomo__factor_free(&fw);
    return rc;
}

int atomo_linear(const atomo_tensor *x, const atomo_tensor *w, const atomo_tensor *b, int precision, atomo_tensor **out)
{
    ATOMO_MAKING(made, x, w, b);
    dims d;
    double shape[ATOMO_MAX_DIM];
    ATOMO_TRY(check("linear", x, w, precision, &d));
    if (b) ATOMO_TRY(atomo__expect(b, ATOMO_F32, 1, "linear: bias"));
    ATOMO_REQUIRE(!b || atomo__numel(b) == d.out, ATOMO_ESHAPE, "linear: bias is %s, weight is %s: expected [%d]",
                  atomo__shape_text(b), atomo__shape_text(w), (int)d.out);
    y_shape(x, &d, shape);
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, x->ndim, shape, "linear"));
    if (d.rows == 0) return atomo__made(&made, ATOMO_OK);
    return atomo__made(
        &made, forward(&d, precision, atomo__f32(x), atomo__f32(w), b ? atomo__f32(b) : NULL, atomo__f32(*out)));
}

/* gx = gy w, gw = gy^T x; either may be NULL. x is packed (tensor/float16.h), or f32. */
static int backward(const dims *d, int precision, const atomo_tensor *x, const float *w, const float *gy, float *gx,
                    float *gw)
{
    atomo__factor fg = {0}, fx = {0}, fw = {0};
    int rc = atomo__factor_make(precision, d->rows, d->out, gy, d->out, &fg);
    if (rc == 0 && gx) rc = atomo__factor_make(precision, d->out, d->in, w, d->in, &fw);
    if (rc == 0 && gx) rc = atomo__layer_product(false, false, d->rows, d->in, d->out, &fg, &fw, 0, gx, d->in);
    if (rc == 0 && gw)
        rc = x->dtype == ATOMO_U8 ? atomo__factor_packed(d->rows, d->in, x->data, &fx)
                                  : atomo__factor_make(precision, d->rows, d->in, atomo__f32(x), d->in, &fx);
    if (rc == 0 && gw) rc = atomo__layer_product(true, false, d->out, d->in, d->rows, &fg, &fx, 0, gw, d->in);
    atomo__factor_free(&fg);
    atomo__factor_free(&fx);
    atomo__factor_free(&fw);
    return rc;
}

int atomo_linear_backward(const atomo_tensor *x, const atomo_tensor *w, const atomo_tensor *gy, int precision,
                          atomo_tensor **gx, atomo_tensor **gw, atomo_tensor **gb)
{
    ATOMO_MAKING(made, x, w, gy);
    dims d;
    double shape[ATOMO_MAX_DIM];
    atomo_tensor as;
    const atomo_tensor *operand = x;
    x = atomo__bf16_seen(x, &as);
    ATOMO_TRY(check("linear backward", x, w, precision, &d));
    ATOMO_REQUIRE(x == operand || precision == ATOMO_PRECISION_BF16, ATOMO_EARG,
                  "linear backward: the input is packed, but the precision is fp32");
    y_shape(x, &d, shape);
    ATOMO_TRY(atomo__expect_gradient(gy, x->ndim, shape, "linear backward"));
    const float *g = atomo__f32(gy);
    if (gx) ATOMO_TRY(atomo__make(&made, gx, ATOMO_F32, x->ndim, x->shape, "linear backward: gx"));
    if (gw) ATOMO_TRY(atomo__make(&made, gw, ATOMO_F32, 2, w->shape, "linear backward: gw"));
    if (gw && d.rows == 0) memset((*gw)->data, 0, (size_t)(*gw)->numel * sizeof(float));
    if (d.rows > 0 && (gx || gw))
        ATOMO_TRY(backward(&d, precision, operand, atomo__f32(w), g, gx ? atomo__f32(*gx) : NULL,
                           gw ? atomo__f32(*gw) : NULL));
    if (!gb) return atomo__made(&made, ATOMO_OK);
    ATOMO_TRY(atomo__make(&made, gb, ATOMO_F32, 1, w->shape, "linear backward: gb"));
    return atomo__made(&made, atomo__column_sums(g, d.rows, d.out, atomo__f32(*gb)));
}
