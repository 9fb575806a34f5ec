/* mat.c - reads numeric variables of MATLAB's MAT-files of version 5 (save -v6, or -v7 with zlib). Path: stage 1.
 *
 * A file is 128 bytes of header, then data elements: a tag (type, bytes) and its data. A variable is an element of type
 * matrix, or one of type compressed, whose zlib stream holds such a matrix. The matrix has sub-elements: flags,
 * dimensions, name, values. Values may be stored in a smaller type than the variable's class [MAT-File Format, MATLAB].
 */
#include "io/element.h"
#include "io/file.h"
#include "io/inflate.h"
#include <errno.h>
#include <string.h>

enum { HEADER = 128, TAG = 8, CHUNK = 4096, MOST_NAME = 63, MOST_LISTED = 200 };
enum { INT8 = 1, INT32 = 5, UINT32 = 6, MATRIX = 14, COMPRESSED = 15, COMPLEX = 0x800 };

typedef struct {
    const char *path;
    FILE *f;
    int64_t bytes, at;       /* of the file; offset of the next variable */
    char names[MOST_LISTED]; /* of the variables seen so far, for the error text */
} mat_file;

/* A variable that is being read. */
typedef struct {
    atomo__inflater in;
    int64_t left; /* bytes of the matrix that have not been read */
    int class, ndim;
    bool complex;
    double shape[ATOMO_MAX_DIM], numel; /* the dimensions in reverse order */
    char name[MOST_NAME + 1];
} variable;

typedef struct {
    uint32_t type, bytes;
    uint8_t small[4]; /* data of at most 4 bytes, if is_small */
    bool is_small;
} element;

static const int kinds[] = {-1,
                            ATOMO_RAW_I8,
                            ATOMO_U8,
                            ATOMO_RAW_I16,
                            ATOMO_RAW_U16,
                            ATOMO_I32,
                            ATOMO_RAW_U32,
                            ATOMO_F32,
                            -1,
                            ATOMO_RAW_F64,
                            -1,
                            -1,
                            ATOMO_RAW_I64,
                            ATOMO_RAW_U64}; /* by element type */

static const char *class_name(int class)
{
    static const char *const names[] = {"0",    "cell",  "struct", "object", "char",  "sparse", "double", "single",
                                        "int8", "uint8", "int16",  "uint16", "int32", "uint32", "int64",  "uint64"};
    return class >= 0 && class < 16 ? names[class] : "unknown";
}

static uint32_t u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* ---- elements of a matrix ---------------------------------------------------------------------------------------- */

static int read_bytes(variable *v, void *into, int64_t n)
{
    ATOMO_REQUIRE(n <= v->left, ATOMO_EFORMAT, "%s: unpacked offset %lld: %lld bytes needed, its matrix has %lld more",
                  v->in.name, (long long)v->in.at, (long long)n, (long long)v->left);
    v->left -= n;
    return atomo__inflate(&v->in, into, n);
}

static int read_tag(variable *v, element *e)
{
    uint8_t b[TAG];
    ATOMO_TRY(read_bytes(v, b, TAG));
    e->is_small = u32(b) >> 16;
    e->type = u32(b) & 0xFFFF;
    e->bytes = e->is_small ? u32(b) >> 16 : u32(b + 4);
    memcpy(e->small, b + 4, 4);
    ATOMO_REQUIRE(!e->is_small || e->bytes <= 4, ATOMO_EFORMAT,
                  "%s: unpacked offset %lld: a small element of %u bytes, at most 4", v->in.name, (long long)v->in.at,
                  e->bytes);
    return ATOMO_OK;
}

/* Reads an element of this type and at most `room` bytes, and its padding; *n = its bytes. */
static int read_small(variable *v, uint32_t type, const char *what, void *into, uint32_t room, uint32_t *n)
{
    element e;
    uint8_t padding[8];
    ATOMO_TRY(read_tag(v, &e));
    ATOMO_REQUIRE(e.type == type && e.bytes <= room, ATOMO_EFORMAT,
                  "%s: unpacked offset %lld: an element of type %u, %u bytes, expected %s: type %u, at most %u bytes",
                  v->in.name, (long long)v->in.at, e.type, e.bytes, what, type, room);
    *n = e.bytes;
    if (e.is_small) {
        memcpy(into, e.small, e.bytes);
        return ATOMO_OK;
    }
    ATOMO_TRY(read_bytes(v, into, e.bytes));
    return read_bytes(v, padding, (8 - (int64_t)e.bytes % 8) % 8);
}

