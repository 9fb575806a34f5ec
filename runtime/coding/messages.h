/* messages.h - stage 6 of the path: the parts of a message's body (index lists, quantised vectors, folds), and the
 * frame around it. Private. */
#ifndef ATOMO_MESSAGES_H
#define ATOMO_MESSAGES_H

#include "coding/bitstream.h"
#include "core/core.h"

/* ---- index lists (indices.c) ---- */
/* Writes the m ascending indices of list, out of 0..n-1, as Golomb-Rice coded gaps, gaps of the complement, or a
 * bitmap, whichever is shortest: at most n + 48 bits. With signs the top bit of each entry is written, too, one bit
 * more each. */
void atomo__write_indices(atomo__writer *w, const uint32_t *list, int64_t m, int64_t n, bool signs);
/* Reads a list into index, which must hold n, with signs in the top bit. Returns the number of indices, or -1 if the
 * message is malformed. */
int64_t atomo__read_indices(atomo__reader *r, int64_t n, bool signs, uint32_t *index);
/* The gaps of such a list alone, in a Rice code of order k <= 30; the reader must know m and k. */
void atomo__write_gaps(atomo__writer *w, int k, const uint32_t *list, int64_t m, bool signs);
int64_t atomo__read_gaps(atomo__reader *r, int k, int64_t m, int64_t n, bool signs, uint32_t *index);
double atomo__index_bits(double m, double n);  /* expected bits of a list of m random indices out of n */
double atomo__index_price(double m, double n); /* approximately its derivative with respect to m */

/* ---- quantised vectors (quantize.c) ---- */
/* x [n], finite, is written as integers of `bits` bits, stochastically rounded: their mean is x / scale. With bits = 32
 * the floats are written unchanged, and scale is 1. write uses elements first * n .. first * n + n - 1 of the stream;
 * work: scratch [n]. read returns the integers as floats, which the caller multiplies by scale. */
float atomo__quant_scale(const float *x, int64_t n, int bits);
float atomo__quant_limit(int bits); /* the largest scale for which integer times scale is finite */
void atomo__quant_write(atomo__writer *w, const float *x, int64_t n, int bits, float scale, const atomo_stream *s,
                        uint32_t first, float *work);
void atomo__quant_read(atomo__reader *r, float *x, int64_t n, int bits);
/* E||xhat - x||^2 / ||x||^2 where the fractions of codes are uniform; `largest`: max x^2 over the mean of x^2. */
double atomo__quant_usual(double largest, int bits);
/* *variance = E||xhat - x||^2 of the rounding, *square = ||x||^2. */
void atomo__quant_variance(const float *x, int64_t n, int bits, double *square, double *variance);

/* ---- sums of floats (floats.c) ---- */
/* acc += scale * the n floats at `in`, which need not be aligned. Returns false if one is NaN or Inf. */
bool atomo__add_floats(const uint8_t *in, int64_t n, float scale, float *acc);
/* acc += scale * x, both [n] and apart. */
void atomo__add_scaled(const float *x, int64_t n, float scale, float *acc);

/* ---- folds and rank-k updates (matricize.c) ---- */
typedef struct atomo__fold {
    int64_t rows, cols;
    int64_t out, taps, in; /* the paper's fold: out * in kernels of `taps` entries, two per row; taps 0: a reshape */
} atomo__fold;
/* matrix [rows, cols] = g folded, times 2^exponent. */
void atomo__fold_gather(const atomo__fold *f, const float *g, int exponent, float *matrix);
/* Adds sum_j a_j[r] b_j[c], folded back, to acc; a is [k, rows], b [k, cols]. The terms are added in order, so the
 * result is bit-identical on every CPU. tile: scratch of ATOMO__TILE_ROWS * cols floats. */
enum { ATOMO__TILE_ROWS = 64 };
void atomo__fold_rank_add(const atomo__fold *f, const float *a, const float *b, int k, float *acc, float *tile);

/* ---- frame (frame.c) ---- */
typedef struct atomo__frame {
    uint32_t codec, tensor, rank, step, hash;
} atomo__frame;
enum { ATOMO__FRAME_MAX = 2 + 1 + 5 + 5 + 5 + 2 + 5 + 4 };
int atomo__frame_bits(const atomo__frame *f, double body_bits); /* bits of the frame around a body of body_bits */
/* Returns the offset in a message, below ATOMO__FRAME_MAX, at which to write a body of body_most bytes or less. */
size_t atomo__frame_begin(const atomo__frame *f, size_t body_most);
/* Completes a message: the body, which is at data + begin, gets a header and a checksum, and is moved if need be so
 * that the message starts at data. Returns its size. */
size_t atomo__frame_close(const atomo__frame *f, uint8_t *data, size_t begin, const atomo__writer *body);
/* *body = the body's length in the header at data [size], unchecked; false if the header is not complete. */
bool atomo__frame_body(const uint8_t *data, size_t size, size_t *body);
/* Checks the message at data [size], which may be followed by others, against `want`; UINT32_MAX as rank or step
 * accepts any. Sets *body, the message's *length and its header *got. EFORMAT names the offset, the value found and the
 * one expected. `name` is the tensor's in errors. */
int atomo__frame_open(const atomo__frame *want, const char *name, const uint8_t *data, size_t size, atomo__reader *body,
                      size_t *length, atomo__frame *got);
/* The same without a look at the checksum, which is *crc: the caller compares it with that of all bytes before it. */
int atomo__frame_head(const atomo__frame *want, const char *name, const uint8_t *data, size_t size, atomo__reader *body,
                      uint32_t *crc, atomo__frame *got);
/* *length = the message's length in bytes, of which only the header is checked, not the checksum. Errors as above. */
int atomo__frame_length(const atomo__frame *want, const char *name, const uint8_t *data, size_t size, size_t *length);

#endif
