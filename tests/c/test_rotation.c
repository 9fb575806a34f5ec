/* test_rotation.c - random rotations are orthonormal, their inverse is one, symbols come back in their entropy, and
 * finer quantisers are better ones. Fixed seeds. */
#include "atoms/common/rotation.h"
#include "check.h"
#include "coding/rans.h"
#include "sampling/gaussian.h"
#include <math.h>
#include <stdlib.h>

static const atomo_stream stream = {{7, 0}, ATOMO_RNG_ROTATE, 1, 2, 3};
enum { MOST = 70000 };
static float x[MOST], y[MOST], work[MOST];

static double norm(const float *v, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)v[i] * (double)v[i];
    return sqrt(sum);
}

static void sizes(void)
{
    for (int64_t n = 1; n < MOST; n += 1 + n / 9) {
        const int64_t size = atomo__rotation_size(n), unit = atomo__rotation_unit(n);
        CHECK(size >= n && (double)size <= 1.0626 * (double)n && atomo__rotation_size(size) == size);
        CHECK(unit >= 1 && unit <= n && unit <= ATOMO__MOST_ROTATED && n - unit != 1);
    }
}

/* R^T R x = x and ||R x|| = ||x||, of all shapes of lengths; R is another one for other blocks of the stream. */
static void rotations(void)
{
    for (int64_t n = 1; n <= 65536 + 4096; n += 1 + n / 5) {
        const int64_t size = atomo__rotation_size(n);
        for (int64_t i = 0; i < size; i++) x[i] = y[i] = (float)(atomo_random_double() - 0.5);
        atomo__rotate(y, size, &stream, 5, 2, work);
        CHECK(fabs(norm(y, size) - 2 * norm(x, size)) <= 1e-5 * norm(x, size));
        for (int64_t i = 0; i < size; i++) CHECK(isfinite(y[i]));
        atomo__rotate_back(y, size, &stream, 5, 0.5, work);
        for (int64_t i = 0; i < size; i++) y[i] -= x[i];
        CHECK(norm(y, size) <= 2e-6 * norm(x, size));
        if (size < 16) continue;
        memcpy(y, x, sizeof(float) * (size_t)size);
        atomo__rotate(y, size, &stream, 5 + atomo__rotation_blocks(size), 1, work);
        memcpy(work, y, sizeof(float) * (size_t)size);
        memcpy(y, x, sizeof(float) * (size_t)size);
        static float other[MOST];
        atomo__rotate(y, size, &stream, 5, 1, other);
        double inner = 0;
        for (int64_t i = 0; i < size; i++) inner += (double)y[i] * (double)work[i];
        CHECK(fabs(inner) < 0.9 * norm(x, size) * norm(x, size));
    }
}

/* A factor beyond the range of floats, where what comes out is within it. */
static void extremes(void)
{
    for (int i = 0; i < 512; i++) x[i] = y[i] = i % 2 ? 3e-39f : -1e-39f;
    atomo__rotate(y, 512, &stream, 0, 1e39, work);
    CHECK(fabs(norm(y, 512) / (1e39 * norm(x, 512)) - 1) < 1e-3);
}

/* Symbols with the given shares come back, in their entropy and the coder's states. */
static void symbols(void)
{
    enum { N = 20000, LONGEST = 1 << 17 };
    static uint8_t in[N], out[N], bytes[LONGEST];
    static uint16_t room[N + 8];
    static const uint16_t shares[][5] = {{4092, 1, 1, 1, 1}, {2048, 1024, 512, 256, 256}, {819, 819, 819, 819, 820}};
    for (size_t k = 0; k < sizeof shares / sizeof *shares; k++)
        for (int n = 1; n <= N; n = 3 * n + 1) {
            double bits = 0;
            for (int i = 0; i < n; i++) {
                int at = (int)(atomo_random_double() * 4096);
                in[i] = 0;
                while (at >= shares[k][in[i]]) at -= shares[k][in[i]++];
                bits += 12 - log2(shares[k][in[i]]);
            }
            atomo__writer w = {.data = bytes, .capacity = LONGEST};
            atomo__rans_write(&w, shares[k], 5, in, n, room);
            const double taken = 8 * (double)w.size + w.fill;
            check_report(taken <= 1.002 * bits + (n < 8192 ? 34 : 130), __FILE__, __LINE__,
                         "%d symbols: %.0f bits of %.0f", n, taken, bits);
            atomo__put_align(&w);
            CHECK(!w.overflow);
            atomo__reader r = {.data = bytes, .size = w.size};
            CHECK(atomo__rans_read(&r, shares[k], 5, n, out) && atomo__at_end(&r));
            CHECK(memcmp(in, out, (size_t)n) == 0);
            r = (atomo__reader){.data = bytes, .size = w.size / 2};
            if (w.size > 8) CHECK(!atomo__rans_read(&r, shares[k], 5, n, out) && r.bad);
            bytes[0] ^= 1; /* the first state */
            r = (atomo__reader){.data = bytes, .size = w.size};
            CHECK(!atomo__rans_read(&r, shares[k], 5, n, out) || memcmp(in, out, (size_t)n) != 0 || !atomo__at_end(&r));
        }
}

