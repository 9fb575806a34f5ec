/* test_loader.c - the loader's thread under stress, for ASan and TSan, and with every allocation failing in turn. */
#include "check.h"
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 97, SIDE = 9 };

static int make_set(atomo_tensor **images, atomo_tensor **labels)
{
    const double shape[4] = {N, SIDE, SIDE, 3};
    *images = *labels = NULL;
    if (atomo_tensor_new(ATOMO_U8, 4, shape, images) < 0 || atomo_tensor_new(ATOMO_I32, 1, shape, labels) < 0)
        return -1;
    for (int i = 0; i < N * SIDE * SIDE * 3; i++) ((uint8_t *)(*images)->data)[i] = (uint8_t)(i * 7);
    for (int i = 0; i < N; i++) ((int32_t *)(*labels)->data)[i] = i;
    return 0;
}

static atomo_loader_options options_of(int background)
{
    atomo_loader_options o = {
        .seed = 3, .batch = 5, .rank = 1, .size = 3, .shuffle = 1, .crop = 2, .flip = 1, .classes = N};
    o.background = background;
    for (int i = 0; i < 8; i++) o.std[i] = 1;
    return o;
}

/* Returns the sum of a loader's batches in an epoch, up to `most` steps. */
static double epoch_sum(atomo_loader *l, double epoch, int most)
{
    atomo_batch b;
    double sum = 0;
    int rc, steps = 0;
    REQUIRE(atomo_loader_begin(l, epoch, 0) == 0);
    while (steps++ < most && (rc = atomo_loader_next(l, &b)) != 0) {
        REQUIRE(rc == 1);
        atomo_tensor *x = NULL, *y = NULL;
        REQUIRE(atomo_loader_view(l, b.slot, b.n, &x, &y) == 0);
        for (int i = 0; i < (int)x->numel; i++) sum += (double)((float *)x->data)[i] * (1 + i % 7);
        for (int i = 0; i < b.n; i++) sum += ((int32_t *)y->data)[i];
        atomo_tensor_free(x);
        atomo_tensor_free(y);
    }
    return sum;
}

static void test_same_bits_and_abandon(void)
{
    atomo_tensor *images, *labels;
    atomo_loader *l[2];
    REQUIRE(make_set(&images, &labels) == 0);
    for (int background = 0; background < 2; background++) {
        atomo_loader_options o = options_of(background);
        REQUIRE(atomo_loader_new(images, labels, &o, &l[background]) == 0);
    }
    atomo_tensor_free(images); /* the loaders hold the storages */
    atomo_tensor_free(labels);
    for (int e = 0; e < 60; e++) {
        const int most = e % 9 < 8 ? e % 9 : 1000;
        REQUIRE(epoch_sum(l[0], e, most) == epoch_sum(l[1], e, most));
    }
    for (int i = 0; i < 2; i++) {
        REQUIRE(atomo_loader_begin(l[i], 99, 1) == 0); /* freed while the thread is working */
        atomo_loader_free(l[i]);
    }
    atomo_loader_free(NULL);
}

static void test_error_crosses(void)
{
    atomo_tensor *images, *labels;
    atomo_loader *l;
    atomo_batch b;
    int rc;
    REQUIRE(make_set(&images, &labels) == 0);
    ((int32_t *)labels->data)[50] = -1;
    atomo_loader_options o = options_of(1);
    o.size = 1;
    o.rank = 0;
    REQUIRE(atomo_loader_new(images, labels, &o, &l) == 0);
    REQUIRE(atomo_loader_next(l, &b) == -1); /* no epoch begun */
    REQUIRE(atomo_loader_begin(l, 0, 0) == 0);
    while ((rc = atomo_loader_next(l, &b)) == 1) {
    }
    REQUIRE(rc == -7 && strstr(atomo_last_error(), "label -1 of image 51"));
    atomo_loader_free(l);
    atomo_tensor_free(images);
    atomo_tensor_free(labels);
}

static int run_once(void)
{
    atomo_tensor *images, *labels;
    atomo_loader *l = NULL;
    const atomo_loader_options o = options_of(1);
    int rc = make_set(&images, &labels);
    if (rc == 0) rc = atomo_loader_new(images, labels, &o, &l);
    atomo_batch b;
    if (rc == 0) REQUIRE(atomo_loader_begin(l, 1, 0) == 0 && atomo_loader_next(l, &b) == 1);
    atomo_loader_free(l);
    atomo_tensor_free(images);
    atomo_tensor_free(labels);
    return rc;
}

/* The n-th allocation fails, for n = 1, 2, ... until there is no n-th one: no crash, no leak. */
static void test_allocation_failures(void)
{
    for (int n = 1, done = 0; !done; n++) {
        pid_t pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            char text[16];
            snprintf(text, sizeof text, "%d", n);
            setenv("ATOMO_FAIL_ALLOC", text, 1);
            const int ok = run_once() == 0;
            atomo_mem m;
            atomo_mem_stats(&m);
            atomo_mem_trim();
            _exit(m.live_blocks != 0 ? 2 : ok);
        }
        int status;
        REQUIRE(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        REQUIRE(WEXITSTATUS(status) != 2 && n < 100);
        done = WEXITSTATUS(status) == 1;
    }
}

int main(void)
{
    RUN(test_allocation_failures); /* first, before this process allocates memory */
    RUN(test_same_bits_and_abandon);
    RUN(test_error_crosses);
    return check_done();
}
