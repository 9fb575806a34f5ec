/* prefix_code.h - writes and reads many short prefix codes at once (prefix_code.c). Private. */
#ifndef ATOMO_PREFIX_CODE_H
#define ATOMO_PREFIX_CODE_H

#include "coding/messages.h"
#include "sampling/sampling.h"

enum { ATOMO__CODES = 256, ATOMO__LOOKUP_ORDERS = 4 };

/* Writes code[i] in bits[i] bits for i < n <= ATOMO__CODES, and stops at the first with bits[i] > 32. Returns its i, or
 * n if all were written. */
int atomo__put_codes(atomo__writer *w, const uint32_t *code, const uint32_t *bits, int n);

/* Reads up to m gaps (indices.c) as indices, with the sign in the top bit. *next: the least possible next index,
 * updated; it is above n if an index was n or more, which the caller must check. Returns the number of gaps read; the
 * caller reads the next one by itself. */
int64_t atomo__get_gaps(atomo__reader *r, int k, int sign_bits, int64_t m, uint32_t *next, uint32_t n, uint32_t *index);
/* The same for signed values in Exp-Golomb codes of order k (atoms/common/coefficients.c), the sign in the top bit. */
int64_t atomo__get_values(atomo__reader *r, int k, int64_t m, uint32_t *value);

#endif
