/* platform.c - clock, number of cores and threads, peak memory, CRC-32. */
#define _GNU_SOURCE
#include "core/packages.h"
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

double atomo_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int atomo_num_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

int atomo_num_host_cores(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

static _Atomic int num_threads; /* 0: not set, OpenMP chooses */

int atomo_set_num_threads(int n)
{
    ATOMO_REQUIRE(n >= 1 && n <= 1024, ATOMO_EARG, "set_num_threads: %d, expected 1 to 1024", n);
    num_threads = n;
    omp_set_num_threads(n);
    atomo__blas_set_threads(n);
    return ATOMO_OK;
}

void atomo__default_num_threads(int local_ranks)
{
    int share = atomo_num_host_cores() / ATOMO_MAX(local_ranks, 1), bound = atomo_num_cores();
    if (num_threads == 0) atomo_set_num_threads(ATOMO_MAX(1, ATOMO_MIN(share, bound)));
}

int atomo_num_threads(void)
{
    return num_threads ? num_threads : omp_get_max_threads();
}

void atomo_await_readers(double seconds)
{
    const double until = atomo_time() + seconds;
    for (int fd = STDOUT_FILENO; fd <= STDERR_FILENO; fd++) {
        int left = 0;
        while (ioctl(fd, FIONREAD, &left) == 0 && left > 0 && atomo_time() < until)
            nanosleep(&(struct timespec){0, 2000000}, NULL);
    }
}

double atomo_crc32(const void *data, double nbytes)
{
    return (double)atomo__crc32(0, data, (size_t)nbytes);
}

/* Reads VmHWM on Linux, and uses getrusage elsewhere: on Linux its ru_maxrss includes the peak of the program that
 * called exec. */
double atomo_peak_rss(void)
{
    double kilobytes = 0;
    char line[128];
    FILE *f = fopen("/proc/self/status", "r");
    while (f && kilobytes == 0 && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %lf", &kilobytes) != 1) kilobytes = 0;
    if (f) fclose(f);
    struct rusage usage;
    if (kilobytes == 0 && getrusage(RUSAGE_SELF, &usage) == 0) kilobytes = (double)usage.ru_maxrss;
    return 1024 * kilobytes;
}
