/* test_overlap.c - outputs of kernels: an output that overlaps an input gets the same result as a new one; outputs
 * whose elements share memory are refused; and a call that fails does not change a given output. */
#include "check.h"
#include "tensor/tensor.h"

enum { N = 6 };

static atomo_tensor *square(void) /* 1 to N * N */
{
    atomo_tensor *t = check_tensor(N, N);
    for (int i = 0; i < N * N; i++) check_f32(t)[i] = (float)(i + 1) / 8;
    return t;
}

static atomo_tensor *view(const atomo_tensor *t, int ndim, const double *shape, const double *stride, double offset)
{
    atomo_tensor *v = NULL;
    CHECK_OK(atomo_tensor_view(t, ndim, shape, stride, offset, &v));
    return v;
}

/* One function under test: reads a [3,3] (and b [3,3]), writes [3,3]. */
typedef int fn(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out);

static int add(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    return atomo_binary(ATOMO_ADD, a, b, out);
}
static int subtract_from(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    (void)b;
    return atomo_scalar(ATOMO_SUB, a, 2, 1, out);
}
static int negate(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    (void)b;
    return atomo_unary(ATOMO_NEG, a, out);
}
static int clamp(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    (void)b;
    return atomo_clamp(a, 1, 2, out);
}
static int product(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    return atomo_matmul(a, b, 0, ATOMO_PRECISION_FP32, out);
}
static int softmax(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    (void)b;
    return atomo_softmax(a, 1, 0, out);
}
static int softmax_backward(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    return atomo_softmax_backward(a, b, 1, 0, out);
}
static int relu_backward(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    return atomo_relu_backward(a, b, out);
}
static int gelu(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    (void)b;
    return atomo_activation(ATOMO_GELU, a, 0, out);
}
static int linear(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    return atomo_linear(a, b, NULL, ATOMO_PRECISION_FP32, out);
}
static int gather(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    int32_t at[3] = {2, 0, 1};
    (void)b;
    atomo_tensor index = {.data = at, .dtype = ATOMO_I32, .ndim = 1, .numel = 3, .shape = {3}, .stride = {1}};
    return atomo_index_select(a, 0, &index, out);
}
static int running_sum(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    (void)b;
    return atomo_cumsum(a, 0, 1, out);
}
static int running_product(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    (void)b;
    return atomo_cumprod(a, 0, out);
}
static int fused(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    const atomo_step step[] = {{.kind = ATOMO_STEP_UNARY, .op = ATOMO_EXP, .a = -2, .b = -1, .to = 0},
                               {.kind = ATOMO_STEP_BINARY, .op = ATOMO_MUL, .a = 0, .b = -1, .to = 1}};
    const atomo_tensor *const in[] = {a, b};
    return atomo_fused(step, 2, 2, in, 2, out);
}
static int total(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out) /* of 3 copies of a */
{
    (void)b;
    atomo_tensor wide = *a;
    wide.ndim = 3, wide.numel = 27, wide.shape[0] = 3, wide.stride[0] = 0;
    for (int i = 0; i < 2; i++) wide.shape[i + 1] = a->shape[i], wide.stride[i + 1] = a->stride[i];
    return atomo_reduce(ATOMO_SUM, &wide, 0, 0, out);
}
static int vectors(const atomo_tensor *a, const atomo_tensor *b, atomo_tensor **out)
{
    (void)b;
    atomo_tensor *w = NULL;
    const int rc = atomo_eigh(a, &w, out);
    atomo_tensor_free(w);
    return rc;
}

static const struct {
    const char *name;
    fn *run;
} functions[] = {{"add", add},
                 {"scalar", subtract_from},
                 {"neg", negate},
                 {"clamp", clamp},
                 {"matmul", product},
                 {"softmax", softmax},
                 {"gelu", gelu},
                 {"linear", linear},
                 {"softmax backward", softmax_backward},
                 {"fused", fused},
                 {"index_select", gather},
                 {"relu backward", relu_backward},
                 {"reduce", total},
                 {"eigh", vectors},
                 {"cumsum", running_sum},
                 {"cumprod", running_product}};

