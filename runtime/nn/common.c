/* common.c - helpers of the layers: bias gradients, sums of vectors, checks. Path: stage 3. */
#include "nn/nn.h"
#include <omp.h>
#include <string.h>

enum { BLOCK_ROWS = 256, PERIOD = 128 };

/* sum[c] += all rows of a [rows, c]. `group` rows are treated as one long row, so that the inner loop is long for few
 * channels. wide: scratch [group * c]. */
ATOMO_CLONES static void add_rows(const float *restrict a, int64_t rows, int64_t c, int64_t group, float *restrict wide,
                                  float *restrict sum)
{
    const int64_t period = group * c, whole = rows / group;
    memset(wide, 0, (size_t)period * sizeof(float));
    for (int64_t r = 0; r < whole; r++) {
        atomo__ask(a + r * period, BLOCK_ROWS * c, period, 0);
        for (int64_t j = 0; j < period; j++) wide[j] += a[r * period + j];
    }
    for (int64_t j = 0; j < (rows - whole * group) * c; j++) wide[j] += a[whole * period + j];
    for (int64_t g = 0; g < group; g++)
        for (int64_t j = 0; j < c; j++) sum[j] += wide[g * c + j];
}

ATOMO_CLONES void atomo__add_to(int64_t n, const float *restrict from, float *restrict to)
{
    for (int64_t i = 0; i < n; i++) to[i] += from[i];
}

int atomo__column_sums(const float *a, int64_t rows, int64_t c, float *out)
{
    const int64_t blocks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS, group = ATOMO_MAX(1, PERIOD / ATOMO_MAX(c, 1));
    void *space;
    ATOMO_TRY(atomo__calloc(&space, (size_t)((blocks + omp_get_max_threads() * group) * c) * sizeof(float)));
    float *partial = space, *wide = partial + blocks * c;
    ATOMO_FOR(b, blocks, 1, rows * c > ATOMO_PARALLEL_MIN,
              add_rows(a + b * BLOCK_ROWS * c, ATOMO_MIN(BLOCK_ROWS, rows - b * BLOCK_ROWS), c, group,
                       wide + omp_get_thread_num() * group * c, partial + b * c));
    for (int64_t j = 0; j < c; j++) {
        double sum = 0;
        for (int64_t b = 0; b < blocks; b++) sum += (double)partial[b * c + j];
        out[j] = (float)sum;
    }
    atomo__free(space);
    return ATOMO_OK;
}

int atomo__expect_gradient(const atomo_tensor *gy, int ndim, const double *shape, const char *fn)
{
    ATOMO_TRY(atomo__expect_argument(gy, ATOMO_F32, -1, fn, "gy"));
    bool same = gy->ndim == ndim;
    for (int i = 0; same && i < ndim; i++) same = gy->shape[i] == shape[i];
    ATOMO_REQUIRE(same, ATOMO_ESHAPE, "%s: gy is %s, expected %s", fn, atomo__shape_text(gy),
                  atomo__dims_text(ndim, shape));
    return ATOMO_OK;
}

int atomo__check_window(const atomo_window *g, const char *fn)
{
    static const char *const side[2] = {"height", "width"};
    const int32_t most = 1 << 24;
    for (int i = 0; i < 2; i++) {
        ATOMO_REQUIRE(g->stride[i] >= 1 && g->stride[i] < most, ATOMO_EARG, "%s: stride %d (%s), expected >= 1", fn,
                      g->stride[i], side[i]);
        ATOMO_REQUIRE(g->dilation[i] >= 1 && g->dilation[i] < most, ATOMO_EARG, "%s: dilation %d (%s), expected >= 1",
                      fn, g->dilation[i], side[i]);
        ATOMO_REQUIRE(g->padding[i] >= 0 && g->padding[i] < most, ATOMO_EARG, "%s: padding %d (%s), expected >= 0", fn,
                      g->padding[i], side[i]);
    }
    return ATOMO_OK;
}