/* Coarser quantisers take fewer bits and lose more (to 3 %, where levels become signs), at most 1.75 times what the
 * best code of their bits loses. */
static void quantisers(void)
{
    for (int k = 0; k < ATOMO__QUANTISERS; k++) {
        const atomo__quantiser *q = atomo__quantiser_at(k), *before = atomo__quantiser_at(k > 0 ? k - 1 : 0);
        const double over = q->loss * (exp2(2 * q->bits) - 1);
        check_report(over > 1 && over < 1.75, __FILE__, __LINE__, "quantiser %d: %.3f times the bound at %.3f bits", k,
                     over, q->bits);
        CHECK(q->bits <= before->bits * 1.03 && q->loss >= before->loss * 0.96);
        int all = 0;
        for (int i = 0; q->levels && i < q->levels->count; i++) all += q->levels->share[i];
        CHECK(!q->levels || all == 1 << ATOMO__SHARES_BITS);
    }
}

/* The cost of a class falls as the price of a bit rises, without jumps; a class of few entries is sent by chance. */
static void rates(void)
{
    for (int64_t n = 128; n <= 65536; n *= 8) {
        double bits = INFINITY, loss = 0;
        for (double T = 1e-4; T < 1e5; T *= 1.01) {
            const atomo__rate r = atomo__rate_at(n, 1, T);
            CHECK(r.bits <= bits * 1.03 && r.loss >= loss * 0.96 && r.keep > 0 && r.keep <= 1);
            CHECK(isinf(bits) || r.bits > 0.9 * bits - 8);
            bits = r.bits;
            loss = r.loss;
        }
        CHECK(atomo__rate_at(n, 1, 1e5).keep < 1e-2 && atomo__rate_at(n, 1, 1e-4).keep == 1);
    }
}

/* The bound of classes: of one class 1 / (4^R - 1) times its energy; of two, no division of the bits has less. */
static void bounds(void)
{
    atomo__classes c = {.count = 1, .units = {2}, .size = {500}, .energy = {3}};
    for (double R = 0.01; R < 12; R *= 1.7) CHECK_NEAR(atomo__classes_bound(&c, 1000 * R), 3 / (exp2(2 * R) - 1), 1e-6);
    c = (atomo__classes){.count = 2, .units = {1, 4}, .size = {256, 1024}, .energy = {100, 2}};
    for (double bits = 50; bits < 30000; bits *= 3) {
        double least = INFINITY;
        for (double share = 0.001; share < 1; share += 0.001) {
            const double first = share * bits / 256, second = (1 - share) * bits / 4096;
            least = ATOMO_MIN(least, 100 / expm1(first * log(4)) + 2 / expm1(second * log(4)));
        }
        const double bound = atomo__classes_bound(&c, bits);
        CHECK(bound <= least * 1.000001 && bound > 0.99 * least);
    }
    CHECK(atomo__classes_bound(&(atomo__classes){.count = 0}, 100) == 0);
}

int main(void)
{
    RUN(sizes);
    RUN(rotations);
    RUN(extremes);
    RUN(symbols);
    RUN(quantisers);
    RUN(rates);
    RUN(bounds);
    return check_done();
}
