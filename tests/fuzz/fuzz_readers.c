/* fuzz_readers.c - arbitrary bytes as a .npy, .npz, CIFAR or IDX file (selected by the first byte): a reader either
 * fails with an error text or returns tensors whose elements can all be read (checked by AddressSanitizer). */
#define _GNU_SOURCE
#include "tensor/tensor.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static volatile unsigned sink;

static void use(atomo_tensor *t)
{
    if (!t) return;
    const uint8_t *p = t->data;
    for (size_t i = 0; i < (size_t)t->numel * atomo__dtype_size(t->dtype); i++) sink += p[i];
    atomo_tensor_free(t);
}

/* Every member of an archive; the last one's tensor stays. */
static int read_npz(const char *path, atomo_tensor **out)
{
    atomo_npz *z;
    int rc = atomo_npz_open(path, &z);
    if (rc < 0) {
        if (z) abort();
        return rc;
    }
    rc = atomo__fail(ATOMO_EFORMAT, "no member");
    for (int i = 0; i < atomo_npz_count(z); i++) {
        if (!*atomo_npz_name(z, i)) abort();
        use(*out);
        *out = NULL;
        rc = atomo_npz_read(z, i, out);
    }
    atomo_npz_close(z);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 1) return 0;
    const int kind = data[0] & 3;
    const int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data + 1, n - 1) != (ssize_t)(n - 1)) abort();
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const char *const paths[1] = {path};
    atomo_tensor *t[3] = {NULL, NULL, NULL};
    int rc;
    if (kind == 0 && data[0] & 4)
        rc = read_npz(path, &t[0]);
    else if (kind == 0)
        rc = atomo_npy_read(path, &t[0]);
    else if (kind == 1)
        rc = atomo_idx_read(path, 1 + (data[0] >> 2) % 4, &t[0]);
    else
        rc = atomo_cifar_read(paths, 1, kind == 2 ? 10 : 100, &t[0], &t[1], &t[2]);
    if (rc < 0 && (t[0] || t[1] || t[2] || !*atomo_last_error())) abort();
    if (rc >= 0 && !t[0]) abort();
    for (int i = 0; i < 3; i++) use(t[i]);
    close(fd);
    return 0;
}
