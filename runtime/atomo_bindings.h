/* atomo_bindings.h - what the Lua bindings call beside atomo.h, in the same order. A C program can use it, but these
 * functions follow the bindings: they may change with every version (ATOMO_ABI counts). The build makes the bindings'
 * cdef from both headers.
 */
#ifndef ATOMO_BINDINGS_H
#define ATOMO_BINDINGS_H

#include "atomo.h"

/* ---- core: failing allocations, processes, places in random streams ---------------------------------------------- */

/* For tests: the n-th allocation from now on fails (ENOMEM), once; 0: none does. Returns how many were still to come
 * until the one that an earlier call chose, 0 when it has failed. ATOMO_FAIL_ALLOC=n chooses one from the start. */
ATOMO_API int atomo_mem_fail_alloc(int n);
/* The process that a script starts and waits for: a shell command. SIGINT and SIGTERM to this process send it SIGTERM,
 * whenever they come; leaving then waits for its end. EARG if one runs already, EIO if none can be started. */
ATOMO_API int atomo_child_start(const char *line);
ATOMO_API int atomo_child_poll(int *code);        /* 1 once it has ended: its exit code, 128 + a signal; 0 before */
ATOMO_API void atomo_child_kill(int signal);      /* no effect if none runs */
ATOMO_API void atomo_child_terminate(void);       /* SIGTERM, also to one that starts later; async-signal-safe */
ATOMO_API void atomo_child_forgive(void);         /* this process continues: what starts later runs */
ATOMO_API void atomo_child_await(double seconds); /* until it has ended, at most for `seconds` */
/* Waits, for `seconds` at most, until standard output and error, where they are pipes, have been read: mpirun cuts off
 * what it has not read when it hears of an abort. */
ATOMO_API void atomo_await_readers(double seconds);
ATOMO_API double atomo_peak_rss(void); /* the process's largest resident size so far, in bytes */

ATOMO_API double atomo_seedings(void);      /* calls of atomo_manual_seed so far */
ATOMO_API double atomo_random_double(void); /* next of math.random's stream, in [0, 1), 53 bits */
/* Where the streams of math.random and of atomo.rand and randn stand: the draws since the seed, into or from draws [2].
 * For checkpoints: with the same seed, what follows has the same bits. [local] */
ATOMO_API void atomo_random_draws(double *draws);
ATOMO_API void atomo_random_set_draws(const double *draws);

/* ---- tensor: changes in place, chains of operations -------------------------------------------------------------- */

ATOMO_API double atomo_tensor_version(const atomo_tensor *t); /* how often the storage was changed in place */
ATOMO_API void atomo_tensor_touch(atomo_tensor *t);           /* counts one change in place */
/* Says that the storage is all zeros as it is now: true until the next change in place. Ignored if the tensor does not
 * cover its storage, or if the storage was exposed. */
ATOMO_API void atomo_tensor_mark_zero(atomo_tensor *t);
ATOMO_API int atomo_tensor_is_zero(const atomo_tensor *t); /* 1: marked as zeros, and unchanged since */
/* A pointer to the elements leaves the library: what is written through it is not counted as a change in place. */
ATOMO_API void atomo_tensor_expose(atomo_tensor *t);
ATOMO_API int atomo_tensor_is_sole(const atomo_tensor *t);          /* 1 when no other tensor views the storage */
ATOMO_API double atomo_crc32(const void *data, double nbytes);      /* CRC-32 (zlib's) [local] */
ATOMO_API int atomo_tensor_crc(const atomo_tensor *t, double *out); /* CRC-32 of a contiguous tensor's bytes */
/* The first of n tensors that has a NaN or Inf, from 0; -1 where none has. */
ATOMO_API int atomo_find_nonfinite(const atomo_tensor *const *list, int n, int *which);
/* Sum a over its broadcast dimensions down to `like`'s shape (the backward of broadcasting). */
ATOMO_API int atomo_sum_to(const atomo_tensor *a, const atomo_tensor *like, atomo_tensor **out);

/* A chain of elementwise operations in one pass over contiguous f32 tensors of one shape (atomo.elementwise makes it):
 * step i puts op(a), op(a, b), op(a, value) or `value` into register `to`, the last one into out [like in]. Operand k
 * is register k, or for k < 0 the input in[-1 - k]; `to` is none of its step's operands. exp, tanh and sigmoid are
 * within 2 units in the last place of libm's. [local] EARG for a malformed step, ESHAPE where inputs differ. */
