/* tensor.c - storages and strided views of them. Path: every stage. */
#include "tensor/tensor.h"
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

struct atomo_storage {
    void *bytes;
    size_t nbytes;
    _Atomic int refs;        /* tensors that view it; the last one frees it */
    _Atomic int64_t version; /* number of changes in place so far */
    int64_t zero_at;         /* version at which every element was zero; -1: not known */
    bool exposed;            /* the caller has a pointer to the bytes, so not every change is counted in version */
    bool foreign;            /* the bytes belong to the caller of atomo_tensor_wrap, and are not freed */
};

static const struct {
    const char *name;
    size_t size; /* of an element, in bytes */
} dtypes[ATOMO_DTYPES] = {
    [ATOMO_F32] = {"f32", 4}, [ATOMO_I32] = {"i32", 4},   [ATOMO_U8] = {"u8", 1},
    [ATOMO_F16] = {"f16", 2}, [ATOMO_BF16] = {"bf16", 2},
};

size_t atomo__dtype_size(int dtype)
{
    return dtypes[dtype].size;
}

const char *atomo__dtype_name(int dtype)
{
    return dtype >= 0 && dtype < ATOMO_DTYPES ? dtypes[dtype].name : "?";
}

int atomo__expect_numbers(const atomo_tensor *t, const char *what)
{
    ATOMO_REQUIRE(t->dtype != ATOMO_F16 && t->dtype != ATOMO_BF16, ATOMO_EDTYPE,
                  "%s: does not compute with %s, convert it first (t:to \"f32\")", what, atomo__dtype_name(t->dtype));
    return ATOMO_OK;
}

const char *atomo__dims_text(int ndim, const double *shape)
{
    enum { WIDTH = 26, SIZE = ATOMO_MAX_DIM * WIDTH + 3 };
    static _Thread_local char text[8][SIZE];
    static _Thread_local unsigned next;
    char *s = text[next++ & 7];
    int n = snprintf(s, SIZE, "[");
    for (int i = 0; i < ndim && i < ATOMO_MAX_DIM; i++) /* %.17g: whole numbers in full, at most WIDTH characters */
        n += snprintf(s + n, WIDTH + 1, i ? ",%.17g" : "%.17g", shape[i]);
    snprintf(s + n, 2, "]");
    return s;
}

const char *atomo__shape_text(const atomo_tensor *t)
{
    return atomo__dims_text(t->ndim, t->shape);
}

bool atomo__same_shape(const atomo_tensor *a, const atomo_tensor *b)
{
    if (a->ndim != b->ndim) return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->shape[i] != b->shape[i]) return false;
    return true;
}

int atomo__expect(const atomo_tensor *t, int dtype, int ndim, const char *what)
{
    ATOMO_REQUIRE(t, ATOMO_EARG, "%s is missing", what);
    ATOMO_REQUIRE(t->dtype == dtype, ATOMO_EDTYPE, "%s is %s, expected %s", what, atomo__dtype_name(t->dtype),
                  atomo__dtype_name(dtype));
    ATOMO_REQUIRE(ndim < 0 || t->ndim == ndim, ATOMO_ESHAPE, "%s has shape %s, expected %d dimensions", what,
                  atomo__shape_text(t), ndim);
    ATOMO_REQUIRE(atomo_tensor_is_contiguous(t), ATOMO_ESHAPE, "%s %s is not contiguous, call :contiguous() first",
                  what, atomo__shape_text(t));
    return ATOMO_OK;
}

int atomo__expect_argument(const atomo_tensor *t, int dtype, int ndim, const char *fn, const char *name)
{
    if (t && t->dtype == dtype && (ndim < 0 || t->ndim == ndim) && atomo_tensor_is_contiguous(t)) return ATOMO_OK;
    char what[64];
    snprintf(what, sizeof what, "%s: %s", fn, name);
    return atomo__expect(t, dtype, ndim, what);
}

static void storage_release(atomo_storage *s)
{
    if (s && atomic_fetch_sub(&s->refs, 1) == 1) {
        if (!s->foreign) atomo__free(s->bytes);
        atomo__free(s);
    }
}

void atomo__tensor_hold(atomo_tensor *held, const atomo_tensor *t)
{
    *held = *t;
    atomic_fetch_add(&held->storage->refs, 1);
}

void atomo__tensor_drop(atomo_tensor *held)
{
    storage_release(held->storage);
    memset(held, 0, sizeof *held);
}

/* *out = a new tensor, without shape or data, of a new storage of these bytes. */
static int handles_new(void *bytes, size_t nbytes, atomo_tensor **out)
{
    void *storage, *tensor;
    ATOMO_TRY(atomo__calloc(&storage, sizeof(atomo_storage)));
    const int rc = atomo__calloc(&tensor, sizeof(atomo_tensor));
    if (rc < 0) {
        atomo__free(storage);
        return rc;
    }
    atomo_storage *s = storage;
    s->bytes = bytes;
    s->nbytes = nbytes;
    atomic_init(&s->refs, 1);
    atomic_init(&s->version, 0);
    s->zero_at = -1;
    *out = tensor;
    (*out)->storage = s;
    return ATOMO_OK;
}

