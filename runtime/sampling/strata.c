/* strata.c - uniforms of several ranks whose errors cancel in the mean of their messages; stage 5 of the path.
 *
 * A draw keeps an entry, or rounds it up, if a uniform u is below a probability p. If every rank draws for itself, the
 * variance of the mean of P messages is 1/P of one message's. It is smaller if the ranks' uniforms for an entry differ
 * [Suresh et al., "Correlated quantization for distributed mean estimation and optimization", ICML 2022]:
 *
 *   u_r = (pi(r) + v_r) / q,   pi(r) = a r + b in the field of q elements, q the power of two >= P,
 *
 * where v_r is the rank's own uniform, b is uniform in 0 .. q - 1 for each entry and a in 1 .. q - 1 for each tensor
 * and step; a and b come from a stream that all ranks share. Each u_r is uniform, so each message has the law, the
 * length and the variance that it has without the others. The strata of two ranks, pi(r) and pi(s), are uniform over
 * all pairs of different strata, as those of a uniform permutation are, and therefore negatively associated [Joag-Dev
 * and Proschan, Annals of Statistics 1983]. So decreasing functions of them have a covariance <= 0: the mean never has
 * a larger variance than that of independent draws, whatever the ranks' entries are. The sent value must decrease with
 * u for entries of both signs, so a negative entry uses stratum q - 1 - pi.
 *
 * The first byte of u decides, as in draw.c: with q = 2^k it is pi and the upper 8 - k bits of the rank's own byte. If
 * it equals the first byte of p, the other k bits of the own byte are the next ones, and then a stream of the rank.
 */
#include "sampling/sampling.h"
#ifdef ATOMO_X86
#include <immintrin.h>
#endif

enum { MOST_BITS = 8 }; /* strata are numbered by a byte; more than 2^8 ranks form groups, each with its own b */
/* The block of the shared stream that a comes from. Bytes of b come from lower ones: a message has fewer entries. */
static const uint32_t BLOCK_OF_A = UINT32_MAX;

/* Returns x y in the field of 2^bits elements, by polynomials over {0, 1} modulo an irreducible one. */
static uint32_t product(uint32_t x, uint32_t y, int bits)
{
    static const uint16_t modulus[MOST_BITS + 1] = {0, 0x3, 0x7, 0xB, 0x13, 0x25, 0x43, 0x83, 0x11B};
    uint32_t sum = 0;
    for (; y; y >>= 1) {
        sum ^= y & 1 ? x : 0;
        x <<= 1;
        x ^= x >> bits & 1 ? modulus[bits] : 0;
    }
    return sum;
}

atomo__strata atomo__strata_of(const atomo_stream *s, uint32_t ranks)
{
    atomo__strata t = {.bits = 0};
    uint32_t v[4];
    while (t.bits < MOST_BITS && 1u << t.bits < ranks) t.bits++;
    if (t.bits == 0) return t;
    t.shared = *s;
    t.shared.purpose = ATOMO_RNG_STRATA;
    t.shared.rank = s->rank >> t.bits; /* the group */
    atomo_random_block(&t.shared, BLOCK_OF_A, v);
    const uint32_t most = (1u << t.bits) - 1, a = 1 + (uint32_t)((uint64_t)v[0] * most >> 32);
    t.place = (uint8_t)product(a, s->rank & most, t.bits);
    return t;
}

/* A byte of the shared stream holds the b of several entries: of 16 entries each, the next 16 in the next `unit` bits,
 * the smallest power of two that holds b. */
static int unit_of(int bits)
{
    return bits <= 2 ? bits : bits <= 4 ? 4 : 8;
}

/* flip [n] = `most` for entries with a minus sign, else 0 */
ATOMO_CLONES static void flips(const float *restrict x, int n, uint8_t most, uint8_t *restrict flip)
{
    for (int i = 0; i < n; i++) {
        const union {
            float f;
            int32_t i;
        } v = {x[i]};
        flip[i] = (uint8_t)(v.i >> 31) & most;
    }
}

/* Returns a word with this byte eight times. */
static uint64_t eight(int byte)
{
    return 0x0101010101010101 * (uint64_t)(byte & 255);
}

enum { WORDS = ATOMO__STRATA_CHUNK / 8 };

/* b [2 groups] = the shared numbers of groups of 16 entries, from group `first` on, in words of eight bytes. shared:
 * bytes from the start of the first group's block on. */
static void shared_numbers(const atomo__strata *t, uint32_t first, int groups, const uint8_t *shared, uint64_t *b)
{
    const int unit = unit_of(t->bits), per = 8 / unit, skip = (int)(first % (uint32_t)per);
    const uint64_t of_pi = eight((1 << t->bits) - 1);
    for (int g = 0; g < groups; g++) {
        const int block = (g + skip) / per, shift = (g + skip) % per * unit;
        uint64_t word[2];
        memcpy(word, shared + 16 * block, sizeof word);
        b[2 * g] = word[0] >> shift & of_pi;
        b[2 * g + 1] = word[1] >> shift & of_pi;
    }
}

/* u, low [n] of words of eight bytes: no operation carries a bit into another byte. */
ATOMO_CLONES static void stratify(const atomo__strata *t, int n, const uint64_t *restrict b,
                                  const uint64_t *restrict flip, uint64_t *restrict u, uint64_t *restrict low)
{
    const int bits = t->bits, rest = 8 - bits;
    const uint64_t of_pi = eight((1 << bits) - 1), place = eight(t->place), of_rest = eight(255 >> bits);
    for (int i = 0; i < n; i++) {
        low[i] = u[i] & of_pi;
        u[i] = (b[i] ^ place ^ flip[i]) << rest | (u[i] >> bits & of_rest);
    }
}

