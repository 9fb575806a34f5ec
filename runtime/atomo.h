/* atomo.h - the public functions of libatomo, in the order of a gradient's path: tensors; data, layers; send; the
 * update. Included first: atomo_codec.h, with statuses, memory, tensors and stages 4 to 6 and 8, encode and decode.
 * (atomo_bindings.h has the functions that only the Lua bindings call.)
 *
 * A gradient is encoded, sent to all ranks, and decoded into the average of all (tests/c compiles and runs this):
 *
 *     #include <atomo.h>
 *     #include <math.h>
 *     #include <stdio.h>
 *     #include <stdlib.h>
 *
 *     static void need(int status) // every status below 0 has a text
 *     {
 *         if (status >= 0) return;
 *         fprintf(stderr, "%s: %s\n", atomo_status_name(status), atomo_last_error());
 *         exit(1);
 *     }
 *
 *     int main(void)
 *     {
 *         const double shape[] = {64, 128}, options[] = {NAN, 16}; // atoms= is not set, ratio=16
 *         atomo_comm *world;
 *         atomo_codec *codec;
 *         atomo_tensor *gradient = NULL, *average = NULL, *inbox = NULL;
 *         need(atomo_comm_world(&world)); // starts MPI
 *         need(atomo_tensor_new(ATOMO_F32, 2, shape, &gradient));
 *         need(atomo_tensor_new(ATOMO_F32, 2, shape, &average));
 *         need(atomo_fill_normal(gradient, 1, 0.1));
 *         need(atomo_fill(average, 0));
 *         need(atomo_codec_new("svd", 2, options, 1, ATOMO_WAY_UP, &codec));
 *         need(atomo_codec_plan(codec, 1, 2, shape, 0, "fc.weight"));
 *
 *         const int rank = atomo_comm_rank(world), ranks = atomo_comm_size(world), tensor = 1, step = 0;
 *         const double room = atomo_codec_wire_max(codec, 0);
 *         double length, used, norm, *counts = malloc(sizeof *counts * (size_t)ranks);
 *         uint8_t *message = malloc((size_t)room);
 *         const atomo_tensor *gradients[] = {gradient};
 *         need(atomo_codec_encode(codec, 1, &tensor, gradients, step, rank, message, room, &length));
 *         need(atomo_comm_allgatherv_bytes(world, message, length, &inbox, counts));
 *         const uint8_t *at = inbox->data;
 *         for (int r = 0; r < ranks; r++, at += (size_t)used)
 *             need(atomo_codec_decode_add(codec, tensor, step, r, at, counts[r], 1.0 / ranks, average, &used));
 *         need(atomo_codec_finish(codec, tensor, 1.0 / ranks, average));
 *
 *         need(atomo_norm(average, 2, &norm));
 *         printf("rank %d of %d: %.0f bytes in place of %.0f, norm %.1f\n", rank, ranks, length,
 *                4 * gradient->numel, norm);
 *         free(message), free(counts);
 *         atomo_tensor_free(gradient), atomo_tensor_free(average), atomo_tensor_free(inbox);
 *         atomo_codec_free(codec);
 *         return atomo_mpi_finalize() < 0;
 *     }
 *
 * Conventions. Every function that can fail returns an int: 0 (or a count >= 0), or a negative status of
 * ATOMO_STATUSES; atomo_last_error() then has the text. [local] means that a rank may call it alone, [collective] that
 * every rank of the communicator must call it. [m,n] after a name is a shape, and [like x] the shape of x. A function
 * that returns a tensor takes `atomo_tensor **out`: if *out is NULL, it makes a new tensor, which the caller frees;
 * otherwise *out must have the result's shape and dtype and is overwritten. *out may be any view, even of an input's
 * storage: the result is the same as if they did not overlap. Functions refuse (EARG) to write to a tensor whose
 * elements share memory (an expanded one). Tensors are not locked: only one thread at a time may use one. The cdef of
 * the Lua bindings is made from these headers by preprocessing with -DATOMO_CDEF, so they contain no struct by value,
 * varargs, callbacks, bit-fields or MPI types.
 */
#ifndef ATOMO_H
#define ATOMO_H

#include "atomo_codec.h"

/* ---- core: version, cores, clock, the seed of fills -------------------------------------------------------------- */

enum { ATOMO_ABI = 9 };

ATOMO_API int atomo_abi(void);
ATOMO_API int atomo_num_cores(void);      /* cores that this process may run on (mpirun may have bound it to one) */
ATOMO_API int atomo_num_host_cores(void); /* cores of this host */
ATOMO_API double atomo_time(void);        /* seconds, monotonic */

/* Sets the seed of atomo_fill_uniform and atomo_fill_normal; an integer in [0, 2^53]. */
ATOMO_API void atomo_manual_seed(double seed);
ATOMO_API double atomo_initial_seed(void);

/* ---- tensor ------------------------------------------------------------------------------------------------------ */

ATOMO_API int atomo_fill_uniform(atomo_tensor *t, double lo, double hi); /* from lo to hi; seed: atomo_manual_seed */
ATOMO_API int atomo_fill_normal(atomo_tensor *t, double mean, double std);
ATOMO_API int atomo_fill_bytes(atomo_tensor *t, const void *bytes, double n); /* n must be the tensor's size in bytes */

/* out = op(a); op(a, b) with broadcasting; op(a, s), or op(s, a) if `reverse` is not 0. f32; ADD, SUB, MUL, MAXIMUM,
 * MINIMUM, REMAINDER and the comparisons also take i32. A comparison gives f32, 0 or 1. */
