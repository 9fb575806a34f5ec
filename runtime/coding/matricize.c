/* matricize.c - folds a tensor to a matrix, and adds rank-k updates of the matrix to the tensor; stages 4 and 8 of the
 * path.
 *
 * A plain fold is a reshape of the stored tensor. The paper's fold (Wang et al. 2018, section 5, and their code) puts
 * two kernels of a convolution's weight into each row: (a, b, k, k) -> (ab/2, 2k^2), with kernels in the order o*b + i.
 * Since weights are stored as [out, kh, kw, in] here, its entries are gathered. If the number of kernels is odd, half
 * of the last row is zero. The update is not computed by BLAS: the terms of every element are added in order, so that
 * the result is bit-identical on every CPU.
 */
#include "coding/messages.h"
#include <math.h>

/* Atoms and columns that are added at a time: 8 rows of 512 floats and a row of acc fit in a 32 KiB cache. */
enum { GROUP = 8, WIDTH = 512 };

void atomo__fold_gather(const atomo__fold *f, const float *g, int exponent, float *matrix)
{
    /* two factors, because 2^exponent may not be an f32 */
    const float s1 = ldexpf(1, exponent / 2), s2 = ldexpf(1, exponent - exponent / 2);
    if (f->taps == 0) {
        for (int64_t i = 0; i < f->rows * f->cols; i++) matrix[i] = g[i] * s1 * s2;
        return;
    }
    for (int64_t q = 0; q < 2 * f->rows; q++) {
        int64_t o = q / f->in, i = q % f->in;
        float *to = matrix + q * f->taps;
        for (int64_t t = 0; t < f->taps; t++) to[t] = o < f->out ? g[(o * f->taps + t) * f->in + i] * s1 * s2 : 0;
    }
}

/* acc[0..n) += sum over 8 atoms of s[j] b_j[0..n), in order. */
ATOMO_CLONES static void add8(float *restrict acc, const float *restrict b, int64_t ldb, int64_t n, const float *s)
{
    const float s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3], s4 = s[4], s5 = s[5], s6 = s[6], s7 = s[7];
    const float *b1 = b + ldb, *b2 = b1 + ldb, *b3 = b2 + ldb, *b4 = b3 + ldb, *b5 = b4 + ldb, *b6 = b5 + ldb,
                *b7 = b6 + ldb;
    for (int64_t i = 0; i < n; i++) {
        float v = acc[i];
        v += s0 * b[i];
        v += s1 * b1[i];
        v += s2 * b2[i];
        v += s3 * b3[i];
        v += s4 * b4[i];
        v += s5 * b5[i];
        v += s6 * b6[i];
        v += s7 * b7[i];
        acc[i] = v;
    }
}

/* Adds rows r0 .. r1 - 1 of the update to acc, which points to row r0. */
static void rank_add_rows(int64_t rows, int64_t cols, int64_t r0, int64_t r1, const float *a, const float *b, int k,
                          float *acc)
{
    for (int64_t c = 0; c < cols; c += WIDTH) {
        int64_t n = ATOMO_MIN((int64_t)WIDTH, cols - c);
        for (int j = 0; j < k; j += GROUP) {
            int group = ATOMO_MIN(GROUP, k - j);
            for (int64_t r = r0; r < r1; r++) {
                float *to = acc + (r - r0) * cols + c, s[GROUP];
                for (int l = 0; l < group; l++) s[l] = a[(j + l) * rows + r];
                if (group == GROUP) {
                    add8(to, b + j * cols + c, cols, n, s);
                } else {
                    for (int l = 0; l < group; l++) atomo__add_scaled(b + (j + l) * cols + c, n, s[l], to);
                }
            }
        }
    }
}

static void scatter_rows(const atomo__fold *f, int64_t r0, int64_t r1, const float *tile, float *acc)
{
    for (int64_t q = 2 * r0; q < 2 * r1; q++) {
        int64_t o = q / f->in, i = q % f->in;
        const float *from = tile + (q - 2 * r0) * f->taps;
        for (int64_t t = 0; o < f->out && t < f->taps; t++) acc[(o * f->taps + t) * f->in + i] += from[t];
    }
}

void atomo__fold_rank_add(const atomo__fold *f, const float *a, const float *b, int k, float *acc, float *tile)
{
    for (int64_t r = 0; r < f->rows; r += ATOMO__TILE_ROWS) {
        int64_t end = ATOMO_MIN(r + ATOMO__TILE_ROWS, f->rows);
        if (f->taps == 0) {
            rank_add_rows(f->rows, f->cols, r, end, a, b, k, acc + r * f->cols);
            continue;
        }
        memset(tile, 0, sizeof(float) * (size_t)((end - r) * f->cols));
        rank_add_rows(f->rows, f->cols, r, end, a, b, k, tile);
        scatter_rows(f, r, end, tile, acc);
    }
}
