/* rotated.h - what `auto` asks of rotated atoms (rotated.c). Private. */
#ifndef ATOMO_ROTATED_H
#define ATOMO_ROTATED_H

#include "codec/codec.h"

/* E||ghat - g||^2 of a measured plan of 256 entries or more, at T. */
double atomo__rotated_variance(const atomo__plan *plan, double T);

#endif