#ifdef ATOMO_X86
/* shared_numbers, flips and stratify for 64 entries at a time, in AVX-512. The first group is the first of its block.
 * Returns the number of entries done, a multiple of 64. */
__attribute__((target("avx512f,avx512bw,avx512dq"))) static int
stratify_512(const atomo__strata *t, const float *x, int n, const uint8_t *shared, uint8_t *u, uint8_t *low)
{
    const int bits = t->bits, unit = unit_of(bits), per = 8 / unit;
    const __m512i of_pi = _mm512_set1_epi64((int64_t)eight((1 << bits) - 1)), place = _mm512_set1_epi8((char)t->place);
    const __m512i of_rest = _mm512_set1_epi64((int64_t)eight(255 >> bits));
    const __m128i down = _mm_cvtsi32_si128(bits), up = _mm_cvtsi32_si128(8 - bits);
    int64_t word[2][8], shift[2][8]; /* of the eight words of 64 entries: where they are, and in which bits */
    for (int odd = 0; odd < 2; odd++)
        for (int l = 0; l < 8; l++) {
            const int group = l / 2 + (per == 8 ? 4 * odd : 0);
            word[odd][l] = 2 * (group / per) + l % 2;
            shift[odd][l] = group % per * unit;
        }
    int i = 0;
    for (; i + 64 <= n; i += 64) {
        const int odd = i / 64 % 2;
        const __m512i from = _mm512_loadu_si512(shared + 16 * (i / 16 / per));
        __m512i b = _mm512_permutexvar_epi64(_mm512_loadu_si512(word[odd]), from);
        b = _mm512_and_si512(_mm512_srlv_epi64(b, _mm512_loadu_si512(shift[odd])), of_pi);
        uint64_t minus = 0;
        for (int q = 0; q < 4; q++)
            minus |= (uint64_t)_mm512_movepi32_mask(_mm512_loadu_si512(x + i + 16 * q)) << 16 * q;
        const __m512i own = _mm512_loadu_si512(u + i), flip = _mm512_maskz_mov_epi8(minus, of_pi);
        const __m512i pi = _mm512_ternarylogic_epi64(b, place, flip, 0x96);
        const __m512i rest = _mm512_and_si512(_mm512_srl_epi64(own, down), of_rest);
        _mm512_storeu_si512(low + i, _mm512_and_si512(own, of_pi));
        _mm512_storeu_si512(u + i, _mm512_or_si512(_mm512_sll_epi64(pi, up), rest));
    }
    return i;
}
#endif

/* shared = the bytes for `groups` groups of 16 entries from group `first` on, from the start of the first one's block.
 */
static void shared_bytes(const atomo__strata *t, uint32_t first, uint32_t groups, uint32_t *shared)
{
    const uint32_t per = 8 / (uint32_t)unit_of(t->bits), block = first / per;
    atomo__random_words(&t->shared, block, (first + groups - 1) / per - block + 1, shared);
}

void atomo__strata_bytes(const atomo__strata *t, const float *x, int n, uint32_t first, uint8_t *u, uint8_t *low)
{
    uint32_t shared[ATOMO__STRATA_CHUNK / 4 + 16]; /* with what the last load of stratify_512 may read beyond */
    uint64_t b[WORDS], flip[WORDS], own[WORDS], next[WORDS];
    if (t->bits == 0 || n <= 0) return;
    shared_bytes(t, first, (uint32_t)(n + 15) / 16, shared);
    const uint8_t *from = (const uint8_t *)shared;
#ifdef ATOMO_X86
    if (first % 8 == 0 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
        const int done = stratify_512(t, x, n, from, u, low), groups = done / 16;
        x += done, u += done, low += done, n -= done;
        first += (uint32_t)groups, from += 16 * (groups / (8 / unit_of(t->bits)));
        if (n <= 0) return;
    }
#endif
    const int groups = (n + 15) / 16;
    const size_t bytes = 16 * (size_t)groups;
    shared_numbers(t, first, groups, from, b);
    memset((uint8_t *)flip + n, 0, bytes - (size_t)n);
    flips(x, n, (uint8_t)((1 << t->bits) - 1), (uint8_t *)flip);
    memcpy(own, u, bytes);
    stratify(t, 2 * groups, b, flip, own, next);
    memcpy(u, own, bytes);
    memcpy(low, next, bytes);
}

uint32_t atomo__stratum_at(atomo__strata_reader *r, uint32_t i, bool minus)
{
    enum { GROUPS = ATOMO__STRATA_CHUNK / 16 };
    const atomo__strata *t = r->strata;
    if (t->bits == 0) return 0;
    if (r->chunk != i / ATOMO__STRATA_CHUNK) {
        r->chunk = i / ATOMO__STRATA_CHUNK;
        shared_bytes(t, (uint32_t)r->chunk * GROUPS, GROUPS, r->shared);
    }
    const uint32_t unit = (uint32_t)unit_of(t->bits), per = 8 / unit, group = i / 16 % GROUPS;
    const uint32_t byte = ((const uint8_t *)r->shared)[16 * (group / per) + i % 16], most = (1u << t->bits) - 1;
    const uint32_t pi = (byte >> group % per * unit & most) ^ t->place;
    return minus ? pi ^ most : pi;
}
