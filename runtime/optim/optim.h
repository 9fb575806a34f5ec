/* optim.h - the check of arguments that the optimizers share. Private. */
#ifndef ATOMO_OPTIM_H
#define ATOMO_OPTIM_H

#include "tensor/tensor.h"

/* Checks that p, its gradient and its state (NULL is skipped) are contiguous f32 of one size, and do not overlap. */
int atomo__check_blocks(const char *what, const atomo_tensor *p, int count, const atomo_tensor *const *others);

#endif
