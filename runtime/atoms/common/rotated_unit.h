/* rotated_unit.h - a unit of entries that are rotated together, on the wire (rotated_unit.c). Private. */
#ifndef ATOMO_ROTATED_UNIT_H
#define ATOMO_ROTATED_UNIT_H

#include "atoms/common/rotation.h"
#include "coding/messages.h"
#include "sampling/gaussian.h"

typedef struct atomo__unit {
    atomo_stream stream;
    uint32_t block, number; /* the first block of the rotation's signs; the unit's number in its tensor, from 0 */
    int64_t size;           /* entries, with padding: an atomo__rotation_size */
    double e;               /* mean square of an entry, as both sides know it */
    atomo__rate rate;
    uint32_t *index; /* scratch [size + 16] */
} atomo__unit;
/* Writes y [size], of energy ||y||^2 > 0, and overwrites it. Returns the relative squared error of this draw; *sent =
 * the number of entries that are not sent as 0. */
double atomo__unit_write(const atomo__unit *u, float *y, double energy, atomo__writer *w, double *sent);
void atomo__unit_write_zeros(atomo__writer *w);
/* y [size] = scale * the unit read. Returns false if it is malformed. */
bool atomo__unit_read(const atomo__unit *u, atomo__reader *r, double scale, float *y);

/* Returns T rounded to the upper 16 bits of a float, as messages hold it; 0 selects the finest quantiser. */
uint32_t atomo__half_of_price(double T);
double atomo__price_of_half(uint32_t half); /* not finite for halves that no encoder writes */

#endif
