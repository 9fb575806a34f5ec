/* loader.c - returns batches, and makes the next one on a thread of its own while the current one is used. Path:
 * stage 2.
 *
 * There are two buffers, filled alternately: step k uses buffer k & 1. The worker fills an EMPTY buffer and marks it
 * READY. atomo_loader_next returns the READY buffer, marks it HELD, and marks the one it returned before EMPTY. If the
 * worker fails, status and text are stored in the buffer and returned by the call that reaches it. All memory is
 * allocated in atomo_loader_new.
 */
#include "data/batch.h"
#include "tensor/tensor.h"
#include <pthread.h>
#include <signal.h>
#include <string.h>

enum { EMPTY, FILLING, READY, HELD };

typedef struct {
    int state, status;   /* EMPTY ... HELD; of making the batch */
    int64_t step;        /* of the epoch */
    int32_t n, total;    /* images of this rank, of all ranks */
    atomo_tensor *x, *y; /* large enough for the largest share */
    char error[512];     /* text of a failure */
} buffer;

struct atomo_loader {
    atomo__batcher b;
    atomo_tensor *images, *labels; /* views, which keep the storages alive */
    buffer buffers[2];
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake, filled; /* the worker waits for wake, the caller for filled */
    bool has_thread, has_lock;   /* what the destructor must end */
    bool quit, running;          /* the worker must end; an epoch has begun */
    double epoch;
    int64_t next_fill, next_take; /* the step to be made next, the step to be returned next */
};

/* Fills the buffer of `step`. The caller need not hold the lock. */
static void fill(atomo_loader *l, buffer *f, int64_t step)
{
    int64_t first;
    atomo__batcher *b = &l->b;
    if (b->order_epoch != l->epoch) atomo__order(b->o.seed, l->epoch, b->o.shuffle, b->n, b->order);
    b->order_epoch = l->epoch;
    atomo__share(b->n, b->o.batch, b->o.rank, b->o.size, step, &first, &f->n, &f->total);
    f->step = step;
    f->status = atomo__batch_make(b, l->epoch, first, f->n, atomo__f32(f->x), f->y->data);
    if (f->status < 0) {
        strncpy(f->error, atomo_last_error(), sizeof f->error - 1);
        f->error[sizeof f->error - 1] = 0;
    }
    atomo_tensor_touch(f->x);
    atomo_tensor_touch(f->y);
}

static buffer *buffer_to_fill(atomo_loader *l)
{
    buffer *f = &l->buffers[l->next_fill & 1];
    return l->running && l->next_fill < l->b.steps && f->state == EMPTY ? f : NULL;
}

