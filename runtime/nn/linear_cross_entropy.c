/* linear_cross_entropy.c - the head of a language model: logits = x w^T + b and the cross entropy of their rows, a
 * block of rows at a time, together with the gradients of x, w and b. The logits of the batch are never stored: for a
 * vocabulary of 50257 they are 65 times as large as x [..., 768]. Losses are added in double, in order. Path: stage 3.
 */
#include "nn/cross_entropy.h"
#include "nn/nn.h"
#include "tensor/vmath.h"
#include <limits.h>
#include <string.h>

enum {
    BLOCK_LOGITS = 1 << 23, /* most logits in a block of rows, unless it has only BLOCK_ROWS */
    BLOCK_ROWS = 16,
    SUM_BLOCK = 1 << 12 /* exponentials that are added in f32 before double */
};

typedef struct head {
    int64_t rows, in, classes, counted; /* counted: rows whose label is not ignored */
    const float *x, *b;                 /* [rows, in], [classes] or NULL */
    atomo__factor w;                    /* [classes, in], made once for all blocks */
    int precision;
    const int32_t *label;
    int32_t ignore;
    double smooth, scale; /* scale: factor of the loss and of each gradient */
    bool gradient;        /* a block's logits become their gradients */
    float *logits;        /* [block, classes] */
    double *loss;         /* [rows], not scaled */
    unsigned char *right; /* [rows]: 1 if the label is the logits' argmax */
} head;

/* The loss of one row; with `gradient`, x becomes scale * (softmax(x) - target). */
ATOMO_CLONES static double row_loss(float *x, int64_t c, int32_t y, double smooth, float scale, bool gradient,
                                    unsigned char *right)
{
    float top = x[0];
    for (int64_t k = 1; k < c; k++) top = x[k] > top ? x[k] : top; /* NaN reaches the sum below */
    const double at_label = (double)x[y];
    double others = 0; /* the sum of top - x, for smoothed targets */
    if (smooth > 0)
        for (int64_t k = 0; k < c; k++) others += (double)top - (double)x[k];
    *right = !(x[y] < top) && atomo__is_argmax(x, c, y);
    for (int64_t k = 0; k < c; k++) x[k] = atomo__exp(x[k] - top);
    double sum = 0;
    for (int64_t k = 0; k < c; k += SUM_BLOCK) sum += atomo__lane_sum(x + k, ATOMO_MIN(c - k, SUM_BLOCK));
    const atomo__row_sum s = {(double)top, log(sum), (float)(1 / sum)};
    if (gradient) atomo__cross_entropy_gradient(x, c, y, &s, smooth, scale);
    double loss = atomo__cross_entropy_term(1 - smooth, &s, at_label);
    if (smooth > 0) loss += smooth / (double)c * (others + (double)c * s.rest);
    return loss;
}

static void one_row(const head *h, int64_t first, int64_t i)
{
    float *x = h->logits + i * h->classes;
    const int64_t at = first + i;
    if (h->label[at] == h->ignore) {
        h->loss[at] = 0, h->right[at] = 0;
        if (h->gradient) memset(x, 0, (size_t)h->classes * sizeof(float));
    } else {
        h->loss[at] = row_loss(x, h->classes, h->label[at], h->smooth, (float)h->scale, h->gradient, h->right + at);
    }
}

/* The parts of gx [n, in] and gw that come from a block of n rows x, whose logits are now their gradients; `first` is
 * the block's first row. gx and gw may be NULL. */
static int block_gradients(const head *h, int64_t first, int64_t n, const atomo__factor *x, float *gx, float *gw)
{
    const int64_t c = h->classes, in = h->in;
    atomo__factor g = {0};
    int rc = gx || gw ? atomo__factor_make(h->precision, n, c, h->logits, c, &g) : ATOMO_OK;
    if (rc == 0 && gx) rc = atomo__layer_product(false, false, n, in, c, &g, &h->w, 0, gx + first * in, in);
    if (rc == 0 && gw) rc = atomo__layer_product(true, false, c, in, n, &g, x, first > 0 ? 1 : 0, gw, in);
    atomo__factor_free(&g);
    return rc;
}

/* Losses of the rows first .. first + n - 1 and their part of the gradients (NULL: not wanted). */
static int one_block(const head *h, int64_t first, int64_t n, float *gx, float *gw, float *gb, float *sums)
{
    const int64_t c = h->classes, in = h->in;
    atomo__factor x;
    int rc = atomo__factor_make(h->precision, n, in, h->x + first * in, in, &x);
    if (rc == 0) rc = atomo__affine(n, c, in, &x, &h->w, h->b, h->logits);
    if (rc == 0) {
        ATOMO_FOR(i, n, 1, n * c > ATOMO_PARALLEL_MIN, one_row(h, first, i));
        rc = block_gradients(h, first, n, &x, gx, gw);
    }
    atomo__factor_free(&x);
    if (rc < 0 || !gb) return rc;
    ATOMO_TRY(atomo__column_sums(h->logits, n, c, first > 0 ? sums : gb));
    if (first > 0) atomo__add_to(c, sums, gb);
    return ATOMO_OK;
}

