/* embedding.c - table lookup: y[i] = w[index[i]]; the backward adds each row of gy to its row of gw. Path: stage 3. */
#include "nn/nn.h"
#include <string.h>

/* Returns the 1-based position of flat element i as text: "[2,3]". */
static const char *position_text(const atomo_tensor *t, int64_t i)
{
    double at[ATOMO_MAX_DIM];
    for (int d = t->ndim - 1; d >= 0; d--) {
        at[d] = (double)(i % atomo__size(t, d) + 1);
        i /= atomo__size(t, d);
    }
    return atomo__dims_text(t->ndim, at);
}

static int check(const char *fn, const atomo_tensor *index, int64_t rows)
{
    ATOMO_TRY(atomo__expect_argument(index, ATOMO_I32, -1, fn, "input"));
    ATOMO_REQUIRE(index->ndim < ATOMO_MAX_DIM, ATOMO_ESHAPE, "%s: input has %d dimensions, at most %d", fn, index->ndim,
                  ATOMO_MAX_DIM - 1);
    const int32_t *k = atomo__i32(index);
    for (int64_t i = 0; i < atomo__numel(index); i++)
        ATOMO_REQUIRE(k[i] >= 0 && k[i] < rows, ATOMO_EARG, "%s: index %d at position %s of input %s, expected 0 to %d",
                      fn, k[i], position_text(index, i), atomo__shape_text(index), (int)rows - 1);
    return ATOMO_OK;
}

static void y_shape(const atomo_tensor *index, double width, double *shape)
{
    for (int i = 0; i < index->ndim; i++) shape[i] = index->shape[i];
    shape[index->ndim] = width;
}

int atomo_embedding(const atomo_tensor *w, const atomo_tensor *index, atomo_tensor **out)
{
    ATOMO_MAKING(made, w, index);
    double shape[ATOMO_MAX_DIM];
    ATOMO_TRY(atomo__expect(w, ATOMO_F32, 2, "embedding: weight"));
    ATOMO_TRY(check("embedding", index, atomo__size(w, 0)));
    y_shape(index, w->shape[1], shape);
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, index->ndim + 1, shape, "embedding"));
    const int64_t d = atomo__size(w, 1);
    const int32_t *k = atomo__i32(index);
    for (int64_t i = 0; i < atomo__numel(index); i++)
        memcpy(atomo__f32(*out) + i * d, atomo__f32(w) + k[i] * d, (size_t)d * sizeof(float));
    return atomo__made(&made, ATOMO_OK);
}

int atomo_embedding_backward(const atomo_tensor *w, const atomo_tensor *index, const atomo_tensor *gy, int padding,
                             atomo_tensor **gw)
{
    ATOMO_MAKING(made, index, gy);
    double shape[ATOMO_MAX_DIM];
    ATOMO_TRY(atomo__expect(w, ATOMO_F32, 2, "embedding: weight"));
    ATOMO_TRY(check("embedding backward", index, atomo__size(w, 0)));
    y_shape(index, w->shape[1], shape);
    ATOMO_TRY(atomo__expect_gradient(gy, index->ndim + 1, shape, "embedding backward"));
    ATOMO_TRY(atomo__make(&made, gw, ATOMO_F32, 2, w->shape, "embedding backward: gw"));
    const int64_t d = atomo__size(w, 1);
    const int32_t *k = atomo__i32(index);
    memset((*gw)->data, 0, (size_t)(*gw)->numel * sizeof(float));
    for (int64_t i = 0; i < atomo__numel(index); i++)
        if (k[i] != padding) atomo__add_to(d, atomo__f32(gy) + i * d, atomo__f32(*gw) + k[i] * d);
    return atomo__made(&made, ATOMO_OK);
}
