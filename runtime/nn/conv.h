/* conv.h - the interface of convolution engines, and the engines. Private to runtime/nn. */
#ifndef ATOMO_CONV_H
#define ATOMO_CONV_H

#include "tensor/tensor.h"

typedef struct conv_shape { /* key of cached plans, compared by memcmp, so it must have no padding bytes */
    int64_t n, h, w, c;     /* x [n,h,w,c] */
    int64_t oc, kh, kw;     /* weights [oc, kh, kw, c / groups] */
    int64_t oh, ow;         /* y [n,oh,ow,oc] */
    int64_t stride[2], padding[2], dilation[2], groups;
    int64_t precision; /* ATOMO_PRECISION_*: only the oneDNN engine gets BF16, and then rounds its operands itself */
} conv_shape;

/* Checks x, w, the window and the precision, and fills *s. fn is the function's name in error texts. */
int atomo__conv_shape(const char *fn, const atomo_tensor *x, const atomo_tensor *w, const atomo_window *g,
                      int precision, conv_shape *s);

/* Elements of x, w and y. */
static inline int64_t atomo__conv_images(const conv_shape *s)
{
    return s->n * s->h * s->w * s->c;
}
static inline int64_t atomo__conv_weights(const conv_shape *s)
{
    return s->oc * s->kh * s->kw * (s->c / s->groups);
}
static inline int64_t atomo__conv_results(const conv_shape *s)
{
    return s->n * s->oh * s->ow * s->oc;
}

enum conv_pass { PASS_FORWARD, PASS_DATA, PASS_WEIGHTS, PASSES };

/* Functions return a status. Arrays are contiguous and non-empty, in the layouts above. b [oc] may be NULL. */
typedef struct conv_engine {
    const char *name;
    int (*forward)(const conv_shape *s, const float *x, const float *w, const float *b, float *y);
    int (*backward_data)(const conv_shape *s, const float *gy, const float *w, float *gx);
    int (*backward_weights)(const conv_shape *s, const float *x, const float *gy, float *gw);
    int (*backward_data_add)(const conv_shape *s, const float *gy, const float *w, float *gx); /* gx +=; may be NULL */
} conv_engine;

extern const conv_engine atomo__conv_gemm;
extern const conv_engine atomo__conv_winograd; /* only for shapes that atomo__conv_winograd_fits accepts */
bool atomo__conv_winograd_fits(const conv_shape *s);
bool atomo__conv_winograd_pays(const conv_shape *s); /* expected faster than direct convolution */
extern const conv_engine atomo__conv_window; /* only for shapes and passes that atomo__conv_window_pays accepts */
bool atomo__conv_window_pays(const conv_shape *s, enum conv_pass pass);
bool atomo__conv_gemm_pays(const conv_shape *s, enum conv_pass pass); /* faster than oneDNN's direct convolution */
#ifdef ATOMO_HAVE_ONEDNN
extern const conv_engine atomo__conv_onednn; /* BF16: EUNSUPPORTED for the rare shapes that oneDNN lacks kernels for */
/* Its backward_weights in precision BF16 of an x that is bf16 already. */
int atomo__conv_onednn_weights(const conv_shape *s, const uint16_t *x, const float *gy, float *gw);
#endif

#endif
