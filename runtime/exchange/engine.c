/* engine.c - the exchange's two threads, a communication thread and a coding thread, which work while backward
 * continues.
 *
 * Open MPI progresses non-blocking operations only inside MPI calls, so overlap needs a thread that stays inside MPI.
 * The communication thread runs one queue of (bucket, operation), strictly in order. All ranks start the same buckets
 * in the same order, so their collectives match. It waits without spinning (comm/wait.c). MPI runs with
 * MPI_THREAD_SERIALIZED: while an operation is queued or running, no other thread may call MPI. Every operation on a
 * communicator ensures this by the gate (comm/gate.c). The coding thread encodes and decodes (bucket_coded.c), so that
 * one bucket is coded while another is sent; it never calls MPI. It has two queues, each run in order. Operations that
 * other ranks wait for (encoding, answers) have priority; decoding for this rank alone is done when there is nothing
 * else to do. So only one thread uses a codec, and its messages do not depend on when those of other ranks arrived. An
 * operation begins when all earlier ones of its bucket's program are done. Path: stages 6 to 8.
 */
#include "exchange/engine.h"
#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { LIST = 256, THREADS = 2 };

typedef struct entry {
    atomo_bucket *bucket; /* held */
    int at;               /* index of the operation in its program */
    int threads;          /* OpenMP threads for it: as many as the thread that posted it would use */
} entry;

typedef struct queue {  /* of operations */
    int64_t head, done; /* entries posted, entries finished, since the start */
    double worked;      /* seconds spent in operations */
    entry list[LIST];   /* entry k is at k % LIST */
} queue;

typedef struct worker {
    pthread_t thread;
    bool running;
    int first, last; /* its queues, in order of priority */
} worker;

static const int thread_of[ENGINE_QUEUES] = {0, 1, 1}; /* index of the worker that runs a queue */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* an entry was posted or finished */
    bool stopping;
    worker worker[THREADS];
    queue queue[ENGINE_QUEUES];
    int failed;    /* status of the first failure of a communication operation; 0: none */
    char why[512]; /* its text */
    double waited; /* seconds that other threads waited for buckets, except for decoding */
} engine = {.lock = PTHREAD_MUTEX_INITIALIZER,
            .changed = PTHREAD_COND_INITIALIZER,
            .worker = {{.first = ENGINE_COMM, .last = ENGINE_COMM}, {.first = ENGINE_CODE, .last = ENGINE_DECODE}}};

static int queue_of(const atomo_bucket *b, int at)
{
    return atomo__operation_of(b->program[at].what)->queue;
}

/* Runs an operation, without holding the lock; *worked = its seconds. */
static int run(const entry *e, double *worked)
{
    const double from = atomo_time();
    const atomo__operation *o = &e->bucket->program[e->at];
    if (omp_get_max_threads() != e->threads) omp_set_num_threads(e->threads);
    atomo_flight_note(o->comm ? e->bucket->note : NULL);
    const int status = atomo__operation_of(o->what)->run(e->bucket, o);
    *worked = atomo_time() - from;
    return status;
}

/* Returns the queue whose next entry can begin, NULL if none can; *left: whether any entry is left. Needs the lock. */
static queue *next_of(const worker *w, bool *left)
{
    *left = false;
    for (int i = w->first; i <= w->last; i++) {
        queue *q = &engine.queue[i];
        if (q->done == q->head) continue;
        *left = true;
        const entry *e = &q->list[q->done % LIST];
        if (e->bucket->done == e->at) return q;
    }
    return NULL;
}

static void *work(void *argument)
{
    const worker *w = argument;
    pthread_mutex_lock(&engine.lock);
    for (;;) {
        bool left;
        queue *q = next_of(w, &left);
        if (!q && !left && engine.stopping) break;
        if (!q) {
            pthread_cond_wait(&engine.changed, &engine.lock);
            continue;
        }
        const entry e = q->list[q->done % LIST];
        const bool begin = !engine.failed; /* after a failure the ranks no longer match: the rest is skipped */
        double worked = 0;
        pthread_mutex_unlock(&engine.lock);
        const int status = begin ? run(&e, &worked) : ATOMO_OK;
        pthread_mutex_lock(&engine.lock);
        q->worked += worked;
        if (status < 0 && !engine.failed) {
            engine.failed = status;
            snprintf(engine.why, sizeof engine.why, "%s", atomo_last_error());
        }
        q->done++;
        e.bucket->done++;
        if (status == ATOMO_OK) atomo_bucket_free(e.bucket); /* after a failure MPI may still write to its memory */
        pthread_cond_broadcast(&engine.changed);
    }
    pthread_mutex_unlock(&engine.lock);
    return NULL;
}

