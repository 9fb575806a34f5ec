/* engine.c - the communication thread: carries out exchanges while backward goes on.
 *
 * Open MPI progresses non-blocking operations only inside MPI calls, so overlap needs a thread that stays there. It
 * takes jobs from a queue, strictly in order (all ranks post the same jobs in the same order, so they meet), and waits
 * without spinning (wait.c). MPI runs with MPI_THREAD_SERIALIZED: while a job is queued or under way no other thread
 * may be in MPI, which every operation on a communicator sees to by atomo__engine_quiet. Path: stage 7.
 */
#include "comm/comm.h"
#include "tensor/tensor.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

enum { QUEUE = 256 };

typedef struct job {
    atomo_comm *comm;
    atomo_tensor *tensor; /* of an all-reduce; NULL: bytes to all */
    const void *send;
    double nbytes;
    atomo_tensor **recv;
    double *counts;
    char note[ATOMO_FLIGHT_NOTE]; /* what it is for */
} job;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t posted, finished;
    pthread_t thread;
    bool running, stopping;
    int64_t head, done; /* jobs posted, jobs finished */
    job queue[QUEUE];
    int failed; /* status of the first failure */
    char why[512];
    double worked, waited; /* seconds */
} engine = {
    .lock = PTHREAD_MUTEX_INITIALIZER, .posted = PTHREAD_COND_INITIALIZER, .finished = PTHREAD_COND_INITIALIZER};

static int carry_out(const job *j)
{
    atomo_flight_note(j->note);
    if (j->tensor) return atomo_comm_allreduce(j->comm, j->tensor, ATOMO_MPI_SUM);
    return atomo_comm_allgatherv_bytes(j->comm, j->send, j->nbytes, j->recv, j->counts);
}

/* After a failure the ranks are out of step: what is still queued is not begun. */
static void *work(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&engine.lock);
    for (;;) {
        while (engine.done == engine.head && !engine.stopping) pthread_cond_wait(&engine.posted, &engine.lock);
        if (engine.done == engine.head) break;
        const job j = engine.queue[engine.done % QUEUE];
        if (!engine.failed) {
            pthread_mutex_unlock(&engine.lock);
            const double from = atomo_time();
            const int status = carry_out(&j);
            pthread_mutex_lock(&engine.lock);
            engine.worked += atomo_time() - from;
            if (status < 0) {
                engine.failed = status;
                snprintf(engine.why, sizeof engine.why, "%s", atomo_last_error());
            }
        }
        engine.done++;
        pthread_cond_broadcast(&engine.finished);
    }
    pthread_mutex_unlock(&engine.lock);
    return NULL;
}

/* With the lock: until `ticket` jobs are finished. */
static void wait_for(int64_t ticket)
{
    if (engine.done >= ticket) return;
    const double from = atomo_time();
    while (engine.done < ticket) pthread_cond_wait(&engine.finished, &engine.lock);
    engine.waited += atomo_time() - from;
}

/* Signals stay with the main thread, whose handler stops the script. */
static int start(void)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int rc = pthread_create(&engine.thread, NULL, work, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    ATOMO_REQUIRE(rc == 0, ATOMO_EIO, "exchange: no communication thread: pthread_create says %d", rc);
    engine.running = true;
    return ATOMO_OK;
}

static int post(const job *j, double *ticket)
{
    pthread_mutex_lock(&engine.lock);
    int status = ATOMO_OK;
    if (!engine.running) status = start();
    if (status == ATOMO_OK) {
        wait_for(engine.head - QUEUE + 1);
        job *place = &engine.queue[engine.head++ % QUEUE];
        *place = *j;
        atomo__flight_take_note(place->note);
        *ticket = (double)engine.head;
        pthread_cond_signal(&engine.posted);
    }
    pthread_mutex_unlock(&engine.lock);
    return status;
}

int atomo_engine_allreduce(atomo_comm *c, atomo_tensor *t, double *ticket)
{
    ATOMO_REQUIRE(c && atomo_mpi_started(), ATOMO_EMPI, "exchange: the communicator is closed or MPI is not running");
    ATOMO_TRY(atomo__comm_buffer(t, "exchange: bucket"));
    return post(&(job){.comm = c, .tensor = t}, ticket);
}

int atomo_engine_allgatherv_bytes(atomo_comm *c, const void *send, double nbytes, atomo_tensor **recv, double *counts,
                                  double *ticket)
{
    ATOMO_REQUIRE(c && atomo_mpi_started(), ATOMO_EMPI, "exchange: the communicator is closed or MPI is not running");
    return post(&(job){.comm = c, .send = send, .nbytes = nbytes, .recv = recv, .counts = counts}, ticket);
}

int atomo_engine_wait(double ticket)
{
    pthread_mutex_lock(&engine.lock);
    const bool known = ticket >= 0 && ticket <= (double)engine.head;
    if (known) wait_for((int64_t)ticket);
    const int failed = engine.failed;
    pthread_mutex_unlock(&engine.lock);
    ATOMO_REQUIRE(known, ATOMO_EARG, "exchange: job %g was never posted", ticket);
    return failed ? atomo__fail(failed, "%s", engine.why) : ATOMO_OK;
}

void atomo_engine_seconds(double *out)
{
    pthread_mutex_lock(&engine.lock);
    out[0] = engine.worked;
    out[1] = engine.waited;
    pthread_mutex_unlock(&engine.lock);
}

void atomo__engine_quiet(void)
{
    if (!engine.running || pthread_equal(pthread_self(), engine.thread)) return;
    pthread_mutex_lock(&engine.lock);
    wait_for(engine.head);
    pthread_mutex_unlock(&engine.lock);
}

void atomo__engine_stop(void)
{
    if (!engine.running) return;
    pthread_mutex_lock(&engine.lock);
    engine.stopping = true;
    pthread_cond_signal(&engine.posted);
    pthread_mutex_unlock(&engine.lock);
    pthread_join(engine.thread, NULL);
    engine.running = false;
}
