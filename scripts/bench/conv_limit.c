/* conv_limit.c - times oneDNN's own convolution, as the limit with which a training step is compared. A library of its
 * own, which bindings/atomo/tools/conv_limit.lua loads for scripts/bench_nn.lua --limit.
 *
 * oneDNN chooses all layouts itself (blocked ones, such as nChw16c), and conversions into and out of them are not
 * timed. So nothing built on oneDNN can be faster than the sum of these times. All operands are one small number.
 */
#include "nn/onednn_api.h"
#include <stdlib.h>
#include <string.h>

typedef struct bench { /* all that must be let go */
    dnnl_engine_t cpu;
    dnnl_stream_t stream;
    conv_mds mds, forward; /* of the pass; of the forward, whose plan is a hint for those of the other passes */
    dnnl_primitive_desc_t hint, pd;
    dnnl_primitive_t conv;
    dnnl_memory_t memory[3]; /* x, w, y: the image gradients and weight gradients in the backward passes */
    void *data[3];
} bench;

static void bench_free(bench *b)
{
    for (int i = 0; i < 3; i++) {
        if (b->memory[i]) dnnl_memory_destroy(b->memory[i]);
        free(b->data[i]);
    }
    if (b->conv) dnnl_primitive_destroy(b->conv);
    if (b->pd) dnnl_primitive_desc_destroy(b->pd);
    if (b->hint) dnnl_primitive_desc_destroy(b->hint);
    conv_mds_free(&b->mds);
    conv_mds_free(&b->forward);
    if (b->stream) dnnl_stream_destroy(b->stream);
    if (b->cpu) dnnl_engine_destroy(b->cpu);
}

static dnnl_status_t plan(bench *b, const conv_shape *s, enum conv_pass pass, dnnl_alg_kind_t algorithm)
{
    conv_dims d;
    dnnl_status_t rc = conv_describe(s, PASS_FORWARD, dnnl_format_tag_any, 0, &b->forward, &d);
    if (rc == dnnl_success) rc = conv_describe(s, pass, dnnl_format_tag_any, 0, &b->mds, &d);
    d.algorithm = algorithm;
    if (rc == dnnl_success) rc = dnnl_engine_create(&b->cpu, dnnl_cpu, 0);
    if (rc == dnnl_success) rc = dnnl_stream_create(&b->stream, b->cpu, dnnl_stream_default_flags);
    if (rc == dnnl_success) rc = conv_pd_make(&b->hint, PASS_FORWARD, b->cpu, &b->forward, &d, NULL, NULL);
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

static dnnl_status_t make_operands(bench *b, enum conv_pass pass)
{
    for (int i = 0; i < 3; i++) {
        md_ref md = dnnl_primitive_desc_query_md(b->pd ? b->pd : b->hint, queries[pass][i], 0);
        const size_t bytes = dnnl_memory_desc_get_size(md);
        if (posix_memalign(&b->data[i], 64, bytes) != 0) return dnnl_out_of_memory;
        memset(b->data[i], 0x3c, bytes); /* 0x3c3c3c3c is 0.0115, 0x3c3c as well in bf16 */
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

static conv_shape shape_of(const double *x, const double *w, const double *y, const atomo_window *g, int precision)
{
    conv_shape s = {.n = (int64_t)x[0],
                    .h = (int64_t)x[1],
                    .w = (int64_t)x[2],
                    .c = (int64_t)x[3],
                    .oc = (int64_t)w[0],
                    .kh = (int64_t)w[1],
                    .kw = (int64_t)w[2],
                    .oh = (int64_t)y[1],
                    .ow = (int64_t)y[2],
                    .groups = g->groups,
                    .precision = precision};
    for (int i = 0; i < 2; i++) {
        s.stride[i] = g->stride[i];
        s.padding[i] = g->padding[i];
        s.dilation[i] = g->dilation[i];
    }
    return s;
}

/* seconds [runs] = the time of each of `runs` executions of one pass (0: forward, 1: gradient of the data, 2: gradient
 * of the weights), after one that is not timed, with the threads of atomo_set_num_threads. x [N,H,W,in], w
 * [out,kh,kw,in/groups] and y [N,OH,OW,out] are shapes. precision: of the two operands, ATOMO_PRECISION_*; results are
 * f32. EUNSUPPORTED if oneDNN has no such primitive. */
ATOMO_API int atomo_bench_convolution(const double *x, const double *w, const double *y, const atomo_window *g,
                                      int pass, int winograd, int precision, int runs, double *seconds);
int atomo_bench_convolution(const double *x, const double *w, const double *y, const atomo_window *g, int pass,
                            int winograd, int precision, int runs, double *seconds)
{
    const conv_shape s = shape_of(x, w, y, g, precision);
    bench b = {0};
    dnnl_status_t rc =
        plan(&b, &s, (enum conv_pass)pass, winograd ? dnnl_convolution_winograd : dnnl_convolution_direct);
    if (rc == dnnl_success) rc = make_operands(&b, (enum conv_pass)pass);
    if (rc == dnnl_success) rc = time_runs(&b, (enum conv_pass)pass, runs, seconds);
    bench_free(&b);
    if (rc == dnnl_success) return ATOMO_OK;
    return rc == dnnl_unimplemented ? ATOMO_EUNSUPPORTED : rc == dnnl_out_of_memory ? ATOMO_ENOMEM : ATOMO_EINTERNAL;
}
