/* bucket_linear.c - sums of compressed gradients: all-reduces of the values that a linear compressor projects them to;
 * stages 4 to 8.
 *
 * The values of all tensors of a bucket are adjacent in one buffer per round. A round projects every gradient (`linear`
 * of the compressor, codec/descriptor.h), then sums the buffer over the ranks, in f32 or in 16 bits, rounded as
 * comm/ring_allreduce.c describes. The second round of PowerSGD and fp16 needs the sums of the first. All ranks expand
 * bit-identical sums. A gradient that cannot be projected (NaN) counts as zeros, so that the other ranks are not left
 * waiting. On its rank atomo_sums_write_back then fails, unless the step has been abandoned before.
 *
 * Error feedback: a rank's residual is the part of its gradient that its values do not represent, or with 16 bits the
 * rounding errors that it made. So the sum of all ranks' gradients is the applied update plus all residuals, as with
 * messages.
 */
#include "compress/common/half.h"
#include "exchange/engine.h"
#include <stdio.h>

enum { ROUNDS = 2, PIECE = 1 << 26 }; /* PIECE: entries of one all-reduce */

struct atomo_sums {
    _Atomic int holders;
    atomo_codec *codec;
    atomo_comm *comm;
    const struct atomo__linear *how;
    int first, count; /* tensors first .. first + count - 1 of the codec */
    int64_t size[ROUNDS];
    float *sums[ROUNDS], *error; /* error: [size of the last round] with 16 bits and error feedback, else NULL */
    void *scratch;               /* not the codec's, since projections may run while the codec decodes */
    atomo_tensor *grad;          /* [count] held from set to the end of run */
    bool *bad;                   /* [count] this rank's gradient counts as zeros */
    uint32_t step;
    int failed;    /* status of this rank's first failure in the step; 0: none */
    char why[512]; /* its text */
};

static atomo__plan *plan_of(const atomo_sums *l, int k)
{
    return atomo__plan_of(l->codec, l->first + k);
}

int atomo_codec_is_linear(const atomo_codec *c)
{
    return c->compressor->linear != NULL;
}

atomo_sums *atomo__sums_hold(atomo_sums *l)
{
    l->holders++;
    return l;
}

static void drop_grads(atomo_sums *l)
{
    for (int k = 0; l->grad && k < l->count; k++) atomo__tensor_drop(&l->grad[k]);
}

void atomo_sums_free(atomo_sums *l)
{
    if (!l || atomo__objects_kept() || --l->holders > 0) return;
    drop_grads(l);
    atomo_codec_free(l->codec);
    atomo__comm_drop(l->comm);
    for (int r = 0; r < ROUNDS; r++) atomo__free(l->sums[r]);
    atomo__free(l->error);
    atomo__free(l->scratch);
    atomo__free(l->grad);
    atomo__free(l->bad);
    atomo__free(l);
}

/* Allocates the buffers of all rounds, and scratch memory for the largest plan. */
static int reserve(atomo_sums *l)
{
    size_t scratch = 0;
    for (int k = 0; k < l->count; k++) {
        const atomo__plan *p = plan_of(l, k);
        ATOMO_REQUIRE(p, ATOMO_EARG, "%s: linear: tensor %d is not planned", l->codec->name, l->first + k);
        scratch = ATOMO_MAX(scratch, p->scratch);
        for (int r = 0; r < l->how->rounds; r++) l->size[r] += l->how->size(p, r);
    }
    for (int r = 0; r < l->how->rounds; r++)
        ATOMO_TRY(atomo__alloc((void **)&l->sums[r], sizeof(float) * (size_t)l->size[r]));
    if (l->how->half && l->codec->feedback)
        ATOMO_TRY(atomo__alloc((void **)&l->error, sizeof(float) * (size_t)l->size[l->how->rounds - 1]));
    if (scratch) ATOMO_TRY(atomo__alloc(&l->scratch, scratch));
    ATOMO_TRY(atomo__calloc((void **)&l->grad, sizeof *l->grad * (size_t)l->count));
    return atomo__calloc((void **)&l->bad, sizeof *l->bad * (size_t)l->count);
}

