/* indices.c - codes a sorted list of m indices out of n, close to its entropy n H(m/n); stage 6 of the path.
 *
 * There are three forms, and each message uses the shortest: Golomb-Rice coded gaps (sparse lists), the same for the
 * absent indices (nearly full lists), and a bitmap (in between). Rice's parameter k is the best, by exact length, of
 * three around log2(0.69 n/m). On random lists the length is within 4 % of n H(m/n) (docs/architecture.md).
 */
#include "coding/prefix_code.h"
#include <math.h>

enum { FORM_GAPS, FORM_ABSENT, FORM_BITMAP, FORM_BITS = 2, RICE_BITS = 5 };

/* ln 2 to four digits: the Rice code of geometric gaps is shortest for 2^k near ln 2 times the mean gap [Golomb 1966].
 * More digits would sometimes choose another k and change messages, so they are part of the format. */
static const double LN_2 = 0.6931;
/* Constants of atomo__index_price, an approximation of the derivative of atomo__index_bits: bits of a gap in addition
 * to the slope of the entropy, the least price, and the smallest and largest density m/n for which the slope is used.
 */
static const double OVER_ENTROPY = 0.1, LEAST_PRICE = 0.25, THINNEST = 1e-12, DENSEST = 0.9;
/* Keeps the argument of log2 above 0. */
static const double ABOVE_ZERO = 1e-9;

/* Returns the best k for geometric gaps of mean (n-m)/m, from 0 to 30. */
static int rice_parameter(double m, double n)
{
    double mean = m > 0 ? (n - m) / m : 0;
    int k = mean > 1 ? (int)floor(log2(mean * LN_2 + ABOVE_ZERO) + 0.5) : 0;
    return ATOMO_MAX(0, ATOMO_MIN(k, 30));
}

static double rice_bits(double m, double n) /* geometric gaps: E floor(gap / 2^k) = r / (1 - r), r = (1-q)^(2^k) */
{
    if (m <= 0 || m >= n) return 0;
    double q = m / n, least = INFINITY;
    int k0 = rice_parameter(m, n);
    for (int k = ATOMO_MAX(0, k0 - 1); k <= k0 + 1; k++) {
        double r = exp(ldexp(log1p(-q), k));
        least = ATOMO_MIN(least, m * (1 + k + r / (1 - r)));
    }
    return least;
}

double atomo__index_bits(double m, double n)
{
    return ATOMO_MIN(ATOMO_MIN(rice_bits(m, n), rice_bits(n - m, n) + (m >= n ? 0 : 1)), n);
}

double atomo__index_price(double m, double n)
{
    double q = ATOMO_MAX(THINNEST, ATOMO_MIN(m / n, DENSEST));
    return ATOMO_MAX(LEAST_PRICE, log2((1 - q) / q) + OVER_ENTROPY);
}

/* high[j] = sum of gap >> (k + j), the unary bits for three values of Rice's parameter. The gaps sum to less than n, so
 * 32 bits hold the sums. */
ATOMO_CLONES static void count_high(const uint32_t *list, int64_t m, int k, uint32_t high[3])
{
    uint32_t h0 = 0, h1 = 0, h2 = 0;
    for (int64_t i = 1; i < m; i++) {
        uint32_t gap = (list[i] & ~ATOMO__MINUS) - (list[i - 1] & ~ATOMO__MINUS) - 1;
        h0 += gap >> k;
        h1 += gap >> (k + 1);
        h2 += gap >> (k + 2);
    }
    uint32_t gap = list[0] & ~ATOMO__MINUS;
    high[0] = h0 + (gap >> k);
    high[1] = h1 + (gap >> (k + 1));
    high[2] = h2 + (gap >> (k + 2));
}

/* An iterator over the gaps between the indices of 0 .. n-1 that are not in list [m]. */
typedef struct {
    const uint32_t *list;
    int64_t m, n, at, next, previous; /* place in list; next index to look at; last absent one, -1 at first */
} absentees;

static bool next_absent(absentees *a, uint32_t *gap)
{
    while (a->at < a->m && (int64_t)(a->list[a->at] & ~ATOMO__MINUS) == a->next) {
        a->at++;
        a->next++;
    }
    if (a->next >= a->n) return false;
    *gap = (uint32_t)(a->next - a->previous - 1);
    a->previous = a->next++;
    return true;
}

