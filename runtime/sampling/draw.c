/* draw.c - draws atoms, independently (Bernoulli) or systematically; stage 5 of the path.
 *
 * Systematic: there is one uniform u for the tensor, and atom i is kept if the running sum of p crosses u + k for an
 * integer k. The keep-probabilities are the same, and so are mean and variance for orthogonal atoms, but the number of
 * atoms is always floor(s) or ceil(s). It is the default for tensors that send few, long atoms, whose independent draws
 * could exceed the budget of a step and change the price of the tensors that follow.
 *
 * Bernoulli: an entry is kept if u < p. The first byte of u decides in 255 of 256 cases, so that 16 entries share one
 * Philox block. If it equals the first byte of p, the next 64 bits, from another stream, decide. So p is exact to
 * 2^-72, with a quarter of the random numbers of a 32-bit u. A uniform of 24 bits would be 6 times too large at p =
 * 1e-8.
 */
#include "sampling/sampling.h"
#include <math.h>
#ifdef ATOMO_X86
#include <immintrin.h>
#endif

enum { CHUNK = 1024, LANES = 16 };

/* Returns whether a uniform of 64 bits (with more bits near 0) is below frac, 0 <= frac < 1. */
static bool below(const uint32_t v[4], double frac)
{
    return (double)(((uint64_t)v[0] << 32 | v[1]) >> 11) * 0x1p-53 < frac ||
           (frac > 0 && frac < 0x1p-53 && v[0] == 0 && (v[1] >> 11) == 0 &&
            (double)((uint64_t)(v[1] & 2047) << 32 | v[2]) * 0x1p-96 < frac);
}

bool atomo__sample_one(const atomo_stream *s, uint32_t i, double p)
{
    uint32_t v[4];
    if (p >= 1) return true;
    atomo_random_block(s, i, v);
    return below(v, p);
}

void atomo__sample_some(const atomo_stream *s, const uint32_t *i, const float *p, int n, uint8_t *drawn)
{
    uint32_t block[ATOMO__AT] = {0}, v[4 * ATOMO__AT];
    for (int at = 0; at < n; at += ATOMO__AT) {
        int m = ATOMO_MIN((int)ATOMO__AT, n - at);
        memcpy(block, i + at, sizeof *i * (size_t)m);
        atomo__random_at(s, block, v);
        for (int l = 0; l < m; l++) drawn[at + l] = below(v + 4 * l, (double)p[at + l]);
    }
}

uint64_t atomo__draw_start(const atomo_stream *s)
{
    atomo_stream own = *s;
    uint32_t v[4];
    own.purpose = ATOMO_RNG_SAMPLE;
    atomo_random_block(&own, 0, v);
    return (uint64_t)v[0] << 32 | v[1];
}

bool atomo__draw_next(atomo__draw *d, uint32_t i, double p)
{
    if (!d->fixed_count || p >= 1) return atomo__sample_one(&d->stream, i, p);
    uint64_t next = d->sum + (uint64_t)(p * 0x1p64);
    bool crossed = next < d->sum;
    d->sum = next;
    return crossed;
}

atomo__draw atomo__draw_of(const atomo_stream *s, bool fixed_count)
{
    atomo__draw d = {.stream = *s, .sum = fixed_count ? atomo__draw_start(s) : 0, .fixed_count = fixed_count};
    d.stream.purpose = ATOMO_RNG_SAMPLE;
    return d;
}

typedef float floats __attribute__((vector_size(64)));
typedef int32_t ints __attribute__((vector_size(64)));
typedef uint8_t bytes __attribute__((vector_size(16)));

typedef struct {
    float tau, scale, inverse;        /* scale: a power of two, tau * scale is near 1; inverse: 256 / (tau * scale) */
    float below[LANES], noise[LANES]; /* out: sums over the entries below tau of a and a (tau - a), a = |x| scale */
} classes;

/* cls[i] = the result of the first random byte: 0 not drawn, 1 drawn, 2 not decided, 3 saturated (|x| >= tau). Sets the
 * sums of c. */