int atomo_sums_new(atomo_codec *codec, atomo_comm *comm, int first, int count, atomo_sums **out)
{
    *out = NULL;
    ATOMO_TRY(atomo__comm_usable(comm, "linear"));
    ATOMO_REQUIRE(codec->compressor->linear, ATOMO_EARG, "%s: its messages cannot be added", codec->name);
    ATOMO_REQUIRE(first >= 1 && count >= 1, ATOMO_EARG, "%s: linear: %d tensors from number %d on", codec->name, count,
                  first);
    atomo_sums *l;
    ATOMO_TRY(atomo__calloc((void **)&l, sizeof *l));
    l->holders = 1;
    l->codec = atomo__codec_hold(codec);
    l->comm = atomo__comm_hold(comm);
    l->how = codec->compressor->linear;
    l->first = first;
    l->count = count;
    const int status = reserve(l);
    if (status < 0) {
        atomo_sums_free(l);
        return status;
    }
    *out = l;
    return ATOMO_OK;
}

int atomo__sums_set(atomo_sums *l, const atomo_tensor *const *grads, double step)
{
    drop_grads(l);
    for (int k = 0; k < l->count; k++) {
        const atomo__plan *p = plan_of(l, k);
        l->bad[k] = !grads;
        if (!grads) continue;
        ATOMO_TRY(atomo__expect(grads[k], ATOMO_F32, -1, "linear: gradient"));
        ATOMO_REQUIRE(atomo_codec_is_planned(l->codec, l->first + k, grads[k]->ndim, grads[k]->shape), ATOMO_ESHAPE,
                      "%s: linear: tensor is %s, expected %s", l->codec->name, atomo__shape_text(grads[k]), p->name);
    }
    for (int k = 0; k < l->count && grads; k++) {
        atomo__tensor_hold(&l->grad[k], grads[k]);
    }
    l->step = (uint32_t)step;
    l->failed = 0;
    return ATOMO_OK;
}

static atomo__context context_of(const atomo_sums *l, const atomo__plan *p)
{
    atomo__context c = atomo__context_of(p, (uint32_t)l->comm->rank, l->step);
    c.scratch = l->scratch;
    return c;
}

static const float *input_of(const atomo_sums *l, int k)
{
    const atomo__plan *p = plan_of(l, k);
    return p->residual ? p->residual : atomo__f32(&l->grad[k]);
}

/* own = tensor k's values of a round; before: its sums of the first round. Both point into the buffers. */
static int project(atomo_sums *l, int k, int round, float *before, float *own)
{
    atomo__plan *p = plan_of(l, k);
    atomo__context c = context_of(l, p);
    if (round == 0) atomo__plan_open(p);
    if (round == 0 && p->residual) ATOMO_TRY(atomo__feedback_add(p, atomo__f32(&l->grad[k])));
    ATOMO_TRY(l->how->project(p, round, input_of(l, k), before, l->comm->size, &c, own));
    if (round < l->how->rounds - 1 || !p->residual || l->how->half) return ATOMO_OK;
    /* residual -= the gradient that the values represent */
    return l->how->expand(p, round ? before : own, own, 1, -1, &c, p->residual);
}

static void project_all(atomo_sums *l, int round)
{
    float *own = l->sums[round], *before = l->sums[0];
    for (int k = 0; k < l->count; k++) {
        const atomo__plan *p = plan_of(l, k);
        const int64_t n = l->how->size(p, round);
        const int status = l->bad[k] ? ATOMO_OK : project(l, k, round, before, own);
        if (status < 0 && !l->failed) {
            l->failed = status;
            snprintf(l->why, sizeof l->why, "%s", atomo_last_error());
        }
        l->bad[k] |= status < 0;
        if (l->bad[k]) memset(own, 0, sizeof(float) * (size_t)n);
        own += n;
        before += l->how->size(p, 0);
    }
}