static void given_outputs_may_overlap_the_inputs(void)
{
    const double shape[2] = {3, 3}, rows[2] = {3, 1}, turned[2] = {1, 3}, wide[2] = {N, 1};
    const struct {
        double offset, stride[2];
    } outputs[] = {{0, {3, 1}}, {1, {3, 1}}, {3, {3, 1}}, {9, {3, 1}}, {0, {1, 3}}, {0, {N, 1}}, {2, {2, 8}}};
    for (size_t f = 0; f < sizeof functions / sizeof *functions; f++)
        for (size_t o = 0; o < sizeof outputs / sizeof *outputs; o++)
            for (int layout = 0; layout < 3; layout++) {
                const bool needs_rows = functions[f].run != add && functions[f].run != negate &&
                                        functions[f].run != clamp && functions[f].run != product &&
                                        functions[f].run != subtract_from && functions[f].run != total;
                if (layout && needs_rows) continue;
                atomo_tensor *t = square(), *fresh = NULL;
                const double *stride = layout == 0 ? rows : layout == 1 ? turned : wide;
                atomo_tensor *a = view(t, 2, shape, stride, 0), *b = view(t, 2, shape, stride, layout == 2 ? 1 : 9);
                atomo_tensor *out = view(t, 2, shape, outputs[o].stride, outputs[o].offset), *given = out;
                CHECK_OK(functions[f].run(a, b, &fresh));
                const bool ok = CHECK_OK(functions[f].run(a, b, &out)) && CHECK(out == given);
                for (int i = 0; ok && i < 9; i++) {
                    const int64_t at = (int64_t)(i / 3 * out->stride[0] + i % 3 * out->stride[1]);
                    check_report(check_f32(out)[at] == check_f32(fresh)[i], __FILE__, __LINE__,
                                 "%s, output %zu, layout %d: element %d is %g, expected %g", functions[f].name, o,
                                 layout, i, (double)check_f32(out)[at], (double)check_f32(fresh)[i]);
                }
                atomo_tensor_free(t), atomo_tensor_free(a), atomo_tensor_free(b), atomo_tensor_free(out);
                atomo_tensor_free(fresh);
            }
}

static void what_is_added_to_is_read_first(void)
{
    const double shape[2] = {3, 3}, rows[2] = {3, 1};
    atomo_tensor *t = square(), *a = view(t, 2, shape, rows, 0), *b = view(t, 2, shape, rows, 9), *fresh = NULL;
    atomo_tensor *out = view(t, 2, shape, rows, 4);
    float was[9], want[9];
    memcpy(was, out->data, sizeof was);
    CHECK_OK(atomo_matmul(a, b, 0, ATOMO_PRECISION_FP32, &fresh));
    for (int i = 0; i < 9; i++) want[i] = check_f32(fresh)[i] + was[i];
    CHECK_OK(atomo_matmul(a, b, 1, ATOMO_PRECISION_FP32, &out));
    for (int i = 0; i < 9; i++) CHECK_NEAR(check_f32(out)[i], want[i], 1e-5);
    atomo_tensor_free(t), atomo_tensor_free(a), atomo_tensor_free(b), atomo_tensor_free(out), atomo_tensor_free(fresh);
}

static void a_target_that_overlaps_itself_is_refused(void)
{
    const struct {
        int ndim;
        double shape[3], stride[3], offset;
        bool refused;
    } targets[] = {{2, {3, 3, 0}, {0, 1, 0}, 0, true},    {2, {3, 3, 0}, {1, 1, 0}, 0, true},
                   {2, {3, 3, 0}, {2, 1, 0}, 0, true},    {2, {3, 3, 0}, {3, 1, 0}, 0, false},
                   {2, {3, 3, 0}, {1, 3, 0}, 0, false},   {2, {3, 3, 0}, {-3, 1, 0}, 9, false},
                   {2, {3, 3, 0}, {-1, -3, 0}, 9, false}, {2, {1, 3, 0}, {0, 1, 0}, 0, false},
                   {3, {2, 3, 2}, {6, 2, 1}, 0, false},   {3, {2, 3, 2}, {1, 2, 6}, 0, false},
                   {3, {2, 3, 2}, {5, 2, 1}, 0, true},    {2, {0, 3, 0}, {0, 0, 0}, 0, false}};
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        atomo_tensor *t = square(), *one = check_tensor(1, -1), *sum = NULL;
        atomo_tensor *v = view(t, targets[i].ndim, targets[i].shape, targets[i].stride, targets[i].offset), *out = v;
        CHECK_OK(atomo_fill(one, 1));
        CHECK_OK(atomo_binary(ATOMO_ADD, v, one, &sum)); /* reading is fine */
        if (targets[i].refused) {
            CHECK_STATUS(atomo_copy(v, one), ATOMO_EARG, "copy: elements of the target");
            CHECK_STATUS(atomo_fill(v, 1), ATOMO_EARG, "fill: elements of the target");
            CHECK_STATUS(atomo_axpy(v, 1, one), ATOMO_EARG, "axpy: elements of the target");
            CHECK_STATUS(atomo_binary(ATOMO_ADD, v, one, &out), ATOMO_EARG, "share memory (an expanded view)");
            CHECK_STATUS(atomo_fill_uniform(v, 0, 1), ATOMO_EARG, "share memory");
        } else {
            CHECK_OK(atomo_copy(v, one));
            CHECK_OK(atomo_fill(v, 1));
            CHECK_OK(atomo_axpy(v, 1, one));
            CHECK_OK(atomo_binary(ATOMO_ADD, v, one, &out));
        }
        CHECK(out == v);
        atomo_tensor_free(t), atomo_tensor_free(one), atomo_tensor_free(sum), atomo_tensor_free(v);
    }
}

