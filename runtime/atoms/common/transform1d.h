/* transform1d.h - real orthonormal transforms of a line (transform1d.c), and of the axes of a matrix (transform2d.c).
 * Private. */
#ifndef ATOMO_TRANSFORM1D_H
#define ATOMO_TRANSFORM1D_H

#include "atoms/common/basis.h"

enum { ATOMO__FOURIER, ATOMO__DCT };
typedef struct atomo__line {
    int kind;
    int64_t n;
    void *forward, *backward; /* FFTW's plans */
    double *turn;             /* DCT: cosines and sines */
} atomo__line;
/* work: room for n + 2 floats. ENUMERIC where FFTW has no plan; then too, what there is has to be freed. */
int atomo__line_plan(atomo__line *l, int kind, int64_t n, float *work);
void atomo__line_free(atomo__line *l);
void atomo__line_run(const atomo__line *l, float *x, bool inverse, float *work); /* x [n] in place */

typedef struct atomo__separable {
    int64_t rows, cols;
    int64_t chunk[2];       /* length of a transform along cols, along rows; the last one of an axis may be shorter */
    atomo__line line[2][2]; /* [axis][shorter] */
} atomo__separable;
/* In place on [rows, cols]; work: room for rows * cols + ATOMO__SEPARABLE_PAD floats. Statuses as above. */
enum { ATOMO__SEPARABLE_PAD = 2 };
int atomo__separable_plan(atomo__separable *s, int kind, int64_t rows, int64_t cols, const int64_t chunk[2],
                          float *work, const char *name);
void atomo__separable_free(atomo__separable *s);
void atomo__separable_run(const atomo__separable *s, float *x, bool inverse, float *work);
/* Stages of an atom set whose own state is a separable: plan, stop, transform. */
int atomo__separable_size(atomo__plan *plan);
void atomo__separable_stop(atomo__plan *plan);
void atomo__separable_transform(const atomo__plan *plan, float *x, bool inverse, float *work);

#endif