static int add_up(atomo_sums *l, int round)
{
    const bool half = l->how->half && round == l->how->rounds - 1, largest = l->how->largest && round == 0;
    const int op = largest ? ATOMO_MPI_MAX : ATOMO_MPI_SUM;
    ATOMO_FLIGHT("allreduce", &l->comm->group, 4 * (double)l->size[round]);
    ATOMO_TRY(atomo__fingerprint_compare_if_checked(l->comm, COMM_ALLREDUCE, ATOMO_F32, op, (double)l->size[round]));
    for (int64_t at = 0; at < l->size[round]; at += PIECE) {
        const int n = (int)ATOMO_MIN((int64_t)PIECE, l->size[round] - at);
        if (!half) {
            ATOMO_TRY(atomo__allreduce(l->comm, l->sums[round] + at, n, MPI_FLOAT, largest ? MPI_MAX : MPI_SUM));
            continue;
        }
        atomo__rounding how = {l->how->half, !atomo__half_biased(l->codec->option), context_of(l, plan_of(l, 0)).stream,
                               at, l->error ? l->error + at : NULL};
        how.stream.purpose = ATOMO_RNG_SAMPLE;
        ATOMO_TRY(atomo__allreduce_half(l->comm, l->sums[round] + at, n, &how));
    }
    const double bytes = (half ? 4.0 : 8.0) * (double)l->size[round] * (l->comm->size - 1) / l->comm->size;
    atomo__comm_count(l->comm, bytes, bytes);
    return ATOMO_OK;
}

/* Sets the residuals to the gradient that this rank's rounding errors represent. */
static int hold_back(atomo_sums *l)
{
    const int last = l->how->rounds - 1;
    const float *first = l->sums[0], *error = l->error;
    for (int k = 0; k < l->count; k++) {
        atomo__plan *p = plan_of(l, k);
        atomo__context c = context_of(l, p);
        if (!l->bad[k]) memset(p->residual, 0, sizeof(float) * (size_t)p->n);
        ATOMO_TRY(l->how->expand(p, first, error, l->comm->size, 1, &c, p->residual));
        first += l->how->size(p, 0);
        error += l->how->size(p, last);
    }
    return ATOMO_OK;
}

static int run_rounds(atomo_sums *l)
{
    for (int round = 0; round < l->how->rounds; round++) {
        project_all(l, round);
        ATOMO_TRY(add_up(l, round));
    }
    return l->error ? hold_back(l) : ATOMO_OK;
}

int atomo__sums_run(atomo_sums *l)
{
    const int status = run_rounds(l);
    drop_grads(l); /* also after a failure: MPI never accesses gradients, only sums */
    return status;
}

void atomo__sums_busy(atomo_sums *l, int n)
{
    l->codec->busy += n;
}

int atomo__sums_failed(const atomo_sums *l)
{
    return l->failed ? atomo__fail(l->failed, "%s", l->why) : ATOMO_OK;
}

int atomo_sums_write_back(atomo_sums *l, atomo_tensor *const *grads, double scale)
{
    const int last = l->how->rounds - 1;
    const float *first = l->sums[0], *sums = l->sums[last];
    ATOMO_TRY(atomo__sums_failed(l));
    for (int k = 0; k < l->count; k++) {
        atomo__plan *p = plan_of(l, k);
        atomo__context c = atomo__context_of(p, (uint32_t)l->comm->rank, l->step);
        ATOMO_REQUIRE(grads[k]->numel == (double)p->n, ATOMO_ESHAPE, "%s: linear: tensor is %s, expected %s",
                      l->codec->name, atomo__shape_text(grads[k]), p->name);
        float *acc = atomo__f32(grads[k]);
        memset(acc, 0, sizeof(float) * (size_t)p->n);
        ATOMO_TRY(l->how->expand(p, first, sums, l->comm->size, (float)scale, &c, acc));
        if (l->how->settle) l->how->settle(p, sums);
        atomo_tensor_touch(grads[k]);
        p->nbytes = (l->how->half ? 2.0 : 4.0) * (double)l->how->size(p, last);
        if (last) p->nbytes += 4.0 * (double)l->how->size(p, 0);
        atomo__stats_add(l->codec, p);
        first += l->how->size(p, 0);
        sums += l->how->size(p, last);
    }
    return ATOMO_OK;
}
