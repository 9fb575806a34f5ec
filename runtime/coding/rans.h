/* rans.h - entropy coding of symbols of known probabilities (rans.c). Private. */
#ifndef ATOMO_RANS_H
#define ATOMO_RANS_H

#include "coding/messages.h"

enum { ATOMO__RANS_BITS = 12, ATOMO__RANS_SYMBOLS = 256 };
/* Writes symbol [n], each below `count`, of probabilities share [count] in units of 2^-12, which sum to 2^12; none is
 * 0. work: scratch [n + 8]. */
void atomo__rans_write(atomo__writer *w, const uint16_t *share, int count, const uint8_t *symbol, int64_t n,
                       uint16_t *work);
/* Reads n symbols; returns false, and sets r->bad, if the message is malformed. */
bool atomo__rans_read(atomo__reader *r, const uint16_t *share, int count, int64_t n, uint8_t *symbol);

#endif
