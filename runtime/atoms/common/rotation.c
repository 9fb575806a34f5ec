/* rotation.c - random orthonormal maps, R = H D2 P H D1; stage 4 of the path.
 *
 * D1 and D2 are random signs, H are Walsh-Hadamard butterflies [Fino and Algazi 1976]. After the first H all entries
 * have about the same size; after the second each is a sum of thousands of them with independent signs, so it is nearly
 * normal for every x. One round is not enough: for x = e_1 it gives entries of one size. (The idea is that of Ailon and
 * Chazelle, "The fast Johnson-Lindenstrauss transform", 2009.) A length is 2^a m, m odd and below 32, as rows [m, 2^a],
 * with a Hartley transform of length m along the columns (Bracewell 1983: real, symmetric, its own inverse). The
 * entries of that transform differ in size, so rows get different energies; so the entries of each column are stored
 * side by side, and every stretch of the next round has equally many of every row. The first H has the whole length,
 * the second has stretches of 4096 if 2^a is longer. Lengths below 4096 have a third round, below 256 a fourth. P is a
 * random permutation before the last round. Without it the result of x = 3 e_i + e_j has pairs of entries with a
 * correlation of 0.6, at places that differ by i ^ j; picks (sampling/picks.h), for which a pair in one block matters,
 * were then biased. R is orthonormal, which is proved. That estimates which are unbiased for a uniformly random R are
 * unbiased for this one was only measured (tests/spec/compress/rotated_spec.lua). Its result is bit-identical on every
 * CPU.
 */
#include "atoms/common/permutation.h"
#include "atoms/common/rotation.h"
#include "sampling/sampling.h"
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

enum { STRETCH = 4096, FEW = 256, DIGITS = 5, MOST_ODD = 1 << DIGITS, LANES = ATOMO__LANES, MOST_ROUNDS = 4 };

int64_t atomo__rotation_size(int64_t n)
{
    const int digits = 64 - __builtin_clzll((uint64_t)n), drop = ATOMO_MAX(0, digits - DIGITS);
    const int64_t unit = (int64_t)1 << drop;
    return (n + unit - 1) / unit * unit;
}

enum { SIGNS = 128 }; /* in a block of the stream */

static uint32_t blocks_of_signs(int64_t size)
{
    return (uint32_t)((size + SIGNS - 1) / SIGNS);
}

/* ---- butterflies ---- */

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* The levels of butterflies between lanes 1, 2, 4 and 8 apart. */
static inline __attribute__((always_inline)) void levels_of_lanes(lanes *x)
{
    lanes v = *x;
    const lanes s1 = {1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1};
    const lanes s2 = {1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1};
    const lanes s4 = {1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1};
    const lanes s8 = {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1};
    v = ATOMO__IN_ORDER(v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14) + v * s1;
    v = ATOMO__IN_ORDER(v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13) + v * s2;
    v = ATOMO__IN_ORDER(v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11) + v * s4;
    *x = ATOMO__IN_ORDER(v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7) + v * s8;
}

enum { RADIX = 16 }; /* vectors that a pass holds in registers */

#define PAIR(i, j)                                                                                                     \
    do {                                                                                                               \
        const lanes u = v[i];                                                                                          \
        v[i] = u + v[j];                                                                                               \
        v[j] = u - v[j];                                                                                               \
    } while (0)

/* Four levels of butterflies between the vectors x + k h, k = 0, ..., 15; `inside`: first those within each vector. */
static inline __attribute__((always_inline)) void sixteen(float *x, int64_t h, bool inside)
{
    lanes v[RADIX];
    for (int k = 0; k < RADIX; k++) v[k] = *(const lanes *)(x + k * h);
    if (inside)
        for (int k = 0; k < RADIX; k++) levels_of_lanes(v + k);
    for (int k = 0; k < RADIX; k += 2) PAIR(k, k + 1);
    for (int k = 0; k < RADIX; k += 4)
        for (int l = k; l < k + 2; l++) PAIR(l, l + 2);
    for (int k = 0; k < RADIX; k += 8)
        for (int l = k; l < k + 4; l++) PAIR(l, l + 4);
    for (int k = 0; k < RADIX / 2; k++) PAIR(k, k + 8);
    for (int k = 0; k < RADIX; k++) *(lanes *)(x + k * h) = v[k];
}

