/* idx.c - IDX files of bytes, raw or gzip (MNIST and its likes). Path: stage 1.
 *
 * Big-endian: 0, 0, type (0x08: unsigned bytes), number of dimensions, a 32-bit size for each, then the elements,
 * row-major [LeCun, Cortes, Burges: yann.lecun.com/exdb/mnist]. zlib reads both forms. Deflate expands by at most 1032,
 * so a header that asks for more than that times the file's size lies, and is refused before any memory is taken.
 */
#include "io/file.h"
#include "tensor/tensor.h"
#include <string.h>
#include <zlib.h>

enum { MAX_DEFLATE = 1032 };

/* n bytes at `offset` of the unpacked stream. */
static int take(gzFile z, const char *path, int64_t offset, void *into, int64_t n)
{
    char *p = into;
    int64_t got = 0;
    while (got < n) {
        int k = gzread(z, p + got, (unsigned)ATOMO_MIN(n - got, (int64_t)1 << 24));
        if (k <= 0) break;
        got += k;
    }
    int code;
    const char *why = gzerror(z, &code);
    ATOMO_REQUIRE(code == Z_OK || code == Z_STREAM_END || code == Z_BUF_ERROR, ATOMO_EFORMAT,
                  "idx: %s: offset %lld: %s", path, (long long)(offset + got), why);
    ATOMO_REQUIRE(got == n, ATOMO_EFORMAT, "idx: %s ends at offset %lld, expected %lld more bytes", path,
                  (long long)(offset + got), (long long)(n - got));
    return ATOMO_OK;
}

static int read_header(gzFile z, const char *path, int ndim, int64_t size, double *shape, int64_t *numel)
{
    uint8_t head[4 + 4 * ATOMO_MAX_DIM];
    ATOMO_TRY(take(z, path, 0, head, 4));
    ATOMO_REQUIRE(head[0] == 0 && head[1] == 0 && head[2] == 8 && head[3] == ndim, ATOMO_EFORMAT,
                  "idx: %s: offset 0: magic 0x%02x%02x%02x%02x, expected 0x000008%02x", path, head[0], head[1], head[2],
                  head[3], (unsigned)ndim);
    ATOMO_TRY(take(z, path, 4, head + 4, 4 * ndim));
    const double most = (double)size * MAX_DEFLATE;
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

static int read_stream(gzFile z, const char *path, int ndim, int64_t size, atomo_tensor **out)
{
    double shape[ATOMO_MAX_DIM];
    int64_t numel = 0;
    ATOMO_TRY(read_header(z, path, ndim, size, shape, &numel));
    const int64_t header = 4 + 4 * ndim;
    ATOMO_REQUIRE(!gzdirect(z) || size == header + numel, ATOMO_EFORMAT,
                  "idx: %s is %lld bytes, its header %s wants %lld", path, (long long)size,
                  atomo__dims_text(ndim, shape), (long long)(header + numel));
    ATOMO_TRY(atomo__output(out, ATOMO_U8, ndim, shape, "idx_read"));
    ATOMO_TRY(take(z, path, header, (*out)->data, numel));
    char more;
    ATOMO_REQUIRE(gzread(z, &more, 1) <= 0, ATOMO_EFORMAT,
                  "idx: %s goes on after offset %lld, where its header %s ends it", path, (long long)(header + numel),
                  atomo__dims_text(ndim, shape));
    int code;
    const char *why = gzerror(z, &code); /* the checksum comes at the end */
    ATOMO_REQUIRE(code == Z_OK || code == Z_STREAM_END, ATOMO_EFORMAT, "idx: %s: %s", path, why);
    return ATOMO_OK;
}

int atomo_idx_read(const char *path, int ndim, atomo_tensor **out)
{
    FILE *f;
    int64_t size;
    ATOMO_REQUIRE(ndim >= 1 && ndim <= ATOMO_MAX_DIM, ATOMO_EARG, "idx_read: %d dimensions, expected 1 to %d", ndim,
                  ATOMO_MAX_DIM);
    ATOMO_TRY(atomo__file_open("idx", path, &f, &size));
    fclose(f);
    gzFile z = gzopen(path, "rb");
    ATOMO_REQUIRE(z, ATOMO_EIO, "idx: cannot open %s", path);
    const bool fresh = !*out;
    int rc = read_stream(z, path, ndim, size, out);
    gzclose(z);
    if (rc < 0 && fresh) {
        atomo_tensor_free(*out);
        *out = NULL;
    }
    return rc;
}
