/* test_coding.c - index lists take bits near their entropy; the sums from which budgets are computed. Fixed seeds. */
#include "check.h"
#include "codec/codec.h"
#include "compress/common/levels.h"

enum { MOST = 10000000 };

/* Draws each of n indices with probability q, with random signs; m ascending indices. */
static int64_t draw(double q, int64_t n, uint32_t *list)
{
    int64_t m = 0;
    if (q >= 1) {
        for (; m < n; m++) list[m] = (uint32_t)m | (uint32_t)(m * 2654435761u & ATOMO__MINUS);
        return n;
    }
    const double base = log1p(-q);
    for (double at = -1; m < n;) {
        at += 1 + floor(log1p(-atomo_random_double()) / base);
        if (at >= (double)n) break;
        list[m++] = (uint32_t)at | (atomo_random_double() < 0.5 ? ATOMO__MINUS : 0);
    }
    return m;
}

static double entropy(double m, double n)
{
    double q = m / n;
    return q <= 0 || q >= 1 ? 0 : -n * (q * log2(q) + (1 - q) * log2(1 - q));
}

/* Writes a list, compares its length with n H(m/n) + m bits, and reads it back. Short lists also have a header: the
 * count (8 to 32 bits), the form (2) and the Rice parameter (5). */
static void check_list(double q, int64_t n, uint32_t *list, uint32_t *back, uint8_t *bytes)
{
    int64_t m = draw(q, n, list);
    for (int signs = 0; signs < 2; signs++) {
        atomo__writer w = {.data = bytes, .capacity = (size_t)n / 4 + 64};
        atomo__write_indices(&w, list, m, n, signs);
        double bits = 8 * (double)w.size + w.fill;
        double bound = entropy((double)m, (double)n) + (signs ? (double)m : 0), header = m < 1 << 14 ? 23 : 39;
        check_report(bits <= 1.05 * bound + header, __FILE__, __LINE__, "n %.0f, m %.0f: %.0f bits, bound %.0f",
                     (double)n, (double)m, bits, bound);
        atomo__put_align(&w);
        CHECK(!w.overflow);
        atomo__reader r = {.data = bytes, .size = w.size};
        CHECK(atomo__read_indices(&r, n, signs, back) == m && atomo__at_end(&r));
        int64_t wrong = 0;
        for (int64_t i = 0; i < m; i++) wrong += back[i] != (signs ? list[i] : list[i] & ~ATOMO__MINUS);
        CHECK(wrong == 0);
    }
}

static void index_lists(void)
{
    static const double densities[] = {0, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 0.5, 0.7, 0.95, 0.999, 1};
    uint32_t *list = malloc(sizeof *list * MOST), *back = malloc(sizeof *back * MOST);
    uint8_t *bytes = malloc(MOST / 4 + 64);
    CHECK(list && back && bytes);
    atomo_manual_seed(3);
    for (int64_t n = 10; n <= MOST && list && back && bytes; n *= 10)
        for (size_t d = 0; d < sizeof densities / sizeof *densities; d++)
            if (n < MOST || densities[d] < 0.2) check_list(densities[d], n, list, back, bytes);
    free(list);
    free(back);
    free(bytes);
}