/* The first four levels of x [n]; the first eight if n is a multiple of 256. Returns the distance of the next. */
ATOMO_CLONES static int64_t first_levels(float *x, int64_t n)
{
    if (n % (RADIX * LANES) == 0) {
        for (int64_t i = 0; i < n; i += RADIX * LANES) sixteen(x + i, LANES, true);
        return RADIX * LANES;
    }
    for (int64_t i = 0; i < n; i += LANES) levels_of_lanes((lanes *)(x + i));
    return LANES;
}

/* The levels between entries h, 2 h, 4 h and 8 h apart, of x [n], in one pass. */
ATOMO_CLONES static void four_levels(float *x, int64_t n, int64_t h)
{
    for (int64_t at = 0; at < n; at += RADIX * h)
        for (int64_t i = 0; i < h; i += LANES) sixteen(x + at + i, h, false);
}

ATOMO_CLONES static void one_level(float *restrict a, float *restrict b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float u = a[i], v = b[i];
        a[i] = u + v;
        b[i] = u - v;
    }
}

/* The levels between entries h and 2 h apart, of x [n], in one pass. */
ATOMO_CLONES static void two_levels(float *x, int64_t n, int64_t h)
{
    for (int64_t at = 0; at < n; at += 4 * h) {
        float *restrict a = x + at, *restrict b = a + h, *restrict c = b + h, *restrict d = c + h;
        for (int64_t i = 0; i < h; i++) {
            const float s = a[i] + b[i], t = a[i] - b[i], u = c[i] + d[i], v = c[i] - d[i];
            a[i] = s + u;
            b[i] = t + v;
            c[i] = s - u;
            d[i] = t - v;
        }
    }
}

/* The levels between entries h, 2 h, ..., n / 2 apart, of x [n], n and h powers of two, h at least 16. */
static void levels(float *x, int64_t n, int64_t h)
{
    for (; RADIX * h <= n; h *= RADIX) four_levels(x, n, h);
    for (; 4 * h <= n; h *= 4) two_levels(x, n, h);
    if (2 * h <= n) one_level(x, x + h, h);
}

void atomo__walsh(float *x, int64_t n)
{
    if (n < LANES) {
        for (int64_t h = 1; h < n; h *= 2)
            for (int64_t i = 0; i < n; i += 2 * h) one_level(x + i, x + i + h, h);
        return;
    }
    for (int64_t i = 0; i < n; i += STRETCH) { /* a stretch stays in the first-level cache */
        const int64_t size = ATOMO_MIN((int64_t)STRETCH, n);
        levels(x + i, size, first_levels(x + i, size));
    }
    levels(x, n, STRETCH);
}

/* ---- odd lengths ---- */

static float hartley_row[MOST_ODD / 2][MOST_ODD]; /* [m / 2][r]: (cos + sin)(2 pi r / m) / sqrt(m) */

static void make_rows(void)
{
    const double pi = 3.14159265358979323846;
    for (int m = 3; m < MOST_ODD; m += 2)
        for (int r = 0; r < m; r++)
            hartley_row[m / 2][r] = (float)((cos(2 * pi * r / m) + sin(2 * pi * r / m)) / sqrt(m));
}

/* The Hartley transform of the first `count` columns of x [m, n]. */
ATOMO_CLONES static void mix_columns(float *x, int m, int64_t n, int count, const float *row)
{
    float tile[MOST_ODD][LANES];
    for (int j = 0; j < m; j++) memcpy(tile[j], x + j * n, sizeof(float) * (size_t)count);
    for (int k = 0; k < m; k++) {
        float sum[LANES] = {0};
        for (int j = 0, r = 0; j < m; j++, r = r + k < m ? r + k : r + k - m)
            for (int l = 0; l < LANES; l++) sum[l] += row[r] * tile[j][l];
        memcpy(x + k * n, sum, sizeof(float) * (size_t)count);
    }
}

static void hartley(float *x, int m, int64_t n)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_rows);
    for (int64_t i = 0; i < n; i += LANES)
        mix_columns(x + i, m, n, (int)ATOMO_MIN((int64_t)LANES, n - i), hartley_row[m / 2]);
}