enum {
    ATOMO_NEG,
    ATOMO_ABS,
    ATOMO_EXP,
    ATOMO_LOG,
    ATOMO_SQRT,
    ATOMO_SQUARE,
    ATOMO_RECIPROCAL,
    ATOMO_SIGN,
    ATOMO_FLOOR,
    ATOMO_TANH,
    ATOMO_SIGMOID,
    ATOMO_RELU,
    ATOMO_SIN,
    ATOMO_COS,
    ATOMO_CEIL,
    ATOMO_ROUND, /* to the nearest whole number, halves to the even one */
    ATOMO_TRUNC, /* towards 0 */
    ATOMO_UNARY_COUNT
};
enum {
    ATOMO_ADD,
    ATOMO_SUB,
    ATOMO_MUL,
    ATOMO_DIV,
    ATOMO_POW,
    ATOMO_MAXIMUM,
    ATOMO_MINIMUM,
    ATOMO_EQ,
    ATOMO_NE,
    ATOMO_LT,
    ATOMO_LE,
    ATOMO_GT,
    ATOMO_GE,
    ATOMO_WHERE,     /* a where b is not 0, else 0; not by multiplying, so NaN and Inf of a become 0, too */
    ATOMO_UNLESS,    /* a where b is 0, else 0 */
    ATOMO_EITHER,    /* a or b where the other is +0: joins a WHERE and an UNLESS, and keeps -0, which + does not */
    ATOMO_REMAINDER, /* a - b floor(a / b): has b's sign; of i32 by 0 it is 0 */
    ATOMO_QUOTIENT,  /* floor(a / b), for the gradient of REMAINDER */
    ATOMO_BINARY_COUNT
};
ATOMO_API int atomo_unary(int op, const atomo_tensor *a, atomo_tensor **out);
ATOMO_API int atomo_binary(int op, const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out);
ATOMO_API int atomo_scalar(int op, const atomo_tensor *a, double s, int reverse, atomo_tensor **out);
ATOMO_API int atomo_clamp(const atomo_tensor *a, double lo, double hi, atomo_tensor **out);
/* y += alpha * x, x broadcast to y. */
ATOMO_API int atomo_axpy(atomo_tensor *y, double alpha, const atomo_tensor *x);

/* Reductions over dimension dim (0-based), or over all (-1). f32 sums accumulate in double, in a fixed order. For i32
 * and u8, SUM gives i32 (ELIMIT if it does not fit), MEAN gives f32, and the extremes have a's dtype; all are exact,
 * with MEAN rounded once. ARGMAX and ARGMIN give i32 indices, 0-based, the first of equal elements. The extremes of
 * elements with a NaN are NaN. Over an empty dimension SUM gives 0, the others fail with ESHAPE. */
enum { ATOMO_SUM, ATOMO_MEAN, ATOMO_MAX_OF, ATOMO_MIN_OF, ATOMO_ARGMAX, ATOMO_ARGMIN, ATOMO_REDUCE_COUNT };
ATOMO_API int atomo_reduce(int op, const atomo_tensor *a, int dim, int keepdim, atomo_tensor **out);
/* a and b have the same dtype; accumulates in double. Exact for integers, ELIMIT beyond 2^53. */
ATOMO_API int atomo_dot(const atomo_tensor *a, const atomo_tensor *b, double *out);
ATOMO_API int atomo_norm(const atomo_tensor *a, double p, double *out); /* p: 1, 2, any above 0, or Inf */
/* Picks elements or rows along dim by 0-based i32 indices: out.shape = a.shape with shape[dim] = numel(index). */
ATOMO_API int atomo_index_select(const atomo_tensor *a, int dim, const atomo_tensor *index, atomo_tensor **out);
/* The reverse: adds src, shaped like that result, to those elements or rows of a. f32 or i32, which wraps around. */
ATOMO_API int atomo_index_add(atomo_tensor *a, int dim, const atomo_tensor *index, const atomo_tensor *src);
/* Running sums along dim, from its last element if `reverse` is not 0. f32 accumulates in double; i32 and u8 give i32
 * (ELIMIT if a sum does not fit). */
ATOMO_API int atomo_cumsum(const atomo_tensor *a, int dim, int reverse, atomo_tensor **out);
/* Products over dim, or over all (-1); 1 over an empty one. dtypes as of atomo_cumsum. _backward: gy is contiguous, as
 * prod's result; *out [a] = for every element gy times the product of the others. */
ATOMO_API int atomo_prod(const atomo_tensor *a, int dim, int keepdim, atomo_tensor **out);
ATOMO_API int atomo_prod_backward(const atomo_tensor *a, int dim, const atomo_tensor *gy, atomo_tensor **out);
/* Running products along dim; dtypes as of atomo_cumsum. _backward, also where elements are 0: gy [like a], both
 * contiguous; *out [a]. */
ATOMO_API int atomo_cumprod(const atomo_tensor *a, int dim, atomo_tensor **out);
ATOMO_API int atomo_cumprod_backward(const atomo_tensor *a, int dim, const atomo_tensor *gy, atomo_tensor **out);

/* How the operands of a matrix product are read. FP32: as they are. BF16: rounded to bf16 (8 bits of mantissa, to
 * nearest, ties to even). Sums and results are f32 in both. atomo_build_info("bf16") names the instructions that
 * multiply bf16, or is "by conversion": f32 products of rounded operands, not faster than FP32. bf16 instructions treat
 * subnormal numbers as 0. */
enum { ATOMO_PRECISION_FP32, ATOMO_PRECISION_BF16, ATOMO_PRECISION_COUNT };

/* Linear algebra, f32. matmul: [m,k] x [k,n]. A 1-D operand is a row (left) or a column (right); if both have leading
 * dimensions, these must be equal, and are batches. out = a b + beta * out, with beta = 0 if *out is NULL. */
ATOMO_API int atomo_matmul(const atomo_tensor *a, const atomo_tensor *b, double beta, int precision,
                           atomo_tensor **out);
