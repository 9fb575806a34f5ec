/* fuzz_readers.c - arbitrary bytes as a .npy, .npz, image, MAT, CSV, CIFAR or IDX file (selected by the first byte): a
 * reader either fails with an error text or returns tensors whose elements can all be read (checked by
 * AddressSanitizer). */
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

/* An image, as it is and scaled. */
static int read_image(const char *path, atomo_tensor **out)
{
    const char *const paths[1] = {path};
    double size[3];
    ATOMO_TRY(atomo_image_size(path, size));
    if (!(size[0] >= 1 && size[1] >= 1 && (size[2] == 1 || size[2] == 3))) abort();
    const double whole[4] = {1, size[0], size[1], size[2]}, small[4] = {1, 3, 5, 4 - size[2]};
    if (atomo_tensor_new(ATOMO_U8, 4, small, out) < 0) abort();
    int rc = atomo_images_read(paths, 1, 1, *out);
    use(*out);
    *out = NULL;
    if (rc < 0 || size[0] * size[1] > 1e6) return rc < 0 ? rc : atomo__fail(ATOMO_ELIMIT, "a large image");
    if (atomo_tensor_new(ATOMO_U8, 4, whole, out) < 0) abort();
    rc = atomo_images_read(paths, 1, 0, *out);
    if (rc < 0) abort();
    return rc;
}

/* The variables that the seeds have. */
static int read_mat(const char *path, atomo_tensor **out)
{
    static const char *const names[] = {"X", "y", "v", "z"};
    int rc = ATOMO_OK;
    for (int i = 0; i < 4; i++) {
        use(*out);
        *out = NULL;
        rc = atomo_mat_read(path, names[i], out);
    }
    return rc;
}

/* All fields, and all columns as numbers. */
static int read_csv(const char *path, atomo_tensor **out)
{
    atomo_csv *c;
    uint8_t *skip;
    ATOMO_TRY(atomo_csv_open(path, ',', &c));
    for (double i = 0; i <= atomo_csv_rows(c); i++)
        for (int k = 0; k < atomo_csv_columns(c); k++) sink += (unsigned)strlen(atomo_csv_field(c, i, k));
    if (atomo__calloc((void **)&skip, (size_t)atomo_csv_columns(c)) < 0) abort();
    const int rc = atomo_csv_numbers(c, skip, out);
    atomo__free(skip);
    atomo_csv_close(c);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static int (*const readers[8])(const char *, atomo_tensor **) = {
        atomo_npy_read, read_npz, read_image, read_mat, read_csv, read_image, read_mat, read_npz,
    };
    if (n < 1) return 0;
    const int kind = data[0] & 3;
    const int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data + 1, n - 1) != (ssize_t)(n - 1)) abort();
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const char *const paths[1] = {path};
    atomo_tensor *t[3] = {NULL, NULL, NULL};
    int rc;
    if (kind == 0)
        rc = readers[data[0] >> 2 & 7](path, &t[0]);
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
