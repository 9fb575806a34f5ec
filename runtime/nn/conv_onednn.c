/* conv_onednn.c - convolution by oneDNN's C API, 2.x and 3.x (onednn_api.h).
 *
 * Images stay in plain NHWC layout. oneDNN chooses the layout of the weights, and they are reordered before or after
 * the convolution, which is cheap because weights are small compared with images. Plain [out,kh,kw,in] weights are not
 * usable with oneDNN 2.6: on ResNet-20 with batch 128, six steps did not end within five minutes, instead of 1.5 s. A
 * plan (the primitives, their memories and the reorder) is made once per shape, pass and number of threads, and kept.
 * In precision BF16 the operands are rounded into copies, and the result is f32.
 * Scratch memory and reordered weights come from the runtime's memory pool. Path: stage 3.
 */
#include "core/cache.h"
#include "linalg/product.h"
#include "nn/conv.h"
#include "nn/onednn_api.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct plan_key { /* compared by memcmp, so it must have no padding bytes */
    conv_shape shape;
    int32_t threads, has_bias, pass, unused; /* pass: PASS_* */
} plan_key;

typedef struct plan {
    atomo__cached cached;
    plan_key key;
    dnnl_primitive_t conv, reorder; /* reorder: of the weights; NULL: the primitive uses the plain layout */
    dnnl_memory_t x, w, w_plain, b, y, scratch;
    size_t w_bytes, scratch_bytes;
} plan;

enum { MOST_PLANS = 1024 };
static dnnl_engine_t cpu;
static dnnl_stream_t stream;

