/* rans.c - entropy coding of symbols whose probabilities sender and receiver know; stage 6 of the path.
 *
 * Duda, "Asymmetric numeral systems: entropy coding combining speed of Huffman coding with compression rate of
 * arithmetic coding", 2013. Divisions by a constant are multiplications (Granlund and Montgomery, "Division by
 * invariant integers using multiplication", PLDI 1994). A state has 31 bits and is written and refilled 16 bits at a
 * time. Long sequences have four states, one for every fourth symbol, so that a symbol need not wait for the one before
 * it. The writer goes through the symbols backwards, the reader forwards. The length is the entropy under the given
 * probabilities plus 16 bits per state. The reader ends with every state at 2^15, or the sequence is malformed: one
 * that was changed passes with a probability of 2^-16. It never reads past the end.
 */
#include "coding/rans.h"

enum { WAYS = 4, FEW = 8192 };          /* states; sequences of fewer symbols have one */
static const uint32_t LEAST = 1u << 15; /* the least value of a state; the largest is 2^31 - 1 */

static int ways_of(int64_t n)
{
    return n < FEW ? 1 : WAYS;
}

/* How a symbol changes the state x: x becomes x + bias + x / share * rest, after 16 bits are written if x >= most. The
 * quotient is x * inverse / 2^(32 + shift). */
typedef struct {
    uint32_t inverse, bias, most, rest;
    int shift;
} transition;

static transition transition_of(uint32_t share, uint32_t start)
{
    transition s = {.most = share << (31 - ATOMO__RANS_BITS), .rest = (1u << ATOMO__RANS_BITS) - share};
    if (share == 1) { /* the largest inverse of 32 bits gives x - 1 for x / 1; the bias compensates */
        s.inverse = UINT32_MAX;
        s.bias = start + s.rest;
        return s;
    }
    while (share > 1u << s.shift) s.shift++;
    s.inverse = (uint32_t)((((uint64_t)1 << (s.shift + 31)) + share - 1) / share);
    s.bias = start;
    s.shift--;
    return s;
}

void atomo__rans_write(atomo__writer *w, const uint16_t *share, int count, const uint8_t *symbol, int64_t n,
                       uint16_t *work)
{
    transition of[ATOMO__RANS_SYMBOLS];
    uint32_t start = 0, state[WAYS] = {LEAST, LEAST, LEAST, LEAST};
    for (int i = 0; i < count; start += share[i++]) of[i] = transition_of(share[i], start);
    const int ways = ways_of(n);
    int64_t words = 0;
    for (int64_t i = n - 1; i >= 0; i--) {
        const transition *s = &of[symbol[i]];
        uint32_t x = state[i & (ways - 1)];
        work[words] = (uint16_t)x;
        const bool full = x >= s->most;
        words += full;
        x = full ? x >> 16 : x;
        const uint32_t quotient = (uint32_t)((uint64_t)x * s->inverse >> 32) >> s->shift;
        state[i & (ways - 1)] = x + s->bias + quotient * s->rest;
    }
    for (int j = 0; j < ways; j++) atomo__put(w, state[j], 31);
    for (int64_t i = words - 1; i >= 0; i--) atomo__put(w, work[i], 16);
}

bool atomo__rans_read(atomo__reader *r, const uint16_t *share, int count, int64_t n, uint8_t *symbol)
{
    uint8_t of[1 << ATOMO__RANS_BITS];
    uint16_t start[ATOMO__RANS_SYMBOLS];
    uint32_t at = 0, state[WAYS];
    for (int i = 0; i < count; at += share[i++]) {
        start[i] = (uint16_t)at;
        memset(of + at, i, share[i]);
    }
    const int ways = ways_of(n);
    for (int j = 0; j < ways; j++) {
        state[j] = atomo__get(r, 31);
        r->bad |= state[j] < LEAST;
    }
    atomo__reader own = *r;
    for (int64_t i = 0; i < n && !own.bad; i++) {
        uint32_t x = state[i & (ways - 1)];
        const uint32_t slot = x & ((1u << ATOMO__RANS_BITS) - 1);
        const uint8_t s = symbol[i] = of[slot];
        x = share[s] * (x >> ATOMO__RANS_BITS) + slot - start[s];
        if (x < LEAST) x = x << 16 | atomo__get(&own, 16);
        state[i & (ways - 1)] = x;
    }
    *r = own;
    for (int j = 0; j < ways; j++) r->bad |= state[j] != LEAST;
    return !r->bad;
}
