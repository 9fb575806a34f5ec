/* test_fft.c - rfft and irfft against the discrete Fourier transform written out in double, Parseval, round trips,
 * outputs at any alignment, more shapes than the cache of plans holds, and transforms from several threads at once. */
#include "check.h"
#include "tensor/tensor.h"
#include <pthread.h>

#define PI 3.14159265358979323846

static atomo_tensor *noise(double batch, double n)
{
    atomo_tensor *t = check_tensor(batch, n);
    CHECK_OK(atomo_fill_normal(t, 0, 1));
    return t;
}

static double off_from_dft(const float *x, const float *f, int n)
{
    double worst = 0;
    for (int k = 0; k <= n / 2; k++) {
        double re = 0, im = 0;
        for (int i = 0; i < n; i++) {
            double angle = -2 * PI * (double)((long long)i * k % n) / n;
            re += (double)x[i] * cos(angle);
            im += (double)x[i] * sin(angle);
        }
        worst = fmax(worst, hypot(re - (double)f[2 * k], im - (double)f[2 * k + 1]));
    }
    return worst;
}

static void lengths(void)
{
    const int more[] = {64, 81, 97, 100, 127, 128, 129, 360, 509, 1000};
    for (int c = 1; c <= 50; c++) {
        const int n = c <= 40 ? c : more[c - 41], half = n / 2 + 1, batch = 3;
        atomo_tensor *x = noise(batch, n), *f = NULL, *back = NULL;
        if (CHECK_OK(atomo_rfft(x, &f)) && CHECK_OK(atomo_irfft(f, n, &back))) {
            CHECK(f->ndim == 3 && f->shape[0] == batch && f->shape[1] == half && f->shape[2] == 2);
            CHECK(back->ndim == 2 && back->shape[1] == n);
            for (int b = 0; b < batch; b++) {
                const float *xb = check_f32(x) + b * n, *fb = check_f32(f) + b * 2 * half;
                CHECK(off_from_dft(xb, fb, n) < 3e-6 * sqrt(n) * 3);
                double time = 0, frequency = 0, worst = 0;
                for (int i = 0; i < n; i++) {
                    time += (double)xb[i] * (double)xb[i];
                    worst = fmax(worst, fabs((double)xb[i] - (double)check_f32(back)[b * n + i]));
                }
                for (int k = 0; k < half; k++) { /* all but DC and Nyquist stand for two */
                    double p = (double)fb[2 * k] * (double)fb[2 * k] + (double)fb[2 * k + 1] * (double)fb[2 * k + 1];
                    frequency += k == 0 || 2 * k == n ? p : 2 * p;
                }
                CHECK_NEAR(frequency / n, time, 2e-6 * time);
                CHECK(worst < 3e-6);
            }
        }
        atomo_tensor_free(x);
        atomo_tensor_free(f);
        atomo_tensor_free(back);
    }
}

/* The output may be a contiguous view whose first element lies at any multiple of 4 bytes: plans are chosen by
 * alignment. */
static void alignments(void)
{
    const int n = 64, half = 33;
    atomo_tensor *x = noise(1, n), *room = check_tensor(2 * half + 16, -1), *want = NULL;
    CHECK_OK(atomo_rfft(x, &want));
    for (int offset = 0; offset < 16; offset++) {
        atomo_tensor *out = NULL, *back = NULL;
        CHECK_OK(atomo_tensor_view(room, 3, (double[]){1, half, 2}, (double[]){2 * half, 2, 1}, offset, &out));
        CHECK_OK(atomo_rfft(x, &out));
        bool near = true;
        for (int i = 0; i < 2 * half; i++) near = near && fabsf(check_f32(out)[i] - check_f32(want)[i]) < 1e-4f;
        CHECK(near);
        CHECK_OK(atomo_tensor_view(room, 2, (double[]){1, n}, (double[]){n, 1}, offset, &back));
        CHECK_OK(atomo_irfft(want, n, &back));
        near = true;
        for (int i = 0; i < n; i++) near = near && fabsf(check_f32(back)[i] - check_f32(x)[i]) < 1e-5f;
        CHECK(near);
        atomo_tensor_free(out);
        atomo_tensor_free(back);
    }
    atomo_tensor_free(x);
    atomo_tensor_free(room);
    atomo_tensor_free(want);
}

/* 150 lengths in turn, more than the cache holds: every thread's round trips are correct while plans are replaced. */
static void *round_trips(void *arg)
{
    intptr_t wrong = 0;
    for (int c = 0; c < 150; c++) {
        double n = 2 + (c * 7 + (int)(intptr_t)arg * 13) % 150;
        atomo_tensor *x = NULL, *f = NULL, *back = NULL;
        if (atomo_tensor_new(ATOMO_F32, 1, &n, &x) < 0) return (void *)(intptr_t)-1;
        for (int i = 0; i < (int)n; i++) check_f32(x)[i] = sinf((float)(i * i));
        if (atomo_rfft(x, &f) < 0 || atomo_irfft(f, n, &back) < 0) wrong++;
        for (int i = 0; back && i < (int)n; i++) wrong += fabsf(check_f32(back)[i] - check_f32(x)[i]) > 1e-5f;
        atomo_tensor_free(x);
        atomo_tensor_free(f);
        atomo_tensor_free(back);
    }
    return (void *)wrong;
}

static void threads(void)
{
    pthread_t t[4];
    for (intptr_t i = 0; i < 4; i++) CHECK(pthread_create(&t[i], NULL, round_trips, (void *)i) == 0);
    for (int i = 0; i < 4; i++) {
        void *wrong = NULL;
        CHECK(pthread_join(t[i], &wrong) == 0 && wrong == NULL);
    }
}

static void refused(void)
{
    atomo_tensor *empty = check_tensor(2, 0), *x = noise(2, 6), *out = NULL;
    CHECK_STATUS(atomo_rfft(empty, &out), ATOMO_ELIMIT, "rfft: [2,0] has no transform");
    CHECK_STATUS(atomo_irfft(x, 6, &out), ATOMO_ESHAPE, "expected f32 [..., n/2+1, 2]");
    atomo_tensor *f = NULL;
    CHECK_OK(atomo_rfft(x, &f));
    CHECK_STATUS(atomo_irfft(f, 5, &out), ATOMO_EARG, "n = 5 does not fit [2,4,2], expected 6 or 7");
    CHECK_STATUS(atomo_irfft(f, 0, &out), ATOMO_EARG, "n = 0");
    CHECK_STATUS(atomo_irfft(f, 6.5, &out), ATOMO_EARG, "n = 6.5");
    CHECK_STATUS(atomo_irfft(f, 1e300, &out), ATOMO_EARG, "irfft");
    CHECK(out == NULL);
    atomo_tensor_free(empty);
    atomo_tensor_free(x);
    atomo_tensor_free(f);
}

int main(void)
{
    atomo_manual_seed(5);
    RUN(lengths);
    RUN(alignments);
    RUN(threads);
    RUN(refused);
    return check_done();
}