ATOMO_CLONES static void classify(const float *x, const uint8_t *u, classes *c, uint8_t *cls)
{
    const float tau = c->tau * c->scale, scale = c->scale, inverse = c->inverse;
    floats below = {0}, noise = {0};
    for (int i = 0; i < CHUNK; i += LANES) {
        floats a;
        bytes b;
        memcpy(&a, x + i, sizeof a);
        memcpy(&b, u + i, sizeof b);
        a = (floats)((ints)a & 0x7FFFFFFF) * scale;
        ints in = a >= tau;
        floats rest = (floats)((ints)a & ~in), t = rest * inverse; /* 256 p */
        ints q = __builtin_convertvector(t, ints), draw = __builtin_convertvector(b, ints);
        q += q > 255; /* a comparison is -1 if true: 256, from a p that was rounded up to 1, becomes 255 */
        b = __builtin_convertvector((in & 3) | (~in & (((draw < q) & 1) | ((draw == q) & 2))), bytes);
        memcpy(cls + i, &b, sizeof b);
        below += rest;
        noise += rest * (tau - rest);
    }
    memcpy(c->below, &below, sizeof below);
    memcpy(c->noise, &noise, sizeof noise);
}

static inline uint32_t marked(float x, int64_t i) /* index i with x's sign in the top bit */
{
    uint32_t v;
    memcpy(&v, &x, 4);
    return (uint32_t)i | (v & ATOMO__MINUS);
}

static void keep_all(const float *x, int64_t n, uint32_t *index, atomo__drawn *d)
{
    for (int64_t i = n - 1; i >= 0; i--)
        if (x[i] != 0) index[n - ++d->kept] = marked(x[i], i);
}

/* Lists the entries of class 2 in ascending order; returns their number. */
static int ties(const uint8_t *cls, uint16_t *tied)
{
    int n = 0;
    for (int i = 0; i < CHUNK; i += 8) {
        uint64_t eight;
        memcpy(&eight, cls + i, 8);
        eight = eight >> 1 & ~eight & 0x0101010101010101;
        for (; eight; eight &= eight - 1) tied[n++] = (uint16_t)(i + __builtin_ctzll(eight) / 8);
    }
    return n;
}

/* Decides the entries of class 2, which `tied` lists, by 64 more random bits. */
static void decide(const float *x, int64_t at, const classes *c, const atomo_stream *tail, const atomo__strata *t,
                   const uint8_t *low, const uint16_t *tied, int n, uint8_t *cls)
{
    uint32_t element[CHUNK];
    float part[CHUNK];
    uint8_t drawn[CHUNK];
    for (int k = 0; k < n; k++) {
        const int j = tied[k];
        float p = fabsf(x[j]) * c->scale * c->inverse, whole = ATOMO_MIN(floorf(p), 255);
        element[k] = (uint32_t)(at + j);
        part[k] = atomo__strata_part(t, p - whole, low + j);
    }
    atomo__sample_some(tail, element, part, n, drawn);
    for (int k = 0; k < n; k++) cls[element[k] - at] = drawn[k];
}

typedef struct {
    uint32_t drawn[CHUNK + LANES], kept[CHUNK + LANES];
    int m, h;
} picked;

/* Lists the indices at + i of the drawn (cls[i] = 1) and the saturated (3) entries, with x's sign in the top bit. */
static void pick(const float *x, int64_t at, const uint8_t *cls, picked *p)
{
    int m = 0, h = 0;
    for (int i = 0; i < CHUNK; i += 8) {
        uint64_t eight;
        memcpy(&eight, cls + i, 8);
        for (int j = i; eight && j < i + 8; j++) {
            p->drawn[m] = p->kept[h] = marked(x[j], at + j);
            m += cls[j] == 1;
            h += cls[j] == 3;
        }
    }
    p->m = m;
    p->h = h;
}

#ifdef ATOMO_X86
/* classify, ties and pick with the same operations in AVX-512, since the compiler splits vectors of bytes into single
 * bytes. */