static int check(const atomo_tensor *x, const atomo_tensor *w, const atomo_tensor *b, const atomo_tensor *labels,
                 double smooth, int reduction, head *h)
{
    static const char *const fn = "linear_cross_entropy";
    ATOMO_TRY(atomo__expect(x, ATOMO_F32, -1, "linear_cross_entropy: input"));
    ATOMO_TRY(atomo__expect(w, ATOMO_F32, 2, "linear_cross_entropy: weight"));
    if (b) ATOMO_TRY(atomo__expect(b, ATOMO_F32, 1, "linear_cross_entropy: bias"));
    ATOMO_TRY(atomo__expect(labels, ATOMO_I32, -1, "linear_cross_entropy: labels"));
    h->classes = atomo__size(w, 0), h->in = atomo__size(w, 1);
    ATOMO_REQUIRE(x->ndim >= 2 && atomo__size(x, -1) == h->in, ATOMO_ESHAPE,
                  "%s: input is %s, weight is %s: expected input [..., %lld]", fn, atomo__shape_text(x),
                  atomo__shape_text(w), (long long)h->in);
    ATOMO_REQUIRE(!b || atomo__numel(b) == h->classes, ATOMO_ESHAPE, "%s: bias is %s, weight is %s: expected [%lld]",
                  fn, atomo__shape_text(b), atomo__shape_text(w), (long long)h->classes);
    ATOMO_TRY(atomo__expect_rows(fn, "input", x, labels));
    ATOMO_REQUIRE(x->numel > 0 && w->numel > 0, ATOMO_ESHAPE,
                  "%s: input is %s, weight is %s: an empty batch has no loss", fn, atomo__shape_text(x),
                  atomo__shape_text(w));
    ATOMO_REQUIRE(smooth >= 0 && smooth <= 1, ATOMO_EARG, "%s: label_smoothing is %g, expected 0 to 1", fn, smooth);
    ATOMO_REQUIRE(reduction == ATOMO_REDUCE_MEAN || reduction == ATOMO_REDUCE_SUM, ATOMO_EARG,
                  "%s: reduction %d, expected mean or sum", fn, reduction);
    h->rows = atomo__numel(labels);
    ATOMO_REQUIRE(h->rows <= INT_MAX && h->classes <= INT_MAX && h->in <= INT_MAX, ATOMO_ELIMIT,
                  "%s: %s x %s is too large", fn, atomo__shape_text(x), atomo__shape_text(w));
    h->x = atomo__f32(x), h->b = b ? atomo__f32(b) : NULL;
    h->label = atomo__i32(labels);
    return atomo__count_within(fn, h->label, h->rows, h->classes, h->ignore, &h->counted);
}

/* Runs all blocks; *total = the sum of the losses, *right = the number of rows whose label has the largest logit. */
static int all_blocks(head *h, const float *w, float *gx, float *gw, float *gb, double *total, double *right)
{
    const int64_t most = ATOMO_MAX(BLOCK_LOGITS / h->classes, BLOCK_ROWS), block = ATOMO_MIN(most, h->rows);
    void *logits = NULL, *losses = NULL, *sums = NULL;
    int rc = atomo__alloc(&logits, (size_t)(block * h->classes) * sizeof(float));
    if (rc == ATOMO_OK) rc = atomo__alloc(&losses, (size_t)h->rows * (sizeof(double) + 1));
    if (rc == ATOMO_OK && gb) rc = atomo__alloc(&sums, (size_t)h->classes * sizeof(float));
    if (rc == ATOMO_OK) rc = atomo__factor_make(h->precision, h->classes, h->in, w, h->in, &h->w);
    h->logits = logits, h->loss = losses;
    h->right = losses ? (unsigned char *)(h->loss + h->rows) : NULL;
    for (int64_t i = 0; rc == ATOMO_OK && i < h->rows; i += block)
        rc = one_block(h, i, ATOMO_MIN(block, h->rows - i), gx, gw, gb, sums);
    *total = *right = 0;
    for (int64_t i = 0; rc == ATOMO_OK && i < h->rows; i++) *total += h->loss[i], *right += h->right[i];
    atomo__factor_free(&h->w);
    atomo__free(sums);
    atomo__free(losses);
    atomo__free(logits);
    return rc;
}

int atomo_linear_cross_entropy(const atomo_tensor *x, const atomo_tensor *w, const atomo_tensor *b,
                               const atomo_tensor *labels, double smooth, double ignore, int reduction, int precision,
                               atomo_tensor **loss, atomo_tensor **gx, atomo_tensor **gw, atomo_tensor **gb,
                               double *count)
{
    ATOMO_MAKING(made, x, w, b, labels);
    head h = {.ignore = (int32_t)ignore, .smooth = smooth, .gradient = gx || gw || gb, .precision = precision};
    ATOMO_TRY(atomo__expect_precision("linear_cross_entropy", precision));
    ATOMO_TRY(check(x, w, b, labels, smooth, reduction, &h));
    h.scale = reduction == ATOMO_REDUCE_SUM ? 1 : h.counted > 0 ? 1 / (double)h.counted : 0;
    const double classes = (double)h.classes;
    ATOMO_TRY(atomo__make(&made, loss, ATOMO_F32, 0, NULL, "linear_cross_entropy"));
    if (gx) ATOMO_TRY(atomo__make(&made, gx, ATOMO_F32, x->ndim, x->shape, "linear_cross_entropy: gx"));
    if (gw) ATOMO_TRY(atomo__make(&made, gw, ATOMO_F32, 2, w->shape, "linear_cross_entropy: gw"));
    if (gb) ATOMO_TRY(atomo__make(&made, gb, ATOMO_F32, 1, &classes, "linear_cross_entropy: gb"));
    double total = 0;
    const int rc = all_blocks(&h, atomo__f32(w), gx ? atomo__f32(*gx) : NULL, gw ? atomo__f32(*gw) : NULL,
                              gb ? atomo__f32(*gb) : NULL, &total, count);
    count[1] = (double)h.counted;
    if (rc == ATOMO_OK) *atomo__f32(*loss) = (float)(total * h.scale);
    return atomo__made(&made, rc);
}