static void splits(void)
{
    enum { N = 5003 };
    static float x[N];
    double count, above, below, want[3] = {0};
    atomo_manual_seed(4);
    for (int i = 0; i < N; i++) x[i] = (float)(atomo_random_double() - 0.5);
    x[17] = 0;
    for (int i = 0; i < N; i++) {
        double a = fabs((double)x[i]);
        want[0] += a >= 0.25;
        want[a >= 0.25 ? 1 : 2] += a;
    }
    atomo__split(x, N, 0.25f, &count, &above, &below);
    CHECK(count == want[0]);
    CHECK_NEAR(above, want[1], 1e-6 * want[1]);
    CHECK_NEAR(below, want[2], 1e-6 * want[2]);
    atomo__spectrum s;
    double square, modelled, sum;
    atomo__spectrum_of(&s, x, N, true);
    CHECK_OK(atomo__spectrum_anchor(&s, x, N, 0.25f, &square));
    CHECK(s.nonzero == N - 1);
    atomo__spectrum_above(&s, 0.25, &modelled, &sum);
    CHECK_NEAR(modelled, count, 1e-6 * count);
    CHECK_NEAR(sum, above, 1e-6 * above);
    atomo__split(x, N, 0.5f, &count, &above, &below); /* anchored again, elsewhere */
    CHECK_OK(atomo__spectrum_anchor(&s, x, N, 0.5f, &square));
    atomo__spectrum_above(&s, 0.5, &modelled, &sum);
    CHECK_NEAR(modelled, count, 1e-6 * count);
    CHECK_NEAR(sum, above, 1e-6 * above);
    x[5] = INFINITY;
    CHECK(atomo__spectrum_anchor(&s, x, N, 0.25f, &square) == ATOMO_ENONFINITE);
    x[5] = 3e38f; /* squares leave the range of floats */
    CHECK_OK(atomo__spectrum_anchor(&s, x, N, 0.25f, &square));
    CHECK_NEAR(square, 9e76, 1e70);
    for (int i = 0; i < N; i++) x[i] = i % 2 ? 3e-20f : -1e-20f; /* squares vanish */
    atomo__split(x, N, 2e-20f, &count, &above, &below);
    CHECK(count == N / 2);
    CHECK_NEAR(above, 3e-20 * (N / 2), 1e-22);
    CHECK_NEAR(below, 1e-20 * (N - N / 2), 1e-22);
}

/* The mean logarithm of the entries above a cut, in steps above it: for entries that are all 3, 1 + (3 - 1) * 2 steps.
 * */
static void logarithms(void)
{
    float x[100];
    for (int i = 0; i < 100; i++) x[i] = i % 2 ? 3 : -3;
    atomo__spectrum s;
    atomo__spectrum_of(&s, x, 100, true);
    CHECK_NEAR(atomo__spectrum_log2(&s, 1, 1, 2, false), log2(5), 0.1);
    CHECK_NEAR(atomo__spectrum_log2(&s, 1, 1, 2, true), 2, 1e-9);
    CHECK(atomo__spectrum_log2(&s, 4, 1, 2, false) == 0);
}

/* Sum, sum of squares and maximum include every entry, also the last ones, which do not fill a vector. */
static void measures(void)
{
    float x[70] = {0}, largest;
    double sum, square;
    for (int n = 1; n <= 70; n++)
        for (int at = 0; at < n; at++) {
            x[at] = -3;
            atomo__measure(x, n, &sum, &square, &largest);
            CHECK(sum == 3 && square == 9 && largest == 3);
            x[at] = 0;
        }
}

/* In parts: the bits of the whole, whatever the parts' lengths, and the checksum of parts joined is that of all. */
static void measures_in_parts(void)
{
    enum { LONG = 3001 };
    static float x[LONG];
    const atomo_stream stream = {{7, 0}, ATOMO_RNG_USER, 1, 2, 3};
    atomo_random_uniform(&stream, 0, LONG, x);
    for (int n = 1; n <= LONG; n += 100)
        for (int part = ATOMO__MEASURE_LANES; part <= 1024; part *= 4) {
            double sum, square, sum_parts, square_parts;
            float largest, largest_parts;
            atomo__measures m = {0};
            uint32_t crc = 0;
            for (int at = 0; at < n; at += part) {
                const int len = ATOMO_MIN(part, n - at);
                atomo__measure_more(&m, x + at, len);
                crc = atomo__crc32_join(crc, atomo__crc32(0, x + at, sizeof *x * (size_t)len), sizeof *x * (size_t)len);
            }
            atomo__measured(&m, &sum_parts, &square_parts, &largest_parts);
            atomo__measure(x, n, &sum, &square, &largest);
            CHECK(sum == sum_parts && square == square_parts && largest == largest_parts);
            CHECK(crc == atomo__crc32(0, x, sizeof *x * (size_t)n));
        }
    CHECK(atomo__crc32_join(5, 0, 0) == 5);
}

