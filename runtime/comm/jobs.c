/* jobs.c - what the communication thread (engine.c) can be asked for: each job is an operation of a communicator.
 * Path: stage 7. */
#include "comm/engine.h"
#include "tensor/tensor.h"

static int usable(const atomo_comm *c)
{
    ATOMO_REQUIRE(c && atomo_mpi_started(), ATOMO_EMPI, "exchange: the communicator is closed or MPI is not running");
    return ATOMO_OK;
}

static int run_allreduce(const atomo__job *j)
{
    if (!j->grain) return atomo_comm_allreduce(j->comm, j->tensor, ATOMO_MPI_SUM);
    return atomo_comm_allreduce_grains(j->comm, j->tensor, j->grain, j->grains);
}

static int run_reduce(const atomo__job *j)
{
    return atomo_comm_reduce(j->comm, j->tensor, ATOMO_MPI_SUM, j->root);
}

static int run_bcast(const atomo__job *j)
{
    return atomo_comm_bcast(j->comm, j->tensor, j->root);
}

static int run_allgatherv(const atomo__job *j)
{
    return atomo_comm_allgatherv_bytes(j->comm, j->send, j->nbytes, j->recv, j->counts);
}

static int run_alltoallv(const atomo__job *j)
{
    return atomo_comm_alltoallv_bytes(j->comm, j->send, j->counts_out, j->recv, j->counts);
}

static int run_bcast_bytes(const atomo__job *j)
{
    return atomo_comm_bcast_bytes(j->comm, j->send, j->nbytes, j->root, j->recv, j->counts);
}

static int run_linear(const atomo__job *j)
{
    return atomo__sums_run(j->linear);
}

static int post_tensor(atomo__job j, double *ticket)
{
    ATOMO_TRY(usable(j.comm));
    ATOMO_TRY(atomo__comm_buffer(j.tensor, "exchange: bucket"));
    return atomo__engine_post(ENGINE_COMM, &j, ticket);
}

static int post_bytes(atomo__job j, double *ticket)
{
    ATOMO_TRY(usable(j.comm));
    return atomo__engine_post(ENGINE_COMM, &j, ticket);
}

int atomo_engine_allreduce(atomo_comm *c, atomo_tensor *t, double *ticket)
{
    return post_tensor((atomo__job){.run = run_allreduce, .comm = c, .tensor = t}, ticket);
}

int atomo_engine_allreduce_grains(atomo_comm *c, atomo_tensor *t, const double *grain, int grains, double *ticket)
{
    return post_tensor((atomo__job){.run = run_allreduce, .comm = c, .tensor = t, .grain = grain, .grains = grains},
                       ticket);
}

int atomo_engine_reduce(atomo_comm *c, atomo_tensor *t, int root, double *ticket)
{
    return post_tensor((atomo__job){.run = run_reduce, .comm = c, .tensor = t, .root = root}, ticket);
}

int atomo_engine_bcast(atomo_comm *c, atomo_tensor *t, int root, double *ticket)
{
    return post_tensor((atomo__job){.run = run_bcast, .comm = c, .tensor = t, .root = root}, ticket);
}

int atomo_engine_allgatherv_bytes(atomo_comm *c, const void *send, double nbytes, atomo_tensor **recv, double *counts,
                                  double *ticket)
{
    return post_bytes(
        (atomo__job){.run = run_allgatherv, .comm = c, .send = send, .nbytes = nbytes, .recv = recv, .counts = counts},
        ticket);
}

int atomo_engine_alltoallv_bytes(atomo_comm *c, const void *send, const double *counts_out, atomo_tensor **recv,
                                 double *counts_in, double *ticket)
{
    return post_bytes(
        (atomo__job){
            .run = run_alltoallv, .comm = c, .send = send, .counts_out = counts_out, .recv = recv, .counts = counts_in},
        ticket);
}

int atomo_engine_bcast_bytes(atomo_comm *c, const void *data, double nbytes, int root, atomo_tensor **recv,
                             double *count, double *ticket)
{
    return post_bytes((atomo__job){.run = run_bcast_bytes,
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
    return atomo__engine_post(ENGINE_COMM, &(atomo__job){.run = run_linear, .linear = l}, ticket);
}
