/* atomo_codec.h - the public functions of libatomo-codec: gradients to messages and back, by unbiased (ATOMO) and other
 * compressors. Needs neither MPI nor Lua: the caller sends the messages. libatomo has these functions, too (atomo.h
 * includes this header); link a program to one of the two.
 *
 * Two ranks average a gradient (tests/c compiles this with nothing but the shared library, and runs it). Each has its
 * own codec; in place of sending, both are in one program:
 *
 *     #include <atomo_codec.h>
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
 *         enum { RANKS = 2, ROWS = 64, COLS = 128 };
 *         static float gradient[ROWS * COLS], average[ROWS * COLS];
 *         const double shape[] = {ROWS, COLS}, options[] = {NAN, 16}, seed = 1; // atoms= is not set, ratio=16
 *         const int tensor = 1, step = 0;
 *         atomo_tensor *grad, *sum;
 *         atomo_codec *codec[RANKS];
 *         uint8_t *message[RANKS];
 *         double length[RANKS], used;
 *         if (atomo_codec_abi() != ATOMO_CODEC_ABI) return 1; // the library is another version's
 *         need(atomo_tensor_wrap(ATOMO_F32, 2, shape, NULL, gradient, &grad)); // the program's own arrays
 *         need(atomo_tensor_wrap(ATOMO_F32, 2, shape, NULL, average, &sum));
 *
 *         for (int rank = 0; rank < RANKS; rank++) { // on each rank: encode
 *             const atomo_stream noise = {.seed = {7}, .purpose = ATOMO_RNG_USER, .rank = (uint32_t)rank};
 *             atomo_random_uniform(&noise, 0, ROWS * COLS, gradient); // in place of backward
 *             need(atomo_codec_new("entry", 2, options, seed, ATOMO_WAY_UP, &codec[rank]));
 *             need(atomo_codec_plan(codec[rank], tensor, 2, shape, 0, "fc.weight"));
 *             const double room = atomo_codec_wire_max(codec[rank], 0);
 *             message[rank] = malloc((size_t)room);
 *             need(atomo_codec_encode(codec[rank], 1, &tensor, (const atomo_tensor *[]){grad}, step, rank,
 *                                     message[rank], room, &length[rank]));
 *         }
 *         for (int r = 0; r < RANKS; r++) // on each rank, here on rank 0: decode all messages into the average
 *             need(atomo_codec_decode_add(codec[0], tensor, step, r, message[r], length[r], 1.0 / RANKS, sum, &used));
 *         need(atomo_codec_finish(codec[0], tensor, 1.0 / RANKS, sum));
 *
 *         double mean = 0;
 *         for (int i = 0; i < ROWS * COLS; i++) mean += average[i] / (ROWS * COLS);
 *         printf("%.0f and %.0f bytes in place of %d, mean %.1f\n", length[0], length[1], 4 * ROWS * COLS, mean);
 *         for (int r = 0; r < RANKS; r++) free(message[r]), atomo_codec_free(codec[r]);
 *         atomo_tensor_free(grad), atomo_tensor_free(sum);
 *         return 0;
 *     }
 *
 * Conventions. Every function that can fail returns an int: 0 (or a count >= 0), or a negative status of
 * ATOMO_STATUSES; atomo_last_error() then has the text. [local] means that a rank may call it alone. [m,n] after a name
 * is a shape, and [like x] the shape of x. A function that returns a tensor takes `atomo_tensor **out`: if *out is
 * NULL, it makes a new tensor, which the caller frees; otherwise *out must have the result's shape and dtype and is
 * overwritten.
 *
 * Threads. Different codecs, and different tensors, may be used by different threads at the same time. One codec, or
 * one tensor, may be used by one thread at a time. The bits do not depend on what other threads do.
 *
 * Versions. The symbols of libatomo-codec.so.0 have the version ATOMO_CODEC_0. ATOMO_CODEC_ABI grows when a function or
 * struct of this header changes; a program that loads the library at run time compares it with atomo_codec_abi().
 */
#ifndef ATOMO_CODEC_LIBRARY_H
#define ATOMO_CODEC_LIBRARY_H

