/* softmax.c - softmax, log softmax and the cross entropy of logits, in the numerically safe form (the row's largest is
 * subtracted); sums are double, in order. Path: stage 3. */
#include "nn/nn.h"
#include <math.h>

typedef struct rows { /* x seen as [outer, n, inner]; the softmax runs over n, with stride inner */
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

/* y = softmax(x) or log softmax(x); returns the log of the sum of exponentials. */
static double softmax_row(const float *x, int64_t n, int64_t stride, int log_form, float *y)
{
    float top = x[0];
    for (int64_t i = 1; i < n; i++)
        if (!(x[i * stride] <= top)) top = x[i * stride]; /* a NaN spreads */
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        float e = expf(x[i * stride] - top);
        sum += (double)e;
        y[i * stride] = e;
    }
    const double lse = (double)top + log(sum);
    const float scale = (float)(1 / sum);
    for (int64_t i = 0; i < n; i++)
        y[i * stride] = log_form ? (float)((double)x[i * stride] - lse) : y[i * stride] * scale;
    return lse;
}

int atomo_softmax(const atomo_tensor *x, int dim, int log_form, atomo_tensor **out)
{
    rows r;
    ATOMO_TRY(check(log_form ? "log_softmax" : "softmax", x, dim, &r));
    ATOMO_TRY(atomo__output(out, ATOMO_F32, x->ndim, x->shape, "softmax"));
    if (r.n == 0) return ATOMO_OK;
    const float *xd = atomo__f32(x);
    float *y = atomo__f32(*out);
#pragma omp parallel for collapse(2) if (x->numel > ATOMO_PARALLEL_MIN)
    for (int64_t o = 0; o < r.outer; o++)
        for (int64_t i = 0; i < r.inner; i++) {
            const int64_t at = o * r.n * r.inner + i;
            softmax_row(xd + at, r.n, r.inner, log_form, y + at);
        }
    return ATOMO_OK;
}

int atomo_softmax_backward(const atomo_tensor *y, const atomo_tensor *gy, int dim, int log_form, atomo_tensor **gx)
{
    rows r;
    ATOMO_TRY(check("softmax backward", y, dim, &r));
    ATOMO_TRY(atomo__expect_gradient(gy, y->ndim, y->shape, "softmax backward"));
    ATOMO_TRY(atomo__output(gx, ATOMO_F32, y->ndim, y->shape, "softmax backward: gx"));
    const float *yd = atomo__f32(y), *gd = atomo__f32(gy);
    float *out = atomo__f32(*gx);
#pragma omp parallel for collapse(2) if (y->numel > ATOMO_PARALLEL_MIN)
    for (int64_t o = 0; o < r.outer; o++)
        for (int64_t i = 0; i < r.inner; i++) {
            const int64_t at = o * r.n * r.inner + i, end = at + r.n * r.inner;
            double sum = 0; /* softmax: sum gy y; log softmax: sum gy */
            for (int64_t k = at; k < end; k += r.inner) sum += (double)gd[k] * (log_form ? 1 : (double)yd[k]);
            const float s = (float)sum;
            for (int64_t k = at; k < end; k += r.inner)
                out[k] = log_form ? gd[k] - expf(yd[k]) * s : yd[k] * (gd[k] - s);
        }
    return ATOMO_OK;
}

static int check_labels(const char *fn, const atomo_tensor *logits, const atomo_tensor *labels)
{
    ATOMO_REQUIRE(logits && logits->dtype == ATOMO_F32 && logits->ndim == 2 && atomo_tensor_is_contiguous(logits),
                  ATOMO_ESHAPE, "%s: logits is %s %s, expected contiguous f32 [N, classes]", fn,
                  logits ? atomo__dtype_name(logits->dtype) : "missing", logits ? atomo__shape_text(logits) : "");
    ATOMO_REQUIRE(labels && labels->dtype == ATOMO_I32, ATOMO_EDTYPE, "%s: labels is %s, expected i32", fn,
                  labels ? atomo__dtype_name(labels->dtype) : "missing");
    ATOMO_REQUIRE(labels->ndim == 1 && labels->shape[0] == logits->shape[0] && atomo_tensor_is_contiguous(labels),
                  ATOMO_ESHAPE, "%s: labels is %s, logits is %s: expected [%.0f]", fn, atomo__shape_text(labels),
                  atomo__shape_text(logits), logits->shape[0]);
    const int32_t *label = atomo__i32(labels);
    for (int64_t i = 0; i < atomo__numel(labels); i++)
        ATOMO_REQUIRE(label[i] >= 0 && (double)label[i] < logits->shape[1], ATOMO_EARG,
                      "%s: label %d at position %lld, expected 0 to %.0f", fn, label[i], (long long)i + 1,
                      logits->shape[1] - 1);
    return ATOMO_OK;
}

int atomo_cross_entropy(const atomo_tensor *logits, const atomo_tensor *labels, atomo_tensor **loss,
                        atomo_tensor **grad)
{
    ATOMO_TRY(check_labels("cross_entropy", logits, labels));
    const int64_t n = atomo__size(logits, 0), c = atomo__size(logits, 1);
    ATOMO_REQUIRE(n > 0, ATOMO_ESHAPE, "cross_entropy: logits is %s, an empty batch has no loss",
                  atomo__shape_text(logits));
    atomo_tensor *own = NULL, **to = grad ? grad : &own;
    ATOMO_TRY(atomo__output(loss, ATOMO_F32, 0, NULL, "cross_entropy"));
    ATOMO_TRY(atomo__output(to, ATOMO_F32, 2, logits->shape, "cross_entropy: grad"));
    const float *x = atomo__f32(logits), scale = 1 / (float)n;
    const int32_t *label = atomo__i32(labels);
    float *g = atomo__f32(*to);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        float *row = g + i * c;
        sum += softmax_row(x + i * c, c, 1, 0, row) - (double)x[i * c + label[i]];
        row[label[i]] -= 1;
        for (int64_t k = 0; k < c; k++) row[k] *= scale;
    }
    *atomo__f32(*loss) = (float)(sum / (double)n);
    atomo_tensor_free(own);
    return ATOMO_OK;
}

int atomo_count_correct(const atomo_tensor *logits, const atomo_tensor *labels, double *count)
{
    ATOMO_TRY(check_labels("accuracy", logits, labels));
    const int64_t n = atomo__size(logits, 0), c = atomo__size(logits, 1);
    const float *x = atomo__f32(logits);
    int64_t right = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t best = 0;
        for (int64_t k = 1; k < c; k++)
            if (x[i * c + k] > x[i * c + best]) best = k;
        right += best == atomo__i32(labels)[i];
    }
    *count = (double)right;
    return ATOMO_OK;
}
