/* npy.c - reads NumPy's .npy files (npy_write.c writes them). Path: none.
 *
 * A file is "\x93NUMPY", version, header length (u16, from version 2 on u32), a Python dict {'descr': '<f4',
 * 'fortran_order': False, 'shape': (3, 4), } padded so that the data begins at a multiple of 64 [numpy.lib.format], and
 * the data. The file's size is checked against the header before memory is allocated. Booleans, integers and floats are
 * read if their values fit u8, i32 or f32. For object arrays (pickles), records and other types the error names the
 * type.
 */
#include "io/npy.h"
#include "io/element.h"
#include "io/file.h"
#include <string.h>

enum { MAX_HEADER = 1 << 16, CHUNK = 4096 };

typedef struct {
    const char *name;          /* of the file, for error texts */
    char text[MAX_HEADER + 1]; /* the dict */
    const char *at;            /* where parsing is in text */
    int64_t base, data;        /* file offsets of the dict and of the data */
    char descr[16];            /* the element type: "<f4" */
    int fortran, ndim;         /* -1: not seen yet */
    double shape[ATOMO_MAX_DIM], numel;
    int kind;     /* of the elements: ATOMO_F32, ATOMO_RAW_F16, ... */
    bool swapped; /* elements are big-endian */
} header;

/* Types without the character for the byte order ('<' little-endian, '>' big-endian, '|' none, '=' the machine's). */
static const struct {
    const char *name;
    int kind;
} types[] = {{"f4", ATOMO_F32},     {"f8", ATOMO_RAW_F64}, {"f2", ATOMO_RAW_F16}, {"i4", ATOMO_I32},
             {"i8", ATOMO_RAW_I64}, {"i2", ATOMO_RAW_I16}, {"i1", ATOMO_RAW_I8},  {"u1", ATOMO_U8},
             {"u2", ATOMO_RAW_U16}, {"u4", ATOMO_RAW_U32}, {"u8", ATOMO_RAW_U64}, {"b1", ATOMO_RAW_BOOL}};

/* ---- the dict ---------------------------------------------------------------------------------------------------- */

static int malformed(const header *h, const char *expected)
{
    return atomo__fail(ATOMO_EFORMAT, "npy: %s: offset %lld: found '%.12s', expected %s", h->name,
                       (long long)(h->base + (h->at - h->text)), h->at, expected);
}

static void skip_space(header *h)
{
    while (*h->at == ' ' || *h->at == '\n' || *h->at == '\t' || *h->at == '\r') h->at++;
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
            return atomo__fail(ATOMO_ELIMIT, "npy: %s: offset %lld: more than %d dimensions", h->name,
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
        ATOMO_REQUIRE(*h->at != '[', ATOMO_EDTYPE, "npy: %s: found '%.12s', expected a plain type, not a record",
                      h->name, h->at);
        return parse_string(h, h->descr, sizeof h->descr);
    }
    if (strcmp(key, "shape") == 0) return parse_shape(h);
    if (strcmp(key, "fortran_order") != 0)
        return atomo__fail(ATOMO_EFORMAT, "npy: %s: unknown key '%s' in the header", h->name, key);
    if (eat(h, "True"))
        h->fortran = 1;
    else if (eat(h, "False"))
        h->fortran = 0;
    else
        return malformed(h, "True or False");
    return ATOMO_OK;
}

static int find_type(header *h)
{
    h->kind = -1;
    h->swapped = h->descr[0] == '>';
    if (strchr("<>|=", h->descr[0]))
        for (size_t i = 0; i < sizeof types / sizeof *types; i++)
            if (strcmp(types[i].name, h->descr + 1) == 0) h->kind = types[i].kind;
    const char kind = h->descr[0] ? h->descr[1] : 0;
    ATOMO_REQUIRE(h->kind >= 0, ATOMO_EDTYPE,
                  "npy: %s holds '%s'%s, expected booleans, integers or floats of up to 8 bytes", h->name, h->descr,
                  kind == 'O'                  ? " (Python objects, a pickle)"
                  : kind == 'c'                ? " (complex numbers)"
                  : kind == 'U' || kind == 'S' ? " (texts)"
                  : kind == 'M' || kind == 'm' ? " (dates)"
                  : kind == 'V'                ? " (raw bytes)"
                                               : "");
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
                  "npy: %s: the header lacks %s, expected descr, fortran_order and shape", h->name,
                  !h->descr[0]     ? "descr"
                  : h->fortran < 0 ? "fortran_order"
                                   : "shape");
    return find_type(h);
}