#ifdef ATOMO_CDEF
#define ATOMO_API
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef int int32_t;
typedef unsigned int uint32_t;
#else
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#define ATOMO_API __attribute__((visibility("default")))
#endif

/* ---- versions, statuses, memory, random numbers ------------------------------------------------------------------ */

enum { ATOMO_CODEC_ABI = 1, ATOMO_MAX_DIM = 8 };

#ifndef ATOMO_CDEF
/* Statuses: name, value, meaning */
#define ATOMO_STATUSES(X)                                                                                              \
    X(OK, 0, "no error")                                                                                               \
    X(EARG, -1, "invalid argument")                                                                                    \
    X(ESHAPE, -2, "shapes do not fit")                                                                                 \
    X(EDTYPE, -3, "wrong element type")                                                                                \
    X(ENOMEM, -4, "out of memory")                                                                                     \
    X(ENONFINITE, -5, "NaN or Inf in the input")                                                                       \
    X(EIO, -6, "input or output failed")                                                                               \
    X(EFORMAT, -7, "malformed file or message")                                                                        \
    X(EMPI, -8, "MPI failed")                                                                                          \
    X(ELIMIT, -9, "size limit passed")                                                                                 \
    X(ENUMERIC, -10, "numerical failure")                                                                              \
    X(EUNSUPPORTED, -11, "not supported by this build")                                                                \
    X(EMISMATCH, -12, "ranks or versions disagree")                                                                    \
    X(EINTERNAL, -13, "internal error")
#define ATOMO_STATUS_ENUM(name, value, text) ATOMO_##name = value,
enum atomo_status { ATOMO_STATUSES(ATOMO_STATUS_ENUM) };
#endif

/* Versions, texts of statuses, facts about the build. atomo_codec_abi returns the library's ATOMO_CODEC_ABI. [local] */
ATOMO_API int atomo_codec_abi(void);
ATOMO_API const char *atomo_version(void);               /* static */
ATOMO_API const char *atomo_status_name(int status);     /* static: "ESHAPE" */
ATOMO_API const char *atomo_status_text(int status);     /* static: "shapes do not fit" */
ATOMO_API const char *atomo_last_error(void);            /* this thread's last failure; valid until its next one */
ATOMO_API const char *atomo_build_info(const char *key); /* static; key: "compiler", "build", "blas", "fftw", "cpu",
                                                           "mpi", "onednn", "bf16", "png", "jpeg"; "none": not there;
                                                           NULL: no such key */
/* Set the number of threads of every kernel (OpenMP, OpenBLAS and oneDNN share one pool). [local] EARG if < 1. */
ATOMO_API int atomo_set_num_threads(int n);
ATOMO_API int
atomo_num_threads(void); /* until set: OpenMP's choice, or under mpirun the cores shared by the local ranks */

/* The runtime's memory. In bytes: live; pooled (freed, and kept for reuse); peak, the largest live so far; high_water,
 * the largest sum of live and pooled so far. Counts: live_blocks, the live allocations; system_allocs, the calls of
 * malloc, which no longer grows once a training loop reuses its blocks. */
typedef struct atomo_mem {
    double live, pooled, peak, system_allocs, live_blocks, high_water;
} atomo_mem;
ATOMO_API void atomo_mem_stats(atomo_mem *out);
ATOMO_API void atomo_mem_reset_peak(void);
ATOMO_API void atomo_mem_trim(void); /* returns pooled blocks to the system */

/* Counter-based random numbers, Philox4x32-10 [Salmon et al. 2011]. A stream is named by (seed, purpose, step, rank,
 * tensor); each of its elements can be computed without the others. */
