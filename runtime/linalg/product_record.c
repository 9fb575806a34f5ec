/* product_record.c - the place where every matrix product of a layer is computed, and the record of which products a
 * program computes: for the limit that scripts/bench_nn.lua --limit measures. Path: stage 3.
 *
 * While nothing is recorded a product costs one more test of a flag. Records are kept in lists, one per hash of what
 * tells products apart. Threads of a parallel region record under a lock.
 */
#include "linalg/product.h"
#include <cblas.h>
#include <limits.h>
#include <omp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct record {
    struct record *next;  /* in its bucket */
    struct record *after; /* in the order of first calls */
    atomo_product p;      /* fields before `calls` are the key; it has no padding bytes */
} record;

enum { BUCKETS = 256 };
static const size_t KEY_BYTES = offsetof(atomo_product, calls);
static atomic_bool recording;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all below */
static record *buckets[BUCKETS], *first, **end = &first;
static int count;
static bool incomplete; /* a record could not be made */

static void forget(void)
{
    for (record *r = first, *after; r; r = after) {
        after = r->after;
        free(r);
    }
    memset(buckets, 0, sizeof buckets);
    first = NULL, end = &first, count = 0, incomplete = false;
}

/* Returns the record of a product, made if there is none; NULL without memory. */
static record *find(const atomo_product *key)
{
    record **bucket = &buckets[atomo__crc32(0, key, KEY_BYTES) % BUCKETS];
    for (record *r = *bucket; r; r = r->next)
        if (memcmp(&r->p, key, KEY_BYTES) == 0) return r;
    record *r = calloc(1, sizeof *r); /* not in the runtime's counts, which a measurement must not change */
    if (!r) return NULL;
    r->p = *key;
    r->next = *bucket, *bucket = r;
    *end = r, end = &r->after, count++;
    return r;
}

static void note(const atomo__product_call *c, double seconds)
{
    const atomo_product key = {c->engine,
                               c->ta,
                               c->tb,
                               c->beta != 0,
                               c->biased,
                               omp_in_parallel() ? omp_get_num_threads() : 1,
                               (double)c->m,
                               (double)c->n,
                               (double)c->k,
                               (double)c->lda,
                               (double)c->ldb,
                               (double)c->ldc,
                               0,
                               0};
    pthread_mutex_lock(&lock);
    record *r = find(&key);
    if (r)
        r->p.calls++, r->p.seconds += seconds;
    else
        incomplete = true;
    pthread_mutex_unlock(&lock);
}

static int compute(const atomo__product_call *p, const void *a, const void *b, const float *bias, float *c)
{
    if (p->engine == ATOMO_PRODUCT_SGEMM)
        return atomo__sgemm(p->ta, p->tb, p->m, p->n, p->k, a, p->lda, b, p->ldb, p->beta, c, p->ldc);
#ifdef ATOMO_HAVE_ONEDNN
    if (p->engine == ATOMO_PRODUCT_BF16)
        return atomo__bf16_product(p->ta, p->tb, p->m, p->n, p->k, a, p->lda, b, p->ldb, bias, p->beta != 0, c, p->ldc);
#endif
    (void)bias;
    cblas_sgemm(CblasRowMajor, p->ta ? CblasTrans : CblasNoTrans, p->tb ? CblasTrans : CblasNoTrans, (blasint)p->m,
                (blasint)p->n, (blasint)p->k, p->alpha, a, (blasint)p->lda, b, (blasint)p->ldb, p->beta, c,
                (blasint)p->ldc);
    return ATOMO_OK;
}

int atomo__product_run(const atomo__product_call *p, const void *a, const void *b, const float *bias, float *c)
{
    if (!atomic_load_explicit(&recording, memory_order_relaxed)) return compute(p, a, b, bias, c);
    const double start = atomo_time();
    const int rc = compute(p, a, b, bias, c);
    if (rc == 0) note(p, atomo_time() - start);
    return rc;
}

int atomo_products_record(int on)
{
    pthread_mutex_lock(&lock);
    if (on) forget();
    const bool all = !incomplete;
    pthread_mutex_unlock(&lock);
    atomic_store(&recording, on != 0);
    ATOMO_REQUIRE(all, ATOMO_ENOMEM, "products_record: no memory for the record of a product");
    return ATOMO_OK;
}