/* a [m,n] = u [m,k] diag(s [k]) vt [k,n], k = min(m,n). ENONFINITE for NaN and Inf, because LAPACK hangs on an Inf. */
ATOMO_API int atomo_svd(const atomo_tensor *a, atomo_tensor **u, atomo_tensor **s, atomo_tensor **vt);
ATOMO_API int atomo_eigh(const atomo_tensor *a, atomo_tensor **w,
                         atomo_tensor **v); /* a [n,n] = v diag(w) v^T, w ascending */
ATOMO_API int atomo_qr(const atomo_tensor *a, atomo_tensor **q, atomo_tensor **r); /* reduced: q [m,k], r [k,n] */
/* Real FFT over the last dimension: [..., n] -> [..., n/2+1, 2] (re, im), unnormalised; irfft divides by n. */
ATOMO_API int atomo_rfft(const atomo_tensor *a, atomo_tensor **out);
ATOMO_API int atomo_irfft(const atomo_tensor *a, double n, atomo_tensor **out);

/* ---- stages 1 and 2, data: readers, the batch loader ------------------------------------------------------------- */

/* Reads CIFAR binary files of one or more whole records. A record is, in bytes, for kind 10: label, 3072 pixels; for
 * kind 100: coarse label, fine label, 3072 pixels. The files, in order, become images u8 [n,32,32,3] and labels i32 [n]
 * (the fine ones for kind 100); coarse i32 [n] is set for kind 100 only (may be NULL). [local] EIO; EFORMAT for an
 * incomplete record or a label out of range. */
ATOMO_API int atomo_cifar_read(const char *const *paths, int count, int kind, atomo_tensor **images,
                               atomo_tensor **labels, atomo_tensor **coarse);
/* An IDX file of bytes (MNIST), raw or gzip: u8 of the shape in its header, which must have `ndim` dimensions. [local]
 */
ATOMO_API int atomo_idx_read(const char *path, int ndim, atomo_tensor **out);

/* Divides an epoch into global batches of batch * size images, in an order that depends on (seed, epoch) only, and each
 * global batch into contiguous shares of the ranks, which differ by at most one image. So in an epoch every image goes
 * to exactly one rank, all ranks take the same number of steps, and a rank may get 0 images in the last one. The next
 * batch is made on a thread of its own. */
typedef struct atomo_loader atomo_loader;
/* One change of an image, with its numbers in p. Pixels are x = byte / 255, or f32 images' values as they are.
 *   NORMALISE      (x - p[i]) / p[8 + i] in channel i
 *   CROP           pads by p[0] zeros and crops at random
 *   FLIP           mirrors left and right with probability p[0]
 *   CUTOUT         sets a square of p[0] pixels, with its centre anywhere, to 0 [DeVries & Taylor 2017]
 *   COLOUR_JITTER  brightness, contrast and saturation times random factors in [max(0, 1 - p), 1 + p], p = p[0], p[1],
 *                  p[2], in this order; the result is clamped to [0, 1]
 *   MIXUP          l x + (1 - l) x', x' another image of the set at random, l from Beta(p[0], p[0]); labels become f32
 *                  probabilities [n,classes] in the same way [Zhang et al. 2018]
 */
enum {
    ATOMO_NORMALISE,
    ATOMO_CROP,
    ATOMO_FLIP,
    ATOMO_CUTOUT,
    ATOMO_COLOUR_JITTER,
    ATOMO_MIXUP,
    ATOMO_TRANSFORM_KINDS,
};
enum { ATOMO_MOST_TRANSFORMS = 12 };
typedef struct atomo_transform {
    int32_t kind; /* ATOMO_NORMALISE, ... */
    float p[16];
} atomo_transform;
typedef struct atomo_loader_options {
    double seed;                /* whole number in [0, 2^53] */
    int32_t batch, rank, size;  /* images per rank and step; this rank; number of ranks */
    int32_t shuffle, drop_last; /* drop_last: leave out a last global batch that is not full */
    int32_t crop, flip;         /* pad by `crop` zeros (after normalising) and crop at random; mirror at random */
    int32_t background;         /* 0: make batches, bit-identical ones, on the calling thread */
    int32_t classes;            /* labels must be in [0, classes); 0: any */
    float mean[8], std[8];      /* of each channel: x = (pixel / 255 - mean) / std; f32 images are not divided by 255 */
    int32_t transforms; /* > 0: that many of transform[], in their order, in place of mean, std, crop and flip */
    atomo_transform transform[ATOMO_MOST_TRANSFORMS];
} atomo_loader_options;
typedef struct atomo_batch {
    double step, steps;     /* this step of the epoch (0-based), steps of the epoch */
    int32_t n, total, slot; /* images of this rank, of all ranks; the buffer with this rank's (atomo_loader_view) */
} atomo_batch;
/* images u8 or f32 [n,h,w,c] and labels i32 [n], contiguous; the loader keeps their storage alive. [local] */
ATOMO_API int atomo_loader_new(const atomo_tensor *images, const atomo_tensor *labels,
                               const atomo_loader_options *options, atomo_loader **out);
ATOMO_API void atomo_loader_free(atomo_loader *l);          /* at any time, even during an epoch; NULL is allowed */
ATOMO_API double atomo_loader_steps(const atomo_loader *l); /* steps of an epoch */
/* Begins an epoch (whole number in [0, 2^32)) at a step, and drops what is left of the epoch before. [local] */
ATOMO_API int atomo_loader_begin(atomo_loader *l, double epoch, double step);
/* 1 and *out: the next batch, valid until the next call of _next or _begin; 0: the epoch is over. [local] */
ATOMO_API int atomo_loader_next(atomo_loader *l, atomo_batch *out);
/* Views x f32 [n,h,w,c] and y i32 [n] (f32 [n,classes] after MIXUP) of buffer `slot` (0 or 1); they keep its memory
 * alive. [local] */
