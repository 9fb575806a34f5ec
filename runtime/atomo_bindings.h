/* atomo_bindings.h - further functions that the Lua bindings call, in the order of atomo.h and with its conventions. A
 * C program can use them, but they may change with every version (ATOMO_ABI then grows).
 */
#ifndef ATOMO_BINDINGS_H
#define ATOMO_BINDINGS_H

#include "atomo.h"

/* ---- core: failing allocations, processes, places in random streams ---------------------------------------------- */

/* For tests: makes the n-th allocation from now on fail (ENOMEM), once; 0: none. Returns the number of allocations that
 * were left until the one that an earlier call chose, 0 if that one has failed already. The environment variable
 * ATOMO_FAIL_ALLOC=n chooses one from the program's start. */
ATOMO_API int atomo_mem_fail_alloc(int n);
/* 1: before memory is taken from the system, pooled blocks are given back to it, as far as live and pooled memory would
 * else exceed the peak of live memory by more than 1/32, or 16 MB. 0, the default: they stay pooled, which is faster.
 */
ATOMO_API void atomo_mem_compact(int on);
/* Starts a shell command as the one child process that a script waits for. A SIGINT or SIGTERM to this process sends
 * the child SIGTERM, and this process then waits for it before it exits. EARG if a child runs already, EIO if it cannot
 * be started. */
ATOMO_API int atomo_child_start(const char *line);
ATOMO_API int atomo_child_poll(int *code);   /* 1 if it has ended: *code is its exit code or 128 + signal; else 0 */
ATOMO_API void atomo_child_kill(int signal); /* no effect if none runs */
ATOMO_API void atomo_child_terminate(void);  /* SIGTERM, also to one that starts later; async-signal-safe */
ATOMO_API void atomo_child_forgive(void);    /* undoes _terminate for children that start from now on */
ATOMO_API void atomo_child_await(double seconds); /* waits for its end, at most for `seconds` */
/* Requests by signal to a training run that saves: 1 to save and continue (SIGUSR1), 2 to save and stop (SIGTERM,
 * SIGUSR2). The host's signal handlers note them, atomo.train takes them after a step. [local] */
ATOMO_API void atomo_requests_open(int on);   /* 1: a run that takes requests has begun, 0: it has ended */
ATOMO_API int atomo_requests_note(int asked); /* 0, without effect, if no such run is open; async-signal-safe */
ATOMO_API int atomo_requests_take(void);      /* the sum of the requests noted since the last call */
ATOMO_API int atomo_requests_stop(void);      /* the run has saved and stops: returns the program's exit code, 75 */
ATOMO_API int atomo_requests_stopped(void);   /* that code after atomo_requests_stop, else 0 */
/* From now on the functions that free an object (atomo_tensor_free, atomo_codec_free, ...) free nothing. Called
 * before Lua is closed: its finalizers run in any order, and later ones may use what earlier ones would have freed. */
ATOMO_API void atomo_keep_objects(void);
/* Waits, for at most `seconds`, until the readers of standard output and standard error have read everything, if these
 * are pipes: after an abort, mpirun drops what it has not read yet. */
ATOMO_API void atomo_await_readers(double seconds);
/* _tell: tells the other ranks, by UDP, that this rank ends with an error; said: 1 if it has printed it. _is_told:
 * returns whether another rank ends with an error of the same first line: 2 if such a rank has printed it; 1 if a lower
 * rank has it, which will print it for all; else 0. _elsewhere: returns 1 if any other rank has told an error, or that
 * it ends the stalled job; async-signal-safe. With one rank _tell does nothing, and the others return 0. [local] */
ATOMO_API void atomo_failure_tell(const char *text, int said);
ATOMO_API int atomo_failure_is_told(const char *text);
ATOMO_API int atomo_failure_elsewhere(void);
ATOMO_API double atomo_peak_rss(void); /* the process's largest resident size so far, in bytes */

ATOMO_API double atomo_seedings(void);      /* calls of atomo_manual_seed so far */
ATOMO_API double atomo_random_double(void); /* next number of math.random's stream, in [0, 1), 53 bits */
/* Gets or sets, in draws [2], the number of draws since the seed from the streams of math.random and of atomo.rand and
 * randn. For checkpoints: with the same seed and draws, the numbers that follow are the same. [local] */