/* Sampling many atoms at once draws the same ones as sampling each alone, and writes nothing after the last. */
static void draws(void)
{
    enum { MANY = 70 };
    const atomo_stream stream = {{7, 0}, ATOMO_RNG_SAMPLE, 1, 2, 3};
    uint32_t index[MANY];
    float p[MANY];
    uint8_t drawn[MANY + 32];
    for (int i = 0; i < MANY; i++) {
        index[i] = (uint32_t)(i * 37);
        p[i] = (float)(i % 10) / 10;
    }
    for (int n = 0; n <= MANY; n++) {
        memset(drawn, 0xA5, sizeof drawn);
        atomo__sample_some(&stream, index, p, n, drawn);
        for (int i = 0; i < n; i++) CHECK(drawn[i] == atomo__sample_one(&stream, index[i], (double)p[i]));
        for (int i = n; i < (int)sizeof drawn; i++) CHECK(drawn[i] == 0xA5);
    }
}

/* Two ranks never share a stratum, and every stratum is as frequent as every other one for each rank. More ranks than
 * strata form groups. */
static void strata(void)
{
    enum { DRAWS = 64 * 1024 };
    static const uint32_t ranks[] = {2, 3, 4, 7, 8, 16, 33, 128, 256, 300};
    static uint8_t pi[256][ATOMO__STRATA_CHUNK];
    for (int k = 0; k < (int)(sizeof ranks / sizeof *ranks); k++) {
        const int count = (int)ATOMO_MIN(ranks[k], 256u);
        int q = 1, bits = 0;
        while (q < count) q *= 2, bits++;
        double worst = 0;
        int seen[256] = {0};
        for (uint32_t step = 0; step < DRAWS / ATOMO__STRATA_CHUNK; step++) {
            float x[ATOMO__STRATA_CHUNK];
            uint8_t u[ATOMO__STRATA_CHUNK], low[ATOMO__STRATA_CHUNK];
            for (int i = 0; i < ATOMO__STRATA_CHUNK; i++) x[i] = i % 3 ? 1 : -1;
            for (int r = 0; r < count; r++) {
                const atomo_stream s = {{7, k}, ATOMO_RNG_SAMPLE, (uint32_t)r, step, 3};
                const atomo__strata t = atomo__strata_of(&s, ranks[k]);
                atomo__strata_reader reader = {.strata = &t, .chunk = -1};
                CHECK(t.bits == bits);
                for (int i = 0; i < ATOMO__STRATA_CHUNK; i++) u[i] = (uint8_t)(i * 29 + r);
                atomo__strata_bytes(&t, x, ATOMO__STRATA_CHUNK, 0, u, low);
                for (int i = 0; i < ATOMO__STRATA_CHUNK; i++) {
                    const uint8_t own = (uint8_t)(i * 29 + r);
                    pi[r][i] = (uint8_t)(u[i] >> (8 - bits));
                    CHECK(low[i] == (own & (q - 1)));
                    CHECK((u[i] & ((1 << (8 - bits)) - 1)) == own >> bits);
                    CHECK(atomo__stratum_at(&reader, (uint32_t)i, x[i] < 0) == pi[r][i]);
                }
            }
            for (int i = 0; i < ATOMO__STRATA_CHUNK; i++) {
                int others[256] = {0};
                for (int r = 0; r < count; r++) CHECK(others[pi[r][i]]++ == 0);
                seen[pi[count - 1][i]]++;
            }
        }
        for (int v = 0; v < q; v++) { /* of 2600 counts in all, one passes 5.5 standard errors once in 10^4 runs */
            const double mean = (double)DRAWS / q, error = sqrt(mean * (1 - 1.0 / q));
            worst = ATOMO_MAX(worst, fabs(seen[v] - mean) / error);
        }
        CHECK(worst < 5.5);
    }
    const atomo_stream first = {{7, 0}, ATOMO_RNG_SAMPLE, 0, 1, 3}, later = {{7, 0}, ATOMO_RNG_SAMPLE, 256, 1, 3};
    CHECK(atomo__strata_of(&first, 300).shared.rank == 0 && atomo__strata_of(&later, 300).shared.rank == 1);
    CHECK(atomo__strata_of(&first, 1).bits == 0);
}

