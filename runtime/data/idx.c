/* idx.c - reads IDX files of bytes, raw or gzip (MNIST and similar sets). Path: stage 1.
 *
 * The format is big-endian: 0, 0, type (0x08: unsigned bytes), number of dimensions, a 32-bit size for each, then the
 * elements, row-major [LeCun, Cortes, Burges: yann.lecun.com/exdb/mnist]. If a header's sizes need more bytes than
 * deflate can unpack from the file, it is refused before memory is allocated.
 */
#include "io/file.h"
#include "io/inflate.h"
#include "tensor/tensor.h"
#include <string.h>

static const char *type_name(int type)
{
    switch (type) {
    case 0x08:
        return "u8";
    case 0x09:
        return "i8";
    case 0x0B:
        return "i16";
    case 0x0C:
        return "i32";
    case 0x0D:
        return "f32";
    case 0x0E:
        return "f64";
    default:
        return NULL;
    }
}

static int check_magic(const uint8_t *b, const char *path, int ndim)
{
    const char *type = type_name(b[2]);
    ATOMO_REQUIRE(b[0] == 0 && b[1] == 0 && type, ATOMO_EFORMAT,
                  "idx: %s: offset 0: magic 0x%02x%02x%02x%02x, expected 0x000008%02x (IDX of u8, %d dimensions)", path,
                  b[0], b[1], b[2], b[3], (unsigned)ndim, ndim);
    ATOMO_REQUIRE(b[2] == 8 && b[3] == ndim, ATOMO_EFORMAT,
                  "idx: %s: offset 0: magic 0x%02x%02x%02x%02x, IDX of %s, %d dimensions, expected u8, %d dimensions",
                  path, b[0], b[1], b[2], b[3], type, b[3], ndim);
    return ATOMO_OK;
}

static int read_header(atomo__inflater *u, const char *path, int ndim, int64_t size, double *shape, int64_t *numel)
{
    uint8_t head[4 + 4 * ATOMO_MAX_DIM];
    ATOMO_TRY(atomo__inflate(u, head, 4));
    ATOMO_TRY(check_magic(head, path, ndim));
    ATOMO_TRY(atomo__inflate(u, head + 4, 4 * ndim));
    const double most = (double)size * (u->form == ATOMO__GZIP ? ATOMO__MOST_INFLATED : 1);
    double n = 1;
    for (int i = 0; i < ndim; i++) {
        const uint8_t *p = head + 4 + 4 * i;
        shape[i] = (double)((uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]);
        n *= shape[i];
        ATOMO_REQUIRE(n <= most, ATOMO_EFORMAT,
                      "idx: %s: offset %d: size %.0f needs more bytes than a file of %lld can hold", path, 4 + 4 * i,
                      shape[i], (long long)size);
    }
    *numel = (int64_t)n;
    return ATOMO_OK;
}

static int read_stream(atomo__inflater *u, const char *path, int ndim, int64_t size, atomo_tensor **out)
{
    double shape[ATOMO_MAX_DIM];
    int64_t numel = 0;
    ATOMO_TRY(read_header(u, path, ndim, size, shape, &numel));
    ATOMO_REQUIRE(u->form == ATOMO__GZIP || size == u->at + numel, ATOMO_EFORMAT,
                  "idx: %s is %lld bytes, expected %lld by its header %s", path, (long long)size,
                  (long long)(u->at + numel), atomo__dims_text(ndim, shape));
    ATOMO_TRY(atomo__output(out, ATOMO_U8, ndim, shape, "idx_read"));
    ATOMO_TRY(atomo__inflate(u, (*out)->data, numel));
    return atomo__inflate_end(u);
}

static bool is_gzip(FILE *f)
{
    uint8_t b[2] = {0};
    const bool gzip = fread(b, 1, 2, f) == 2 && b[0] == 0x1F && b[1] == 0x8B;
    rewind(f);
    return gzip;
}

static int read_file(FILE *f, const char *path, int ndim, int64_t size, atomo_tensor **out)
{
    atomo__inflater u;
    char name[1024];
    snprintf(name, sizeof name, "idx: %.1000s", path);
    ATOMO_TRY(atomo__inflate_open(&u, name, f, size, is_gzip(f) ? ATOMO__GZIP : ATOMO__STORED));
    const int rc = read_stream(&u, path, ndim, size, out);
    atomo__inflate_close(&u);
    return rc;
}

int atomo_idx_read(const char *path, int ndim, atomo_tensor **out)
{
    FILE *f;
    int64_t size;
    ATOMO_REQUIRE(ndim >= 1 && ndim <= ATOMO_MAX_DIM, ATOMO_EARG, "idx_read: %d dimensions, expected 1 to %d", ndim,
                  ATOMO_MAX_DIM);
    ATOMO_TRY(atomo__file_open("idx", path, &f, &size));
    const bool fresh = !*out;
    const int rc = read_file(f, path, ndim, size, out);
    fclose(f);
    if (rc < 0 && fresh) {
        atomo_tensor_free(*out);
        *out = NULL;
    }
    return rc;
}
