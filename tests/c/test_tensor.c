/* test_tensor.c - tensors and views: shapes, strides, bounds, ownership, copies between views and element types. */
#include "check.h"
#include "tensor/tensor.h"

static void creation(void)
{
    atomo_tensor *t = NULL;
    CHECK_OK(atomo_tensor_new(ATOMO_F32, 3, (double[]){2, 3, 4}, &t));
    CHECK(t->numel == 24 && t->stride[0] == 12 && t->stride[1] == 4 && t->stride[2] == 1);
    CHECK(atomo_tensor_is_contiguous(t) && (uintptr_t)t->data % 64 == 0);
    atomo_tensor_free(t);
    CHECK_OK(atomo_tensor_new(ATOMO_U8, 0, NULL, &t));
    CHECK(t->numel == 1 && t->ndim == 0);
    atomo_tensor_free(t);
    CHECK_OK(atomo_tensor_new(ATOMO_I32, 3, (double[]){0, 5, 0x1p40}, &t));
    CHECK(t->numel == 0);
    atomo_tensor_free(t);
    atomo_tensor_free(NULL);
}

static void refused(void)
{
    const struct {
        int dtype, ndim, status;
        double shape[9];
    } bad[] = {
        {ATOMO_DTYPES, 1, ATOMO_EDTYPE, {1}},
        {-1, 1, ATOMO_EDTYPE, {1}},
        {0, 9, ATOMO_ESHAPE, {1}},
        {0, -1, ATOMO_ESHAPE, {1}},
        {0, 1, ATOMO_ESHAPE, {-1}},
        {0, 1, ATOMO_ESHAPE, {1.5}},
        {0, 1, ATOMO_ESHAPE, {NAN}},
        {0, 1, ATOMO_ESHAPE, {INFINITY}},
        {0, 1, ATOMO_ESHAPE, {1e300}},
        {0, 2, ATOMO_ELIMIT, {0x1p32, 0x1p32}},
        {0, 1, ATOMO_ELIMIT, {0x1p53}}, /* more memory than exists: refused by the pool */
        {0, 3, ATOMO_ELIMIT, {0, 0x1p40, 0x1p40}},
        {2, 8, ATOMO_ELIMIT, {256, 256, 256, 256, 256, 256, 256, 256}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        atomo_tensor *t = (atomo_tensor *)&bad;
        int status = atomo_tensor_new(bad[i].dtype, bad[i].ndim, bad[i].shape, &t);
        if (bad[i].status == ATOMO_ELIMIT && status == ATOMO_ENOMEM) status = ATOMO_ELIMIT;
        CHECK(status == bad[i].status && t == NULL);
    }
}

static atomo_tensor *counting(int n) /* 0, 1, 2, ... */
{
    atomo_tensor *t = check_tensor(n, -1);
    for (int i = 0; i < n; i++) check_f32(t)[i] = (float)i;
    return t;
}

static void views(void)
{
    atomo_tensor *t = counting(24), *v = NULL, *w = NULL;
    CHECK_OK(atomo_tensor_view(t, 2, (double[]){3, 4}, (double[]){4, 1}, 12, &v)); /* the second half */
    CHECK(atomo_tensor_is_contiguous(v) && check_f32(v)[0] == 12);
    CHECK_OK(atomo_tensor_view(v, 2, (double[]){4, 3}, (double[]){1, 4}, 0, &w)); /* its transpose */
    CHECK(!atomo_tensor_is_contiguous(w));
    CHECK_STATUS(atomo__expect(w, ATOMO_F32, 2, "f: x"), ATOMO_ESHAPE, "f: x [4,3] is not contiguous");
    const atomo_tensor *c;
    atomo_tensor *hold;
    CHECK_OK(atomo__contiguous(w, &c, &hold));
    CHECK(hold && check_f32(c)[1] == 16 && check_f32(c)[3] == 13);
    atomo_tensor_free(hold);
    CHECK(atomo_tensor_version(t) == 0);
    atomo_tensor_touch(w);
    CHECK(atomo_tensor_version(t) == 1 && atomo_tensor_version(v) == 1);
    atomo_tensor_free(t); /* the views keep the storage */
    atomo_tensor_free(v);
    CHECK(check_f32(w)[0] == 12);
    atomo_tensor_free(w);
}

static void view_bounds(void)
{
    atomo_tensor *base = counting(24), *t = NULL, *v;
    CHECK_OK(atomo_tensor_view(base, 1, (double[]){12}, (double[]){1}, 12, &t));
    const struct {
        double shape, stride, offset;
        bool ok;
    } row[] = {
        {12, 1, 0, true},    {13, 1, 0, false},  {24, 1, -12, true},    {25, 1, -12, false}, {1, 1, -13, false},
        {12, -1, 11, true},  {24, -1, 11, true}, {25, -1, 11, false},   {6, 2, 1, true},     {7, 2, 0, false},
        {1000, 0, 11, true}, {1, 1, 12, false},  {0, 9e15, 9e15, true}, {2, 9e15, 0, false}, {1, 1e300, 0, false},
        {2, NAN, 0, false},  {1, 1, NAN, false}, {1, 1, 0.5, false},    {2, 0.5, 0, false},  {-1, 1, 0, false},
        {1.5, 1, 0, false},  {NAN, 1, 0, false}, {9.1e18, 0, 0, false}, {1, 1, 9e15, false}, {2, INFINITY, 0, false},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        int status = atomo_tensor_view(t, 1, &row[i].shape, &row[i].stride, row[i].offset, &v);
        CHECK((status == 0) == row[i].ok && (status == 0 || v == NULL));
        if (status == 0) { /* every element can be written, unless elements share memory */
            CHECK(atomo_fill(v, 1) == (row[i].shape > 1 && row[i].stride == 0 ? ATOMO_EARG : ATOMO_OK));
            atomo_tensor_free(v);
        }
    }
    double many[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1}, huge[8], none[8] = {0};
    CHECK_STATUS(atomo_tensor_view(t, 9, many, many, 0, &v), ATOMO_ESHAPE, "9 dimensions, at most 8");
    CHECK_STATUS(atomo_tensor_view(t, -1, many, many, 0, &v), ATOMO_ESHAPE, NULL);
    for (int i = 0; i < 8; i++) huge[i] = 9007199254740991; /* the longest shape there is fits its text */
    CHECK_STATUS(atomo_tensor_view(t, 8, huge, none, 0, &v), ATOMO_ELIMIT, "9007199254740991] has too many elements");
    CHECK_STATUS(atomo_tensor_view(t, 1, huge, none, 0.25, &v), ATOMO_ESHAPE, "offset 0.25");
    atomo_tensor_free(t);
    atomo_tensor_free(base);
}

/* Copies between all pairs of element types; values out of range saturate, NaN becomes 0. */
static void conversion(void)
{
    const float from[] = {0, 1, 2.75f, -2.75f, 255.5f, 300, 3e9f, -3e9f, NAN, INFINITY};
    const int32_t i32[] = {0, 1, 2, -2, 255, 300, INT32_MAX, INT32_MIN, 0, INT32_MAX};
    const uint8_t u8[] = {0, 1, 2, 0, 255, 255, 255, 0, 0, 255};
    const double n = 10;
    atomo_tensor *f = check_tensor(n, -1), *i = NULL, *u = NULL, *u2 = NULL;
    CHECK_OK(atomo_fill_bytes(f, from, sizeof from));
    CHECK_OK(atomo_tensor_new(ATOMO_I32, 1, &n, &i));
    CHECK_OK(atomo_tensor_new(ATOMO_U8, 1, &n, &u));
    CHECK_OK(atomo_tensor_new(ATOMO_U8, 1, &n, &u2));
    CHECK_OK(atomo_copy(i, f));
    CHECK(memcmp(i->data, i32, sizeof i32) == 0);
    CHECK_OK(atomo_copy(u, f));
    CHECK(memcmp(u->data, u8, sizeof u8) == 0);
    CHECK_OK(atomo_copy(u2, i));
    CHECK(memcmp(u2->data, u8, sizeof u8) == 0);
    CHECK_OK(atomo_copy(f, u));
    for (int k = 0; k < n; k++) CHECK(check_f32(f)[k] == (float)u8[k]);
    CHECK_OK(atomo_copy(i, u));
    CHECK(atomo__i32(i)[5] == 255);
    CHECK_STATUS(atomo_fill(i, 0.5), ATOMO_EARG, "0.5 does not fit i32");
    CHECK_STATUS(atomo_fill(i, 3e9), ATOMO_EARG, "i32");
    CHECK_STATUS(atomo_fill(i, NAN), ATOMO_EARG, "i32");
    CHECK_STATUS(atomo_fill(u, 256), ATOMO_EARG, "256 does not fit u8");
    CHECK_STATUS(atomo_fill(u, -1), ATOMO_EARG, "u8");
    CHECK_STATUS(atomo_fill_bytes(u, from, 9), ATOMO_EARG, "9 bytes for a tensor of 10");
    atomo_tensor_free(f);
    atomo_tensor_free(i);
    atomo_tensor_free(u);
    atomo_tensor_free(u2);
}

static void copies(void)
{
    atomo_tensor *t = counting(24), *grid = NULL, *row = counting(4), *odd = counting(5);
    CHECK_OK(atomo_tensor_view(t, 3, (double[]){4, 3, 2}, (double[]){1, 8, 4}, 0, &grid)); /* permuted */
    CHECK_STATUS(atomo_copy(grid, row), ATOMO_ESHAPE, "[4,3,2] and [4] do not broadcast");
    CHECK_STATUS(atomo_copy(row, odd), ATOMO_ESHAPE, "[4] and [5]");
    CHECK_STATUS(atomo_copy(row, t), ATOMO_ESHAPE, NULL);
    atomo_tensor *column = NULL;
    CHECK_OK(atomo_tensor_view(row, 3, (double[]){4, 1, 1}, (double[]){1, 1, 1}, 0, &column));
    CHECK_OK(atomo_copy(grid, column)); /* broadcast over two dimensions into a permuted view */
    for (int k = 0; k < 24; k++) CHECK(check_f32(t)[k] == (float)(k % 4));
    atomo_tensor_free(column);
    atomo_tensor_free(grid);
    atomo_tensor_free(row);
    atomo_tensor_free(odd);
    atomo_tensor_free(t);
}

/* The caller's memory as a tensor: read and written in place by any strides, never freed, and overlaps are seen. */
static void wrapped(void)
{
    float memory[24];
    for (int k = 0; k < 24; k++) memory[k] = (float)k;
    atomo_tensor *t = NULL, *back = NULL, *taps = NULL, *view = NULL, *copy = check_tensor(24, -1);
    CHECK_OK(atomo_tensor_wrap(ATOMO_F32, 1, (double[]){24}, NULL, memory, &t));
    CHECK(t->data == memory && atomo_tensor_is_contiguous(t) && t->stride[0] == 1);
    CHECK_STATUS(atomo_tensor_view(t, 1, (double[]){25}, (double[]){1}, 0, &view), ATOMO_ESHAPE, "leaves the storage");
    atomo_tensor_mark_zero(t);
    CHECK(!atomo_tensor_is_zero(t)); /* the caller may write to it at any time */
    /* [out 2, in 3, kernel 4] in memory, seen as [out, kernel, in] */
    CHECK_OK(atomo_tensor_wrap(ATOMO_F32, 3, (double[]){2, 4, 3}, (double[]){12, 1, 4}, memory, &taps));
    atomo_tensor *dense = NULL;
    CHECK_OK(atomo_tensor_view(copy, 3, taps->shape, (double[]){12, 3, 1}, 0, &dense));
    CHECK_OK(atomo_copy(dense, taps));
    CHECK(check_f32(copy)[1] == 4 && check_f32(copy)[3] == 1 && check_f32(copy)[23] == 23);
    /* from the last element backwards, over the same memory as t: a copy between the two must not read what it wrote */
    CHECK_OK(atomo_tensor_wrap(ATOMO_F32, 1, (double[]){24}, (double[]){-1}, memory + 23, &back));
    CHECK_OK(atomo_tensor_view(back, 1, (double[]){24}, (double[]){1}, -23, &view));
    CHECK(view->data == memory);
    CHECK_OK(atomo_copy(t, back));
    for (int k = 0; k < 24; k++) CHECK(memory[k] == (float)(23 - k));
    CHECK_OK(atomo_fill(taps, 7));
    atomo_tensor_free(t);
    atomo_tensor_free(taps);
    atomo_tensor_free(back);
    atomo_tensor_free(view);
    atomo_tensor_free(dense);
    atomo_tensor_free(copy);
    for (int k = 0; k < 24; k++) CHECK(memory[k] == 7);
}

static void wrap_refused(void)
{
    float memory[4] = {0};
    const double four = 4, two[] = {2, 2}, minus = -1, half = 0.5, nan = NAN, far[] = {0x1p52, 0x1p52}, none = 0;
    atomo_tensor *t = (atomo_tensor *)memory;
    CHECK_STATUS(atomo_tensor_wrap(ATOMO_DTYPES, 1, &four, NULL, memory, &t), ATOMO_EDTYPE, "wrap: unknown dtype");
    CHECK(t == NULL);
    CHECK_STATUS(atomo_tensor_wrap(ATOMO_F32, 9, &four, NULL, memory, &t), ATOMO_ESHAPE, "9 dimensions, at most 8");
    CHECK_STATUS(atomo_tensor_wrap(ATOMO_F32, -1, &four, NULL, memory, &t), ATOMO_ESHAPE, "-1 dimensions");
    CHECK_STATUS(atomo_tensor_wrap(ATOMO_F32, 1, &minus, NULL, memory, &t), ATOMO_ESHAPE, "size -1 in dimension 1");
    CHECK_STATUS(atomo_tensor_wrap(ATOMO_F32, 2, (double[]){2, NAN}, NULL, memory, &t), ATOMO_ESHAPE, "size nan");
    CHECK_STATUS(atomo_tensor_wrap(ATOMO_F32, 1, &four, &half, memory, &t), ATOMO_ESHAPE, "stride 0.5 in dimension 1");
    CHECK_STATUS(atomo_tensor_wrap(ATOMO_F32, 1, &four, &nan, memory, &t), ATOMO_ESHAPE, "stride nan");
    CHECK_STATUS(atomo_tensor_wrap(ATOMO_F32, 2, two, far, memory, &t), ATOMO_OK, NULL);
    atomo_tensor_free(t);
    CHECK_STATUS(atomo_tensor_wrap(ATOMO_F32, 1, (double[]){0x1p10}, far, memory, &t), ATOMO_ELIMIT, "[1024] spans");
    CHECK_STATUS(atomo_tensor_wrap(ATOMO_F32, 1, &four, NULL, NULL, &t), ATOMO_EARG, "wrap: data is missing");
    CHECK_STATUS(atomo_tensor_wrap(ATOMO_F32, 1, &two[0], NULL, (char *)memory + 2, &t), ATOMO_EARG, "a multiple of 4");
    CHECK_OK(atomo_tensor_wrap(ATOMO_F32, 1, &none, NULL, NULL, &t));
    CHECK(t->numel == 0 && t->data == NULL);
    atomo_tensor_free(t);
}

int main(void)
{
    RUN(creation);
    RUN(refused);
    RUN(views);
    RUN(view_bounds);
    RUN(conversion);
    RUN(copies);
    RUN(wrapped);
    RUN(wrap_refused);
    return check_done();
}