/* to [columns, m] = the transpose of from [m, columns]; back: to [m, columns] = that of from [columns, m]. */
static void interleave(const float *from, int m, int64_t columns, bool back, float *to)
{
    for (int64_t i = 0; i < columns; i++)
        for (int k = 0; k < m; k++) {
            const int64_t rows = k * columns + i, together = i * m + k;
            to[back ? rows : together] = from[back ? together : rows];
        }
}

/* ---- signs ---- */

/* x [32 * words] = by * x, with the sign of x_i flipped if bit i of the words is 1. */
ATOMO_CLONES static void flip(float *x, const uint32_t *word, int words, float by)
{
    for (int w = 0; w < words; w++, x += 32)
        for (int l = 0; l < 32; l++) {
            const float y = x[l] * by;
            uint32_t bits;
            memcpy(&bits, &y, 4);
            bits ^= word[w] << (31 - l) & 0x80000000u;
            memcpy(x + l, &bits, 4);
        }
}

enum { WORDS = 128 }; /* random words made at a time */

/* x = by * x with random signs, from the stream's blocks `first` on. `by` may exceed the range of floats, the result
 * must not. */
static void signs(float *x, int64_t size, const atomo_stream *s, uint32_t first, double by)
{
    uint32_t word[WORDS];
    const bool plain = fabs(by) < (double)FLT_MAX && fabs(by) >= (double)FLT_MIN;
    for (int64_t at = 0; at < size; at += 32 * WORDS, first += WORDS / 4) {
        const int64_t count = ATOMO_MIN((int64_t)(32 * WORDS), size - at);
        const int whole = (int)(count / 32), rest = (int)(count % 32);
        atomo__random_words(s, first, blocks_of_signs(count), word);
        if (!plain)
            for (int64_t i = at; i < at + count; i++) x[i] = (float)((double)x[i] * by);
        flip(x + at, word, whole, plain ? (float)by : 1);
        if (rest == 0) continue;
        float last[32] = {0};
        memcpy(last, x + at + 32 * whole, sizeof(float) * (size_t)rest);
        flip(last, word + whole, 1, plain ? (float)by : 1);
        memcpy(x + at + 32 * whole, last, sizeof(float) * (size_t)rest);
    }
}

/* ---- rounds ---- */

typedef struct {
    int m;             /* odd */
    int64_t run, size; /* 2^a, m 2^a */
    int64_t stretch[MOST_ROUNDS];
    int rounds;
    bool short_runs; /* run < STRETCH: the columns are mixed in every round, else only in the first */
    double norm;     /* makes the butterflies orthonormal */
} shape;

static int rounds_of(int64_t size)
{
    return size < FEW ? MOST_ROUNDS : size < STRETCH ? MOST_ROUNDS - 1 : MOST_ROUNDS - 2;
}

static shape shape_of(int64_t size)
{
    const int a = __builtin_ctzll((uint64_t)size);
    shape s = {.m = (int)(size >> a), .run = (int64_t)1 << a, .size = size, .rounds = rounds_of(size), .norm = 1};
    s.short_runs = s.run < STRETCH;
    for (int i = 0; i < s.rounds; i++) {
        s.stretch[i] = i == 0 ? s.run : ATOMO_MIN(s.run, (int64_t)STRETCH);
        s.norm /= sqrt((double)s.stretch[i]);
    }
    return s;
}

uint32_t atomo__rotation_blocks(int64_t size)
{
    return (uint32_t)rounds_of(size) * blocks_of_signs(size) + ATOMO__PERMUTATION_BLOCKS;
}

bool atomo__rotation_next(atomo__rotation_units *u)
{
    if (u->left == 0) return false;
    if (u->count > 0) {
        u->at += u->count;
        u->block += atomo__rotation_blocks(u->size);
        u->number++;
    }
    u->count = atomo__rotation_unit(u->left);
    u->size = atomo__rotation_size(u->count);
    u->left -= u->count;
    return true;
}

static bool mixes_columns(const shape *s, int round)
{
    return s->m > 1 && (round == 0 || s->short_runs);
}

/* Returns the entries of which all that precedes `levels` beyond them can be done while they are in the first-level
 * cache; 0 if they depend on the others from the start. */
static int64_t part_of(const shape *s, int round)
{
    return mixes_columns(s, round) || s->stretch[round] < STRETCH ? 0 : STRETCH;
}

