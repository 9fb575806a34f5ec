/* npy.h - NumPy's format out of any bytes that come in order: a file, a member of an archive. Private. */
#ifndef ATOMO_NPY_H
#define ATOMO_NPY_H

#include "tensor/tensor.h"

typedef struct {
    const char *name; /* for the messages, which begin with "npy: " */
    int64_t size;
    void *state;
    int (*read)(void *state, int64_t offset, void *into, size_t n); /* exactly n bytes; offsets grow without a gap */
} atomo__source;

int atomo__npy_decode(const atomo__source *in, atomo_tensor **out);

#endif
