/* test_random.c - Philox4x32-10 against the known answers that Random123 publishes (kat_vectors), independence of
 * streams, uniforms. Seeds are fixed: nothing here fails by chance. */
#include "check.h"

static const struct {
    uint32_t counter[4], key[2], out[4];
} known[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

static void known_answers(void)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const uint32_t *c = known[i].counter;
        atomo_stream s = {{known[i].key[0], known[i].key[1]}, c[3] & 255, c[3] >> 8, c[2], c[1]};
        uint32_t out[4];
        atomo_random_block(&s, c[0], out);
        CHECK(memcmp(out, known[i].out, sizeof out) == 0);
    }
}

/* Any range of a stream has the same elements as the whole, wherever it starts and ends within a block. */
static void windows(void)
{
    const atomo_stream s = {{7, 9}, ATOMO_RNG_SAMPLE, 2, 3, 4};
    float all[64], part[64];
    uint32_t block[4];
    atomo_random_uniform(&s, 0, 64, all);
    for (int i = 0; i < 64; i++) {
        atomo_random_block(&s, (uint32_t)i / 4, block);
        CHECK(all[i] == atomo__to_uniform(block[i % 4]));
    }
    for (int first = 0; first < 12; first++)
        for (int n = 0; n <= 20; n++) {
            part[n] = -1;
            atomo_random_uniform(&s, first, n, part);
            CHECK(memcmp(part, all + first, (size_t)n * sizeof(float)) == 0);
            CHECK(part[n] == -1); /* nothing is written after the end */
        }
}

static void range(void)
{
    CHECK(atomo__to_uniform(0) == 0);
    CHECK(atomo__to_uniform(UINT32_MAX) == 1 - 0x1p-24f);
    enum { N = 100000, BINS = 64 };
    static float u[N];
    const atomo_stream s = {{1, 0}, ATOMO_RNG_USER, 0, 0, 0};
    atomo_random_uniform(&s, 0, N, u);
    double sum = 0, squares = 0, bins[BINS] = {0}, chi = 0;
    bool inside = true;
    for (int i = 0; i < N; i++) {
        inside = inside && u[i] >= 0 && u[i] < 1 && u[i] * 0x1p24f == floorf(u[i] * 0x1p24f);
        sum += (double)u[i];
        squares += (double)u[i] * (double)u[i];
        bins[(int)(u[i] * BINS)]++;
    }
    for (int b = 0; b < BINS; b++) chi += (bins[b] - N / (double)BINS) * (bins[b] - N / (double)BINS) * BINS / N;
    CHECK(inside);
    CHECK_NEAR(sum / N, 0.5, 4 * sqrt(1 / 12.0 / N)); /* 4 standard errors */
    CHECK_NEAR(squares / N, 1 / 3.0, 4 * sqrt(4 / 45.0 / N));
    CHECK(chi < 63 + 4 * sqrt(2 * 63.0)); /* chi-squared, 63 degrees of freedom */
}

/* Streams that differ in one field: no common block, no correlation. */
static void independence(void)
{
    enum { N = 20000, STREAMS = 8 };
    static float u[STREAMS][N];
    atomo_stream s[STREAMS];
    for (int i = 0; i < STREAMS; i++) s[i] = (atomo_stream){{5, 6}, 5, 1, 10, 20};
    s[1].seed[0]++;
    s[2].seed[1]++;
    s[3].purpose++;
    s[4].rank++;
    s[5].step++;
    s[6].tensor++;
    s[7].tensor += 1u << 31;
    for (int i = 0; i < STREAMS; i++) atomo_random_uniform(&s[i], 0, N, u[i]);
    for (int i = 0; i < STREAMS; i++)
        for (int j = 0; j < i; j++) {
            double dot = 0;
            int equal = 0;
            for (int k = 0; k < N; k++) {
                dot += ((double)u[i][k] - 0.5) * ((double)u[j][k] - 0.5);
                equal += u[i][k] == u[j][k];
            }
            CHECK_NEAR(dot * 12 / N, 0, 4.5 / sqrt(N));
            CHECK(equal < 10); /* chance: N / 2^24 */
        }
}

static void seeding(void)
{
    double a[3], b[3];
    atomo_tensor *x = check_tensor(5, 7), *y = check_tensor(5, 7);
    atomo_manual_seed(42);
    CHECK(atomo_initial_seed() == 42);
    for (int i = 0; i < 3; i++) a[i] = atomo_random_double();
    CHECK_OK(atomo_fill_normal(x, 0, 1));
    CHECK_OK(atomo_fill_normal(y, 0, 1));
    CHECK(memcmp(x->data, y->data, 35 * sizeof(float)) != 0); /* the next tensor has other numbers */
    atomo_manual_seed(42);
    for (int i = 0; i < 3; i++) b[i] = atomo_random_double();
    CHECK_OK(atomo_fill_normal(y, 0, 1));
    CHECK(memcmp(a, b, sizeof a) == 0 && a[0] != a[1] && a[0] >= 0 && a[0] < 1);
    CHECK(memcmp(x->data, y->data, 35 * sizeof(float)) == 0);
    atomo_manual_seed(43);
    CHECK(atomo_random_double() != a[0]);
    atomo_tensor_free(x);
    atomo_tensor_free(y);
}

/* Mean, variance and fourth moment of normal numbers, within 4.5 standard errors; odd lengths are filled completely. */
static void normals(void)
{
    enum { N = 100001 };
    atomo_tensor *x = check_tensor(N, -1);
    atomo_manual_seed(1);
    CHECK_OK(atomo_fill_normal(x, 2, 3));
    double m1 = 0, m2 = 0, m4 = 0;
    for (int i = 0; i < N; i++) {
        double z = ((double)check_f32(x)[i] - 2) / 3;
        m1 += z / N;
        m2 += z * z / N;
        m4 += z * z * z * z / N;
    }
    CHECK_NEAR(m1, 0, 4.5 / sqrt(N));
    CHECK_NEAR(m2, 1, 4.5 * sqrt(2.0 / N));
    CHECK_NEAR(m4, 3, 4.5 * sqrt(96.0 / N));
    CHECK_OK(atomo_fill_uniform(x, -2, 6));
    double least = 9, most = -9;
    for (int i = 0; i < N; i++) {
        least = fmin(least, (double)check_f32(x)[i]);
        most = fmax(most, (double)check_f32(x)[i]);
    }
    CHECK(least >= -2 && least < -1.999 && most < 6 && most > 5.999);
    atomo_tensor_free(x);
}

int main(void)
{
    RUN(known_answers);
    RUN(windows);
    RUN(range);
    RUN(independence);
    RUN(seeding);
    RUN(normals);
    return check_done();
}