ATOMO_API void atomo_random_draws(double *draws);
ATOMO_API void atomo_random_set_draws(const double *draws);

/* ---- tensor: changes in place, chains of operations -------------------------------------------------------------- */

ATOMO_API double atomo_tensor_version(const atomo_tensor *t); /* number of changes in place of the storage */
ATOMO_API void atomo_tensor_touch(atomo_tensor *t);           /* counts one change in place */
/* Marks the storage as all zeros, until its next change in place. Ignored if the tensor does not cover its storage, or
 * if the storage was exposed. */
ATOMO_API void atomo_tensor_mark_zero(atomo_tensor *t);
ATOMO_API int atomo_tensor_is_zero(const atomo_tensor *t); /* 1: marked as zeros, and unchanged since */
/* Records that code outside the library has a pointer to the elements: its writes are not counted as changes in place,
 * so the storage cannot be marked as zeros any more. */
ATOMO_API void atomo_tensor_expose(atomo_tensor *t);
ATOMO_API int atomo_tensor_is_sole(const atomo_tensor *t);          /* 1 if no other tensor views the storage */
ATOMO_API double atomo_crc32(const void *data, double nbytes);      /* CRC-32 (zlib's) [local] */
ATOMO_API int atomo_tensor_crc(const atomo_tensor *t, double *out); /* CRC-32 of a contiguous tensor's bytes */
/* *which: the first of n tensors that has a NaN or Inf, from 0; -1 if none has. */
ATOMO_API int atomo_find_nonfinite(const atomo_tensor *const *list, int n, int *which);
/* Sums a over its broadcast dimensions to the shape of `like` (the backward of broadcasting). */
ATOMO_API int atomo_sum_to(const atomo_tensor *a, const atomo_tensor *like, atomo_tensor **out);

/* _pack: *out u8 [2 n] = the n elements of a contiguous f32 tensor, each rounded to bf16: to nearest, ties to even;
 * values beyond 3.39e38 become infinite, a NaN stays one. _unpack: *out f32 [like] = the values of such codes. [local]
 */
ATOMO_API int atomo_bf16_pack(const atomo_tensor *t, atomo_tensor **out);
ATOMO_API int atomo_bf16_unpack(const atomo_tensor *codes, const atomo_tensor *like, atomo_tensor **out);

/* A chain of elementwise operations in one pass over contiguous f32 tensors of the same shape (made by
 * atomo.elementwise). Each step writes op(a), op(a, b), op(a, value) or `value` to register `to`; the last step writes
 * to out [like in]. Operand k is register k, or for k < 0 the input in[-1 - k]; `to` must not be an operand of its
 * step. exp, tanh and sigmoid are within 2 units in the last place of libm's. [local] EARG for a malformed step, ESHAPE
 * if the inputs' shapes differ. */
enum { ATOMO_STEP_UNARY, ATOMO_STEP_BINARY, ATOMO_STEP_SCALAR, ATOMO_STEP_FILL, ATOMO_STEP_KINDS };
enum { ATOMO_FUSED_INPUTS = 8 };
typedef struct atomo_step {
    int32_t kind, op, a, b, to; /* ATOMO_STEP_*, ATOMO_NEG ... or ATOMO_ADD ..., operands, register */
    float value;
} atomo_step;
ATOMO_API int atomo_fused(const atomo_step *step, int count, int registers, const atomo_tensor *const *in, int inputs,
                          atomo_tensor **out);

/* ---- stages 1 to 3: the synthetic set, engines of convolutions --------------------------------------------------- */

/* Images first .. first+n-1 of the synthetic set's split (0 train, 1 test): u8 [n,32,32,3] and labels i32 [n], image i
 * of class i % 10. An image depends on (seed, split, i) only and is bit-identical on every CPU. [local] EARG */
ATOMO_API int atomo_synthetic(double seed, int split, double first, double n, atomo_tensor **images,
                              atomo_tensor **labels);
/* Mean and standard deviation of each channel (the last dimension, at most 8) of a contiguous tensor: u8 in units of
 * 255, f32 as they are; mean and std have a number for each channel. */
