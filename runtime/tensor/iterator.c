/* iterator.c - broadcasting, and the strided loop of all elementwise kernels. */
#include "tensor/iterator.h"

int atomo__broadcast_shape(const atomo_tensor *a, const atomo_tensor *b, const char *what, int *ndim, double *shape)
{
    int n = ATOMO_MAX(a->ndim, b->ndim);
    for (int i = 0; i < n; i++) {
        int ia = i - (n - a->ndim), ib = i - (n - b->ndim);
        double sa = ia < 0 ? 1 : a->shape[ia], sb = ib < 0 ? 1 : b->shape[ib];
        ATOMO_REQUIRE(sa == sb || sa == 1 || sb == 1, ATOMO_ESHAPE,
                      "%s: shapes %s and %s do not broadcast: from the last dimension on, sizes must be equal or 1",
                      what, atomo__shape_text(a), atomo__shape_text(b));
        shape[i] = sa == 1 ? sb : sa;
    }
    *ndim = n;
    return ATOMO_OK;
}

void atomo__iterator_init(atomo__iterator *it, int ndim, const double *shape, int operands,
                          const atomo_tensor *const *t)
{
    it->operands = operands;
    it->ndim = 0;
    for (int i = 0; i < ndim; i++) {
        int64_t size = (int64_t)shape[i], stride[3] = {0, 0, 0};
        if (size == 1) continue;
        for (int k = 0; k < operands; k++) {
            int j = i - (ndim - t[k]->ndim);
            stride[k] = j < 0 || t[k]->shape[j] == 1 ? 0 : (int64_t)t[k]->stride[j];
        }
        bool merge = it->ndim > 0;
        for (int k = 0; merge && k < operands; k++) merge = it->stride[k][it->ndim - 1] == stride[k] * size;
        int d = merge ? it->ndim - 1 : it->ndim++;
        it->shape[d] = merge ? it->shape[d] * size : size;
        for (int k = 0; k < operands; k++) it->stride[k][d] = stride[k];
    }
    if (it->ndim == 0) { /* a single element */
        it->ndim = 1;
        it->shape[0] = 1;
        for (int k = 0; k < operands; k++) it->stride[k][0] = 0;
    }
    it->row = it->shape[it->ndim - 1];
    it->rows = 1;
    for (int d = 0; d < it->ndim - 1; d++) it->rows *= it->shape[d];
    for (int i = 0; i < ndim; i++)
        if (shape[i] == 0) it->rows = 0;
}

void atomo__iterator_row(const atomo__iterator *it, int64_t r, int64_t offset[3])
{
    offset[0] = offset[1] = offset[2] = 0;
    for (int d = it->ndim - 2; d >= 0; d--) {
        int64_t i = r % it->shape[d];
        r /= it->shape[d];
        for (int k = 0; k < it->operands; k++) offset[k] += i * it->stride[k][d];
    }
}

enum { PIECE = 1 << 14 }; /* elements of a piece when all is one row */

int64_t atomo__pieces(const atomo__iterator *it)
{
    return it->rows == 1 ? (it->row + PIECE - 1) / PIECE : it->rows;
}

atomo_piece atomo__piece(const atomo__iterator *it, int64_t i)
{
    atomo_piece p = {.out = i * it->row, .n = it->row};
    if (it->rows > 1) {
        atomo__iterator_row(it, i, p.at);
        return p;
    }
    p.out = i * PIECE;
    p.n = ATOMO_MIN(PIECE, it->row - p.out);
    for (int k = 0; k < it->operands; k++) p.at[k] = p.out * it->stride[k][it->ndim - 1];
    return p;
}
