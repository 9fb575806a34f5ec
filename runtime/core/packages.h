/* packages.h - the functions of FFTW and OpenBLAS that atom sets, compressors and atomo_rfft call. Private.
 *
 * The libraries are loaded by dlopen when one of these functions is first needed (packages.c), so that the codec
 * library works without those that a compressor does not need. The descriptor of a compressor or atom set has
 * atomo__blas_missing or atomo__fftw_missing in its field `missing`; so no codec is made without them, and in its
 * stages atomo__blas() and atomo__fftw() do not return NULL.
 */
#ifndef ATOMO_PACKAGES_H
#define ATOMO_PACKAGES_H

#include "core/core.h"
#include <cblas.h>

typedef struct atomo__blas_table { /* OpenBLAS, with the LAPACK that it contains */
    __typeof__(&cblas_sgemm) sgemm;
    __typeof__(&cblas_ssyrk) ssyrk;
    __typeof__(&cblas_ssymm) ssymm;
    /* LAPACK's Fortran routine: the last two arguments are the lengths of both texts. */
    void (*ssyevd)(const char *jobz, const char *uplo, const int *n, float *a, const int *lda, float *w, float *work,
                   const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);
    char *(*config)(void), *(*corename)(void);
    void (*set_num_threads)(int n);
} atomo__blas_table;

/* FFTW in single precision; its plans are void *, a complex number is re, im. Declared here, without its header, so
 * that a build without FFTW compiles the same code. */
enum { ATOMO__FFTW_ESTIMATE = 1 << 6, ATOMO__FFTW_UNALIGNED = 1 << 1 };
typedef float atomo__complex[2];
typedef struct atomo__fftw_table {
    void *(*plan_r2c)(int n, float *in, atomo__complex *out, unsigned flags);
    void *(*plan_c2r)(int n, atomo__complex *in, float *out, unsigned flags);
    void *(*plan_many_r2c)(int rank, const int *n, int howmany, float *in, const int *inembed, int istride, int idist,
                           atomo__complex *out, const int *onembed, int ostride, int odist, unsigned flags);
    void *(*plan_many_c2r)(int rank, const int *n, int howmany, atomo__complex *in, const int *inembed, int istride,
                           int idist, float *out, const int *onembed, int ostride, int odist, unsigned flags);
    void (*destroy)(void *plan);
    void (*execute_r2c)(void *plan, float *in, atomo__complex *out);
    void (*execute_c2r)(void *plan, atomo__complex *in, float *out);
    int (*alignment_of)(float *x);
    const char *version;
} atomo__fftw_table;

/* Return the functions, loaded at the first call; NULL if the library cannot be loaded. Any thread may call them. */
const atomo__blas_table *atomo__blas(void);
const atomo__fftw_table *atomo__fftw(void);
/* Why a library is not there: "OpenBLAS cannot be loaded (...): apt install ..."; static; "" if it is there. */
const char *atomo__blas_missing(void);
const char *atomo__fftw_missing(void);
bool atomo__fftw_is_left_out(void); /* the build option ATOMO_FFTW is OFF */
/* EUNSUPPORTED "user: why" if missing() is not "". missing NULL: OK. */
int atomo__need(const char *user, const char *(*missing)(void));

/* Sets OpenBLAS's number of threads, at once if the process has loaded it already, else when it is loaded here. */
void atomo__blas_set_threads(int n);

/* FFTW's planner is not thread-safe: every call of plan_* and destroy holds this lock. */
void atomo__fft_lock(void);
void atomo__fft_unlock(void);

#endif
