/* loss.c - losses over labels, computed together with their gradients: cross entropy of logits (label smoothing
 * [Szegedy et al. 2016], weighted classes, ignored labels) and negative log likelihood. PyTorch's formulas; sums are
 * double, in order. Path: stage 3. */
#include "nn/cross_entropy.h"
#include "nn/nn.h"
#include <math.h>

typedef struct batch {     /* logits [..., c] as n rows */
    int64_t n, c, counted; /* counted: rows whose label is not ignored */
    const int32_t *label;
    int32_t ignore;
    const float *weight; /* [c], or NULL */
    double total, scale; /* sum of the counted rows' weights; factor of the loss and of each gradient */
    float *each;         /* out [n]: each row's loss (ATOMO_REDUCE_NONE); NULL: losses are summed */
} batch;

int atomo__expect_rows(const char *fn, const char *what, const atomo_tensor *x, const atomo_tensor *labels)
{
    bool fits = labels->ndim == x->ndim - 1 && atomo_tensor_is_contiguous(labels);
    for (int i = 0; fits && i < labels->ndim; i++) fits = labels->shape[i] == x->shape[i];
    ATOMO_REQUIRE(fits, ATOMO_ESHAPE, "%s: labels is %s, %s is %s: expected %s", fn, atomo__shape_text(labels), what,
                  atomo__shape_text(x), atomo__dims_text(x->ndim - 1, x->shape));
    return ATOMO_OK;
}

int atomo__count_within(const char *fn, const int32_t *label, int64_t n, int64_t classes, int32_t ignore,
                        int64_t *counted)
{
    *counted = 0;
    for (int64_t i = 0; i < n; i++) {
        if (label[i] == ignore) continue;
        ATOMO_REQUIRE(label[i] >= 0 && label[i] < classes, ATOMO_EARG,
                      "%s: label %d at position %lld, expected 0 to %lld", fn, label[i], (long long)i + 1,
                      (long long)classes - 1);
        ++*counted;
    }
    return ATOMO_OK;
}

static int check_labels(const char *fn, const atomo_tensor *logits, const atomo_tensor *labels, double ignore, batch *b)
{
    ATOMO_REQUIRE(logits && logits->dtype == ATOMO_F32 && logits->ndim >= 2 && atomo_tensor_is_contiguous(logits),
                  ATOMO_ESHAPE, "%s: logits is %s %s, expected contiguous f32 [..., classes]", fn,
                  logits ? atomo__dtype_name(logits->dtype) : "missing", logits ? atomo__shape_text(logits) : "");
    ATOMO_REQUIRE(labels && labels->dtype == ATOMO_I32, ATOMO_EDTYPE, "%s: labels is %s, expected i32", fn,
                  labels ? atomo__dtype_name(labels->dtype) : "missing");
    ATOMO_TRY(atomo__expect_rows(fn, "logits", logits, labels));
    *b = (batch){.n = atomo__numel(labels),
                 .c = atomo__size(logits, -1),
                 .label = atomo__i32(labels),
                 .ignore = (int32_t)ignore};
    return atomo__count_within(fn, b->label, b->n, b->c, b->ignore, &b->counted);
}

/* Checks the class weights and sets b->total, by which the mean divides: the counted rows, each weighted by its class.
 */
static int check_weight(const char *fn, const atomo_tensor *logits, const atomo_tensor *weight, batch *b)
{
    b->total = (double)b->counted;
    if (!weight) return ATOMO_OK;
    ATOMO_REQUIRE(weight->dtype == ATOMO_F32 && weight->ndim == 1 && atomo__numel(weight) == b->c &&
                      atomo_tensor_is_contiguous(weight),
                  ATOMO_ESHAPE, "%s: weight is %s %s, logits is %s: expected contiguous f32 [%lld]", fn,
                  atomo__dtype_name(weight->dtype), atomo__shape_text(weight), atomo__shape_text(logits),
                  (long long)b->c);
    b->weight = atomo__f32(weight);
    b->total = 0;
    for (int64_t i = 0; i < b->n; i++)
        if (b->label[i] != b->ignore) b->total += (double)b->weight[b->label[i]];
    return ATOMO_OK;
}

