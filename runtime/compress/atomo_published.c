/* atomo_published.c - spectral ATOMO by the rule of the paper's released code; stages 4 to 6 of the path.
 *
 * Wang et al. 2018, as in their public implementation (hwang595/ATOMO, src/codings/svd.py at 8a21e54), so that numbers
 * published with it can be reproduced. Kernels are folded to a matrix as there, factors are f32, and
 *   p_i = min(1, s lambda_i / sum lambda)   the budget of clipped atoms is lost, which Algorithm 1 gives to others,
 *   an empty draw is repeated               but lambda_i / p_i is not adapted: the mean is 1/(1 - P(empty)) times g.
 * So it is biased, and labelled as biased. stats().variance is the exact E||ghat - g||^2, bias included. Decomposition,
 * random streams and message are those of "svd". Two parts of the original are left out: its fold of vectors, which
 * sends more than the vector itself, and its special case for spectra below 1e-6. For training use
 * "svd:fold=paper,bits=32", which is Algorithm 1.
 */
#include "codec/codec.h"
#include "core/carve.h"
#include <math.h>

extern const struct atomo_atoms atomo_atoms_svd;

enum { ATOMS };
enum { MAX_DRAWS = 2048 }; /* with atoms = 0.1 all are empty with probability 1e-88 */

static const struct atomo__option options[] = {{"atoms", ATOMO_OPTION_FLOAT, 3, 0.1, 1e6, NULL,
                                                "the paper's s (their --svd-rank): atoms expected before clipping"},
                                               {0}};

/* The tensor's plan with "svd:bits=32,fold=paper". */
typedef struct {
    atomo__plan inner;
    double option[ATOMO__MAX_OPTIONS];
} state;

static atomo__plan inner_of(const atomo__plan *plan, double *option)
{
    const struct atomo__option *o = atomo_atoms_svd.options;
    for (int i = 0; o[i].key; i++) {
        option[i] = o[i].standard;
        if (strcmp(o[i].key, "bits") == 0) option[i] = 32;
        if (strcmp(o[i].key, "fold") == 0) option[i] = 1; /* paper */
    }
    atomo__plan inner = *plan;
    inner.stages = &atomo_atoms_svd.stages;
    inner.option = option;
    inner.custom_rows = 0;
    return inner;
}

static int plan(atomo__plan *plan)
{
    double option[ATOMO__MAX_OPTIONS];
    atomo__plan inner = inner_of(plan, option);
    ATOMO_TRY(inner.stages->plan(&inner));
    plan->body_max = inner.body_max;
    plan->scratch = inner.scratch;
    plan->state_size = atomo__round_up(sizeof(state)) + inner.state_size;
    return ATOMO_OK;
}

static int start(atomo__plan *plan)
{
    state *s = plan->state;
    s->inner = inner_of(plan, s->option);
    s->inner.state = (char *)plan->state + atomo__round_up(sizeof(state));
    return s->inner.stages->start(&s->inner);
}

/* Sets plan->expected and plan->variance, with p = min(1, lambda / threshold). The variance is the exact second moment,
 * repetition of empty draws included. */
static void account(atomo__plan *plan, const atomo__segment *g, double threshold)
{
    double empty = 1, variance = 0;
    plan->expected = 0;
    for (int64_t i = 0; i < g->n; i++) {
        double p = ATOMO_MIN(1, fabs(g->f64[i]) / threshold);
        plan->expected += p;
        empty *= 1 - p;
    }
    for (int64_t i = 0; i < g->n; i++) {
        double p = ATOMO_MIN(1, fabs(g->f64[i]) / threshold), q = p / (1 - empty), over = 1 / p - 1;
        if (p > 0) variance += g->f64[i] * g->f64[i] * (q * over * over + 1 - q);
    }
    plan->variance = variance;
}

static int encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    atomo__plan *inner = &((state *)plan->state)->inner;
    inner->codec = plan->codec;
    ATOMO_TRY(inner->stages->measure(inner, g, c));
    double sum = 0;
    for (int64_t i = 0; i < inner->segment.n; i++) sum += fabs(inner->segment.f64[i]);
    plan->square = inner->square;
    plan->expected = plan->variance = 0;
    inner->T = sum / plan->option[ATOMS] / sqrt(inner->segment.unit);
    if (sum > 0) account(plan, &inner->segment, sum / plan->option[ATOMS]);
    const atomo__writer empty = *w;
    atomo__context again = *c;
    for (int i = 0; i < MAX_DRAWS; i++) { /* repeat while the draw is empty, each time with another random stream */
        *w = empty;
        again.stream.seed[1] = c->stream.seed[1] ^ (uint32_t)i << 21;
        ATOMO_TRY(inner->stages->encode(inner, g, &again, w));
        plan->sent = inner->sent;
        if (inner->sent > 0 || !(sum > 0)) return ATOMO_OK;
    }
    return atomo__fail(ATOMO_ENUMERIC, "atomo-published: tensor %s: %d draws with atoms=%g were empty", plan->name,
                       (int)MAX_DRAWS, plan->option[ATOMS]);
}

static int decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    const atomo__plan *inner = &((state *)plan->state)->inner;
    return inner->stages->decode_add(inner, r, c, scale, acc);
}

const struct atomo_compressor atomo_compressor_atomo_published = {
    .name = "atomo-published",
    .summary = "spectral atoms by the rule of the paper's released code (biased)",
    .source = "Wang et al., ATOMO, NeurIPS 2018: their public implementation",
    .unbiased = false,
    .options = options,
    .stages = {.plan = plan, .start = start, .encode = encode, .decode_add = decode_add},
};