/* The butterflies of a round, from the distance `h` on: 1, or STRETCH after the transforms of all stretches. */
static void mix(const shape *s, int round, int64_t h, float *x)
{
    if (mixes_columns(s, round)) hartley(x, s->m, s->run);
    for (int64_t i = 0; i < s->size; i += s->stretch[round]) {
        if (h == 1)
            atomo__walsh(x + i, s->stretch[round]);
        else
            levels(x + i, s->stretch[round], h);
    }
}

/* What is between round i - 1 and round i: the entries of columns side by side, and before the last round P. */
static void reorder(const shape *s, int round, const atomo_stream *stream, uint32_t first, bool back, float *x,
                    float *work)
{
    const bool permutes = round == s->rounds - 1 && s->run >= LANES, together = s->m > 1;
    if (!permutes && !together) return;
    atomo__permutation p;
    if (permutes)
        p = atomo__permutation_of(stream, first + (uint32_t)s->rounds * blocks_of_signs(s->size), s->run / LANES);
    if (back && permutes) {
        atomo__permute(&p, s->m, true, x, work);
        if (together)
            interleave(work, s->m, s->run, true, x);
        else
            memcpy(x, work, sizeof(float) * (size_t)s->size);
        return;
    }
    if (together)
        interleave(x, s->m, s->run, back, work);
    else
        memcpy(work, x, sizeof(float) * (size_t)s->size);
    if (permutes)
        atomo__permute(&p, s->m, false, work, x);
    else
        memcpy(x, work, sizeof(float) * (size_t)s->size);
}

void atomo__rotate(float *x, int64_t size, const atomo_stream *stream, uint32_t first, double by, float *work)
{
    const shape s = shape_of(size);
    for (int i = 0; i < s.rounds; i++) {
        const uint32_t block = first + (uint32_t)i * blocks_of_signs(size);
        const double factor = i == 0 ? by * s.norm : 1;
        const int64_t part = part_of(&s, i);
        if (i > 0) reorder(&s, i, stream, first, false, x, work);
        if (part == 0) signs(x, size, stream, block, factor);
        for (int64_t at = 0; part > 0 && at < size; at += part) {
            signs(x + at, part, stream, block + (uint32_t)(at / SIGNS), factor);
            atomo__walsh(x + at, part);
        }
        mix(&s, i, ATOMO_MAX(1, part), x);
    }
}

/* x [size] = 0 except at the m places of index, where it is 1 or -1. */
static void fill(const uint32_t *index, int64_t m, int64_t size, float *x)
{
    const uint32_t one = 0x3f800000;
    memset(x, 0, sizeof(float) * (size_t)size);
    for (int64_t i = 0; i < m; i++) {
        const uint32_t signed_one = one | (index[i] & ATOMO__MINUS); /* no branch: the sign cannot be predicted */
        memcpy(x + (index[i] & ~ATOMO__MINUS), &signed_one, sizeof signed_one);
    }
}

static void rotate_back(float *x, int64_t size, const uint32_t *index, int64_t m, const atomo_stream *stream,
                        uint32_t first, double by, float *work)
{
    const shape s = shape_of(size);
    if (index) fill(index, m, size, x);
    for (int i = s.rounds - 1; i >= 0; i--) {
        const uint32_t block = first + (uint32_t)i * blocks_of_signs(size);
        const double factor = i == 0 ? by * s.norm : 1;
        const int64_t part = part_of(&s, i);
        const bool ends = part == s.stretch[i];
        for (int64_t at = 0; part > 0 && at < size; at += part) {
            atomo__walsh(x + at, part);
            if (ends) signs(x + at, part, stream, block + (uint32_t)(at / SIGNS), factor);
        }
        if (!ends) {
            mix(&s, i, ATOMO_MAX(1, part), x);
            signs(x, size, stream, block, factor);
        }
        if (i > 0) reorder(&s, i, stream, first, true, x, work);
    }
}

void atomo__rotate_back(float *x, int64_t size, const atomo_stream *stream, uint32_t first, double by, float *work)
{
    rotate_back(x, size, NULL, 0, stream, first, by, work);
}

void atomo__rotate_back_signs(const uint32_t *index, int64_t m, float *x, int64_t size, const atomo_stream *stream,
                              uint32_t first, double by, float *work)
{
    rotate_back(x, size, index, m, stream, first, by, work);
}
