/* index.c - gathers and scatter-adds along one dimension by i32 indices (0-based here, 1-based in Lua and in error
 * texts). */
#include "tensor/tensor.h"
#include <string.h>

static int check_index(const atomo_tensor *a, int dim, const atomo_tensor *index, const char *what)
{
    ATOMO_REQUIRE(dim >= 0 && dim < a->ndim, ATOMO_EARG, "%s: dimension %d of a tensor with %d", what, dim + 1,
                  a->ndim);
    ATOMO_TRY(atomo__expect(index, ATOMO_I32, 1, what));
    const int32_t *k = atomo__i32(index);
    for (int64_t i = 0; i < atomo__numel(index); i++)
        ATOMO_REQUIRE(k[i] >= 0 && k[i] < atomo__size(a, dim), ATOMO_EARG,
                      "%s %d at position %lld is outside 1 to %lld", what, k[i] + 1, (long long)i + 1,
                      (long long)atomo__size(a, dim));
    return ATOMO_OK;
}

int atomo_index_select(const atomo_tensor *a, int dim, const atomo_tensor *index, atomo_tensor **out)
{
    ATOMO_MAKING(made, a, index);
    ATOMO_TRY(check_index(a, dim, index, "index_select: index"));
    ATOMO_TRY(atomo__expect(a, a->dtype, -1, "index_select: tensor"));
    double shape[ATOMO_MAX_DIM];
    int64_t outer = 1, inner = (int64_t)atomo__dtype_size(a->dtype);
    for (int i = 0; i < a->ndim; i++) {
        shape[i] = i == dim ? index->numel : a->shape[i];
        if (i < dim) outer *= atomo__size(a, i);
        if (i > dim) inner *= atomo__size(a, i);
    }
    ATOMO_TRY(atomo__make(&made, out, a->dtype, a->ndim, shape, "index_select"));
    int64_t n = atomo__numel(index), m = atomo__size(a, dim);
    char *o = (*out)->data;
    const char *x = a->data;
    for (int64_t r = 0; r < outer; r++)
        for (int64_t i = 0; i < n; i++)
            memcpy(o + (r * n + i) * inner, x + (r * m + atomo__i32(index)[i]) * inner, (size_t)inner);
    return atomo__made(&made, ATOMO_OK);
}

static void add_floats(float *y, const float *x, int64_t n)
{
    for (int64_t j = 0; j < n; j++) y[j] += x[j];
}

/* Wraps around; unsigned, since signed overflow is undefined. */
static void add_integers(int32_t *y, const int32_t *x, int64_t n)
{
    for (int64_t j = 0; j < n; j++) y[j] = (int32_t)((uint32_t)y[j] + (uint32_t)x[j]);
}

int atomo_index_add(atomo_tensor *a, int dim, const atomo_tensor *index, const atomo_tensor *src)
{
    ATOMO_TRY(check_index(a, dim, index, "index_add: index"));
    ATOMO_TRY(atomo__expect(a, a->dtype == ATOMO_I32 ? ATOMO_I32 : ATOMO_F32, -1, "index_add: tensor"));
    ATOMO_TRY(atomo__expect(src, a->dtype, a->ndim, "index_add: source"));
    int64_t outer = 1, inner = 1, n = atomo__numel(index), m = atomo__size(a, dim);
    for (int i = 0; i < a->ndim; i++) {
        ATOMO_REQUIRE(src->shape[i] == (i == dim ? index->numel : a->shape[i]), ATOMO_ESHAPE,
                      "index_add: source %s, tensor %s, %lld indices", atomo__shape_text(src), atomo__shape_text(a),
                      (long long)n);
        if (i < dim) outer *= atomo__size(a, i);
        if (i > dim) inner *= atomo__size(a, i);
    }
    const atomo_tensor *from;
    atomo_tensor *hold;
    ATOMO_TRY(atomo__operand_apart(a, src, &from, &hold));
    for (int64_t r = 0; r < outer; r++)
        for (int64_t i = 0; i < n; i++) {
            const int64_t to = (r * m + atomo__i32(index)[i]) * inner, at = (r * n + i) * inner;
            if (a->dtype == ATOMO_F32)
                add_floats(atomo__f32(a) + to, atomo__f32(from) + at, inner);
            else
                add_integers(atomo__i32(a) + to, atomo__i32(from) + at, inner);
        }
    atomo_tensor_free(hold);
    return ATOMO_OK;
}
