/* onednn_api.h - oneDNN's C API, with one name for each call that differs between versions 2.x and 3.x. The files of nn
 * that use oneDNN include it: conv_onednn.c, and scripts/bench/conv_limit.c, which measures convolutions. Memory
 * descriptors are in linalg/onednn_md.h.
 *
 * In 2.x a primitive descriptor is made from an operation descriptor; in 3.x one call makes it.
 */
#ifndef ATOMO_ONEDNN_API_H
#define ATOMO_ONEDNN_API_H

#include "linalg/onednn_md.h"
#include "nn/conv.h"

typedef struct conv_mds { /* a convolution's memory descriptors; b is used if has_bias */
    dnnl_memory_desc_t x, w, w_plain, b, y;
    int has_bias;
} conv_mds;

typedef struct conv_dims { /* windows in oneDNN's convention: dilate is dilation - 1 */
    dnnl_dims_t stride, dilate, pad_lo, pad_hi;
    dnnl_alg_kind_t algorithm;
} conv_dims;

#if DNNL_VERSION_MAJOR >= 3

static inline dnnl_status_t md_make(dnnl_memory_desc_t *md, int nd, const dnnl_dims_t dims, dnnl_data_type_t type,
                                    dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_create_with_tag(md, nd, dims, type, tag);
}

static inline dnnl_status_t conv_pd_make(dnnl_primitive_desc_t *pd, enum conv_pass pass, dnnl_engine_t engine,
                                         const conv_mds *m, const conv_dims *d, const_dnnl_primitive_attr_t attr,
                                         const_dnnl_primitive_desc_t hint)
{
    dnnl_memory_desc_t b = m->has_bias ? m->b : NULL;
    if (pass == PASS_FORWARD)
        return dnnl_convolution_forward_primitive_desc_create(pd, engine, dnnl_forward_training, d->algorithm, m->x,
                                                              m->w, b, m->y, d->stride, d->dilate, d->pad_lo, d->pad_hi,
                                                              attr);
    if (pass == PASS_DATA)
        return dnnl_convolution_backward_data_primitive_desc_create(
            pd, engine, d->algorithm, m->x, m->w, m->y, d->stride, d->dilate, d->pad_lo, d->pad_hi, hint, attr);
    return dnnl_convolution_backward_weights_primitive_desc_create(
        pd, engine, d->algorithm, m->x, m->w, b, m->y, d->stride, d->dilate, d->pad_lo, d->pad_hi, hint, attr);
}

#else

static inline dnnl_status_t md_make(dnnl_memory_desc_t *md, int nd, const dnnl_dims_t dims, dnnl_data_type_t type,
                                    dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_init_by_tag(md, nd, dims, type, tag);
}

static inline dnnl_status_t conv_pd_make(dnnl_primitive_desc_t *pd, enum conv_pass pass, dnnl_engine_t engine,
                                         const conv_mds *m, const conv_dims *d, const_dnnl_primitive_attr_t attr,
                                         const_dnnl_primitive_desc_t hint)
{
    dnnl_convolution_desc_t cd;
    const dnnl_memory_desc_t *b = m->has_bias ? &m->b : NULL;
    dnnl_status_t rc;
    if (pass == PASS_FORWARD)
        rc = dnnl_dilated_convolution_forward_desc_init(&cd, dnnl_forward_training, d->algorithm, &m->x, &m->w, b,
                                                        &m->y, d->stride, d->dilate, d->pad_lo, d->pad_hi);
    else if (pass == PASS_DATA)
        rc = dnnl_dilated_convolution_backward_data_desc_init(&cd, d->algorithm, &m->x, &m->w, &m->y, d->stride,
                                                              d->dilate, d->pad_lo, d->pad_hi);
    else
        rc = dnnl_dilated_convolution_backward_weights_desc_init(&cd, d->algorithm, &m->x, &m->w, b, &m->y, d->stride,
                                                                 d->dilate, d->pad_lo, d->pad_hi);
    return rc != dnnl_success ? rc : dnnl_primitive_desc_create(pd, &cd, attr, engine, hint);
}

#endif

static inline void conv_mds_free(conv_mds *m)
{
    md_free(&m->x), md_free(&m->w), md_free(&m->w_plain), md_free(&m->b), md_free(&m->y);
}

/* Describes the operands of a direct convolution: images in the layout `images`, weights in a layout that oneDNN
 * chooses. In precision BF16 the two that the pass reads are bf16, the result is f32. The caller calls conv_mds_free,
 * also after a failure. */
static inline dnnl_status_t conv_describe(const conv_shape *s, enum conv_pass pass, dnnl_format_tag_t images,
                                          int has_bias, conv_mds *m, conv_dims *d)
{
    const dnnl_data_type_t in = s->precision == ATOMO_PRECISION_BF16 ? dnnl_bf16 : dnnl_f32;
    const dnnl_data_type_t tx = pass == PASS_DATA ? dnnl_f32 : in, tw = pass == PASS_WEIGHTS ? dnnl_f32 : in,
                           ty = pass == PASS_FORWARD ? dnnl_f32 : in;
    const dnnl_dims_t x = {s->n, s->c, s->h, s->w}, y = {s->n, s->oc, s->oh, s->ow}, b = {s->oc};
    const dnnl_dims_t wg = {s->groups, s->oc / s->groups, s->c / s->groups, s->kh, s->kw};
    const bool grouped = s->groups > 1;
    const int64_t *w = grouped ? wg : wg + 1;
    *m = (conv_mds){.has_bias = has_bias};
    *d = (conv_dims){.algorithm = dnnl_convolution_direct};
    for (int i = 0; i < 2; i++) {
        const int64_t reach = s->dilation[i] * ((i ? s->kw : s->kh) - 1) + 1;
        d->stride[i] = s->stride[i];
        d->dilate[i] = s->dilation[i] - 1;
        d->pad_lo[i] = s->padding[i];
        d->pad_hi[i] = ((i ? s->ow : s->oh) - 1) * s->stride[i] + reach - (i ? s->w : s->h) - s->padding[i];
    }
    dnnl_status_t rc = md_make(&m->x, 4, x, tx, images);
    if (rc == dnnl_success) rc = md_make(&m->y, 4, y, ty, images);
    if (rc == dnnl_success) rc = md_make(&m->b, 1, b, dnnl_f32, dnnl_a);
    if (rc == dnnl_success) rc = md_make(&m->w, grouped ? 5 : 4, w, tw, dnnl_format_tag_any);
    if (rc == dnnl_success) rc = md_make(&m->w_plain, grouped ? 5 : 4, w, tw, grouped ? dnnl_abdec : dnnl_acdb);
    return rc;
}

#endif
