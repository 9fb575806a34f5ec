/* terngrad.c - entries as -1, 0 or 1 times the largest magnitude; stage 6 of the path.
 *
 * Wen et al., "TernGrad: Ternary gradients to reduce communication", NeurIPS 2017, equation 1: s = max|g| of the
 * tensor, and entry i becomes s sign(g_i) with probability |g_i|/s, else 0. This is ATOMO on entries with budget
 * ||g||_1/||g||_inf. Codes have two bits per entry, or are Elias codes of gaps. The message is unbiased, with variance
 * sum |g_i|(s - |g_i|). clip=c first clamps entries to c standard deviations (the paper's section 4.2, c = 2.5), which
 * is biased and off by default; stats().variance is then the expected squared error, bias included.
 */
#include "compress/common/levels.h"
#include <math.h>

enum { CLIP, CODING };
enum { CODING_PACKED, CODING_ELIAS };
enum { BITS = 2 };

static const struct atomo__option options[] = {
    {"clip", ATOMO_OPTION_FLOAT, 0, 0, 1000, NULL,
     "cut entries at this many standard deviations: a bias (the paper: 2.5); 0: off"},
    {"coding", ATOMO_OPTION_ENUM, CODING_PACKED, 0, 1, "packed|elias", "two bits an entry, or gaps in Elias codes"},
    {0}};

static bool biased(const double *option)
{
    return option[CLIP] > 0;
}

static int plan(atomo__plan *plan)
{
    const bool elias = (int)plan->option[CODING] == CODING_ELIAS;
    plan->body_max = (elias ? atomo__levels_bytes_elias : atomo__levels_bytes)(plan->n, BITS);
    return ATOMO_OK;
}

static double deviation(const atomo__plan *plan, const float *g)
{
    double sum = 0, n = (double)plan->n;
    for (int64_t i = 0; i < plan->n; i++) sum += (double)g[i];
    return sqrt(ATOMO_MAX(0, plan->square / n - sum / n * (sum / n)));
}

/* Returns the sum of (|x| - cut)^2 over the entries above the cut. */
static double lost(const float *g, int64_t n, float cut)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double over = ATOMO_MAX(0, (double)fabsf(g[i]) - (double)cut);
        sum += over * over;
    }
    return sum;
}

static int encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    double sum;
    float scale;
    ATOMO_TRY(atomo__gradient_size(plan, g, &sum, &scale));
    double bias = 0, cut = plan->option[CLIP] > 0 ? plan->option[CLIP] * deviation(plan, g) : 0;
    if (cut > 0 && cut < (double)scale) { /* with the cut as scale, rounding to levels clamps entries to it */
        scale = (float)cut;
        bias = lost(g, plan->n, scale);
    }
    const bool elias = (int)plan->option[CODING] == CODING_ELIAS;
    plan->variance =
        bias + (elias ? atomo__levels_write_elias : atomo__levels_write)(w, g, plan->n, scale, BITS, c, 0, 0);
    plan->expected = plan->sent = (double)plan->n;
    return ATOMO_OK;
}

static int decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    (void)c;
    const bool elias = (int)plan->option[CODING] == CODING_ELIAS;
    (elias ? atomo__levels_read_elias : atomo__levels_read)(r, plan->n, BITS, scale, acc);
    return r->bad ? ATOMO_EFORMAT : ATOMO_OK;
}

const struct atomo_compressor atomo_compressor_terngrad = {
    .name = "terngrad",
    .summary = "entries as -1, 0 or 1 times the tensor's largest",
    .source = "Wen et al., TernGrad, NeurIPS 2017",
    .unbiased = true,
    .together = true,
    .options = options,
    .stages = {.plan = plan, .encode = encode, .decode_add = decode_add},
    .biased = biased,
};
