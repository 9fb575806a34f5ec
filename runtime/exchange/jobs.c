/* jobs.c - what the communication thread (engine.c) can be asked for: each job is an operation of a communicator.
 * Path: stage 7. */
#include "exchange/engine.h"
#include "tensor/tensor.h"

static int run_allreduce(const atomo__job *j)
{
    atomo_tensor t = j->tensor;
    if (!j->numbers) return atomo_comm_allreduce(j->comm, &t, ATOMO_MPI_SUM);
    return atomo_comm_allreduce_grains(j->comm, &t, j->numbers, j->grains);
}

static int run_reduce(const atomo__job *j)
{
    atomo_tensor t = j->tensor;
    return atomo_comm_reduce(j->comm, &t, ATOMO_MPI_SUM, j->root);
}

static int run_bcast(const atomo__job *j)
{
    atomo_tensor t = j->tensor;
    return atomo_comm_bcast(j->comm, &t, j->root);
}

static const void *bytes_of(const atomo__job *j)
{
    return j->tensor.storage ? (const char *)j->tensor.data + (size_t)j->at : NULL;
}

static int run_allgatherv(const atomo__job *j)
{
    return atomo_comm_allgatherv_bytes(j->comm, bytes_of(j), j->nbytes, j->inbox->slot, j->inbox->counts);
}

static int run_alltoallv(const atomo__job *j)
{
    return atomo_comm_alltoallv_bytes(j->comm, bytes_of(j), j->numbers, j->inbox->slot, j->inbox->counts);
}

static int run_bcast_bytes(const atomo__job *j)
{
    return atomo_comm_bcast_bytes(j->comm, bytes_of(j), j->nbytes, j->root, j->inbox->slot, j->inbox->counts);
}

static int run_linear(const atomo__job *j)
{
    return atomo__sums_run(j->linear);
}

static int usable(const atomo_comm *c)
{
    ATOMO_REQUIRE(c && !c->closed && atomo_mpi_started(), ATOMO_EMPI,
                  "exchange: the communicator is closed or MPI is not running");
    return ATOMO_OK;
}

static int post_tensor(atomo__job j, const atomo_tensor *t, int count, double *ticket)
{
    ATOMO_TRY(usable(j.comm));
    ATOMO_TRY(atomo__comm_buffer(t, "exchange: bucket"));
    j.tensor = *t;
    return atomo__engine_post(ENGINE_COMM, &j, count, ticket);
}

/* Bytes at .. at + nbytes of t, which may be NULL where there are none. */
static int post_bytes(atomo__job j, const atomo_tensor *t, double nbytes, int count, double *ticket)
{
    ATOMO_TRY(usable(j.comm));
    ATOMO_REQUIRE(j.inbox, ATOMO_EARG, "exchange: an inbox is needed");
    ATOMO_REQUIRE(nbytes == 0 || (t && atomo_tensor_is_contiguous(t) && j.at >= 0 && nbytes >= 0 &&
                                  j.at + nbytes <= atomo__tensor_bytes(t)),
                  ATOMO_EARG, "exchange: %g bytes at %g are not in the tensor that holds them", nbytes, j.at);
    if (t) j.tensor = *t;
    j.nbytes = nbytes;
    return atomo__engine_post(ENGINE_COMM, &j, count, ticket);
}

int atomo_engine_allreduce(atomo_comm *c, atomo_tensor *t, double *ticket)
{
    return post_tensor((atomo__job){.run = run_allreduce, .comm = c}, t, 0, ticket);
}

int atomo_engine_allreduce_grains(atomo_comm *c, atomo_tensor *t, const double *grain, int grains, double *ticket)
{
    double *numbers = (double *)(uintptr_t)grain; /* copied, not written */
    return post_tensor((atomo__job){.run = run_allreduce, .comm = c, .numbers = numbers, .grains = grains}, t, grains,
                       ticket);
}

int atomo_engine_reduce(atomo_comm *c, atomo_tensor *t, int root, double *ticket)
{
    return post_tensor((atomo__job){.run = run_reduce, .comm = c, .root = root}, t, 0, ticket);
}

int atomo_engine_bcast(atomo_comm *c, atomo_tensor *t, int root, double *ticket)
{
    return post_tensor((atomo__job){.run = run_bcast, .comm = c, .root = root}, t, 0, ticket);
}

int atomo_engine_allgatherv_bytes(atomo_comm *c, const atomo_tensor *send, double at, double nbytes, atomo_inbox *recv,
                                  double *ticket)
{
    return post_bytes((atomo__job){.run = run_allgatherv, .comm = c, .at = at, .inbox = recv}, send, nbytes, 0, ticket);
}

int atomo_engine_alltoallv_bytes(atomo_comm *c, const atomo_tensor *send, double at, const double *counts_out,
                                 atomo_inbox *recv, double *ticket)
{
    ATOMO_TRY(usable(c));
    double total = 0, *numbers = (double *)(uintptr_t)counts_out; /* copied, not written */
    for (int r = 0; r < c->size; r++) total += counts_out[r];
    return post_bytes((atomo__job){.run = run_alltoallv, .comm = c, .at = at, .numbers = numbers, .inbox = recv}, send,
                      total, c->size, ticket);
}

int atomo_engine_bcast_bytes(atomo_comm *c, const atomo_tensor *send, double at, double nbytes, int root,
                             atomo_inbox *recv, double *ticket)
{
    return post_bytes((atomo__job){.run = run_bcast_bytes, .comm = c, .at = at, .root = root, .inbox = recv}, send,
                      nbytes, 0, ticket);
}

int atomo_engine_sums(atomo_sums *l, const atomo_tensor *const *grads, double step, double *ticket)
{
    ATOMO_REQUIRE(l && atomo_mpi_started(), ATOMO_EMPI, "exchange: MPI is not running");
    ATOMO_TRY(atomo__sums_set(l, grads, step));
    const int status = atomo__engine_post(ENGINE_COMM, &(atomo__job){.run = run_linear, .linear = l}, 0, ticket);
    atomo__sums_posted(l, status < 0 ? 0 : *ticket);
    return status;
}
