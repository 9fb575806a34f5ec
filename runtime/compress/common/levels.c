/* levels.c - codes entries as integers times one scale, stochastically rounded; stage 6 of the path.
 *
 * QSGD [Alistarh et al., NeurIPS 2017], equation 3: |x|/scale times s is between levels j and j + 1, and is rounded to
 * j + 1 with probability equal to its fraction f. So the mean is x, and the variance is (scale/s)^2 f (1 - f). s = 1 is
 * the rule of TernGrad and 1-bit QSGD. The fraction is compared with one random byte. If the first 8 bits of the
 * fraction equal the byte (1 entry of 256), 64 bits of another stream decide, so probabilities are exact to 2^-72 with
 * about one random byte per entry.
 */
#include "compress/common/levels.h"
#include <float.h>
#include <math.h>

/* Rounds by the first byte: code[i] is rounded down if the byte equals the fraction's first 8 bits, and tie[i] is 1
 * then. Returns the sum of f (1 - f). */
ATOMO_CLONES static double round_chunk(const float *restrict x, int n, atomo__inverse inv, float levels,
                                       const uint8_t *restrict u, uint8_t *restrict code, uint8_t *restrict tie)
{
    float noise[ATOMO__CHUNK];
    const int32_t middle = (int32_t)levels;
    for (int i = 0; i < n; i++) {
        float t = (fabsf(x[i]) * inv.up) * inv.rest;
        t = t < levels ? t : levels;
        int32_t j = (int32_t)t;
        float f = t - (float)j;
        int32_t f256 = (int32_t)(f * 256), b = u[i];
        j += b < f256 ? 1 : 0;
        noise[i] = f - f * f;
        tie[i] = (uint8_t)(b == f256 ? 1 : 0);
        code[i] = (uint8_t)(middle + (x[i] < 0 ? -j : j));
    }
    for (int i = n; i < ATOMO__CHUNK; i++) noise[i] = 0;
    float sum[16] = {0};
    for (int i = 0; i < ATOMO__CHUNK; i += 16)
        for (int l = 0; l < 16; l++) sum[l] += noise[i + l];
    double all = 0;
    for (int l = 0; l < 16; l++) all += (double)sum[l];
    return all;
}

int atomo__ties(const uint8_t *tie, int n, uint32_t *at)
{
    int m = 0, i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t eight;
        memcpy(&eight, tie + i, 8);
        for (; eight; eight &= eight - 1) at[m++] = (uint32_t)(i + __builtin_ctzll(eight) / 8);
    }
    for (; i < n; i++)
        if (tie[i]) at[m++] = (uint32_t)i;
    return m;
}

void atomo__break_ties(const atomo_stream *s, uint32_t element, const uint32_t *at, const float *part, int m,
                       uint8_t *up)
{
    atomo_stream tail = *s;
    uint32_t index[ATOMO__CHUNK];
    tail.purpose = ATOMO_RNG_SAMPLE_TAIL;
    for (int k = 0; k < m; k++) index[k] = element + at[k];
    atomo__sample_some(&tail, index, part, m, up);
}

void atomo__rounding_bytes(const atomo__context *c, const float *x, int n, uint32_t first, uint32_t *words,
                           uint8_t *low)
{
    atomo_stream bytes = c->stream;
    bytes.purpose = ATOMO_RNG_SAMPLE;
    atomo__random_words(&bytes, first, (uint32_t)(n + 15) / 16, words);
    atomo__strata_bytes(&c->strata, x, n, first, (uint8_t *)words, low);
}

