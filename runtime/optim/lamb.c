/* lamb.c - LAMB [You et al. 2020, algorithm 2]: Adam's direction with decoupled decay, scaled for each tensor to the
 * norm of its weights. Stage 9. */
#include "optim/optim.h"
#include <math.h>

typedef struct options {
    float beta1, beta2, rest1, rest2, eps, decay, fix1, fix2; /* rest = 1 - beta, fix = 1 / (1 - beta^t) */
} options;

/* Updates m and v as Adam does; r = the direction. */
ATOMO_CLONES static void direction(int64_t n, const options *o, const float *restrict p, const float *restrict g,
                                   float *restrict m, float *restrict v, float *restrict r)
{
    for (int64_t i = 0; i < n; i++) {
        m[i] = o->beta1 * m[i] + o->rest1 * g[i];
        v[i] = o->beta2 * v[i] + o->rest2 * g[i] * g[i];
        r[i] = m[i] * o->fix1 / (sqrtf(v[i] * o->fix2) + o->eps) + o->decay * p[i];
    }
}

ATOMO_CLONES static void subtract(int64_t n, float f, const float *restrict r, float *restrict p)
{
    for (int64_t i = 0; i < n; i++) p[i] -= f * r[i];
}

int atomo_optim_lamb(atomo_tensor *p, const atomo_tensor *g, atomo_tensor *m, atomo_tensor *v, double lr, double beta1,
                     double beta2, double eps, double weight_decay, double step)
{
    const atomo_tensor *const others[] = {g, m, v};
    ATOMO_TRY(atomo__check_blocks("lamb", p, 3, others));
    ATOMO_REQUIRE(step >= 1, ATOMO_EARG, "lamb: step %g, expected 1 or more", step);
    const options o = {(float)beta1,
                       (float)beta2,
                       (float)(1 - beta1),
                       (float)(1 - beta2),
                       (float)eps,
                       (float)weight_decay,
                       (float)(1 / (1 - pow(beta1, step))),
                       (float)(1 / (1 - pow(beta2, step)))};
    atomo_tensor *r = NULL;
    double weights = 0, length = 0;
    ATOMO_TRY(atomo_tensor_new(ATOMO_F32, p->ndim, p->shape, &r));
    direction(atomo__numel(p), &o, atomo__f32(p), atomo__f32(g), atomo__f32(m), atomo__f32(v), atomo__f32(r));
    int rc = atomo_norm(p, 2, &weights);
    if (rc == 0) rc = atomo_norm(r, 2, &length);
    const double ratio = weights > 0 && length > 0 ? weights / length : 1;
    if (rc == 0) subtract(atomo__numel(p), (float)(lr * ratio), atomo__f32(r), atomo__f32(p));
    atomo_tensor_free(r);
    atomo_tensor_touch(p);
    return rc;
}
