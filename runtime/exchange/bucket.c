/* bucket.c - buckets: tensors that travel together, and the program of operations that exchanges them. A bucket is
 * planned once. A step starts it by one call, and the threads of engine.c run its operations. Path: stages 6 to 8. */
#include "exchange/engine.h"
#include "tensor/tensor.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ENCODING = 2, DECODING = 1 }; /* out[3] of atomo_bucket_wait: what has failed */

atomo_bucket *atomo__bucket_hold(atomo_bucket *b)
{
    b->holders++;
    return b;
}

void atomo_bucket_free(atomo_bucket *b)
{
    while (b && !atomo__objects_kept() && --b->holders == 0) {
        atomo_bucket *before = b->before;
        for (int k = 0; k < b->count; k++) atomo__comm_drop(b->program[k].comm);
        atomo__tensor_drop(&b->tensor);
        atomo__tensor_drop(&b->send);
        atomo_messages_free(b->up);
        atomo_messages_free(b->down);
        atomo_messages_free(b->result);
        atomo_inbox_free(b->inbox);
        atomo_inbox_free(b->answer);
        atomo_sums_free(b->sums);
        atomo__free(b->grains);
        atomo__free(b->sizes);
        atomo__free(b);
        b = before;
    }
}

/* Makes b a holder of every object that the plan names, and copies the grains. */
static int hold_all(atomo_bucket *b, const atomo_bucket_plan *p)
{
    if (p->up) b->up = atomo__messages_hold(p->up);
    if (p->down) b->down = atomo__messages_hold(p->down);
    if (p->result) b->result = atomo__messages_hold(p->result);
    if (p->inbox) b->inbox = atomo__inbox_hold(p->inbox);
    if (p->answer) b->answer = atomo__inbox_hold(p->answer);
    if (p->sums) b->sums = atomo__sums_hold(p->sums);
    if (p->tensor) {
        ATOMO_TRY(atomo__comm_buffer(p->tensor, "exchange: bucket"));
        atomo__tensor_hold(&b->tensor, p->tensor);
    }
    if (p->grains) {
        ATOMO_REQUIRE(p->grain_count >= 1, ATOMO_EARG, "bucket %s: %d grains", p->name, p->grain_count);
        ATOMO_TRY(atomo__alloc((void **)&b->grains, sizeof *b->grains * (size_t)p->grain_count));
        memcpy(b->grains, p->grains, sizeof *b->grains * (size_t)p->grain_count);
        b->grain_count = p->grain_count;
    }
    if (b->down && p->averages) ATOMO_TRY(atomo__messages_set(b->down, (const atomo_tensor *const *)p->averages, true));
    if (b->result && p->decoded)
        ATOMO_TRY(atomo__messages_set(b->result, (const atomo_tensor *const *)p->decoded, true));
    return ATOMO_OK;
}

static int add_operation(atomo_bucket *b, const atomo_bucket_plan *p, int k)
{
    const atomo__operation_kind *kind = atomo__operation_of(p->what[k]);
    ATOMO_REQUIRE(kind && !p->comm[k] == (kind->queue != ENGINE_COMM), ATOMO_EARG,
                  "bucket %s: operation %d of its program is %d, %s a communicator", p->name, k + 1, p->what[k],
                  p->comm[k] ? "with" : "without");
    atomo__operation *o = &b->program[b->count++];
    o->what = p->what[k];
    o->comm = p->comm[k] ? atomo__comm_hold(p->comm[k]) : NULL;
    o->back = k >= p->second_way;
    ATOMO_REQUIRE(kind->check(b, o), ATOMO_EARG,
                  "bucket %s: operation %d of its program needs a field that the plan does not set", p->name, k + 1);
    if (o->what == ATOMO_OP_ENCODE) return atomo__messages_reserve(b->up);
    return o->what == ATOMO_OP_ENCODE_AGAIN ? atomo__messages_reserve(b->down) : ATOMO_OK;
}

static int fill(atomo_bucket *b, const atomo_bucket_plan *p)
{
    int ranks = 1;
    ATOMO_REQUIRE(p->operations >= 1 && p->operations <= ATOMO_BUCKET_MAX && p->second_way >= 1 &&
                      p->second_way <= p->operations,
                  ATOMO_EARG, "bucket %s: %d operations, the second way from number %d on", p->name, p->operations,
                  p->second_way + 1);
    snprintf(b->note, sizeof b->note, "%s", p->name);
    b->second = p->second_way;
    b->rank = p->rank;
    b->into_gradients = !p->decoded;
    ATOMO_TRY(hold_all(b, p));
    for (int k = 0; k < p->operations; k++) {
        ATOMO_TRY(add_operation(b, p, k));
        if (p->comm[k]) ranks = ATOMO_MAX(ranks, p->comm[k]->size);
    }
    return atomo__calloc((void **)&b->sizes, sizeof *b->sizes * (size_t)ranks);
}

int atomo_bucket_new(const atomo_bucket_plan *p, atomo_bucket **out)
{
    *out = NULL;
    ATOMO_REQUIRE(p && p->name, ATOMO_EARG, "bucket: the plan or its name is missing");
    atomo_bucket *b;
    ATOMO_TRY(atomo__calloc((void **)&b, sizeof *b));
    b->holders = 1;
    const int status = fill(b, p);
    if (status < 0) {
        atomo_bucket_free(b);
        return status;
    }
    *out = b;
    return ATOMO_OK;
}