ATOMO_API int atomo_channel_stats(const atomo_tensor *images, double *mean, double *std);

/* size[3] = height, width and channels (1 grey, 3 colour; alpha is not counted) in the header of a PNG, JPEG or PNM
 * file. [local] EIO, EFORMAT; EUNSUPPORTED if this build has no library for the format */
ATOMO_API int atomo_image_size(const char *path, double *size);
/* images u8 [count,h,w,c], c 1 or 3, = the images of these files, made grey or coloured as c says. One of another size
 * is refused, or with `resize` scaled to cover h x w, with its centre kept. The error is that of the first file that
 * cannot be read. [local] EIO, EFORMAT, EUNSUPPORTED; ESHAPE */
ATOMO_API int atomo_images_read(const char *const *paths, int count, int resize, atomo_tensor *images);
/* A numeric variable of a MATLAB MAT-file of version 5. out has the dimensions in reverse order, because the file is
 * column-major: a variable of H x W x C x N becomes [N,C,W,H]. dtypes as in atomo_npy_read. [local] EIO, EFORMAT,
 * EDTYPE
 */
ATOMO_API int atomo_mat_read(const char *path, const char *name, atomo_tensor **out);
/* A table of text: a header, then lines of as many fields, between separators (one ASCII character), with or without
 * quotes. _field: a field's text, row 0 is the header; NULL if there is none. _numbers: f32 [rows, columns] of the
 * columns whose skip[column] is 0. [local] EIO; EFORMAT with the line, and for a field that is not a finite number */
typedef struct atomo_csv atomo_csv;
ATOMO_API int atomo_csv_open(const char *path, int separator, atomo_csv **out);
ATOMO_API void atomo_csv_close(atomo_csv *c); /* NULL is allowed */
ATOMO_API int atomo_csv_columns(const atomo_csv *c);
ATOMO_API double atomo_csv_rows(const atomo_csv *c); /* without the header */
ATOMO_API const char *atomo_csv_field(const atomo_csv *c, double row, int column);
ATOMO_API int atomo_csv_numbers(const atomo_csv *c, const uint8_t *skip, atomo_tensor **out);

/* The parts of atomo_loader, for loaders over other sets. _order: i32 [n] = the order of an epoch, image numbers from
 * 0. _share: this rank's part of global batch `step` is order[first .. first + n); total = images of all ranks.
 * _augment: f32 out = images u8 or f32 [m,h,w,c], whose numbers in the set are ids i32 [m], changed as by a loader with
 * these options (no MIXUP) in that epoch. [local] EARG, ESHAPE */
ATOMO_API int atomo_loader_order(double seed, double epoch, int shuffle, double n, atomo_tensor **out);
ATOMO_API int atomo_loader_share(double n, double batch, double rank, double size, double step, double *first,
                                 atomo_batch *out);
ATOMO_API int atomo_augment(const atomo_tensor *images, const atomo_tensor *ids, const atomo_loader_options *options,
                            double epoch, atomo_tensor **out);

/* Matrix products of linear, attention, lstm, gru, matmul, einsum and linear_cross_entropy, in both directions; those
 * inside a convolution are not among them. _record(1) forgets all records and starts; _record(0) stops: ENOMEM if a
 * product was left out. Products of one kind, those equal in all fields but calls and seconds, have one record.
 * _recorded: the number of records; they stay until the next start. _get: record i. _time: seconds [runs] = the time of
 * each of `runs` runs of such a product with the threads of atomo_set_num_threads, on the same operands each time,
 * after one run that is not timed: operands are in the caches as far as they fit. [local] EARG; ELIMIT beyond memory's
 * size */
enum { ATOMO_PRODUCT_BLAS, ATOMO_PRODUCT_SGEMM, ATOMO_PRODUCT_BF16, ATOMO_PRODUCT_ENGINES };
typedef struct atomo_product {
    int32_t engine;        /* OpenBLAS; oneDNN's sgemm, OpenBLAS without AVX-512; oneDNN's matmul of bf16 operands */
    int32_t ta, tb;        /* 1: the matrices a, b are stored transposed */
    int32_t adds, biased;  /* 1: the product is added to c; a bias is added */
    int32_t team;          /* threads of the parallel region in which each thread runs its own products; 1: outside */
    double m, n, k;        /* op(a) is [m,k], op(b) [k,n], c [m,n] */
    double lda, ldb, ldc;  /* elements from one stored row to the next */
    double calls, seconds; /* number of products and the sum of their times, while they were recorded */
} atomo_product;
ATOMO_API int atomo_products_record(int on);
ATOMO_API int atomo_products_recorded(void);
ATOMO_API int atomo_products_get(int i, atomo_product *out);
ATOMO_API int atomo_product_time(const atomo_product *p, int runs, double *seconds);