static int read_head(variable *v)
{
    uint8_t flags[8] = {0}, dims[4 * ATOMO_MAX_DIM];
    uint32_t n;
    ATOMO_TRY(read_small(v, UINT32, "array flags", flags, sizeof flags, &n));
    v->class = flags[0];
    v->complex = u32(flags) & COMPLEX;
    ATOMO_TRY(read_small(v, INT32, "dimensions", dims, sizeof dims, &n));
    v->ndim = (int)(n / 4);
    v->numel = 1;
    for (int i = 0; i < v->ndim; i++) {
        const double size = u32(dims + 4 * i);
        v->shape[v->ndim - 1 - i] = size;
        v->numel *= size;
    }
    ATOMO_TRY(read_small(v, INT8, "a name", v->name, MOST_NAME, &n));
    v->name[n] = 0;
    return ATOMO_OK;
}

static int check_class(const variable *v)
{
    ATOMO_REQUIRE(v->class >= 6 && v->class <= 15, ATOMO_EDTYPE,
                  "%s: '%s' is of class %s, expected an array of numbers", v->in.name, v->name, class_name(v->class));
    ATOMO_REQUIRE(!v->complex, ATOMO_EDTYPE, "%s: '%s' has complex numbers, expected real ones", v->in.name, v->name);
    return ATOMO_OK;
}

/* Reads the values in chunks. */
static int read_values(variable *v, int kind, atomo_tensor *t)
{
    uint8_t bytes[8 * CHUNK];
    const int64_t n = atomo__numel(t), size = atomo__element_size(kind);
    for (int64_t at = 0; at < n; at += CHUNK) {
        const int64_t m = ATOMO_MIN(n - at, (int64_t)CHUNK);
        ATOMO_TRY(read_bytes(v, bytes, m * size));
        const int64_t done = atomo__convert_elements(kind, bytes, m, t, at);
        ATOMO_REQUIRE(done == m, ATOMO_ELIMIT, "%s: '%s': element %lld, %.17g, does not fit %s", v->in.name, v->name,
                      (long long)(at + done + 1), atomo__element_value(kind, bytes + size * done),
                      atomo__dtype_name(t->dtype));
    }
    return ATOMO_OK;
}

