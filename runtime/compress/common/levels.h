/* levels.h - what the compressors beside ATOMO share: rounding to levels, packed codes, selection. Private.
 *
 * A body is a row of raw parts (floats, packed codes), written and read in place while no bits wait in the writer or
 * reader; work goes in chunks of ATOMO__CHUNK entries, which stay in the first cache.
 */
#ifndef ATOMO_LEVELS_H
#define ATOMO_LEVELS_H

#include "codec/codec.h"

/* ---- stochastic rounding to levels (levels.c) ---- */
/* levels / scale as a power of two and a factor near 1, so that no scale above 0 leaves the range. */
typedef struct {
    float up, rest;
} atomo__inverse;
atomo__inverse atomo__inverse_of(float scale, int levels);
/* code_i = levels + sign(x_i) j, j = |x_i| inverse rounded up with probability equal to its fraction (to 2^-72) and at
 * most `levels`: E code = levels + x inverse. n <= CHUNK. Random numbers: bytes of the blocks first .. of the SAMPLE
 * stream, the tail by `element` + i. Returns sum f (1 - f) over the fractions: the variance in units of a level. */
double atomo__levels_round(const float *x, int n, atomo__inverse inverse, int levels, const atomo_stream *s,
                           uint32_t first, uint32_t element, uint8_t *code);
/* acc_i += (code_i - levels) * step. False, and nothing added, where a code is above 2 levels. */
bool atomo__levels_add(const uint8_t *code, int n, int levels, float step, float *acc);
/* Where a fraction's first byte tied with its random one: the i < n <= CHUNK with tie[i] != 0, ascending, into at; how
 * many. Then up[k] is true with probability part[k], what is left of the fraction at[k]'s (0 .. 1, below 1). */
int atomo__ties(const uint8_t *tie, int n, uint32_t *at);
void atomo__break_ties(const atomo_stream *s, uint32_t element, const uint32_t *at, const float *part, int m,
                       uint8_t *up);

/* A vector of one scale: [scale f32] then packed codes, or nothing where the scale is 0. The scale is |x| at the top
 * level. Returns the variance. first: block of random numbers, element: number of x[0] in the tensor. */
double atomo__levels_write(atomo__writer *w, const float *x, int64_t n, float scale, int bits, const atomo_stream *s,
                           uint32_t first, uint32_t element);
void atomo__levels_read(atomo__reader *r, int64_t n, int bits, float factor, float *acc);
size_t atomo__levels_bytes(int64_t n, int bits); /* at most */
/* The same with Elias gamma codes of gaps, signs and levels, for codes that are mostly 0. */
double atomo__levels_write_elias(atomo__writer *w, const float *x, int64_t n, float scale, int bits,
                                 const atomo_stream *s, uint32_t first, uint32_t element);
void atomo__levels_read_elias(atomo__reader *r, int64_t n, int bits, float factor, float *acc);
size_t atomo__levels_bytes_elias(int64_t n, int bits);

/* ---- packed codes (bitpack.c) ---- */
/* n <= CHUNK codes below 2^bits, 1 <= bits <= 8, in bits * ceil(n / 8) bytes. */
static inline size_t atomo__packed_size(int n, int bits)
{
    return (size_t)bits * (size_t)((n + 7) / 8);
}
void atomo__pack(const uint8_t *code, int n, int bits, uint8_t *out);
/* The codes; room for CHUNK. False where the padding is not 0. */
bool atomo__unpack(const uint8_t *in, int n, int bits, uint8_t *code);

/* ---- selection (largest.c) ---- */
enum { ATOMO__SELECT_SCRATCH = 65536 * sizeof(uint32_t) };
/* The k entries of largest size, none of them 0, ties by lower index: ascending, into index; returns their number. */
int64_t atomo__select_largest(const float *x, int64_t n, int64_t k, uint32_t *histogram, uint32_t *index);
/* The k at which k values of 32 bits, with index lists or without, take n / ratio floats; 1 .. n. */
int64_t atomo__select_count(int64_t n, double ratio, bool indices);

/* sum x_i^2 over the entries listed. */
double atomo__sum_square_at(const float *x, const uint32_t *index, int64_t m);

/* sum |g|, max |g| and plan->square of a gradient; ENONFINITE where an entry is NaN or Inf. */
int atomo__gradient_size(atomo__plan *plan, const float *g, double *sum, float *largest);

#endif
