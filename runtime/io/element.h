/* element.h - elements of files (ATOMO_F32, ATOMO_RAW_F16, ...) as elements of tensors. Private. */
#ifndef ATOMO_ELEMENT_H
#define ATOMO_ELEMENT_H

#include "tensor/tensor.h"

int atomo__element_dtype(int kind);    /* of the tensor that holds such elements */
int64_t atomo__element_size(int kind); /* in bytes, in the file */
/* n little-endian elements at `bytes` into t's elements from `at` on. Returns how many fitted: n, or the number of the
 * first (from 0) that does not. */
int64_t atomo__convert_elements(int kind, const void *bytes, int64_t n, atomo_tensor *t, int64_t at);
/* One that did not fit, for the message. */
double atomo__element_value(int kind, const void *bytes);

#endif
