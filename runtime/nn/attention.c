/* attention.c - multi-head scaled dot-product attention [Vaswani et al. 2017], in blocks of query rows:
 *   P = softmax(q k^T / sqrt(d) + mask),  y = dropout(P) v.
 * A block holds the scores of ROWS queries, so the T x T matrix is never stored. Of P only the log of each row's sum of
 * exponentials is kept (lse), and the backward computes the block again [Rabe & Staats 2021; Dao et al. 2022]. Each
 * (image, head) pair is computed by one thread, so the bits do not depend on the number of threads. Head h is columns
 * h d .. (h + 1) d - 1 of q, k, v. In this file `unit` is image * heads + head. Path: stage 3. */
#include "nn/nn.h"
#include "tensor/vmath.h"
#include <limits.h>
#include <omp.h>
#include <stdio.h>

enum { ROWS = 64 };

typedef struct dims {
    int64_t b, tq, tk, heads, d;
    int causal;
    float p, scale; /* probability of dropout; 1 / sqrt(d) */
    const atomo_stream *stream;
    const atomo_tensor *mask; /* [B,Tq,Tk], or NULL */
    int precision;
    double products; /* number of multiplications in q k^T, over all heads and images */
} dims;

typedef struct matrix { /* the columns of one head and image in a tensor [B,T,C]: T rows, ld floats apart */
    float *data;
    int64_t ld;
} matrix;

static matrix head(const atomo_tensor *t, int64_t b, int64_t h, int64_t d)
{
    return (matrix){atomo__f32(t) + b * (int64_t)t->stride[0] + h * d, (int64_t)t->stride[1]};
}

static float *row(matrix m, int64_t i)
{
    return m.data + i * m.ld;
}

static int64_t keys_of(const dims *s, int64_t i) /* number of keys that query i attends to */
{
    return s->causal ? ATOMO_MIN(i + 1, s->tk) : s->tk;
}

/* x[0..n) -> softmax, x[n..all) -> 0; returns the log of the sum of exponentials. */
ATOMO_CLONES static float softmax_row(float *x, int64_t n, int64_t all)
{
    float top = x[0];
    for (int64_t i = 1; i < n; i++) top = x[i] > top ? x[i] : top;
    for (int64_t i = 0; i < n; i++) x[i] = atomo__exp_within(x[i] - top);
    const double sum = atomo__lane_sum(x, n);
    const float inverse = (float)(1 / sum);
    for (int64_t i = 0; i < n; i++) x[i] *= inverse;
    for (int64_t i = n; i < all; i++) x[i] = 0;
    return (float)((double)top + log(sum));
}

/* x[0..n) = exp(x - lse), x[n..all) = 0 */
ATOMO_CLONES static void probabilities(float *x, float lse, int64_t n, int64_t all)
{
    for (int64_t i = 0; i < n; i++) x[i] = atomo__exp_within(x[i] - lse);
    for (int64_t i = n; i < all; i++) x[i] = 0;
}

ATOMO_CLONES static void drop(int64_t n, float p, const float *restrict u, float *restrict x)
{
    const float scale = 1 / (1 - p);
    for (int64_t i = 0; i < n; i++) x[i] = u[i] >= p ? x[i] * scale : 0;
}

/* x += mask. Returns whether any key is left unmasked. */
ATOMO_CLONES static bool add_mask(int64_t n, const float *restrict mask, float *restrict x)
{
    int seen = 0;
    for (int64_t i = 0; i < n; i++) {
        x[i] += mask[i];
        seen |= mask[i] != -INFINITY;
    }
    return seen;
}

/* Sets the probability of masked keys to exactly 0, because atomo__exp_within(-INFINITY) is not 0. */
ATOMO_CLONES static void hide(int64_t n, const float *restrict mask, float *restrict x)
{
    for (int64_t i = 0; i < n; i++) x[i] = mask[i] == -INFINITY ? 0 : x[i];
}

static const float *mask_row(const dims *s, int64_t unit, int64_t i)
{
    const atomo_tensor *m = s->mask;
    return m ? atomo__f32(m) + unit / s->heads * (int64_t)m->stride[0] + i * (int64_t)m->stride[1] : NULL;
}

static void zero(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] = 0;
}

/* Turns the scores p [keys] of query i into probabilities and sets *lse; all are 0 for a query whose keys are all
 * masked.
 */
static void row_forward(const dims *s, int64_t unit, int64_t i, int64_t keys, float *p, float *lse)
{
    const int64_t own = keys_of(s, i);
    const float *mask = mask_row(s, unit, i);
    if (mask && !add_mask(own, mask, p)) {
        zero(p, keys);
        *lse = 0;
        return;
    }
    *lse = softmax_row(p, own, keys);
    if (mask) hide(own, mask, p);
}

