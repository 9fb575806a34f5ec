/* winograd.c - the transforms of Winograd's minimal filtering F(m x m, 3 x 3) [Winograd 1980; Lavin & Gray 2016].
 *
 *   y = A^T ((G w G^T) . (B^T x B)) A,  and its adjoint  gw = G^T ((A gy A^T) . (B^T x B)) G
 *
 * The matrices are Toom-Cook's for the points 0, +-P, +-Q, infinity (m = 4: 36 products instead of 144) or 0, +-R,
 * infinity (m = 2: 16 instead of 36). P and Q were chosen for the smallest rounding error.
 * Channels are processed in vectors of 16. Plain arithmetic in a fixed order is bit-identical on every CPU.
 * Path: stage 3.
 */
#include "nn/winograd.h"
#include "core/core.h"

typedef float lanes __attribute__((vector_size(64), aligned(4), may_alias));
typedef void transform(const lanes *x, int sx, lanes *y, int sy); /* of a row or column with elements sx, sy apart */
#define INLINE static inline __attribute__((always_inline))

#define P  0.625f
#define Q  1.5f
#define P2 (P * P)
#define Q2 (Q * Q)
#define NP (1 / (2 * P2 * (P2 - Q2))) /* 1 over the product of a point's distances to the others */
#define NQ (1 / (2 * Q2 * (Q2 - P2)))
#define N0 (1 / (P2 * Q2))
#define R  1.0f /* the point of m = 2 */
#define NR 0.5f

INLINE void input6(const lanes *x, int sx, lanes *y, int sy)
{
    lanes x0 = x[0], x1 = x[sx], x2 = x[2 * sx], x3 = x[3 * sx], x4 = x[4 * sx], x5 = x[5 * sx];
    lanes t = x4 - Q2 * x2, u = P * (x3 - Q2 * x1), s = x4 - P2 * x2, v = Q * (x3 - P2 * x1);
    y[0] = t - P2 * (x2 - Q2 * x0);
    y[sy] = t + u;
    y[2 * sy] = t - u;
    y[3 * sy] = s + v;
    y[4 * sy] = s - v;
    y[5 * sy] = (x5 - Q2 * x3) - P2 * (x3 - Q2 * x1);
}

INLINE void output6(const lanes *x, int sx, lanes *y, int sy)
{
    lanes p = x[sx] + x[2 * sx], q = x[sx] - x[2 * sx], r = x[3 * sx] + x[4 * sx], s = x[3 * sx] - x[4 * sx];
    lanes x0 = x[0], x5 = x[5 * sx];
    y[0] = x0 + p + r;
    y[sy] = P * q + Q * s;
    y[2 * sy] = P2 * p + Q2 * r;
    y[3 * sy] = P * P2 * q + Q * Q2 * s + x5;
}

INLINE void gradient6(const lanes *x, int sx, lanes *y, int sy)
{
    lanes x0 = x[0], x1 = x[sx], x2 = x[2 * sx], x3 = x[3 * sx];
    lanes p = x0 + P2 * x2, q = P * x1 + P * P2 * x3, r = x0 + Q2 * x2, s = Q * x1 + Q * Q2 * x3;
    y[0] = x0;
    y[sy] = p + q;
    y[2 * sy] = p - q;
    y[3 * sy] = r + s;
    y[4 * sy] = r - s;
    y[5 * sy] = x3;
}

INLINE void weight6(const lanes *x, int sx, lanes *y, int sy)
{
    lanes x0 = x[0], x1 = x[sx], x2 = x[2 * sx];
    lanes p = NP * (x0 + P2 * x2), q = NP * P * x1, r = NQ * (x0 + Q2 * x2), s = NQ * Q * x1;
    y[0] = N0 * x0;
    y[sy] = p + q;
    y[2 * sy] = p - q;
    y[3 * sy] = r + s;
    y[4 * sy] = r - s;
    y[5 * sy] = x2;
}

INLINE void weight_gradient6(const lanes *x, int sx, lanes *y, int sy)
{
    lanes p = NP * (x[sx] + x[2 * sx]), q = NP * P * (x[sx] - x[2 * sx]);
    lanes r = NQ * (x[3 * sx] + x[4 * sx]), s = NQ * Q * (x[3 * sx] - x[4 * sx]);
    lanes x0 = x[0], x5 = x[5 * sx];
    y[0] = N0 * x0 + p + r;
    y[sy] = q + s;
    y[2 * sy] = P2 * p + Q2 * r + x5;
}

INLINE void input4(const lanes *x, int sx, lanes *y, int sy)
{
    lanes x0 = x[0], x1 = x[sx], x2 = x[2 * sx], x3 = x[3 * sx];
    y[0] = R * R * x0 - x2;
    y[sy] = x2 + R * x1;
    y[2 * sy] = x2 - R * x1;
    y[3 * sy] = x3 - R * R * x1;
}