int atomo_bucket_order(atomo_bucket *const *list, int count)
{
    for (int k = 0; k < count; k++) {
        atomo_bucket_free(list[k]->before);
        list[k]->before = k > 0 && list[k - 1]->second < list[k - 1]->count ? atomo__bucket_hold(list[k - 1]) : NULL;
        list[k]->last = k == count - 1;
    }
    return ATOMO_OK;
}

/* ---- a step ----------------------------------------------------------------------------------------------------- */

/* Marks the codecs of operations first .. end - 1 as in use (n = 1), or no longer in use (n = -1). */
static void busy(const atomo_bucket *b, int first, int end, int n)
{
    for (int k = first; k < end; k++) {
        const int what = b->program[k].what;
        if (what == ATOMO_OP_ENCODE || what == ATOMO_OP_AVERAGE) atomo__messages_busy(b->up, n);
        if (what == ATOMO_OP_ENCODE_AGAIN) atomo__messages_busy(b->down, n);
        if (what == ATOMO_OP_DECODE) atomo__messages_busy(b->result, n);
        if (what == ATOMO_OP_SUMS) atomo__sums_busy(b->sums, n);
    }
}

/* Posts operations first .. end - 1; each operation marks its codec as no longer in use when it is done. */
static int post(atomo_bucket *b, int first, int end)
{
    busy(b, first, end, 1);
    const int status = atomo__engine_post(b, first, end);
    if (status < 0) busy(b, first, end, -1);
    return status;
}

/* Checks that b can be started: MPI runs, its communicators are open, and the bucket before it has been started. Waits
 * for operations that an abandoned step has started. */
static int ready(atomo_bucket *b)
{
    double seconds;
    for (int k = 0; k < b->count; k++)
        ATOMO_REQUIRE(!b->program[k].comm || (!b->program[k].comm->closed && atomo_mpi_started()), ATOMO_EMPI,
                      "exchange: the communicator is closed or MPI is not running: %s", b->note);
    ATOMO_REQUIRE(!b->before || b->before->posted == b->before->second, ATOMO_EARG, "exchange: %s is started before %s",
                  b->note, b->before->note);
    return atomo__engine_wait_for(b, &seconds);
}

static int set_gradients(atomo_bucket *b, const atomo_tensor *const *grads, double step)
{
    ATOMO_REQUIRE(step >= 0 && step <= UINT32_MAX && step == floor(step), ATOMO_EARG,
                  "exchange: %s: step is %g, expected an integer in 0 .. 2^32-1", b->note, step);
    b->step = step;
    if (b->sums) ATOMO_TRY(atomo__sums_set(b->sums, grads, step));
    if (b->up) {
        atomo__messages_begin(b->up);
        ATOMO_TRY(atomo__messages_set(b->up, grads, false));
    }
    if (b->down) atomo__messages_begin(b->down);
    if (b->result) atomo__messages_begin(b->result);
    return b->result && b->into_gradients ? atomo__messages_set(b->result, grads, false) : ATOMO_OK;
}

/* Posts the operations of b before `second`, then the remaining ones of the bucket before it; of the last bucket also
 * its own remaining ones. */
static int post_operations(atomo_bucket *b)
{
    atomo_bucket *before = b->before;
    ATOMO_TRY(post(b, 0, b->second));
    if (before) ATOMO_TRY(post(before, before->second, before->count));
    return b->last && b->second < b->count ? post(b, b->second, b->count) : ATOMO_OK;
}

int atomo_bucket_start(atomo_bucket *b, const atomo_tensor *const *grads, double step)
{
    ATOMO_TRY(ready(b));
    ATOMO_TRY(set_gradients(b, grads, step));
    return post_operations(b);
}

int atomo_bucket_send(atomo_bucket *b, const atomo_tensor *send, double at, const double *sizes)
{
    ATOMO_TRY(ready(b));
    const int n = b->program[0].what == ATOMO_OP_ALLTOALL ? b->program[0].comm->size : 1;
    double total = 0;
    for (int r = 0; r < n; r++) total += sizes[r];
    ATOMO_REQUIRE(!b->up && b->inbox, ATOMO_EARG,
                  "exchange: %s encodes its own messages or has no inbox, expected a bucket without messages", b->note);
    ATOMO_REQUIRE(total == 0 || (send && atomo_tensor_is_contiguous(send) && at >= 0 && total >= 0 &&
                                 at + total <= atomo__tensor_bytes(send)),
                  ATOMO_EARG, "exchange: %g bytes at %g are not in the tensor that holds them", total, at);
    atomo__tensor_drop(&b->send);
    if (send) atomo__tensor_hold(&b->send, send);
    b->at = at;
    memcpy(b->sizes, sizes, sizeof *sizes * (size_t)n);
    return post_operations(b);
}

/* Adds the seconds of coding to out[0..1]. Returns the status of the failure that came first in the program, and sets
 * out[3] to its kind; 0 if nothing has failed. */
static int failure_of(const atomo_bucket *b, double *out)
{
    const atomo_messages *cause = NULL, *messages[] = {b->result, b->down, b->up};
    for (int k = 0; k < 3; k++)
        if (messages[k] && atomo__messages_result(messages[k], out) < 0) cause = messages[k];
    const int status = b->sums ? atomo__sums_failed(b->sums) : ATOMO_OK;
    if (status < 0 || cause) out[3] = status < 0 || cause == b->up ? ENCODING : DECODING;
    return cause ? atomo__messages_result(cause, (double[2]){0}) : status;
}

int atomo_bucket_wait(atomo_bucket *b, double *out)
{
    out[0] = out[1] = out[2] = out[3] = 0;
    ATOMO_TRY(atomo__engine_wait_for(b, &out[2]));
    return failure_of(b, out);
}