typedef struct atomo_stream {
    uint32_t seed[2];
    uint32_t purpose; /* < 256, one of ATOMO_RNG_* */
    uint32_t rank;    /* < 2^24 */
    uint32_t step, tensor;
} atomo_stream;
enum {
    ATOMO_RNG_USER = 0,
    ATOMO_RNG_INIT = 1,
    ATOMO_RNG_SHUFFLE = 2,
    ATOMO_RNG_AUGMENT = 3,
    ATOMO_RNG_DROPOUT = 4,
    ATOMO_RNG_SAMPLE = 5,
    ATOMO_RNG_QUANT_U = 6,
    ATOMO_RNG_QUANT_V = 7,
    ATOMO_RNG_SYNTHETIC = 8,
    ATOMO_RNG_QUANT = 9,
    ATOMO_RNG_MATH = 10,
    ATOMO_RNG_SAMPLE_TAIL = 11,
    ATOMO_RNG_ROTATE = 12,
    ATOMO_RNG_STRATA = 13
};
/* out[4] = the block `index` of the stream. */
ATOMO_API void atomo_random_block(const atomo_stream *s, uint32_t index, uint32_t *out);
/* n uniforms in [0, 1), multiples of 2^-24, elements first .. first+n-1 of the stream. */
ATOMO_API void atomo_random_uniform(const atomo_stream *s, double first, double n, float *out);

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

/* f16 (IEEE 754 binary16) and bf16 (the upper half of an f32) are for storage: they are copied, converted, sent and
 * written to files. Functions that compute take f32, and those that say so i32 and u8. */
enum { ATOMO_F32 = 0, ATOMO_I32 = 1, ATOMO_U8 = 2, ATOMO_F16 = 3, ATOMO_BF16 = 4, ATOMO_DTYPES = 5 };

typedef struct atomo_storage atomo_storage; /* reference-counted bytes */
typedef struct atomo_tensor {               /* a strided view of a storage; row-major when contiguous */
    void *data;                             /* the view's first element */
    atomo_storage *storage;
    int32_t dtype, ndim;        /* ndim 0: a scalar */
    double numel;               /* sizes are doubles: exact up to 2^53, and plain numbers in Lua */
    double shape[8], stride[8]; /* strides in elements */
} atomo_tensor;

ATOMO_API int atomo_tensor_new(int dtype, int ndim, const double *shape, atomo_tensor **out); /* not initialised */
ATOMO_API void atomo_tensor_free(atomo_tensor *t);                                            /* NULL is allowed */
/* A view of t's storage; `offset` in elements from t->data. ESHAPE if the view would exceed the storage. */
ATOMO_API int atomo_tensor_view(const atomo_tensor *t, int ndim, const double *shape, const double *stride,
                                double offset, atomo_tensor **out);
/* A tensor of the caller's memory: element [0,...,0] is at data, and strides are in elements (any sign; NULL:
 * row-major). The memory must stay valid until the tensor and all views of it are freed; it is not freed with them.
 * [local] EDTYPE; ESHAPE; ELIMIT; EARG if data is NULL, or not a multiple of the element's size. */
ATOMO_API int atomo_tensor_wrap(int dtype, int ndim, const double *shape, const double *stride, void *data,
                                atomo_tensor **out);
ATOMO_API int atomo_tensor_is_contiguous(const atomo_tensor *t);

/* Fill and copy. atomo_copy broadcasts src to dst's shape and converts the element type; conversion to i32 and u8
 * truncates and saturates, and turns NaN into 0. */
ATOMO_API int atomo_fill(atomo_tensor *t, double value);
ATOMO_API int atomo_copy(atomo_tensor *dst, const atomo_tensor *src);
/* Counts the NaN and Inf elements of a tensor of any dtype and strides, without copying it. *first: flat index
 * (0-based) of the first one, or -1. */
ATOMO_API int atomo_count_nonfinite(const atomo_tensor *a, double *count, double *first);

/* ---- codecs: atoms, budgets, messages ---------------------------------------------------------------------------- */

/* Algorithm 1 [Wang et al., ATOMO, NeurIPS 2018]: the probability p_i of sending an atom with coefficient lambda_i, for
 * s expected atoms. p_i = min(1, |lambda_i| / tau), with tau such that sum p = s; this minimises sum lambda_i^2 / p_i.
 * With costs (> 0, else NULL): p_i = min(1, |lambda_i| / (T sqrt(cost_i))), with T such that sum cost * p = s. A zero
 * lambda gets p = 0; if the budget s is large enough for all others, they get p = 1. O(n), double accumulators. [local]
 * EARG if s is not > 0 or a cost is not; ENONFINITE. */
ATOMO_API int atomo_probabilities(const atomo_tensor *lambda, double s, const atomo_tensor *cost, atomo_tensor **p);

