/* attention.h - attention of one head of one image. Private to runtime/nn.
 *
 * Head h of an image is columns h d .. (h + 1) d - 1 of q, k, v. `unit` is image * heads + head.
 */
#ifndef ATOMO_ATTENTION_H
#define ATOMO_ATTENTION_H

#include "nn/nn.h"

typedef struct attention_dims {
    int64_t b, tq, tk, heads, d; /* images, queries, keys; d channels of a head */
    int causal;
    float p, scale; /* probability of dropout; 1 / sqrt(d) */
    const atomo_stream *stream;
    const atomo_tensor *mask; /* [B,Tq,Tk], or NULL */
    int precision;
    double products; /* number of multiplications in q k^T, over all heads and images */
} attention_dims;

typedef struct head_matrix { /* the columns of one head and image in a tensor [B,T,C]: T rows, ld floats apart */
    float *data;
    int64_t ld;
} head_matrix;

typedef struct head_matrices { /* the forward uses the first four, and writes y; the backward writes the last three */
    head_matrix q, k, v, y, gy, gq, gk, gv;
} head_matrices;

/* Returns the floats of scratch memory that a head's forward or backward works with. */
int64_t atomo__head_forward_scratch(const attention_dims *s);
int64_t atomo__head_backward_scratch(const attention_dims *s);
/* lse [tq]: the log of each query's sum of exponentials, which the forward writes. work: scratch memory. */
int atomo__head_forward(const attention_dims *s, int64_t unit, const head_matrices *m, float *lse, float *work);
int atomo__head_backward(const attention_dims *s, int64_t unit, const head_matrices *m, const float *lse, float *work);

#endif
