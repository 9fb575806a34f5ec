/* npy.c - reads NumPy's .npy files (npy_write.c writes them). Path: none; data and checks come in through it.
 *
 * "\x93NUMPY", version, header length (u16, from version 2 on u32), a Python dict {'descr': '<f4', 'fortran_order':
 * False, 'shape': (3, 4), } padded so that the data begins at a multiple of 64 [numpy.lib.format]. The file's size must
 * be what the header says before any memory is taken. Object arrays (pickles) and other types are refused by name.
 */
#include "io/file.h"
#include "tensor/tensor.h"
#include <string.h>

enum { MAX_HEADER = 1 << 16, CHUNK = 4096 };

typedef struct {
    const char *path;
    char text[MAX_HEADER + 1]; /* the dict */
    const char *at;
    int64_t base, data; /* file offsets of the dict and of the data */
    char descr[16];
    int fortran, ndim; /* -1: not seen yet */
    double shape[ATOMO_MAX_DIM], numel;
    int dtype;
    size_t item;
} header;

static const struct {
    const char *descr;
    int dtype;
    size_t item;
} types[] = {{"<f4", ATOMO_F32, 4}, {"<i4", ATOMO_I32, 4}, {"|u1", ATOMO_U8, 1},
             {"<u1", ATOMO_U8, 1},  {"<f8", ATOMO_F32, 8}, {"<i8", ATOMO_I32, 8}};

/* ---- the dict ---------------------------------------------------------------------------------------------------- */

static int malformed(const header *h, const char *expected)
{
    return atomo__fail(ATOMO_EFORMAT, "npy: %s: offset %lld: found '%.12s', expected %s", h->path,
                       (long long)(h->base + (h->at - h->text)), h->at, expected);
}

static void skip_space(header *h)
{
    while (*h->at == ' ' || *h->at == '\n' || *h->at == '\t') h->at++;
}

static bool eat(header *h, const char *word)
{
    skip_space(h);
    size_t n = strlen(word);
    if (strncmp(h->at, word, n) != 0) return false;
    h->at += n;
    return true;
}

static int parse_string(header *h, char *into, size_t room)
{
    skip_space(h);
    const char quote = *h->at;
    if (quote != '\'' && quote != '"') return malformed(h, "a quoted string");
    const char *end = strchr(h->at + 1, quote);
    if (!end || (size_t)(end - h->at) > room) return malformed(h, "a short quoted string");
    memcpy(into, h->at + 1, (size_t)(end - h->at - 1));
    into[end - h->at - 1] = 0;
    h->at = end + 1;
    return ATOMO_OK;
}

static int parse_shape(header *h)
{
    if (!eat(h, "(")) return malformed(h, "a shape: (3, 4)");
    h->numel = 1;
    for (h->ndim = 0; !eat(h, ")");) {
        skip_space(h);
        if (*h->at < '0' || *h->at > '9') return malformed(h, "a size");
        if (h->ndim == ATOMO_MAX_DIM)
            return atomo__fail(ATOMO_ELIMIT, "npy: %s: offset %lld: more than %d dimensions", h->path,
                               (long long)(h->base + (h->at - h->text)), ATOMO_MAX_DIM);
        double size = 0;
        for (; *h->at >= '0' && *h->at <= '9' && size < 0x1p53; h->at++) size = 10 * size + (*h->at - '0');
        eat(h, "L"); /* Python 2 wrote 3L */
        h->shape[h->ndim++] = size;
        h->numel *= size;
        if (!eat(h, ",") && *h->at != ')') return malformed(h, "',' or ')'");
    }
    return ATOMO_OK;
}

static int parse_entry(header *h)
{
    char key[16];
    ATOMO_TRY(parse_string(h, key, sizeof key));
    if (!eat(h, ":")) return malformed(h, "':'");
    if (strcmp(key, "descr") == 0) {
        skip_space(h);
        if (*h->at == '[') return malformed(h, "a plain type, not a record");
        return parse_string(h, h->descr, sizeof h->descr);
    }
    if (strcmp(key, "shape") == 0) return parse_shape(h);
    if (strcmp(key, "fortran_order") != 0)
        return atomo__fail(ATOMO_EFORMAT, "npy: %s: unknown key '%s' in the header", h->path, key);
    if (eat(h, "True"))
        h->fortran = 1;
    else if (eat(h, "False"))
        h->fortran = 0;
    else
        return malformed(h, "True or False");
    return ATOMO_OK;
}

static int parse_dict(header *h)
{
    h->at = h->text;
    if (!eat(h, "{")) return malformed(h, "'{'");
    while (!eat(h, "}")) {
        ATOMO_TRY(parse_entry(h));
        if (!eat(h, ",") && *h->at != '}') return malformed(h, "',' or '}'");
    }
    skip_space(h);
    if (*h->at) return malformed(h, "the end of the header");
    ATOMO_REQUIRE(h->descr[0] && h->fortran >= 0 && h->ndim >= 0, ATOMO_EFORMAT,
                  "npy: %s: the header lacks %s, expected descr, fortran_order and shape", h->path,
                  !h->descr[0]     ? "descr"
                  : h->fortran < 0 ? "fortran_order"
                                   : "shape");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].descr, h->descr) == 0) {
            h->dtype = types[i].dtype;
            h->item = types[i].item;
        }
    ATOMO_REQUIRE(h->item, ATOMO_EDTYPE, "npy: %s holds '%s'%s, expected <f4, <f8, <i4, <i8 or |u1", h->path, h->descr,
                  strchr(h->descr, 'O') ? " (Python objects, a pickle)" : "");
    return ATOMO_OK;
}