/* The table of compressors and their options. Texts are static. */
enum { ATOMO_OPTION_FLOAT = 0, ATOMO_OPTION_INT = 1, ATOMO_OPTION_BOOL = 2, ATOMO_OPTION_ENUM = 3 };
typedef struct atomo_codec_info {
    const char *name, *summary, *source;
    int unbiased, linear, options; /* linear: an all-reduce can add its messages; options: their number */
} atomo_codec_info;
typedef struct atomo_option_info {
    const char *key, *choices,
        *help; /* choices: "a|b" of an enum (the value is the index from 0), or the allowed ints; else NULL */
    int type;  /* ATOMO_OPTION_* */
    double standard, min, max; /* standard: the value if none is given; NaN: not set */
} atomo_option_info;
ATOMO_API int atomo_codec_count(void);
ATOMO_API int atomo_codec_about(int i, atomo_codec_info *out); /* i from 0; EARG past the end */
/* Why this machine or build cannot run compressor i, as "FFTW cannot be loaded (...): apt install libfftw3-single3",
 * for which atomo_codec_new fails with EUNSUPPORTED; "" if it can. Static. Loads the libraries that it needs. */
ATOMO_API const char *atomo_codec_missing(int i);
ATOMO_API int atomo_codec_option(int i, int option, atomo_option_info *out); /* both from 0 */

/* A codec: a compressor with options (values [count] in the order of its table, NaN: the standard value), a seed (an
 * integer in [0, 2^53]) and a way (0 to 255). Tensors are numbered from 1 and planned once; nothing is allocated after
 * that. Codecs of the same seed and different ways draw different random numbers. A gradient decoded from messages of
 * one way must be encoded again with another way: otherwise draws that do not depend on the rank (the places of randk)
 * would be repeated, and the result would be biased. A message can be decoded only with its own way. */
enum { ATOMO_WAY_UP = 0, ATOMO_WAY_DOWN = 1 };
typedef struct atomo_codec atomo_codec;
ATOMO_API int atomo_codec_new(const char *name, int count, const double *values, double seed, int way,
                              atomo_codec **out);
ATOMO_API void atomo_codec_free(atomo_codec *c); /* NULL is allowed */
/* Plans tensor number `tensor`; planning it again with another shape replaces the plan. custom_rows: the number of rows
 * of the matrix that the tensor is coded as; 0: as option fold= says. name (may be NULL) is for error messages. */
ATOMO_API int atomo_codec_plan(atomo_codec *c, int tensor, int ndim, const double *shape, double custom_rows,
                               const char *name);
/* The same, but coded with another set of atoms than the codec's ("svd", with option values [count] in the order of
 * that compressor's table), or "none": every entry unchanged. The step's budget is shared with the other tensors. EARG
 * if the codec's compressor has no atoms. */
ATOMO_API int atomo_codec_plan_as(atomo_codec *c, int tensor, int ndim, const double *shape, double custom_rows,
                                  const char *label, const char *atoms, int count, const double *values);
ATOMO_API int atomo_codec_is_planned(const atomo_codec *c, int tensor, int ndim, const double *shape); /* 0 or 1 */
/* The largest message of a tensor, in bytes; tensor 0: the sum over all planned tensors. */
ATOMO_API double atomo_codec_wire_max(const atomo_codec *c, int tensor);
/* Sets the budget from the next encode on: expected atoms, ratio to 4-byte entries, or bytes; one > 0, the others 0. */
ATOMO_API int atomo_codec_set_budget(atomo_codec *c, double atoms, double ratio, double bytes);

/* Tells the codec that a step also has tensors that it does not encode, with `entries` f32 entries together, which take
 * `bytes` bytes. The budgets ratio= and bytes= then include them, but the codec's own tensors keep at least a quarter
 * of their proportional share of the budget. */
ATOMO_API int atomo_codec_reserve(atomo_codec *c, double entries, double bytes);
/* Says that messages of `ranks` ranks (1 to 2^24; 1 at first) are averaged, each encoded with a rank below `ranks`, and
 * all with the same seed and step. Their draws then cancel, if option `together` is true: each message keeps its law
 * and its length, and the variance of the mean is at most that of independent draws. No effect on compressors that do
 * not have the option, and with error feedback, whose factor depends on the draw. EARG. */