int atomo_tensor_new(int dtype, int ndim, const double *shape, atomo_tensor **out)
{
    *out = NULL;
    ATOMO_REQUIRE(dtype >= 0 && dtype < ATOMO_DTYPES, ATOMO_EDTYPE, "tensor: unknown dtype %d", dtype);
    ATOMO_REQUIRE(ndim >= 0 && ndim <= ATOMO_MAX_DIM, ATOMO_ESHAPE, "tensor: %d dimensions, at most %d", ndim,
                  ATOMO_MAX_DIM);
    /* n: the product of the sizes above 0. It is checked even for an empty tensor, whose strides are as large. */
    size_t n = 1, nbytes;
    bool empty = false;
    for (int i = 0; i < ndim; i++) {
        ATOMO_REQUIRE(shape[i] >= 0 && atomo__whole(shape[i]), ATOMO_ESHAPE,
                      "tensor: size %g in dimension %d, expected a whole number >= 0", shape[i], i + 1);
        empty = empty || shape[i] == 0;
        ATOMO_TRY(atomo__size_mul(n, (size_t)ATOMO_MAX(shape[i], 1), 1, &n));
    }
    ATOMO_TRY(atomo__size_mul(n, atomo__dtype_size(dtype), 1, &nbytes));
    if (empty) n = nbytes = 0;
    void *bytes;
    ATOMO_TRY(atomo__alloc(&bytes, nbytes));
    atomo_tensor *t;
    const int rc = handles_new(bytes, nbytes, &t);
    if (rc < 0) {
        atomo__free(bytes);
        return rc;
    }
    t->data = bytes;
    t->dtype = dtype;
    t->ndim = ndim;
    t->numel = (double)n;
    double stride = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        t->shape[i] = shape[i];
        t->stride[i] = stride;
        stride *= shape[i];
    }
    *out = t;
    return ATOMO_OK;
}

void atomo_tensor_free(atomo_tensor *t)
{
    if (!t || atomo__objects_kept()) return;
    storage_release(t->storage);
    atomo__free(t);
}

/* Checks the sizes and strides of a view called `what`. *numel = its elements; *first and *last = offsets of its lowest
 * and its highest element, of no meaning if it has none. */
static int span_of(int ndim, const double *shape, const double *stride, const char *what, double *numel, double *first,
                   double *last)
{
    ATOMO_REQUIRE(ndim >= 0 && ndim <= ATOMO_MAX_DIM, ATOMO_ESHAPE, "%s: %d dimensions, at most %d", what, ndim,
                  ATOMO_MAX_DIM);
    *numel = 1;
    *first = *last = 0;
    for (int i = 0; i < ndim; i++)
        ATOMO_REQUIRE(shape[i] >= 0 && atomo__whole(shape[i]), ATOMO_ESHAPE,
                      "%s: size %g in dimension %d, expected a whole number >= 0", what, shape[i], i + 1);
    for (int i = 0; i < ndim; i++) {
        ATOMO_REQUIRE(atomo__whole(stride[i]), ATOMO_ESHAPE, "%s: stride %g in dimension %d, expected a whole number",
                      what, stride[i], i + 1);
        *numel *= shape[i];
        const double reach = (shape[i] - 1) * stride[i];
        *(reach > 0 ? last : first) += reach;
    }
    ATOMO_REQUIRE(*numel <= 0x1p53, ATOMO_ELIMIT, "%s: %s has too many elements", what, atomo__dims_text(ndim, shape));
    return ATOMO_OK;
}

static void set_dims(atomo_tensor *t, int ndim, const double *shape, const double *stride, double numel)
{
    t->ndim = ndim;
    t->numel = numel;
    for (int i = 0; i < ndim; i++) {
        t->shape[i] = shape[i];
        t->stride[i] = numel == 0 ? 0 : stride[i]; /* an empty view's strides are unchecked, so they are dropped */
    }
}

int atomo_tensor_view(const atomo_tensor *t, int ndim, const double *shape, const double *stride, double offset,
                      atomo_tensor **out)
{
    *out = NULL;
    double numel, first, last;
    ATOMO_TRY(span_of(ndim, shape, stride, "view", &numel, &first, &last));
    ATOMO_REQUIRE(atomo__whole(offset), ATOMO_ESHAPE, "view: offset %g, expected a whole number", offset);
    size_t size = atomo__dtype_size(t->dtype);
    double start = (double)((char *)t->data - (char *)t->storage->bytes) / (double)size + offset;
    ATOMO_REQUIRE(numel == 0 || (start + first >= 0 && (start + last + 1) * (double)size <= (double)t->storage->nbytes),
                  ATOMO_ESHAPE, "view: %s leaves the storage of %s", atomo__dims_text(ndim, shape),
                  atomo__shape_text(t));
    void *p;
    ATOMO_TRY(atomo__alloc(&p, sizeof(atomo_tensor)));
    atomo_tensor *v = p;
    memset(v, 0, sizeof *v);
    v->storage = t->storage;
    v->data = numel == 0 ? t->data : (char *)t->data + (ptrdiff_t)offset * (ptrdiff_t)size;
    v->dtype = t->dtype;
    set_dims(v, ndim, shape, stride, numel);
    atomic_fetch_add(&v->storage->refs, 1);
    *out = v;
    return ATOMO_OK;
}