ATOMO_API int atomo_loader_view(const atomo_loader *l, int slot, int n, atomo_tensor **x, atomo_tensor **y);

/* ---- stage 3, layers: forward and backward ----------------------------------------------------------------------- */

/* Images are [N,H,W,C], convolution weights [out, kh, kw, in/groups]; all tensors are contiguous f32 unless said
 * otherwise. Pairs are {height, width}. Every forward function has its backward function below it, which takes the
 * forward's inputs and gy, the gradient of y [like y]; gx, gw, ... are the gradients of x, w, ... Output pointers
 * follow the rule at the top; an output that may be NULL is then not computed. All [local]. */
typedef struct atomo_window { /* of a convolution; pooling uses all but groups */
    int32_t kernel[2];        /* pooling only: a convolution takes it from its weights */
    int32_t stride[2], padding[2], dilation[2], groups;
    int32_t ceil_mode; /* pooling only: also use windows that begin before the end and extend beyond it */
} atomo_window;

/* y [N,OH,OW,out] = x [N,H,W,in] * w + b [out] (b may be NULL). OH = (H + 2 pad - dilation (kh - 1) - 1) / stride + 1.
 * precision: of the operands. BF16 leaves grouped convolutions, and those that Winograd computes, in fp32. */
ATOMO_API int atomo_conv2d(const atomo_tensor *x, const atomo_tensor *w, const atomo_tensor *b, const atomo_window *g,
                           int precision, atomo_tensor **out);
/* gx [like x]; only the shape of x is used. If add is not 0, *gx must be given, and the gradient is added to its
 * contents, with the bits of computing it separately and adding it; this saves a pass over memory if x has a gradient
 * from another operation already. */
ATOMO_API int atomo_conv2d_backward_data(const atomo_tensor *x, const atomo_tensor *w, const atomo_tensor *gy,
                                         const atomo_window *g, int precision, int add, atomo_tensor **gx);
/* gw [like w], gb [out] (may be NULL); only the shape of w is used. */
ATOMO_API int atomo_conv2d_backward_weights(const atomo_tensor *x, const atomo_tensor *w, const atomo_tensor *gy,
                                            const atomo_window *g, int precision, atomo_tensor **gw, atomo_tensor **gb);

/* Batch normalisation over all but the last dimension [Ioffe & Szegedy 2015], with an optional residual [like x] added
 * and an optional ReLU in the same pass: y = relu(gamma (x - mean) invstd + beta + residual). Training: mean and invstd
 * [C] (out) are those of the batch. The running statistics (both may be NULL) become (1 - momentum) times themselves
 * plus momentum times the batch's mean and unbiased variance. The bits do not depend on the number of threads. */
ATOMO_API int atomo_batch_norm_train(const atomo_tensor *x, const atomo_tensor *residual, const atomo_tensor *gamma,
                                     const atomo_tensor *beta, double momentum, double eps, int relu,
                                     atomo_tensor *running_mean, atomo_tensor *running_var, atomo_tensor **mean,
                                     atomo_tensor **invstd, atomo_tensor **out);
/* Evaluation: mean is the running mean; invstd [C] (out) = 1 / sqrt(running_var + eps). */
ATOMO_API int atomo_batch_norm_eval(const atomo_tensor *x, const atomo_tensor *residual, const atomo_tensor *gamma,
                                    const atomo_tensor *beta, const atomo_tensor *running_mean,
                                    const atomo_tensor *running_var, double eps, int relu, atomo_tensor **invstd,
                                    atomo_tensor **out);
/* `training`: whether mean and invstd depend on x. y is needed only with both a residual and ReLU (else may be NULL):
 * without a residual, the ReLU's mask is computed from x. gx and gresidual may be NULL; *gresidual may be gy. */
ATOMO_API int atomo_batch_norm_backward(const atomo_tensor *x, const atomo_tensor *y, const atomo_tensor *gy,
                                        const atomo_tensor *gamma, const atomo_tensor *beta, const atomo_tensor *mean,
                                        const atomo_tensor *invstd, int relu, int training, atomo_tensor **gx,
                                        atomo_tensor **gresidual, atomo_tensor **ggamma, atomo_tensor **gbeta);

/* y [...,out] = x [...,in] w^T + b; w [out,in], b [out] (may be NULL). gx, gw and gb may be NULL. precision, here and
 * below: of the products' operands. A backward may have another one than its forward. */
ATOMO_API int atomo_linear(const atomo_tensor *x, const atomo_tensor *w, const atomo_tensor *b, int precision,
                           atomo_tensor **out);
ATOMO_API int atomo_linear_backward(const atomo_tensor *x, const atomo_tensor *w, const atomo_tensor *gy, int precision,
                                    atomo_tensor **gx, atomo_tensor **gw, atomo_tensor **gb);

/* gx = gy where y > 0, else 0. */
ATOMO_API int atomo_relu_backward(const atomo_tensor *y, const atomo_tensor *gy, atomo_tensor **gx);

/* Pooling of [N,H,W,C], padding <= kernel / 2. Max: a window with a NaN gives NaN; the gradient goes to the first of
 * equal maxima. Average, without dilation: the sum over the window's pixels in the image, divided by `divisor`, or if
 * that is 0 by the number of the window's pixels in the padded image (include_padding: PyTorch's count_include_pad) or
 * in the image. */
ATOMO_API int atomo_max_pool2d(const atomo_tensor *x, const atomo_window *g, atomo_tensor **out);
ATOMO_API int atomo_max_pool2d_backward(const atomo_tensor *x, const atomo_tensor *gy, const atomo_window *g,
                                        atomo_tensor **gx);
