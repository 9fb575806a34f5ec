/* omp.h - OpenMP's run-time functions for a program of one thread: what the fuzz targets are built with, since clang
 * comes without an OpenMP run time and a fuzzer is faster and repeatable on one thread. */
#ifndef ATOMO_FUZZ_OMP_H
#define ATOMO_FUZZ_OMP_H

static inline void omp_set_num_threads(int n)
{
    (void)n;
}
static inline int omp_get_max_threads(void)
{
    return 1;
}
static inline int omp_get_num_threads(void)
{
    return 1;
}
static inline int omp_get_thread_num(void)
{
    return 0;
}
static inline int omp_get_num_procs(void)
{
    return 1;
}
static inline int omp_in_parallel(void)
{
    return 0;
}

#endif