/* Waits until `ticket` entries of a queue are finished. Needs the lock. */
static void wait_for(const queue *q, int64_t ticket)
{
    if (q->done >= ticket) return;
    const double from = atomo_time();
    while (q->done < ticket) pthread_cond_wait(&engine.changed, &engine.lock);
    if (q != &engine.queue[ENGINE_DECODE]) engine.waited += atomo_time() - from;
}

/* The gate (comm/gate.c): waits until the communication thread has no operations. Returns at once on that thread. */
static void quiet(void)
{
    const worker *w = &engine.worker[thread_of[ENGINE_COMM]];
    if (!w->running || pthread_equal(pthread_self(), w->thread)) return;
    pthread_mutex_lock(&engine.lock);
    wait_for(&engine.queue[ENGINE_COMM], engine.queue[ENGINE_COMM].head);
    pthread_mutex_unlock(&engine.lock);
}

/* With the lock. */
static int failure(void)
{
    return engine.failed ? atomo__fail(engine.failed, "%s", engine.why) : ATOMO_OK;
}

int atomo_engine_check(void)
{
    quiet();
    pthread_mutex_lock(&engine.lock);
    const int status = failure();
    pthread_mutex_unlock(&engine.lock);
    return status;
}

/* Finishes all posted operations and ends both threads. Runs at the end of the program, also if MPI never ran. */
static void stop(void)
{
    pthread_mutex_lock(&engine.lock);
    engine.stopping = true;
    pthread_cond_broadcast(&engine.changed);
    pthread_mutex_unlock(&engine.lock);
    for (int t = 0; t < THREADS; t++) {
        worker *w = &engine.worker[t];
        if (w->running) pthread_join(w->thread, NULL);
        w->running = false;
    }
}

/* Starts a thread with all signals blocked, so that they go to the main thread, whose handler stops the script. */
static int start(worker *w)
{
    sigset_t all, before;
    atomo__gate_set(quiet);
    atomo__at_finalize(stop, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int rc = pthread_create(&w->thread, NULL, work, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    ATOMO_REQUIRE(rc == 0, ATOMO_EIO, "exchange: cannot start a thread: pthread_create returned %d", rc);
    w->running = true;
    return ATOMO_OK;
}

/* Appends operations first .. end - 1 to their queues; waits while a queue is full. Needs the lock. */
static int post(atomo_bucket *b, int first, int end)
{
    for (int k = first; k < end; k++) {
        worker *w = &engine.worker[thread_of[queue_of(b, k)]];
        if (!w->running) ATOMO_TRY(start(w));
    }
    for (int k = first; k < end; k++) {
        queue *q = &engine.queue[queue_of(b, k)];
        wait_for(q, q->head - LIST + 1);
        q->list[q->head++ % LIST] = (entry){atomo__bucket_hold(b), k, atomo_num_threads()};
        b->posted = k + 1;
        pthread_cond_broadcast(&engine.changed);
    }
    return ATOMO_OK;
}

int atomo__engine_post(atomo_bucket *b, int first, int end)
{
    pthread_mutex_lock(&engine.lock);
    if (first == 0) b->posted = b->done = 0;
    const int status = post(b, first, end);
    pthread_mutex_unlock(&engine.lock);
    return status;
}

/* Returns the number of posted operations without the decoding at the end, since time spent waiting for decoding does
 * not count as waiting for the exchange. */
static int awaited(const atomo_bucket *b)
{
    int n = b->posted;
    while (n > 0 && queue_of(b, n - 1) == ENGINE_DECODE) n--;
    return n;
}

int atomo__engine_wait_for(atomo_bucket *b, double *seconds)
{
    pthread_mutex_lock(&engine.lock);
    const double from = atomo_time();
    while (b->done < awaited(b)) pthread_cond_wait(&engine.changed, &engine.lock);
    *seconds = atomo_time() - from;
    engine.waited += *seconds;
    while (b->done < b->posted) pthread_cond_wait(&engine.changed, &engine.lock);
    const int status = failure();
    pthread_mutex_unlock(&engine.lock);
    return status;
}

void atomo_engine_seconds(double *out)
{
    pthread_mutex_lock(&engine.lock);
    out[0] = engine.queue[ENGINE_COMM].worked;
    out[1] = engine.waited;
    out[2] = engine.queue[ENGINE_CODE].worked + engine.queue[ENGINE_DECODE].worked;
    pthread_mutex_unlock(&engine.lock);
}