double atomo__levels_round(const float *x, int n, atomo__inverse inv, int levels, const atomo__context *c,
                           uint32_t first, uint32_t element, uint8_t *code)
{
    uint32_t words[ATOMO__CHUNK / 4], at[ATOMO__CHUNK];
    float part[ATOMO__CHUNK];
    uint8_t tie[ATOMO__CHUNK], up[ATOMO__CHUNK], low[ATOMO__CHUNK];
    atomo__rounding_bytes(c, x, n, first, words, low);
    double noise = round_chunk(x, n, inv, (float)levels, (const uint8_t *)words, code, tie);
    const int m = atomo__ties(tie, n, at);
    for (int k = 0; k < m; k++) {
        float t = (fabsf(x[at[k]]) * inv.up) * inv.rest, f;
        t = t < (float)levels ? t : (float)levels;
        f = (t - floorf(t)) * 256;
        part[k] = atomo__strata_part(&c->strata, f - floorf(f), low + at[k]);
    }
    atomo__break_ties(&c->stream, element, at, part, m, up);
    for (int k = 0; k < m; k++)
        if (up[k]) code[at[k]] = (uint8_t)(code[at[k]] + (x[at[k]] < 0 ? -1 : 1));
    return noise;
}

ATOMO_CLONES uint8_t atomo__highest_code(const uint8_t *code, int n)
{
    uint8_t most = 0;
    for (int i = 0; i < n; i++) most = code[i] > most ? code[i] : most;
    return most;
}

ATOMO_CLONES static void add_codes(const uint8_t *restrict code, int n, int levels, float step, float *restrict acc)
{
    for (int i = 0; i < n; i++) acc[i] += (float)((int32_t)code[i] - levels) * step;
}

bool atomo__levels_add(const uint8_t *code, int n, int levels, float step, float *acc)
{
    if (atomo__highest_code(code, n) > 2 * levels) return false;
    add_codes(code, n, levels, step, acc);
    return true;
}

/* ---- a vector of one scale ---- */
atomo__inverse atomo__inverse_of(float scale, int levels)
{
    int e;
    frexpf(scale, &e);
    e = ATOMO_MAX(ATOMO_MIN(e, 126), -126);
    float up = ldexpf(1, -e);
    return (atomo__inverse){up, (float)levels / (scale * up)};
}

typedef void codes_fn(void *to, const uint8_t *code, int n);

static double write_codes(const float *x, int64_t n, float scale, int bits, const atomo__context *c, uint32_t first,
                          uint32_t element, codes_fn *put, void *to)
{
    const int levels = atomo__levels_of(bits);
    const atomo__inverse inv = atomo__inverse_of(scale, levels);
    uint8_t code[ATOMO__CHUNK];
    double noise = 0;
    for (int64_t at = 0; at < n; at += ATOMO__CHUNK) {
        int len = (int)ATOMO_MIN((int64_t)ATOMO__CHUNK, n - at);
        noise +=
            atomo__levels_round(x + at, len, inv, levels, c, first + (uint32_t)(at / 16), element + (uint32_t)at, code);
        put(to, code, len);
    }
    double step = (double)scale / levels;
    return noise * step * step;
}

typedef struct {
    atomo__writer *w;
    int bits;
} packed;

static void put_packed(void *to, const uint8_t *code, int n)
{
    packed *p = to;
    uint8_t *out = atomo__put_raw(p->w, atomo__packed_size(n, p->bits));
    if (out) atomo__pack(code, n, p->bits, out);
}

/* Returns factor * scale / levels as f32; the float below it if `levels` steps, which are factor * scale except for
 * rounding, would be infinite. */
static float step_of(float factor, float scale, int levels)
{
    const double top = fabs((double)factor * (double)scale);
    const float step = (float)((double)factor * (double)scale / levels);
    return top <= (double)FLT_MAX && isinf((float)levels * step) ? nextafterf(step, 0) : step;
}

double atomo__levels_write(atomo__writer *w, const float *x, int64_t n, float scale, int bits, const atomo__context *c,
                           uint32_t first, uint32_t element)
{
    atomo__put_raw_f32(w, scale);
    if (!(scale > 0)) return 0;
    packed to = {w, bits};
    return write_codes(x, n, scale, bits, c, first, element, put_packed, &to);
}