int atomo_tensor_wrap(int dtype, int ndim, const double *shape, const double *stride, void *data, atomo_tensor **out)
{
    *out = NULL;
    ATOMO_REQUIRE(dtype >= 0 && dtype < ATOMO_DTYPES, ATOMO_EDTYPE, "wrap: unknown dtype %d", dtype);
    double numel, first, last, dense[ATOMO_MAX_DIM], step = 1;
    for (int i = ndim <= ATOMO_MAX_DIM && !stride ? ndim - 1 : -1; i >= 0; i--) {
        dense[i] = step;
        step *= shape[i];
    }
    if (!stride) stride = dense;
    ATOMO_TRY(span_of(ndim, shape, stride, "wrap", &numel, &first, &last));
    const size_t size = atomo__dtype_size(dtype);
    const double bytes = numel == 0 ? 0 : (last - first + 1) * (double)size;
    ATOMO_REQUIRE(data || numel == 0, ATOMO_EARG, "wrap: data is missing, expected %s elements",
                  atomo__dims_text(ndim, shape));
    ATOMO_REQUIRE((uintptr_t)data % size == 0, ATOMO_EARG, "wrap: data is at %p, expected a multiple of %zu", data,
                  size);
    ATOMO_REQUIRE(bytes <= (double)PTRDIFF_MAX / 2, ATOMO_ELIMIT, "wrap: %s spans %g bytes",
                  atomo__dims_text(ndim, shape), bytes);
    char *lowest = numel == 0 ? data : (char *)data + (ptrdiff_t)first * (ptrdiff_t)size;
    ATOMO_TRY(handles_new(lowest, (size_t)bytes, out));
    (*out)->storage->foreign = true;
    atomo_tensor_expose(*out);
    (*out)->data = data;
    (*out)->dtype = dtype;
    set_dims(*out, ndim, shape, stride, numel);
    return ATOMO_OK;
}

int atomo_tensor_is_contiguous(const atomo_tensor *t)
{
    double stride = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && t->stride[i] != stride && t->numel > 0) return 0;
        stride *= t->shape[i];
    }
    return 1;
}

static int64_t version_of(const atomo_storage *s)
{
    return atomic_load_explicit(&s->version, memory_order_relaxed);
}

double atomo_tensor_version(const atomo_tensor *t)
{
    return (double)version_of(t->storage);
}

void atomo_tensor_touch(atomo_tensor *t)
{
    atomic_fetch_add_explicit(&t->storage->version, 1, memory_order_relaxed);
}

void atomo_tensor_mark_zero(atomo_tensor *t)
{
    const bool whole =
        atomo_tensor_is_contiguous(t) && (size_t)t->numel * atomo__dtype_size(t->dtype) == t->storage->nbytes;
    t->storage->zero_at = whole && !t->storage->exposed ? version_of(t->storage) : -1;
}

int atomo_tensor_is_zero(const atomo_tensor *t)
{
    return t->storage->zero_at >= 0 && t->storage->zero_at == version_of(t->storage);
}

void atomo_tensor_expose(atomo_tensor *t)
{
    t->storage->exposed = true;
    t->storage->zero_at = -1;
}

int atomo_tensor_is_sole(const atomo_tensor *t)
{
    return atomic_load_explicit(&t->storage->refs, memory_order_relaxed) == 1;
}

int atomo_tensor_crc(const atomo_tensor *t, double *out)
{
    ATOMO_TRY(atomo__expect(t, t->dtype, -1, "crc: tensor"));
    *out = (double)atomo__crc32(0, t->data, (size_t)t->numel * atomo__dtype_size(t->dtype));
    return ATOMO_OK;
}

int atomo__dense(const atomo_tensor *t, int dtype, const atomo_tensor **out, atomo_tensor **hold)
{
    *hold = NULL;
    *out = t;
    if (t->dtype == dtype && atomo_tensor_is_contiguous(t)) return ATOMO_OK;
    ATOMO_TRY(atomo_tensor_new(dtype, t->ndim, t->shape, hold));
    int rc = atomo_copy(*hold, t);
    if (rc < 0) {
        atomo_tensor_free(*hold);
        *hold = NULL;
        return rc;
    }
    *out = *hold;
    return ATOMO_OK;
}

int atomo__contiguous(const atomo_tensor *t, const atomo_tensor **out, atomo_tensor **hold)
{
    return atomo__dense(t, ATOMO_F32, out, hold);
}
