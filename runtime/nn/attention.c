/* attention.c - multi-head scaled dot-product attention [Vaswani et al. 2017]: checks, and the loop over images and
 * heads. Each (image, head) pair is computed by one thread (attention_head.c), so the bits do not depend on the number
 * of threads. Path: stage 3. */
#include "nn/attention.h"
#include <limits.h>
#include <math.h>
#include <omp.h>

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
                 int heads, int causal, double p, const atomo_stream *stream, int precision, attention_dims *s)
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
    *s = (attention_dims){
        .b = atomo__size(q, 0),
        .tq = atomo__size(q, 1),
        .tk = atomo__size(k, 1),
        .heads = heads,
        .d = d,
        .causal = causal,
        .p = (float)p,
        .scale = (float)(1 / sqrt((double)d)),
        .stream = stream,
        .mask = mask,
        .precision = precision,
    };
    s->products = (double)(s->b * heads * s->tq) * (double)(s->tk * d);
    ATOMO_REQUIRE(p == 0 || (double)s->b * heads * (double)s->tq * (double)s->tk < 0x1p34, ATOMO_ELIMIT,
                  "attention: query %s and key %s have more scores than a random stream has numbers",
                  atomo__shape_text(q), atomo__shape_text(k));
    return ATOMO_OK;
}

/* *work = scratch memory of `each` floats for every thread. The caller frees it. */
static int new_work(int64_t each, float **work)
{
    void *space;
    size_t bytes;
    ATOMO_TRY(atomo__size_mul((size_t)each, (size_t)omp_get_max_threads(), sizeof(float), &bytes));
    ATOMO_TRY(atomo__alloc(&space, bytes));
    *work = space;
    return ATOMO_OK;
}

static head_matrix head(const atomo_tensor *t, int64_t b, int64_t h, int64_t d)
{
    return (head_matrix){atomo__f32(t) + b * (int64_t)t->stride[0] + h * d, (int64_t)t->stride[1]};
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
    attention_dims s;
    float *work;
    ATOMO_TRY(check(q, k, v, mask, heads, causal, p, stream, precision, &s));
    const double shape[3] = {q->shape[0], heads, q->shape[1]};
    ATOMO_TRY(atomo__make(&made, lse, ATOMO_F32, 3, shape, "attention: lse"));
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, 3, q->shape, "attention"));
    const int64_t each = atomo__head_forward_scratch(&s);
    ATOMO_TRY(new_work(each, &work));
    int rc = ATOMO_OK;
#pragma omp parallel for schedule(static) reduction(min : rc) if (s.products > ATOMO_PARALLEL_MIN)
    for (int64_t i = 0; i < s.b * s.heads; i++) {
        const int64_t b = i / s.heads, h = i % s.heads;
        const head_matrices m = {
            .q = head(q, b, h, s.d), .k = head(k, b, h, s.d), .v = head(v, b, h, s.d), .y = head(*out, b, h, s.d)};
        const int done =
            atomo__head_forward(&s, i, &m, atomo__f32(*lse) + i * s.tq, work + omp_get_thread_num() * each);
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
    attention_dims s;
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
    const int64_t each = atomo__head_backward_scratch(&s);
    ATOMO_TRY(new_work(each, &work));
    int rc = ATOMO_OK;
#pragma omp parallel for schedule(static) reduction(min : rc) if (s.products > ATOMO_PARALLEL_MIN)
    for (int64_t i = 0; i < s.b * s.heads; i++) {
        const int64_t b = i / s.heads, h = i % s.heads;
        const head_matrices m = {head(q, b, h, s.d),  head(k, b, h, s.d),  head(v, b, h, s.d),  head(y, b, h, s.d),
                                 head(gy, b, h, s.d), head(gq, b, h, s.d), head(gk, b, h, s.d), head(gv, b, h, s.d)};
        const int done =
            atomo__head_backward(&s, i, &m, atomo__f32(lse) + i * s.tq, work + omp_get_thread_num() * each);
        rc = ATOMO_MIN(rc, done);
    }
    atomo__free(work);
    return reported("attention backward", rc);
}
