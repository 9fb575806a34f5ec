/* randk.c - k entries drawn uniformly, without sending their indices; stages 5 and 6 of the path.
 *
 * Stich et al., "Sparsified SGD with memory", NeurIPS 2018; Wangni et al., NeurIPS 2018. All k-subsets are equally
 * likely. They are drawn from the random stream of (seed, step, tensor), which is the same on every rank. So a message
 * is only k floats, and the messages of a step can be added entry by entry (linear). Decoded values are multiplied by
 * n/k: unbiased, with variance (n/k - 1) ||g||^2. With ef=true they are not multiplied, because n/k would make the
 * residual grow; then E||g - ghat||^2 = (1 - k/n) ||g||^2.
 */
#include "compress/common/levels.h"
#include <float.h>
#include <math.h>

enum { RATIO, COUNT };

static const struct atomo__option options[] = {
    {"ratio", ATOMO_OPTION_FLOAT, NAN, 1, 1e9, NULL, "n / k: dense bytes over message bytes (16 without k)"},
    {"k", ATOMO_OPTION_INT, NAN, 1, 1e9, NULL, "entries sent of a tensor"},
    {0}};

static int64_t count_of(const atomo__plan *plan)
{
    const double k = plan->option[COUNT], ratio = isnan(plan->option[RATIO]) ? 16 : plan->option[RATIO];
    return isnan(k) ? atomo__select_count(plan->n, ratio, false) : (int64_t)ATOMO_MIN(k, (double)plan->n);
}

static size_t bitmap_words(const atomo__plan *plan)
{
    return ((size_t)plan->n + 63) / 64;
}

static int plan(atomo__plan *plan)
{
    ATOMO_REQUIRE(isnan(plan->option[RATIO]) || isnan(plan->option[COUNT]), ATOMO_EARG,
                  "randk: give one of ratio (%g) and k (%g)", plan->option[RATIO], plan->option[COUNT]);
    plan->body_max = 4 * (size_t)count_of(plan);
    plan->scratch = 8 * bitmap_words(plan);
    return ATOMO_OK;
}

/* Returns a bitmap of k of n entries, drawn uniformly by Floyd's algorithm [Bentley 1987]. Each draw uses a 64-bit
 * word, so probabilities are exact to n/2^64. */
static const uint64_t *draw(const atomo__plan *plan, const atomo__context *c, int64_t k)
{
    enum { DRAWS = 128 };
    uint64_t *bit = atomo__claim_scratch(c), word[DRAWS];
    atomo_stream s = c->stream;
    s.rank = 0;
    s.purpose = ATOMO_RNG_SAMPLE;
    memset(bit, 0, 8 * bitmap_words(plan));
    for (int64_t i = 0; i < k; i++) {
        if (i % DRAWS == 0) atomo__random_words(&s, (uint32_t)(i / 2), DRAWS / 2, (uint32_t *)word);
        uint64_t top = (uint64_t)(plan->n - k + i); /* draws from 0 .. top */
        uint64_t at = (uint64_t)(((unsigned __int128)word[i % DRAWS] * (top + 1)) >> 64);
        if (bit[at / 64] >> (at % 64) & 1) at = top;
        bit[at / 64] |= (uint64_t)1 << (at % 64);
    }
    return bit;
}

/* Copies the k drawn entries of g to out, which need not be aligned, and sets the plan's statistics. */
static void gather(atomo__plan *plan, const float *g, const atomo__context *c, int64_t k, uint8_t *out)
{
    double kept = 0, n = (double)plan->n;
    const uint64_t *bit = draw(plan, c, k);
    for (size_t b = 0; b < bitmap_words(plan); b++)
        for (uint64_t left = bit[b]; left; left &= left - 1, out += 4) {
            const float *x = g + 64 * b + (size_t)__builtin_ctzll(left);
            kept += (double)*x * (double)*x;
            memcpy(out, x, 4);
        }
    plan->expected = plan->sent = (double)k;
    plan->variance = plan->codec->feedback ? ATOMO_MAX(0, plan->square - kept) : (n / (double)k - 1) * plan->square;
}

