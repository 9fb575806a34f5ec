/* half.c - codes entries as 16-bit floats (tensor/float16.c), rounded to nearest or stochastically; stage 6 of the
 * path.
 *
 * Because of fp16's small range, the message has a power of two by which the tensor is scaled: the largest entry
 * becomes 2^14 .. 2^15, so nothing overflows and little underflows. Rounding to nearest is biased, stochastic rounding
 * is not. In both cases stats().variance is exact: the squared error, or its expectation. Entries that would round to
 * 2^128 become the largest number of the format below it.
 */
#include "compress/common/half.h"
#include <math.h>

enum { ROUND };
enum { NEAREST, STOCHASTIC };
enum { BIAS = 256, TOP_EXPONENT = 15, SUMMED = 8192 /* bytes between two parts of a checksum */ };
/* TOP_FP16: the largest fp16 below 2^15. With the scale 2^LAST, 2^15 would decode to 2^128. */
enum { TOP_FP16 = 0x77FF, LAST = TOP_EXPONENT - 128 };

const struct atomo__option atomo__half_options[] = {
    {"round", ATOMO_OPTION_ENUM, NEAREST, 0, 1, "nearest|stochastic", "nearest is biased, stochastic is not"}, {0}};

bool atomo__half_biased(const double *option)
{
    return (int)option[ROUND] == NEAREST;
}

/* Continues the checksum of what has been written, while it is in the cache. */
static void sum_up(atomo__writer *w)
{
    w->crc = atomo__crc32(w->crc, w->data + w->summed, w->size - w->summed);
    w->summed = w->size;
}

/* Rounds and writes g; returns the variance. m: measures g on the way, while it is in the cache; NULL: it has been
 * measured. */
static double encode(const atomo__plan *plan, const float *g, int exponent, atomo__half_round_fn *round,
                     atomo__context *c, atomo__writer *w, atomo__measures *m)
{
    const float up1 = ldexpf(1, exponent / 2), up2 = ldexpf(1, exponent - exponent / 2);
    uint32_t random[ATOMO__CHUNK] = {0};
    uint16_t code[ATOMO__CHUNK];
    atomo_stream s = c->stream;
    double noise = 0;
    s.purpose = ATOMO_RNG_SAMPLE;
    for (int64_t at = 0; at < plan->n; at += ATOMO__CHUNK) {
        int len = (int)ATOMO_MIN((int64_t)ATOMO__CHUNK, plan->n - at);
        if (w->size - w->summed >= SUMMED) sum_up(w);
        uint8_t *out = atomo__put_raw(w, 2 * (size_t)len);
        if (!out) break;
        if ((int)plan->option[ROUND] == STOCHASTIC)
            atomo__random_words(&s, (uint32_t)(at / 4), (uint32_t)(len + 3) / 4, random);
        if (m) atomo__measure_more(m, g + at, len);
        noise += round(g + at, len, up1, up2, random, code);
        for (int i = 0; exponent == LAST && i < len; i++)
            if ((code[i] & 0x7FFF) > TOP_FP16) code[i] = (uint16_t)((code[i] & 0x8000) | TOP_FP16);
        memcpy(out, code, 2 * (size_t)len);
    }
    return ldexp(noise, -2 * exponent);
}

static int encoded(atomo__plan *plan, double variance)
{
    plan->variance = variance;
    plan->expected = plan->sent = (double)plan->n;
    return ATOMO_OK;
}

static int decode(int64_t n, int exponent, uint16_t limit, atomo__half_add_fn *add, atomo__reader *r, float scale,
                  float *acc)
{
    const float down1 = ldexpf(1, -exponent / 2), down2 = ldexpf(scale, -(exponent + -exponent / 2));
    uint16_t code[ATOMO__CHUNK];
    for (int64_t at = 0; at < n; at += ATOMO__CHUNK) {
        int len = (int)ATOMO_MIN((int64_t)ATOMO__CHUNK, n - at);
        const uint8_t *in = atomo__get_raw(r, 2 * (size_t)len);
        if (!in) return ATOMO_EFORMAT;
        memcpy(code, in, 2 * (size_t)len);
        int bad = 0;
        for (int i = 0; i < len; i++) bad |= (code[i] & 0x7FFF) >= limit;
        if (bad) return ATOMO_EFORMAT;
        add(code, len, down1, down2, acc + at);
    }
    return ATOMO_OK;
}

int atomo__bf16_plan(atomo__plan *plan)
{
    plan->body_max = 2 * (size_t)plan->n;
    return ATOMO_OK;
}

int atomo__bf16_encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    double sum, square;
    float largest;
    atomo__measures m = {0};
    const double variance = encode(plan, g, 0, atomo__bf16_format.round[!atomo__half_biased(plan->option)], c, w, &m);
    atomo__measured(&m, &sum, &square, &largest);
    if (!isfinite(sum)) return atomo__refuse_nonfinite(plan, g);
    plan->square = square;
    return encoded(plan, variance);
}

int atomo__bf16_decode(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    (void)c;
    return decode(plan->n, 0, ATOMO__TOP_BF16 + 1, atomo__bf16_format.add, r, scale, acc);
}

