/* test_readers.c - every reader with its n-th allocation failing, n = 1, 2, ...: ENOMEM, no output, no leak. Runs in
 * the root of the source tree (it reads tests/golden). */
#define _GNU_SOURCE
#include "check.h"
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* A file in memory; its path lives until the next call. */
static const char *memory_file(const void *bytes, size_t n)
{
    static char path[32];
    const int fd = memfd_create("test", 0);
    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n) exit(3);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return path;
}

static int read_npy(atomo_tensor **t)
{
    return atomo_npy_read("tests/golden/npy_f4_fortran.npy", &t[0]);
}

static int read_idx(atomo_tensor **t)
{
    static const char text[] = "\0\0\x08\x01\0\0\0\3abc";
    return atomo_idx_read(memory_file(text, 11), 1, &t[0]);
}

static int read_cifar(atomo_tensor **t)
{
    static uint8_t record[3074];
    const char *const paths[1] = {memory_file(record, sizeof record)};
    return atomo_cifar_read(paths, 1, 100, &t[0], &t[1], &t[2]);
}

static int make_synthetic(atomo_tensor **t)
{
    return atomo_synthetic(0, 1, 0, 3, &t[0], &t[1]);
}

static int write_npy(atomo_tensor **t) /* of a view, so that a contiguous copy is made */
{
    const double shape[2] = {2, 3}, turned[2] = {3, 2}, stride[2] = {1, 3};
    int rc = atomo_tensor_new(ATOMO_F32, 2, shape, &t[0]);
    if (rc == 0) rc = atomo_fill(t[0], 1);
    if (rc == 0) rc = atomo_tensor_view(t[0], 2, turned, stride, 0, &t[1]);
    char path[64];
    snprintf(path, sizeof path, "/tmp/test_readers.%ld.npy", (long)getpid());
    if (rc == 0) rc = atomo_npy_write(t[1], path);
    unlink(path);
    return rc;
}

static const struct {
    const char *name;
    int (*run)(atomo_tensor **t);
    int keeps; /* outputs made before the failure are the caller's */
} cases[] = {
    {"npy_read", read_npy, 0},        {"idx_read", read_idx, 0},   {"cifar_read", read_cifar, 0},
    {"synthetic", make_synthetic, 0}, {"npy_write", write_npy, 1},
};

/* Returns 0: success, 1: ENOMEM without a leak, 2: anything else. */
static int child(size_t i, int n)
{
    char text[16];
    atomo_tensor *t[3] = {NULL, NULL, NULL};
    atomo_mem m;
    snprintf(text, sizeof text, "%d", n);
    setenv("ATOMO_FAIL_ALLOC", text, 1);
    const int rc = cases[i].run(t);
    const int left = rc < 0 && !cases[i].keeps && (t[0] || t[1] || t[2]);
    for (int k = 0; k < 3; k++) atomo_tensor_free(t[k]);
    atomo_mem_stats(&m);
    if (left || m.live_blocks != 0 || (rc < 0 && rc != -4)) {
        fprintf(stderr, "%s, allocation %d: status %d, %.0f blocks left: %s\n", cases[i].name, n, rc, m.live_blocks,
                atomo_last_error());
        return 2;
    }
    return rc == 0 ? 0 : 1;
}

/* Sweeps case i: every allocation fails once, then none does. */
static void sweep(size_t i)
{
    int n = 1, outcome = 1, status;
    for (; n < 100 && outcome == 1; n++) {
        fflush(NULL);
        const pid_t pid = fork();
        if (pid == 0) _exit(child(i, n));
        REQUIRE(pid > 0 && waitpid(pid, &status, 0) == pid);
        outcome = WIFEXITED(status) ? WEXITSTATUS(status) : 2;
    }
    check_report(outcome == 0 && n > 4, cases[i].name, 0, "ended after %d allocations with outcome %d", n - 1, outcome);
}

int main(void)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_begin();
        sweep(i);
        check_end(cases[i].name);
    }
    return check_done();
}