__attribute__((target("avx512f,avx512bw,avx512vl"))) static void classify_512(const float *x, const uint8_t *u,
                                                                              classes *c, uint8_t *cls)
{
    const __m512 tau = _mm512_set1_ps(c->tau * c->scale), scale = _mm512_set1_ps(c->scale);
    const __m512 inverse = _mm512_set1_ps(c->inverse);
    const __m512i most = _mm512_set1_epi32(255);
    __m512 below = _mm512_setzero_ps(), noise = _mm512_setzero_ps();
    for (int i = 0; i < CHUNK; i += LANES) {
        __m512i size = _mm512_and_si512(_mm512_loadu_si512(x + i), _mm512_set1_epi32(INT32_MAX));
        __m512 a = _mm512_mul_ps(_mm512_castsi512_ps(size), scale);
        __mmask16 in = _mm512_cmp_ps_mask(a, tau, _CMP_GE_OQ);
        __m512 rest = _mm512_maskz_mov_ps((__mmask16)~in, a);
        __m512i q = _mm512_min_epi32(_mm512_cvttps_epi32(_mm512_mul_ps(rest, inverse)), most);
        __m512i draw = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(u + i)));
        __mmask16 drawn = _mm512_cmplt_epi32_mask(draw, q), tied = _mm512_cmpeq_epi32_mask(draw, q);
        __m128i b = _mm_maskz_mov_epi8(drawn, _mm_set1_epi8(1));
        b = _mm_mask_mov_epi8(b, tied, _mm_set1_epi8(2));
        b = _mm_mask_mov_epi8(b, in, _mm_set1_epi8(3));
        _mm_storeu_si128((__m128i *)(void *)(cls + i), b);
        below = _mm512_add_ps(below, rest);
        noise = _mm512_add_ps(noise, _mm512_mul_ps(rest, _mm512_sub_ps(tau, rest)));
    }
    _mm512_storeu_ps(c->below, below);
    _mm512_storeu_ps(c->noise, noise);
}

__attribute__((target("avx512f,avx512bw,avx512vl"))) static int ties_512(const uint8_t *cls, uint16_t *tied)
{
    int n = 0;
    for (int i = 0; i < CHUNK; i += 64) {
        uint64_t mask = _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(cls + i), _mm512_set1_epi8(2));
        for (; mask; mask &= mask - 1) tied[n++] = (uint16_t)(i + __builtin_ctzll(mask));
    }
    return n;
}

__attribute__((target("avx512f,avx512bw,avx512vl"))) static void pick_compress(const float *x, int64_t at,
                                                                               const uint8_t *cls, picked *p)
{
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int m = 0, h = 0;
    for (int i = 0; i < CHUNK; i += LANES) {
        __m128i c = _mm_loadu_si128((const __m128i *)(const void *)(cls + i));
        __mmask16 drawn = _mm_cmpeq_epi8_mask(c, _mm_set1_epi8(1)), kept = _mm_cmpeq_epi8_mask(c, _mm_set1_epi8(3));
        __m512i sign = _mm512_and_si512(_mm512_loadu_si512(x + i), _mm512_set1_epi32(INT32_MIN));
        __m512i v = _mm512_or_si512(_mm512_add_epi32(lanes, _mm512_set1_epi32((int)(at + i))), sign);
        _mm512_storeu_si512(p->drawn + m, _mm512_maskz_compress_epi32(drawn, v));
        _mm512_storeu_si512(p->kept + h, _mm512_maskz_compress_epi32(kept, v));
        m += __builtin_popcount(drawn);
        h += __builtin_popcount(kept);
    }
    p->m = m;
    p->h = h;
}

#endif

static void bernoulli(const float *x, int64_t n, classes *c, const atomo_stream *s, const atomo__strata *t,
                      uint32_t *index, atomo__drawn *d)
{
    atomo_stream first = *s, tail = *s;
    first.purpose = ATOMO_RNG_SAMPLE;
    tail.purpose = ATOMO_RNG_SAMPLE_TAIL;
    uint32_t words[CHUNK / 4];
    uint8_t cls[CHUNK], low[CHUNK];
    uint16_t tied[CHUNK];
    float last[CHUNK] = {0};
    picked p;
    void (*classify_best)(const float *, const uint8_t *, classes *, uint8_t *) = classify;
    int (*ties_best)(const uint8_t *, uint16_t *) = ties;
    void (*pick_best)(const float *, int64_t, const uint8_t *, picked *) = pick;
#ifdef ATOMO_X86
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
        classify_best = classify_512;
        ties_best = ties_512;
        pick_best = pick_compress;
    }
