/* raw.c - files that are a header and the bytes of tensors behind each other (safetensors): written whole or not at
 * all, read tensor by tensor. What the header says is the caller's matter (bindings/atomo/safetensors.lua). Path: none.
 */
#include "io/file.h"
#include "tensor/tensor.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

static bool put_all(FILE *f, const void *head, size_t n, const atomo_tensor *const *tensors, int count)
{
    if (fwrite(head, 1, n, f) != n) return false;
    for (int i = 0; i < count; i++) {
        size_t bytes = (size_t)tensors[i]->numel * atomo__dtype_size(tensors[i]->dtype);
        if (bytes && fwrite(tensors[i]->data, 1, bytes, f) != bytes) return false;
    }
    return fflush(f) == 0 && fsync(fileno(f)) == 0;
}

/* A rename lasts through a power cut once the folder itself is on the disk. Folders that cannot be synchronised (some
 * network file systems) are left to themselves. */
static void sync_folder_of(char *path)
{
    char *slash = strrchr(path, '/');
    if (slash) slash[slash == path] = 0;
    const int folder = open(slash ? path : ".", O_RDONLY | O_DIRECTORY);
    if (folder < 0) return;
    (void)fsync(folder);
    close(folder);
}

int atomo_raw_write(const char *path, const void *head, double head_bytes, const atomo_tensor *const *tensors,
                    int count)
{
    char temporary[4096];
    int n = snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid());
    ATOMO_REQUIRE(n > 0 && n < (int)sizeof temporary, ATOMO_EARG, "write: the path is longer than 4000 bytes");
    for (int i = 0; i < count; i++)
        ATOMO_REQUIRE(tensors[i] && atomo_tensor_is_contiguous(tensors[i]), ATOMO_EARG,
                      "write: tensor %d of %s is not contiguous", i + 1, path);
    FILE *f = fopen(temporary, "wb");
    ATOMO_REQUIRE(f, ATOMO_EIO, "write: cannot write %s: %s", temporary, strerror(errno));
    bool ok = put_all(f, head, (size_t)head_bytes, tensors, count);
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
    return atomo__fail(ATOMO_EIO, "write: %s: %s; the file that was there before is unchanged", path, strerror(why));
}

int atomo_raw_read(const char *path, double offset, double n, atomo_tensor **out)
{
    FILE *f;
    int64_t size;
    ATOMO_TRY(atomo__file_open("read", path, &f, &size));
    int rc = ATOMO_OK;
    if (!(offset >= 0 && n >= 0 && offset + n <= (double)size))
        rc = atomo__fail(ATOMO_EFORMAT, "read: %s has %lld bytes, wanted %.0f from offset %.0f", path, (long long)size,
                         n, offset);
    const bool ours = !*out;
    if (rc == 0) rc = atomo__output(out, ATOMO_U8, 1, &n, "read");
    if (rc == 0 && fseek(f, (long)offset, SEEK_SET) != 0)
        rc = atomo__fail(ATOMO_EIO, "read: %s: %s", path, strerror(errno));
    if (rc == 0) rc = atomo__file_read("read", path, f, (int64_t)offset, (*out)->data, (size_t)n);
    fclose(f);
    if (rc < 0 && ours) {
        atomo_tensor_free(*out);
        *out = NULL;
    }
    return rc;
}

static float half_to_float(uint16_t h)
{
    const int e = h >> 10 & 31, m = h & 1023;
    const float sign = h & 0x8000 ? -1.0f : 1.0f;
    if (e == 31) return m ? NAN : sign * INFINITY;
    return sign * (e ? ldexpf((float)(1024 + m), e - 25) : ldexpf((float)m, -24));
}

static float bfloat_to_float(uint16_t b)
{
    const uint32_t bits = (uint32_t)b << 16;
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

/* Element i of `bytes`, which are of type `kind`, into the tensor's element i. false: it does not fit. */
static bool convert_one(int kind, const uint8_t *bytes, int64_t i, atomo_tensor *t)
{
    uint16_t half;
    double d;
    int64_t whole;
    switch (kind) {
    case ATOMO_RAW_F16:
        memcpy(&half, bytes + 2 * i, 2);
        atomo__f32(t)[i] = half_to_float(half);
        return true;
    case ATOMO_RAW_BF16:
        memcpy(&half, bytes + 2 * i, 2);
        atomo__f32(t)[i] = bfloat_to_float(half);
        return true;
    case ATOMO_RAW_F64:
        memcpy(&d, bytes + 8 * i, 8);
        atomo__f32(t)[i] = (float)d;
        return true;
    default:
        memcpy(&whole, bytes + 8 * i, 8);
        if (whole < INT32_MIN || whole > INT32_MAX) return false;
        atomo__i32(t)[i] = (int32_t)whole;
        return true;
    }
}

int atomo_raw_convert(int kind, const atomo_tensor *bytes, int ndim, const double *shape, atomo_tensor **out)
{
    static const int sizes[] = {4, 4, 1, 2, 2, 8, 8}, dtypes[] = {0, 1, 2, ATOMO_F32, ATOMO_F32, ATOMO_F32, ATOMO_I32};
    ATOMO_REQUIRE(kind >= 0 && kind <= ATOMO_RAW_I64, ATOMO_EARG, "raw_convert: unknown kind %d", kind);
    ATOMO_TRY(atomo__expect(bytes, ATOMO_U8, 1, "raw_convert: bytes"));
    const bool ours = !*out;
    ATOMO_TRY(atomo__output(out, dtypes[kind], ndim, shape, "raw_convert"));
    int rc = ATOMO_OK;
    const int64_t n = atomo__numel(*out);
    if ((double)n * sizes[kind] != bytes->numel)
        rc = atomo__fail(ATOMO_EFORMAT, "raw_convert: %.0f bytes for %lld elements of %d", bytes->numel, (long long)n,
                         sizes[kind]);
    else if (kind <= ATOMO_U8) {
        if (n) memcpy((*out)->data, bytes->data, (size_t)bytes->numel);
    } else {
        for (int64_t i = 0; rc == 0 && i < n; i++)
            if (!convert_one(kind, bytes->data, i, *out))
                rc = atomo__fail(ATOMO_ELIMIT, "raw_convert: element %lld does not fit into i32", (long long)i + 1);
    }
    if (rc < 0 && ours) {
        atomo_tensor_free(*out);
        *out = NULL;
    }
    return rc;
}