int atomo__bf16_decode_part(atomo__reader *r, int64_t n, float scale, float *acc)
{
    return decode(n, 0, ATOMO__TOP_BF16 + 1, atomo__bf16_format.add, r, scale, acc);
}

int atomo__fp16_plan(atomo__plan *plan)
{
    plan->body_max = 2 + 2 * (size_t)plan->n;
    return ATOMO_OK;
}

int atomo__fp16_encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    double sum;
    float largest;
    int e = TOP_EXPONENT;
    ATOMO_TRY(atomo__gradient_size(plan, g, &sum, &largest));
    if (largest > 0) frexpf(largest, &e);
    const uint16_t exponent = (uint16_t)(TOP_EXPONENT - e + BIAS);
    uint8_t *out = atomo__put_raw(w, 2);
    if (out) memcpy(out, &exponent, 2);
    return encoded(plan, encode(plan, g, TOP_EXPONENT - e, atomo__fp16_format.round[!atomo__half_biased(plan->option)],
                                c, w, NULL));
}

int atomo__fp16_decode(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    (void)c;
    uint16_t exponent = 0;
    const uint8_t *in = atomo__get_raw(r, 2);
    if (in) memcpy(&exponent, in, 2);
    if (!in || exponent < BIAS - 113 || exponent > BIAS + 163) return ATOMO_EFORMAT;
    return decode(plan->n, (int)exponent - BIAS, ATOMO__INF_FP16, atomo__fp16_format.add, r, scale, acc);
}

/* ---- sums (exchange/bucket_linear.c): f32 values are summed, rounding them on the way; fp16 finds a common scale
 * first */

static int64_t one_or_all(const atomo__plan *plan, int round, int rounds)
{
    return round == rounds - 1 ? plan->n : 1;
}

static int64_t fp16_size(const atomo__plan *plan, int round)
{
    return one_or_all(plan, round, 2);
}

static int64_t bf16_size(const atomo__plan *plan, int round)
{
    return one_or_all(plan, round, 1);
}

/* out = g times 2^exponent. Sets the variance to that of rounding this rank's entries. */
static void scale_up(atomo__plan *plan, const float *g, int exponent, const atomo__half *format, atomo__context *c,
                     float *out)
{
    const float up1 = ldexpf(1, exponent / 2), up2 = ldexpf(1, exponent - exponent / 2);
    const bool stochastic = !atomo__half_biased(plan->option);
    uint32_t random[ATOMO__CHUNK] = {0};
    uint16_t code[ATOMO__CHUNK];
    double noise = 0;
    (void)c;
    for (int64_t at = 0; at < plan->n; at += ATOMO__CHUNK) {
        const int len = (int)ATOMO_MIN((int64_t)ATOMO__CHUNK, plan->n - at);
        noise += format->round[stochastic](g + at, len, up1, up2, random, code);
        for (int i = 0; i < len; i++) out[at + i] = g[at + i] * up1 * up2;
    }
    plan->variance = ldexp(noise, -2 * exponent);
    plan->expected = plan->sent = (double)plan->n;
}

static int bf16_project(atomo__plan *plan, int round, const float *g, float *before, int ranks, atomo__context *c,
                        float *out)
{
    double sum;
    float largest;
    (void)round, (void)before, (void)ranks;
    ATOMO_TRY(atomo__gradient_size(plan, g, &sum, &largest));
    scale_up(plan, g, 0, &atomo__bf16_format, c, out);
    return ATOMO_OK;
}

static int bf16_expand(const atomo__plan *plan, const float *first, const float *last, int ranks, float scale,
                       atomo__context *c, float *acc)
{
    (void)first, (void)ranks, (void)c;
    atomo__add_scaled(last, plan->n, scale, acc);
    return ATOMO_OK;
}

/* Returns the exponent of the scale that brings a sum of `ranks` entries, none larger than `largest`, below
 * 2^TOP_EXPONENT. */
static int sum_exponent(float largest, int ranks)
{
    int e = TOP_EXPONENT, more = 0;
    if (largest > 0) frexpf(largest, &e);
    while (1 << more < ranks) more++;
    return largest > 0 ? TOP_EXPONENT - e - more : 0;
}

static int fp16_project(atomo__plan *plan, int round, const float *g, float *before, int ranks, atomo__context *c,
                        float *out)
{
    double sum;
    if (round == 0) return atomo__gradient_size(plan, g, &sum, out);
    scale_up(plan, g, sum_exponent(*before, ranks), &atomo__fp16_format, c, out);
    return ATOMO_OK;
}

static int fp16_expand(const atomo__plan *plan, const float *first, const float *last, int ranks, float scale,
                       atomo__context *c, float *acc)
{
    const int e = sum_exponent(*first, ranks);
    const float down1 = ldexpf(1, -e / 2), down2 = ldexpf(scale, -(e + -e / 2));
    (void)c;
    for (int64_t i = 0; i < plan->n; i++) acc[i] += last[i] * down1 * down2;
    return ATOMO_OK;
}

const struct atomo__linear atomo__fp16_linear = {2,           true, &atomo__fp16_format, fp16_size, fp16_project,
                                                 fp16_expand, NULL};
const struct atomo__linear atomo__bf16_linear = {1,           false, &atomo__bf16_format, bf16_size, bf16_project,
                                                 bf16_expand, NULL};
