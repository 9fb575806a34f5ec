/* test_codec_threads.c - codecs of all compressors at the same time in several threads: messages and averages have the
 * bits of one thread, and each thread has its own error text. Run with ThreadSanitizer, too (scripts/test.sh --only
 * tsan). */
#include "check.h"
#include <pthread.h>

enum { THREADS = 4, MOST = 64, TENSORS = 3, STEPS = 3, RANKS = 2, MOST_DIM = 4 };

static const struct {
    int ndim, n;
    double shape[MOST_DIM];
} tensors[TENSORS] = {{4, 24 * 3 * 3 * 10, {24, 3, 3, 10}}, {2, 30 * 70, {30, 70}}, {1, 45, {45}}};

static void fill(float *x, int n, int tensor, int step, int rank)
{
    const atomo_stream s = {{5, 0}, ATOMO_RNG_USER, (uint32_t)rank, (uint32_t)step, (uint32_t)tensor};
    atomo_random_uniform(&s, 0, n, x);
    for (int i = 0; i < n; i++) x[i] = (x[i] - 0.5f) * (i % 7 == 0 ? 10 : 1);
}

/* *crc covers the new bytes, too: an odd multiplier keeps the order of calls. */
static void add_to(uint32_t *crc, const void *bytes, double n)
{
    *crc = *crc * 2654435761u + (uint32_t)atomo_crc32(bytes, n);
}

/* Encodes a step on one rank and adds its messages to the averages. */
static int exchange(atomo_codec *c, int step, int rank, atomo_tensor *const *grads, atomo_tensor *const *sums,
                    uint8_t *out, double room, uint32_t *crc)
{
    static const int numbers[TENSORS] = {1, 2, 3};
    double length[TENSORS], used;
    for (int t = 0; t < TENSORS; t++) fill(check_f32(grads[t]), tensors[t].n, t, step, rank);
    ATOMO_TRY(
        atomo_codec_encode(c, TENSORS, numbers, (const atomo_tensor *const *)grads, step, rank, out, room, length));
    for (int t = 0; t < TENSORS; t++) {
        ATOMO_TRY(atomo_codec_decode_add(c, t + 1, step, rank, out, length[t], 1.0 / RANKS, sums[t], &used));
        add_to(crc, out, length[t]);
        out += (size_t)length[t];
    }
    return ATOMO_OK;
}

/* Returns whether compressor number i is tested: not one that is a part of atomo.decomposition or that needs a library
 * which is not there. */
static bool is_tested(int i)
{
    atomo_codec_info about;
    return atomo_codec_about(i, &about) == ATOMO_OK && about.name[0] != '_' && !*atomo_codec_missing(i);
}

/* *crc = a checksum of all messages and averages of some steps of compressor number i, with or without ef=true. */
static int run(int i, bool feedback, uint32_t *crc)
{
    atomo_codec_info about;
    double option[MOST];
    atomo_codec *c[RANKS] = {NULL};
    atomo_tensor *grads[TENSORS] = {NULL}, *sums[TENSORS] = {NULL};
    *crc = 0;
    ATOMO_TRY(atomo_codec_about(i, &about));
    for (int j = 0; j < about.options; j++) option[j] = NAN;
    option[check_option(i, "ef")] = feedback;
    int rc = ATOMO_OK;
    for (int t = 0; rc == 0 && t < TENSORS; t++) {
        rc = atomo_tensor_new(ATOMO_F32, tensors[t].ndim, tensors[t].shape, &grads[t]);
        if (rc == 0) rc = atomo_tensor_new(ATOMO_F32, tensors[t].ndim, tensors[t].shape, &sums[t]);
    }
    for (int r = 0; r < RANKS; r++) {
        if (rc == 0) rc = atomo_codec_new(about.name, about.options, option, 3, ATOMO_WAY_UP, &c[r]);
        for (int t = 0; rc == 0 && t < TENSORS; t++)
            rc = atomo_codec_plan(c[r], t + 1, tensors[t].ndim, tensors[t].shape, 0, NULL);
    }
    const double room = rc == 0 ? atomo_codec_wire_max(c[0], 0) : 1;
    uint8_t *out = malloc((size_t)room);
    for (int step = 0; rc == 0 && step < STEPS; step++) {
        for (int t = 0; rc == 0 && t < TENSORS; t++) rc = atomo_fill(sums[t], 0);
        for (int r = 0; rc == 0 && r < RANKS; r++) rc = exchange(c[r], step, r, grads, sums, out, room, crc);
        for (int t = 0; rc == 0 && t < TENSORS; t++) {
            rc = atomo_codec_finish(c[0], t + 1, 1.0 / RANKS, sums[t]);
            add_to(crc, sums[t]->data, 4 * sums[t]->numel);
        }
    }
    free(out);
    for (int r = 0; r < RANKS; r++) atomo_codec_free(c[r]);
    for (int t = 0; t < TENSORS; t++) {
        atomo_tensor_free(grads[t]);
        atomo_tensor_free(sums[t]);
    }
    return rc;
}

typedef struct worker {
    pthread_t thread;
    int number, failed, mixed; /* calls with another status than expected; error texts of another thread */
    uint32_t crc[MOST][2];     /* [compressor][ef] */
} worker;

static void *work(void *argument)
{
    worker *w = argument;
    const int runs = 2 * atomo_codec_count();
    char unknown[32];
    snprintf(unknown, sizeof unknown, "no-such-%d", w->number);
    for (int k = 0; k < runs; k++) {
        const int i = (k + w->number * runs / THREADS) % runs; /* each thread begins with another compressor */
        atomo_codec *none;
        if (!is_tested(i / 2)) continue;
        w->failed += atomo_codec_new(unknown, 0, NULL, 0, 0, &none) != ATOMO_EARG;
        w->mixed += strstr(atomo_last_error(), unknown) == NULL;
        w->failed += run(i / 2, i % 2, &w->crc[i / 2][i % 2]) < 0;
    }
    return NULL;
}

/* The threads run first, so that they also fill the tables and load the libraries that the first codec needs. */
static void same_as_one_thread(void)
{
    static worker workers[THREADS];
    const int count = atomo_codec_count();
    REQUIRE(count <= MOST);
    for (int t = 0; t < THREADS; t++) {
        workers[t].number = t;
        REQUIRE(pthread_create(&workers[t].thread, NULL, work, &workers[t]) == 0);
    }
    for (int t = 0; t < THREADS; t++) {
        pthread_join(workers[t].thread, NULL);
        CHECK(workers[t].failed == 0);
        CHECK(workers[t].mixed == 0);
    }
    for (int i = 0; i < count; i++)
        for (int feedback = 0; is_tested(i) && feedback < 2; feedback++) {
            uint32_t crc;
            CHECK_OK(run(i, feedback, &crc));
            CHECK(crc != 0);
            for (int t = 0; t < THREADS; t++) CHECK(workers[t].crc[i][feedback] == crc);
        }
}

int main(void)
{
    RUN(same_as_one_thread);
    return check_done();
}