/* The position y W + x of each maximum: out i32 [N,OH,OW,C] (PyTorch's return_indices). */
ATOMO_API int atomo_max_pool2d_indices(const atomo_tensor *x, const atomo_window *g, atomo_tensor **out);
ATOMO_API int atomo_avg_pool2d(const atomo_tensor *x, const atomo_window *g, int include_padding, int divisor,
                               atomo_tensor **out);
ATOMO_API int atomo_avg_pool2d_backward(const atomo_tensor *x, const atomo_tensor *gy, const atomo_window *g,
                                        int include_padding, int divisor, atomo_tensor **gx);
/* [N,H,W,C] -> [N,C], the mean over H and W; the backward uses only the shape of x. */
ATOMO_API int atomo_global_avg_pool(const atomo_tensor *x, atomo_tensor **out);
ATOMO_API int atomo_global_avg_pool_backward(const atomo_tensor *x, const atomo_tensor *gy, atomo_tensor **gx);

/* y = softmax or (log != 0) log softmax over dimension dim (0-based). */
ATOMO_API int atomo_softmax(const atomo_tensor *x, int dim, int log, atomo_tensor **out);
ATOMO_API int atomo_softmax_backward(const atomo_tensor *y, const atomo_tensor *gy, int dim, int log,
                                     atomo_tensor **gx);
/* Losses, by PyTorch's formulas. grad [like the input] (may be NULL) is the gradient of the loss, from the same pass.
 * With reduction mean or sum, loss is a scalar; with none, it has a value for each row [like labels], or each element
 * [like x], and grad is the gradient of each value by its own row. labels: i32 [...], 0-based, of logits [..., C]
 * (else EARG names position and value). A row whose label is `ignore` is left out: its loss and gradient are 0. weight
 * [C] (may be NULL: 1) is a weight for each class, and the mean divides by the sum of the labels' weights. Cross
 * entropy of a row: -sum_k w_k t_k log softmax(logits)_k, with t = 1 - smooth at the label, plus smooth / C
 * everywhere. */
enum { ATOMO_REDUCE_MEAN, ATOMO_REDUCE_SUM, ATOMO_REDUCE_NONE, ATOMO_REDUCTION_COUNT };
ATOMO_API int atomo_cross_entropy(const atomo_tensor *logits, const atomo_tensor *labels, const atomo_tensor *weight,
                                  double smooth, double ignore, int reduction, atomo_tensor **loss,
                                  atomo_tensor **grad);
/* The cross entropy of the logits x w^T + b, x [..., in], w [classes, in], b [classes] (may be NULL), without storing
 * them: they are computed for blocks of rows, at most 32 MB at a time (or 16 rows). labels, smooth and ignore as above;
 * reduction: mean or sum. gx, gw, gb [like x, w, b] (may be NULL) are the loss's gradients, from the same pass.
 * count[0] = the number of rows whose label has the largest logit, count[1] = that of rows not ignored. Precision BF16
 * needs memory for a copy of w in bf16. */
ATOMO_API int atomo_linear_cross_entropy(const atomo_tensor *x, const atomo_tensor *w, const atomo_tensor *b,
                                         const atomo_tensor *labels, double smooth, double ignore, int reduction,
                                         int precision, atomo_tensor **loss, atomo_tensor **gx, atomo_tensor **gw,
                                         atomo_tensor **gb, double *count);
/* Negative log likelihood, of a row: -w[label] logp[label]. */
ATOMO_API int atomo_nll(const atomo_tensor *logp, const atomo_tensor *labels, const atomo_tensor *weight, double ignore,
                        int reduction, atomo_tensor **loss, atomo_tensor **grad);
/* A loss between x and a target t [like x]. MSE: w (x - t)^2. BCE_WITH_LOGITS, with s the sigmoid:
 * w (-p t log s(x) - (1 - t) log(1 - s(x))). L1: w d, with d = |x - t|. SMOOTH_L1: w d^2 / 2p where d < p, else
 * w (d - p/2). HUBER: p times that. w is weight and p is pos_weight [like x]; each may be NULL: 1. The mean divides by
 * the number of elements. gx, gtarget [like x] (may be NULL). */
enum { ATOMO_MSE, ATOMO_BCE_WITH_LOGITS, ATOMO_L1, ATOMO_SMOOTH_L1, ATOMO_HUBER, ATOMO_LOSS_COUNT };
ATOMO_API int atomo_pair_loss(int kind, const atomo_tensor *x, const atomo_tensor *target, const atomo_tensor *weight,
                              const atomo_tensor *pos_weight, int reduction, atomo_tensor **loss, atomo_tensor **gx,
                              atomo_tensor **gtarget);
/* count[0]: number of rows of logits [..., C] whose (first) largest element is at the row's label, of labels [...];
 * count[1]: number of rows with a label other than `ignore`. */
ATOMO_API int atomo_count_correct(const atomo_tensor *logits, const atomo_tensor *labels, double ignore, double *count);

/* y = x / (1 - p) at each element i for which the stream's uniform number i is >= p, else 0, so the expected y is x.
 * It is linear in x, so the backward is the same call on gy with the same stream. 0 <= p < 1. */
ATOMO_API int atomo_dropout(const atomo_tensor *x, double p, const atomo_stream *stream, atomo_tensor **out);

/* Elementwise activations; `a` is LeakyReLU's negative slope, ELU's alpha, and for SOFTPLUS, log(1 + e^x), the x above
 * which the result is x. `saved`, for the backward, is the result y for ACT_TANH and ACT_SIGMOID, and the input x for
 * the others. The error of GELU is at most 2e-7 |x|. */
