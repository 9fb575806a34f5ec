/* engine.c - the exchange's two threads: one that communicates, one that codes, while backward goes on.
 *
 * Open MPI progresses non-blocking operations only inside MPI calls, so overlap needs a thread that stays there. The
 * communication thread takes jobs from a queue, strictly in order (all ranks post the same jobs in the same order, so
 * they meet), and waits without spinning (wait.c). MPI runs with MPI_THREAD_SERIALIZED: while a job is queued or under
 * way no other thread may be in MPI, which every operation on a communicator sees to by atomo__engine_quiet. The coding
 * thread encodes parcels (parcel.c), so that one is coded while another travels; it never calls MPI. A job of one may
 * wait for a job of the other that was posted before it. Path: stages 6 and 7.
 */
#include "comm/engine.h"
#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

enum { QUEUE = 256 };

typedef struct worker {
    pthread_t thread;
    bool running;
    int64_t head, done; /* jobs posted, jobs finished */
    double worked;      /* seconds */
    atomo__job queue[QUEUE];
} worker;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t posted, finished;
    bool stopping;
    worker worker[ENGINE_THREADS];
    int failed; /* status of the first failure of a communication job */
    char why[512];
    double waited; /* seconds */
} engine = {
    .lock = PTHREAD_MUTEX_INITIALIZER, .posted = PTHREAD_COND_INITIALIZER, .finished = PTHREAD_COND_INITIALIZER};

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

static void *work(void *argument)
{
    worker *w = argument;
    const worker *other = &engine.worker[w == &engine.worker[ENGINE_COMM] ? ENGINE_CODE : ENGINE_COMM];
    pthread_mutex_lock(&engine.lock);
    for (;;) {
        while (w->done == w->head && !engine.stopping) pthread_cond_wait(&engine.posted, &engine.lock);
        if (w->done == w->head) break;
        const atomo__job j = w->queue[w->done % QUEUE];
        while ((double)other->done < j.after) pthread_cond_wait(&engine.finished, &engine.lock);
        if (!engine.failed) {
            double worked;
            pthread_mutex_unlock(&engine.lock);
            const int status = run(&j, &worked);
            pthread_mutex_lock(&engine.lock);
            w->worked += worked;
            if (status < 0 && !engine.failed) {
                engine.failed = status;
                snprintf(engine.why, sizeof engine.why, "%s", atomo_last_error());
            }
        }
        w->done++;
        pthread_cond_broadcast(&engine.finished);
    }
    pthread_mutex_unlock(&engine.lock);
    return NULL;
}

/* With the lock: until `ticket` jobs are finished. */
static void wait_for(const worker *w, int64_t ticket)
{
    if (w->done >= ticket) return;
    const double from = atomo_time();
    while (w->done < ticket) pthread_cond_wait(&engine.finished, &engine.lock);
    engine.waited += atomo_time() - from;
}

/* Signals stay with the main thread, whose handler stops the script. */
static int start(worker *w)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int rc = pthread_create(&w->thread, NULL, work, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    ATOMO_REQUIRE(rc == 0, ATOMO_EIO, "exchange: no communication thread: pthread_create says %d", rc);
    w->running = true;
    return ATOMO_OK;
}

int atomo__engine_post(int thread, const atomo__job *j, double *ticket)
{
    worker *w = &engine.worker[thread];
    pthread_mutex_lock(&engine.lock);
    int status = ATOMO_OK;
    if (!w->running) status = start(w);
    if (status == ATOMO_OK) {
        wait_for(w, w->head - QUEUE + 1);
        atomo__job *place = &w->queue[w->head++ % QUEUE];
        *place = *j;
        place->threads = atomo_num_threads();
        if (thread == ENGINE_COMM) atomo__flight_take_note(place->note);
        *ticket = (double)w->head;
        pthread_cond_broadcast(&engine.posted);
    }
    pthread_mutex_unlock(&engine.lock);
    return status;
}

int atomo__engine_wait_for(int thread, double ticket)
{
    const worker *w = &engine.worker[thread];
    pthread_mutex_lock(&engine.lock);
    const bool known = ticket >= 0 && ticket <= (double)w->head;
    if (known) wait_for(w, (int64_t)ticket);
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
    out[0] = engine.worker[ENGINE_COMM].worked;
    out[1] = engine.waited;
    out[2] = engine.worker[ENGINE_CODE].worked;
    pthread_mutex_unlock(&engine.lock);
}

void atomo__engine_quiet(void)
{
    const worker *w = &engine.worker[ENGINE_COMM];
    if (!w->running || pthread_equal(pthread_self(), w->thread)) return;
    pthread_mutex_lock(&engine.lock);
    wait_for(w, w->head);
    pthread_mutex_unlock(&engine.lock);
}

void atomo__engine_stop(void)
{
    pthread_mutex_lock(&engine.lock);
    engine.stopping = true;
    pthread_cond_broadcast(&engine.posted);
    pthread_mutex_unlock(&engine.lock);
    for (int t = 0; t < ENGINE_THREADS; t++) {
        worker *w = &engine.worker[t];
        if (w->running) pthread_join(w->thread, NULL);
        w->running = false;
    }
}
