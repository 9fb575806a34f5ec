/* gaps.c - a sorted list of m indices out of n, near its entropy n H(m/n); stage 6 of the path.
 *
 * Three forms, the shortest wins per message: Golomb-Rice coded gaps (sparse), the same of the absent indices (nearly
 * full), a bitmap (in between). Rice's parameter k is tried around log2(0.69 n/m) and the best by exact length is
 * taken; on random lists the result is within 4 % of n H(m/n). DESIGN 5.4.
 */
#include "coding/coding.h"
#include <math.h>

enum { FORM_GAPS, FORM_ABSENT, FORM_BITMAP, FORM_BITS = 2, RICE_BITS = 5 };

/* k that suits gaps of mean (n-m)/m. */
static int rice_parameter(double m, double n)
{
    double mean = m > 0 ? (n - m) / m : 0;
    int k = mean > 1 ? (int)floor(log2(mean * 0.6931 + 1e-9) + 0.5) : 0;
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
    double q = ATOMO_MAX(1e-12, ATOMO_MIN(m / n, 0.9));
    return ATOMO_MAX(0.25, log2((1 - q) / q) + 0.1);
}

/* Walks the marked indices, or the absent ones, and gives the gap before each. */
typedef struct {
    const uint32_t *list;
    int64_t count, at, n, previous, present;
    uint32_t mark;
    bool absent;
} walker;

static bool step_present(walker *w) /* next marked index into w->present; n at the end */
{
    while (w->at < w->count && (w->list[w->at] & ATOMO__SATURATED) != w->mark) w->at++;
    if (w->at == w->count) {
        w->present = w->n;
        return false;
    }
    w->present = (int64_t)(w->list[w->at++] & ~ATOMO__SATURATED);
    return true;
}

static walker walk(const uint32_t *list, int64_t count, int64_t n, uint32_t mark, bool absent)
{
    walker w = {list, count, 0, n, -1, -1, mark, absent};
    if (absent) step_present(&w);
    return w;
}

static bool next_gap(walker *w, uint32_t *gap)
{
    int64_t i = w->previous + 1;
    if (w->absent) {
        while (i == w->present && i < w->n) {
            i++;
            step_present(w);
        }
        if (i >= w->n) return false;
    } else {
        if (!step_present(w)) return false;
        i = w->present;
    }
    *gap = (uint32_t)(i - w->previous - 1);
    w->previous = i;
    return true;
}

/* Exact length of the Rice code at the best k near the guess. */
static double exact_bits(walker w, double m, int *best)
{
    int k0 = ATOMO_MAX(1, rice_parameter(m, (double)w.n));
    double high[3] = {0, 0, 0};
    uint32_t gap;
    while (next_gap(&w, &gap)) {
        high[0] += (double)(gap >> (k0 - 1));
        high[1] += (double)(gap >> k0);
        high[2] += (double)(gap >> (k0 + 1));
    }
    double least = INFINITY;
    for (int j = 0; j < 3; j++) {
        double bits = high[j] + m * (k0 - 1 + j + 1);
        if (bits < least) {
            least = bits;
            *best = k0 - 1 + j;
        }
    }
    return least;
}

static void write_gaps(atomo__writer *w, walker walk_, int k)
{
    uint32_t gap;
    while (next_gap(&walk_, &gap)) {
        atomo__put_unary(w, gap >> k);
        atomo__put(w, gap & ((1u << k) - 1), k);
    }
}

static void write_bitmap(atomo__writer *w, walker walk_)
{
    uint64_t at = 0; /* first bit not written */
    uint32_t gap;
    while (next_gap(&walk_, &gap)) {
        for (; gap >= 32; gap -= 32, at += 32) atomo__put(w, 0, 32);
        atomo__put(w, 0, (int)gap);
        atomo__put(w, 1, 1);
        at += gap + 1;
    }
    for (uint64_t left = (uint64_t)walk_.n - at; left > 0;) {
        int bits = (int)ATOMO_MIN(left, (uint64_t)32);
        atomo__put(w, 0, bits);
        left -= (uint64_t)bits;
    }
}

void atomo__write_indices(atomo__writer *w, const uint32_t *list, int64_t count, uint32_t mark, int64_t m, int64_t n)
{
    atomo__put_varint(w, (uint32_t)m);
    if (m == 0 || m == n) return;
    bool absent = 2 * m > n;
    int64_t coded = absent ? n - m : m;
    int k = 0;
    walker it = walk(list, count, n, mark, absent);
    if (exact_bits(it, (double)coded, &k) + RICE_BITS >= (double)n) {
        atomo__put(w, FORM_BITMAP, FORM_BITS);
        write_bitmap(w, walk(list, count, n, mark, false));
        return;
    }
    atomo__put(w, absent ? FORM_ABSENT : FORM_GAPS, FORM_BITS);
    atomo__put(w, (uint32_t)k, RICE_BITS);
    write_gaps(w, it, k);
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

static int64_t read_gaps(atomo__reader *r, int64_t coded, int64_t n, bool absent, uint32_t *index)
{
    int k = (int)atomo__get(r, RICE_BITS);
    if (r->bad || k > 30) return -1;
    int64_t previous = -1, m = 0;
    for (int64_t j = 0; j < coded; j++) {
        uint64_t gap = (uint64_t)atomo__get_unary(r, (uint32_t)(n >> k)) << k;
        gap |= atomo__get(r, k);
        int64_t i = previous + 1 + (int64_t)gap;
        if (r->bad || i >= n) return -1;
        if (absent)
            for (int64_t p = previous + 1; p < i; p++) index[m++] = (uint32_t)p;
        else
            index[m++] = (uint32_t)i;
        previous = i;
    }
    for (int64_t p = previous + 1; absent && p < n; p++) index[m++] = (uint32_t)p;
    return m;
}

int64_t atomo__read_indices(atomo__reader *r, int64_t n, uint32_t *index)
{
    int64_t m = (int64_t)atomo__get_varint(r), got;
    if (r->bad || m > n) return -1;
    if (m == 0) return 0;
    if (m == n) {
        for (int64_t i = 0; i < n; i++) index[i] = (uint32_t)i;
        return n;
    }
    uint32_t form = atomo__get(r, FORM_BITS);
    if (form == FORM_BITMAP)
        got = read_bitmap(r, n, index);
    else if (form == FORM_GAPS || form == FORM_ABSENT)
        got = read_gaps(r, form == FORM_ABSENT ? n - m : m, n, form == FORM_ABSENT, index);
    else
        return -1;
    return got == m ? got : -1;
}
