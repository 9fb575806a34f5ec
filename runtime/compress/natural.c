/* natural.c - rounds entries to powers of two; stage 6 of the path.
 *
 * Horvath et al., "Natural compression for distributed deep learning", MSML 2022 (PMLR 190): |x| in [2^a, 2^(a+1)) is
 * rounded up with probability |x| 2^-a - 1, which is the mantissa, so only sign and exponent are sent: 9 bits per
 * entry. The first byte of the mantissa is compared with a random byte; if they are equal its other 15 bits decide, so
 * the probability is exact. The message is unbiased, with variance sum (x - lo)(hi - x) <= ||x||^2 / 8. There is no
 * 2^128 in f32, so a gradient with entries above 2^127 is refused; with error feedback they are sent as 2^127.
 * Subnormal numbers are rounded to 0 or 2^-126, unbiased.
 */
#include "compress/common/levels.h"
#include <math.h>

enum { TOP = 254 };
static const float LARGEST = 0x1p127f; /* what exponent TOP stands for */

static const struct atomo__option options[] = {{0}};

static size_t chunk_bytes(int n)
{
    return (size_t)n + atomo__packed_size(n, 1);
}

static int plan(atomo__plan *plan)
{
    plan->body_max =
        (size_t)(plan->n / ATOMO__CHUNK) * chunk_bytes(ATOMO__CHUNK) + chunk_bytes((int)(plan->n % ATOMO__CHUNK));
    return ATOMO_OK;
}

/* Writes exponents (rounded down if the random byte equals the mantissa's first byte; tie is 1 then) and signs. Returns
 * the sum of (x - lo)(hi - x). */
ATOMO_CLONES static double round_chunk(const uint32_t *restrict x, int n, const uint8_t *restrict u,
                                       uint8_t *restrict exponent, uint8_t *restrict minus, uint8_t *restrict tie)
{
    double noise[ATOMO__CHUNK];
    for (int i = 0; i < n; i++) {
        uint32_t size = x[i] & 0x7FFFFFFF, e = size >> 23, first = size >> 15 & 255, b = u[i];
        e += b < first ? 1 : 0;
        exponent[i] = (uint8_t)(e > TOP ? TOP : e);
        minus[i] = (uint8_t)(x[i] >> 31);
        tie[i] = (uint8_t)(b == first ? 1 : 0);
    }
    for (int i = 0; i < n; i++) {
        union {
            uint32_t bits;
            float f;
        } a = {x[i] & 0x7FFFFFFF}, lo = {a.bits & 0x7F800000}, hi = {lo.bits + (lo.bits < 0x7F000000 ? 0x800000 : 0)};
        noise[i] = fabs(((double)a.f - (double)lo.f) * ((double)hi.f - (double)a.f));
    }
    return atomo__sum_chunk(noise, n);
}

ATOMO_CLONES static void add_chunk(const uint8_t *restrict exponent, const uint8_t *restrict minus, int n, float scale,
                                   float *restrict acc)
{
    for (int i = 0; i < n; i++) {
        union {
            uint32_t bits;
            float f;
        } v = {(uint32_t)exponent[i] << 23 | (uint32_t)minus[i] << 31};
        acc[i] += scale * v.f;
    }
}

static void break_ties(const uint32_t *x, int n, const uint8_t *tie, const uint8_t *low, const atomo__context *c,
                       uint32_t element, uint8_t *exponent)
{
    uint32_t at[ATOMO__CHUNK];
    float part[ATOMO__CHUNK];
    uint8_t up[ATOMO__CHUNK];
    const int m = atomo__ties(tie, n, at);
    for (int k = 0; k < m; k++)
        part[k] = atomo__strata_part(&c->strata, (float)(x[at[k]] & 0x7FFF) * 0x1p-15f, low + at[k]);
    atomo__break_ties(&c->stream, element, at, part, m, up);
    for (int k = 0; k < m; k++)
        if (up[k] && exponent[at[k]] < TOP) exponent[at[k]]++;
}

static int encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    double sum;
    float largest;
    uint32_t random[ATOMO__CHUNK / 4], x[ATOMO__CHUNK];
    uint8_t minus[ATOMO__CHUNK], tie[ATOMO__CHUNK], low[ATOMO__CHUNK];
    ATOMO_TRY(atomo__gradient_size(plan, g, &sum, &largest));
    ATOMO_REQUIRE(plan->codec->feedback || largest <= LARGEST, ATOMO_ENONFINITE,
                  "natural: gradient of tensor %s: entries up to %g, rounded up to a power of two, leave the range of "
                  "f32; expected at most 2^127",
                  plan->name, (double)largest);
    plan->variance = 0;
    plan->expected = plan->sent = (double)plan->n;
    for (int64_t at = 0; at < plan->n; at += ATOMO__CHUNK) {
        int len = (int)ATOMO_MIN((int64_t)ATOMO__CHUNK, plan->n - at);
        uint8_t *out = atomo__put_raw(w, chunk_bytes(len));
        if (!out) return ATOMO_OK;
        memcpy(x, g + at, 4 * (size_t)len);
        atomo__rounding_bytes(c, g + at, len, (uint32_t)(at / 16), random, low);
        plan->variance += round_chunk(x, len, (const uint8_t *)random, out, minus, tie);
        break_ties(x, len, tie, low, c, (uint32_t)at, out);
        atomo__pack(minus, len, 1, out + len);
    }
    return ATOMO_OK;
}

static int decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    (void)c;
    uint8_t minus[ATOMO__CHUNK];
    for (int64_t at = 0; at < plan->n; at += ATOMO__CHUNK) {
        int len = (int)ATOMO_MIN((int64_t)ATOMO__CHUNK, plan->n - at);
        const uint8_t *in = atomo__get_raw(r, chunk_bytes(len));
        if (!in || !atomo__unpack(in + len, len, 1, minus) || memchr(in, 255, (size_t)len)) return ATOMO_EFORMAT;
        add_chunk(in, minus, len, scale, acc + at);
    }
    return ATOMO_OK;
}

const struct atomo_compressor atomo_compressor_natural = {
    .name = "natural",
    .summary = "signs and powers of two, stochastically rounded: 9 bits an entry",
    .source = "Horvath et al., Natural compression, MSML 2022",
    .unbiased = true,
    .together = true,
    .contracts = true,
    .options = options,
    .stages = {.plan = plan, .encode = encode, .decode_add = decode_add},
};