/* Returns the precision, ATOMO_PRECISION_*, in which a pass of atomo_conv2d (0: forward, 1: gradient of x, 2: gradient
 * of w) is computed by the engine that is selected: BF16 only where the CPU multiplies bf16. Of x and w only the shapes
 * are used. A status below 0 as from atomo_conv2d; EARG for another pass. */
ATOMO_API int atomo_conv2d_pass_precision(const atomo_tensor *x, const atomo_tensor *w, const atomo_window *g,
                                          int precision, int pass);

/* Selects the engine that computes convolutions. It depends on a layer's shape and the CPU, never on timings:
 *   "auto"      (the default) Winograd's F(4x4,3x3) or F(2x2,3x3) for the layers where it is faster, else as "direct";
 *               in precision BF16 with AMX that is so for small images only
 *   "direct"    oneDNN's direct convolution; im2col + sgemm if that suits a layer better or the build has no oneDNN;
 *               with AVX-512 also own kernels, for stride 1, more than 9 taps and channels not divisible by 16 (LeNet)
 *   "winograd"  Winograd wherever it can be used: 3x3, stride 1, no dilation or groups, channels multiples of 16
 *   "onednn", "gemm"  this engine for all layers
 * Winograd's results differ from direct ones by at most 5e-6 of the largest element, as measured; a direct convolution
 * that adds in another order differs by 5e-7. The first convolution reads the environment variable ATOMO_CONV. EARG for
 * an unknown name, EUNSUPPORTED for an engine that this build lacks. */
ATOMO_API int atomo_conv_set_engine(const char *name);
ATOMO_API const char *atomo_conv_engine(void); /* static; "" if ATOMO_CONV is wrong (see atomo_last_error) */

/* *count: the divisor of the mean in atomo_cross_entropy and atomo_nll, with arguments that they accept: the sum of the
 * weights [C] (NULL: 1) of all labels other than `ignore`. */
ATOMO_API int atomo_count_labels(const atomo_tensor *labels, const atomo_tensor *weight, double ignore, double *count);

/* ---- stages 4 to 6, encode: budgets of a part of a step, checkpoints, compressors written in Lua ----------------- */

/* atomo_probabilities on arrays of doubles: lambda [n], cost [n] or NULL, p [n] (out). */
ATOMO_API int atomo_probabilities_f64(const double *lambda, const double *cost, double n, double s, double *p);

/* Transforms x (contiguous f32, of the shape of tensor number `tensor`) in place to its coefficients in the fixed
 * orthonormal basis of the compressor (fourier, dct, hadamard, haar), or back if `inverse` is 1. EARG if the compressor
 * has no fixed basis. [local] */
ATOMO_API int atomo_codec_transform(const atomo_codec *c, int tensor, atomo_tensor *x, int inverse);

/* For compressors written in Lua (atomo.basis, atomo.decomposition). _rename, before anything is planned: `name`
 * replaces the compressor's name in messages, errors and hashes. _plan_list: plans tensor number `tensor` of a codec
 * "_list", which encodes a tensor [atoms, 1 + sum of width]: in each row lambda and the 1 to 3 factors (of width[0],
 * ... elements) of an atom; the gradient that is their sum has `entries` entries. Its decode_add needs an accumulator
 * of zeros, and writes the received atoms to its first rows. */
ATOMO_API int atomo_codec_rename(atomo_codec *c, const char *name);
ATOMO_API int atomo_codec_plan_list(atomo_codec *c, int tensor, double atoms, int factors, const double *width,
                                    double entries, const char *name);