static int read_array(variable *v, atomo_tensor **out)
{
    element e;
    ATOMO_TRY(check_class(v));
    ATOMO_TRY(read_tag(v, &e));
    const int kind = e.type < sizeof kinds / sizeof *kinds ? kinds[e.type] : -1;
    ATOMO_REQUIRE(kind >= 0, ATOMO_EFORMAT, "%s: '%s': values of type %u, expected numbers", v->in.name, v->name,
                  e.type);
    const double want = v->numel * (double)atomo__element_size(kind);
    ATOMO_REQUIRE(want == e.bytes && (e.is_small || e.bytes <= v->left), ATOMO_EFORMAT,
                  "%s: '%s': %u bytes of values, %lld are left, expected %.0f by its dimensions %s", v->in.name,
                  v->name, e.bytes, (long long)v->left, want, atomo__dims_text(v->ndim, v->shape));
    ATOMO_TRY(atomo__output(out, atomo__element_dtype(kind), v->ndim, v->shape, "mat_read"));
    if (!e.is_small) return read_values(v, kind, *out);
    const int64_t n = atomo__numel(*out), done = atomo__convert_elements(kind, e.small, n, *out, 0);
    ATOMO_REQUIRE(done == n, ATOMO_ELIMIT, "%s: '%s': element %lld does not fit %s", v->in.name, v->name,
                  (long long)done + 1, atomo__dtype_name((*out)->dtype));
    return ATOMO_OK;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static int read_header(mat_file *m)
{
    uint8_t b[HEADER];
    ATOMO_TRY(atomo__file_read("mat", m->path, m->f, 0, b, HEADER));
    ATOMO_REQUIRE(memcmp(b, "MATLAB 7.3", 10) != 0, ATOMO_EFORMAT,
                  "mat: %s is of version 7.3 (HDF5), expected version 5: save it with -v7", m->path);
    ATOMO_REQUIRE(b[126] == 'I' && b[127] == 'M' && b[124] == 0 && b[125] == 1, ATOMO_EFORMAT,
                  "mat: %s: offset 124: found %02x %02x %02x %02x, expected 00 01 49 4d (a little-endian MAT-file of "
                  "version 5)",
                  m->path, b[124], b[125], b[126], b[127]);
    m->at = HEADER;
    return ATOMO_OK;
}

/* Opens the variable at m->at, with its head read; m->at = the offset behind it. The caller closes v->in. */
static int open_variable(mat_file *m, variable *v, const char *name)
{
    uint8_t b[TAG];
    ATOMO_REQUIRE(fseeko(m->f, m->at, SEEK_SET) == 0, ATOMO_EIO, "mat: %s: %s", m->path, atomo__system_error(errno));
    ATOMO_TRY(atomo__file_read("mat", m->path, m->f, m->at, b, TAG));
    const uint32_t type = u32(b);
    const int64_t bytes = u32(b + 4);
    ATOMO_REQUIRE((type == MATRIX || type == COMPRESSED) && bytes <= m->bytes - m->at - TAG, ATOMO_EFORMAT,
                  "mat: %s: offset %lld: an element of type %u, %lld bytes, expected a variable (type 14 or 15) of at "
                  "most %lld",
                  m->path, (long long)m->at, type, (long long)bytes, (long long)(m->bytes - m->at - TAG));
    m->at += TAG + bytes;
    v->left = type == MATRIX ? bytes : TAG;
    return atomo__inflate_open(&v->in, name, m->f, bytes, type == MATRIX ? ATOMO__STORED : ATOMO__ZLIB);
}

/* Reads the tag of the matrix in a compressed element, of `packed` bytes. */
static int read_inner_tag(variable *v, int64_t packed)
{
    uint8_t b[TAG];
    if (v->in.form == ATOMO__STORED) return ATOMO_OK;
    ATOMO_TRY(read_bytes(v, b, TAG));
    v->left = u32(b + 4);
    ATOMO_REQUIRE(u32(b) == MATRIX && v->left / ATOMO__MOST_INFLATED <= packed, ATOMO_EFORMAT,
                  "%s: %lld packed bytes of an element of type %u, %lld bytes, expected a matrix (type 14) of at most "
                  "%lld",
                  v->in.name, (long long)packed, u32(b), (long long)v->left, (long long)packed * ATOMO__MOST_INFLATED);
    return ATOMO_OK;
}

/* Returns 1 if the variable has that name, and reads it; 0 if it has another name. */
static int try_variable(mat_file *m, variable *v, const char *name, int64_t packed, atomo_tensor **out)
{
    uint8_t rest[8];
    ATOMO_TRY(read_inner_tag(v, packed));
    ATOMO_TRY(read_head(v));
    const size_t n = strlen(m->names);
    snprintf(m->names + n, sizeof m->names - n, "%s%s", n > 0 ? ", " : "", v->name);
    if (strcmp(v->name, name) != 0) return 0;
    ATOMO_TRY(read_array(v, out));
    ATOMO_REQUIRE(v->left < 8, ATOMO_EFORMAT, "%s: '%s': %lld bytes are left after its values", v->in.name, v->name,
                  (long long)v->left);
    ATOMO_TRY(read_bytes(v, rest, v->left));
    ATOMO_TRY(atomo__inflate_end(&v->in));
    return 1;
}

static int find_variable(mat_file *m, variable *v, const char *name, atomo_tensor **out)
{
    char where[1100];
    ATOMO_TRY(read_header(m));
    while (m->at < m->bytes) {
        const int64_t from = m->at;
        snprintf(where, sizeof where, "mat: %.1000s: the variable at offset %lld", m->path, (long long)from);
        ATOMO_TRY(open_variable(m, v, where));
        const int rc = try_variable(m, v, name, m->at - from - TAG, out);
        atomo__inflate_close(&v->in);
        if (rc != 0) return rc < 0 ? rc : ATOMO_OK;
    }
    return atomo__fail(ATOMO_EFORMAT, "mat: %s has no variable '%s', it has %s", m->path, name,
                       m->names[0] ? m->names : "none");
}

int atomo_mat_read(const char *path, const char *name, atomo_tensor **out)
{
    mat_file m = {.path = path};
    void *p;
    const bool fresh = !*out;
    ATOMO_TRY(atomo__calloc(&p, sizeof(variable)));
    int rc = atomo__file_open("mat", path, &m.f, &m.bytes);
    if (rc == ATOMO_OK) {
        rc = find_variable(&m, p, name, out);
        fclose(m.f);
    }
    atomo__free(p);
    if (rc < 0 && fresh) {
        atomo_tensor_free(*out);
        *out = NULL;
    }
    return rc;
}
