/* transform1d.h - real orthonormal transforms of a line (transform1d.c), and along the axes of a matrix
 * (transform2d.c). Private. */
#ifndef ATOMO_TRANSFORM1D_H
#define ATOMO_TRANSFORM1D_H

#include "atoms/common/basis.h"

enum { ATOMO__FOURIER, ATOMO__DCT };
typedef struct atomo__line {
    int kind;                 /* ATOMO__FOURIER or ATOMO__DCT */
    int64_t n;                /* entries */
    void *forward, *backward; /* FFTW's plans */
    double *turn;             /* DCT: cosines and sines; else NULL */
} atomo__line;
/* work: scratch [n + 2]. ENUMERIC if FFTW has no plan. The caller calls atomo__line_free, also after a failure. */
int atomo__line_plan(atomo__line *l, int kind, int64_t n, float *work);
void atomo__line_free(atomo__line *l);
void atomo__line_run(const atomo__line *l, float *x, bool inverse, float *work); /* transforms x [n] in place */

typedef struct atomo__separable {
    int64_t rows, cols;
    int64_t chunk[2];       /* length of a transform along a row, along a column; the last one may be shorter */
    atomo__line line[2][2]; /* [axis][1: the shorter last chunk] */
} atomo__separable;
/* Transforms x [rows, cols] in place; work: scratch [rows * cols + ATOMO__SEPARABLE_PAD]. Statuses as above. */
enum { ATOMO__SEPARABLE_PAD = 2 };
int atomo__separable_plan(atomo__separable *s, int kind, int64_t rows, int64_t cols, const int64_t chunk[2],
                          float *work, const char *name);
void atomo__separable_free(atomo__separable *s);
void atomo__separable_run(const atomo__separable *s, float *x, bool inverse, float *work);
/* Stages plan, stop and transform of an atom set whose own state (atomo__basis_state) is an atomo__separable. */
int atomo__separable_size(atomo__plan *plan);
void atomo__separable_stop(atomo__plan *plan);
void atomo__separable_transform(const atomo__plan *plan, float *x, bool inverse, float *work);

#endif
