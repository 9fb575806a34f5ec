/* operations.c - the operations of a bucket's program: those of the communication thread, each one operation on a
 * communicator, and those of the coding thread, implemented in bucket_coded.c. Path: stages 6 to 8. */
#include "exchange/engine.h"
#include "tensor/tensor.h"

/* ---- the communication thread ----------------------------------------------------------------------------------- */

static int run_allreduce(atomo_bucket *b, const atomo__operation *o)
{
    if (!b->grains) return atomo_comm_allreduce(o->comm, &b->tensor, ATOMO_MPI_SUM);
    return atomo_comm_allreduce_grains(o->comm, &b->tensor, b->grains, b->grain_count);
}

static int run_reduce(atomo_bucket *b, const atomo__operation *o)
{
    return atomo_comm_reduce(o->comm, &b->tensor, ATOMO_MPI_SUM, 0);
}

static int run_broadcast_tensor(atomo_bucket *b, const atomo__operation *o)
{
    return atomo_comm_bcast(o->comm, &b->tensor, 0);
}

static int run_sums(atomo_bucket *b, const atomo__operation *o)
{
    (void)o;
    const int status = atomo__sums_run(b->sums);
    atomo__sums_busy(b->sums, -1);
    return status;
}

/* The bytes that an operation sends: encoded messages, or bytes given to atomo_bucket_send. */
typedef struct cargo {
    const void *bytes;
    double total;        /* number of bytes */
    const double *sizes; /* [ranks] bytes for each rank */
    atomo_inbox *to;     /* receives the other ranks' bytes */
} cargo;

static cargo cargo_of(const atomo_bucket *b, const atomo__operation *o)
{
    const atomo_messages *p = o->back ? b->down : b->up;
    cargo c = {NULL, 0, NULL, o->back ? b->answer : b->inbox};
    if (p) {
        c.bytes = atomo__messages_bytes(p, &c.total, &c.sizes);
        return c;
    }
    c.bytes = b->send.storage ? (const char *)b->send.data + (size_t)b->at : NULL;
    c.sizes = b->sizes;
    c.total = b->sizes[0];
    return c;
}

static int run_allgather(atomo_bucket *b, const atomo__operation *o)
{
    const cargo c = cargo_of(b, o);
    return atomo_comm_allgatherv_bytes(o->comm, c.bytes, c.total, c.to->slot, c.to->counts);
}

static int run_alltoall(atomo_bucket *b, const atomo__operation *o)
{
    const cargo c = cargo_of(b, o);
    return atomo_comm_alltoallv_bytes(o->comm, c.bytes, c.sizes, c.to->slot, c.to->counts);
}

static int run_broadcast(atomo_bucket *b, const atomo__operation *o)
{
    const cargo c = cargo_of(b, o);
    return atomo_comm_bcast_bytes(o->comm, c.bytes, c.total, 0, c.to->slot, c.to->counts);
}

/* ---- the coding thread ------------------------------------------------------------------------------------------ */

static int run_encode(atomo_bucket *b, const atomo__operation *o)
{
    (void)o;
    atomo__messages_encode(b->up);
    atomo__messages_let_go(b->up);
    atomo__messages_busy(b->up, -1);
    return ATOMO_OK;
}

static int run_average(atomo_bucket *b, const atomo__operation *o)
{
    (void)o;
    atomo__messages_average(b->down, b->up, b->inbox, b->step, -1);
    atomo__messages_busy(b->up, -1);
    return ATOMO_OK;
}

static int run_encode_again(atomo_bucket *b, const atomo__operation *o)
{
    (void)o;
    atomo__messages_encode(b->down);
    atomo__messages_busy(b->down, -1);
    return ATOMO_OK;
}

static int run_decode(atomo_bucket *b, const atomo__operation *o)
{
    (void)o;
    atomo__messages_average(b->result, b->result, b->answer ? b->answer : b->inbox, b->step, b->rank);
    atomo__messages_let_go(b->result);
    atomo__messages_busy(b->result, -1);
    return ATOMO_OK;
}

/* ---- checks that a bucket has the fields that an operation needs ------------------------------------------------- */

static bool needs_tensor(const atomo_bucket *b, const atomo__operation *o)
{
    (void)o;
    return b->tensor.storage != NULL;
}

static bool needs_sums(const atomo_bucket *b, const atomo__operation *o)
{
    (void)o;
    return b->sums != NULL;
}

static bool needs_inbox(const atomo_bucket *b, const atomo__operation *o)
{
    const atomo_messages *p = o->back ? b->down : b->up;
    return (o->back ? b->answer : b->inbox) != NULL &&
           (b->up ? p && atomo__messages_ranks(p) == o->comm->size : !o->back);
}

static bool needs_up(const atomo_bucket *b, const atomo__operation *o)
{
    (void)o;
    return b->up != NULL;
}

static bool needs_down(const atomo_bucket *b, const atomo__operation *o)
{
    (void)o;
    return b->up && b->down && b->inbox;
}

static bool needs_result(const atomo_bucket *b, const atomo__operation *o)
{
    (void)o;
    return b->result && (b->answer || b->inbox) &&
           (!b->into_gradients || (b->up && atomo__messages_count(b->up) == atomo__messages_count(b->result)));
}

static const atomo__operation_kind kinds[ATOMO_OPS] = {
    [ATOMO_OP_ENCODE] = {ENGINE_CODE, run_encode, needs_up},
    [ATOMO_OP_AVERAGE] = {ENGINE_CODE, run_average, needs_down},
    [ATOMO_OP_ENCODE_AGAIN] = {ENGINE_CODE, run_encode_again, needs_down},
    [ATOMO_OP_DECODE] = {ENGINE_DECODE, run_decode, needs_result},
    [ATOMO_OP_ALLGATHER] = {ENGINE_COMM, run_allgather, needs_inbox},
    [ATOMO_OP_ALLTOALL] = {ENGINE_COMM, run_alltoall, needs_inbox},
    [ATOMO_OP_BROADCAST] = {ENGINE_COMM, run_broadcast, needs_inbox},
    [ATOMO_OP_REDUCE] = {ENGINE_COMM, run_reduce, needs_tensor},
    [ATOMO_OP_ALLREDUCE] = {ENGINE_COMM, run_allreduce, needs_tensor},
    [ATOMO_OP_BROADCAST_TENSOR] = {ENGINE_COMM, run_broadcast_tensor, needs_tensor},
    [ATOMO_OP_SUMS] = {ENGINE_COMM, run_sums, needs_sums},
};

const atomo__operation_kind *atomo__operation_of(int what)
{
    return what >= 0 && what < ATOMO_OPS ? &kinds[what] : NULL;
}
