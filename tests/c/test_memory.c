/* test_memory.c - the pooled allocator: alignment, counting, reuse, overflow, threads. */
#include "check.h"
#include <pthread.h>
#include <stdlib.h>

static double count(double which(const atomo_mem *))
{
    atomo_mem m;
    atomo_mem_stats(&m);
    return which(&m);
}
static double live(const atomo_mem *m)
{
    return m->live;
}
static double blocks(const atomo_mem *m)
{
    return m->live_blocks;
}
static double system_allocs(const atomo_mem *m)
{
    return m->system_allocs;
}
static double pooled(const atomo_mem *m)
{
    return m->pooled;
}
static double high_water(const atomo_mem *m)
{
    return m->high_water;
}

/* Every size up to 3000 and around each power of two: aligned, large enough, at most 1/8 (and 64 bytes) more than
 * asked. */
static void one_size(size_t n)
{
    double before = count(live);
    void *p = NULL;
    if (!CHECK_OK(atomo__alloc(&p, n))) return;
    double got = count(live) - before;
    CHECK((uintptr_t)p % 64 == 0);
    CHECK(got >= (double)n);
    CHECK(got <= ATOMO_MAX((double)n * 1.125 + 1, (double)n + 64));
    memset(p, 0xA5, n); /* AddressSanitizer and the pool's own header would notice */
    atomo__free(p);
    CHECK(count(live) == before);
}

static void sizes(void)
{
    for (size_t n = 0; n < 3000; n++) one_size(n);
    for (int e = 12; e < 24; e++)
        for (int d = -2; d <= 2; d++) one_size(((size_t)1 << e) + (size_t)(d + 2) - 2);
}

/* Scratch of decreasing and then mixed sizes uses the first block; a larger request replaces it. */
static void scratch(void)
{
    void *p, *q;
    atomo_mem_trim();
    CHECK_OK(atomo__scratch(&p, 1 << 20));
    CHECK((uintptr_t)p % 64 == 0);
    atomo__free(p);
    double before = count(system_allocs), held = count(pooled);
    for (size_t n = 1; n <= 1 << 20; n = 3 * n + 1) {
        CHECK_OK(atomo__scratch(&q, n));
        CHECK(q == p);
        memset(q, 0x5A, n);
        atomo__free(q);
    }
    CHECK(count(system_allocs) == before && count(pooled) == held);
    CHECK_OK(atomo__scratch(&p, 1 << 21)); /* the smaller one is freed */
    CHECK(count(pooled) == 0);
    CHECK_OK(atomo__scratch(&q, 1 << 21)); /* two at a time */
    atomo__free(p);
    atomo__free(q);
    before = count(system_allocs);
    for (int i = 0; i < 10; i++) {
        CHECK_OK(atomo__scratch(&p, 1 << 21));
        CHECK_OK(atomo__scratch(&q, 1 << 10));
        CHECK(p != q);
        atomo__free(p);
        atomo__free(q);
    }
    CHECK(count(system_allocs) == before);
    void *many[6]; /* more than are kept: the rest is returned to the system */
    for (int i = 0; i < 6; i++) CHECK_OK(atomo__scratch(&many[i], 5000));
    for (int i = 0; i < 6; i++) atomo__free(many[i]);
    atomo_mem_trim();
    CHECK(count(pooled) == 0);
}

static void reuse(void)
{
    void *p, *q;
    CHECK_OK(atomo__alloc(&p, 5000));
    atomo__free(p);
    double before = count(system_allocs);
    for (int i = 0; i < 100; i++) {
        CHECK_OK(atomo__alloc(&p, 4900 + (size_t)i)); /* the same class */
        CHECK_OK(atomo__calloc(&q, 64));
        for (int j = 0; j < 64; j++) CHECK(((char *)q)[j] == 0);
        memset(q, 1, 64);
        atomo__free(p);
        atomo__free(q);
    }
    CHECK(count(system_allocs) <= before + 1);
    atomo_mem_trim();
    CHECK(count(pooled) == 0);
    atomo__free(NULL);
}