/* Pieces of any length that begin at any group of 16 entries have the strata of the whole. */
static void strata_of_pieces(void)
{
    enum { GROUPS = ATOMO__STRATA_CHUNK / 16 };
    static const uint32_t ranks[] = {2, 4, 8, 16, 200};
    static const int lengths[] = {1, 15, 16, 17, 63, 64, 65, 130, 200, 511, 960, ATOMO__STRATA_CHUNK};
    float x[ATOMO__STRATA_CHUNK];
    for (int i = 0; i < ATOMO__STRATA_CHUNK; i++) x[i] = i % 5 < 2 ? -0.5f : 2;
    for (int k = 0; k < (int)(sizeof ranks / sizeof *ranks); k++)
        for (int l = 0; l < (int)(sizeof lengths / sizeof *lengths); l++)
            for (uint32_t first = 0; first < 3 * GROUPS; first += first < 20 ? 1 : 37) {
                const atomo_stream s = {{7, 1}, ATOMO_RNG_SAMPLE, 1, 5, 3};
                const atomo__strata t = atomo__strata_of(&s, ranks[k]);
                const int n = lengths[l], bits = t.bits;
                atomo__strata_reader reader = {.strata = &t, .chunk = -1};
                uint8_t u[ATOMO__STRATA_CHUNK], low[ATOMO__STRATA_CHUNK];
                for (int i = 0; i < ATOMO__STRATA_CHUNK; i++) u[i] = (uint8_t)(i * 29);
                atomo__strata_bytes(&t, x, n, first, u, low);
                for (int i = 0; i < n; i++) {
                    const uint32_t pi = atomo__stratum_at(&reader, 16 * first + (uint32_t)i, x[i] < 0);
                    CHECK(u[i] == (uint8_t)(pi << (8 - bits) | (uint8_t)(i * 29) >> bits));
                    CHECK(low[i] == ((i * 29) & ((1 << bits) - 1)));
                }
                for (int i = (n + 15) / 16 * 16; i < ATOMO__STRATA_CHUNK; i++) CHECK(u[i] == (uint8_t)(i * 29));
            }
}

/* Codes of every width and number are read back, nothing is written after them, and a set bit in the padding is
 * detected. */
static void packed_codes(void)
{
    uint8_t code[ATOMO__CHUNK], packed[ATOMO__CHUNK], back[ATOMO__CHUNK + 1];
    for (int bits = 1; bits <= 8; bits++)
        for (int n = 1; n <= ATOMO__CHUNK; n += n < 70 ? 1 : 61) {
            for (int i = 0; i < n; i++) code[i] = (uint8_t)((i * 37 + 11) & ((1 << bits) - 1));
            const size_t size = atomo__packed_size(n, bits);
            CHECK(size == (size_t)((n + 7) / 8 * bits));
            atomo__pack(code, n, bits, packed);
            memset(back, 0xA5, sizeof back);
            CHECK(atomo__unpack(packed, n, bits, back));
            CHECK(memcmp(back, code, (size_t)n) == 0);
            CHECK(back[n] == 0xA5);
            if (n % 8 == 0) continue;
            packed[size - 1] |= 0x80; /* the last code of the last lane */
            CHECK(!atomo__unpack(packed, n, bits, back));
            CHECK(back[n] == 0xA5);
        }
}

/* The mean length of values over a threshold so small that their quotients overflow: large, but a number. */
static void tiny_thresholds(void)
{
    static atomo__spectrum spectrum;
    float x[64];
    for (int i = 0; i < 64; i++) x[i] = (float)(i + 1);
    atomo__spectrum_of(&spectrum, x, 64, true);
    for (int whole = 0; whole < 2; whole++) {
        const double bits = atomo__spectrum_log2(&spectrum, 0x1p-1040, 0x1p-1040, INFINITY, whole != 0);
        CHECK(bits > 100 && bits < 2000);
    }
}

int main(void)
{
    RUN(index_lists);
    RUN(splits);
    RUN(logarithms);
    RUN(measures);
    RUN(measures_in_parts);
    RUN(draws);
    RUN(strata);
    RUN(strata_of_pieces);
    RUN(tiny_thresholds);
    RUN(packed_codes);
    return check_done();
}
