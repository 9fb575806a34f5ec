/* product_onednn.c - products of bf16 matrices with f32 sums, by oneDNN's matmul primitive, 2.x and 3.x. Path: stage 3.
 *
 * A plan (the primitive and its memories) is made once per shape and number of threads, in about a millisecond, and
 * kept. It belongs to one thread while it runs: a second thread with the same shape makes a second plan. Inside a
 * parallel region a product uses one thread.
 */
#include "core/cache.h"
#include "linalg/onednn_md.h"
#include "linalg/product.h"
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct shape { /* key of plans, compared by memcmp, so it must have no padding bytes */
    int64_t m, n, k, lda, ldb, ldc;
    int32_t ta, tb, add, threads, biased, unused;
} shape;

typedef struct plan {
    atomo__cached cached;
    shape shape;
    dnnl_stream_t stream;
    dnnl_primitive_t run;
    dnnl_memory_t a, b, c, scratch, bias; /* bias: NULL if the shape has none */
    size_t scratch_bytes;
} plan;

enum { MOST_PLANS = 2048 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of cpu */
static dnnl_engine_t cpu;

const char *atomo__bf16_unit(void)
{
#ifdef __x86_64__
    const unsigned bf16 = dnnl_cpu_isa_avx512_core_bf16, amx = dnnl_cpu_isa_avx512_core_amx;
    const unsigned isa = (unsigned)dnnl_get_effective_cpu_isa(); /* each has the bits of those that it includes */
    if ((isa & amx) == amx) return "AMX";
    if ((isa & bf16) == bf16) return "AVX512-BF16";
#endif
    return NULL;
}

static int fail(dnnl_status_t rc, const shape *s)
{
    return atomo__fail(rc == dnnl_out_of_memory ? ATOMO_ENOMEM : ATOMO_EINTERNAL,
                       "bf16 product (oneDNN): [%lld,%lld] x [%lld,%lld] failed with dnnl_status %d", (long long)s->m,
                       (long long)s->k, (long long)s->k, (long long)s->n, (int)rc);
}

static void plan_free(void *object)
{
    plan *p = object;
    const dnnl_memory_t memories[] = {p->a, p->b, p->c, p->scratch, p->bias};
    for (size_t i = 0; i < sizeof memories / sizeof *memories; i++)
        if (memories[i]) dnnl_memory_destroy(memories[i]);
    if (p->run) dnnl_primitive_destroy(p->run);
    if (p->stream) dnnl_stream_destroy(p->stream);
    free(p);
}

static dnnl_status_t make_attr(bool add, dnnl_primitive_attr_t *attr)
{
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t rc = dnnl_primitive_attr_create(attr);
    if (rc == dnnl_success) rc = dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
    if (!add || rc != dnnl_success) return rc;
    rc = dnnl_post_ops_create(&ops);
#if DNNL_VERSION_MAJOR >= 3
    if (rc == dnnl_success) rc = dnnl_post_ops_append_sum(ops, 1, 0, dnnl_data_type_undef);
#else
    if (rc == dnnl_success) rc = dnnl_post_ops_append_sum(ops, 1);
#endif
    if (rc == dnnl_success) rc = dnnl_primitive_attr_set_post_ops(*attr, ops);
    if (ops) dnnl_post_ops_destroy(ops);
    return rc;
}

static dnnl_status_t make_pd(md_ref a, md_ref b, md_ref bias, md_ref c, const_dnnl_primitive_attr_t attr,
                             dnnl_primitive_desc_t *pd)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_matmul_primitive_desc_create(pd, cpu, a, b, bias, c, attr);
#else
    dnnl_matmul_desc_t d;
    const dnnl_status_t rc = dnnl_matmul_desc_init(&d, a, b, bias, c);
    return rc != dnnl_success ? rc : dnnl_primitive_desc_create(pd, &d, attr, cpu, NULL);
#endif
}

static dnnl_status_t make_memories(plan *p, md_ref a, md_ref b, md_ref bias, md_ref c, const_dnnl_primitive_desc_t pd)
{
    md_ref scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    p->scratch_bytes = dnnl_memory_desc_get_size(scratch);
    dnnl_status_t rc = dnnl_memory_create(&p->a, a, cpu, DNNL_MEMORY_NONE);
    if (rc == dnnl_success) rc = dnnl_memory_create(&p->b, b, cpu, DNNL_MEMORY_NONE);
    if (rc == dnnl_success && bias) rc = dnnl_memory_create(&p->bias, bias, cpu, DNNL_MEMORY_NONE);
    if (rc == dnnl_success) rc = dnnl_memory_create(&p->c, c, cpu, DNNL_MEMORY_NONE);
    if (rc == dnnl_success) rc = dnnl_memory_create(&p->scratch, scratch, cpu, DNNL_MEMORY_NONE);
    return rc;
}