enum { ATOMO_STEP_UNARY, ATOMO_STEP_BINARY, ATOMO_STEP_SCALAR, ATOMO_STEP_FILL, ATOMO_STEP_KINDS };
enum { ATOMO_FUSED_INPUTS = 8 };
typedef struct atomo_step {
    int32_t kind, op, a, b, to;
    float value;
} atomo_step;
ATOMO_API int atomo_fused(const atomo_step *step, int count, int registers, const atomo_tensor *const *in, int inputs,
                          atomo_tensor **out);

/* ---- stages 1 to 3: the synthetic set, what computes convolutions ------------------------------------------------ */

/* Images first .. first+n-1 of the synthetic set's split (0 train, 1 test): u8 [n,32,32,3] and labels i32 [n], image i
 * of class i % 10. A function of (seed, split, i) alone, the same bits on every CPU. [local] EARG. */
ATOMO_API int atomo_synthetic(double seed, int split, double first, double n, atomo_tensor **images,
                              atomo_tensor **labels);
/* Mean and standard deviation of each channel (the last dimension, at most 8) of a contiguous u8 tensor, in units of
 * 255. */
ATOMO_API int atomo_channel_stats(const atomo_tensor *images, double *mean, double *std);

/* What computes convolutions, by a rule of shape and CPU, never by timing:
 *   "auto"      Winograd's F(4x4,3x3) or F(2x2,3x3) for the layers where it pays, else as "direct" (the default)
 *   "direct"    oneDNN's direct convolution; im2col + sgemm where that suits a layer or the build has no oneDNN; with
 *               AVX-512 own kernels for stride 1 and more than 9 taps where 16 does not divide the channels (LeNet)
 *   "winograd"  Winograd wherever it can be used: 3x3, stride 1, no dilation or groups, channels multiples of 16
 *   "onednn", "gemm"  one engine for all layers
 * Winograd's results differ from the direct ones by 5e-6 of the largest element at most (measured; direct convolution
 * in another order of sums: 5e-7). The first use reads ATOMO_CONV. EARG for an unknown name, EUNSUPPORTED for one
 * that this build lacks. */
ATOMO_API int atomo_conv_set_engine(const char *name);
ATOMO_API const char *atomo_conv_engine(void); /* static; "" when ATOMO_CONV is wrong (see atomo_last_error) */

/* count: what the mean of cross_entropy or nll divides by, of arguments that those have taken: the labels other than
 * `ignore`, each by its class's weight (NULL: 1). */
ATOMO_API int atomo_count_labels(const atomo_tensor *labels, const atomo_tensor *weight, double ignore, double *count);

/* ---- stages 4 to 6, encode: budgets of a part of a step, checkpoints, compressors written in Lua ----------------- */

/* The same on plain doubles: lambda [n], cost [n] or NULL, p [n]. */
ATOMO_API int atomo_probabilities_f64(const double *lambda, const double *cost, double n, double s, double *p);

/* The step has more tensors than these: `entries` more f32, on which `bytes` are spent otherwise. ratio= and bytes=
 * then hold for the whole step; at least a quarter of what the planned tensors alone would get is left to them. */
ATOMO_API int atomo_codec_reserve(atomo_codec *c, double entries, double bytes);
/* Forgets what the streaming form has learnt from earlier steps (prices, the mu, kept bases), not the memory below:
 * what follows has the bits of a codec made anew with that memory. [local] */
ATOMO_API int atomo_codec_restart(atomo_codec *c);
/* What this rank's next message of a tensor depends on, beside gradient and key: the residual (ef=true), PowerSGD's Q;
 * f32 [m], [0] where there is nothing. For checkpoints: _set_memory puts it back into a codec planned alike. [local] */
ATOMO_API int atomo_codec_memory(const atomo_codec *c, int tensor, atomo_tensor **out);
ATOMO_API int atomo_codec_set_memory(atomo_codec *c, int tensor, const atomo_tensor *memory);
/* What the streaming form and the atoms have learnt from earlier steps, which restart forgets: prices, kept bases,
 * auto's choices; of a tensor, or (tensor 0) of the step; u8 [m], [0] where there is nothing. For checkpoints:
 * _set_learnt puts it back into a codec planned alike (EFORMAT, ESHAPE: it was not), and what follows has the same bits
 * as in the codec that it came from. [local] */
ATOMO_API int atomo_codec_learnt(const atomo_codec *c, int tensor, atomo_tensor **out);
ATOMO_API int atomo_codec_set_learnt(atomo_codec *c, int tensor, const atomo_tensor *bytes);
/* x (contiguous f32, the shape of tensor number `tensor`) in place: its coefficients in the fixed orthonormal basis of
 * the compressor (fourier, dct, hadamard, haar), or with inverse 1 back. EARG where it has none. [local] */