enum {
    ATOMO_LEAKY_RELU,
    ATOMO_GELU,
    ATOMO_GELU_TANH,
    ATOMO_SILU,
    ATOMO_ACT_TANH,
    ATOMO_ACT_SIGMOID,
    ATOMO_SOFTPLUS,
    ATOMO_ELU,
    ATOMO_MISH,
    ATOMO_HARD_SWISH,
    ATOMO_HARD_SIGMOID,
    ATOMO_ACTIVATION_COUNT
};
ATOMO_API int atomo_activation(int kind, const atomo_tensor *x, double a, atomo_tensor **out);
ATOMO_API int atomo_activation_backward(int kind, const atomo_tensor *saved, double a, const atomo_tensor *gy,
                                        atomo_tensor **gx);

/* Layer normalisation over the last ndim dimensions [Ba et al. 2016]; gamma and beta have the shape of these
 * dimensions, or both are NULL. mean, invstd (out) [rows], one row for each index of the other dimensions, are for the
 * backward. gx may be NULL, and so may ggamma and gbeta, both together. */
ATOMO_API int atomo_layer_norm(const atomo_tensor *x, int ndim, const atomo_tensor *gamma, const atomo_tensor *beta,
                               double eps, atomo_tensor **mean, atomo_tensor **invstd, atomo_tensor **out);
ATOMO_API int atomo_layer_norm_backward(const atomo_tensor *x, int ndim, const atomo_tensor *gy,
                                        const atomo_tensor *gamma, const atomo_tensor *mean, const atomo_tensor *invstd,
                                        atomo_tensor **gx, atomo_tensor **ggamma, atomo_tensor **gbeta);
/* Group normalisation of x [N, ..., C] [Wu & He 2018]; gamma, beta [C]. mean, invstd (out) [N, C], the same for all
 * channels of a group, are for the backward; gx may be NULL. */
ATOMO_API int atomo_group_norm(const atomo_tensor *x, int groups, const atomo_tensor *gamma, const atomo_tensor *beta,
                               double eps, atomo_tensor **mean, atomo_tensor **invstd, atomo_tensor **out);
ATOMO_API int atomo_group_norm_backward(const atomo_tensor *x, int groups, const atomo_tensor *gy,
                                        const atomo_tensor *gamma, const atomo_tensor *mean, const atomo_tensor *invstd,
                                        atomo_tensor **gx, atomo_tensor **ggamma, atomo_tensor **gbeta);

/* y [..., D]: the rows of w [V, D] picked by index i32 [...], 0-based (EARG names index and position). The backward
 * uses only the shape of w, and drops gradients at index `padding` (-1: none). */
ATOMO_API int atomo_embedding(const atomo_tensor *w, const atomo_tensor *index, atomo_tensor **out);
ATOMO_API int atomo_embedding_backward(const atomo_tensor *w, const atomo_tensor *index, const atomo_tensor *gy,
                                       int padding, atomo_tensor **gw);

/* Average pooling of [N,H,W,C] to [N,oh,ow,C]; the backward uses only the shape of x. */
ATOMO_API int atomo_adaptive_avg_pool2d(const atomo_tensor *x, int oh, int ow, atomo_tensor **out);
ATOMO_API int atomo_adaptive_avg_pool2d_backward(const atomo_tensor *x, const atomo_tensor *gy, int oh, int ow,
                                                 atomo_tensor **gx);

/* Attention with `heads` heads: y [N,T,C] = dropout(softmax(q k^T / sqrt(C / heads) + mask)) v. Each head uses C /
 * heads columns of q [N,T,C] and k, v [N,S,C], which may themselves be columns of a wider tensor. causal: query t uses
 * keys 1 .. t only. mask [N,T,S] (may be NULL; a stride of 0 repeats it): -INFINITY masks a key, and a query whose keys
 * are all masked gets y = 0. lse (out) [N,heads,T] is for the backward. p: dropout of the probabilities, by `stream`
 * (NULL if p is 0). The backward writes into gq, gk, gv [like q, k, v], which must be given and may be columns, too. It
 * needs 64 S floats of memory per thread, not T S. */
ATOMO_API int atomo_attention(const atomo_tensor *q, const atomo_tensor *k, const atomo_tensor *v,
                              const atomo_tensor *mask, int heads, int causal, double p, const atomo_stream *stream,
                              int precision, atomo_tensor **lse, atomo_tensor **out);
ATOMO_API int atomo_attention_backward(const atomo_tensor *q, const atomo_tensor *k, const atomo_tensor *v,
                                       const atomo_tensor *y, const atomo_tensor *gy, const atomo_tensor *lse,
                                       const atomo_tensor *mask, int heads, int causal, double p,
                                       const atomo_stream *stream, int precision, atomo_tensor *gq, atomo_tensor *gk,
                                       atomo_tensor *gv);

/* A recurrent layer over T steps, with PyTorch's gate order and formulas; LSTM has 4 gates, GRU 3. xg [T,N,gates H] =
 * x W_ih^T + b_ih; w [gates H,H], b [gates H] (may be NULL); h0, c0 [N,H] (c0 and c: LSTM only). y, c [T,N,H]; saved
 * (out) [T,N,4 H] is for the backward. gc (may be NULL): the gradient of the last c. gb may be NULL. */
enum { ATOMO_LSTM, ATOMO_GRU, ATOMO_CELL_COUNT };
ATOMO_API int atomo_recurrent(int kind, const atomo_tensor *xg, const atomo_tensor *w, const atomo_tensor *b,
                              const atomo_tensor *h0, const atomo_tensor *c0, int precision, atomo_tensor **saved,
                              atomo_tensor **c, atomo_tensor **out);
