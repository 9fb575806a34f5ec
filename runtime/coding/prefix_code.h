/* prefix_code.h - short prefix codes in bulk (prefix_code.c). Private. */
#ifndef ATOMO_PREFIX_CODE_H
#define ATOMO_PREFIX_CODE_H

#include "coding/messages.h"
#include "sampling/sampling.h"

enum { ATOMO__CODES = 256, ATOMO__LOOKUP_ORDERS = 4 };

/* Writes code[i] in bits[i] bits, i < n <= ATOMO__CODES, up to the first of more than 32 bits (its code is anything):
 * returns that i, or n. */
int atomo__put_codes(atomo__writer *w, const uint32_t *code, const uint32_t *bits, int n);

/* Some of the next m gaps (indices.c), as indices from *next on with the sign in the top bit; *next is set behind the
 * last, and is above n where an index is n or more. Returns how many, 0 where the caller has to read one code by code.
 */
int64_t atomo__get_gaps(atomo__reader *r, int k, int sign_bits, int64_t m, uint32_t *next, uint32_t n, uint32_t *index);
/* The same of signed values in Exp-Golomb codes of order k (atoms/common/coefficients.c), the sign in the top bit. */
int64_t atomo__get_values(atomo__reader *r, int k, int64_t m, uint32_t *value);

#endif