int atomo__check_reduction(const char *fn, int reduction)
{
    ATOMO_REQUIRE(reduction >= 0 && reduction < ATOMO_REDUCTION_COUNT, ATOMO_EARG, "%s: reduction %d, expected 0 to %d",
                  fn, reduction, ATOMO_REDUCTION_COUNT - 1);
    return ATOMO_OK;
}

/* Checks the arguments of a loss over labels, makes its outputs and fills *b. */
static int begin(const char *fn, const atomo_tensor *logits, const atomo_tensor *labels, const atomo_tensor *weight,
                 double ignore, int reduction, atomo_making *made, atomo_tensor **loss, atomo_tensor **grad, batch *b)
{
    ATOMO_TRY(atomo__check_reduction(fn, reduction));
    ATOMO_TRY(check_labels(fn, logits, labels, ignore, b));
    ATOMO_REQUIRE(b->n > 0 && b->c > 0, ATOMO_ESHAPE, "%s: logits is %s, an empty batch has no loss", fn,
                  atomo__shape_text(logits));
    ATOMO_TRY(check_weight(fn, logits, weight, b));
    ATOMO_REQUIRE(reduction != ATOMO_REDUCE_MEAN || b->total >= 0, ATOMO_EARG,
                  "%s: the weights of the labels' classes sum to %g, expected a sum >= 0 for a mean", fn, b->total);
    b->scale = reduction != ATOMO_REDUCE_MEAN ? 1 : b->total > 0 ? 1 / b->total : 0; /* 0 if no label counts */
    const bool each = reduction == ATOMO_REDUCE_NONE;
    ATOMO_TRY(atomo__make(made, loss, ATOMO_F32, each ? labels->ndim : 0, labels->shape, fn));
    b->each = each ? atomo__f32(*loss) : NULL;
    return atomo__make(made, grad, ATOMO_F32, logits->ndim, logits->shape, fn);
}

/* Stores row i's loss in b->each, or adds it to *total. */
static void add_loss(const batch *b, int64_t i, double loss, double *total)
{
    if (b->each)
        b->each[i] = (float)loss;
    else
        *total += loss;
}

/* g[k] = exp(x[k] - top), where top is the row's maximum. */
static atomo__row_sum exponentials(const float *x, int64_t c, float *g)
{
    float top = x[0];
    for (int64_t k = 1; k < c; k++)
        if (!(x[k] <= top)) top = x[k]; /* NaN becomes the maximum */
    double sum = 0;
    for (int64_t k = 0; k < c; k++) {
        float e = expf(x[k] - top);
        sum += (double)e;
        g[k] = e;
    }
    return (atomo__row_sum){(double)top, log(sum), (float)(1 / sum)};
}

/* One row: g = scale * (softmax(x) - target), where target is smooth / c, plus 1 - smooth at class y. Returns the loss,
 * not scaled. */
static double cross_entropy_row(const float *x, int64_t c, int32_t y, double smooth, float scale, float *g)
{
    const atomo__row_sum s = exponentials(x, c, g);
    double loss = atomo__cross_entropy_term(1 - smooth, &s, (double)x[y]);
    if (smooth > 0)
        for (int64_t k = 0; k < c; k++) loss += atomo__cross_entropy_term(smooth / (double)c, &s, (double)x[k]);
    atomo__cross_entropy_gradient(g, c, y, &s, smooth, scale);
    return loss;
}

/* The same with weighted classes: the target of class k is w_k (smooth / c, plus 1 - smooth if k = y). */
static double weighted_row(const float *x, int64_t c, int32_t y, const float *w, double smooth, float scale, float *g)
{
    const atomo__row_sum s = exponentials(x, c, g);
    const double each = smooth / (double)c;
    double mass = 0, loss = 0;
    for (int64_t k = 0; k < c; k++) {
        const double t = (double)w[k] * (each + (k == y ? 1 - smooth : 0));
        mass += t;
        loss += atomo__cross_entropy_term(t, &s, (double)x[k]);
    }
    for (int64_t k = 0; k < c; k++) {
        const double t = (double)w[k] * (each + (k == y ? 1 - smooth : 0));
        g[k] = (float)(mass * (double)(g[k] * s.inverse) - t) * scale;
    }
    return loss;
}

