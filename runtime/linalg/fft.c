/* fft.c - real FFTs over the last dimension by FFTW. Plans are cached by (n, batch, direction, alignment of both
 * arrays). FFTW_ESTIMATE makes the same plan in every run, so results are bit-identical from run to run. A cached plan
 * is executed on any arrays of the alignment it was made for; the first element of a view may have any alignment.
 * FFTW's planner is not thread-safe: a lock guards it and the cache. */
#include "core/packages.h"
#include "tensor/tensor.h"
#include <limits.h>

enum { CACHE = 64 };
typedef struct plan {
    int n, batch, inverse, align_re, align_im;
    void *handle;
    int users;     /* number of threads that execute it now; above 0 it may not be destroyed */
    uint64_t used; /* `tick` at the last use */
} plan;
static plan cache[CACHE];
static uint64_t tick; /* counts uses of all plans, for replacing the least recently used one */

/* Returns the entry for this key, or NULL; *victim is the least recently used (or empty) entry that no thread executes,
 * or NULL. The caller holds the lock. */
static plan *find_plan(const plan *key, plan **victim)
{
    *victim = NULL;
    for (plan *p = cache; p < cache + CACHE; p++) {
        if (p->handle && p->n == key->n && p->batch == key->batch && p->inverse == key->inverse &&
            p->align_re == key->align_re && p->align_im == key->align_im)
            return p;
        if (p->users == 0 && (!*victim || p->used < (*victim)->used)) *victim = p;
    }
    return NULL;
}

static void put_plan(plan *p)
{
    atomo__fft_lock();
    p->users--;
    atomo__fft_unlock();
}

/* *out = the cached plan, made at the first use on the arrays re [batch,n] and im [batch,n/2+1], which planning may
 * overwrite. The caller ends its use by put_plan. */
static int get_plan(int n, int batch, int inverse, float *re, atomo__complex *im, plan **out)
{
    const atomo__fftw_table *fftw = atomo__fftw();
    plan key = {.n = n,
                .batch = batch,
                .inverse = inverse,
                .align_re = fftw->alignment_of(re),
                .align_im = fftw->alignment_of((float *)im)};
    atomo__fft_lock();
    plan *victim, *found = find_plan(&key, &victim);
    if (found || !victim) {
        if (found) {
            found->used = ++tick;
            found->users++;
        }
        atomo__fft_unlock();
        ATOMO_REQUIRE(found, ATOMO_ELIMIT, "fft: more than %d transforms at once", CACHE);
        *out = found;
        return ATOMO_OK;
    }
    void *p = inverse ? fftw->plan_many_c2r(1, &n, batch, im, NULL, 1, n / 2 + 1, re, NULL, 1, n, ATOMO__FFTW_ESTIMATE)
                      : fftw->plan_many_r2c(1, &n, batch, re, NULL, 1, n, im, NULL, 1, n / 2 + 1, ATOMO__FFTW_ESTIMATE);
    if (p) {
        if (victim->handle) fftw->destroy(victim->handle);
        key.handle = p;
        key.users = 1;
        key.used = ++tick;
        *victim = key;
    }
    atomo__fft_unlock();
    ATOMO_REQUIRE(p, ATOMO_ENUMERIC, "fft: FFTW has no plan for n = %d, batch %d", n, batch);
    *out = victim;
    return ATOMO_OK;
}

int atomo_rfft(const atomo_tensor *a, atomo_tensor **out)
{
    ATOMO_TRY(atomo__need("rfft", atomo__fftw_missing));
    ATOMO_REQUIRE(a->dtype == ATOMO_F32 && a->ndim >= 1 && a->ndim < ATOMO_MAX_DIM, ATOMO_ESHAPE,
                  "rfft: tensor is %s %s, expected f32 with 1 to %d dimensions", atomo__dtype_name(a->dtype),
                  atomo__shape_text(a), ATOMO_MAX_DIM - 1);
    ATOMO_REQUIRE(a->numel >= 1 && a->numel <= INT_MAX, ATOMO_ELIMIT, "rfft: %s has no transform",
                  atomo__shape_text(a));
    double shape[ATOMO_MAX_DIM];
    int n = (int)atomo__size(a, -1), batch = (int)(a->numel / n);
    for (int i = 0; i < a->ndim - 1; i++) shape[i] = a->shape[i];
    shape[a->ndim - 1] = n / 2 + 1;
    shape[a->ndim] = 2;
    atomo_tensor *x = NULL; /* a copy of a, because planning may overwrite its arrays and c2r overwrites its input */
    ATOMO_MAKING(made, a);
    int rc = atomo__make(&made, out, ATOMO_F32, a->ndim + 1, shape, "rfft");
    if (rc == 0) rc = atomo_tensor_new(ATOMO_F32, a->ndim, a->shape, &x);
    plan *p = NULL;
    if (rc == 0) rc = get_plan(n, batch, 0, atomo__f32(x), (atomo__complex *)(*out)->data, &p);
    if (rc == 0) rc = atomo_copy(x, a);
    if (rc == 0) atomo__fftw()->execute_r2c(p->handle, atomo__f32(x), (atomo__complex *)(*out)->data);
    if (p) put_plan(p);
    atomo_tensor_free(x);
    return atomo__made(&made, rc);
}

int atomo_irfft(const atomo_tensor *a, double n, atomo_tensor **out)
{
    ATOMO_TRY(atomo__need("irfft", atomo__fftw_missing));
    ATOMO_REQUIRE(a->dtype == ATOMO_F32 && a->ndim >= 2 && atomo__size(a, -1) == 2, ATOMO_ESHAPE,
                  "irfft: tensor is %s %s, expected f32 [..., n/2+1, 2]", atomo__dtype_name(a->dtype),
                  atomo__shape_text(a));
    int64_t half = atomo__size(a, -2);
    ATOMO_REQUIRE(n >= 1 && n <= INT_MAX && n == (double)(int)n && (int)n / 2 + 1 == half, ATOMO_EARG,
                  "irfft: n = %g does not fit %s, expected %lld or %lld", n, atomo__shape_text(a),
                  (long long)(2 * half - 2), (long long)(2 * half - 1));
    ATOMO_REQUIRE(a->numel >= 1 && a->numel <= INT_MAX, ATOMO_ELIMIT, "irfft: %s has no transform",
                  atomo__shape_text(a));
    double shape[ATOMO_MAX_DIM];
    for (int i = 0; i < a->ndim - 2; i++) shape[i] = a->shape[i];
    shape[a->ndim - 2] = n;
    int batch = (int)(a->numel / (double)(2 * half));
    atomo_tensor *x = NULL;
    ATOMO_MAKING(made, a);
    int rc = atomo__make(&made, out, ATOMO_F32, a->ndim - 1, shape, "irfft");
    if (rc == 0) rc = atomo_tensor_new(ATOMO_F32, a->ndim, a->shape, &x);
    plan *p = NULL;
    if (rc == 0) rc = get_plan((int)n, batch, 1, atomo__f32(*out), (atomo__complex *)x->data, &p);
    if (rc == 0) rc = atomo_copy(x, a);
    if (rc == 0) {
        atomo__fftw()->execute_c2r(p->handle, (atomo__complex *)x->data, atomo__f32(*out));
        const float scale = (float)(1.0 / n);
        for (int64_t i = 0; i < atomo__numel(*out); i++) atomo__f32(*out)[i] *= scale;
    }
    if (p) put_plan(p);
    atomo_tensor_free(x);
    return atomo__made(&made, rc);
}