ATOMO_API int atomo_codec_set_ranks(atomo_codec *c, int ranks);

/* Gradients and averages are f32 of any strides: the codec works in row-major order of the planned shape, and copies a
 * tensor that is not contiguous to a buffer of its plan and back. The message has the bits of a contiguous tensor.
 *
 * Encodes grads[i] as tensor number tensors[i], all under one budget, with the one threshold T that
 * meets it (atomo_probabilities). The messages go one after the other into out [capacity bytes], their lengths into
 * nbytes [count]. The draws depend on seed, way, step, rank and tensor only. For an unbiased compressor, the expected
 * decoded message is the gradient. ENONFINITE names tensor, number and first position of NaN and Inf. EARG names a
 * tensor that is listed twice. Here and below, a gradient or average that overlaps the memory of messages is refused
 * (EARG). [local] */
ATOMO_API int atomo_codec_encode(atomo_codec *c, int count, const int32_t *tensors, const atomo_tensor *const *grads,
                                 double step, double rank, uint8_t *out, double capacity, double *nbytes);
/* The streaming form: begin a step, push its gradients one by one in any order, end it. Each gradient is encoded with
 * the threshold T that would have met the budget in the last step, corrected so that the bytes stay close to the
 * budget; the very first step finds a T for each tensor alone. [local] */
ATOMO_API int atomo_codec_begin(atomo_codec *c, double step, double rank);
ATOMO_API int atomo_codec_push(atomo_codec *c, int tensor, const atomo_tensor *grad, uint8_t *out, double capacity,
                               double *nbytes);
ATOMO_API int atomo_codec_end(atomo_codec *c);
/* Called in place of _end, abandons the step: residuals, PowerSGD's factors, kept bases and thresholds are as before it
 * began. No effect if no step has begun. */
ATOMO_API int atomo_codec_undo(atomo_codec *c);
/* 1 if the expected decoded message is the gradient, with these options; 0 if not, and always with ef=true. */
ATOMO_API int atomo_codec_is_unbiased(const atomo_codec *c);
/* A copy of a tensor's error-feedback residual (ef=true): the sum of all gradients encoded so far minus the sum of all
 * that was sent. EARG without ef. [local] */
ATOMO_API int atomo_codec_residual(const atomo_codec *c, int tensor, atomo_tensor **out);
/* Of the last encode: the bytes; the atoms, expected and sent; variance: the expected ||ghat - g||^2 by its formula,
 * with quantisation and bias included; square: ||g||^2; the threshold T. ghat is the decoded message; with ef=true, g
 * is the gradient plus the residual before. */
typedef struct atomo_codec_stats {
    double nbytes, atoms_expected, atoms_sent, variance, square, T;
} atomo_codec_stats;
ATOMO_API void atomo_codec_get_stats(const atomo_codec *c, int tensor,
                                     atomo_codec_stats *out); /* tensor 0: sums over all tensors */
/* Of the last encode, for atoms `rotated` (chosen by `auto`, too): the least ||ghat - g||^2 that any unbiased code of
 * as many bits is expected to have for normal entries with the energies of the message's classes; 0 for others, and if
 * unknown. tensor 0: the sum, with the variance of tensors that have no bound; 0 if none has. */
ATOMO_API double atomo_codec_bound(const atomo_codec *c, int tensor);
/* The atoms that `auto` chose for a tensor in the last encode, as "entry:step=1"; "" for other compressors. Static. */
ATOMO_API const char *atomo_codec_family(const atomo_codec *c, int tensor);
/* Returns the tensor number in a message's frame, or a negative status. */
ATOMO_API int atomo_codec_tensor_of(const uint8_t *bytes, double size);
/* The length in bytes of a message, frame included, as its frame has it. */
ATOMO_API int atomo_codec_length_of(const uint8_t *bytes, double size, double *length);

/* ---- decode: messages into the average --------------------------------------------------------------------------- */