static dnnl_status_t make_all(plan *p)
{
    const shape *s = &p->shape;
    const dnnl_dims_t da = {s->m, s->k}, db = {s->k, s->n}, dc = {s->m, s->n}, dbias = {1, s->n}, sbias = {s->n, 1};
    const dnnl_dims_t sa = {s->ta ? 1 : s->lda, s->ta ? s->lda : 1}, sb = {s->tb ? 1 : s->ldb, s->tb ? s->ldb : 1},
                      sc = {s->ldc, 1};
    dnnl_memory_desc_t a = {0}, b = {0}, c = {0}, v = {0};
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t rc = md_strided(&a, 2, da, dnnl_bf16, sa);
    if (rc == dnnl_success) rc = md_strided(&b, 2, db, dnnl_bf16, sb);
    if (rc == dnnl_success) rc = md_strided(&c, 2, dc, dnnl_f32, sc);
    if (rc == dnnl_success) rc = md_strided(&v, 2, dbias, dnnl_f32, sbias);
    md_ref bias = s->biased ? MD_REF(v) : NULL;
    if (rc == dnnl_success) rc = make_attr(s->add, &attr);
    if (rc == dnnl_success) rc = make_pd(MD_REF(a), MD_REF(b), bias, MD_REF(c), attr, &pd);
    if (rc == dnnl_success) rc = dnnl_primitive_create(&p->run, pd);
    if (rc == dnnl_success) rc = make_memories(p, MD_REF(a), MD_REF(b), bias, MD_REF(c), pd);
    if (rc == dnnl_success) rc = dnnl_stream_create(&p->stream, cpu, dnnl_stream_default_flags);
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (attr) dnnl_primitive_attr_destroy(attr);
    md_free(&a), md_free(&b), md_free(&c), md_free(&v);
    return rc;
}

/* oneDNN plans for the number of threads that OpenMP would use next, also inside a parallel region. */
static int plan_make(const shape *s, plan **out)
{
    plan *p = calloc(1, sizeof *p); /* small, kept, and not in the runtime's counts, as oneDNN's own memory */
    if (!p) return fail(dnnl_out_of_memory, s);
    p->shape = *s;
    const int threads = omp_get_max_threads();
    omp_set_num_threads(s->threads);
    const dnnl_status_t rc = make_all(p);
    omp_set_num_threads(threads);
    if (rc != dnnl_success) {
        plan_free(p);
        return fail(rc, s);
    }
    *out = p;
    return ATOMO_OK;
}

static atomo__cache plans = {.key_at = offsetof(plan, shape),
                             .key_bytes = sizeof(shape),
                             .most = MOST_PLANS,
                             .release = plan_free,
                             .lock = PTHREAD_MUTEX_INITIALIZER};

static int start(const shape *s)
{
    pthread_mutex_lock(&lock);
    const dnnl_status_t rc = cpu ? dnnl_success : dnnl_engine_create(&cpu, dnnl_cpu, 0);
    pthread_mutex_unlock(&lock);
    return rc == dnnl_success ? ATOMO_OK : fail(rc, s);
}

static int run(plan *p, const uint16_t *a, const uint16_t *b, const float *bias, float *c)
{
    void *scratch = NULL;
    if (p->scratch_bytes) ATOMO_TRY(atomo__scratch(&scratch, p->scratch_bytes));
    /* Casts away const: oneDNN takes inputs and outputs alike as void *. */
    dnnl_memory_set_data_handle(p->a, (void *)(uintptr_t)a);
    dnnl_memory_set_data_handle(p->b, (void *)(uintptr_t)b);
    if (bias) dnnl_memory_set_data_handle(p->bias, (void *)(uintptr_t)bias);
    dnnl_memory_set_data_handle(p->c, c);
    dnnl_memory_set_data_handle(p->scratch, scratch);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, p->a},
                                    {DNNL_ARG_WEIGHTS, p->b},
                                    {DNNL_ARG_DST, p->c},
                                    {DNNL_ARG_SCRATCHPAD, p->scratch},
                                    {DNNL_ARG_BIAS, p->bias}};
    const dnnl_status_t rc = dnnl_primitive_execute(p->run, p->stream, bias ? 5 : 4, args);
    atomo__free(scratch);
    return rc == dnnl_success ? ATOMO_OK : fail(rc, &p->shape);
}

int atomo__bf16_product(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const uint16_t *a, int64_t lda,
                        const uint16_t *b, int64_t ldb, const float *bias, bool add, float *c, int64_t ldc)
{
    if (m == 0 || n == 0 || (k == 0 && add)) return ATOMO_OK;
    for (int64_t i = 0; k == 0 && i < m; i++)
        for (int64_t j = 0; j < n; j++) c[i * ldc + j] = bias ? bias[j] : 0;
    if (k == 0) return ATOMO_OK;
    const shape s = {m, n, k, lda, ldb, ldc, ta, tb, add, omp_in_parallel() ? 1 : omp_get_max_threads(), bias != NULL,
                     0};
    ATOMO_TRY(start(&s));
    plan *p = atomo__cache_take(&plans, &s);
    if (!p) ATOMO_TRY(plan_make(&s, &p));
    const int rc = run(p, a, b, bias, c);
    atomo__cache_keep(&plans, p);
    return rc;
}