/* Bits of each factor's entries in the messages of the tensors that are planned next: 2 to 32 as in option bits, 0 for
 * the option's, ATOMO_INTEGERS for whole numbers up to 2^24 in magnitude, which are sent exactly. EARG for others. */
enum { ATOMO_INTEGERS = -1 };
ATOMO_API int atomo_codec_list_bits(atomo_codec *c, double first, double second, double third);
/* _carry_factor, before anything is planned: messages end with a factor, at first 1, by which the decoded gradient is
 * multiplied. _set_factor writes another factor (0 or more) to the message for `tensor` at bytes [size]; *kept is that
 * factor truncated to 8 significant bits, as written. */
ATOMO_API int atomo_codec_carry_factor(atomo_codec *c);
ATOMO_API int atomo_codec_set_factor(atomo_codec *c, int tensor, uint8_t *bytes, double size, double factor,
                                     double *kept);
/* Returns the factor f for which f * sent is closest to x, 1 if sent is all zeros; both f32, of equal numel. */
ATOMO_API double atomo_codec_best_factor(const atomo_tensor *sent, const atomo_tensor *x);
/* The dense form of a message of "_list": the gradient's entries unchanged. _dense writes such a message, _dense_max is
 * its length in bytes. _dense_add returns 1 and adds scale * values to acc if the message has that form, else 0. */
ATOMO_API int atomo_codec_dense(const atomo_codec *c, int tensor, double step, double rank, const atomo_tensor *values,
                                uint8_t *out, double capacity, double *nbytes);
ATOMO_API double atomo_codec_dense_max(const atomo_codec *c, int tensor, double step, double rank);
ATOMO_API int atomo_codec_dense_add(const atomo_codec *c, int tensor, double step, double rank, const uint8_t *bytes,
                                    double size, double scale, atomo_tensor *acc, double *used);
/* Number of atoms in the last message that decode_add has decoded for `tensor`. */
ATOMO_API double atomo_codec_taken(const atomo_codec *c, int tensor);

/* ---- stage 7, send: notes, counts, sums of grains, inboxes ------------------------------------------------------- */

ATOMO_API void atomo_note_step(double step); /* the training step to name if the program ends by an error; -1: none */
ATOMO_API double atomo_noted_step(void);
/* The purpose of the next operations on c ("step 12 conv1", at most 63 bytes), which becomes part of their fingerprints
 * and error texts. [local] */
ATOMO_API void atomo_comm_set_tag(atomo_comm *c, const char *tag);
/* The purpose of this thread's next operation ("bucket 2 of 5", at most 47 bytes), which becomes part of its
 * fingerprint and its entry in the flight recorder; NULL: none. [local] */
ATOMO_API void atomo_flight_note(const char *text);

/* Sets whether ranks compare operation, type, count and purpose before each collective on c, by 48 bytes from every
 * rank to every other. The default: blocking collectives compare before they begin; non-blocking ones send the 48 bytes
 * along and compare when a rank waits for the request. Unless set to 0, messages have a head of 16 bytes with type and
 * length. All ranks must set the same. [local] */
ATOMO_API void atomo_comm_set_checked(atomo_comm *c, int on);
/* out[2]: bytes sent and received so far by the operations on c. It counts the payload that an operation must move, on
 * P ranks: a message of n bytes, n + 16; an all-reduce of n, 2 n (P-1)/P each way (as a ring does); an all-gather, own
 * block times P-1 sent, the others' blocks received; a broadcast, n (P-1) sent at the root, n received elsewhere;
 * reduce and gather, the reverse; the exchange of lengths, 48 (P-1) each way. Sums over the ranks equal those of Open
 * MPI's pml monitoring, except for all-reduces under 10 KB on three ranks or more, where Open MPI sends n log2 P.
 * [local] */
ATOMO_API int atomo_comm_bytes(const atomo_comm *c, double *out);

/* All-gathers n tensors in place: rank owners[i] sends parts[i] to all others, which receive it in theirs. Each pair of
 * ranks exchanges messages; nothing is copied. EMISMATCH on every rank unless owners and sizes are the same on all.
 * [collective] */
