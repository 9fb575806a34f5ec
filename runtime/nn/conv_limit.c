/* conv_limit.c - how fast oneDNN itself is on a layer: the limit that a training step is compared with. Path: beside
 * stage 3, for scripts/bench_nn.lua --limit; training never comes here.
 *
 * The primitive chooses all layouts itself (blocked, nChw16c), and no reorder into or out of them is counted: nothing
 * built on oneDNN can be faster than the sum of these times. Operands are filled with one small number.
 */
#include "nn/conv.h"
#include <string.h>

#ifdef ATOMO_HAVE_ONEDNN
#include "nn/onednn_api.h"

typedef struct bench { /* all that must be let go */
    dnnl_engine_t cpu;
    dnnl_stream_t stream;
    conv_mds mds;
    dnnl_primitive_desc_t hint, pd;
    dnnl_primitive_t conv;
    dnnl_memory_t memory[3]; /* x, w, y: the image gradients and weight gradients in the backward passes */
    void *data[3];
} bench;

static void bench_free(bench *b)
{
    for (int i = 0; i < 3; i++) {
        if (b->memory[i]) dnnl_memory_destroy(b->memory[i]);
        atomo__free(b->data[i]);
    }
    if (b->conv) dnnl_primitive_destroy(b->conv);
    if (b->pd) dnnl_primitive_desc_destroy(b->pd);
    if (b->hint) dnnl_primitive_desc_destroy(b->hint);
    conv_mds_free(&b->mds);
    if (b->stream) dnnl_stream_destroy(b->stream);
    if (b->cpu) dnnl_engine_destroy(b->cpu);
}

static dnnl_status_t plan(bench *b, const conv_shape *s, enum conv_pass pass, dnnl_alg_kind_t algorithm)
{
    conv_dims d;
    dnnl_status_t rc = conv_describe(s, dnnl_format_tag_any, 0, &b->mds, &d);
    d.algorithm = algorithm;
    if (rc == dnnl_success) rc = dnnl_engine_create(&b->cpu, dnnl_cpu, 0);
    if (rc == dnnl_success) rc = dnnl_stream_create(&b->stream, b->cpu, dnnl_stream_default_flags);
    if (rc == dnnl_success) rc = conv_pd_make(&b->hint, PASS_FORWARD, b->cpu, &b->mds, &d, NULL, NULL);
    if (rc == dnnl_success && pass != PASS_FORWARD) rc = conv_pd_make(&b->pd, pass, b->cpu, &b->mds, &d, NULL, b->hint);
    return rc == dnnl_success ? dnnl_primitive_create(&b->conv, b->pd ? b->pd : b->hint) : rc;
}

static const dnnl_query_t queries[PASSES][3] = {
    {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md},
    {dnnl_query_diff_src_md, dnnl_query_weights_md, dnnl_query_diff_dst_md},
    {dnnl_query_src_md, dnnl_query_diff_weights_md, dnnl_query_diff_dst_md},
};
static const int roles[PASSES][3] = {
    {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
    {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST},
    {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST},
};

static dnnl_status_t make_operands(bench *b, enum conv_pass pass, bool *no_memory)
{
    for (int i = 0; i < 3; i++) {
        md_ref md = dnnl_primitive_desc_query_md(b->pd ? b->pd : b->hint, queries[pass][i], 0);
        const size_t bytes = dnnl_memory_desc_get_size(md);
        *no_memory = atomo__alloc(&b->data[i], bytes) < 0;
        if (*no_memory) return dnnl_out_of_memory;
        memset(b->data[i], 0x3c, bytes); /* 0x3c3c3c3c is 0.0115 */
        dnnl_status_t rc = dnnl_memory_create(&b->memory[i], md, b->cpu, b->data[i]);
        if (rc != dnnl_success) return rc;
    }
    return dnnl_success;
}

static dnnl_status_t time_runs(const bench *b, enum conv_pass pass, int runs, double *seconds)
{
    dnnl_exec_arg_t args[3];
    for (int i = 0; i < 3; i++) args[i] = (dnnl_exec_arg_t){roles[pass][i], b->memory[i]};
    for (int r = -1; r < runs; r++) {
        const double start = atomo_time();
        dnnl_status_t rc = dnnl_primitive_execute(b->conv, b->stream, 3, args);
        if (rc == dnnl_success) rc = dnnl_stream_wait(b->stream);
        if (rc != dnnl_success) return rc;
        if (r >= 0) seconds[r] = atomo_time() - start;
    }
    return dnnl_success;
}

static int measure(const conv_shape *s, enum conv_pass pass, const char *algorithm, int runs, double *seconds)
{
    bench b = {0};
    bool no_memory = false;
    dnnl_status_t rc =
        plan(&b, s, pass, strcmp(algorithm, "direct") == 0 ? dnnl_convolution_direct : dnnl_convolution_winograd);
    if (rc == dnnl_success) rc = make_operands(&b, pass, &no_memory);
    if (rc == dnnl_success) rc = time_runs(&b, pass, runs, seconds);
    bench_free(&b);
    if (rc == dnnl_success) return ATOMO_OK;
    if (no_memory) return ATOMO_ENOMEM; /* said already */
    return atomo__fail(rc == dnnl_unimplemented ? ATOMO_EUNSUPPORTED : ATOMO_EINTERNAL,
                       "conv2d_limit: oneDNN has no %s for this shape and pass (dnnl_status %d)", algorithm, (int)rc);
}

#else

static int measure(const conv_shape *s, enum conv_pass pass, const char *algorithm, int runs, double *seconds)
{
    (void)s, (void)pass, (void)algorithm, (void)runs, (void)seconds;
    return atomo__fail(ATOMO_EUNSUPPORTED, "conv2d_limit: this build has no oneDNN (apt install libdnnl-dev, build)");
}

#endif

int atomo_conv2d_limit(const atomo_tensor *x, const atomo_tensor *w, const atomo_window *g, const char *pass,
                       const char *algorithm, int runs, double *seconds)
{
    static const char *const names[PASSES] = {"forward", "data", "weights"};
    conv_shape s;
    ATOMO_TRY(atomo__conv_shape("conv2d_limit", x, w, g, &s));
    ATOMO_REQUIRE(runs >= 1 && seconds, ATOMO_EARG, "conv2d_limit: %d runs, expected >= 1", runs);
    ATOMO_REQUIRE(s.n > 0, ATOMO_ESHAPE, "conv2d_limit: input %s has no images", atomo__shape_text(x));
    ATOMO_REQUIRE(algorithm && (strcmp(algorithm, "direct") == 0 || strcmp(algorithm, "winograd") == 0), ATOMO_EARG,
                  "conv2d_limit: algorithm \"%s\", expected direct or winograd", algorithm ? algorithm : "");
    for (int p = 0; p < PASSES; p++)
        if (pass && strcmp(pass, names[p]) == 0) return measure(&s, (enum conv_pass)p, algorithm, runs, seconds);
    return atomo__fail(ATOMO_EARG, "conv2d_limit: pass \"%s\", expected forward, data or weights", pass ? pass : "");
}