/* The same in the backward, from the lse of the forward. */
static void row_again(const dims *s, int64_t unit, int64_t i, int64_t keys, float *p, float lse)
{
    const int64_t own = keys_of(s, i);
    const float *mask = mask_row(s, unit, i);
    if (mask) add_mask(own, mask, p);
    probabilities(p, lse, own, keys);
    if (mask) hide(own, mask, p);
}

/* Applies dropout to x [n], the probabilities of query i. The random number of a probability is keyed by (unit, query,
 * key), so that forward and backward drop the same ones. u: scratch [n]. */
static void drop_row(const dims *s, int64_t unit, int64_t i, int64_t n, float *u, float *x)
{
    if (s->p == 0) return;
    atomo_random_uniform(s->stream, (double)((unit * s->tq + i) * s->tk), (double)n, u);
    drop(n, s->p, u, x);
}

/* g = p (g - delta): turns the gradient of the probabilities into that of the scores; delta = sum over keys of p g. */
ATOMO_CLONES static void through_softmax(int64_t n, const float *restrict p, float delta, float *restrict g)
{
    for (int64_t i = 0; i < n; i++) g[i] = p[i] * (g[i] - delta);
}

ATOMO_CLONES static void scale_row(int64_t n, float factor, float *x)
{
    for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

/* ---- one head ------------------------------------------------------------------------------------------------ */

/* The operands of one head and image. The forward has no gy. */
typedef struct head_factors {
    atomo__factor q, k, v, gy;
} head_factors;

static int factor_of(const dims *s, matrix m, int64_t rows, atomo__factor *f)
{
    return atomo__factor_make(s->precision, rows, s->d, m.data, m.ld, f);
}

static void free_factors(head_factors *f)
{
    atomo__factor_free(&f->q);
    atomo__factor_free(&f->k);
    atomo__factor_free(&f->v);
    atomo__factor_free(&f->gy);
}

/* out [n, keys], with rows tk apart, = alpha a b^T, where a are the n rows from number i0 on. */
static int scores(const dims *s, float alpha, const atomo__factor *a, int64_t i0, int64_t n, const atomo__factor *b,
                  int64_t keys, float *out)
{
    const atomo__factor rows = atomo__factor_from(a, i0);
    return atomo__product(false, true, n, keys, s->d, alpha, &rows, b, 0, out, s->tk);
}

/* Forward of the n queries from number i0 on. */
static int block_forward(const dims *s, int64_t unit, int64_t i0, int64_t n, const head_factors *f, matrix y,
                         float *lse, float *work)
{
    float *p = work, *u = work + ROWS * s->tk;
    const int64_t keys = keys_of(s, i0 + n - 1);
    ATOMO_TRY(scores(s, s->scale, &f->q, i0, n, &f->k, keys, p));
    for (int64_t i = 0; i < n; i++) {
        row_forward(s, unit, i0 + i, keys, p + i * s->tk, &lse[i0 + i]);
        drop_row(s, unit, i0 + i, keys_of(s, i0 + i), u, p + i * s->tk);
    }
    atomo__factor fp;
    int rc = atomo__factor_make(s->precision, n, keys, p, s->tk, &fp);
    if (rc == 0) rc = atomo__product(false, false, n, s->d, keys, 1, &fp, &f->v, 0, row(y, i0), y.ld);
    atomo__factor_free(&fp);
    return rc;
}

static int head_forward(const dims *s, int64_t unit, matrix q, matrix k, matrix v, matrix y, float *lse, float *work)
{
    head_factors f = {0};
    int rc = factor_of(s, q, s->tq, &f.q);
    if (rc == 0) rc = factor_of(s, k, s->tk, &f.k);
    if (rc == 0) rc = factor_of(s, v, s->tk, &f.v);
    for (int64_t i0 = 0; rc == 0 && i0 < s->tq; i0 += ROWS)
        rc = block_forward(s, unit, i0, ATOMO_MIN(ROWS, s->tq - i0), &f, y, lse, work);
    free_factors(&f);
    return rc;
}

static void zero_rows(matrix m, int64_t rows, int64_t d)
{
    for (int64_t i = 0; i < rows; i++) zero(row(m, i), d);
}

typedef struct operands {
    matrix q, k, v, y, gy, gq, gk, gv;
} operands;

/* out [keys, d] += alpha x^T b, where x [n, keys] are of n queries, and b are the n rows from number i0 on. */
static int add_keys(const dims *s, float alpha, const atomo__factor *x, int64_t keys, int64_t n, const atomo__factor *b,
                    int64_t i0, matrix out)
{
    const atomo__factor rows = atomo__factor_from(b, i0);
    return atomo__product(true, false, keys, s->d, n, alpha, x, &rows, 1, out.data, out.ld);
}

/* gv += P^T gy, with the probabilities p of the n queries from number i0 on, after dropout. */
static int value_gradient(const dims *s, int64_t i0, int64_t n, int64_t keys, const head_factors *f, const float *p,
                          matrix gv)
{
    atomo__factor fp;
    int rc = atomo__factor_make(s->precision, n, keys, p, s->tk, &fp);
    if (rc == 0) rc = add_keys(s, 1, &fp, keys, n, &f->gy, i0, gv);
    atomo__factor_free(&fp);
    return rc;
}

/* gq = g k / sqrt(d) and gk += g^T q / sqrt(d), with the gradients g of the scores of the n queries from number i0 on.
 * If g is rounded, it is multiplied by 1 / sqrt(d) first. */
static int score_gradients(const dims *s, int64_t i0, int64_t n, int64_t keys, const head_factors *f, float *g,
                           const operands *o)
{
    const bool rounded = s->precision != ATOMO_PRECISION_FP32;
    for (int64_t i = 0; rounded && i < n; i++) scale_row(keys, s->scale, g + i * s->tk);
    const float scale = rounded ? 1 : s->scale;
    atomo__factor fg;
    int rc = atomo__factor_make(s->precision, n, keys, g, s->tk, &fg);
    if (rc == 0) rc = atomo__product(false, false, n, s->d, keys, scale, &fg, &f->k, 0, row(o->gq, i0), o->gq.ld);
    if (rc == 0) rc = add_keys(s, scale, &fg, keys, n, &f->q, i0, o->gk);
    atomo__factor_free(&fg);
    return rc;
}

/* Backward of the n queries from number i0 on. */
static int block_backward(const dims *s, int64_t unit, int64_t i0, int64_t n, const head_factors *f, const operands *o,
                          const float *lse, float *work)
{
    const int64_t ld = s->tk, keys = keys_of(s, i0 + n - 1);
    float *p = work, *g = work + ROWS * s->tk, *u = g + ROWS * s->tk;
    ATOMO_TRY(scores(s, s->scale, &f->q, i0, n, &f->k, keys, p));
    ATOMO_TRY(scores(s, 1, &f->gy, i0, n, &f->v, keys, g));
    for (int64_t i = 0; i < n; i++) row_again(s, unit, i0 + i, keys, p + i * ld, lse[i0 + i]);
    if (s->p > 0) { /* gv needs the probabilities after dropout */
        for (int64_t i = 0; i < n; i++) drop_row(s, unit, i0 + i, keys_of(s, i0 + i), u, p + i * ld);
    }
    ATOMO_TRY(value_gradient(s, i0, n, keys, f, p, o->gv));
    if (s->p > 0) { /* compute p again, now without dropout */
        ATOMO_TRY(scores(s, s->scale, &f->q, i0, n, &f->k, keys, p));
        for (int64_t i = 0; i < n; i++) row_again(s, unit, i0 + i, keys, p + i * ld, lse[i0 + i]);
    }
    for (int64_t i = 0; i < n; i++) {
        const float delta = (float)atomo__lane_dot(row(o->gy, i0 + i), row(o->y, i0 + i), s->d);
        drop_row(s, unit, i0 + i, keys_of(s, i0 + i), u, g + i * ld);
        through_softmax(keys, p + i * ld, delta, g + i * ld);
    }
    return score_gradients(s, i0, n, keys, f, g, o);
}

static int head_backward(const dims *s, int64_t unit, const operands *o, const float *lse, float *work)
{
    head_factors f = {0};
    zero_rows(o->gk, s->tk, s->d);
    zero_rows(o->gv, s->tk, s->d);
    int rc = factor_of(s, o->q, s->tq, &f.q);
    if (rc == 0) rc = factor_of(s, o->k, s->tk, &f.k);
    if (rc == 0) rc = factor_of(s, o->v, s->tk, &f.v);
    if (rc == 0) rc = factor_of(s, o->gy, s->tq, &f.gy);
    for (int64_t i0 = 0; rc == 0 && i0 < s->tq; i0 += ROWS)
        rc = block_backward(s, unit, i0, ATOMO_MIN(ROWS, s->tq - i0), &f, o, lse, work);
    free_factors(&f);
    return rc;
}

/* ---- checks -------------------------------------------------------------------------------------------------- */

/* Checks that t is f32 with three dimensions, and that the last one has stride 1. */
static int expect_dense(const char *name, const atomo_tensor *t)
{
    ATOMO_REQUIRE(t, ATOMO_EARG, "attention: %s is missing", name);
    ATOMO_REQUIRE(t->dtype == ATOMO_F32, ATOMO_EDTYPE, "attention: %s is %s, expected f32", name,
                  atomo__dtype_name(t->dtype));
    ATOMO_REQUIRE(t->ndim == 3 && (t->stride[2] == 1 || t->shape[2] == 1 || t->numel == 0), ATOMO_ESHAPE,
                  "attention: %s is %s, expected 3 dimensions with dense rows", name, atomo__shape_text(t));
    return ATOMO_OK;
}

/* Checks that t is f32 [B,T,C]: a contiguous tensor, or adjacent columns of one. */
static int expect_rows(const char *name, const atomo_tensor *t)
{
    ATOMO_TRY(expect_dense(name, t));
    ATOMO_REQUIRE(t->shape[1] <= INT_MAX && (t->stride[1] >= t->shape[2] || t->numel == 0) && t->stride[1] <= INT_MAX,
                  ATOMO_ELIMIT, "attention: %s %s has overlapping rows, or is too large for BLAS", name,
                  atomo__shape_text(t));
    return ATOMO_OK;
}

static int expect_mask(const atomo_tensor *m, const atomo_tensor *q, const atomo_tensor *k)
{
    if (!m) return ATOMO_OK;
    ATOMO_TRY(expect_dense("mask", m));
    const double shape[3] = {q->shape[0], q->shape[1], k->shape[1]};
    bool same = true;
    for (int i = 0; i < 3; i++) same = same && m->shape[i] == shape[i];
    ATOMO_REQUIRE(same, ATOMO_ESHAPE, "attention: mask is %s, expected %s for query %s and key %s",
                  atomo__shape_text(m), atomo__dims_text(3, shape), atomo__shape_text(q), atomo__shape_text(k));
    return ATOMO_OK;
}

static int check(const atomo_tensor *q, const atomo_tensor *k, const atomo_tensor *v, const atomo_tensor *mask,
                 int heads, int causal, double p, const atomo_stream *stream, int precision, dims *s)
{
    ATOMO_TRY(atomo__expect_precision("attention", precision));
    ATOMO_TRY(expect_rows("query", q));
    ATOMO_TRY(expect_rows("key", k));
    ATOMO_TRY(expect_rows("value", v));
    ATOMO_REQUIRE(atomo__same_shape(k, v) && q->shape[0] == k->shape[0] && q->shape[2] == k->shape[2], ATOMO_ESHAPE,
                  "attention: query is %s, key %s, value %s: expected [N,T,C], [N,S,C], [N,S,C]", atomo__shape_text(q),
                  atomo__shape_text(k), atomo__shape_text(v));
    ATOMO_REQUIRE(heads >= 1 && q->shape[2] > 0 && atomo__size(q, 2) % heads == 0, ATOMO_ESHAPE,
                  "attention: %d heads do not divide the channels of query %s", heads, atomo__shape_text(q));
    ATOMO_REQUIRE(k->shape[1] > 0, ATOMO_ESHAPE, "attention: key is %s, it has no positions", atomo__shape_text(k));
    ATOMO_REQUIRE(p >= 0 && p < 1 && (p == 0 || stream), ATOMO_EARG, "attention: dropout is %g, expected 0 <= p < 1",
                  p);
    ATOMO_TRY(expect_mask(mask, q, k));
    const int64_t d = atomo__size(q, 2) / heads;
    *s = (dims){atomo__size(q, 0),
                atomo__size(q, 1),
                atomo__size(k, 1),
                heads,
                d,
                causal,
                (float)p,
                (float)(1 / sqrt((double)d)),
                stream,
                mask,
                precision,
                0};
    s->products = (double)(s->b * heads * s->tq) * (double)(s->tk * d);
    ATOMO_REQUIRE(p == 0 || (double)s->b * heads * (double)s->tq * (double)s->tk < 0x1p34, ATOMO_ELIMIT,
                  "attention: query %s and key %s have more scores than a random stream has numbers",
                  atomo__shape_text(q), atomo__shape_text(k));
    return ATOMO_OK;
}

/* *work = scratch memory of *each floats for every thread: `blocks` blocks of scores [ROWS, tk] and a row [tk]. The
 * caller frees it. */
static int new_work(const dims *s, int blocks, int64_t *each, float **work)
{
    void *space;
    size_t bytes;
    *each = (blocks * ROWS + 1) * s->tk;
    ATOMO_TRY(atomo__size_mul((size_t)*each, (size_t)omp_get_max_threads(), sizeof(float), &bytes));
    ATOMO_TRY(atomo__alloc(&space, bytes));
    *work = space;
    return ATOMO_OK;
}

/* Returns rc. The text of another thread's failure is not this thread's, so it gets one of its own. */
static int reported(const char *fn, int rc)
{
    return rc < 0 ? atomo__fail(rc, "%s: a product of a head: %s", fn, atomo_status_text(rc)) : ATOMO_OK;
}

int atomo_attention(const atomo_tensor *q, const atomo_tensor *k, const atomo_tensor *v, const atomo_tensor *mask,
                    int heads, int causal, double p, const atomo_stream *stream, int precision, atomo_tensor **lse,
                    atomo_tensor **out)
{
    ATOMO_MAKING(made, q, k, v, mask);
    dims s;
    int64_t each;
    float *work;
    ATOMO_TRY(check(q, k, v, mask, heads, causal, p, stream, precision, &s));
    const double shape[3] = {q->shape[0], heads, q->shape[1]};
    ATOMO_TRY(atomo__make(&made, lse, ATOMO_F32, 3, shape, "attention: lse"));
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, 3, q->shape, "attention"));
    ATOMO_TRY(new_work(&s, 1, &each, &work));
    int rc = ATOMO_OK;