void atomo__levels_read(atomo__reader *r, int64_t n, int bits, float factor, float *acc)
{
    const int levels = atomo__levels_of(bits);
    const float scale = atomo__get_raw_f32(r), step = step_of(factor, scale, levels);
    uint8_t code[ATOMO__CHUNK];
    if (!(scale >= 0) || !isfinite(scale)) r->bad = true;
    for (int64_t at = 0; at < n && scale > 0 && !r->bad; at += ATOMO__CHUNK) {
        int len = (int)ATOMO_MIN((int64_t)ATOMO__CHUNK, n - at);
        const uint8_t *in = atomo__get_raw(r, atomo__packed_size(len, bits));
        if (!in || !atomo__unpack(in, len, bits, code) || !atomo__levels_add(code, len, levels, step, acc + at))
            r->bad = true;
    }
}

size_t atomo__levels_bytes(int64_t n, int bits)
{
    return 4 + (size_t)(n / ATOMO__CHUNK) * (ATOMO__CHUNK / 8) * (size_t)bits +
           atomo__packed_size((int)(n % ATOMO__CHUNK), bits);
}

/* ---- the same in Elias gamma codes: v >= 1 is written as floor(log2 v) zeros, a one, and the bits below its first one
 */
static void put_gamma(atomo__writer *w, uint32_t v)
{
    int bits = 31 - __builtin_clz(v);
    atomo__put_unary(w, (uint64_t)bits);
    atomo__put(w, v & ((1u << bits) - 1), bits);
}

static uint32_t get_gamma(atomo__reader *r)
{
    int bits = (int)atomo__get_unary(r, 31);
    return 1u << bits | atomo__get(r, bits);
}

typedef struct {
    atomo__writer *w;
    int levels;
    uint32_t gap; /* 1 + number of zero codes since the last code that is not 0 */
} gaps;

static void put_gaps(void *to, const uint8_t *code, int n)
{
    gaps *g = to;
    for (int i = 0; i < n; i++, g->gap++) {
        int j = code[i] - g->levels;
        if (j == 0) continue;
        put_gamma(g->w, g->gap);
        atomo__put(g->w, j < 0, 1);
        if (g->levels > 1) put_gamma(g->w, (uint32_t)(j < 0 ? -j : j));
        g->gap = 0;
    }
}

double atomo__levels_write_elias(atomo__writer *w, const float *x, int64_t n, float scale, int bits,
                                 const atomo__context *c, uint32_t first, uint32_t element)
{
    atomo__put_f32(w, scale);
    if (!(scale > 0)) return 0;
    gaps to = {w, atomo__levels_of(bits), 1};
    double variance = write_codes(x, n, scale, bits, c, first, element, put_gaps, &to);
    put_gamma(w, to.gap); /* the gap to the end */
    return variance;
}

void atomo__levels_read_elias(atomo__reader *r, int64_t n, int bits, float factor, float *acc)
{
    const int levels = atomo__levels_of(bits);
    const float scale = atomo__get_f32(r), step = step_of(factor, scale, levels);
    if (!(scale >= 0) || !isfinite(scale)) r->bad = true;
    for (int64_t at = -1; scale > 0 && !r->bad;) {
        at += get_gamma(r);
        if (at == n || r->bad) return;
        bool minus = atomo__get(r, 1);
        uint32_t j = levels > 1 ? get_gamma(r) : 1;
        if (at > n || j > (uint32_t)levels) r->bad = true;
        if (!r->bad) acc[at] += (minus ? -(float)j : (float)j) * step;
    }
}

size_t atomo__levels_bytes_elias(int64_t n, int bits)
{
    /* a gap of v takes at most 1.5 v bits (1 for v = 1, 3 for 2 and 3, 5 for 4 to 7), a sign 1, a level 2 * bits - 3 */
    return 16 + ((size_t)n * (size_t)(3 + ATOMO_MAX(0, 2 * bits - 3)) + 7) / 8;
}
