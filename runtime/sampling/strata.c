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

ATOMO_CLONES static void stratify(const float *restrict x, int n, int bits, uint8_t place,
                                  const uint8_t *restrict shared, uint8_t *restrict u, uint8_t *restrict low)
{
    const int rest = 8 - bits;
    const uint8_t most = (uint8_t)((1 << bits) - 1);
    for (int i = 0; i < n; i++) {
        const uint8_t pi = (uint8_t)(shared[i] >> rest ^ place ^ (x[i] < 0 ? most : 0));
        low[i] = u[i] & most;
        u[i] = (uint8_t)(pi << rest | u[i] >> bits);
    }
}

void atomo__strata_bytes(const atomo__strata *t, const float *x, int n, uint32_t first, uint8_t *u, uint8_t *low)
{
    uint32_t shared[ATOMO__STRATA_CHUNK / 4];
    if (t->bits == 0) return;
    atomo__random_words(&t->shared, first, (uint32_t)(n + 15) / 16, shared);
    stratify(x, n, t->bits, t->place, (const uint8_t *)shared, u, low);
}

uint32_t atomo__stratum_at(atomo__strata_reader *r, uint32_t i, bool minus)
{
    const atomo__strata *t = r->strata;
    if (t->bits == 0) return 0;
    if (r->chunk != i / ATOMO__STRATA_CHUNK) {
        r->chunk = i / ATOMO__STRATA_CHUNK;
        atomo__random_words(&t->shared, (uint32_t)(r->chunk * (ATOMO__STRATA_CHUNK / 16)), ATOMO__STRATA_CHUNK / 16,
                            r->shared);
    }
    const uint8_t byte = ((const uint8_t *)r->shared)[i % ATOMO__STRATA_CHUNK];
    const uint32_t pi = (uint32_t)byte >> (8 - t->bits) ^ t->place;
    return minus ? pi ^ ((1u << t->bits) - 1) : pi;
}
