/* linear.c - the fully connected layer, by sgemm: y = x w^T + b with w [out,in], as in PyTorch. Path: stage 3. */
#include "nn/nn.h"
#include <limits.h>
#include <string.h>

typedef struct dims {
    int64_t rows, in, out;
} dims;

static int check(const char *fn, const atomo_tensor *x, const atomo_tensor *w, dims *d)
{
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

int atomo_linear(const atomo_tensor *x, const atomo_tensor *w, const atomo_tensor *b, atomo_tensor **out)
{
    ATOMO_MAKING(made, x, w, b);
    dims d;
    double shape[ATOMO_MAX_DIM];
    ATOMO_TRY(check("linear", x, w, &d));
    if (b) ATOMO_TRY(atomo__expect(b, ATOMO_F32, 1, "linear: bias"));
    ATOMO_REQUIRE(!b || atomo__numel(b) == d.out, ATOMO_ESHAPE, "linear: bias is %s, weight is %s: expected [%d]",
                  atomo__shape_text(b), atomo__shape_text(w), (int)d.out);
    y_shape(x, &d, shape);
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, x->ndim, shape, "linear"));
    if (d.rows == 0) return atomo__made(&made, ATOMO_OK);
    float *y = atomo__f32(*out);
    if (b)
        for (int64_t r = 0; r < d.rows; r++) memcpy(y + r * d.out, b->data, (size_t)d.out * sizeof(float));
    return atomo__made(&made, atomo__sgemm(false, true, d.rows, d.out, d.in, atomo__f32(x), d.in, atomo__f32(w), d.in,
                                           b ? 1 : 0, y, d.out));
}

int atomo_linear_backward(const atomo_tensor *x, const atomo_tensor *w, const atomo_tensor *gy, atomo_tensor **gx,
                          atomo_tensor **gw, atomo_tensor **gb)
{
    ATOMO_MAKING(made, x, w, gy);
    dims d;
    double shape[ATOMO_MAX_DIM];
    ATOMO_TRY(check("linear backward", x, w, &d));
    y_shape(x, &d, shape);
    ATOMO_TRY(atomo__expect_gradient(gy, x->ndim, shape, "linear backward"));
    const float *g = atomo__f32(gy);
    if (gx) {
        ATOMO_TRY(atomo__make(&made, gx, ATOMO_F32, x->ndim, x->shape, "linear backward: gx"));
        if (d.rows > 0)
            ATOMO_TRY(atomo__sgemm(false, false, d.rows, d.in, d.out, g, d.out, atomo__f32(w), d.in, 0, atomo__f32(*gx),
                                   d.in));
    }
    if (gw) {
        ATOMO_TRY(atomo__make(&made, gw, ATOMO_F32, 2, w->shape, "linear backward: gw"));
        if (d.rows > 0)
            ATOMO_TRY(atomo__sgemm(true, false, d.out, d.in, d.rows, g, d.out, atomo__f32(x), d.in, 0, atomo__f32(*gw),
                                   d.in));
        else
            memset((*gw)->data, 0, (size_t)(*gw)->numel * sizeof(float));
    }
    if (!gb) return atomo__made(&made, ATOMO_OK);
    ATOMO_TRY(atomo__make(&made, gb, ATOMO_F32, 1, w->shape, "linear backward: gb"));
    return atomo__made(&made, atomo__column_sums(g, d.rows, d.out, atomo__f32(*gb)));
}
