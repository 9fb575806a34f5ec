/* conv.h - what a convolution engine is: three functions over checked shapes. Private to runtime/nn. */
#ifndef ATOMO_CONV_H
#define ATOMO_CONV_H

#include "tensor/tensor.h"

typedef struct conv_shape { /* everything a plan depends on, besides the number of threads; no padding bytes */
    int64_t n, h, w, c;     /* x [n,h,w,c] */
    int64_t oc, kh, kw;     /* weights [oc, kh, kw, c / groups] */
    int64_t oh, ow;         /* y [n,oh,ow,oc] */
    int64_t stride[2], padding[2], dilation[2], groups;
} conv_shape;

/* Checks x, w and the window, and works out y's shape; fn is named in errors. */
int atomo__conv_shape(const char *fn, const atomo_tensor *x, const atomo_tensor *w, const atomo_window *g,
                      conv_shape *s);

enum conv_pass { PASS_FORWARD, PASS_DATA, PASS_WEIGHTS, PASSES };

/* Arrays are contiguous and non-empty, in the layouts above. b [oc] may be NULL. */
typedef struct conv_engine {
    const char *name;
    int (*forward)(const conv_shape *s, const float *x, const float *w, const float *b, float *y);
    int (*backward_data)(const conv_shape *s, const float *gy, const float *w, float *gx);
    int (*backward_weights)(const conv_shape *s, const float *x, const float *gy, float *gw);
    int (*backward_data_add)(const conv_shape *s, const float *gy, const float *w, float *gx); /* gx += ..; or NULL */
} conv_engine;

extern const conv_engine atomo__conv_gemm;
extern const conv_engine atomo__conv_winograd; /* for the shapes that fit only */
bool atomo__conv_winograd_fits(const conv_shape *s);
bool atomo__conv_winograd_pays(const conv_shape *s);
extern const conv_engine atomo__conv_window; /* for the shapes and passes where it pays only */
bool atomo__conv_window_pays(const conv_shape *s, enum conv_pass pass);
bool atomo__conv_gemm_pays(const conv_shape *s, enum conv_pass pass); /* against oneDNN's direct convolution */
#ifdef ATOMO_HAVE_ONEDNN
extern const conv_engine atomo__conv_onednn;
#endif

#endif