/* Decodes the message at bytes [size]: acc += scale * (its gradient). tensor 0 means the tensor number in the message;
 * a step or rank < 0 is not compared with the message's. *used is the message's length in bytes. EFORMAT if it is not a
 * message for this plan; acc is then unchanged, unless a damaged message had a correct checksum: part of it may have
 * been added. [local] */
ATOMO_API int atomo_codec_decode_add(atomo_codec *c, int tensor, double step, double rank, const uint8_t *bytes,
                                     double size, double scale, atomo_tensor *acc, double *used);
/* Turns acc = scale * (the sum of all ranks' messages) into the update. For signsgd:vote=true this is the majority
 * vote; other compressors leave acc as it is (but see atomo_codec_sum). [local] */
ATOMO_API int atomo_codec_finish(atomo_codec *c, int tensor, double scale, atomo_tensor *acc);

/* From this call until atomo_codec_finish, decode_add adds the messages of this tensor as coefficients if they are in
 * one fixed basis, so that only their sum is transformed, not each message; acc is complete after finish. The codec
 * must not be used for anything else in between. [local] */
ATOMO_API int atomo_codec_sum(atomo_codec *c, int tensor);

/* Messages that lie in memory one after the other. */
typedef struct atomo_codec_block {
    const uint8_t *at; /* the next message */
    double left;       /* bytes from there to the end of the block */
    double rank;       /* the rank of the messages, < 0: it is not compared */
} atomo_codec_block;
enum {
    ATOMO_DECODE_FIRST = 1, /* acc is set to 0 before */
    ATOMO_DECODE_LAST = 2,  /* no other ranks follow: atomo_codec_sum before (from two blocks on), _finish after */
    ATOMO_DECODE_ALL = 4    /* the blocks end with these messages: EFORMAT if bytes follow */
};
/* Decodes the next `count` messages of each of `blocks` blocks; those of a block are for tensors[0], tensors[1], ...
 * acc[i] [like tensor] += scale * (the sum of the blocks' messages for tensors[i]). which: a sum of the flags above, or
 * 0; with FIRST, LAST and scale 1 / blocks, acc is the average of all ranks. Bit-identical to the calls for each tensor
 * and block that it stands for. Afterwards `at` and `left` are those of the messages that follow. step < 0 is not
 * compared. Wrong arguments and headers (EARG, ESHAPE, EDTYPE, EFORMAT) are found before anything is changed. EFORMAT
 * for a damaged body: acc is complete for the tensors before, not valid for its own, and unchanged for those behind;
 * `at` of its block is the message. [local] */
ATOMO_API int atomo_codec_decode_add_step(atomo_codec *c, int count, const int32_t *tensors, double step, int blocks,
                                          atomo_codec_block *block, double scale, int which, atomo_tensor *const *acc);

/* ---- what a codec keeps between steps, for checkpoints ----------------------------------------------------------- */

/* Discards what the streaming form and the atoms have derived from earlier steps (thresholds, prices, kept bases), but
 * not the memory below: the messages that follow have the bits of a new codec with that memory. [local] */
ATOMO_API int atomo_codec_restart(atomo_codec *c);
/* A tensor's memory: the state on this rank that a restart keeps, the residual (ef=true) or PowerSGD's Q. f32 [m], [0]
 * if there is none. For checkpoints: _set_memory writes it into a codec with the same plan. [local] */
ATOMO_API int atomo_codec_memory(const atomo_codec *c, int tensor, atomo_tensor **out);
ATOMO_API int atomo_codec_set_memory(atomo_codec *c, int tensor, const atomo_tensor *memory);
/* The state that atomo_codec_restart discards (thresholds, prices, kept bases, auto's choices), of a tensor or, for
 * tensor 0, of the step; u8 [m], [0] if there is none. For checkpoints: _set_learnt writes it into a codec with the
 * same plan (else EFORMAT, ESHAPE); its further messages are bit-identical to those of the codec that the state came
 * from. [local] */
ATOMO_API int atomo_codec_learnt(const atomo_codec *c, int tensor, atomo_tensor **out);
ATOMO_API int atomo_codec_set_learnt(atomo_codec *c, int tensor, const atomo_tensor *bytes);

#ifdef __cplusplus
}
#endif
#endif
