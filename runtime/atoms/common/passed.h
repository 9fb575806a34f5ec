/* passed.h - the entries of a unit of rotated entries that pass a threshold (passed.c). Private. */
#ifndef ATOMO_PASSED_H
#define ATOMO_PASSED_H

#include "coding/messages.h"

/* index [n + 16] = the places of entries of y [n] with |y_i| >= t, ascending, those of negative ones marked by
 * ATOMO__MINUS. Returns their number. */
int64_t atomo__pass(const float *y, int64_t n, float t, uint32_t *index);
/* Writes m of n places, of which a fraction p is expected; reads them, and returns m, -1 if they are malformed. */
void atomo__write_passed(atomo__writer *w, int64_t n, double p, int64_t m, const uint32_t *index);
int64_t atomo__read_passed(atomo__reader *r, int64_t n, double p, uint32_t *index);

#endif