ATOMO_API int atomo_comm_allgather_parts(atomo_comm *c, atomo_tensor *const *parts, const int *owners, int n);
/* Only MPI_Allreduce (sum, in place, spinning while it waits), for benchmarks to compare with. [collective] */
ATOMO_API int atomo_comm_allreduce_plain(atomo_comm *c, atomo_tensor *t);
/* Sums t (f32) over the ranks in place. t consists of grains, of grain[k] elements each (numel in all); the bits of a
 * grain's sum are the same whichever other grains are in t. But a t of one grain with less than 32 KiB per rank uses
 * MPI's own algorithm, so grains that are to be combined must be larger. [collective] */
ATOMO_API int atomo_comm_allreduce_grains(atomo_comm *c, atomo_tensor *t, const double *grain, int grains);

/* A buffer for the bytes received from other ranks: they are in slot[0], which the library replaces if it is too small,
 * one block after the other; counts[r] is the length of rank r's block. */
typedef struct atomo_inbox {
    atomo_tensor *slot[1];
    double *counts;
    int holders; /* private */
} atomo_inbox;
ATOMO_API int atomo_inbox_new(int ranks, atomo_inbox **out);
ATOMO_API void atomo_inbox_free(atomo_inbox *b); /* NULL is allowed; kept until no bucket needs it any more */

/* ---- stages 7 and 8, the exchange: sums, messages, buckets ------------------------------------------------------- */

/* Sums of a linear compressor's gradients over the ranks, by all-reduces of what it encodes them to
 * (exchange/bucket_linear.c describes this, and how fp16 and bf16 round). An object is for `count` planned tensors of
 * the codec, from number `first` on, and owns their buffers. */
typedef struct atomo_sums atomo_sums;
ATOMO_API int atomo_codec_is_linear(const atomo_codec *c); /* 1 if topology allreduce can be used with it */
ATOMO_API int atomo_sums_new(atomo_codec *codec, atomo_comm *comm, int first, int count,
                             atomo_sums **out); /* EARG: not linear, not planned [local] */
ATOMO_API void atomo_sums_free(atomo_sums *l);  /* NULL is allowed; kept until its bucket is freed */
/* Writes scale times the sum over the ranks to grads [count], after atomo_bucket_wait has succeeded. [local] */
ATOMO_API int atomo_sums_write_back(atomo_sums *l, atomo_tensor *const *grads, double scale);

/* The messages of tensors first .. first + count - 1 of a codec (count may be 0) in a bucket, for one way. to [count],
 * ascending: the rank (of `ranks`) that each message is for, or for messages that are only decoded the block (of
 * `ranks`) that contains it; NULL: all are for every rank, or in every block. [local] EARG: not planned. */
typedef struct atomo_messages atomo_messages;
ATOMO_API int atomo_messages_new(atomo_codec *codec, int first, int count, const int32_t *to, int ranks,
                                 atomo_messages **out);
ATOMO_API void atomo_messages_free(atomo_messages *m); /* NULL is allowed; kept until its bucket is freed */

/* Buckets: tensors that are exchanged together, and the program of operations that exchanges them. A program is made
 * once, when the bucket is planned. A step starts it by one call and later waits for it, while a communication thread
 * and a coding thread do the operations. An operation begins when the one before it in its program is done and its
 * thread has done all earlier ones; each thread takes the buckets in the order in which they were started, which must
 * be the same on all ranks. The second way is the way back of an exchange through owners or rank 0: the operations that
 * send averages (the answer) to all ranks.
 *
 * The operations, and the fields of atomo_bucket_plan that they need. On the coding thread:
 *   ENCODE       encodes the step's gradients to up's messages (the step of up's codec must have begun)
 *   AVERAGE      decodes the messages in the inbox by up's codec and writes their averages to `averages`
 *   ENCODE_AGAIN encodes the averages to down's messages
 *   DECODE       decodes the messages in the answer, or if there is none in the inbox, to `decoded`. This is for this
 *                rank only, so the thread does operations that other ranks wait for first. If `rank` is 0 or more, the
 *                messages were encoded by that rank; if below 0, each block was encoded by the rank of its number, and
 *                the result is their average
 * On the communication thread, on a communicator:
 *   ALLGATHER, ALLTOALL, BROADCAST (from rank 0): up's messages to the inbox; on the second way, down's messages to the
 *                answer; without messages, the bytes given to atomo_bucket_send
 *   REDUCE (to rank 0), ALLREDUCE (by grains), BROADCAST_TENSOR (from rank 0): the tensor, f32
 *   SUMS         sums of a linear compressor's gradients */
