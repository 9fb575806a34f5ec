/* prefix_code.c - writes and reads many short prefix codes at once: four with one store, several with one table lookup;
 * stages 6 and 8 of the path.
 *
 * If codes are processed one by one, each waits for the length of the one before, about ten cycles. When writing, the
 * lengths are known, so four codes are joined by vector operations and stored together. When reading, the next ten bits
 * are the index of a table entry with all codes that end within them. The bits are the same as with single codes. Codes
 * that are too long are left to the caller. Nothing is read or written beyond the end of the data.
 */
#include "coding/prefix_code.h"
#include <pthread.h>

enum { LOOKUP_BITS = 10, LOOKUP_SIZE = 1 << LOOKUP_BITS, GROUP = 4, UNROLL = 4 };

/* ---- writing ---- */
ATOMO_CLONES static void join(const uint32_t *restrict code, const uint32_t *restrict bits, int groups,
                              uint64_t *restrict joined, uint32_t *restrict length)
{
    for (int i = 0; i < groups; i++) {
        const uint32_t *c = code + GROUP * i, *b = bits + GROUP * i;
        uint64_t first = c[0] | (uint64_t)c[1] << (b[0] & 63), second = c[2] | (uint64_t)c[3] << (b[2] & 63);
        joined[i] = first | second << ((b[0] + b[1]) & 63);
        length[i] = b[0] + b[1] + b[2] + b[3];
    }
}

int atomo__put_codes(atomo__writer *w, const uint32_t *code, const uint32_t *bits, int n)
{
    uint64_t joined[ATOMO__CODES / GROUP];
    uint32_t length[ATOMO__CODES / GROUP];
    const int groups = n / GROUP;
    join(code, bits, groups, joined, length);
    atomo__put_code(w, 0, 0);
    for (int i = 0, at = 0; at < n; i++) {
        if (i < groups && length[i] <= 56 && w->size + 8 <= w->capacity) {
            atomo__put_long(w, joined[i], (int)length[i]);
            at += GROUP;
            continue;
        }
        for (const int end = ATOMO_MIN(at + GROUP, n); at < end; at++) {
            if (bits[at] > 32) return at;
            atomo__put_code(w, code[at], (int)bits[at]);
        }
    }
    return n;
}

/* ---- reading ---- */
/* The first codes that are complete within LOOKUP_BITS bits, at most GROUP. */
typedef struct {
    uint16_t symbol[GROUP]; /* gaps: index relative to the start; values: the value; the sign in the top bit */
    uint16_t last;          /* gaps: one more than the last index; values: 0 */
    uint8_t count, bits;    /* number of codes, their bits together */
    uint32_t unused;        /* pads to 16 bytes */
} lookup;

static lookup gaps[2][ATOMO__LOOKUP_ORDERS][LOOKUP_SIZE], values[ATOMO__LOOKUP_ORDERS][LOOKUP_SIZE];

/* *symbol = the gap coded by the lowest of `left` bits of word. Returns the code's length, or 0 if it is not complete.
 */
static int gap_in(uint32_t word, int left, int k, int sign_bits, uint32_t *symbol)
{
    int zeros = word ? __builtin_ctz(word) : LOOKUP_BITS, length = zeros + 1 + k + sign_bits;
    uint32_t rest = word >> (zeros + 1);
    *symbol = ((uint32_t)zeros << k) | (rest & ((1u << k) - 1));
    if (sign_bits) *symbol |= (rest >> k & 1) << 15;
    return length <= left ? length : 0;
}

static int value_in(uint32_t word, int left, int k, uint32_t *symbol)
{
    uint32_t rest = word >> 1;
    int zeros = rest ? __builtin_ctz(rest) : LOOKUP_BITS, bits = zeros + k, length = 2 + zeros + bits;
    if (length > left) return 0;
    *symbol = ((1u << bits) | (rest >> (zeros + 1) & ((1u << bits) - 1))) - (1u << k);
    *symbol |= (word & 1) << 15;
    return length;
}

static void fill(lookup *table, int k, int sign_bits, bool of_gaps)
{
    for (uint32_t word = 0; word < LOOKUP_SIZE; word++) {
        lookup *e = &table[word];
        uint32_t next = 0, symbol = 0;
        int length;
        while (e->count < GROUP) {
            uint32_t rest = word >> e->bits;
            int left = LOOKUP_BITS - e->bits;
            length = of_gaps ? gap_in(rest, left, k, sign_bits, &symbol) : value_in(rest, left, k, &symbol);
            if (length == 0) break;
            e->symbol[e->count++] = (uint16_t)(symbol + next);
            e->bits = (uint8_t)(e->bits + length);
            if (of_gaps) next += (symbol & 0x7FFF) + 1;
        }
        e->last = (uint16_t)next;
    }
}

static void fill_all(void)
{
    for (int k = 0; k < ATOMO__LOOKUP_ORDERS; k++) {
        for (int sign_bits = 0; sign_bits < 2; sign_bits++) fill(gaps[sign_bits][k], k, sign_bits, true);
        fill(values[k], k, 1, false);
    }
}

static void ready(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_all);
}

/* out [GROUP] = the entry's symbols plus `next`, with signs in the top bit. */
static inline void spread(const lookup *e, uint32_t next, uint32_t *out)
{
    typedef uint16_t shorts __attribute__((vector_size(2 * GROUP)));
    typedef uint32_t longs __attribute__((vector_size(4 * GROUP)));
    shorts s;
    memcpy(&s, e->symbol, sizeof s);
    longs v = __builtin_convertvector(s, longs);
    v = ((v & 0x7FFF) + next) | (v & 0x8000) << 16;
    memcpy(out, &v, sizeof v);
}

/* Reads symbols into out [m] by table lookups and returns their number. Stops near the end of the message or of out, or
 * at a code that is too long for the table. */
static inline __attribute__((always_inline)) int64_t read_symbols(atomo__reader *r, const lookup *table, int64_t m,
                                                                  uint32_t *start, uint32_t end, uint32_t *out)
{
    uint64_t word = r->word;
    size_t at = r->at;
    uint32_t held = (uint32_t)r->fill, next = *start;
    int64_t j = 0;
    bool more = held < 64;
    while (more && j + GROUP * UNROLL <= m && at + 8 <= r->size && next <= end) {
        uint64_t v;
        memcpy(&v, r->data + at, sizeof v);
        word |= v << held; /* only whole bytes are counted in held; the bits above them are loaded again later */
        at += (63 - held) >> 3;
        held |= 56;
        for (int u = 0; u < UNROLL && more; u++) {
            const lookup *e = &table[word & (LOOKUP_SIZE - 1)];
            more = e->count > 0;
            spread(e, next, out + j);
            j += e->count;
            next += e->last;
            word >>= e->bits;
            held -= e->bits;
        }
    }
    r->word = held < 64 ? word & (((uint64_t)1 << held) - 1) : word;
    r->fill = (int)held;
    r->at = at;
    *start = next;
    return j;
}

int64_t atomo__get_gaps(atomo__reader *r, int k, int sign_bits, int64_t m, uint32_t *next, uint32_t n, uint32_t *index)
{
    if (k >= ATOMO__LOOKUP_ORDERS) return 0;
    ready();
    return read_symbols(r, gaps[sign_bits][k], m, next, n, index);
}

int64_t atomo__get_values(atomo__reader *r, int k, int64_t m, uint32_t *value)
{
    uint32_t none = 0;
    if (k >= ATOMO__LOOKUP_ORDERS) return 0;
    ready();
    return read_symbols(r, values[k], m, &none, 0, value);
}