ATOMO_API int atomo_recurrent_backward(int kind, const atomo_tensor *w, const atomo_tensor *h0, const atomo_tensor *c0,
                                       const atomo_tensor *saved, const atomo_tensor *c, const atomo_tensor *y,
                                       const atomo_tensor *gy, const atomo_tensor *gc, int precision,
                                       atomo_tensor **gxg, atomo_tensor **gw, atomo_tensor **gb, atomo_tensor **gh0,
                                       atomo_tensor **gc0);

/* ---- stage 7, send: MPI, communicators, collectives -------------------------------------------------------------- */

/* MPI. Started at first use (or by the host program under mpirun) with MPI_THREAD_SERIALIZED: threads may share a
 * communicator, one call at a time. Environment: with ATOMO_MPI_CHECK=1 every collective first compares operation, type
 * and count over the ranks (as atomo_comm_set_checked does for one communicator); ATOMO_MPI_CHUNK=bytes is the largest
 * single message (default 256 MiB). */
typedef struct atomo_comm atomo_comm;
typedef struct atomo_request atomo_request;
enum { ATOMO_MPI_SUM = 0, ATOMO_MPI_MAX = 1, ATOMO_MPI_MIN = 2, ATOMO_MPI_PROD = 3, ATOMO_MPI_OP_COUNT = 4 };

ATOMO_API int atomo_mpi_launched(void);      /* 1 if the environment says that this is one of several ranks [local] */
ATOMO_API int atomo_mpi_started(void);       /* 1 between init and finalize [local] */
ATOMO_API int atomo_mpi_ranks(void);         /* number of ranks of the program; 1 before init [local] */
ATOMO_API int atomo_mpi_init(void);          /* a second call has no effect [collective] */
ATOMO_API int atomo_mpi_finalize(void);      /* no effect if other code has started MPI [collective] */
ATOMO_API void atomo_mpi_abort(int code);    /* ends all ranks; does not return if MPI runs [local] */
ATOMO_API const char *atomo_mpi_label(void); /* static: "rank 2 of 4 on node1", "" before init */
ATOMO_API const char *atomo_mpi_hostname(void); /* static; "" before init */

/* Communicators. A handle is valid until atomo_comm_close; the world's until the program ends. Ranks count from 0. */
ATOMO_API int atomo_comm_world(atomo_comm **out); /* starts MPI [collective] */
ATOMO_API int atomo_comm_split(atomo_comm *c, int color, int key,
                               atomo_comm **out); /* as MPI_Comm_split; color -1: *out = NULL [collective] */
ATOMO_API int atomo_comm_split_shared(atomo_comm *c, atomo_comm **out); /* ranks that share memory [collective] */
ATOMO_API int atomo_comm_close(atomo_comm *c);                          /* [collective] */
ATOMO_API int atomo_comm_rank(const atomo_comm *c);
ATOMO_API int atomo_comm_size(const atomo_comm *c);
ATOMO_API int atomo_comm_local_rank(const atomo_comm *c); /* among the ranks of c on this host */
ATOMO_API int atomo_comm_local_size(const atomo_comm *c);

/* Collectives over contiguous f32, i32 or u8 tensors of the same type and number of elements on every rank. */
ATOMO_API int atomo_comm_barrier(atomo_comm *c); /* [collective], as all in this block */
ATOMO_API int atomo_comm_bcast(atomo_comm *c, atomo_tensor *t, int root);
ATOMO_API int atomo_comm_allreduce(atomo_comm *c, atomo_tensor *t, int op);        /* in place */
ATOMO_API int atomo_comm_reduce(atomo_comm *c, atomo_tensor *t, int op, int root); /* in place at the root */
ATOMO_API int atomo_comm_gather(atomo_comm *c, const atomo_tensor *t, int root,
                                atomo_tensor **out);                                          /* root: [size, ...] */
ATOMO_API int atomo_comm_allgather(atomo_comm *c, const atomo_tensor *t, atomo_tensor **out); /* [size, ...] */
/* Lengths may differ between ranks, which first exchange them, with fingerprints of the operation: EMISMATCH on every
 * rank if ranks are in different operations or the types differ. allgatherv: t is 1-D, out[size] are new 1-D tensors,
 * out[r] that of rank r. alltoallv: send[r] goes to rank r, and recv[r] is a new 1-D tensor from rank r. */
ATOMO_API int atomo_comm_allgatherv(atomo_comm *c, const atomo_tensor *t, atomo_tensor **out);
ATOMO_API int atomo_comm_alltoallv(atomo_comm *c, const atomo_tensor *const *send, atomo_tensor **recv);
/* The same for bytes. *recv (u8, 1-D) is reused; if it is NULL or too small, it is freed and a larger one made. It
 * holds the ranks' blocks one after the other; counts[size] (out) are their lengths. */
ATOMO_API int atomo_comm_allgatherv_bytes(atomo_comm *c, const void *send, double nbytes, atomo_tensor **recv,
                                          double *counts);
/* Sends a block of bytes to every rank: counts_out[r] bytes for rank r, one block after the other in `send`; counts_in
 * [size] (out) are the lengths of the received blocks. *recv as above. */
ATOMO_API int atomo_comm_alltoallv_bytes(atomo_comm *c, const void *send, const double *counts_out, atomo_tensor **recv,
                                         double *counts_in);
/* Copies the root's bytes to *recv (as above) on every rank, the root included; *count (out) is their number. data and
 * nbytes are used at the root only. */
ATOMO_API int atomo_comm_bcast_bytes(atomo_comm *c, const void *data, double nbytes, int root, atomo_tensor **recv,
                                     double *count);
/* Checks that `value` is the same text on all ranks; if not, EMISMATCH on every rank, naming two ranks and their
 * values. */
ATOMO_API int atomo_comm_check(atomo_comm *c, const char *name, const char *value);