static void *worker(void *arg)
{
    atomo_loader *l = arg;
    pthread_mutex_lock(&l->lock);
    for (;;) {
        buffer *f = NULL;
        while (!l->quit && !(f = buffer_to_fill(l))) pthread_cond_wait(&l->wake, &l->lock);
        if (l->quit) break;
        const int64_t step = l->next_fill++;
        f->state = FILLING;
        pthread_mutex_unlock(&l->lock);
        fill(l, f, step);
        pthread_mutex_lock(&l->lock);
        f->state = READY;
        pthread_cond_signal(&l->filled);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static int check_options(const atomo_tensor *images, const atomo_tensor *labels, const atomo_loader_options *o)
{
    ATOMO_TRY(atomo__batch_check(images, o));
    ATOMO_TRY(atomo__expect(labels, ATOMO_I32, 1, "loader: labels"));
    const double n = images->shape[0];
    ATOMO_REQUIRE(labels->shape[0] == n, ATOMO_ESHAPE, "loader: images %s, labels %s: expected one label an image",
                  atomo__shape_text(images), atomo__shape_text(labels));
    ATOMO_REQUIRE(o->batch >= 1, ATOMO_EARG, "loader: batch %d, expected at least 1", o->batch);
    ATOMO_REQUIRE(o->size >= 1 && o->rank >= 0 && o->rank < o->size, ATOMO_EARG,
                  "loader: rank %d of %d, expected 0 to size - 1", o->rank, o->size);
    const int64_t whole = (int64_t)o->batch * o->size;
    ATOMO_REQUIRE(whole <= INT32_MAX, ATOMO_ELIMIT, "loader: batch %d on %d ranks is above 2^31-1 images", o->batch,
                  o->size);
    ATOMO_REQUIRE(!o->drop_last || (double)whole <= n, ATOMO_EARG,
                  "loader: drop_last with %.0f images, fewer than one global batch (%d x %d ranks)", n, o->batch,
                  o->size);
    ATOMO_REQUIRE(o->classes >= 0, ATOMO_EARG, "loader: classes %d, expected 0 or more", o->classes);
    return ATOMO_OK;
}

static int make_batcher(atomo__batcher *b, const atomo_tensor *images, const atomo_tensor *labels,
                        const atomo_loader_options *o)
{
    const int64_t whole = (int64_t)o->batch * o->size;
    ATOMO_TRY(atomo__batch_open(b, images, o));
    b->labels = labels->data;
    b->steps = o->drop_last ? b->n / whole : (b->n + whole - 1) / whole;
    return atomo__alloc((void **)&b->order, (size_t)b->n * sizeof(int32_t));
}

static int make_buffers(atomo_loader *l)
{
    const atomo__batcher *b = &l->b;
    double most = (double)ATOMO_MIN((int64_t)b->o.batch, b->n); /* the largest share of a rank */
    double x[4] = {most, (double)b->h, (double)b->w, (double)b->c}, y[2] = {most, (double)b->o.classes};
    for (int i = 0; i < 2; i++) {
        ATOMO_TRY(atomo_tensor_new(ATOMO_F32, 4, x, &l->buffers[i].x));
        ATOMO_TRY(atomo_tensor_new(b->mixes ? ATOMO_F32 : ATOMO_I32, b->mixes ? 2 : 1, y, &l->buffers[i].y));
    }
    return ATOMO_OK;
}

/* Starts the worker with all signals blocked, so that the host program's handlers run on the main thread. */
static int start_thread(atomo_loader *l)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&l->thread, NULL, worker, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    ATOMO_REQUIRE(rc == 0, ATOMO_ELIMIT, "loader: cannot start a thread: %s", strerror(rc));
    l->has_thread = true;
    return ATOMO_OK;
}

static int construct(atomo_loader *l, const atomo_tensor *images, const atomo_tensor *labels,
                     const atomo_loader_options *o)
{
    ATOMO_REQUIRE(pthread_mutex_init(&l->lock, NULL) == 0 && pthread_cond_init(&l->wake, NULL) == 0 &&
                      pthread_cond_init(&l->filled, NULL) == 0,
                  ATOMO_ELIMIT, "loader: cannot make a lock");
    l->has_lock = true;
    ATOMO_TRY(atomo_tensor_view(images, images->ndim, images->shape, images->stride, 0, &l->images));
    ATOMO_TRY(atomo_tensor_view(labels, labels->ndim, labels->shape, labels->stride, 0, &l->labels));
    ATOMO_TRY(make_batcher(&l->b, l->images, l->labels, o));
    ATOMO_TRY(make_buffers(l));
    return o->background ? start_thread(l) : ATOMO_OK;
}

int atomo_loader_new(const atomo_tensor *images, const atomo_tensor *labels, const atomo_loader_options *options,
                     atomo_loader **out)
{
    void *p;
    *out = NULL;
    ATOMO_REQUIRE(options, ATOMO_EARG, "loader: options are missing");
    ATOMO_TRY(check_options(images, labels, options));
    ATOMO_TRY(atomo__calloc(&p, sizeof(atomo_loader)));
    int rc = construct(p, images, labels, options);
    if (rc < 0)
        atomo_loader_free(p);
    else
        *out = p;
    return rc;
}

void atomo_loader_free(atomo_loader *l)
{
    if (!l || atomo__objects_kept()) return;
    if (l->has_thread) {
        pthread_mutex_lock(&l->lock);
        l->quit = true;
        pthread_cond_signal(&l->wake);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
    }
    if (l->has_lock) {
        pthread_mutex_destroy(&l->lock);
        pthread_cond_destroy(&l->wake);
        pthread_cond_destroy(&l->filled);
    }
    for (int i = 0; i < 2; i++) {
        atomo_tensor_free(l->buffers[i].x);
        atomo_tensor_free(l->buffers[i].y);
    }
    atomo__batch_close(&l->b);
    atomo_tensor_free(l->images);
    atomo_tensor_free(l->labels);
    atomo__free(l);
}

double atomo_loader_steps(const atomo_loader *l)
{
    return (double)l->b.steps;
}

int atomo_loader_begin(atomo_loader *l, double epoch, double step)
{
    ATOMO_REQUIRE(epoch >= 0 && epoch < 0x1p32 && epoch == (double)(uint32_t)epoch, ATOMO_EARG,
                  "loader: epoch %.17g, expected a whole number in [0, 2^32)", epoch);
    ATOMO_REQUIRE(step >= 0 && step <= (double)l->b.steps && step == (double)(int64_t)step, ATOMO_EARG,
                  "loader: step %.17g, expected a whole number in [0, %lld]", step, (long long)l->b.steps);
    pthread_mutex_lock(&l->lock);
    l->running = false;
    while (l->buffers[0].state == FILLING || l->buffers[1].state == FILLING) pthread_cond_wait(&l->filled, &l->lock);
    l->buffers[0].state = l->buffers[1].state = EMPTY;
    l->epoch = epoch;
    l->next_fill = l->next_take = (int64_t)step;
    l->running = true;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
    return ATOMO_OK;
}

/* Returns the buffer of the next step when it is READY. The caller holds the lock. */
static buffer *await(atomo_loader *l)
{
    buffer *f = &l->buffers[l->next_take & 1];
    if (!l->has_thread) {
        fill(l, f, l->next_take);
        l->next_fill = l->next_take + 1;
        f->state = READY;
    }
    while (f->state != READY) pthread_cond_wait(&l->filled, &l->lock);
    return f;
}

int atomo_loader_next(atomo_loader *l, atomo_batch *out)
{
    pthread_mutex_lock(&l->lock);
    bool running = l->running;
    for (int i = 0; i < 2; i++)
        if (l->buffers[i].state == HELD) l->buffers[i].state = EMPTY;
    pthread_cond_signal(&l->wake);
    buffer *f = running && l->next_take < l->b.steps ? await(l) : NULL;
    if (f) {
        f->state = HELD;
        l->next_take++;
        if (f->status < 0) l->running = false; /* the epoch ends with the error */
    }
    pthread_mutex_unlock(&l->lock);
    ATOMO_REQUIRE(running, ATOMO_EARG, "loader: next: no epoch has begun, expected a call of begin first");
    if (!f) return 0;
    if (f->status < 0) return atomo__fail(f->status, "%s", f->error);
    *out = (atomo_batch){(double)f->step, (double)l->b.steps, f->n, f->total, f == &l->buffers[1]};
    return 1;
}

int atomo_loader_view(const atomo_loader *l, int slot, int n, atomo_tensor **x, atomo_tensor **y)
{
    ATOMO_REQUIRE(slot == 0 || slot == 1, ATOMO_EARG, "loader_view: slot %d, expected 0 or 1", slot);
    const buffer *f = &l->buffers[slot];
    double shape[4] = {n, f->x->shape[1], f->x->shape[2], f->x->shape[3]}, labels[2] = {n, (double)l->b.o.classes};
    ATOMO_REQUIRE(n >= 0 && n <= f->x->shape[0], ATOMO_EARG, "loader_view: %d images, expected 0 to %.0f", n,
                  f->x->shape[0]);
    ATOMO_TRY(atomo_tensor_view(f->x, 4, shape, f->x->stride, 0, x));
    int rc = atomo_tensor_view(f->y, f->y->ndim, labels, f->y->stride, 0, y);
    if (rc < 0) {
        atomo_tensor_free(*x);
        *x = NULL;
    }
    return rc;
}
