/* rotated.h - what `auto` asks of rotated atoms (rotated.c). Private. */
#ifndef ATOMO_ROTATED_H
#define ATOMO_ROTATED_H

#include "codec/codec.h"

enum { ATOMO__LEAST_ROTATED = 256, ATOMO__ROTATED_CLASSES = 16 }; /* entries of a tensor; option classes, standard */

#endif
