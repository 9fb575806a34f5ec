/* check.h - the framework of the C tests. CHECK is never compiled out, and continues after a failure. A case is a
 * function: main calls RUN(case) for each and ends with `return check_done();`, which prints the closing line "N
 * passed, N failed" (cases) that scripts/test.sh adds up. A case that leaks a block of the runtime's memory fails. */
#ifndef ATOMO_TEST_CHECK_H
#define ATOMO_TEST_CHECK_H

#include "core/core.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_passed, check_failed; /* cases */
static long check_wrong;               /* checks that failed in this case */

__attribute__((format(printf, 4, 5))) static inline bool check_report(bool ok, const char *file, int line,
                                                                      const char *fmt, ...)
{
    if (ok) return true;
    if (++check_wrong > 20) return false; /* print at most 20 failures */
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "%s:%d: failed: ", file, line);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return false;
}

/* CHECK(cond): cond is true. CHECK_OK(call): status 0. CHECK_STATUS(call, status, "part of the text"): the expected
 * failure and a part of its text. CHECK_NEAR(a, b, tol): |a - b| <= tol, and neither is NaN. */
#define CHECK(cond)                      check_report((cond), __FILE__, __LINE__, "%s", #cond)
#define CHECK_OK(call)                   check_status((call), 0, NULL, __FILE__, __LINE__, #call)
#define CHECK_STATUS(call, status, text) check_status((call), (status), (text), __FILE__, __LINE__, #call)
#define CHECK_NEAR(a, b, tol)            check_near((a), (b), (tol), __FILE__, __LINE__, #a " = " #b)

static inline bool check_status(int got, int want, const char *text, const char *file, int line, const char *call)
{
    const char *last = atomo_last_error();
    bool said = !text || strstr(last, text) != NULL;
    return check_report(got == want && said, file, line, "%s: %s \"%s\", expected %s with \"%s\"", call,
                        atomo_status_name(got), got ? last : "", atomo_status_name(want), text ? text : "");
}

static inline bool check_near(double a, double b, double tol, const char *file, int line, const char *what)
{
    return check_report(fabs(a - b) <= tol, file, line, "%s: %.9g and %.9g differ by %.3g, more than %.3g", what, a, b,
                        fabs(a - b), tol);
}

static double check_live_blocks(void)
{
    atomo_mem m;
    atomo_mem_stats(&m);
    return m.live_blocks;
}

static double check_blocks_before;

static inline void check_begin(void)
{
    check_wrong = 0;
    check_blocks_before = check_live_blocks();
}

static inline void check_end(const char *name)
{
    double left = check_live_blocks() - check_blocks_before;
    check_report(left == 0, name, 0, "%.0f blocks of memory are left behind", left);
    if (check_wrong) fprintf(stderr, "FAILED: %s (%ld checks)\n", name, check_wrong);
    if (check_wrong)
        check_failed++;
    else
        check_passed++;
}

#define RUN(test_case)                                                                                                 \
    do {                                                                                                               \
        check_begin();                                                                                                 \
        test_case();                                                                                                   \
        check_end(#test_case);                                                                                         \
    } while (0)

static inline int check_done(void)
{
    printf("%d passed, %d failed\n", check_passed, check_failed);
    return check_failed ? 1 : 0;
}

/* REQUIRE(cond): a check on which the rest depends; if it fails, the program ends. */
#define REQUIRE(cond)                                                                                                  \
    do {                                                                                                               \
        if (!CHECK(cond)) {                                                                                            \
            check_failed++;                                                                                            \
            exit(check_done());                                                                                        \
        }                                                                                                              \
    } while (0)

/* Returns the index of compressor i's option `key`, which must be there: others may follow it. */
static inline int check_option(int i, const char *key)
{
    atomo_codec_info about;
    atomo_option_info option;
    REQUIRE(atomo_codec_about(i, &about) == ATOMO_OK);
    for (int j = 0; j < about.options; j++)
        if (atomo_codec_option(i, j, &option) == ATOMO_OK && strcmp(option.key, key) == 0) return j;
    check_report(false, __FILE__, __LINE__, "%s has no option %s", about.name, key);
    return 0;
}

/* ---- small helpers over tensors ---------------------------------------------------------------------------------- */

/* A new f32 tensor [m] or [m,n] (n >= 0); NULL is counted as a failure. */
static inline atomo_tensor *check_tensor(double m, double n)
{
    atomo_tensor *t = NULL;
    CHECK_OK(atomo_tensor_new(ATOMO_F32, n < 0 ? 1 : 2, (double[]){m, n}, &t));
    return t;
}

static inline float *check_f32(const atomo_tensor *t)
{
    return (float *)t->data;
}

#endif
