/* optim.c - optimizer updates, stage 9: one pass over a parameter, in a fixed order, so replicas stay bit-identical.
 * The formulas are those of PyTorch (torch.optim.SGD, Adam, AdamW). */
#include "optim/optim.h"
#include <math.h>

int atomo__check_blocks(const char *what, const atomo_tensor *p, int count, const atomo_tensor *const *others)
{
    ATOMO_TRY(atomo__expect(p, ATOMO_F32, -1, what));
    for (int i = 0; i < count; i++) {
        if (!others[i]) continue;
        ATOMO_TRY(atomo__expect(others[i], ATOMO_F32, -1, what));
        ATOMO_REQUIRE(others[i]->numel == p->numel, ATOMO_ESHAPE,
                      "%s: gradient or state has %.0f elements, parameter %.0f", what, others[i]->numel, p->numel);
        ATOMO_TRY(atomo__apart(p, others[i], what));
        for (int k = 0; k < i; k++)
            if (others[k]) ATOMO_TRY(atomo__apart(others[i], others[k], what));
    }
    return ATOMO_OK;
}

typedef struct sgd_options {
    float lr, momentum, keep, decay, scale; /* keep = 1 - dampening */
    bool nesterov, first;
} sgd_options;

ATOMO_CLONES static void sgd_plain(float *p, const float *g, int64_t n, const sgd_options *o)
{
    const float lr = o->lr, decay = o->decay, scale = o->scale;
    for (int64_t i = 0; i < n; i++) p[i] -= lr * (scale * (g[i] + decay * p[i]));
}

ATOMO_CLONES static void sgd_momentum(float *p, const float *g, float *v, int64_t n, const sgd_options *o)
{
    const float lr = o->lr, decay = o->decay, scale = o->scale, m = o->first ? 0 : o->momentum;
    const float keep = o->first ? 1 : o->keep, look = o->momentum;
    if (o->nesterov) {
        for (int64_t i = 0; i < n; i++) {
            float d = scale * (g[i] + decay * p[i]);
            v[i] = m * v[i] + keep * d;
            p[i] -= lr * (d + look * v[i]);
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            v[i] = m * v[i] + keep * (scale * (g[i] + decay * p[i]));
            p[i] -= lr * v[i];
        }
    }
}

int atomo_optim_sgd(atomo_tensor *p, const atomo_tensor *g, atomo_tensor *v, double lr, double momentum,
                    double dampening, double weight_decay, double scale, int nesterov, int first)
{
    const atomo_tensor *const others[] = {g, v};
    ATOMO_TRY(atomo__check_blocks("sgd", p, 2, others));
    ATOMO_REQUIRE(momentum == 0 || v, ATOMO_EARG, "sgd: momentum %g, but v is missing", momentum);
    sgd_options o = {(float)lr,     (float)momentum, (float)(1 - dampening), (float)weight_decay, (float)scale,
                     nesterov != 0, first != 0};
    const int64_t n = atomo__numel(p), chunk = 1 << 16;
    if (first && v) ATOMO_TRY(atomo_fill(v, 0)); /* v is not initialised, and 0 * v could be NaN */
    ATOMO_FOR(i, n, chunk, n > chunk, {
        const int64_t m = ATOMO_MIN(chunk, n - i);
        if (momentum != 0)
            sgd_momentum(atomo__f32(p) + i, atomo__f32(g) + i, atomo__f32(v) + i, m, &o);
        else
            sgd_plain(atomo__f32(p) + i, atomo__f32(g) + i, m, &o);
    });
    atomo_tensor_touch(p);
    return ATOMO_OK;
}

typedef struct adam_options {
    float step_size, beta1, beta2, rest1, rest2; /* rest = 1 - beta */
    float eps, decay, shrink, root;              /* shrink: factor of p; root = sqrt(1 - beta2^t) */
} adam_options;

ATOMO_CLONES static void adam(float *p, const float *g, float *m, float *v, int64_t n, const adam_options *o)
{
    const float b1 = o->beta1, b2 = o->beta2, c1 = o->rest1, c2 = o->rest2;
    for (int64_t i = 0; i < n; i++) {
        float w = o->shrink * p[i], d = g[i] + o->decay * p[i];
        m[i] = b1 * m[i] + c1 * d;
        v[i] = b2 * v[i] + c2 * d * d;
        p[i] = w - o->step_size * (m[i] / (sqrtf(v[i]) / o->root + o->eps));
    }
}

/* Adam with top, the largest v so far, in place of v [Reddi, Kale & Kumar 2018]. */
ATOMO_CLONES static void amsgrad(float *p, const float *g, float *m, float *v, float *top, int64_t n,
                                 const adam_options *o)
{
    for (int64_t i = 0; i < n; i++) {
        float w = o->shrink * p[i], d = g[i] + o->decay * p[i];
        m[i] = o->beta1 * m[i] + o->rest1 * d;
        v[i] = o->beta2 * v[i] + o->rest2 * d * d;
        top[i] = v[i] > top[i] ? v[i] : top[i];
        p[i] = w - o->step_size * (m[i] / (sqrtf(top[i]) / o->root + o->eps));
    }
}

int atomo_optim_adam(atomo_tensor *p, const atomo_tensor *g, atomo_tensor *m, atomo_tensor *v, atomo_tensor *top,
                     double lr, double beta1, double beta2, double eps, double weight_decay, int decoupled, double step)
{
    const atomo_tensor *const others[] = {g, m, v, top};
    ATOMO_TRY(atomo__check_blocks("adam", p, 4, others));
    ATOMO_REQUIRE(step >= 1, ATOMO_EARG, "adam: step %g, expected 1 or more", step);
    adam_options o = {.step_size = (float)(lr / (1 - pow(beta1, step))),
                      .beta1 = (float)beta1,
                      .beta2 = (float)beta2,
                      .rest1 = (float)(1 - beta1), /* computed in double: 1 - 0.999f has an error of 1e-5 */
                      .rest2 = (float)(1 - beta2),
                      .eps = (float)eps,
                      .decay = decoupled ? 0 : (float)weight_decay,
                      .shrink = decoupled ? (float)(1 - lr * weight_decay) : 1,
                      .root = (float)sqrt(1 - pow(beta2, step))};
    const int64_t n = atomo__numel(p), chunk = 1 << 16;
    ATOMO_FOR(i, n, chunk, n > chunk, {
        const int64_t k = ATOMO_MIN(chunk, n - i);
        float *pi = atomo__f32(p) + i, *mi = atomo__f32(m) + i, *vi = atomo__f32(v) + i;
        if (top)
            amsgrad(pi, atomo__f32(g) + i, mi, vi, atomo__f32(top) + i, k, &o);
        else
            adam(pi, atomo__f32(g) + i, mi, vi, k, &o);
    });
    atomo_tensor_touch(p);
    return ATOMO_OK;
}