int atomo_cross_entropy(const atomo_tensor *logits, const atomo_tensor *labels, const atomo_tensor *weight,
                        double smooth, double ignore, int reduction, atomo_tensor **loss, atomo_tensor **grad)
{
    ATOMO_MAKING(made, logits, labels, weight);
    batch b = {0};
    atomo_tensor *own = NULL, **to = grad ? grad : &own; /* own: holds the gradient if the caller passed NULL */
    ATOMO_REQUIRE(smooth >= 0 && smooth <= 1, ATOMO_EARG, "cross_entropy: label_smoothing is %g, expected 0 to 1",
                  smooth);
    ATOMO_TRY(begin("cross_entropy", logits, labels, weight, ignore, reduction, &made, loss, to, &b));
    const float *x = atomo__f32(logits);
    float *g = atomo__f32(*to);
    double total = 0;
    for (int64_t i = 0; i < b.n; i++) {
        const float *xi = x + i * b.c, scale = (float)b.scale;
        float *row = g + i * b.c;
        double one = 0;
        if (b.label[i] == b.ignore)
            for (int64_t k = 0; k < b.c; k++) row[k] = 0;
        else if (b.weight)
            one = weighted_row(xi, b.c, b.label[i], b.weight, smooth, scale, row);
        else
            one = cross_entropy_row(xi, b.c, b.label[i], smooth, scale, row);
        add_loss(&b, i, one, &total);
    }
    if (!b.each) *atomo__f32(*loss) = (float)(total * b.scale);
    atomo_tensor_free(own);
    return atomo__made(&made, ATOMO_OK);
}

int atomo_nll(const atomo_tensor *logp, const atomo_tensor *labels, const atomo_tensor *weight, double ignore,
              int reduction, atomo_tensor **loss, atomo_tensor **grad)
{
    ATOMO_MAKING(made, logp, labels, weight);
    batch b = {0};
    atomo_tensor *own = NULL, **to = grad ? grad : &own;
    ATOMO_TRY(begin("nll_loss", logp, labels, weight, ignore, reduction, &made, loss, to, &b));
    ATOMO_TRY(atomo_fill(*to, 0));
    const float *x = atomo__f32(logp);
    float *g = atomo__f32(*to);
    double total = 0;
    for (int64_t i = 0; i < b.n; i++) {
        const int32_t y = b.label[i];
        const bool counts = y != b.ignore;
        const double w = !counts ? 0 : b.weight ? (double)b.weight[y] : 1;
        add_loss(&b, i, counts ? -w * (double)x[i * b.c + y] : 0, &total);
        if (counts) g[i * b.c + y] = (float)(-w * b.scale);
    }
    if (!b.each) *atomo__f32(*loss) = (float)(total * b.scale);
    atomo_tensor_free(own);
    return atomo__made(&made, ATOMO_OK);
}

int atomo_count_labels(const atomo_tensor *labels, const atomo_tensor *weight, double ignore, double *count)
{
    const int32_t *label = atomo__i32(labels);
    const float *w = weight ? atomo__f32(weight) : NULL;
    double total = 0;
    for (int64_t i = 0, n = atomo__numel(labels); i < n; i++)
        if (label[i] != (int32_t)ignore) total += w ? (double)w[label[i]] : 1;
    *count = total;
    return ATOMO_OK;
}

int atomo_count_correct(const atomo_tensor *logits, const atomo_tensor *labels, double ignore, double *count)
{
    batch b = {0};
    ATOMO_TRY(check_labels("accuracy", logits, labels, ignore, &b));
    const float *x = atomo__f32(logits);
    int64_t right = 0;
    for (int64_t i = 0; i < b.n; i++) {
        if (b.label[i] == b.ignore) continue;
        right += atomo__is_argmax(x + i * b.c, b.c, b.label[i]);
    }
    count[0] = (double)right;
    count[1] = (double)b.counted;
    return ATOMO_OK;
}
