/* npy.h - reads NumPy's format from any source of bytes: a file, or a member of an archive. Private. */
#ifndef ATOMO_NPY_H
#define ATOMO_NPY_H

#include "tensor/tensor.h"

typedef struct {
    const char *name;                                               /* for error texts, which begin with "npy: " */
    int64_t size;                                                   /* bytes of the source */
    void *state;                                                    /* first argument of read */
    int (*read)(void *state, int64_t offset, void *into, size_t n); /* reads exactly n bytes; offsets have no gaps */
} atomo__source;

int atomo__npy_decode(const atomo__source *in, atomo_tensor **out);

#endif
