/* test_alloc_failure.c - failing allocations: every scenario runs in a separate process with ATOMO_FAIL_ALLOC = 1, 2,
 * ... until it succeeds. Each failure must return ENOMEM, leave the output NULL, and leak no block. */
#include "check.h"
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Each scenario makes its inputs, calls one function, frees everything, and returns the status. */
#define INPUT(name, m, n)                                                                                              \
    atomo_tensor *name = NULL;                                                                                         \
    int rc = atomo_tensor_new(ATOMO_F32, 2, (double[]){m, n}, &name);                                                  \
    if (rc == 0) rc = atomo_fill(name, 1)

static int tensor(void)
{
    INPUT(t, 3, 4);
    atomo_tensor *v = NULL;
    if (rc == 0) rc = atomo_tensor_view(t, 2, (double[]){4, 3}, (double[]){1, 4}, 0, &v);
    atomo_tensor_free(t);
    atomo_tensor_free(v);
    return rc;
}

/* A transposed view, so that the contiguous copies are made as well. */
static int transposed(int call(const atomo_tensor *, atomo_tensor **), double m, double n)
{
    INPUT(t, n, m);
    atomo_tensor *v = NULL, *out = NULL;
    if (rc == 0) rc = atomo_tensor_view(t, 2, (double[]){m, n}, (double[]){1, m}, 0, &v);
    if (rc == 0) {
        rc = call(v, &out);
        if (rc < 0 && out) rc = ATOMO_EINTERNAL; /* an output was not freed */
    }
    atomo_tensor_free(t);
    atomo_tensor_free(v);
    atomo_tensor_free(out);
    return rc;
}

static int call_unary(const atomo_tensor *a, atomo_tensor **out)
{
    return atomo_unary(ATOMO_EXP, a, out);
}
static int call_binary(const atomo_tensor *a, atomo_tensor **out)
{
    return atomo_binary(ATOMO_ADD, a, a, out);
}
static int call_clamp(const atomo_tensor *a, atomo_tensor **out)
{
    return atomo_clamp(a, 0, 1, out);
}
static int call_reduce(const atomo_tensor *a, atomo_tensor **out)
{
    return atomo_reduce(ATOMO_SUM, a, 0, 0, out);
}
static int call_sum_to(const atomo_tensor *a, atomo_tensor **out)
{
    float zero = 0;
    atomo_tensor like = {.data = &zero, .dtype = ATOMO_F32, .ndim = 0, .numel = 1};
    return atomo_sum_to(a, &like, out);
}
static int call_matmul(const atomo_tensor *a, atomo_tensor **out)
{
    atomo_tensor strided = *a; /* strides that BLAS does not support */
    strided.shape[0] = strided.shape[1] = 2;
    strided.stride[0] = strided.stride[1] = 2;
    strided.numel = 4;
    return atomo_matmul(&strided, &strided, 0, ATOMO_PRECISION_FP32, out);
}
static int call_rfft(const atomo_tensor *a, atomo_tensor **out)
{
    return atomo_rfft(a, out);
}
static int call_irfft(const atomo_tensor *a, atomo_tensor **out)
{
    return atomo_irfft(a, 2 * (double)(a->shape[0] - 1), out);
}
static int call_svd(const atomo_tensor *a, atomo_tensor **out)
{
    atomo_tensor *s = NULL, *vt = NULL;
    int rc = atomo_svd(a, out, &s, &vt);
    if (rc < 0 && (s || vt)) rc = ATOMO_EINTERNAL;
    atomo_tensor_free(s);
    atomo_tensor_free(vt);
    return rc;
}
static int call_eigh(const atomo_tensor *a, atomo_tensor **out)
{
    atomo_tensor *v = NULL;
    int rc = atomo_eigh(a, out, &v);
    if (rc < 0 && v) rc = ATOMO_EINTERNAL;
    atomo_tensor_free(v);
    return rc;
}
static int call_qr(const atomo_tensor *a, atomo_tensor **out)
{
    atomo_tensor *r = NULL;
    int rc = atomo_qr(a, out, &r);
    if (rc < 0 && r) rc = ATOMO_EINTERNAL;
    atomo_tensor_free(r);
    return rc;
}

static const struct {
    const char *name;
    int (*call)(const atomo_tensor *, atomo_tensor **); /* NULL: tensors and views themselves */
    double m, n;
} scenarios[] = {
    {"tensor", NULL, 0, 0},        {"unary", call_unary, 3, 5},   {"binary", call_binary, 3, 5},
    {"clamp", call_clamp, 3, 5},   {"reduce", call_reduce, 3, 5}, {"sum_to", call_sum_to, 3, 5},
    {"matmul", call_matmul, 4, 4}, {"rfft", call_rfft, 3, 8},     {"irfft", call_irfft, 5, 2},
    {"svd", call_svd, 4, 3},       {"eigh", call_eigh, 4, 4},     {"qr", call_qr, 4, 3},
};

/* In the child: runs the scenario with its n-th allocation failing. Exit code 0: success; 1: ENOMEM without a leak; 2:
 * anything else. */
static int child(size_t which, int n)
{
    char text[16];
    snprintf(text, sizeof text, "%d", n);
    setenv("ATOMO_FAIL_ALLOC", text, 1);
    int rc =
        scenarios[which].call ? transposed(scenarios[which].call, scenarios[which].m, scenarios[which].n) : tensor();
    atomo_mem m;
    atomo_mem_stats(&m);
    bool clean = m.live_blocks == 0 && m.live == 0;
    if (rc < 0 && rc != ATOMO_ENOMEM) fprintf(stderr, "%s: %s\n", atomo_status_name(rc), atomo_last_error());
    if (rc == ATOMO_ENOMEM && !strstr(atomo_last_error(), "out of memory: ")) clean = false;
    return !clean ? 2 : rc == 0 ? 0 : rc == ATOMO_ENOMEM ? 1 : 2;
}

static size_t scenario;

static void sweep(void)
{
    int n = 1, outcome = 1;
    for (; n < 200 && outcome == 1; n++) {
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) _exit(child(scenario, n));
        int status = 0;
        if (!CHECK(pid > 0 && waitpid(pid, &status, 0) == pid)) return;
        outcome = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        check_report(outcome == 0 || outcome == 1, __FILE__, __LINE__,
                     "allocation %d: outcome %d (2: not clean, -1: crash)", n, outcome);
    }
    CHECK(outcome == 0 && n > 4); /* at least three allocations failed */
}

int main(void)
{
    for (scenario = 0; scenario < sizeof scenarios / sizeof *scenarios; scenario++) {
        check_begin();
        sweep();
        check_end(scenarios[scenario].name);
    }
    return check_done();
}