enum {
    ATOMO_OP_ENCODE,
    ATOMO_OP_AVERAGE,
    ATOMO_OP_ENCODE_AGAIN,
    ATOMO_OP_DECODE,
    ATOMO_OP_ALLGATHER,
    ATOMO_OP_ALLTOALL,
    ATOMO_OP_BROADCAST,
    ATOMO_OP_REDUCE,
    ATOMO_OP_ALLREDUCE,
    ATOMO_OP_BROADCAST_TENSOR,
    ATOMO_OP_SUMS,
    ATOMO_OPS,
    ATOMO_BUCKET_MAX = 8 /* operations */
};
typedef struct atomo_bucket atomo_bucket;
typedef struct atomo_bucket_plan {
    const char *name;                   /* for the flight recorder; copied */
    int operations;                     /* number of operations of the program, 1 to ATOMO_BUCKET_MAX */
    int second_way;                     /* index of the first operation of the second way; `operations`: none */
    int what[ATOMO_BUCKET_MAX];         /* ATOMO_OP_* */
    atomo_comm *comm[ATOMO_BUCKET_MAX]; /* the communicator of each; NULL for the coding thread's */
    atomo_tensor *tensor;               /* f32, for REDUCE, ALLREDUCE, BROADCAST_TENSOR */
    const double *grains;               /* [grain_count] elements of each grain; copied. NULL: added as MPI does */
    int grain_count;
    atomo_messages *up, *down, *result; /* of the first way, of the second way, to decode */
    atomo_inbox *inbox, *answer;        /* receive the first way's bytes, the second way's */
    atomo_tensor *const *averages;      /* [down's count] */
    atomo_tensor *const *decoded;       /* [result's count]; NULL: the step's gradients */
    double rank;                        /* see DECODE */
    atomo_sums *sums;
} atomo_bucket_plan;
/* The bucket keeps all objects of the plan alive. [local] EARG: an unknown operation, or one without a field that it
 * needs. */
ATOMO_API int atomo_bucket_new(const atomo_bucket_plan *plan, atomo_bucket **out);
ATOMO_API void atomo_bucket_free(atomo_bucket *b); /* NULL is allowed; kept until its operations are done */
/* Sets the order in which a step starts these buckets [count]: the second way of each is started after the first way of
 * the next, that of the last after its own first way. [local] */
ATOMO_API int atomo_bucket_order(atomo_bucket *const *list, int count);
/* Starts a bucket in a step: its first way, and the second way of the bucket before it. Until atomo_bucket_wait, grads
 * [up's or the sums' count] must not change and its codec must not plan; all of them may be freed. NULL: the bucket has
 * no gradients of its own, or the step is abandoned and the bucket is sent empty. Any other operation on a communicator
 * first waits for everything that was started, so no two threads call MPI at once. [local] */
ATOMO_API int atomo_bucket_start(atomo_bucket *b, const atomo_tensor *const *grads, double step);
/* The same for a bucket without messages: it sends the bytes of `send` (NULL if there are none) from byte `at` on.
 * sizes: their number; for ALLTOALL the number for each rank [ranks]. [local] */
ATOMO_API int atomo_bucket_send(atomo_bucket *b, const atomo_tensor *send, double at, const double *sizes);
/* Waits until all started operations of the bucket are done. out [4]: seconds of encoding; of decoding; seconds waited,
 * except for decoding; and on a failure its kind: 2 encoding (ENONFINITE, ...), 1 decoding (EFORMAT, ...), after both
 * of which the bucket was sent empty; 0 communication, after which both threads do nothing more. [local] */
ATOMO_API int atomo_bucket_wait(atomo_bucket *b, double *out);

/* out[3], in seconds so far: work of the communication thread; time that other threads waited for buckets, except for
 * ATOMO_OP_DECODE; work of the coding thread. [local] */
ATOMO_API void atomo_engine_seconds(double *out);
/* Waits until the communication thread is out of MPI, as every operation on a communicator does first. Returns the
 * status, and sets the text, of the first of its operations that failed; after that the ranks are out of step. [local]
 */
