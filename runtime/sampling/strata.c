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

/* shared = the bytes for `groups` groups of 16 entries from group `first` on, from the start of the first one's block.
 */
static void shared_bytes(const atomo__strata *t, uint32_t first, uint32_t groups, uint32_t *shared)
{
    const uint32_t per = 8 / (uint32_t)unit_of(t->bits), block = first / per;
    atomo__random_words(&t->shared, block, (first + groups - 1) / per - block + 1, shared);
}

void atomo__strata_bytes(const atomo__strata *t, const float *x, int n, uint32_t first, uint8_t *u, uint8_t *low)
{
    uint32_t shared[ATOMO__STRATA_CHUNK / 4];
    uint64_t b[WORDS], flip[WORDS], own[WORDS], next[WORDS];
    const int groups = (n + 15) / 16;
    const size_t bytes = 16 * (size_t)groups;
    if (t->bits == 0 || n <= 0) return;
    shared_bytes(t, first, (uint32_t)groups, shared);
    shared_numbers(t, first, groups, (const uint8_t *)shared, b);
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
