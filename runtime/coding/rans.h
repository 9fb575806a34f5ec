/* rans.h - symbols of known shares in their entropy (rans.c). Private. */
#ifndef ATOMO_RANS_H
#define ATOMO_RANS_H

#include "coding/messages.h"

enum { ATOMO__RANS_BITS = 12, ATOMO__RANS_SYMBOLS = 256 };
/* symbol [n], each below `count`, of shares share [count] in 2^-12 that sum to 2^12, none 0. work: room for n + 8. */
void atomo__rans_write(atomo__writer *w, const uint16_t *share, int count, const uint8_t *symbol, int64_t n,
                       uint16_t *work);
/* false (and r->bad) where the stretch is not what such a write leaves. */
bool atomo__rans_read(atomo__reader *r, const uint16_t *share, int count, int64_t n, uint8_t *symbol);

#endif