ATOMO_API int atomo_engine_check(void);

/* ---- files: raw tensors, text, folders, the terminal ------------------------------------------------------------- */

/* Writes head, then the bytes of the contiguous tensors [count], to a temporary file beside path, syncs it and renames
 * it to path. Follows symbolic links. Writes directly to path if it is not a regular file (a device, a pipe). [local]
 * EIO */
ATOMO_API int atomo_raw_write(const char *path, const void *head, double head_bytes, const atomo_tensor *const *tensors,
                              int count);
/* Reads n bytes of a file from an offset on, as u8 [n]. [local] EIO; EFORMAT if the file is shorter. */
ATOMO_API int atomo_raw_read(const char *path, double offset, double n, atomo_tensor **out);
/* Makes a tensor of that shape from little-endian bytes u8 [k] of elements of `kind`: f32, i32 and u8 unchanged, other
 * floats rounded to f32, other integers as i32, booleans as u8. [local] ELIMIT names the first element that does not
 * fit. */
enum {
    ATOMO_RAW_F16 = ATOMO_F16,
    ATOMO_RAW_BF16 = ATOMO_BF16,
    ATOMO_RAW_F64 = 5,
    ATOMO_RAW_I64 = 6,
    ATOMO_RAW_BOOL,
    ATOMO_RAW_I8,
    ATOMO_RAW_I16,
    ATOMO_RAW_U16,
    ATOMO_RAW_U32,
    ATOMO_RAW_U64,
    ATOMO_RAW_F8_E4M3,
    ATOMO_RAW_F8_E5M2,
    ATOMO_RAW_F8_E4M3FNUZ,
    ATOMO_RAW_F8_E5M2FNUZ,
    ATOMO_RAW_F8_E8M0,
    ATOMO_RAW_COUNT
};
ATOMO_API int atomo_raw_convert(int kind, const atomo_tensor *bytes, int ndim, const double *shape, atomo_tensor **out);
/* Text files and standard output. A write that is not complete fails: EIO names the path and the cause. output_open
 * returns a file descriptor; append 0 truncates the file. output_save replaces a regular file as raw_write does, and
 * writes directly to a path that is something else. output_print uses stdio's buffer; flush != 0 flushes it. [local] */
ATOMO_API int atomo_output_open(const char *path, int append);
ATOMO_API int atomo_output_write(int fd, const char *path, const void *data, double n);
ATOMO_API int atomo_output_close(int fd, const char *path);
ATOMO_API int atomo_output_save(const char *path, const void *data, double n);
ATOMO_API int atomo_output_print(const void *data, double n, int flush);
/* Folders and files, for sets of files that are complete or absent (checkpoints). EIO names the path and the cause.
 * path_kind: 0 nothing, 1 a file, 2 a folder, 3 something else. path_remove: removes a file or an empty folder; not an
 * error if it does not exist. folder_make: its parent must exist; not an error if it exists itself. folder_sync:
 * returns when the folder's entries are on the disk. folder_names: writes the names of its entries, each ended by a 0
 * byte, to out [room bytes], as many as fit; *need is the bytes of all. file_checksum: size in bytes, and CRC-32
 * (zlib's). file_reserve: makes or replaces a file and has the disk keep room for `bytes` bytes; if it cannot, the file
 * is removed. [local] */
ATOMO_API int atomo_path_kind(const char *path);
ATOMO_API int atomo_path_rename(const char *from, const char *to);
ATOMO_API int atomo_path_remove(const char *path);
ATOMO_API int atomo_folder_make(const char *path);
ATOMO_API int atomo_folder_sync(const char *path);
ATOMO_API int atomo_folder_names(const char *path, char *out, double room, double *need);
ATOMO_API int atomo_file_checksum(const char *path, double *size, double *crc);
ATOMO_API int atomo_file_reserve(const char *path, double bytes);
/* Columns of the terminal on file descriptor fd (by TIOCGWINSZ), 0 if it is no terminal. Also 0 for the pseudo-terminal
 * that mpirun gives to ranks, for which isatty returns 1. */
ATOMO_API int atomo_terminal_width(int fd);

#endif
