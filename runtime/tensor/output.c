/* output.c - the tensors that a kernel writes to: allocates or checks outputs, and handles memory shared with inputs.
 *
 * Views of one storage may share elements. A target whose own elements overlap (an expanded view) is refused. A target
 * that is the same view as an input is written in place by kernels that work element by element. If target and input
 * overlap, or may overlap, in any other way, one of them is copied: the operand before the kernel runs
 * (atomo__operand), or the output after it (atomo__make). Path: every stage. */
#include "tensor/tensor.h"

void atomo__extent(const atomo_tensor *t, uintptr_t *first, uintptr_t *end)
{
    const int64_t size = (int64_t)atomo__dtype_size(t->dtype);
    int64_t below = 0, above = 0;
    for (int i = 0; i < t->ndim; i++) {
        const int64_t reach = (atomo__size(t, i) - 1) * (int64_t)t->stride[i];
        if (reach < 0)
            below += reach;
        else
            above += reach;
    }
    *first = (uintptr_t)t->data + (uintptr_t)(below * size);
    *end = (uintptr_t)t->data + (uintptr_t)((above + 1) * size);
}

/* Returns whether the address ranges of a and b overlap: two storages may, if both are wrapped memory. Views that
 * interleave without sharing an element count as overlapping. */
static bool may_overlap(const atomo_tensor *a, const atomo_tensor *b)
{
    uintptr_t a_first, a_end, b_first, b_end;
    if (a->numel == 0 || b->numel == 0) return false;
    atomo__extent(a, &a_first, &a_end);
    atomo__extent(b, &b_first, &b_end);
    return a_first < b_end && b_first < a_end;
}

/* Returns whether a and b have the same address, dtype, shape and strides. */
static bool same_view(const atomo_tensor *a, const atomo_tensor *b)
{
    if (a->data != b->data || a->dtype != b->dtype || !atomo__same_shape(a, b)) return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->shape[i] > 1 && a->stride[i] != b->stride[i]) return false;
    return true;
}

/* Returns whether two elements of t may share an address. They cannot if every stride, in ascending order, is larger
 * than the distance that the smaller strides span together. This holds for all views of a contiguous tensor except
 * expanded ones. */
static bool overlaps_itself(const atomo_tensor *t)
{
    int64_t stride[ATOMO_MAX_DIM], size[ATOMO_MAX_DIM], reach = 0;
    int n = 0;
    if (t->numel < 2) return false;
    for (int i = t->ndim - 1; i >= 0; i--) {
        const int64_t step = (int64_t)t->stride[i];
        if (t->shape[i] == 1) continue;
        int at = n++;
        for (; at > 0 && stride[at - 1] > (step < 0 ? -step : step); at--) {
            stride[at] = stride[at - 1];
            size[at] = size[at - 1];
        }
        stride[at] = step < 0 ? -step : step;
        size[at] = atomo__size(t, i);
    }
    for (int i = 0; i < n; i++) {
        if (stride[i] <= reach) return true;
        reach += (size[i] - 1) * stride[i];
    }
    return false;
}

int atomo__target(const atomo_tensor *t, const char *what)
{
    ATOMO_REQUIRE(!overlaps_itself(t), ATOMO_EARG,
                  "%s: elements of the target %s share memory (an expanded view); write to its :clone() instead", what,
                  atomo__shape_text(t));
    return ATOMO_OK;
}

int atomo__operand(const atomo_tensor *target, const atomo_tensor *x, const atomo_tensor **use, atomo_tensor **hold)
{
    if (!same_view(target, x)) return atomo__operand_apart(target, x, use, hold);
    *hold = NULL;
    *use = x;
    return ATOMO_OK;
}

int atomo__operand_apart(const atomo_tensor *target, const atomo_tensor *x, const atomo_tensor **use,
                         atomo_tensor **hold)
{
    *hold = NULL;
    *use = x;
    if (!may_overlap(target, x)) return ATOMO_OK;
    ATOMO_TRY(atomo_tensor_new(x->dtype, x->ndim, x->shape, hold));
    *use = *hold;
    return atomo_copy(*hold, x); /* cannot fail: equal shapes, no shared memory */
}

int atomo__apart(const atomo_tensor *target, const atomo_tensor *x, const char *what)
{
    ATOMO_REQUIRE(!may_overlap(target, x), ATOMO_EARG,
                  "%s: %s and %s share memory, expected tensors that do not overlap", what, atomo__shape_text(target),
                  atomo__shape_text(x));
    return ATOMO_OK;
}

static int check_given(const atomo_tensor *t, int dtype, int ndim, const double *shape, const char *what)
{
    bool same = t->dtype == dtype && t->ndim == ndim;
    for (int i = 0; same && i < ndim; i++) same = t->shape[i] == shape[i];
    ATOMO_REQUIRE(same, ATOMO_ESHAPE, "%s: output is %s %s, expected %s %s", what, atomo__dtype_name(t->dtype),
                  atomo__shape_text(t), atomo__dtype_name(dtype), atomo__dims_text(ndim, shape));
    return ATOMO_OK;
}

int atomo__output(atomo_tensor **out, int dtype, int ndim, const double *shape, const char *what)
{
    if (!*out) return atomo_tensor_new(dtype, ndim, shape, out);
    ATOMO_TRY(check_given(*out, dtype, ndim, shape, what));
    ATOMO_REQUIRE(atomo_tensor_is_contiguous(*out), ATOMO_ESHAPE, "%s: output %s is not contiguous", what,
                  atomo__shape_text(*out));
    return ATOMO_OK;
}

/* Returns whether the kernel can write to t directly, without a temporary tensor. */
static bool is_direct(const atomo_making *making, const atomo_tensor *t)
{
    if (!atomo_tensor_is_contiguous(t)) return false;
    for (int i = 0; i < making->inputs; i++) {
        const atomo_tensor *x = making->input[i];
        if (x && may_overlap(t, x) && !(making->in_place && same_view(t, x))) return false;
    }
    return true;
}

int atomo__make(atomo_making *making, atomo_tensor **out, int dtype, int ndim, const double *shape, const char *what)
{
    atomo_tensor *given = *out;
    if (given) {
        ATOMO_TRY(check_given(given, dtype, ndim, shape, what));
        ATOMO_TRY(atomo__target(given, what));
        if (is_direct(making, given)) return ATOMO_OK;
    }
    ATOMO_REQUIRE(making->n < ATOMO_MAX_OUTPUTS, ATOMO_EINTERNAL, "%s: more outputs than a call may have", what);
    const int rc = atomo_tensor_new(dtype, ndim, shape, out);
    if (rc < 0) {
        *out = given;
        return rc;
    }
    making->out[making->n] = out;
    making->given[making->n++] = given;
    return given && making->updates ? atomo_copy(*out, given) : ATOMO_OK;
}

int atomo__made(atomo_making *making, int rc)
{
    for (; rc >= 0 && making->n > 0; making->n--) {
        atomo_tensor **out = making->out[making->n - 1], *given = making->given[making->n - 1];
        if (!given) continue;
        ATOMO_TRY(atomo_copy(given, *out));
        atomo_tensor_free(*out);
        *out = given;
    }
    return rc;
}

void atomo__unmake(atomo_making *making)
{
    while (making->n > 0) {
        atomo_tensor **out = making->out[--making->n];
        atomo_tensor_free(*out);
        *out = making->given[making->n];
    }
}