ATOMO_API int atomo_codec_transform(const atomo_codec *c, int tensor, atomo_tensor *x, int inverse);

/* What compressors written in Lua (atomo.basis, atomo.decomposition) are coded with. rename: the codec goes by `name`,
 * in messages, errors and hashes; before anything is planned. plan_list: a codec "_list" takes
 * tensor number `tensor` as [atoms, 1 + sum of width]: lambda and the 1 to 3 factors of each atom; the gradient that
 * they make up has `entries` entries. Its decode_add wants a zero accumulator and packs the drawn atoms at its front.
 */
ATOMO_API int atomo_codec_rename(atomo_codec *c, const char *name);
ATOMO_API int atomo_codec_plan_list(atomo_codec *c, int tensor, double atoms, int factors, const double *width,
                                    double entries, const char *name);
/* carry_factor, before anything is planned: its messages end with a factor, 1, by which what decodes is multiplied;
 * set_factor puts another one (0 or more) into a message for `tensor` at bytes [size], cut to 8 bits: *kept. */
ATOMO_API int atomo_codec_carry_factor(atomo_codec *c);
ATOMO_API int atomo_codec_set_factor(atomo_codec *c, int tensor, uint8_t *bytes, double size, double factor,
                                     double *kept);
ATOMO_API double atomo_codec_best_factor(const atomo_tensor *sent, const atomo_tensor *x); /* f32, as many entries */
/* The dense form of a message of _list: the gradient's entries as they are. dense: writes it; dense_max: its length;
 * dense_add: acc += scale * values and 1 where the message is in that form, 0 where it is not. */
ATOMO_API int atomo_codec_dense(const atomo_codec *c, int tensor, double step, double rank, const atomo_tensor *values,
                                uint8_t *out, double capacity, double *nbytes);
ATOMO_API double atomo_codec_dense_max(const atomo_codec *c, int tensor, double step, double rank);
ATOMO_API int atomo_codec_dense_add(const atomo_codec *c, int tensor, double step, double rank, const uint8_t *bytes,
                                    double size, double scale, atomo_tensor *acc, double *used);
/* How many atoms the last message that decode_add took for `tensor` held. */
ATOMO_API double atomo_codec_taken(const atomo_codec *c, int tensor);

/* ---- stage 7, send: notes, counts, sums of grains, inboxes ------------------------------------------------------- */

ATOMO_API void atomo_note_step(double step); /* the training step that last words name; -1: none */
ATOMO_API double atomo_noted_step(void);
/* What the next operations are for ("step 12 conv1"): part of their fingerprints and of messages, up to 63 bytes.
 * [local] */
ATOMO_API void atomo_comm_set_tag(atomo_comm *c, const char *tag);
/* What this thread's next operation is for ("bucket 2 of 5", at most 47 bytes): part of its fingerprint and its record.
 * A job of the communication thread takes it along when posted. NULL: nothing. [local] */
ATOMO_API void atomo_flight_note(const char *text);

/* Whether every collective on c is preceded by a comparison of operation, type, count and purpose over its ranks: 48
 * bytes from each to each. Until set: the blocking ones, not those that return a request. The same on all ranks.
 * [local] */
ATOMO_API void atomo_comm_set_checked(atomo_comm *c, int on);
/* out[2]: bytes sent and received so far by the operations on c. Payload, by what an operation must move: a message of
 * n bytes, n; all-reduce of n on P ranks, 2 n (P-1)/P each way (as a ring does); all-gather, own block times P-1 out,
 * the others' blocks in; broadcast n (P-1) out at the root, n in elsewhere; reduce and gather the reverse; the exchange
 * of lengths 48 (P-1) each way. Sums over the ranks are those of Open MPI's pml monitoring, but for all-reduces under
 * 10 KB on three ranks and more, where Open MPI sends n log2 P. [local] */
ATOMO_API int atomo_comm_bytes(const atomo_comm *c, double *out);

/* MPI's own MPI_Allreduce (sum, in place, spinning while it waits) and nothing else: the yardstick of benchmarks. */
ATOMO_API int atomo_comm_allreduce_plain(atomo_comm *c, atomo_tensor *t);
/* The sum of f32 whose bits do not depend on how much travels at once: t is made of grains (grain [grains] elements,
 * t's together), and a grain gets the bits that it gets with any others beside it. One alone of less than 32 KiB a rank
 * takes MPI's own algorithm: grains of several must be larger. */
ATOMO_API int atomo_comm_allreduce_grains(atomo_comm *c, atomo_tensor *t, const double *grain, int grains);