static int read_header(header *h, const atomo__source *in)
{
    const int64_t size = in->size;
    uint8_t b[12];
    ATOMO_TRY(in->read(in->state, 0, b, 10));
    ATOMO_REQUIRE(memcmp(b, "\x93NUMPY", 6) == 0, ATOMO_EFORMAT,
                  "npy: %s: offset 0: found %02x %02x %02x %02x %02x %02x, expected 93 4e 55 4d 50 59 (\\x93NUMPY)",
                  h->name, b[0], b[1], b[2], b[3], b[4], b[5]);
    ATOMO_REQUIRE(b[6] >= 1 && b[6] <= 3, ATOMO_EFORMAT, "npy: %s: offset 6: version %d, expected 1 to 3", h->name,
                  b[6]);
    int64_t n = b[8] | b[9] << 8;
    h->base = 10;
    if (b[6] > 1) {
        ATOMO_TRY(in->read(in->state, 10, b + 10, 2));
        n |= (int64_t)b[10] << 16 | (int64_t)b[11] << 24;
        h->base = 12;
    }
    ATOMO_REQUIRE(n <= MAX_HEADER && h->base + n <= size, ATOMO_EFORMAT,
                  "npy: %s: offset 8: a header of %lld bytes, expected at most %lld", h->name, (long long)n,
                  (long long)ATOMO_MIN((int64_t)MAX_HEADER, size - h->base));
    ATOMO_TRY(in->read(in->state, h->base, h->text, (size_t)n));
    h->text[n] = 0;
    ATOMO_REQUIRE(strlen(h->text) == (size_t)n, ATOMO_EFORMAT, "npy: %s: offset %lld: a zero byte in the header",
                  h->name, (long long)h->base + (long long)strlen(h->text));
    h->data = h->base + n;
    h->fortran = h->ndim = -1;
    ATOMO_TRY(parse_dict(h));
    const double want = (double)h->data + h->numel * (double)atomo__element_size(h->kind);
    ATOMO_REQUIRE(want == (double)size, ATOMO_EFORMAT, "npy: %s is %lld bytes, expected %.0f by its header %s %s",
                  h->name, (long long)size, want, h->descr, atomo__dims_text(h->ndim, h->shape));
    return ATOMO_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static void swap_bytes(uint8_t *p, int64_t n, int64_t size)
{
    for (int64_t i = 0; i < n; i++, p += size)
        for (int64_t k = 0; k < size / 2; k++) {
            const uint8_t b = p[k];
            p[k] = p[size - 1 - k];
            p[size - 1 - k] = b;
        }
}

/* Reads the elements of t, in chunks. */
static int read_elements(const header *h, const atomo__source *in, atomo_tensor *t)
{
    uint8_t bytes[8 * CHUNK];
    const int64_t n = atomo__numel(t), size = atomo__element_size(h->kind);
    for (int64_t at = 0; at < n; at += CHUNK) {
        const int64_t m = ATOMO_MIN(n - at, (int64_t)CHUNK), offset = h->data + size * at;
        ATOMO_TRY(in->read(in->state, offset, bytes, (size_t)(m * size)));
        if (h->swapped) swap_bytes(bytes, m, size);
        const int64_t done = atomo__convert_elements(h->kind, bytes, m, t, at);
        ATOMO_REQUIRE(done == m, ATOMO_ELIMIT, "npy: %s: offset %lld: %.17g does not fit %s", h->name,
                      (long long)(offset + size * done), atomo__element_value(h->kind, bytes + size * done),
                      atomo__dtype_name(t->dtype));
    }
    return ATOMO_OK;
}

/* *out = t, whose elements are in Fortran order, in C order. */
static int reorder(const header *h, atomo_tensor *t, atomo_tensor **out)
{
    double stride[ATOMO_MAX_DIM], step = 1;
    atomo_tensor *view;
    for (int i = 0; i < h->ndim; i++) {
        stride[i] = step;
        step *= h->shape[i];
    }
    ATOMO_TRY(atomo_tensor_view(t, h->ndim, h->shape, stride, 0, &view));
    int rc = atomo__output(out, t->dtype, h->ndim, h->shape, "npy_read");
    if (rc == ATOMO_OK) rc = atomo_copy(*out, view);
    atomo_tensor_free(view);
    return rc;
}

static int read_data(const header *h, const atomo__source *in, atomo_tensor **out)
{
    atomo_tensor *t = NULL;
    const bool turned = h->fortran && h->ndim > 1, fresh = !*out;
    ATOMO_TRY(atomo__output(turned ? &t : out, atomo__element_dtype(h->kind), h->ndim, h->shape, "npy_read"));
    if (!turned) t = *out;
    int rc = read_elements(h, in, t);
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

int atomo__npy_decode(const atomo__source *in, atomo_tensor **out)
{
    void *p;
    ATOMO_TRY(atomo__calloc(&p, sizeof(header)));
    header *h = p;
    h->name = in->name;
    int rc = read_header(h, in);
    if (rc == ATOMO_OK) rc = read_data(h, in, out);
    atomo__free(h);
    return rc;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *path;
    FILE *f;
} npy_file;

static int read_file(void *state, int64_t offset, void *into, size_t n)
{
    const npy_file *file = state;
    return atomo__file_read("npy", file->path, file->f, offset, into, n);
}

static int refuse_archive(const npy_file *file)
{
    char b[4] = {0};
    const size_t n = fread(b, 1, sizeof b, file->f);
    ATOMO_REQUIRE(n < 4 || memcmp(b, "PK", 2) != 0, ATOMO_EFORMAT, "npy: %s is an .npz: use atomo.from_npz",
                  file->path);
    rewind(file->f);
    return ATOMO_OK;
}

int atomo_npy_read(const char *path, atomo_tensor **out)
{
    npy_file file = {path, NULL};
    atomo__source in = {path, 0, &file, read_file};
    ATOMO_TRY(atomo__file_open("npy", path, &file.f, &in.size));
    int rc = refuse_archive(&file);
    if (rc == ATOMO_OK) rc = atomo__npy_decode(&in, out);
    fclose(file.f);
    return rc;
}
