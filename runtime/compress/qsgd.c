/* qsgd.c - stochastic quantisation of groups of d entries with one scale, which the paper calls buckets; stage 6 of the
 * path.
 *
 * Alistarh et al., "QSGD: Communication-efficient SGD via gradient quantization and encoding", NeurIPS 2017: in each
 * bucket x_i = ||x|| sign(x_i) j / s, with j from 0 to s, rounded up with probability equal to the fraction. `bits` is
 * the number of bits of an entry on the wire, sign included: s = 2^(bits-1) - 1. So bits=2 is the paper's s = 1 ("1-bit
 * QSGD", which is ATOMO on entries with budget ||x||_1/||x||_2). Codes are packed, or Elias codes of gaps and levels
 * (the paper's section 3.2), which are shorter if a bucket is mostly 0, or packed codes with subtractive dither
 * (dither.c), which is not in the paper. The message is unbiased. Its variance is known
 * in closed form, and with the 2-norm E||Q(x)-x||^2 <= min(d/s^2, sqrt(d)/s) ||x||^2 (lemma 3.1). A bucket of zeros
 * takes 4 bytes. The last bucket may be shorter.
 */
#include "compress/common/levels.h"
#include <float.h>
#include <math.h>

enum { BITS, BUCKET, NORM, CODING };
enum { NORM_2, NORM_MAX };
enum { CODING_PACKED, CODING_ELIAS, CODING_DITHER };

static const struct atomo__option options[] = {
    {"bits", ATOMO_OPTION_INT, 4, 2, 8, NULL, "bits of an entry, sign included: 2^(bits-1) - 1 levels"},
    {"bucket", ATOMO_OPTION_INT, 512, 0, 1e9, NULL, "entries that share a scale; 0: the whole tensor"},
    {"norm", ATOMO_OPTION_ENUM, NORM_2, 0, 1, "2|max", "the scale: the 2-norm (the paper) or the largest size"},
    {"coding", ATOMO_OPTION_ENUM, CODING_PACKED, 0, 2, "packed|elias|dither",
     "fixed-width codes, gaps in Elias codes, or fixed-width codes with subtractive dither"},
    {0}};

static int64_t bucket_of(const atomo__plan *plan)
{
    int64_t bucket = (int64_t)plan->option[BUCKET];
    return bucket == 0 || bucket > plan->n ? plan->n : bucket;
}

static int plan(atomo__plan *plan)
{
    const int bits = (int)plan->option[BITS];
    const int64_t d = bucket_of(plan), rest = plan->n % d;
    const bool elias = (int)plan->option[CODING] == CODING_ELIAS;
    size_t (*bytes)(int64_t, int) = elias ? atomo__levels_bytes_elias : atomo__levels_bytes;
    plan->body_max = (size_t)(plan->n / d) * bytes(d, bits) + (rest ? bytes(rest, bits) : 0);
    return ATOMO_OK;
}

/* Returns the scale, at most `most`. It is at least the largest entry, which is needed for being unbiased: the norm as
 * f32 may be rounded below it. */
static float scale_of(double square, float largest, int norm, float most)
{
    float scale = norm == NORM_2 ? (float)ATOMO_MIN(sqrt(square), (double)most) : largest;
    return ATOMO_MAX(scale, largest);
}

/* Writes bucket number b, x [n]; returns its variance. */
static double write_bucket(const atomo__plan *plan, int64_t b, const float *x, int64_t n, float scale,
                           const atomo__context *c, atomo__writer *w)
{
    const int bits = (int)plan->option[BITS], coding = (int)plan->option[CODING];
    const int64_t d = bucket_of(plan), first = b * ((d + 15) / 16), at = b * d;
    if (coding == CODING_DITHER) return atomo__dither_write(w, x, n, scale, bits, c, (uint32_t)(b * ((d + 3) / 4)));
    return (coding == CODING_ELIAS ? atomo__levels_write_elias : atomo__levels_write)(w, x, n, scale, bits, c,
                                                                                      (uint32_t)first, (uint32_t)at);
}

static int encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    const int bits = (int)plan->option[BITS], norm = (int)plan->option[NORM];
    const int64_t d = bucket_of(plan);
    plan->square = plan->variance = 0;
    for (int64_t b = 0; b * d < plan->n; b++) {
        const int64_t at = b * d, len = ATOMO_MIN(d, plan->n - at);
        double sum, square;
        float largest;
        atomo__measure(g + at, len, &sum, &square, &largest);
        if (!isfinite(sum)) return atomo__refuse_nonfinite(plan, g);
        const float most = (int)plan->option[CODING] == CODING_DITHER ? atomo__dither_most(bits) : FLT_MAX;
        ATOMO_REQUIRE(largest <= most, ATOMO_ENONFINITE,
                      "qsgd: gradient of tensor %s: entries up to %g, with dither, leave the range of f32", plan->name,
                      (double)largest);
        const float scale = scale_of(square, largest, norm, most);
        plan->square += square;
        plan->variance += write_bucket(plan, b, g + at, len, scale, c, w);
    }
    plan->expected = plan->sent = (double)plan->n;
    return ATOMO_OK;
}

static int decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    const int64_t d = bucket_of(plan);
    const int bits = (int)plan->option[BITS], coding = (int)plan->option[CODING];
    for (int64_t b = 0; b * d < plan->n && !r->bad; b++) {
        const int64_t at = b * d, n = ATOMO_MIN(d, plan->n - at);
        if (coding == CODING_DITHER)
            atomo__dither_read(r, n, bits, scale, c, (uint32_t)(b * ((d + 3) / 4)), acc + at);
        else
            (coding == CODING_ELIAS ? atomo__levels_read_elias : atomo__levels_read)(r, n, bits, scale, acc + at);
    }
    return r->bad ? ATOMO_EFORMAT : ATOMO_OK;
}

const struct atomo_compressor atomo_compressor_qsgd = {
    .name = "qsgd",
    .summary = "entries in few bits, stochastically rounded to levels of the bucket's norm",
    .source = "Alistarh et al., QSGD, NeurIPS 2017",
    .unbiased = true,
    .together = true,
    .options = options,
    .stages = {.plan = plan, .encode = encode, .decode_add = decode_add},
};