/* ENONFINITE if an entry times n / k would overflow f32. */
static int in_range(const atomo__plan *plan, float largest)
{
    const double most = (double)largest * (double)plan->n / (double)count_of(plan);
    ATOMO_REQUIRE(plan->codec->feedback || most <= FLT_MAX, ATOMO_ENONFINITE,
                  "randk: gradient of tensor %s: entries up to %g, times n/k %g, leave the range of f32", plan->name,
                  (double)largest, most);
    return ATOMO_OK;
}

static int encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    const int64_t k = count_of(plan);
    double sum;
    float largest;
    ATOMO_TRY(atomo__gradient_size(plan, g, &sum, &largest));
    ATOMO_TRY(in_range(plan, largest));
    uint8_t *out = atomo__put_raw(w, 4 * (size_t)k);
    if (out) gather(plan, g, c, k, out);
    return ATOMO_OK;
}

static int decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    const int64_t k = count_of(plan);
    const double factor = plan->codec->feedback ? 1 : (double)plan->n / (double)k;
    const uint8_t *in = atomo__get_raw(r, 4 * (size_t)k);
    if (!in) return ATOMO_EFORMAT;
    const uint64_t *bit = draw(plan, c, k);
    for (size_t b = 0; b < bitmap_words(plan); b++)
        for (uint64_t left = bit[b]; left; left &= left - 1, in += 4) {
            float x;
            memcpy(&x, in, 4);
            if (!isfinite(x)) return ATOMO_EFORMAT;
            double v = (double)x * factor; /* clamped to finite values of f32 */
            v = ATOMO_MAX(-(double)FLT_MAX, ATOMO_MIN((double)FLT_MAX, v));
            acc[64 * b + (size_t)__builtin_ctzll(left)] += scale * (float)v;
        }
    return ATOMO_OK;
}

/* For sums (exchange/bucket_linear.c): the k values, of the same entries on every rank. */
static int64_t linear_size(const atomo__plan *plan, int round)
{
    (void)round;
    return count_of(plan);
}

static int linear_project(atomo__plan *plan, int round, const float *g, float *before, int ranks, atomo__context *c,
                          float *out)
{
    double sum;
    float largest;
    (void)round, (void)before, (void)ranks;
    ATOMO_TRY(atomo__gradient_size(plan, g, &sum, &largest));
    ATOMO_TRY(in_range(plan, largest));
    gather(plan, g, c, count_of(plan), (uint8_t *)out);
    return ATOMO_OK;
}

static int linear_expand(const atomo__plan *plan, const float *first, const float *last, int ranks, float scale,
                         atomo__context *c, float *acc)
{
    const int64_t k = count_of(plan);
    const double factor = (double)scale * (plan->codec->feedback ? 1 : (double)plan->n / (double)k);
    const uint64_t *bit = draw(plan, c, k);
    (void)first, (void)ranks;
    for (size_t b = 0; b < bitmap_words(plan); b++)
        for (uint64_t left = bit[b]; left; left &= left - 1, last++)
            acc[64 * b + (size_t)__builtin_ctzll(left)] +=
                (float)ATOMO_MAX(-(double)FLT_MAX, ATOMO_MIN((double)FLT_MAX, factor * (double)*last));
    return ATOMO_OK;
}

static const struct atomo__linear linear = {
    .rounds = 1, .size = linear_size, .project = linear_project, .expand = linear_expand};

const struct atomo_compressor atomo_compressor_randk = {
    .name = "randk",
    .summary = "k entries drawn evenly by a seed that all ranks share, times n/k",
    .source = "Stich et al., NeurIPS 2018; Wangni et al., NeurIPS 2018",
    .unbiased = true,
    .contracts = true,
    .options = options,
    .stages = {.plan = plan, .encode = encode, .decode_add = decode_add},
    .linear = &linear,
};