/* Messages between two ranks, 0 <= tag <= 32000. Type and number of elements must be equal at both ends, else the
 * receiver gets EMISMATCH, which names both; the further pieces of a message beyond 256 MiB then stay in the queue.
 * [local] */
ATOMO_API int atomo_comm_send(atomo_comm *c, const atomo_tensor *t, int dst, int tag);
ATOMO_API int atomo_comm_recv(atomo_comm *c, atomo_tensor *t, int src, int tag);
/* Non-blocking: the request keeps t's storage alive; t must not be used until the operation is complete. */
ATOMO_API int atomo_comm_isend(atomo_comm *c, const atomo_tensor *t, int dst, int tag, atomo_request **out);
ATOMO_API int atomo_comm_irecv(atomo_comm *c, atomo_tensor *t, int src, int tag, atomo_request **out);
ATOMO_API int atomo_comm_ibarrier(atomo_comm *c, atomo_request **out);                            /* [collective] */
ATOMO_API int atomo_comm_iallreduce(atomo_comm *c, atomo_tensor *t, int op, atomo_request **out); /* [collective] */
ATOMO_API int atomo_comm_ibcast(atomo_comm *c, atomo_tensor *t, int root, atomo_request **out);   /* [collective] */
ATOMO_API int atomo_request_wait(atomo_request *r); /* blocks; a second call returns at once */
ATOMO_API int atomo_request_test(atomo_request *r); /* 1: complete, 0: not yet */
ATOMO_API void
atomo_request_free(atomo_request *r); /* NULL is allowed; never calls MPI: an incomplete one is kept until complete */

/* Sets the limits of the watchdog, a thread that runs from MPI's start on. When an operation has made no progress for
 * warn_after seconds (60 until this is called), it prints a warning on stderr that names the ranks that the operation
 * waits for. After abort_after seconds (never, until this is called) it makes every rank that answers write its flight
 * recorder to PREFIX-rankN.jsonl, and aborts the job with code 75. A limit of 0 means never. If an operation waits for
 * a rank that has reached the end of its program, the watchdog ends the job with code 1 after some seconds. Ranks ask
 * each other by UDP (IPv4). No effect if c has one rank. [local] EARG */
ATOMO_API int atomo_watchdog_start(atomo_comm *c, double warn_after, double abort_after, const char *prefix);
/* Writes the last 256 operations to a file: a line of JSON about this rank (why = the reason), then one line for each
 * operation, oldest first; end is null for an operation that has not ended. If it fails, path is unchanged.
 * [local] EIO */
ATOMO_API int atomo_flight_write(const char *path, const char *why);

/* ---- the update: optimizers over 1-D f32 tensors of the same size [n], in one pass [local] ----------------------- */

/* d = scale * (g + weight_decay * p); v = momentum * v + (1 - dampening) * d (v = d when first); p -= lr * v, or with
 * nesterov p -= lr * (d + momentum * v). v may be NULL when momentum is 0. torch.optim.SGD's formula. */
ATOMO_API int atomo_optim_sgd(atomo_tensor *p, const atomo_tensor *g, atomo_tensor *v, double lr, double momentum,
                              double dampening, double weight_decay, double scale, int nesterov, int first);
/* torch.optim.Adam's formula, or AdamW's if `decoupled` is not 0; m and v start at zero, step counts from 1. top (may
 * be NULL): the largest v so far, for amsgrad. */
ATOMO_API int atomo_optim_adam(atomo_tensor *p, const atomo_tensor *g, atomo_tensor *m, atomo_tensor *v,
                               atomo_tensor *top, double lr, double beta1, double beta2, double eps,
                               double weight_decay, int decoupled, double step);
/* LAMB [You et al. 2020] on one tensor: r = mhat / (sqrt(vhat) + eps) + weight_decay p with Adam's m, v;
 * p -= lr |p| / |r| r (the ratio of norms is 1 if one of them is 0). Norms are summed in double, in a fixed order. */
ATOMO_API int atomo_optim_lamb(atomo_tensor *p, const atomo_tensor *g, atomo_tensor *m, atomo_tensor *v, double lr,
                               double beta1, double beta2, double eps, double weight_decay, double step);

/* ---- files: NumPy arrays ----------------------------------------------------------------------------------------- */

/* Reads a NumPy .npy file, versions 1 to 3: <f4, <i4 and |u1 without conversion, <f8 as f32, <i8 as i32 (ELIMIT if a
 * value does not fit). Fortran order is converted to C order. The header is checked against the file's size before
 * memory is allocated. [local] EIO, EFORMAT, EDTYPE */
ATOMO_API int atomo_npy_read(const char *path, atomo_tensor **out);
/* A NumPy .npz file: a zip archive of .npy files, stored or deflated. _open checks the archive's records against each
 * other and the file's size; _read checks a member's packed bytes, sizes and CRC-32. EDTYPE and ELIMIT mean that a
 * member is well-formed, but no tensor can hold its type or a value. [local] EIO, EFORMAT */
typedef struct atomo_npz atomo_npz;
ATOMO_API int atomo_npz_open(const char *path, atomo_npz **out);
ATOMO_API void atomo_npz_close(atomo_npz *z);                    /* NULL is allowed */
ATOMO_API int atomo_npz_count(const atomo_npz *z);               /* number of members */
ATOMO_API const char *atomo_npz_name(const atomo_npz *z, int i); /* name of member i, from 0; valid until _close */
ATOMO_API int atomo_npz_read(atomo_npz *z, int i, atomo_tensor **out);
/* Writes t (any view) as version 1, into a temporary file beside path that then replaces path. [local] EIO */
ATOMO_API int atomo_npy_write(const atomo_tensor *t, const char *path);

#endif
