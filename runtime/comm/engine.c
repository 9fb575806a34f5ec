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

typedef struct job job;
struct job {
    int (*run)(const job *);
    atomo_comm *comm;
    atomo_tensor *tensor;
    const void *send;
    double nbytes;
    int root, grains;
    const double *grain;
    const double *counts_out;
    atomo_tensor **recv;
    double *counts;
    atomo_sums *linear;
    char note[ATOMO_FLIGHT_NOTE]; /* what it is for */
};

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
            atomo_flight_note(j.note);
            const int status = j.run(&j);
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

/* ---- the jobs: each is an operation of the communicator ---------------------------------------------------------- */

static int usable(const atomo_comm *c)
{
    ATOMO_REQUIRE(c && atomo_mpi_started(), ATOMO_EMPI, "exchange: the communicator is closed or MPI is not running");
    return ATOMO_OK;
}

static int run_allreduce(const job *j)
{
    if (!j->grain) return atomo_comm_allreduce(j->comm, j->tensor, ATOMO_MPI_SUM);
    return atomo_comm_allreduce_grains(j->comm, j->tensor, j->grain, j->grains);
}

static int run_reduce(const job *j)
{
    return atomo_comm_reduce(j->comm, j->tensor, ATOMO_MPI_SUM, j->root);
}

static int run_bcast(const job *j)
{
    return atomo_comm_bcast(j->comm, j->tensor, j->root);
}

static int run_allgatherv(const job *j)
{
    return atomo_comm_allgatherv_bytes(j->comm, j->send, j->nbytes, j->recv, j->counts);
}

static int run_alltoallv(const job *j)
{
    return atomo_comm_alltoallv_bytes(j->comm, j->send, j->counts_out, j->recv, j->counts);
}

static int run_bcast_bytes(const job *j)
{
    return atomo_comm_bcast_bytes(j->comm, j->send, j->nbytes, j->root, j->recv, j->counts);
}

static int run_linear(const job *j)
{
    return atomo__sums_run(j->linear);
}

static int post_tensor(job j, double *ticket)
{
    ATOMO_TRY(usable(j.comm));
    ATOMO_TRY(atomo__comm_buffer(j.tensor, "exchange: bucket"));
    return post(&j, ticket);
}

static int post_bytes(job j, double *ticket)
{
    ATOMO_TRY(usable(j.comm));
    return post(&j, ticket);
}

int atomo_engine_allreduce(atomo_comm *c, atomo_tensor *t, double *ticket)
{
    return post_tensor((job){.run = run_allreduce, .comm = c, .tensor = t}, ticket);
}

int atomo_engine_allreduce_grains(atomo_comm *c, atomo_tensor *t, const double *grain, int grains, double *ticket)
{
    return post_tensor((job){.run = run_allreduce, .comm = c, .tensor = t, .grain = grain, .grains = grains}, ticket);
}

int atomo_engine_reduce(atomo_comm *c, atomo_tensor *t, int root, double *ticket)
{
    return post_tensor((job){.run = run_reduce, .comm = c, .tensor = t, .root = root}, ticket);
}

int atomo_engine_bcast(atomo_comm *c, atomo_tensor *t, int root, double *ticket)
{
    return post_tensor((job){.run = run_bcast, .comm = c, .tensor = t, .root = root}, ticket);
}

int atomo_engine_allgatherv_bytes(atomo_comm *c, const void *send, double nbytes, atomo_tensor **recv, double *counts,
                                  double *ticket)
{
    return post_bytes(
        (job){.run = run_allgatherv, .comm = c, .send = send, .nbytes = nbytes, .recv = recv, .counts = counts},
        ticket);
}

int atomo_engine_alltoallv_bytes(atomo_comm *c, const void *send, const double *counts_out, atomo_tensor **recv,
                                 double *counts_in, double *ticket)
{
    return post_bytes(
        (job){
            .run = run_alltoallv, .comm = c, .send = send, .counts_out = counts_out, .recv = recv, .counts = counts_in},
        ticket);
}

int atomo_engine_bcast_bytes(atomo_comm *c, const void *data, double nbytes, int root, atomo_tensor **recv,
                             double *count, double *ticket)
{
    return post_bytes((job){.run = run_bcast_bytes,
                            .comm = c,
                            .send = data,
                            .nbytes = nbytes,
                            .root = root,
                            .recv = recv,
                            .counts = count},
                      ticket);
}

int atomo_engine_sums(atomo_sums *l, const atomo_tensor *const *grads, double step, double *ticket)
{
    ATOMO_REQUIRE(l && atomo_mpi_started(), ATOMO_EMPI, "exchange: MPI is not running");
    ATOMO_TRY(atomo__sums_set(l, grads, step));
    return post(&(job){.run = run_linear, .linear = l}, ticket);
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
