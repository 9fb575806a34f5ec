/* engine.c - the exchange's two threads: one that communicates, one that codes, while backward goes on.
 *
 * Open MPI progresses non-blocking operations only inside MPI calls, so overlap needs a thread that stays there. The
 * communication thread takes jobs from a queue, strictly in order (all ranks post the same jobs in the same order, so
 * they meet), and waits without spinning (wait.c). MPI runs with MPI_THREAD_SERIALIZED: while a job is queued or under
 * way no other thread may be in MPI, which every operation on a communicator sees to by the gate of comm (comm/gate.c).
 * The coding thread encodes and decodes parcels (bucket_coded.c), so that one is coded while another travels; it never
 * calls MPI. It has two queues, each in order: what ranks wait for (encoding, answers) goes before what only this rank
 * waits for (decoding), whose turn comes when there is nothing of the other to do. So a codec is in one thread's hands,
 * and what it writes does not depend on when the other ranks' messages came. A job may wait for one of the other thread
 * that was posted before it. Path: stages 6 to 8.
 */
#include "exchange/engine.h"
#include "tensor/tensor.h"
#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { QUEUE = 256, THREADS = 2 };

typedef struct lane {   /* a queue of jobs */
    int64_t head, done; /* jobs posted, jobs finished */
    double worked;      /* seconds */
    atomo__job queue[QUEUE];
} lane;

typedef struct worker {
    pthread_t thread;
    bool running;
    int first, last; /* its lanes, the more urgent one first */
} worker;

static const int awaited[ENGINE_LANES] = {ENGINE_CODE, ENGINE_COMM, ENGINE_COMM}; /* whose jobs a job may wait for */
static const int thread_of[ENGINE_LANES] = {0, 1, 1};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a job was posted or finished */
    bool stopping;
    worker worker[THREADS];
    lane lane[ENGINE_LANES];
    int failed; /* status of the first failure of a communication job */
    char why[512];
    double waited; /* seconds */
} engine = {.lock = PTHREAD_MUTEX_INITIALIZER,
            .changed = PTHREAD_COND_INITIALIZER,
            .worker = {{.first = ENGINE_COMM, .last = ENGINE_COMM}, {.first = ENGINE_CODE, .last = ENGINE_DECODE}}};

/* j becomes a holder of all that it touches. */
static int hold_all(atomo__job *j, int count)
{
    const double *numbers = j->numbers;
    if (numbers) {
        ATOMO_TRY(atomo__alloc((void **)&j->numbers, sizeof *numbers * (size_t)count));
        memcpy(j->numbers, numbers, sizeof *numbers * (size_t)count);
    }
    if (j->tensor.storage) atomo__tensor_hold(&j->tensor, &j->tensor);
    if (j->comm) atomo__comm_hold(j->comm);
    if (j->inbox) atomo__inbox_hold(j->inbox);
    if (j->linear) atomo__sums_hold(j->linear);
    if (j->parcel) atomo__parcel_hold(j->parcel);
    return ATOMO_OK;
}

static void drop_all(atomo__job *j)
{
    atomo__free(j->numbers);
    atomo__tensor_drop(&j->tensor);
    atomo__comm_drop(j->comm);
    atomo_inbox_free(j->inbox);
    atomo_sums_free(j->linear);
    atomo_parcel_free(j->parcel);
}

/* Without the lock. After a failure the ranks are out of step: what is still queued is not begun. */
static int run(const atomo__job *j, double *worked)
{
    const double from = atomo_time();
    if (omp_get_max_threads() != j->threads) omp_set_num_threads(j->threads);
    atomo_flight_note(j->note);
    const int status = j->run(j);
    *worked = atomo_time() - from;
    return status;
}

/* With the lock: the lane whose next job can begin, NULL where there is none; *left: whether there are jobs at all. */
static lane *next_of(const worker *w, bool *left)
{
    *left = false;
    for (int i = w->first; i <= w->last; i++) {
        lane *l = &engine.lane[i];
        if (l->done == l->head) continue;
        *left = true;
        if ((double)engine.lane[awaited[i]].done >= l->queue[l->done % QUEUE].after) return l;
    }
    return NULL;
}

