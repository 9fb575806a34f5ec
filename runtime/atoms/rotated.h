/* rotated.h - functions of rotated atoms for `auto` (rotated.c). Private. */
#ifndef ATOMO_ROTATED_H
#define ATOMO_ROTATED_H

#include "codec/codec.h"

/* The least number of entries of a tensor that is rotated, and the default of option `classes`. */
enum { ATOMO__LEAST_ROTATED = 256, ATOMO__ROTATED_CLASSES = 16 };

#endif
