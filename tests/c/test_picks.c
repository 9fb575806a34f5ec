/* test_picks.c - picks: blocks divide the entries, each pick is the largest of its block, what is written is read, and
 * bits and variance are those that the tables state. Fixed seeds. */
#include "atoms/common/picked.h"
#include "check.h"
#include "sampling/gaussian.h"
#include <math.h>
#include <stdlib.h>

enum { MOST = 70000 };
static float y[MOST];
static uint32_t index_of[MOST + 16], again[MOST + 16];
static uint8_t bytes[4 * MOST];

static void make_normal(int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const double radius = sqrt(-2 * log(1 - atomo_random_double()));
        y[i] = (float)(radius * cos(6.283185307179586 * atomo_random_double()));
    }
}

/* All blocks together have all entries. */
static void blocks(void)
{
    for (int64_t n = 1; n < MOST; n += 1 + n / 3)
        for (int64_t m = 1; m <= n; m += 1 + m / 3) {
            int64_t count = 0;
            for (int64_t j = 0; j < m; j++) {
                const int64_t size = atomo__block_size(n, m, j);
                if (j + (size - 1) * m >= n || j + size * m < n) CHECK(!"a block ends too early or too late");
                count += size;
            }
            CHECK(count == n);
        }
}

/* Magnitudes repeat, so that there are equal ones; both signs; n and m that are no multiples of 16. */
static void largest(void)
{
    for (int64_t n = 1; n < 3000; n += 1 + n / 5) {
        make_normal(n);
        for (int64_t i = 0; i < n; i += 3) y[i] = y[i] < 0 ? -1.5f : 1.5f;
        for (int64_t m = 1; m <= n; m += 1 + m / 2) {
            double sum = 0;
            const double stated = atomo__pick(y, n, m, index_of);
            for (int64_t j = 0; j < m; j++) {
                const int64_t place = index_of[j] & ~ATOMO__MINUS;
                CHECK(place < n && place % m == j && (y[place] < 0) == (index_of[j] >> 31));
                for (int64_t i = j; i < n; i += m)
                    CHECK(fabsf(y[i]) < fabsf(y[place]) || (i >= place && fabsf(y[i]) == fabsf(y[place])));
                sum += fabs((double)y[place]);
            }
            CHECK(fabs(stated - sum) <= 1e-12 * sum);
        }
    }
}

static void messages(void)
{
    for (int64_t n = 1; n < MOST; n += 1 + n / 2) {
        make_normal(n);
        for (int64_t m = 1; m <= n; m += 1 + m / 2) {
            atomo__pick(y, n, m, index_of);
            atomo__writer w = {.data = bytes, .capacity = sizeof bytes};
            atomo__write_picks(&w, n, m, index_of);
            const double bits = (double)(8 * w.size) + w.fill, usual = (double)m * atomo__pick_bits(n, m);
            CHECK(fabs(bits - usual) <= 5 * sqrt((double)m)); /* a pick has one of two lengths */
            atomo__put_align(&w);
            atomo__reader r = {.data = bytes, .size = w.size};
            CHECK(atomo__read_picks(&r, n, m, again) && !memcmp(index_of, again, sizeof *again * (size_t)m));
            r = (atomo__reader){.data = bytes, .size = w.size - 1};
            CHECK(!atomo__read_picks(&r, n, m, again) || w.size * 8 - (size_t)bits >= 8);
        }
    }
}

/* Any bits are read as picks of the blocks. */
static void forged(void)
{
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(atomo_random_double() * 256);
    for (int64_t n = 1; n < MOST; n += 1 + n / 2)
        for (int64_t m = 1; m <= n; m += 1 + m / 2) {
            atomo__reader r = {.data = bytes, .size = sizeof bytes};
            CHECK(atomo__read_picks(&r, n, m, again));
            for (int64_t j = 0; j < m; j++) {
                const int64_t place = again[j] & ~ATOMO__MINUS;
                CHECK(place < n && place % m == j);
            }
        }
}

/* V and the bits of the tables are those of normal numbers, within six standard errors of the sum over all blocks (1 in
 * 5e8 per check). */
static void rates(void)
{
    enum { N = 65536, ROUNDS = 4 };
    for (int k = 0; k < ATOMO__QUANTISERS; k += 150) {
        const atomo__quantiser *q = atomo__quantiser_at(k);
        if (!q->picks) continue;
        const int64_t m = atomo__picks_of(N, q->nonzero);
        double along = 0, square = 0;
        for (int i = 0; i < ROUNDS; i++) {
            make_normal(N);
            atomo__pick(y, N, m, index_of);
            for (int64_t j = 0; j < m; j++) {
                const double a = fabs((double)y[index_of[j] & ~ATOMO__MINUS]);
                along += a;
                square += a * a;
            }
        }
        const double count = (double)m * ROUNDS, mean = along / count,
                     error = sqrt((square / count - mean * mean) / count);
        const double stated = sqrt((double)N / (double)m / (1 + atomo__quantiser_loss(q, N)));
        check_report(fabs(mean - stated) <= 6 * error + 1e-3 * mean, __FILE__, __LINE__,
                     "quantiser %d: E max %.5f, stated %.5f, standard error %.5f", k, mean, stated, error);
        CHECK_NEAR(atomo__quantiser_bits(q, N) - q->scale_bits, N * q->bits + 2.5, 0.02 * N * q->bits + 20);
    }
}

int main(void)
{
    RUN(blocks);
    RUN(largest);
    RUN(messages);
    RUN(forged);
    RUN(rates);
    return check_done();
}