static void *work(void *argument)
{
    const worker *w = argument;
    pthread_mutex_lock(&engine.lock);
    for (;;) {
        bool left;
        lane *l = next_of(w, &left);
        if (!l && !left && engine.stopping) break;
        if (!l) {
            pthread_cond_wait(&engine.changed, &engine.lock);
            continue;
        }
        atomo__job j = l->queue[l->done % QUEUE];
        const bool begin = !engine.failed;
        double worked = 0;
        pthread_mutex_unlock(&engine.lock);
        const int status = begin ? run(&j, &worked) : ATOMO_OK;
        if (status == ATOMO_OK) drop_all(&j); /* after a failure MPI may still write there: all is left to it */
        pthread_mutex_lock(&engine.lock);
        l->worked += worked;
        if (status < 0 && !engine.failed) {
            engine.failed = status;
            snprintf(engine.why, sizeof engine.why, "%s", atomo_last_error());
        }
        l->done++;
        pthread_cond_broadcast(&engine.changed);
    }
    pthread_mutex_unlock(&engine.lock);
    return NULL;
}

/* With the lock: until `ticket` jobs are finished. Waiting for what has arrived to be decoded is not waiting for the
 * exchange. */
static void wait_for(const lane *l, int64_t ticket)
{
    if (l->done >= ticket) return;
    const double from = atomo_time();
    while (l->done < ticket) pthread_cond_wait(&engine.changed, &engine.lock);
    if (l != &engine.lane[ENGINE_DECODE]) engine.waited += atomo_time() - from;
}

/* The gate: waits until the communication thread is out of MPI; nothing to do on that thread itself. */
static void quiet(void)
{
    const worker *w = &engine.worker[thread_of[ENGINE_COMM]];
    if (!w->running || pthread_equal(pthread_self(), w->thread)) return;
    pthread_mutex_lock(&engine.lock);
    wait_for(&engine.lane[ENGINE_COMM], engine.lane[ENGINE_COMM].head);
    pthread_mutex_unlock(&engine.lock);
}

/* At the end of the program, with MPI or without: the threads code without it, too. */
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

/* Signals stay with the main thread, whose handler stops the script. */
static int start(worker *w)
{
    sigset_t all, before;
    atomo__gate_set(quiet);
    atomo__at_finalize(stop, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int rc = pthread_create(&w->thread, NULL, work, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    ATOMO_REQUIRE(rc == 0, ATOMO_EIO, "exchange: no communication thread: pthread_create says %d", rc);
    w->running = true;
    return ATOMO_OK;
}

int atomo__engine_post(int to, const atomo__job *j, int count, double *ticket)
{
    atomo__job held = *j;
    ATOMO_TRY(hold_all(&held, count));
    lane *l = &engine.lane[to];
    worker *w = &engine.worker[thread_of[to]];
    pthread_mutex_lock(&engine.lock);
    int status = ATOMO_OK;
    if (!w->running) status = start(w);
    if (status == ATOMO_OK) {
        wait_for(l, l->head - QUEUE + 1);
        atomo__job *place = &l->queue[l->head++ % QUEUE];
        *place = held;
        place->threads = atomo_num_threads();
        if (to == ENGINE_COMM) atomo__flight_take_note(place->note);
        *ticket = (double)l->head;
        pthread_cond_broadcast(&engine.changed);
    }
    pthread_mutex_unlock(&engine.lock);
    if (status < 0) drop_all(&held);
    return status;
}

int atomo__engine_wait_for(int in, double ticket)
{
    const lane *l = &engine.lane[in];
    pthread_mutex_lock(&engine.lock);
    const bool known = ticket >= 0 && ticket <= (double)l->head;
    if (known) wait_for(l, (int64_t)ticket);
    const int failed = engine.failed;
    pthread_mutex_unlock(&engine.lock);
    ATOMO_REQUIRE(known, ATOMO_EARG, "exchange: job %g was never posted", ticket);
    return failed ? atomo__fail(failed, "%s", engine.why) : ATOMO_OK;
}

int atomo_engine_wait(double ticket)
{
    return atomo__engine_wait_for(ENGINE_COMM, ticket);
}

void atomo_engine_seconds(double *out)
{
    pthread_mutex_lock(&engine.lock);
    out[0] = engine.lane[ENGINE_COMM].worked;
    out[1] = engine.waited;
    out[2] = engine.lane[ENGINE_CODE].worked + engine.lane[ENGINE_DECODE].worked;
    pthread_mutex_unlock(&engine.lock);
}
