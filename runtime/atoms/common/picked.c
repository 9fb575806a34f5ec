/* picked.c - picks of rotated entries (sampling/picks.h): found, written and read; stages 5, 6 and 8 of the path.
 *
 * A pick is written as its place in its block, in a truncated binary code, lowest bit last, and its sign. Both sides
 * know the number of picks and so all blocks, so nothing else is written.
 */
#include "atoms/common/picked.h"
#include <math.h>
#ifdef ATOMO_X86
#include <immintrin.h>
#endif

/* ---- finding them ---- */

/* Returns the magnitude of y as a number that has the same order. */
static uint32_t magnitude(const float *y)
{
    uint32_t bits;
    memcpy(&bits, y, 4);
    return bits & ~ATOMO__MINUS;
}

/* Returns the place of the largest magnitude of y [n], the first one of equal ones. */
static int64_t place_plain(const float *y, int64_t n)
{
    uint32_t most = magnitude(y);
    int64_t at = 0;
    for (int64_t i = 1; i < n; i++) {
        const uint32_t a = magnitude(y + i);
        at = a > most ? i : at;
        most = a > most ? a : most;
    }
    return at;
}

static double pick_plain(const float *y, int64_t n, int64_t m, uint32_t *index)
{
    double sum = 0;
    for (atomo__blocks b = atomo__blocks_of(n, m); atomo__blocks_next(&b);) {
        const int64_t at = b.at + place_plain(y + b.at, b.size);
        *index++ = (uint32_t)at | (y[at] < 0 ? ATOMO__MINUS : 0);
        sum += fabs((double)y[at]);
    }
    return sum;
}

#ifdef ATOMO_X86
/* The same, 16 entries at a time. */
__attribute__((target("avx512f"))) static double pick_512(const float *y, int64_t n, int64_t m, uint32_t *index)
{
    enum { LANES = 16 };
    const __m512i plus = _mm512_set1_epi32(INT32_MAX), step = _mm512_set1_epi32(LANES);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    double sum = 0;
    for (atomo__blocks b = atomo__blocks_of(n, m); atomo__blocks_next(&b);) {
        const float *x = y + b.at;
        const int64_t first = ATOMO_MIN(b.size, (int64_t)LANES);
        __mmask16 in = (__mmask16)((1u << first) - 1);
        __m512i most = _mm512_and_epi32(plus, _mm512_maskz_loadu_epi32(in, x)), place = lanes, here = lanes;
        for (int64_t i = LANES; i < b.size; i += LANES) {
            here = _mm512_add_epi32(here, step);
            if (b.size - i < LANES) in = (__mmask16)((1u << (b.size - i)) - 1);
            const __m512i a = _mm512_and_epi32(plus, _mm512_maskz_loadu_epi32(in, x + i));
            const __mmask16 more = _mm512_cmpgt_epi32_mask(a, most);
            most = _mm512_mask_mov_epi32(most, more, a);
            place = _mm512_mask_mov_epi32(place, more, here);
        }
        const __mmask16 largest = _mm512_cmpeq_epi32_mask(most, _mm512_set1_epi32(_mm512_reduce_max_epi32(most)));
        const int64_t at = b.size <= LANES ? __builtin_ctz(largest) : _mm512_mask_reduce_min_epi32(largest, place);
        *index++ = (uint32_t)(b.at + at) | (x[at] < 0 ? ATOMO__MINUS : 0);
        sum += fabs((double)x[at]);
    }
    return sum;
}
#endif

double atomo__pick(const float *y, int64_t n, int64_t m, uint32_t *index)
{
#ifdef ATOMO_X86
    if (__builtin_cpu_supports("avx512f")) return pick_512(y, n, m, index);
#endif
    return pick_plain(y, n, m, index);
}

/* ---- the message ---- */

void atomo__write_picks(atomo__writer *w, int64_t n, int64_t m, const uint32_t *index)
{
    const int64_t least = n / m;
    const atomo__place_code codes[2] = {atomo__place_code_of(least), atomo__place_code_of(least + 1)};
    for (atomo__blocks b = atomo__blocks_of(n, m); atomo__blocks_next(&b); index++) {
        const atomo__place_code c = codes[b.size - least];
        const uint32_t place = (*index & ~ATOMO__MINUS) - (uint32_t)b.at, minus = *index >> 31;
        if (place < c.shorter) {
            atomo__put(w, place | minus << c.bits, c.bits + 1);
        } else {
            const uint32_t code = place + c.shorter;
            atomo__put(w, code >> 1 | (code & 1) << c.bits | minus << (c.bits + 1), c.bits + 2);
        }
    }
}

bool atomo__read_picks(atomo__reader *r, int64_t n, int64_t m, uint32_t *index)
{
    const int64_t least = n / m;
    const atomo__place_code codes[2] = {atomo__place_code_of(least), atomo__place_code_of(least + 1)};
    for (atomo__blocks b = atomo__blocks_of(n, m); atomo__blocks_next(&b);) {
        const atomo__place_code c = codes[b.size - least];
        uint32_t place = atomo__get(r, c.bits);
        if (place >= c.shorter) place = (place << 1 | atomo__get(r, 1)) - c.shorter;
        *index++ = ((uint32_t)b.at + place) | atomo__get(r, 1) << 31;
    }
    return !r->bad;
}
