/* element.h - converts elements of files (kinds ATOMO_F32, ATOMO_RAW_F16, ...) to elements of tensors. Private. */
#ifndef ATOMO_ELEMENT_H
#define ATOMO_ELEMENT_H

#include "tensor/tensor.h"

int atomo__element_dtype(int kind);    /* dtype of the tensor for such elements */
int64_t atomo__element_size(int kind); /* bytes of an element in the file */
/* Converts n little-endian elements at `bytes` to t's elements from number `at` on. Returns n, or the index (from 0) of
 * the first one that does not fit. */
int64_t atomo__convert_elements(int kind, const void *bytes, int64_t n, atomo_tensor *t, int64_t at);
/* Returns the value of an element that did not fit, for the error text. */
double atomo__element_value(int kind, const void *bytes);

#endif
