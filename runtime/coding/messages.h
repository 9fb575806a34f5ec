/* messages.h - stage 6 of the path: what bodies of messages are made of (index lists, quantised vectors, folds), and
 * the frame around them. Private. */
#ifndef ATOMO_MESSAGES_H
#define ATOMO_MESSAGES_H

#include "coding/bitstream.h"
#include "core/core.h"

/* ---- index lists (indices.c) ---- */
/* The m ascending indices of list, out of 0..n-1, as Golomb-Rice gaps, gaps of the complement or a bitmap, whichever is
 * shortest: at most n + 48 bits. signs: and the top bit of each, one bit more. */
void atomo__write_indices(atomo__writer *w, const uint32_t *list, int64_t m, int64_t n, bool signs);
/* Reads into index (room for n), signs in the top bit; returns how many, or -1 where the message is malformed. */
int64_t atomo__read_indices(atomo__reader *r, int64_t n, bool signs, uint32_t *index);
/* Their gaps alone, in a Rice code of order k <= 30: m and k are known to the reader. */
void atomo__write_gaps(atomo__writer *w, int k, const uint32_t *list, int64_t m, bool signs);
int64_t atomo__read_gaps(atomo__reader *r, int k, int64_t m, int64_t n, bool signs, uint32_t *index);
double atomo__index_bits(double m, double n);  /* what write_indices takes for m random ones of n */
double atomo__index_price(double m, double n); /* its derivative in m */

/* ---- quantised vectors (quantize.c) ---- */
/* x [n], finite, is sent as integers of `bits` bits, stochastically rounded: E = x / scale. bits 32: as they are,
 * scale 1. Random numbers: elements first*n .. of the stream; work: room for n floats. */
float atomo__quant_scale(const float *x, int64_t n, int bits);
float atomo__quant_limit(int bits); /* the largest scale with which every code is a float */
void atomo__quant_write(atomo__writer *w, const float *x, int64_t n, int bits, float scale, const atomo_stream *s,
                        uint32_t first, float *work);
void atomo__quant_read(atomo__reader *r, float *x, int64_t n, int bits);
/* E||xhat - x||^2 of the rounding, and the square of x's norm. */
void atomo__quant_variance(const float *x, int64_t n, int bits, double *square, double *variance);

/* ---- floats as they are (floats.c) ---- */
/* acc += scale * the floats at in, which need no alignment; false where one is NaN or Inf. */
bool atomo__add_floats(const uint8_t *in, int64_t n, float scale, float *acc);

/* ---- folds and rank-k updates (matricize.c) ---- */
typedef struct atomo__fold {
    int64_t rows, cols;
    int64_t out, taps, in; /* paper's fold: kernels of `taps` entries, two to a row; taps 0: a plain reshape */
} atomo__fold;
/* matrix = g folded, times 2^exponent. */
void atomo__fold_gather(const atomo__fold *f, const float *g, int exponent, float *matrix);
/* acc += sum_j a_j[r] b_j[c], j in order: a [k, rows], b [k, cols]; fixed order, the same bits on every CPU.
 * tile: room for ATOMO__TILE_ROWS * cols floats. */
enum { ATOMO__TILE_ROWS = 64 };
void atomo__fold_rank_add(const atomo__fold *f, const float *a, const float *b, int k, float *acc, float *tile);

/* ---- frame (frame.c) ---- */
typedef struct atomo__frame {
    uint32_t codec, tensor, rank, step, hash;
} atomo__frame;
enum { ATOMO__FRAME_MAX = 2 + 1 + 5 + 5 + 5 + 2 + 5 + 4 };
int atomo__frame_bits(const atomo__frame *f, double body_bits); /* length of the frame around a body, in bits */
/* Puts header and checksum around the body_size bytes at data + ATOMO__FRAME_MAX and moves it to data; the whole size.
 */
size_t atomo__frame_close(const atomo__frame *f, uint8_t *data, size_t body_size);
/* The length of the body that a frame at data [size] speaks of, unchecked; false where there is no whole header. */
bool atomo__frame_body(const uint8_t *data, size_t size, size_t *body);
/* Checks the message at the start of data [size] against what is expected (rank, step: any where want has UINT32_MAX)
 * and gives its body, whole length and header. EFORMAT names the offset, what was found and what was expected. */
int atomo__frame_open(const atomo__frame *want, const char *name, const uint8_t *data, size_t size, atomo__reader *body,
                      size_t *length, atomo__frame *got);

#endif
