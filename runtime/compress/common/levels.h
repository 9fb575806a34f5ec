/* levels.h - functions of the compressors other than ATOMO: rounding to levels, packed codes, selection. Private.
 *
 * A body consists of whole bytes (floats, packed codes) that are written and read in place, except for Elias codes.
 * Entries are processed in chunks of ATOMO__CHUNK, which stay in the first-level cache.
 */
#ifndef ATOMO_LEVELS_H
#define ATOMO_LEVELS_H

#include "codec/codec.h"

/* Returns the number of levels above 0 of codes of that many bits, sign included. */
static inline int atomo__levels_of(int bits)
{
    return (1 << (bits - 1)) - 1;
}

/* ---- stochastic rounding to levels (levels.c) ---- */
/* levels / scale as the product of a power of two and another factor, so that neither overflows for any scale above 0.
 */
typedef struct {
    float up, rest;
} atomo__inverse;
atomo__inverse atomo__inverse_of(float scale, int levels);
/* code[i] = levels + sign(x_i) j, where j is |x_i| * inverse, at most `levels`, rounded up with probability equal to
 * its fraction f (exact to 2^-72). So the mean of code is levels + x * inverse. n <= ATOMO__CHUNK. Random numbers:
 * bytes of the SAMPLE stream from block `first` on, and blocks element + i of the SAMPLE_TAIL stream. Returns the sum
 * of f (1 - f), which is the variance in squared levels. */
double atomo__levels_round(const float *x, int n, atomo__inverse inverse, int levels, const atomo__context *c,
                           uint32_t first, uint32_t element, uint8_t *code);
/* words = the random bytes for x [n], n <= ATOMO__CHUNK, and low [n] as in atomo__strata_bytes. */
void atomo__rounding_bytes(const atomo__context *c, const float *x, int n, uint32_t first, uint32_t *words,
                           uint8_t *low);
/* acc[i] += (code[i] - levels) * step. Returns false, and adds nothing, if a code is above 2 * levels. */
bool atomo__levels_add(const uint8_t *code, int n, int levels, float step, float *acc);
uint8_t atomo__highest_code(const uint8_t *code, int n);
/* ties: lists the i < n <= ATOMO__CHUNK with tie[i] != 0, whose random byte equals the first byte of the fraction, in
 * ascending order in `at`, and returns their number. break_ties: up[k] = 1 with probability part[k] (0 <= part[k] < 1),
 * the rest of the fraction of entry at[k]. */
int atomo__ties(const uint8_t *tie, int n, uint32_t *at);
void atomo__break_ties(const atomo_stream *s, uint32_t element, const uint32_t *at, const float *part, int m,
                       uint8_t *up);

/* Writes x [n] with one scale: the scale as f32, followed by packed codes if it is not 0. The top level is |x| = scale.
 * Returns the variance. first, element: as for levels_round, for x[0]. read adds factor * the decoded vector to acc,
 * and sets r->bad for malformed bytes. */
double atomo__levels_write(atomo__writer *w, const float *x, int64_t n, float scale, int bits, const atomo__context *c,
                           uint32_t first, uint32_t element);
void atomo__levels_read(atomo__reader *r, int64_t n, int bits, float factor, float *acc);
size_t atomo__levels_bytes(int64_t n, int bits); /* the most bytes that write takes */
/* The same with Elias gamma codes of gaps, signs and levels, which are short if most codes are 0. */
double atomo__levels_write_elias(atomo__writer *w, const float *x, int64_t n, float scale, int bits,
                                 const atomo__context *c, uint32_t first, uint32_t element);
void atomo__levels_read_elias(atomo__reader *r, int64_t n, int bits, float factor, float *acc);
size_t atomo__levels_bytes_elias(int64_t n, int bits);

/* ---- subtractive dither (dither.c) ---- */
/* write: the scale, then packed codes, as many bytes as atomo__levels_write; the decoder subtracts the same random
 * numbers. first: block of the SAMPLE stream for x[0]; four entries share one. Returns the variance. most: the largest
 * scale with which all decoded values are finite. */
double atomo__dither_write(atomo__writer *w, const float *x, int64_t n, float scale, int bits, const atomo__context *c,
                           uint32_t first);
void atomo__dither_read(atomo__reader *r, int64_t n, int bits, float factor, const atomo__context *c, uint32_t first,
                        float *acc);
float atomo__dither_most(int bits);

/* ---- packed codes (bitpack.c) ---- */
/* Packs n <= ATOMO__CHUNK codes below 2^bits, 1 <= bits <= 8, into bits * ceil(n / 8) bytes. */
static inline size_t atomo__packed_size(int n, int bits)
{
    return (size_t)bits * (size_t)((n + 7) / 8);
}
void atomo__pack(const uint8_t *code, int n, int bits, uint8_t *out);
/* Unpacks into code, which must hold ATOMO__CHUNK. Returns false if the padding is not 0. */
bool atomo__unpack(const uint8_t *in, int n, int bits, uint8_t *code);

/* ---- selection (largest.c) ---- */
enum { ATOMO__SELECT_SCRATCH = 65536 * sizeof(uint32_t) };
/* index = the indices of the k entries of largest magnitude, ascending, without those that are 0; of equal entries the
 * lower index is selected. Returns their number. histogram: scratch of ATOMO__SELECT_SCRATCH bytes. */
int64_t atomo__select_largest(const float *x, int64_t n, int64_t k, uint32_t *histogram, uint32_t *index);
/* Returns the k for which k values of 32 bits, with a list of indices or without, take as many bits as n / ratio
 * floats; 1 to n. */
int64_t atomo__select_count(int64_t n, double ratio, bool indices);

/* Returns the sum of x_i^2 over the m entries listed in index. */
double atomo__sum_square_at(const float *x, const uint32_t *index, int64_t m);

/* *sum = sum of |g|, *largest = the largest |g|, and sets plan->square; ENONFINITE if an entry is NaN or Inf. */
int atomo__gradient_size(atomo__plan *plan, const float *g, double *sum, float *largest);

#endif
