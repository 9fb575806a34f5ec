/* topk.c - the k largest entries in f32; stages 5 and 6 of the path.
 *
 * Aji and Heafield, "Sparse communication for distributed gradient descent", EMNLP 2017; Stich et al., "Sparsified SGD
 * with memory", NeurIPS 2018. It is biased, so use it with ef=true. The error ||g - ghat||^2 <= (1 - k/n) ||g||^2 is
 * the least for k entries, and stats().variance is its exact value. The list of indices is close to its entropy
 * (coding/ indices.c). Zeros are not sent. ratio is that of each tensor's body, indices included.
 */
#include "compress/common/levels.h"
#include <math.h>

enum { RATIO, COUNT };

static const struct atomo__option options[] = {
    {"ratio", ATOMO_OPTION_FLOAT, NAN, 1, 1e9, NULL, "dense bytes over message bytes of a tensor (16 without k)"},
    {"k", ATOMO_OPTION_INT, NAN, 1, 1e9, NULL, "entries sent of a tensor"},
    {0}};

static int64_t count_of(const atomo__plan *plan)
{
    const double k = plan->option[COUNT], ratio = isnan(plan->option[RATIO]) ? 16 : plan->option[RATIO];
    return isnan(k) ? atomo__select_count(plan->n, ratio, true) : (int64_t)ATOMO_MIN(k, (double)plan->n);
}

static int plan(atomo__plan *plan)
{
    ATOMO_REQUIRE(isnan(plan->option[RATIO]) || isnan(plan->option[COUNT]), ATOMO_EARG,
                  "topk: give one of ratio (%g) and k (%g)", plan->option[RATIO], plan->option[COUNT]);
    plan->body_max = (size_t)plan->n / 8 + 4 * (size_t)count_of(plan) + 32;
    plan->scratch = ATOMO__SELECT_SCRATCH + sizeof(uint32_t) * (size_t)plan->n;
    return ATOMO_OK;
}

static int encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    uint32_t *histogram = atomo__claim_scratch(c), *index = histogram + ATOMO__SELECT_SCRATCH / sizeof(uint32_t);
    double sum;
    float largest;
    ATOMO_TRY(atomo__gradient_size(plan, g, &sum, &largest));
    int64_t m = atomo__select_largest(g, plan->n, count_of(plan), histogram, index);
    atomo__write_indices(w, index, m, plan->n, false);
    for (int64_t i = 0; i < m; i++) atomo__put_f32(w, g[index[i]]);
    plan->expected = plan->sent = (double)m;
    plan->variance = m == plan->n ? 0 : ATOMO_MAX(0, plan->square - atomo__sum_square_at(g, index, m));
    return ATOMO_OK;
}

static int decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    uint32_t *index = (uint32_t *)atomo__claim_scratch(c) + ATOMO__SELECT_SCRATCH / sizeof(uint32_t);
    int64_t m = atomo__read_indices(r, plan->n, false, index);
    if (m < 0 || m > count_of(plan)) return ATOMO_EFORMAT;
    for (int64_t i = 0; i < m; i++) {
        float x = atomo__get_f32(r);
        if (r->bad || !isfinite(x)) return ATOMO_EFORMAT;
        acc[index[i]] += scale * x;
    }
    return ATOMO_OK;
}

const struct atomo_compressor atomo_compressor_topk = {
    .name = "topk",
    .summary = "the k largest entries as they are (biased: use ef=true)",
    .source = "Aji and Heafield, EMNLP 2017; Stich et al., NeurIPS 2018",
    .unbiased = false,
    .contracts = true,
    .options = options,
    .stages = {.plan = plan, .encode = encode, .decode_add = decode_add},
};
