/* attention_head.c - attention of one head of one image, forward and backward, in blocks of ROWS queries:
 *   P = softmax(q k^T / sqrt(d) + mask),  y = dropout(P) v.
 * A block holds the scores of its queries, so the T x T matrix is never stored. Of P only the log of each row's sum of
 * exponentials is kept (lse), and the backward computes the block again [Rabe & Staats 2021; Dao et al. 2022].
 * Path: stage 3. */
#include "nn/attention.h"
#include "tensor/vmath.h"
#include <math.h>

enum { ROWS = 64 };

/* ---- rows of scores ---------------------------------------------------------------------------------------------- */

static float *row(head_matrix m, int64_t i)
{
    return m.data + i * m.ld;
}

static int64_t keys_of(const attention_dims *s, int64_t i) /* number of keys that query i attends to */
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

static const float *mask_row(const attention_dims *s, int64_t unit, int64_t i)
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
static void row_forward(const attention_dims *s, int64_t unit, int64_t i, int64_t keys, float *p, float *lse)
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
static void row_again(const attention_dims *s, int64_t unit, int64_t i, int64_t keys, float *p, float lse)
{
    const int64_t own = keys_of(s, i);
    const float *mask = mask_row(s, unit, i);
    if (mask) add_mask(own, mask, p);
    probabilities(p, lse, own, keys);
    if (mask) hide(own, mask, p);
}

/* Applies dropout to x [n], the probabilities of query i. The random number of a probability is keyed by (unit, query,
 * key), so that forward and backward drop the same ones. u: scratch [n]. */
static void drop_row(const attention_dims *s, int64_t unit, int64_t i, int64_t n, float *u, float *x)
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

/* ---- products of a block ----------------------------------------------------------------------------------------- */

/* The operands of one head and image. The forward has no gy. */
typedef struct head_factors {
    atomo__factor q, k, v, gy;
} head_factors;

static int factor_of(const attention_dims *s, head_matrix m, int64_t rows, atomo__factor *f)
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
static int scores(const attention_dims *s, float alpha, const atomo__factor *a, int64_t i0, int64_t n,
                  const atomo__factor *b, int64_t keys, float *out)
{
    const atomo__factor rows = atomo__factor_from(a, i0);
    return atomo__product(false, true, n, keys, s->d, alpha, &rows, b, 0, out, s->tk);
}

/* `blocks` blocks of scores [ROWS, tk], and a row [tk] */
static int64_t scratch(const attention_dims *s, int blocks)
{
    return (blocks * ROWS + 1) * s->tk;
}

/* ---- forward ----------------------------------------------------------------------------------------------------- */

/* Forward of the n queries from number i0 on. */
static int block_forward(const attention_dims *s, int64_t unit, int64_t i0, int64_t n, const head_factors *f,
                         head_matrix y, float *lse, float *work)
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

int64_t atomo__head_forward_scratch(const attention_dims *s)
{
    return scratch(s, 1);
}

int atomo__head_forward(const attention_dims *s, int64_t unit, const head_matrices *m, float *lse, float *work)
{
    head_factors f = {0};
    int rc = factor_of(s, m->q, s->tq, &f.q);
    if (rc == 0) rc = factor_of(s, m->k, s->tk, &f.k);
    if (rc == 0) rc = factor_of(s, m->v, s->tk, &f.v);
    for (int64_t i0 = 0; rc == 0 && i0 < s->tq; i0 += ROWS)
        rc = block_forward(s, unit, i0, ATOMO_MIN(ROWS, s->tq - i0), &f, m->y, lse, work);
    free_factors(&f);
    return rc;
}

/* ---- backward ---------------------------------------------------------------------------------------------------- */

static void zero_rows(head_matrix m, int64_t rows, int64_t d)
{
    for (int64_t i = 0; i < rows; i++) zero(row(m, i), d);
}

/* out [keys, d] += alpha x^T b, where x [n, keys] are of n queries, and b are the n rows from number i0 on. */
static int add_keys(const attention_dims *s, float alpha, const atomo__factor *x, int64_t keys, int64_t n,
                    const atomo__factor *b, int64_t i0, head_matrix out)
{
    const atomo__factor rows = atomo__factor_from(b, i0);
    return atomo__product(true, false, keys, s->d, n, alpha, x, &rows, 1, out.data, out.ld);
}

