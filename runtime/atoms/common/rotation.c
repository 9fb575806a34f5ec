/* rotation.c - random orthonormal maps, R = H D2 P H D1; stage 4 of the path.
 *
 * D1 and D2 are random signs, H are Walsh-Hadamard butterflies [Fino and Algazi 1976]. After the first H all entries
 * have about the same size; after the second each is a sum of thousands of them with independent signs, so it is nearly
 * normal for every x. One round is not enough: for x = e_1 it gives entries of one size. (The idea is that of Ailon and
 * Chazelle, "The fast Johnson-Lindenstrauss transform", 2009.) A length is 2^a m, m odd and below 32, as rows [m, 2^a],
 * with a Hartley transform of length m along the columns (Bracewell 1983: real, symmetric, its own inverse). The
 * entries of that transform differ in size, so rows get different energies; P stores the entries of each column side by
 * side, so that every stretch of the next round has equally many of every row. The first H has the whole length, the
 * second has stretches of 4096 if 2^a is longer. Lengths below 4096 have a third round. R is orthonormal, which is
 * proved. That estimates which are unbiased for a uniformly random R are unbiased for this one was only measured
 * (tests/spec/compress/rotated_spec.lua). It gives the same bits on every CPU.
 */
#include "atoms/common/rotation.h"
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

enum { STRETCH = 4096, DIGITS = 5, MOST_ODD = 1 << DIGITS, LANES = 16, MOST_ROUNDS = 3 };

int64_t atomo__rotation_size(int64_t n)
{
    const int digits = 64 - __builtin_clzll((uint64_t)n), drop = ATOMO_MAX(0, digits - DIGITS);
    const int64_t unit = (int64_t)1 << drop;
    return (n + unit - 1) / unit * unit;
}

static uint32_t blocks_of_signs(int64_t size) /* 128 signs each */
{
    return (uint32_t)((size + 127) / 128);
}

/* ---- butterflies ---- */

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* IN_ORDER(v, i, j, ...) is the vector of the lanes i, j, ... of v. */
#ifdef __clang__
#define IN_ORDER(v, ...) __builtin_shufflevector(v, v, __VA_ARGS__)
#else
typedef int32_t places __attribute__((vector_size(4 * LANES)));
#define IN_ORDER(v, ...) __builtin_shuffle(v, (places){__VA_ARGS__})
#endif

/* The levels of butterflies between entries 1, 2, 4 and 8 apart, within vectors of 16. */
ATOMO_CLONES static void levels_of_lanes(float *x, int64_t n)
{
    const lanes s1 = {1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1};
    const lanes s2 = {1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1};
    const lanes s4 = {1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1};
    const lanes s8 = {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1};
    for (int64_t i = 0; i < n; i += LANES) {
        lanes v = *(lanes *)(x + i);
        v = IN_ORDER(v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14) + v * s1;
        v = IN_ORDER(v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13) + v * s2;
        v = IN_ORDER(v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11) + v * s4;
        v = IN_ORDER(v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7) + v * s8;
        *(lanes *)(x + i) = v;
    }
}

ATOMO_CLONES static void butterfly(float *restrict a, float *restrict b, int64_t n)
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

/* The levels between entries `first`, 2 first, ..., n / 2 apart, of x [n], n a power of two. */
static void levels(float *x, int64_t n, int64_t first)
{
    int64_t h = first;
    for (; 4 * h <= n; h *= 4) two_levels(x, n, h);
    if (2 * h <= n) butterfly(x, x + h, h);
}

void atomo__walsh(float *x, int64_t n)
{
    if (n < LANES) {
        for (int64_t h = 1; h < n; h *= 2)
            for (int64_t i = 0; i < n; i += 2 * h) butterfly(x + i, x + i + h, h);
        return;
    }
    for (int64_t i = 0; i < n; i += STRETCH) { /* a stretch stays in the first-level cache */
        const int64_t size = ATOMO_MIN((int64_t)STRETCH, n);
        levels_of_lanes(x + i, size);
        levels(x + i, size, LANES);
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
ATOMO_CLONES static void mix(float *x, int m, int64_t n, int count, const float *row)
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
    for (int64_t i = 0; i < n; i += LANES) mix(x + i, m, n, (int)ATOMO_MIN((int64_t)LANES, n - i), hartley_row[m / 2]);
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
        atomo__random_words(s, first, (uint32_t)((count + 127) / 128), word);
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
    return size < STRETCH ? MOST_ROUNDS : MOST_ROUNDS - 1;
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
    return (uint32_t)rounds_of(size) * blocks_of_signs(size);
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

static void mix_all(const shape *s, int round, float *x)
{
    if (s->m > 1 && (round == 0 || s->short_runs)) hartley(x, s->m, s->run);
    for (int64_t i = 0; i < s->size; i += s->stretch[round]) atomo__walsh(x + i, s->stretch[round]);
}

static void reorder(const shape *s, bool back, float *x, float *work)
{
    if (s->m == 1) return;
    interleave(x, s->m, s->run, back, work);
    memcpy(x, work, sizeof(float) * (size_t)s->size);
}

void atomo__rotate(float *x, int64_t size, const atomo_stream *stream, uint32_t first, double by, float *work)
{
    const shape s = shape_of(size);
    for (int i = 0; i < s.rounds; i++) {
        if (i > 0) reorder(&s, false, x, work);
        signs(x, size, stream, first + (uint32_t)i * blocks_of_signs(size), i == 0 ? by * s.norm : 1);
        mix_all(&s, i, x);
    }
}

void atomo__rotate_back(float *x, int64_t size, const atomo_stream *stream, uint32_t first, double by, float *work)
{
    const shape s = shape_of(size);
    for (int i = s.rounds - 1; i >= 0; i--) {
        mix_all(&s, i, x);
        signs(x, size, stream, first + (uint32_t)i * blocks_of_signs(size), i == 0 ? by * s.norm : 1);
        if (i > 0) reorder(&s, true, x, work);
    }
}