/* Where bytes of other ranks arrive: C receives into slot[0], which it replaces when it is too small, and counts[r] is
 * the length of rank r's block. */
typedef struct atomo_inbox {
    atomo_tensor *slot[1];
    double *counts;
    int holders; /* C's own */
} atomo_inbox;
ATOMO_API int atomo_inbox_new(int ranks, atomo_inbox **out);
ATOMO_API void atomo_inbox_free(atomo_inbox *b); /* NULL is fine; gone when no job needs it any more */

/* ---- stages 7 and 8, the exchange: sums, messages, buckets ------------------------------------------------------- */

/* The messages of this tensor that decode_add takes next, up to atomo_codec_finish, are added up as coefficients where
 * they are in one fixed basis, so that they are transformed once and not one by one; acc is complete after finish.
 * Nothing else may be done with the codec in between. [local] */
ATOMO_API int atomo_codec_sum(atomo_codec *c, int tensor);

/* Sums: a linear compressor's gradients (none of the others') added up over the ranks on the way, by all-reduces of
 * what it makes of them (exchange/bucket_linear.c says which, and how fp16 and bf16 round). One object serves
 * `count` tensors of the codec from `first` on, planned before; buffers are made here. */
typedef struct atomo_sums atomo_sums;
ATOMO_API int atomo_codec_is_linear(const atomo_codec *c); /* 1 where topology allreduce can carry it */
ATOMO_API int atomo_sums_new(atomo_codec *codec, atomo_comm *comm, int first, int count,
                             atomo_sums **out); /* EARG: not linear, not planned [local] */
ATOMO_API void atomo_sums_free(atomo_sums *l);  /* NULL is fine; gone when its bucket is */
/* grads become scale times the sum over the ranks; after its bucket has come, unless that has failed. [local] */
ATOMO_API int atomo_sums_write_back(atomo_sums *l, atomo_tensor *const *grads, double scale);

/* Messages of tensors first .. first + count - 1 of a codec (count may be 0), which a bucket codes and sends one way.
 * to [count]: the rank (of `ranks`) that each message is for, or where they are only decoded the block (of `ranks`)
 * that it is in, ascending; NULL: all are for everyone, or in every block. [local] EARG: not planned. */
typedef struct atomo_messages atomo_messages;
ATOMO_API int atomo_messages_new(atomo_codec *codec, int first, int count, const int32_t *to, int ranks,
                                 atomo_messages **out);
ATOMO_API void atomo_messages_free(atomo_messages *m); /* NULL is fine; gone when its bucket is */

/* Buckets: tensors that travel together, and the program of operations that carries them. A program is made once, when
 * the bucket is planned; a step starts it by one call and waits for it, while two threads work: one communicates, the
 * other codes. An operation begins when the one before it in its program is over and its thread has nothing earlier to
 * do; each thread takes the buckets in the order in which they were started, which is the same on all ranks.
 *
 * The operations, and the fields of atomo_bucket_plan that they need. On the coding thread:
 *   ENCODE       up's messages of the step's gradients (the codec's step has been begun)
 *   AVERAGE      averages [down's count] of what the inbox holds, decoded by up's codec
 *   ENCODE_AGAIN down's messages of the averages
 *   DECODE       decoded [result's count] out of the answer, or the inbox if there is none, for this rank alone: what
 *                ranks wait for goes before it. Its messages are of the random streams of `rank`; below 0: of each
 *                block's own rank, and averaged
 * On the communication thread, on a communicator:
 *   ALLGATHER, ALLTOALL, BROADCAST (rank 0's): up's bytes into the inbox; of the second way down's into the answer;
 *                without messages, the bytes that atomo_bucket_send was given
 *   REDUCE (to rank 0), ALLREDUCE (by grains), BROADCAST_TENSOR (rank 0's): the tensor, f32
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
    const char *name; /* for the flight recorder; copied */
    int operations;   /* of the program, 1 to ATOMO_BUCKET_MAX */
    int second_way;   /* index of the first operation of the way back; `operations`: there is none */
    int what[ATOMO_BUCKET_MAX];
    atomo_comm *comm[ATOMO_BUCKET_MAX]; /* NULL for the coding thread's */
    atomo_tensor *tensor;
    const double *grains; /* [grain_count] elements of each; copied. NULL: the order of adding is MPI's */
    int grain_count;
    atomo_messages *up, *down, *result;
    atomo_inbox *inbox, *answer;
    atomo_tensor *const *averages;
    atomo_tensor *const *decoded; /* NULL: the step's gradients */
    double rank;
    atomo_sums *sums;
} atomo_bucket_plan;
/* The bucket holds all that the plan names. [local] EARG: an operation that is none, or lacks what it needs. */
ATOMO_API int atomo_bucket_new(const atomo_bucket_plan *plan, atomo_bucket **out);
ATOMO_API void atomo_bucket_free(atomo_bucket *b); /* NULL is fine; gone when its operations are over */
/* The order in which a step starts these buckets [count]: the second way of each goes behind the first way of the next,
 * that of the last behind its own. [local] */