#pragma omp parallel for schedule(static) reduction(min : rc) if (s.products > ATOMO_PARALLEL_MIN)
    for (int64_t i = 0; i < s.b * s.heads; i++) {
        const int64_t b = i / s.heads, h = i % s.heads;
        const int done =
            head_forward(&s, i, head(q, b, h, s.d), head(k, b, h, s.d), head(v, b, h, s.d), head(*out, b, h, s.d),
                         atomo__f32(*lse) + i * s.tq, work + omp_get_thread_num() * each);
        rc = ATOMO_MIN(rc, done);
    }
    atomo__free(work);
    return atomo__made(&made, reported("attention", rc));
}

int atomo_attention_backward(const atomo_tensor *q, const atomo_tensor *k, const atomo_tensor *v, const atomo_tensor *y,
                             const atomo_tensor *gy, const atomo_tensor *lse, const atomo_tensor *mask, int heads,
                             int causal, double p, const atomo_stream *stream, int precision, atomo_tensor *gq,
                             atomo_tensor *gk, atomo_tensor *gv)
{
    dims s;
    int64_t each;
    float *work;
    ATOMO_TRY(check(q, k, v, mask, heads, causal, p, stream, precision, &s));
    ATOMO_TRY(atomo__expect_gradient(gy, 3, q->shape, "attention backward"));
    ATOMO_TRY(expect_rows("gquery", gq));
    ATOMO_TRY(expect_rows("gkey", gk));
    ATOMO_TRY(expect_rows("gvalue", gv));
    ATOMO_REQUIRE(atomo__same_shape(gq, q) && atomo__same_shape(gk, k) && atomo__same_shape(gv, v), ATOMO_ESHAPE,
                  "attention backward: gradients are %s, %s, %s, expected %s, %s, %s", atomo__shape_text(gq),
                  atomo__shape_text(gk), atomo__shape_text(gv), atomo__shape_text(q), atomo__shape_text(k),
                  atomo__shape_text(v));
    const atomo_tensor *const target[] = {gq, gk, gv}, *const input[] = {q, k, v, y, gy, lse, mask};
    for (int i = 0; i < 3; i++) {
        ATOMO_TRY(atomo__target(target[i], "attention backward"));
        for (int j = 0; j < 7; j++)
            if (input[j]) ATOMO_TRY(atomo__apart(target[i], input[j], "attention backward"));
    }
    ATOMO_TRY(new_work(&s, 2, &each, &work));
    int rc = ATOMO_OK;
#pragma omp parallel for schedule(static) reduction(min : rc) if (s.products > ATOMO_PARALLEL_MIN)
    for (int64_t i = 0; i < s.b * s.heads; i++) {
        const int64_t b = i / s.heads, h = i % s.heads;
        const operands o = {head(q, b, h, s.d),  head(k, b, h, s.d),  head(v, b, h, s.d),  head(y, b, h, s.d),
                            head(gy, b, h, s.d), head(gq, b, h, s.d), head(gk, b, h, s.d), head(gv, b, h, s.d)};
        const int done = head_backward(&s, i, &o, atomo__f32(lse) + i * s.tq, work + omp_get_thread_num() * each);
        rc = ATOMO_MIN(rc, done);
    }
    atomo__free(work);
    return reported("attention backward", rc);
}