/* Returns the exact length of the Rice code of the list (or of the absent indices) in bits; *best = the best k. */
static double exact_bits(const uint32_t *list, int64_t m, int64_t n, bool absent, int *best)
{
    const double coded = (double)(absent ? n - m : m);
    int k0 = ATOMO_MAX(1, rice_parameter(coded, (double)n)) - 1;
    uint32_t high[3] = {0}, gap;
    if (absent) {
        absentees a = {list, m, n, 0, 0, -1};
        while (next_absent(&a, &gap))
            for (int j = 0; j < 3; j++) high[j] += gap >> (k0 + j);
    } else {
        count_high(list, m, k0, high);
    }
    double least = INFINITY;
    for (int j = 0; j < 3; j++) {
        double bits = (double)high[j] + coded * (k0 + j + 1);
        if (bits < least) {
            least = bits;
            *best = k0 + j;
        }
    }
    return least;
}

static inline void put_gap(atomo__writer *w, uint32_t gap, int k, uint32_t sign, int sign_bits)
{
    uint32_t zeros = gap >> k, low = gap & ((1u << k) - 1);
    if (zeros + (uint32_t)(k + 2) <= 32) {
        atomo__put_code(w, (sign << (zeros + 1 + (uint32_t)k)) | (low << (zeros + 1)) | 1u << zeros,
                        (int)zeros + 1 + k + sign_bits);
        return;
    }
    atomo__put_unary(w, zeros);
    atomo__put(w, low, k);
    atomo__put(w, sign, sign_bits);
}

/* code[i], bits[i] = code and length of n gaps, the first one after index `previous`. A length of more than 32 bits is
 * given as 255. */
ATOMO_CLONES static void gap_codes(const uint32_t *restrict list, uint32_t previous, int n, int k, uint32_t sign_bits,
                                   uint32_t *restrict code, uint32_t *restrict bits)
{
    uint32_t gap[ATOMO__CODES];
    const uint32_t low = (1u << k) - 1, order = (uint32_t)k;
    gap[0] = (list[0] & ~ATOMO__MINUS) - previous - 1;
    for (int i = 1; i < n; i++) gap[i] = (list[i] & ~ATOMO__MINUS) - (list[i - 1] & ~ATOMO__MINUS) - 1;
    for (int i = 0; i < n; i++) {
        uint32_t zeros = gap[i] >> order, length = zeros + 1 + order + sign_bits;
        uint32_t top = ((list[i] >> 31 & sign_bits) << order | (gap[i] & low)) << 1 | 1;
        code[i] = top << (zeros & 31);
        bits[i] = zeros < 32 && length <= 32 ? length : 255;
    }
}

void atomo__write_gaps(atomo__writer *w, int k, const uint32_t *list, int64_t m, bool signs)
{
    atomo__writer own = *w; /* a local copy stays in registers */
    uint32_t code[ATOMO__CODES], bits[ATOMO__CODES], next = 0;
    for (int64_t i = 0; i < m; i += ATOMO__CODES) {
        const uint32_t *from = list + i;
        int n = (int)ATOMO_MIN((int64_t)ATOMO__CODES, m - i);
        gap_codes(from, next - 1, n, k, signs, code, bits);
        for (int at = 0; at < n; at++) {
            at += atomo__put_codes(&own, code + at, bits + at, n - at);
            if (at == n) break;
            uint32_t before = at > 0 ? (from[at - 1] & ~ATOMO__MINUS) + 1 : next;
            put_gap(&own, (from[at] & ~ATOMO__MINUS) - before, k, signs ? from[at] >> 31 : 0, signs);
        }
        next = (from[n - 1] & ~ATOMO__MINUS) + 1;
    }
    *w = own;
}

static void write_bitmap(atomo__writer *w, const uint32_t *list, int64_t m, int64_t n)
{
    int64_t i = 0;
    for (int64_t at = 0; at < n; at += 32) {
        uint32_t bits = 0;
        for (; i < m && (int64_t)(list[i] & ~ATOMO__MINUS) < at + 32; i++) bits |= 1u << (list[i] & 31);
        atomo__put(w, bits, (int)ATOMO_MIN((int64_t)32, n - at));
    }
}

static void write_signs(atomo__writer *w, const uint32_t *list, int64_t m)
{
    for (int64_t i = 0; i < m; i++) atomo__put(w, list[i] >> 31, 1);
}