INLINE void output4(const lanes *x, int sx, lanes *y, int sy)
{
    lanes x0 = x[0], x1 = x[sx], x2 = x[2 * sx], x3 = x[3 * sx];
    y[0] = x0 + x1 + x2;
    y[sy] = R * (x1 - x2) + x3;
}

INLINE void gradient4(const lanes *x, int sx, lanes *y, int sy)
{
    lanes x0 = x[0], x1 = x[sx];
    y[0] = x0;
    y[sy] = x0 + R * x1;
    y[2 * sy] = x0 - R * x1;
    y[3 * sy] = x1;
}

INLINE void weight4(const lanes *x, int sx, lanes *y, int sy)
{
    lanes x0 = x[0], x1 = x[sx], x2 = x[2 * sx];
    lanes p = NR * (x0 + R * R * x2), q = NR * R * x1;
    y[0] = x0;
    y[sy] = p + q;
    y[2 * sy] = p - q;
    y[3 * sy] = x2;
}

INLINE void weight_gradient4(const lanes *x, int sx, lanes *y, int sy)
{
    lanes x0 = x[0], x1 = x[sx], x2 = x[2 * sx], x3 = x[3 * sx];
    y[0] = x0 + NR * (x1 + x2);
    y[sy] = NR * R * (x1 - x2);
    y[2 * sy] = NR * R * R * (x1 + x2) + x3;
}

/* Applies f to the columns of x [nx,nx], then to the rows of the result: y [ny,ny]. */
INLINE void both(transform *f, int nx, int ny, const lanes *x, lanes *y)
{
    lanes t[WINO_POINTS];
    for (int j = 0; j < nx; j++) f(x + j, nx, t + j, nx);
    for (int i = 0; i < ny; i++) f(t + i * nx, 1, y + i * ny, 1);
}

INLINE void spread(transform *f, int nx, int ny, int64_t c, const float *const *rows, float *v, int64_t step)
{
    lanes x[WINO_POINTS], y[WINO_POINTS];
    for (int64_t o = 0; o < c; o += WINO_LANES) {
        for (int k = 0; k < nx * nx; k++) x[k] = *(const lanes *)(rows[k] + o);
        both(f, nx, ny, x, y);
        for (int k = 0; k < ny * ny; k++) *(lanes *)(v + k * step + o) = y[k];
    }
}

ATOMO_CLONES void atomo__wino_input(int m, int64_t c, const float *const *rows, float *v, int64_t step)
{
    if (m == 4)
        spread(input6, 6, 6, c, rows, v, step);
    else
        spread(input4, 4, 4, c, rows, v, step);
}

ATOMO_CLONES void atomo__wino_gradient(int m, int64_t c, const float *const *rows, float *v, int64_t step)
{
    if (m == 4)
        spread(gradient6, 4, 6, c, rows, v, step);
    else
        spread(gradient4, 2, 4, c, rows, v, step);
}

INLINE void collect(transform *f, int nx, int ny, int64_t c, const float *v, int64_t step, const float *bias, bool add,
                    float *const *rows)
{
    lanes x[WINO_POINTS], y[WINO_POINTS], b = {0};
    for (int64_t o = 0; o < c; o += WINO_LANES) {
        for (int k = 0; k < nx * nx; k++) x[k] = *(const lanes *)(v + k * step + o);
        both(f, nx, ny, x, y);
        if (bias) b = *(const lanes *)(bias + o);
        if (add)
            for (int k = 0; k < ny * ny; k++) *(lanes *)(rows[k] + o) += y[k] + b;
        else
            for (int k = 0; k < ny * ny; k++) *(lanes *)(rows[k] + o) = y[k] + b;
    }
}

ATOMO_CLONES void atomo__wino_output(int m, int64_t c, const float *v, int64_t step, const float *bias, bool add,
                                     float *const *rows)
{
    if (m == 4)
        collect(output6, 6, 4, c, v, step, bias, add, rows);
    else
        collect(output4, 4, 2, c, v, step, bias, add, rows);
}

ATOMO_CLONES void atomo__wino_weight(int m, bool flip, int64_t c, const float *w, int64_t apart, float *v, int64_t step)
{
    const float *rows[9];
    for (int k = 0; k < 9; k++) rows[k] = w + (flip ? 8 - k : k) * apart;
    if (m == 4)
        spread(weight6, 3, 6, c, rows, v, step);
    else
        spread(weight4, 3, 4, c, rows, v, step);
}

ATOMO_CLONES void atomo__wino_weight_gradient(int m, int64_t c, const float *v, int64_t step, float *gw)
{
    float *rows[9];
    for (int k = 0; k < 9; k++) rows[k] = gw + k * c;
    if (m == 4)
        collect(weight_gradient6, 6, 3, c, v, step, NULL, false, rows);
    else
        collect(weight_gradient4, 4, 3, c, v, step, NULL, false, rows);
}
