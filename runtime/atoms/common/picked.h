/* picked.h - the picks of a unit of rotated entries (sampling/picks.h), found, written and read (picked.c). Private. */
#ifndef ATOMO_PICKED_H
#define ATOMO_PICKED_H

#include "coding/messages.h"
#include "sampling/picks.h"
#include "sampling/sampling.h"

/* index [m] = the places of the largest magnitudes of the m blocks of y [n], block by block, the first one of equal
 * ones; those of negative entries are marked by ATOMO__MINUS. Returns the sum of the magnitudes. */
double atomo__pick(const float *y, int64_t n, int64_t m, uint32_t *index);
void atomo__write_picks(atomo__writer *w, int64_t n, int64_t m, const uint32_t *index);
/* Reads index [m] as atomo__pick sets it; any bits are picks. Returns false if the message ends before. */
bool atomo__read_picks(atomo__reader *r, int64_t n, int64_t m, uint32_t *index);

#endif