/* gv += P^T gy, with the probabilities p of the n queries from number i0 on, after dropout. */
static int value_gradient(const attention_dims *s, int64_t i0, int64_t n, int64_t keys, const head_factors *f,
                          const float *p, head_matrix gv)
{
    atomo__factor fp;
    int rc = atomo__factor_make(s->precision, n, keys, p, s->tk, &fp);
    if (rc == 0) rc = add_keys(s, 1, &fp, keys, n, &f->gy, i0, gv);
    atomo__factor_free(&fp);
    return rc;
}

/* gq = g k / sqrt(d) and gk += g^T q / sqrt(d), with the gradients g of the scores of the n queries from number i0 on.
 * If g is rounded, it is multiplied by 1 / sqrt(d) first. */
static int score_gradients(const attention_dims *s, int64_t i0, int64_t n, int64_t keys, const head_factors *f,
                           float *g, const head_matrices *m)
{
    const bool rounded = s->precision != ATOMO_PRECISION_FP32;
    for (int64_t i = 0; rounded && i < n; i++) scale_row(keys, s->scale, g + i * s->tk);
    const float scale = rounded ? 1 : s->scale;
    atomo__factor fg;
    int rc = atomo__factor_make(s->precision, n, keys, g, s->tk, &fg);
    if (rc == 0) rc = atomo__product(false, false, n, s->d, keys, scale, &fg, &f->k, 0, row(m->gq, i0), m->gq.ld);
    if (rc == 0) rc = add_keys(s, scale, &fg, keys, n, &f->q, i0, m->gk);
    atomo__factor_free(&fg);
    return rc;
}

/* Backward of the n queries from number i0 on. */
static int block_backward(const attention_dims *s, int64_t unit, int64_t i0, int64_t n, const head_factors *f,
                          const head_matrices *m, const float *lse, float *work)
{
    const int64_t ld = s->tk, keys = keys_of(s, i0 + n - 1);
    float *p = work, *g = work + ROWS * s->tk, *u = g + ROWS * s->tk;
    ATOMO_TRY(scores(s, s->scale, &f->q, i0, n, &f->k, keys, p));
    ATOMO_TRY(scores(s, 1, &f->gy, i0, n, &f->v, keys, g));
    for (int64_t i = 0; i < n; i++) row_again(s, unit, i0 + i, keys, p + i * ld, lse[i0 + i]);
    if (s->p > 0) { /* gv needs the probabilities after dropout */
        for (int64_t i = 0; i < n; i++) drop_row(s, unit, i0 + i, keys_of(s, i0 + i), u, p + i * ld);
    }
    ATOMO_TRY(value_gradient(s, i0, n, keys, f, p, m->gv));
    if (s->p > 0) { /* compute p again, now without dropout */
        ATOMO_TRY(scores(s, s->scale, &f->q, i0, n, &f->k, keys, p));
        for (int64_t i = 0; i < n; i++) row_again(s, unit, i0 + i, keys, p + i * ld, lse[i0 + i]);
    }
    for (int64_t i = 0; i < n; i++) {
        const float delta = (float)atomo__lane_dot(row(m->gy, i0 + i), row(m->y, i0 + i), s->d);
        drop_row(s, unit, i0 + i, keys_of(s, i0 + i), u, g + i * ld);
        through_softmax(keys, p + i * ld, delta, g + i * ld);
    }
    return score_gradients(s, i0, n, keys, f, g, m);
}

int64_t atomo__head_backward_scratch(const attention_dims *s)
{
    return scratch(s, 2);
}

int atomo__head_backward(const attention_dims *s, int64_t unit, const head_matrices *m, const float *lse, float *work)
{
    head_factors f = {0};
    zero_rows(m->gk, s->tk, s->d);
    zero_rows(m->gv, s->tk, s->d);
    int rc = factor_of(s, m->q, s->tq, &f.q);
    if (rc == 0) rc = factor_of(s, m->k, s->tk, &f.k);
    if (rc == 0) rc = factor_of(s, m->v, s->tk, &f.v);
    if (rc == 0) rc = factor_of(s, m->gy, s->tq, &f.gy);
    for (int64_t i0 = 0; rc == 0 && i0 < s->tq; i0 += ROWS)
        rc = block_backward(s, unit, i0, ATOMO_MIN(ROWS, s->tq - i0), &f, m, lse, work);
    free_factors(&f);
    return rc;
}
