/* test_edges.c - the kernels with AVX-512 intrinsics, with every operand next to an inaccessible page, first before,
 * then after it. AddressSanitizer does not check masked loads and stores; accesses out of bounds by them are found
 * here, in any build. On other CPUs the portable kernels are tested. */
#include "check.h"
#include "nn/winograd.h"
#include "tensor/tensor.h"
#include <sys/mman.h>
#include <unistd.h>

enum side { BEFORE, BEHIND, PLAIN, SIDES }; /* position of the inaccessible page; no such page */
enum { MOST = 24 };

static struct {
    void *map[MOST];
    size_t bytes[MOST];
    int count;
} pages;

static float *guarded(enum side side, int64_t n)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = (size_t)n * sizeof(float);
    const size_t inner = (bytes + page - 1) / page * page, all = inner + 2 * page;
    char *map = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(map != MAP_FAILED && pages.count < MOST && mprotect(map + page, inner, PROT_READ | PROT_WRITE) == 0);
    pages.map[pages.count] = map;
    pages.bytes[pages.count++] = all;
    return (float *)(void *)(side == BEHIND ? map + page + inner - bytes : map + page);
}

static void unmap_all(void)
{
    while (pages.count > 0) {
        pages.count--;
        munmap(pages.map[pages.count], pages.bytes[pages.count]);
    }
}

/* The same numbers for the same seed, some of them equal. */
static void fill(float *p, int64_t n, uint32_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        p[i] = (float)((int)(seed >> 24) - 128) / 16;
    }
}

static atomo_tensor tensor(enum side side, int ndim, const double *shape, uint32_t seed)
{
    atomo_tensor t = {.dtype = ATOMO_F32, .ndim = ndim, .numel = 1};
    for (int d = ndim - 1; d >= 0; d--) {
        t.shape[d] = shape[d];
        t.stride[d] = t.numel;
        t.numel *= shape[d];
    }
    t.data = guarded(side, atomo__numel(&t));
    fill(t.data, atomo__numel(&t), seed);
    return t;
}

/* Results with operands on either side of the page equal those in plain memory. */
static void same(float *const got[SIDES], int64_t n)
{
    for (int s = 0; s < PLAIN; s++) CHECK(memcmp(got[s], got[PLAIN], (size_t)n * sizeof(float)) == 0);
}

static void test_pool_tiling(void)
{
    static const double channels[] = {1, 3, 15, 16, 17, 50};
    const atomo_window two = {.kernel = {2, 2}, .stride = {2, 2}, .dilation = {1, 1}, .groups = 1};
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++) {
        const double c = channels[i], in[4] = {2, 5, 6, c}, out[4] = {2, 2, 3, c};
        float *y[SIDES], *gx[SIDES];
        for (int s = 0; s < SIDES; s++) {
            atomo_tensor x = tensor(s, 4, in, 1), gy = tensor(s, 4, out, 2), to = tensor(s, 4, out, 3);
            atomo_tensor to_x = tensor(s, 4, in, 4), *at_y = &to, *at_gx = &to_x;
            CHECK_OK(atomo_max_pool2d(&x, &two, &at_y));
            CHECK_OK(atomo_max_pool2d_backward(&x, &gy, &two, &at_gx));
            y[s] = to.data;
            gx[s] = to_x.data;
        }
        same(y, (int64_t)(2 * 2 * 3 * c));
        same(gx, (int64_t)(2 * 5 * 6 * c));
        unmap_all();
    }
}

static void test_conv_window(void)
{
    static const double shapes[][6] = {/* images, height, width, channels, outputs, kernel */
                                       {2, 9, 7, 3, 20, 5},
                                       {1, 8, 8, 20, 33, 5},
                                       {1, 5, 5, 1, 1, 5},
                                       {3, 7, 12, 2, 100, 4}};
    const atomo_window g = {.stride = {1, 1}, .dilation = {1, 1}, .groups = 1};
    CHECK_OK(atomo_conv_set_engine("direct"));
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const double *d = shapes[i], k = d[5], in[4] = {d[0], d[1], d[2], d[3]}, weight[4] = {d[4], k, k, d[3]};
        const double out[4] = {d[0], d[1] - k + 1, d[2] - k + 1, d[4]};
        float *y[SIDES], *gw[SIDES];
        int64_t ny = 0, nw = 0;
        for (int s = 0; s < SIDES; s++) {
            atomo_tensor x = tensor(s, 4, in, 1), w = tensor(s, 4, weight, 2), b = tensor(s, 1, &d[4], 3);
            atomo_tensor gy = tensor(s, 4, out, 4), to = tensor(s, 4, out, 5), to_w = tensor(s, 4, weight, 6);
            atomo_tensor *at_y = &to, *at_gw = &to_w;
            CHECK_OK(atomo_conv2d(&x, &w, i % 2 ? NULL : &b, &g, ATOMO_PRECISION_FP32, &at_y));
            CHECK_OK(atomo_conv2d_backward_weights(&x, &w, &gy, &g, ATOMO_PRECISION_FP32, &at_gw, NULL));
            y[s] = to.data, ny = atomo__numel(&to);
            gw[s] = to_w.data, nw = atomo__numel(&to_w);
            if (s < PLAIN) continue;
            same(y, ny);
            same(gw, nw);
        }
        unmap_all();
    }
    CHECK_OK(atomo_conv_set_engine("auto"));
}

static void test_small_gemm(void)
{
    const int64_t m = 21, k = 5;
    if (!atomo__small_gemm_runs()) return;
    for (int64_t n = WINO_LANES; n <= 3 * WINO_LANES; n += WINO_LANES)
        for (int ta = 0; ta < 2; ta++) {
            float *c[SIDES];
            for (int s = 0; s < SIDES; s++) {
                float *a = guarded(s, m * k), *b = guarded(s, k * n);
                c[s] = guarded(s, m * n);
                fill(a, m * k, 1);
                fill(b, k * n, 2);
                fill(c[s], m * n, 3);
                atomo__small_gemm(ta, m, n, k, a, ta ? m : k, b, n, true, c[s], n);
            }
            same(c, m * n);
            unmap_all();
        }
}

static void test_random_words(void)
{
    const atomo_stream stream = {.seed = {1, 2}, .tensor = 3, .step = 4};
    for (uint32_t blocks = 1; blocks < 40; blocks++) {
        float *to[SIDES];
        for (int s = 0; s < SIDES; s++) {
            to[s] = guarded(s, 4 * blocks);
            atomo__random_words(&stream, 5, blocks, (uint32_t *)(void *)to[s]);
        }
        same(to, 4 * blocks);
        unmap_all();
    }
}

int main(void)
{
    RUN(test_pool_tiling);
    RUN(test_conv_window);
    RUN(test_small_gemm);
    RUN(test_random_words);
    return check_done();
}
