/* optim.h - what the optimizers' kernels share. Private. */
#ifndef ATOMO_OPTIM_H
#define ATOMO_OPTIM_H

#include "tensor/tensor.h"

/* Checks p and its gradient and state (NULL is skipped): contiguous f32 of one size, apart from each other. */
int atomo__check_blocks(const char *what, const atomo_tensor *p, int count, const atomo_tensor *const *others);

#endif