static int read_header(header *h, FILE *f, int64_t size)
{
    uint8_t b[12];
    ATOMO_TRY(atomo__file_read("npy", h->path, f, 0, b, 10));
    ATOMO_REQUIRE(memcmp(b, "\x93NUMPY", 6) == 0, ATOMO_EFORMAT,
                  "npy: %s: offset 0: found %02x %02x %02x %02x %02x %02x, expected 93 4e 55 4d 50 59 (\\x93NUMPY)",
                  h->path, b[0], b[1], b[2], b[3], b[4], b[5]);
    ATOMO_REQUIRE(b[6] >= 1 && b[6] <= 3, ATOMO_EFORMAT, "npy: %s: offset 6: version %d, expected 1 to 3", h->path,
                  b[6]);
    int64_t n = b[8] | b[9] << 8;
    h->base = 10;
    if (b[6] > 1) {
        ATOMO_TRY(atomo__file_read("npy", h->path, f, 10, b + 10, 2));
        n |= (int64_t)b[10] << 16 | (int64_t)b[11] << 24;
        h->base = 12;
    }
    ATOMO_REQUIRE(n <= MAX_HEADER && h->base + n <= size, ATOMO_EFORMAT,
                  "npy: %s: offset 8: a header of %lld bytes, expected at most %lld", h->path, (long long)n,
                  (long long)ATOMO_MIN((int64_t)MAX_HEADER, size - h->base));
    ATOMO_TRY(atomo__file_read("npy", h->path, f, h->base, h->text, (size_t)n));
    h->text[n] = 0;
    ATOMO_REQUIRE(strlen(h->text) == (size_t)n, ATOMO_EFORMAT, "npy: %s: offset %lld: a zero byte in the header",
                  h->path, (long long)h->base + (long long)strlen(h->text));
    h->data = h->base + n;
    h->fortran = h->ndim = -1;
    ATOMO_TRY(parse_dict(h));
    const double want = (double)h->data + h->numel * (double)h->item;
    ATOMO_REQUIRE(want == (double)size, ATOMO_EFORMAT, "npy: %s is %lld bytes, its header %s %s wants %.0f", h->path,
                  (long long)size, h->descr, atomo__dims_text(h->ndim, h->shape), want);
    return ATOMO_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* 8-byte elements to 4-byte ones, a chunk at a time. */
static int read_wide(const header *h, FILE *f, atomo_tensor *t)
{
    union {
        double d[CHUNK];
        int64_t i[CHUNK];
    } wide;
    const int64_t n = atomo__numel(t);
    for (int64_t at = 0; at < n; at += CHUNK) {
        const int64_t m = ATOMO_MIN(n - at, (int64_t)CHUNK);
        ATOMO_TRY(atomo__file_read("npy", h->path, f, h->data + 8 * at, &wide, (size_t)m * 8));
        for (int64_t k = 0; k < m; k++) {
            if (h->dtype == ATOMO_F32) {
                atomo__f32(t)[at + k] = (float)wide.d[k];
                continue;
            }
            ATOMO_REQUIRE(wide.i[k] >= INT32_MIN && wide.i[k] <= INT32_MAX, ATOMO_ELIMIT,
                          "npy: %s: offset %lld: %lld does not fit into 32 bits", h->path,
                          (long long)(h->data + 8 * (at + k)), (long long)wide.i[k]);
            atomo__i32(t)[at + k] = (int32_t)wide.i[k];
        }
    }
    return ATOMO_OK;
}

/* t, whose elements lie in Fortran order, to C order. */
static int reorder(const header *h, atomo_tensor *t, atomo_tensor **out)
{
    double stride[ATOMO_MAX_DIM], step = 1;
    atomo_tensor *view;
    for (int i = 0; i < h->ndim; i++) {
        stride[i] = step;
        step *= h->shape[i];
    }
    ATOMO_TRY(atomo_tensor_view(t, h->ndim, h->shape, stride, 0, &view));
    int rc = atomo__output(out, h->dtype, h->ndim, h->shape, "npy_read");
    if (rc == ATOMO_OK) rc = atomo_copy(*out, view);
    atomo_tensor_free(view);
    return rc;
}

static int read_data(const header *h, FILE *f, atomo_tensor **out)
{
    atomo_tensor *t = NULL;
    const bool turned = h->fortran && h->ndim > 1, fresh = !*out;
    ATOMO_TRY(atomo__output(turned ? &t : out, h->dtype, h->ndim, h->shape, "npy_read"));
    if (!turned) t = *out;
    int rc = h->item == 8 ? read_wide(h, f, t)
                          : atomo__file_read("npy", h->path, f, h->data, t->data, (size_t)h->numel * h->item);
    if (turned) {
        if (rc == ATOMO_OK) rc = reorder(h, t, out);
        atomo_tensor_free(t);
    }
    if (rc < 0 && fresh) {
        atomo_tensor_free(*out);
        *out = NULL;
    }
    return rc;
}

int atomo_npy_read(const char *path, atomo_tensor **out)
{
    FILE *f;
    int64_t size;
    void *p;
    ATOMO_TRY(atomo__file_open("npy", path, &f, &size));
    int rc = atomo__calloc(&p, sizeof(header));
    if (rc == ATOMO_OK) {
        header *h = p;
        h->path = path;
        rc = read_header(h, f, size);
        if (rc == ATOMO_OK) rc = read_data(h, f, out);
        atomo__free(h);
    }
    fclose(f);
    return rc;
}