#endif
    for (int64_t at = 0; at < n; at += CHUNK) {
        int len = (int)ATOMO_MIN((int64_t)CHUNK, n - at);
        const float *from = x + at;
        if (len < CHUNK) from = memcpy(last, from, sizeof(float) * (size_t)len);
        const int64_t ahead = ATOMO_MIN((int64_t)CHUNK, n - at - len);
        for (int64_t i = 0; i < ahead; i += LANES) __builtin_prefetch(x + at + len + i); /* for the next chunk */
        atomo__random_words(&first, (uint32_t)(at / 16), CHUNK / 16, words);
        atomo__strata_bytes(t, from, CHUNK, (uint32_t)(at / 16), (uint8_t *)words, low);
        classify_best(from, (const uint8_t *)words, c, cls);
        memset(cls + len, 0, (size_t)(CHUNK - len));
        for (int l = 0; l < LANES; l++) {
            d->below += (double)c->below[l];
            d->noise += (double)c->noise[l];
        }
        decide(from, at, c, &tail, t, low, tied, ties_best(cls, tied), cls);
        pick_best(from, at, cls, &p);
        atomo__survey(from, at, p.kept, p.h, &d->saturated);
        memcpy(index + d->drawn, p.drawn, sizeof(uint32_t) * (size_t)p.m);
        d->drawn += p.m;
        for (int i = 0; i < p.h; i++) index[n - ++d->kept] = p.kept[i]; /* in descending order, from the end */
    }
}

/* Systematic sampling: entry i is kept if the running sum of p, in 64-bit fractions that start at u, overflows. */
static void systematic(const float *x, int64_t n, const classes *c, const atomo_stream *s, uint32_t *index,
                       atomo__drawn *d)
{
    uint64_t sum = atomo__draw_start(s);
    const double scale = (double)c->scale, tau = (double)c->tau * scale, inverse = 0x1p64 / tau;
    for (int64_t i = 0; i < n; i++) {
        double a = fabs((double)x[i]) * scale;
        if (a >= tau) {
            uint32_t kept = index[n - ++d->kept] = marked(x[i], i);
            atomo__survey(x, 0, &kept, 1, &d->saturated);
            continue;
        }
        uint64_t next = sum + (uint64_t)(a * inverse);
        if (next < sum) index[d->drawn++] = marked(x[i], i);
        sum = next;
        d->below += a;
        d->noise += a * (tau - a);
    }
}

/* Scale of probabilities for comparison with a random byte. */
static const float EIGHT_BITS = 256;
/* The largest exponent e for which 2^e and 2^-e are normal floats. */
enum { MOST_EXPONENT = 126 };

void atomo__sample_entries(const float *x, int64_t n, float tau, const atomo_stream *s, const atomo__strata *t,
                           bool fixed_count, double step, uint32_t *index, atomo__drawn *d)
{
    memset(d, 0, sizeof *d);
    d->saturated =
        (atomo__saturated){.tau = (double)tau, .inverse = step > 0 && tau > 0 ? 1 / (step * (double)tau) : 0};
    if (!(tau > 0)) {
        keep_all(x, n, index, d);
        return;
    }
    if (isinf(tau)) return;
    int e;
    frexpf(tau, &e); /* 2^-e scales tau to near 1, so that EIGHT_BITS / tau does not overflow */
    e = ATOMO_MAX(ATOMO_MIN(e, MOST_EXPONENT), -MOST_EXPONENT);
    classes c = {.tau = tau, .scale = ldexpf(1, -e)};
    c.inverse = EIGHT_BITS / (tau * c.scale);
    if (fixed_count)
        systematic(x, n, &c, s, index, d);
    else
        bernoulli(x, n, &c, s, t, index, d);
    uint32_t *end = index + n - d->kept;
    for (int64_t i = 0, j = d->kept - 1; i < j; i++, j--) { /* reverses the saturated entries to ascending order */
        uint32_t v = end[i];
        end[i] = end[j];
        end[j] = v;
    }
    d->below = ldexp(d->below, e);
    d->noise = ldexp(d->noise, 2 * e);
}