static const char *version_text(void)
{
    static char text[32];
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "%d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

__attribute__((constructor)) static void register_version(void)
{
    atomo__build_info_add("onednn", version_text);
}

#define DNNL_TRY(call, what)                                                                                           \
    do {                                                                                                               \
        dnnl_status_t dnnl_rc_ = (call);                                                                               \
        if (dnnl_rc_ != dnnl_success) return fail(dnnl_rc_, what);                                                     \
    } while (0)

static int fail(dnnl_status_t rc, const char *what)
{
    if (rc == dnnl_out_of_memory) return atomo__fail(ATOMO_ENOMEM, "conv2d (oneDNN): %s: out of memory", what);
    return atomo__fail(rc == dnnl_unimplemented ? ATOMO_EUNSUPPORTED : ATOMO_EINTERNAL,
                       "conv2d (oneDNN): %s failed with dnnl_status %d; ATOMO_CONV=gemm avoids oneDNN", what, (int)rc);
}

static int start(void)
{
    if (!cpu) DNNL_TRY(dnnl_engine_create(&cpu, dnnl_cpu, 0), "engine");
    if (!stream) DNNL_TRY(dnnl_stream_create(&stream, cpu, dnnl_stream_default_flags), "stream");
    return ATOMO_OK;
}

static void plan_free(void *object)
{
    plan *p = object;
    dnnl_memory_t memories[] = {p->x, p->w, p->w_plain, p->b, p->y, p->scratch};
    for (size_t i = 0; i < sizeof memories / sizeof *memories; i++)
        if (memories[i]) dnnl_memory_destroy(memories[i]);
    if (p->conv) dnnl_primitive_destroy(p->conv);
    if (p->reorder) dnnl_primitive_destroy(p->reorder);
    free(p);
}

/* Makes the reorder from the plain to oneDNN's layout of the weights, or back for the gradient of the weights. */
static int make_reorder(plan *p, md_ref chosen, md_ref plain, const_dnnl_primitive_attr_t attr)
{
    if (dnnl_memory_desc_equal(chosen, plain)) return ATOMO_OK;
    md_ref from = p->key.pass == PASS_WEIGHTS ? chosen : plain, to = p->key.pass == PASS_WEIGHTS ? plain : chosen;
    dnnl_primitive_desc_t pd;
    DNNL_TRY(dnnl_reorder_primitive_desc_create(&pd, from, cpu, to, cpu, attr), "reorder of the weight");
    dnnl_status_t rc = dnnl_primitive_create(&p->reorder, pd);
    dnnl_primitive_desc_destroy(pd);
    DNNL_TRY(rc, "reorder of the weight");
    p->w_bytes = dnnl_memory_desc_get_size(chosen);
    DNNL_TRY(dnnl_memory_create(&p->w_plain, plain, cpu, DNNL_MEMORY_NONE), "memory");
    return ATOMO_OK;
}

static int make_memories(plan *p, const conv_mds *m, const_dnnl_primitive_desc_t pd, const_dnnl_primitive_attr_t attr)
{
    md_ref w = dnnl_primitive_desc_query_md(
        pd, p->key.pass == PASS_WEIGHTS ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
    md_ref scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    DNNL_TRY(dnnl_memory_create(&p->x, MD_REF(m->x), cpu, DNNL_MEMORY_NONE), "memory");
    DNNL_TRY(dnnl_memory_create(&p->y, MD_REF(m->y), cpu, DNNL_MEMORY_NONE), "memory");
    DNNL_TRY(dnnl_memory_create(&p->w, w, cpu, DNNL_MEMORY_NONE), "memory");
    if (m->has_bias) DNNL_TRY(dnnl_memory_create(&p->b, MD_REF(m->b), cpu, DNNL_MEMORY_NONE), "memory");
    DNNL_TRY(dnnl_memory_create(&p->scratch, scratch, cpu, DNNL_MEMORY_NONE), "memory");
    p->scratch_bytes = dnnl_memory_desc_get_size(scratch);
    return make_reorder(p, w, MD_REF(m->w_plain), attr);
}

/* oneDNN's reference kernels take seconds where others take milliseconds. */
static bool is_reference(const_dnnl_primitive_desc_t pd)
{
    const char *name = "";
    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
    return strncmp(name, "ref", 3) == 0;
}

/* forward: the operands of the forward, whose plan is a hint for those of the other passes. */
static int make_primitives(plan *p, const conv_mds *forward, const conv_mds *m, const conv_dims *d,
                           const_dnnl_primitive_attr_t attr)
{
    dnnl_primitive_desc_t hint = NULL, pd = NULL;
    dnnl_status_t rc = conv_pd_make(&hint, PASS_FORWARD, cpu, forward, d, attr, NULL);
    if (rc == dnnl_success && p->key.pass != PASS_FORWARD) rc = conv_pd_make(&pd, p->key.pass, cpu, m, d, attr, hint);
    const_dnnl_primitive_desc_t use = p->key.pass == PASS_FORWARD ? hint : pd;
    if (rc == dnnl_success && p->key.shape.precision == ATOMO_PRECISION_BF16 && is_reference(use))
        rc = dnnl_unimplemented;
    if (rc == dnnl_success) rc = dnnl_primitive_create(&p->conv, use);
    int status = rc == dnnl_success ? make_memories(p, m, use, attr) : fail(rc, "planning");
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (hint) dnnl_primitive_desc_destroy(hint);
    return status;
}

static int plan_make(plan *p)
{
    conv_mds forward, m = {0};
    conv_dims d;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t described = conv_describe(&p->key.shape, PASS_FORWARD, dnnl_nhwc, p->key.has_bias, &forward, &d);
    if (described == dnnl_success)
        described = conv_describe(&p->key.shape, p->key.pass, dnnl_nhwc, p->key.has_bias, &m, &d);
    int rc = described == dnnl_success ? ATOMO_OK : fail(described, "describing the operands");
    if (rc == 0 && (dnnl_primitive_attr_create(&attr) != dnnl_success ||
                    dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) != dnnl_success))
        rc = atomo__fail(ATOMO_EINTERNAL, "conv2d (oneDNN): scratchpad mode");
    if (rc == 0) rc = make_primitives(p, &forward, &m, &d, attr);
    if (attr) dnnl_primitive_attr_destroy(attr);
    conv_mds_free(&forward);
    conv_mds_free(&m);
    return rc;
}

static atomo__cache plans = {.key_at = offsetof(plan, key),
                             .key_bytes = sizeof(plan_key),
                             .most = MOST_PLANS,
                             .release = plan_free,
                             .lock = PTHREAD_MUTEX_INITIALIZER};

/* *out = a plan for this key, kept or made. */
static int plan_get(const plan_key *key, plan **out)
{
    *out = atomo__cache_take(&plans, key);
    if (*out) return ATOMO_OK;
    ATOMO_TRY(start());
    plan *p = calloc(1, sizeof *p); /* small, kept, and not in the runtime's counts, as oneDNN's own memory */
    if (!p) return fail(dnnl_out_of_memory, "planning");
    p->key = *key;
    const int rc = plan_make(p);
    if (rc < 0) {
        plan_free(p);
        return rc;
    }
    *out = p;
    return ATOMO_OK;
}

static int run_reorder(const plan *p, dnnl_memory_t from, dnnl_memory_t to)
{
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    DNNL_TRY(dnnl_primitive_execute(p->reorder, stream, 2, args), "reorder of the weight");
    return ATOMO_OK;
}

static int run_conv(const plan *p)
{
    static const int roles[PASSES][4] = {
        {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS},
        {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST, DNNL_ARG_BIAS},
        {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_BIAS},
    };
    const int *role = roles[p->key.pass];
    const dnnl_exec_arg_t args[] = {
        {role[0], p->x}, {role[1], p->w}, {role[2], p->y}, {DNNL_ARG_SCRATCHPAD, p->scratch}, {role[3], p->b}};
    DNNL_TRY(dnnl_primitive_execute(p->conv, stream, p->b ? 5 : 4, args), "convolution");
    return ATOMO_OK;
}

/* Casts away const: oneDNN takes inputs and outputs alike as void *. */
static void *operand(const void *v)
{
    return (void *)(uintptr_t)v;
}

/* x, w and y are f32 or, where the precision rounds them, bf16. */
static int run_plan(plan *p, const void *x, const void *w, const float *b, const void *y)
{
    void *scratch = NULL, *weights = NULL;
    if (p->scratch_bytes) ATOMO_TRY(atomo__scratch(&scratch, p->scratch_bytes));
    int rc = p->reorder ? atomo__scratch(&weights, p->w_bytes) : ATOMO_OK;
    if (rc == 0) {
        dnnl_memory_set_data_handle(p->x, operand(x));
        dnnl_memory_set_data_handle(p->y, operand(y));
        dnnl_memory_set_data_handle(p->w, p->reorder ? weights : operand(w));
        dnnl_memory_set_data_handle(p->scratch, scratch);
        if (p->b) dnnl_memory_set_data_handle(p->b, operand(b));
        if (p->reorder) dnnl_memory_set_data_handle(p->w_plain, operand(w));
        if (p->reorder && p->key.pass != PASS_WEIGHTS) rc = run_reorder(p, p->w_plain, p->w);
        if (rc == 0) rc = run_conv(p);
        if (rc == 0 && p->reorder && p->key.pass == PASS_WEIGHTS) rc = run_reorder(p, p->w, p->w_plain);
    }
    atomo__free(weights);
    atomo__free(scratch);
    return rc;
}

static int run(const conv_shape *s, enum conv_pass pass, const void *x, const void *w, const float *b, const void *y)
{
    const plan_key key = {*s, omp_get_max_threads(), b != NULL, (int32_t)pass, 0};
    plan *p;
    ATOMO_TRY(plan_get(&key, &p));
    const int rc = run_plan(p, x, w, b, y);
    atomo__cache_keep(&plans, p);
    return rc;
}

/* Rounds `count` elements of an operand if the precision is BF16. *out: the elements for run(). */
static int read_operand(const conv_shape *s, const float *v, int64_t count, atomo__factor *f, const void **out)
{
    ATOMO_TRY(atomo__factor_make((int)s->precision, 1, count, v, count, f));
    *out = f->bf16 ? (const void *)f->bf16 : (const void *)f->f32;
    return ATOMO_OK;
}

/* The results of a pass, out, from its operands a and b of na and nb elements. */
static int run_rounded(const conv_shape *s, enum conv_pass pass, const float *a, int64_t na, const float *b, int64_t nb,
                       const float *bias, const float *out)
{
    atomo__factor fa = {0}, fb = {0};
    const void *ra = NULL, *rb = NULL;
    int rc = read_operand(s, a, na, &fa, &ra);
    if (rc == 0) rc = read_operand(s, b, nb, &fb, &rb);
    if (rc == 0 && pass == PASS_FORWARD) rc = run(s, pass, ra, rb, bias, out);
    if (rc == 0 && pass == PASS_DATA) rc = run(s, pass, out, rb, NULL, ra);
    if (rc == 0 && pass == PASS_WEIGHTS) rc = run(s, pass, ra, out, NULL, rb);
    atomo__factor_free(&fa);
    atomo__factor_free(&fb);
    return rc;
}

static int forward(const conv_shape *s, const float *x, const float *w, const float *b, float *y)
{
    return run_rounded(s, PASS_FORWARD, x, atomo__conv_images(s), w, atomo__conv_weights(s), b, y);
}

static int backward_data(const conv_shape *s, const float *gy, const float *w, float *gx)
{
    return run_rounded(s, PASS_DATA, gy, atomo__conv_results(s), w, atomo__conv_weights(s), NULL, gx);
}

static int backward_weights(const conv_shape *s, const float *x, const float *gy, float *gw)
{
    return run_rounded(s, PASS_WEIGHTS, x, atomo__conv_images(s), gy, atomo__conv_results(s), NULL, gw);
}

int atomo__conv_onednn_weights(const conv_shape *s, const uint16_t *x, const float *gy, float *gw)
{
    const int64_t n = atomo__conv_results(s);
    atomo__factor g = {0};
    const void *rounded = NULL;
    int rc = read_operand(s, gy, n, &g, &rounded);
    if (rc == 0) rc = run(s, PASS_WEIGHTS, x, gw, NULL, rounded);
    atomo__factor_free(&g);
    return rc;
}

const conv_engine atomo__conv_onednn = {"onednn", forward, backward_data, backward_weights, NULL};