/* In compact mode a block from the system replaces pooled ones of other sizes: all memory stays near the peak. */
static void compact(void)
{
    enum { LARGE = 1 << 26, SMALL = 1 << 25 };
    void *p, *q;
    for (int on = 0; on < 2; on++) {
        atomo_mem_trim();
        atomo_mem_reset_peak();
        atomo_mem_compact(on);
        CHECK_OK(atomo__alloc(&p, LARGE));
        memset(p, 1, LARGE);
        atomo__free(p);
        CHECK(count(pooled) >= LARGE);
        CHECK_OK(atomo__alloc(&q, SMALL));
        memset(q, 2, SMALL);
        CHECK(on ? count(pooled) == 0 : count(pooled) >= LARGE);
        CHECK(on == (count(high_water) < LARGE + SMALL));
        CHECK_OK(atomo__alloc(&p, SMALL / 2)); /* there is room below the peak: no block is given back for it */
        atomo__free(p);
        const double held = count(pooled);
        CHECK_OK(atomo__alloc(&p, SMALL / 4));
        CHECK(count(pooled) == held);
        atomo__free(p);
        atomo__free(q);
        atomo_mem_compact(0);
    }
    atomo_mem_trim();
}

static void peak(void)
{
    void *p;
    atomo_mem m;
    atomo_mem_reset_peak();
    atomo_mem_stats(&m);
    CHECK(m.peak == m.live);
    double before = m.live;
    CHECK_OK(atomo__alloc(&p, 1 << 20));
    atomo__free(p);
    atomo_mem_stats(&m);
    CHECK(m.peak == before + (1 << 20));
    CHECK(m.live == before);
}

static void limits(void)
{
    void *p = &p;
    CHECK_STATUS(atomo__alloc(&p, SIZE_MAX), ATOMO_ELIMIT, "more than any machine has");
    CHECK(p == NULL);
    CHECK_STATUS(atomo__alloc(&p, (size_t)PTRDIFF_MAX), ATOMO_ELIMIT, NULL);
    size_t n = 0;
    CHECK_OK(atomo__size_mul(3, 5, 7, &n));
    CHECK(n == 105);
    CHECK_OK(atomo__size_mul(0, SIZE_MAX, 1, &n));
    CHECK(n == 0);
    CHECK_OK(atomo__size_mul((size_t)PTRDIFF_MAX, 1, 1, &n));
    CHECK_STATUS(atomo__size_mul((size_t)PTRDIFF_MAX + 1, 1, 1, &n), ATOMO_ELIMIT, "overflows");
    CHECK_STATUS(atomo__size_mul(SIZE_MAX / 2, 3, 1, &n), ATOMO_ELIMIT, NULL);
    CHECK_STATUS(atomo__size_mul((size_t)1 << 32, (size_t)1 << 16, (size_t)1 << 16, &n), ATOMO_ELIMIT, NULL);
}

enum { THREADS = 8, ROUNDS = 3000, HELD = 16 };

/* Allocates and frees in a pseudo-random order; each block is filled with the thread's mark, which must survive. */
static void *churn(void *arg)
{
    unsigned char mark = (unsigned char)(uintptr_t)arg;
    unsigned state = mark;
    unsigned char *held[HELD] = {NULL};
    size_t size[HELD] = {0};
    intptr_t wrong = 0;
    for (int i = 0; i < ROUNDS; i++) {
        state = state * 1664525u + 1013904223u;
        unsigned k = (state >> 16) % HELD;
        for (size_t j = 0; held[k] && j < size[k]; j++) wrong += held[k][j] != mark;
        atomo__free(held[k]);
        size[k] = (state >> 8) % 2000;
        void *p;
        if (atomo__alloc(&p, size[k]) < 0) return (void *)(intptr_t)-1;
        held[k] = memset(p, mark, size[k]);
    }
    for (int k = 0; k < HELD; k++) atomo__free(held[k]);
    return (void *)wrong;
}

static void threads(void)
{
    double before = count(blocks);
    pthread_t t[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) CHECK(pthread_create(&t[i], NULL, churn, (void *)(i + 1)) == 0);
    for (int i = 0; i < THREADS; i++) {
        void *wrong;
        CHECK(pthread_join(t[i], &wrong) == 0);
        CHECK(wrong == NULL);
    }
    CHECK(count(blocks) == before);
}

int main(void)
{
    RUN(sizes);
    RUN(reuse);
    RUN(scratch);
    RUN(compact);
    RUN(peak);
    RUN(limits);
    RUN(threads);
    return check_done();
}