void atomo__write_indices(atomo__writer *w, const uint32_t *list, int64_t m, int64_t n, bool signs)
{
    atomo__put_varint(w, (uint32_t)m);
    bool absent = 2 * m > n;
    int k = 0;
    if (m > 0 && m < n) {
        if (exact_bits(list, m, n, absent, &k) + RICE_BITS >= (double)n) {
            atomo__put(w, FORM_BITMAP, FORM_BITS);
            write_bitmap(w, list, m, n);
        } else {
            atomo__put(w, absent ? FORM_ABSENT : FORM_GAPS, FORM_BITS);
            atomo__put(w, (uint32_t)k, RICE_BITS);
            if (!absent) {
                atomo__write_gaps(w, k, list, m, signs);
                return;
            }
            absentees a = {list, m, n, 0, 0, -1};
            uint32_t gap;
            while (next_absent(&a, &gap)) put_gap(w, gap, k, 0, 0);
        }
    }
    if (signs) write_signs(w, list, m);
}

static int64_t read_bitmap(atomo__reader *r, int64_t n, uint32_t *index)
{
    int64_t m = 0;
    for (int64_t at = 0; at < n; at += 32) {
        uint32_t bits = atomo__get(r, (int)ATOMO_MIN((int64_t)32, n - at));
        if (r->bad) return -1;
        for (; bits; bits &= bits - 1) index[m++] = (uint32_t)(at + __builtin_ctz(bits));
    }
    return m;
}

/* Returns one gap and sets *sign. The caller checks that the gap is not too large. */
static inline uint64_t get_gap(atomo__reader *r, int k, int sign_bits, int64_t n, uint32_t *sign)
{
    if (r->fill < 32) atomo__refill(r);
    if ((uint32_t)r->word) {
        int zeros = __builtin_ctz((uint32_t)r->word), bits = zeros + 1 + k + sign_bits;
        if (bits <= r->fill) {
            uint64_t word = r->word >> (zeros + 1);
            uint64_t gap = (uint64_t)zeros << k | (word & ((1u << k) - 1));
            *sign = (uint32_t)(word >> k & (uint32_t)sign_bits);
            r->word = word >> k >> sign_bits;
            r->fill -= bits;
            return gap;
        }
    }
    uint64_t gap = (uint64_t)atomo__get_unary(r, (uint32_t)(n >> k)) << k;
    gap |= atomo__get(r, k);
    *sign = atomo__get(r, sign_bits);
    return gap;
}

int64_t atomo__read_gaps(atomo__reader *r, int k, int64_t m, int64_t n, bool signs, uint32_t *index)
{
    atomo__reader own = *r;
    uint64_t next = 0;
    for (int64_t j = 0; j < m; j++) {
        uint32_t sign, from = (uint32_t)next;
        j += atomo__get_gaps(&own, k, signs, m - j, &from, (uint32_t)n, index + j);
        if (from > n) return -1;
        next = from;
        if (j == m) break;
        next += get_gap(&own, k, signs, n, &sign);
        if (next >= (uint64_t)n) return -1;
        index[j] = (uint32_t)next | sign << 31;
        next++;
    }
    *r = own;
    return r->bad ? -1 : m;
}

static int64_t read_absent(atomo__reader *r, int64_t coded, int64_t n, uint32_t *index)
{
    int k = (int)atomo__get(r, RICE_BITS);
    if (r->bad || k > 30) return -1;
    uint64_t next = 0;
    int64_t m = 0;
    for (int64_t j = 0; j < coded; j++) {
        uint32_t sign;
        uint64_t gap = get_gap(r, k, 0, n, &sign);
        if (r->bad || next + gap >= (uint64_t)n) return -1;
        for (; gap > 0; gap--) index[m++] = (uint32_t)next++;
        next++;
    }
    while (next < (uint64_t)n) index[m++] = (uint32_t)next++;
    return m;
}

int64_t atomo__read_indices(atomo__reader *r, int64_t n, bool signs, uint32_t *index)
{
    int64_t m = (int64_t)atomo__get_varint(r), got = m;
    if (r->bad || m > n) return -1;
    if (m == n) {
        for (int64_t i = 0; i < n; i++) index[i] = (uint32_t)i;
    } else if (m > 0) {
        uint32_t form = atomo__get(r, FORM_BITS);
        if (form == FORM_GAPS) {
            const int k = (int)atomo__get(r, RICE_BITS);
            return r->bad || k > 30 ? -1 : atomo__read_gaps(r, k, m, n, signs, index);
        }
        got = form == FORM_BITMAP   ? read_bitmap(r, n, index)
              : form == FORM_ABSENT ? read_absent(r, n - m, n, index)
                                    : -1;
    }
    if (got != m) return -1;
    for (int64_t i = 0; signs && i < m; i++) index[i] |= atomo__get(r, 1) << 31;
    return r->bad ? -1 : m;
}
