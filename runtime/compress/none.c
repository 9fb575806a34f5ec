/* none.c - no compression: the gradient as f32, in the same frame as every other message; stage 6 of the path. */
#include "compress/common/levels.h"
#include <math.h>

static const struct atomo__option options[] = {{0}};

static int plan(atomo__plan *plan)
{
    plan->body_max = 4 * (size_t)plan->n;
    return ATOMO_OK;
}

static int encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    (void)c;
    double sum;
    float largest;
    atomo__measure(g, plan->n, &sum, &plan->square, &largest);
    if (!isfinite(sum)) return atomo__refuse_nonfinite(plan, g);
    size_t bytes = 4 * (size_t)plan->n;
    ATOMO_REQUIRE(w->capacity >= bytes, ATOMO_EINTERNAL, "none: %zu bytes planned, %zu needed", w->capacity, bytes);
    memcpy(w->data, g, bytes);
    w->size = bytes;
    plan->expected = plan->sent = (double)plan->n;
    plan->variance = 0;
    return ATOMO_OK;
}

static int decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    (void)c;
    const uint8_t *in = atomo__get_raw(r, 4 * (size_t)plan->n);
    return in && atomo__add_floats(in, plan->n, scale, acc) ? ATOMO_OK : ATOMO_EFORMAT;
}

/* For sums (exchange/bucket_linear.c): the values are the entries. */
static int64_t linear_size(const atomo__plan *plan, int round)
{
    (void)round;
    return plan->n;
}

static int linear_project(atomo__plan *plan, int round, const float *g, float *before, int ranks, atomo__context *c,
                          float *out)
{
    double sum;
    float largest;
    (void)round, (void)before, (void)ranks, (void)c;
    atomo__measure(g, plan->n, &sum, &plan->square, &largest);
    if (!isfinite(sum)) return atomo__refuse_nonfinite(plan, g);
    memcpy(out, g, sizeof(float) * (size_t)plan->n);
    plan->expected = plan->sent = (double)plan->n;
    plan->variance = 0;
    return ATOMO_OK;
}

static int linear_expand(const atomo__plan *plan, const float *first, const float *last, int ranks, float scale,
                         atomo__context *c, float *acc)
{
    (void)first, (void)ranks, (void)c;
    atomo__add_scaled(last, plan->n, scale, acc);
    return ATOMO_OK;
}

static const struct atomo__linear linear = {
    .rounds = 1, .size = linear_size, .project = linear_project, .expand = linear_expand};

const struct atomo_compressor atomo_compressor_none = {
    .name = "none",
    .summary = "every entry in 32 bits",
    .source = "the dense baseline",
    .unbiased = true,
    .contracts = true,
    .dense = true,
    .options = options,
    .stages = {.plan = plan, .encode = encode, .decode_add = decode_add},
    .linear = &linear,
};
