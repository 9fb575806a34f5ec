/* rotated_unit.h - a unit of entries that are rotated together, on the wire (rotated_unit.c). Private. */
#ifndef ATOMO_ROTATED_UNIT_H
#define ATOMO_ROTATED_UNIT_H

#include "atoms/common/rotation.h"
#include "coding/messages.h"
#include "sampling/gaussian.h"

typedef struct atomo__unit {
    atomo_stream stream;
    uint32_t block, number; /* of the rotation's signs; of the unit in its tensor */
    int64_t size;           /* a rotation_size */
    double e;               /* mean square of an entry, as both sides know it */
    atomo__rate rate;
    uint32_t *index; /* room for [size + 16] */
} atomo__unit;
/* Writes y [size], which it changes, at energy ||y||^2 > 0: returns the relative variance of this draw, *sent what is
 * not 0. */
double atomo__unit_write(const atomo__unit *u, float *y, double energy, atomo__writer *w, double *sent);
void atomo__unit_write_zeros(atomo__writer *w);
/* y [size] <- scale times what was written; false if these bytes cannot have been written. */
bool atomo__unit_read(const atomo__unit *u, atomo__reader *r, double scale, float *y);

/* T in 16 bits, the upper half of a float, rounded; 0 selects the finest quantiser. */
uint32_t atomo__half_of_price(double T);
double atomo__price_of_half(uint32_t half); /* not finite for halves that no encoder writes */

#endif
