/* fuzz_view.c - views with arbitrary shapes, strides and offsets: every element of a view that atomo_tensor_view
 * accepts can be read and written within its storage (checked by AddressSanitizer); a refused one has an error text. */
#include "tensor/tensor.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int8_t take(const uint8_t **p, size_t *n)
{
    if (*n == 0) return 1;
    --*n;
    return (int8_t) * (*p)++;
}

/* Returns a small number unchanged; 127 and 126 become sizes that are not valid. */
static double size_of(int8_t v)
{
    return v == 127 ? 9e18 : v == 126 ? 0.5 : (double)v;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    double base[3], shape[ATOMO_MAX_DIM], stride[ATOMO_MAX_DIM];
    int dtype = take(&data, &n) & 3, ndim = take(&data, &n) & 15;
    for (int i = 0; i < 3; i++) base[i] = take(&data, &n) & 7;
    double offset = size_of(take(&data, &n));
    for (int i = 0; i < ATOMO_MAX_DIM; i++) {
        shape[i] = size_of(take(&data, &n));
        stride[i] = size_of(take(&data, &n));
    }
    atomo_tensor *t = NULL, *v = NULL, *copy = NULL;
    if (atomo_tensor_new(dtype, 3, base, &t) < 0) return 0;
    if (atomo_tensor_view(t, ndim, shape, stride, offset, &v) == 0 && v->numel < 1e5) {
        const int status = atomo_fill(v, 3); /* EARG where elements share memory: then it is left alone */
        if (status < 0 && status != ATOMO_EARG) abort();
        if (status < 0 && (atomo_fill(t, 3) < 0 || v->numel == 0)) abort();
        if (atomo_tensor_new(ATOMO_F32, v->ndim, v->shape, &copy) == 0 && atomo_copy(copy, v) < 0) abort();
        for (int64_t i = 0; copy && i < atomo__numel(copy); i++)
            if (atomo__f32(copy)[i] != 3) abort();
    } else if (!v && !*atomo_last_error()) {
        abort();
    }
    atomo_tensor_free(copy);
    atomo_tensor_free(v);
    atomo_tensor_free(t);
    return 0;
}
