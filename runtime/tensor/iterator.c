/* iterator.c - broadcasting and the strided loop behind every elementwise kernel. */
#include "tensor/iterator.h"

int atomo__broadcast_shape(const atomo_tensor *a, const atomo_tensor *b, const char *what, int *ndim, double *shape)
{
    int n = ATOMO_MAX(a->ndim, b->ndim);
    for (int i = 0; i < n; i++) {
        int ia = i - (n - a->ndim), ib = i - (n - b->ndim);
        double sa = ia < 0 ? 1 : a->shape[ia], sb = ib < 0 ? 1 : b->shape[ib];
        ATOMO_REQUIRE(sa == sb || sa == 1 || sb == 1, ATOMO_ESHAPE, "%s: shapes %s and %s do not broadcast", what,
                      atomo__shape_text(a), atomo__shape_text(b));
        shape[i] = sa == 1 ? sb : sa;
    }
    *ndim = n;
    return ATOMO_OK;
}

void atomo__walk_init(atomo_walk *w, int ndim, const double *shape, int operands, const atomo_tensor *const *t)
{
    w->operands = operands;
    w->ndim = 0;
    for (int i = 0; i < ndim; i++) {
        int64_t size = (int64_t)shape[i], stride[3] = {0, 0, 0};
        if (size == 1) continue;
        for (int k = 0; k < operands; k++) {
            int j = i - (ndim - t[k]->ndim);
            stride[k] = j < 0 || t[k]->shape[j] == 1 ? 0 : (int64_t)t[k]->stride[j];
        }
        bool merge = w->ndim > 0;
        for (int k = 0; merge && k < operands; k++) merge = w->stride[k][w->ndim - 1] == stride[k] * size;
        int d = merge ? w->ndim - 1 : w->ndim++;
        w->shape[d] = merge ? w->shape[d] * size : size;
        for (int k = 0; k < operands; k++) w->stride[k][d] = stride[k];
    }
    if (w->ndim == 0) { /* a single element */
        w->ndim = 1;
        w->shape[0] = 1;
        for (int k = 0; k < operands; k++) w->stride[k][0] = 0;
    }
    w->row = w->shape[w->ndim - 1];
    w->rows = 1;
    for (int d = 0; d < w->ndim - 1; d++) w->rows *= w->shape[d];
    for (int i = 0; i < ndim; i++)
        if (shape[i] == 0) w->rows = 0;
}

void atomo__walk_row(const atomo_walk *w, int64_t r, int64_t offset[3])
{
    offset[0] = offset[1] = offset[2] = 0;
    for (int d = w->ndim - 2; d >= 0; d--) {
        int64_t i = r % w->shape[d];
        r /= w->shape[d];
        for (int k = 0; k < w->operands; k++) offset[k] += i * w->stride[k][d];
    }
}

enum { PIECE = 1 << 14 };

int64_t atomo__pieces(const atomo_walk *w)
{
    return w->rows == 1 ? (w->row + PIECE - 1) / PIECE : w->rows;
}

atomo_piece atomo__piece(const atomo_walk *w, int64_t i)
{
    atomo_piece p = {.out = i * w->row, .n = w->row};
    if (w->rows > 1) {
        atomo__walk_row(w, i, p.at);
        return p;
    }
    p.out = i * PIECE;
    p.n = ATOMO_MIN(PIECE, w->row - p.out);
    for (int k = 0; k < w->operands; k++) p.at[k] = p.out * w->stride[k][w->ndim - 1];
    return p;
}