int atomo_products_recorded(void)
{
    return count;
}

int atomo_products_get(int i, atomo_product *out)
{
    ATOMO_REQUIRE(i >= 0 && i < count, ATOMO_EARG, "products_get: record %d, there are %d", i, count);
    const record *r = first;
    for (int at = 0; at < i; at++) r = r->after;
    *out = r->p;
    return ATOMO_OK;
}

/* ---- a recorded product again ------------------------------------------------------------------------------------ */

static int expect_product(const atomo_product *p)
{
    const double rows[] = {p->ta ? p->k : p->m, p->tb ? p->n : p->k, p->m};
    const double cols[] = {p->ta ? p->m : p->k, p->tb ? p->k : p->n, p->n}, ld[] = {p->lda, p->ldb, p->ldc};
    ATOMO_REQUIRE(p->engine >= 0 && p->engine < ATOMO_PRODUCT_ENGINES, ATOMO_EARG,
                  "product_time: engine %d, expected 0 to %d", p->engine, ATOMO_PRODUCT_ENGINES - 1);
    ATOMO_REQUIRE(p->engine != ATOMO_PRODUCT_BF16 || atomo__bf16_unit(), ATOMO_EARG,
                  "product_time: engine %d, but this machine does not multiply bf16", p->engine);
    ATOMO_REQUIRE(!p->adds || !p->biased, ATOMO_EARG, "product_time: a product that adds has no bias");
    for (int i = 0; i < 3; i++)
        ATOMO_REQUIRE(rows[i] >= 1 && cols[i] >= 1 && rows[i] <= INT_MAX && ld[i] >= cols[i] && ld[i] <= INT_MAX,
                      ATOMO_EARG, "product_time: operand %d is [%.0f,%.0f] with rows %.0f apart", i + 1, rows[i],
                      cols[i], ld[i]);
    return ATOMO_OK;
}

/* *out = memory for `rows` rows of ld elements, filled with one small number. */
static int make_operand(double rows, double ld, size_t each, void **out)
{
    size_t bytes;
    ATOMO_TRY(atomo__size_mul((size_t)rows, (size_t)ld, each, &bytes));
    ATOMO_TRY(atomo__alloc(out, bytes));
    memset(*out, 0x3c, bytes); /* 0x3c3c3c3c is 0.0115, 0x3c3c as well in bf16 */
    return ATOMO_OK;
}

static int time_runs(const atomo_product *p, const void *a, const void *b, const float *bias, float *c, int runs,
                     double *seconds)
{
    const atomo__product_call call = {p->engine,
                                      p->ta != 0,
                                      p->tb != 0,
                                      p->biased != 0,
                                      (int64_t)p->m,
                                      (int64_t)p->n,
                                      (int64_t)p->k,
                                      (int64_t)p->lda,
                                      (int64_t)p->ldb,
                                      (int64_t)p->ldc,
                                      1,
                                      p->adds ? 1 : 0};
    for (int r = -1; r < runs; r++) {
        const double start = atomo_time();
        ATOMO_TRY(compute(&call, a, b, p->biased ? bias : NULL, c));
        if (r >= 0) seconds[r] = atomo_time() - start;
    }
    return ATOMO_OK;
}

int atomo_product_time(const atomo_product *p, int runs, double *seconds)
{
    ATOMO_REQUIRE(runs >= 1, ATOMO_EARG, "product_time: %d runs, expected 1 or more", runs);
    ATOMO_TRY(expect_product(p));
    const size_t each = p->engine == ATOMO_PRODUCT_BF16 ? sizeof(uint16_t) : sizeof(float);
    void *a = NULL, *b = NULL, *bias = NULL, *c = NULL;
    int rc = make_operand(p->ta ? p->k : p->m, p->lda, each, &a);
    if (rc == 0) rc = make_operand(p->tb ? p->n : p->k, p->ldb, each, &b);
    if (rc == 0) rc = make_operand(1, p->n, sizeof(float), &bias);
    if (rc == 0) rc = make_operand(p->m, p->ldc, sizeof(float), &c);
    if (rc == 0) rc = time_runs(p, a, b, bias, c, runs, seconds);
    atomo__free(a);
    atomo__free(b);
    atomo__free(bias);
    atomo__free(c);
    return rc;
}
