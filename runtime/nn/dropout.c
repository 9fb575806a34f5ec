/* dropout.c - dropout with a mask from a counter-based random stream. The mask is not stored; the backward draws the
 * same one again. E[y] = x; Var[y_i] = x_i^2 p / (1 - p). Path: stage 3. */
#include "nn/nn.h"

enum { BLOCK = 4096 }; /* elements; a multiple of the generator's 4 */

ATOMO_CLONES static void drop(int64_t n, float p, float scale, const float *restrict x, const float *restrict u,
                              float *restrict y)
{
    for (int64_t i = 0; i < n; i++) y[i] = u[i] >= p ? x[i] * scale : 0;
}

int atomo_dropout(const atomo_tensor *x, double p, const atomo_stream *stream, atomo_tensor **out)
{
    ATOMO_MAKING(made, x);
    ATOMO_TRY(atomo__expect(x, ATOMO_F32, -1, "dropout: input"));
    ATOMO_REQUIRE(p >= 0 && p < 1, ATOMO_EARG, "dropout: p is %g, expected 0 <= p < 1", p);
    ATOMO_REQUIRE(x->numel < 0x1p34, ATOMO_ELIMIT, "dropout: input %s is longer than a random stream",
                  atomo__shape_text(x));
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, x->ndim, x->shape, "dropout"));
    const int64_t n = atomo__numel(x);
    const float *xd = atomo__f32(x);
    float *y = atomo__f32(*out);
#pragma omp parallel for schedule(static) if (n > ATOMO_PARALLEL_MIN)
    for (int64_t i = 0; i < n; i += BLOCK) {
        float u[BLOCK];
        const int64_t m = ATOMO_MIN(BLOCK, n - i);
        atomo_random_uniform(stream, (double)i, (double)m, u);
        drop(m, (float)p, (float)(1 / (1 - p)), xd + i, u, y + i);
    }
    return atomo__made(&made, ATOMO_OK);
}
