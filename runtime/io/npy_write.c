/* npy_write.c - writes NumPy's .npy files, version 1, byte for byte as numpy.save does. Path: none.
 *
 * A temporary file in the same folder is written, synchronised and renamed to the path. So the path has either the old
 * file or the complete new one.
 */
#include "tensor/tensor.h"
#include <stdio.h>
#include <string.h>

/* Writes the complete header of a version 1 file, and returns its length, a multiple of 64. */
static size_t write_head(const atomo_tensor *t, char *head, size_t room)
{
    static const char *const descr[] = {
        [ATOMO_F32] = "<f4", [ATOMO_I32] = "<i4", [ATOMO_U8] = "|u1", [ATOMO_F16] = "<f2"};
    size_t n = 10;
    n += (size_t)snprintf(head + n, room - n, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr[t->dtype]);
    for (int i = 0; i < t->ndim; i++)
        n += (size_t)snprintf(head + n, room - n, i ? ", %.0f" : t->ndim == 1 ? "%.0f," : "%.0f", t->shape[i]);
    n += (size_t)snprintf(head + n, room - n, "), }");
    while (n % 64 != 63) head[n++] = ' ';
    head[n++] = '\n';
    memcpy(head, "\x93NUMPY\x01\x00", 8);
    head[8] = (char)((n - 10) & 255);
    head[9] = (char)((n - 10) >> 8);
    return n;
}

static int write_file(const atomo_tensor *t, const char *path)
{
    char head[512];
    return atomo_raw_write(path, head, (double)write_head(t, head, sizeof head), &t, 1);
}

int atomo_npy_write(const atomo_tensor *t, const char *path)
{
    ATOMO_REQUIRE(t && path && *path, ATOMO_EARG, "npy_write: tensor or path is missing");
    ATOMO_REQUIRE(t->dtype != ATOMO_BF16, ATOMO_EDTYPE,
                  "npy_write: NumPy has no bf16, convert the tensor first (t:to \"f32\")");
    if (atomo_tensor_is_contiguous(t)) return write_file(t, path);
    atomo_tensor *whole = NULL;
    ATOMO_TRY(atomo_tensor_new(t->dtype, t->ndim, t->shape, &whole));
    int rc = atomo_copy(whole, t);
    if (rc == ATOMO_OK) rc = write_file(whole, path);
    atomo_tensor_free(whole);
    return rc;
}