ATOMO_API int atomo_bucket_order(atomo_bucket *const *list, int count);
/* Starts a bucket in a step: its first way, and the second way of the one before it. grads [up's or the sums' count]
 * must stay unchanged until it has come, and its codec plans nothing meanwhile; freeing any of them is fine. NULL: the
 * bucket of a step that is given up, which goes out empty, or that has no gradients of its own. Any other operation on
 * a communicator first waits for all that was started, so the two threads are never in MPI at once. [local] */
ATOMO_API int atomo_bucket_start(atomo_bucket *b, const atomo_tensor *const *grads, double step);
/* The same of a bucket without messages: its bytes lie in `send` (NULL if there are none) from byte `at` on; sizes: how
 * many, [ranks] of them for ALLTOALL. */
ATOMO_API int atomo_bucket_send(atomo_bucket *b, const atomo_tensor *send, double at, const double *sizes);
/* Waits until all that was started of the bucket is over. out [4]: seconds of encoding, of decoding, seconds waited but
 * for the decoding; what has failed: 2 encoding (ENONFINITE, ...), 1 decoding (EFORMAT, ...), in which case the bucket
 * went out empty; 0 with a status: communication, which ends the work of both threads. [local] */
ATOMO_API int atomo_bucket_wait(atomo_bucket *b, double *out);

/* out[3], so far: seconds that the communication thread has worked, that others have waited for buckets (not for
 * ATOMO_OP_DECODE), and that the coding thread has worked. */
ATOMO_API void atomo_engine_seconds(double *out);

/* ---- files: raw tensors, text, folders, the terminal ------------------------------------------------------------- */

/* head, then the bytes of the contiguous tensors: into a temporary file beside path, synced, renamed over it. EIO */
ATOMO_API int atomo_raw_write(const char *path, const void *head, double head_bytes, const atomo_tensor *const *tensors,
                              int count);
/* n bytes of a file from an offset, as u8 [n]. EIO, EFORMAT where the file is shorter. */
ATOMO_API int atomo_raw_read(const char *path, double offset, double n, atomo_tensor **out);
/* Little-endian bytes u8 [k] as a tensor of that shape: f32, i32, u8 as they are; other floats to f32 (rounded),
 * other integers to i32, booleans to u8. ELIMIT names the first element that does not fit. */
enum {
    ATOMO_RAW_F16 = 3,
    ATOMO_RAW_BF16 = 4,
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
/* Text files and standard output, written whole or with an error: EIO names the path and why. output_open gives a file
 * descriptor (append: 0 begins the file anew); output_save replaces a file as raw_write does, and writes into what is
 * no regular file; output_print goes through stdio's buffer, which flush != 0 empties. */
ATOMO_API int atomo_output_open(const char *path, int append);
ATOMO_API int atomo_output_write(int fd, const char *path, const void *data, double n);
ATOMO_API int atomo_output_close(int fd, const char *path);
ATOMO_API int atomo_output_save(const char *path, const void *data, double n);
ATOMO_API int atomo_output_print(const void *data, double n, int flush);
/* Folders and files, for sets of files that are complete or absent (checkpoints). path_kind: 0 nothing, 1 a file, 2 a
 * folder, 3 something else; folder_make: its parent must be there, itself may be; folder_sync: its entries are on
 * the disk; folder_names: each ended by a 0 byte into out, as far as `room` bytes hold them, *need: the bytes of all;
 * path_remove: a file or an empty folder, one that is not there is fine; file_checksum: bytes, and CRC-32 (zlib's) of
 * them. EIO names the path and why. [local] */
ATOMO_API int atomo_path_kind(const char *path);
ATOMO_API int atomo_path_rename(const char *from, const char *to);
ATOMO_API int atomo_path_remove(const char *path);
ATOMO_API int atomo_folder_make(const char *path);
ATOMO_API int atomo_folder_sync(const char *path);
ATOMO_API int atomo_folder_names(const char *path, char *out, double room, double *need);
ATOMO_API int atomo_file_checksum(const char *path, double *size, double *crc);
/* Columns of the terminal on file descriptor fd, 0 where it is none (asks TIOCGWINSZ: under mpirun isatty lies). */
ATOMO_API int atomo_terminal_width(int fd);

#endif
