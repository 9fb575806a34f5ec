/* raw.c - files that consist of a header and the bytes of tensors (safetensors): written completely or not at all, read
 * tensor by tensor. The caller makes and reads the header (bindings/atomo/tensor/safetensors.lua). Path: none.
 */
#include "io/element.h"
#include "io/file.h"
#include "tensor/tensor.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool write_all(FILE *f, const void *head, size_t n, const atomo_tensor *const *tensors, int count)
{
    if (fwrite(head, 1, n, f) != n) return false;
    for (int i = 0; i < count; i++) {
        size_t bytes = (size_t)tensors[i]->numel * atomo__dtype_size(tensors[i]->dtype);
        if (bytes && fwrite(tensors[i]->data, 1, bytes, f) != bytes) return false;
    }
    return fflush(f) == 0 && fsync(fileno(f)) == 0;
}

/* Synchronises the folder of a path, after which a rename survives a power failure. Errors are ignored, since some
 * network file systems cannot do it. */
static void sync_folder_of(char *path)
{
    char *slash = strrchr(path, '/');
    if (slash) slash[slash == path] = 0;
    const int folder = open(slash ? path : ".", O_RDONLY | O_DIRECTORY);
    if (folder < 0) return;
    (void)fsync(folder);
    close(folder);
}

/* Writes to a file that is not a regular one (a terminal, a pipe, a device), which a rename must not replace. */
static int write_through(const char *path, const void *head, double head_bytes, const atomo_tensor *const *tensors,
                         int count)
{
    const int fd = atomo_output_open(path, 0);
    if (fd < 0) return fd;
    int rc = atomo_output_write(fd, path, head, head_bytes);
    for (int i = 0; rc == ATOMO_OK && i < count; i++)
        rc = atomo_output_write(fd, path, tensors[i]->data,
                                tensors[i]->numel * (double)atomo__dtype_size(tensors[i]->dtype));
    if (rc < 0) {
        close(fd);
        return rc;
    }
    return atomo_output_close(fd, path);
}

int atomo_raw_write(const char *path, const void *head, double head_bytes, const atomo_tensor *const *tensors,
                    int count)
{
    char temporary[4096], resolved[PATH_MAX];
    struct stat st;
    const bool there = stat(path, &st) == 0;
    if (there && S_ISDIR(st.st_mode)) return atomo__fail(ATOMO_EIO, "write: cannot write %s: it is a folder", path);
    if (there && realpath(path, resolved))
        path = resolved; /* replaces the file that a symbolic link points to, not the link */
    int n = snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid());
    ATOMO_REQUIRE(n > 0 && n < (int)sizeof temporary, ATOMO_EARG, "write: the path is longer than 4000 bytes");
    for (int i = 0; i < count; i++)
        ATOMO_REQUIRE(tensors[i] && atomo_tensor_is_contiguous(tensors[i]), ATOMO_EARG,
                      "write: tensor %d of %s is not contiguous", i + 1, path);
    if (there && !S_ISREG(st.st_mode)) return write_through(path, head, head_bytes, tensors, count);
    FILE *f = fopen(temporary, "wb");
    ATOMO_REQUIRE(f, ATOMO_EIO, "write: cannot write %s: %s", temporary, atomo__system_error(errno));
    bool ok = write_all(f, head, (size_t)head_bytes, tensors, count);
    int why = errno;
    if (fclose(f) != 0 && ok) {
        ok = false;
        why = errno;
    }
    if (ok && rename(temporary, path) != 0) {
        ok = false;
        why = errno;
    }
    if (ok) {
        sync_folder_of(temporary);
        return ATOMO_OK;
    }
    unlink(temporary);
    return atomo__fail(ATOMO_EIO, "write: %s: %s; the file that was there before is unchanged", path,
                       atomo__system_error(why));
}

int atomo_raw_read(const char *path, double offset, double n, atomo_tensor **out)
{
    FILE *f;
    int64_t size;
    ATOMO_TRY(atomo__file_open("read", path, &f, &size));
    int rc = ATOMO_OK;
    if (!(offset >= 0 && n >= 0 && offset + n <= (double)size))
        rc = atomo__fail(ATOMO_EFORMAT, "read: %s has %lld bytes, expected %.0f from offset %.0f on", path,
                         (long long)size, n, offset);
    const bool ours = !*out;
    if (rc == 0) rc = atomo__output(out, ATOMO_U8, 1, &n, "read");
    if (rc == 0 && fseek(f, (long)offset, SEEK_SET) != 0)
        rc = atomo__fail(ATOMO_EIO, "read: %s: %s", path, atomo__system_error(errno));
    if (rc == 0) rc = atomo__file_read("read", path, f, (int64_t)offset, (*out)->data, (size_t)n);
    fclose(f);
    if (rc < 0 && ours) {
        atomo_tensor_free(*out);
        *out = NULL;
    }
    return rc;
}

int atomo_raw_convert(int kind, const atomo_tensor *bytes, int ndim, const double *shape, atomo_tensor **out)
{
    ATOMO_MAKING(made, bytes);
    ATOMO_REQUIRE(kind >= 0 && kind < ATOMO_RAW_COUNT, ATOMO_EARG, "raw_convert: unknown kind %d", kind);
    ATOMO_TRY(atomo__expect(bytes, ATOMO_U8, 1, "raw_convert: bytes"));
    ATOMO_TRY(atomo__make(&made, out, atomo__element_dtype(kind), ndim, shape, "raw_convert"));
    const int64_t n = atomo__numel(*out), size = atomo__element_size(kind);
    ATOMO_REQUIRE((double)n * (double)size == bytes->numel, ATOMO_EFORMAT,
                  "raw_convert: %.0f bytes for %lld elements of %d", bytes->numel, (long long)n, (int)size);
    const int64_t done = atomo__convert_elements(kind, bytes->data, n, *out, 0);
    ATOMO_REQUIRE(done == n, ATOMO_ELIMIT, "raw_convert: element %lld, %.17g, does not fit %s", (long long)done + 1,
                  atomo__element_value(kind, (const uint8_t *)bytes->data + size * done),
                  atomo__dtype_name((*out)->dtype));
    return atomo__made(&made, ATOMO_OK);
}