static void a_failed_call_leaves_the_output_as_it_was(void)
{
    const double shape[2] = {3, 3}, rows[2] = {3, 1};
    atomo_tensor *t = square(), *a = view(t, 2, shape, rows, 0), *out = view(t, 2, shape, rows, 2), *given = out;
    for (int n = 1; n <= 3; n++) { /* the handle, the storage, the bytes of the output apart */
        atomo_mem_fail_alloc(n);
        CHECK_STATUS(atomo_unary(ATOMO_EXP, a, &out), ATOMO_ENOMEM, "");
        CHECK(out == given);
        for (int i = 0; i < N * N; i++) CHECK(check_f32(t)[i] == (float)(i + 1) / 8);
    }
    atomo_mem_fail_alloc(0);
    atomo_tensor_free(t), atomo_tensor_free(a), atomo_tensor_free(out);
}

static void updates_want_tensors_that_are_apart(void)
{
    const double shape[1] = {8}, stride[1] = {1};
    atomo_tensor *t = square(), *p = view(t, 1, shape, stride, 0), *g = view(t, 1, shape, stride, 4);
    atomo_tensor *v = view(t, 1, shape, stride, 12), *w = view(t, 1, shape, stride, 20);
    CHECK_STATUS(atomo_optim_sgd(p, g, NULL, 0.1, 0, 0, 0, 1, 0, 1), ATOMO_EARG, "sgd: [8] and [8] share memory");
    CHECK_STATUS(atomo_optim_sgd(p, v, v, 0.1, 0.9, 0, 0, 1, 0, 1), ATOMO_EARG, "sgd: [8] and [8] share memory");
    CHECK_STATUS(atomo_optim_lamb(p, v, w, w, 0.1, 0.9, 0.99, 1e-8, 0, 1), ATOMO_EARG, "share memory");
    CHECK_OK(atomo_optim_sgd(p, v, w, 0.1, 0.9, 0, 0, 1, 0, 1));
    atomo_tensor_free(t), atomo_tensor_free(p), atomo_tensor_free(g), atomo_tensor_free(v), atomo_tensor_free(w);
}

static void rows_are_added_up_by_index_from_views_of_the_same(void)
{
    const double shape[2] = {3, N}, stride[2] = {N, 1};
    atomo_tensor *t = square(), *src = view(t, 2, shape, stride, N), *index = NULL;
    CHECK_OK(atomo_tensor_new(ATOMO_I32, 1, (double[]){3}, &index));
    memcpy(index->data, (int32_t[]){0, 1, 2}, 12);
    CHECK_OK(atomo_index_add(t, 0, index, src));
    for (int i = 0; i < N * N; i++)
        CHECK(check_f32(t)[i] == (float)(i + 1) / 8 + (i < 3 * N ? (float)(i + N + 1) / 8 : 0));
    atomo_tensor_free(t), atomo_tensor_free(src), atomo_tensor_free(index);
}

int main(void)
{
    RUN(given_outputs_may_overlap_the_inputs);
    RUN(what_is_added_to_is_read_first);
    RUN(a_target_that_overlaps_itself_is_refused);
    RUN(a_failed_call_leaves_the_output_as_it_was);
    RUN(updates_want_tensors_that_are_apart);
    RUN(rows_are_added_up_by_index_from_views_of_the_same);
    return check_done();
}
