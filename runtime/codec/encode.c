/* encode.c - encodes the gradients of a step under one budget; stages 4 to 6 of the path.
 *
 * Exact form: measures every tensor, finds the one T (mu = T^2) that meets the budget (step_budget.c), then draws and
 * writes. Streaming form: writes each tensor when it is pushed, with the T that stream.c sets.
 */
#include "codec/codec.h"
#include <math.h>

/* REFINES: at most this many passes over the gradients. SETTLED: they end when tau changes by less than this fraction
 * between two passes. The remaining error is of the order of its square, 0.1 %, as the length is met within 0.2 %
 * (step_budget.c). */
enum { REFINES = 3 };
static const double SETTLED = 0.03;
/* Bits of an atom, for the first guess of a price if the budget is a number of atoms. */
enum { GUESSED_BITS = 16 };

atomo__context atomo__context_of(const atomo__plan *p, uint32_t rank, uint32_t step)
{
    const atomo_codec *c = p->codec;
    const int sampling = c->atoms ? (int)c->option[ATOMO__SAMPLING] : ATOMO__BERNOULLI;
    return (atomo__context){.scratch = c->scratch,
                            .stream = {{c->seed[0], c->seed[1]}, ATOMO_RNG_SAMPLE, rank, step, (uint32_t)p->tensor},
                            .fixed_count = sampling == ATOMO__SYSTEMATIC,
                            .fixed_few = sampling != ATOMO__BERNOULLI};
}

/* Returns what is encoded: the gradient, or with error feedback the residual, to which the gradient has been added. */
static const float *input_of(const atomo__plan *p)
{
    return p->residual ? p->residual : p->given;
}

/* Draws, writes and frames the message of one tensor whose T is set: at most `room` bytes at out, *nbytes its length.
 * plan->nbytes = what an exchange sends of it. */
static int write_message(atomo__plan *p, const float *g, uint32_t rank, uint32_t step, const void **held, uint8_t *out,
                         double room, double *nbytes)
{
    atomo__context context = atomo__context_of(p, rank, step);
    context.held = held;
    if (p->codec->together) context.strata = atomo__strata_of(&context.stream, (uint32_t)p->codec->ranks);
    double need = (double)(p->body_max + ATOMO__FRAME_MAX);
    ATOMO_REQUIRE(room >= need, ATOMO_EARG, "encode: %.0f bytes are left in out, tensor %s may need %.0f", room,
                  p->name, need);
    const atomo__frame f = atomo__frame_of(p, rank, step);
    const size_t begin = atomo__frame_begin(&f, p->body_max);
    atomo__writer w = {.data = out + begin, .capacity = p->body_max};
    ATOMO_TRY(p->stages->encode(p, g, &context, &w));
    atomo__put_align(&w);
    ATOMO_REQUIRE(!w.overflow && w.size <= p->body_max, ATOMO_EINTERNAL,
                  "encode: tensor %s took %zu bytes, %zu were planned", p->name, w.size, p->body_max);
    ATOMO_TRY(atomo__form_close(p, &w, &context));
    *nbytes = (double)atomo__frame_close(&f, out, begin, &w);
    p->nbytes = (double)w.size + atomo__bundle_bytes(p, rank, step, (double)w.size);
    return ATOMO_OK;
}

void atomo__stats_add(atomo_codec *c, const atomo__plan *p)
{
    c->stats.nbytes += p->nbytes;
    c->stats.atoms_expected += p->expected;
    c->stats.atoms_sent += p->sent;
    c->stats.variance += p->variance;
    c->stats.square += p->square;
    c->stats.T = p->T;
}

static int key_check(const atomo_codec *c, double step, double rank)
{
    ATOMO_REQUIRE(step >= 0 && step <= UINT32_MAX && step == floor(step), ATOMO_EARG,
                  "%s: step is %g, expected an integer in 0 .. 2^32-1", c->name, step);
    ATOMO_REQUIRE(rank >= 0 && rank < 1 << 24 && rank == floor(rank), ATOMO_EARG,
                  "%s: rank is %g, expected an integer in 0 .. 2^24-1", c->name, rank);
    return ATOMO_OK;
}

/* Finds the plan of a gradient, and sets what it encodes (plan->given). The messages go to out [capacity]. */
static int receive(atomo_codec *c, int tensor, const atomo_tensor *grad, const char *what, const uint8_t *out,
                   double capacity, atomo__plan **plan)
{
    float *values;
    ATOMO_TRY(atomo__plan_find(c, tensor, grad, what, plan));
    ATOMO_TRY(atomo__plan_apart(c, grad, out, capacity, what));
    ATOMO_TRY(atomo__plan_gather(*plan, grad, &values));
    (*plan)->given = values;
    return ATOMO_OK;
}

static void solve_once(atomo_codec *c, int count, atomo__plan **plan, uint32_t rank, uint32_t step, double target)
{
    if (target > 0) {
        atomo__solve_shared(c, count, plan, rank, step, target);
        return;
    }
    for (int i = 0; i < count; i++) atomo__solve_atoms(c, plan[i]);
}

/* Sets the T that meets the budget. If measure only estimated, the coefficients are refined around the T found, and T
 * is solved for again, until it settles. */
static int solve(atomo_codec *c, int count, atomo__plan **plan, uint32_t rank, uint32_t step, double target)
{
    solve_once(c, count, plan, rank, step, target);
    for (int round = 0; round < REFINES; round++) {
        double moved = 0;
        for (int i = 0; i < count; i++) {
            ATOMO_TRY(atomo__stage_refine(plan[i], input_of(plan[i])));
            plan[i]->anchored = plan[i]->T * sqrt(plan[i]->segment.unit);
        }
        solve_once(c, count, plan, rank, step, target);
        for (int i = 0; i < count; i++) {
            double before = plan[i]->anchored, tau = plan[i]->T * sqrt(plan[i]->segment.unit);
            moved = ATOMO_MAX(moved, tau == before ? 0 : fabs(log(tau / before)));
        }
        if (moved < SETTLED) break;
    }
    return ATOMO_OK;
}

/* EARG if a budget in bytes is smaller than the messages would be without any atom. A ratio is not checked: a step may
 * have small tensors, and then the budget is raised to a tenth more than empty messages (OVER_EMPTY, step_budget.c). */
static int check_budget(const atomo_codec *c, int count, atomo__plan *const *plan, uint32_t rank, uint32_t step)
{
    if (!(c->budget_bytes > 0)) return ATOMO_OK;
    double least = c->other_bytes;
    int messages = 0;
    for (int i = 0; i < count; i++) {
        if (!plan[i]) continue;
        least += atomo__bundle_bytes(plan[i], rank, step, 1) + 1;
        messages++;
    }
    ATOMO_REQUIRE(c->budget_bytes >= least, ATOMO_EARG,
                  "%s: bytes=%g: %d empty messages and the reserved bytes take %.0f, expected a larger budget", c->name,
                  c->budget_bytes, messages, least);
    return ATOMO_OK;
}

static int measure_all(atomo_codec *c, int count, atomo__plan **plan, uint32_t rank, uint32_t step, const void **held)
{
    double entries = 0;
    for (int i = 0; i < count; i++) entries += (double)plan[i]->n;
    ATOMO_TRY(check_budget(c, count, plan, rank, step));
    double target = atomo__target_bits(c, entries);
    for (int i = 0; i < count; i++) {
        atomo__context context = atomo__context_of(plan[i], rank, step);
        context.held = held;
        double share = target > 0 ? target * (double)plan[i]->n / entries : GUESSED_BITS * c->budget_atoms;
        atomo__stage_guess(plan[i], share);
        ATOMO_TRY(plan[i]->stages->measure(plan[i], input_of(plan[i]), &context));
    }
    c->energy = 0;
    for (int i = 0; i < count; i++) c->energy += plan[i]->square / entries;
    return solve(c, count, plan, rank, step, target);
}

static int encode_all(atomo_codec *c, int count, uint32_t step, uint32_t rank, uint8_t *out, double capacity,
                      double *nbytes)
{
    const void *held = NULL;
    for (int i = 0; i < count; i++) {
        atomo__plan_open(c->order[i]);
        if (c->feedback) ATOMO_TRY(atomo__feedback_add(c->order[i], c->order[i]->given));
    }
    if (atomo__has_budget(c)) ATOMO_TRY(measure_all(c, count, c->order, rank, step, &held));
    memset(&c->stats, 0, sizeof c->stats);
    double at = 0;
    for (int i = 0; i < count; i++) {
        ATOMO_TRY(write_message(c->order[i], input_of(c->order[i]), rank, step, &held, out + (size_t)at, capacity - at,
                                &nbytes[i]));
        at += nbytes[i];
        atomo__stats_add(c, c->order[i]);
    }
    return ATOMO_OK;
}

int atomo_codec_encode(atomo_codec *c, int count, const int32_t *tensors, const atomo_tensor *const *grads, double step,
                       double rank, uint8_t *out, double capacity, double *nbytes)
{
    ATOMO_TRY(key_check(c, step, rank));
    ATOMO_REQUIRE(!c->stream.open, ATOMO_EARG, "%s: encode: the streamed step %u has not been ended", c->name,
                  (unsigned)c->stream.step);
    ATOMO_REQUIRE(count >= 0 && count <= c->plans, ATOMO_EARG, "%s: encode: %d tensors, %d are planned", c->name, count,
                  c->plans);
    for (int i = 0; i < count; i++) {
        atomo__plan *p;
        ATOMO_TRY(receive(c, tensors[i], grads[i], "encode", out, capacity, &p));
        ATOMO_REQUIRE(!(p->place < i && c->order[p->place] == p), ATOMO_EARG,
                      "%s: encode: tensor %s is listed twice, as gradients %d and %d", c->name, p->name, p->place + 1,
                      i + 1);
        p->place = i;
        c->order[i] = p;
    }
    atomo__undo_note(c);
    const int status = encode_all(c, count, (uint32_t)step, (uint32_t)rank, out, capacity, nbytes);
    if (status < 0)
        atomo__undo(c);
    else
        atomo__undo_commit(c);
    return status;
}

int atomo_codec_begin(atomo_codec *c, double step, double rank)
{
    ATOMO_TRY(key_check(c, step, rank));
    ATOMO_REQUIRE(!c->stream.open, ATOMO_EARG, "%s: begin_step: step %u has not been ended", c->name,
                  (unsigned)c->stream.step);
    if (atomo__has_budget(c)) ATOMO_TRY(check_budget(c, c->plans, c->plan, (uint32_t)rank, (uint32_t)step));
    atomo__undo_note(c);
    c->stream.open = true;
    c->stream.step = (uint32_t)step;
    c->stream.rank = (uint32_t)rank;
    for (int i = 0; i < c->plans; i++)
        if (c->plan[i]) c->plan[i]->pushed = false;
    memset(&c->stats, 0, sizeof c->stats);
    atomo__price_begin(c);
    return ATOMO_OK;
}

int atomo_codec_push(atomo_codec *c, int tensor, const atomo_tensor *grad, uint8_t *out, double capacity,
                     double *nbytes)
{
    atomo__plan *p;
    ATOMO_REQUIRE(c->stream.open, ATOMO_EARG, "%s: push: begin_step was not called", c->name);
    ATOMO_TRY(receive(c, tensor, grad, "push", out, capacity, &p));
    ATOMO_REQUIRE(!p->pushed, ATOMO_EARG, "%s: push: tensor %s has been pushed in step %u already", c->name, p->name,
                  (unsigned)c->stream.step);
    atomo__plan_open(p);
    if (c->feedback) ATOMO_TRY(atomo__feedback_add(p, p->given));
    const float *g = input_of(p);
    const void *held = NULL;
    if (atomo__has_budget(c)) {
        atomo__context context = atomo__context_of(p, c->stream.rank, c->stream.step);
        context.held = &held;
        context.next = true;
        double share =
            c->budget_atoms > 0 ? GUESSED_BITS * c->budget_atoms : c->stream.target * (double)p->n / c->entries;
        if (!(p->priced_unit > 0)) atomo__stage_guess(p, share);
        ATOMO_TRY(p->stages->measure(p, g, &context));
        atomo__price_set(c, p);
        ATOMO_TRY(atomo__stage_refine(p, g));
        atomo__price_set(c, p);
        atomo__price_note(c, p);
    }
    ATOMO_TRY(write_message(p, g, c->stream.rank, c->stream.step, &held, out, capacity, nbytes));
    atomo__price_sent(c, 8 * p->nbytes);
    atomo__stats_add(c, p);
    p->pushed = true;
    return ATOMO_OK;
}

int atomo_codec_end(atomo_codec *c)
{
    ATOMO_REQUIRE(c->stream.open, ATOMO_EARG, "%s: end_step: begin_step was not called", c->name);
    c->stream.open = false;
    const double came = atomo__entries_that_came(c); /* 0: no tensor was priced, and the energy is not used */
    c->energy = c->stats.square / (came > 0 ? came : c->entries);
    atomo__price_end(c);
    atomo__undo_commit(c);
    return ATOMO_OK;
}

int atomo_codec_undo(atomo_codec *c)
{
    if (c->stream.open) atomo__undo(c);
    return ATOMO_OK;
}

int atomo_codec_restart(atomo_codec *c)
{
    ATOMO_REQUIRE(!c->stream.open, ATOMO_EARG, "%s: restart: step %u has not been ended", c->name,
                  (unsigned)c->stream.step);
    c->stream.T = c->stream.owed = c->stream.aimed = c->stream.real = c->energy = 0;
    for (int i = 0; i < c->plans; i++) {
        atomo__plan *p = c->plan[i];
        if (!p) continue;
        p->T = p->anchored = p->priced_unit = p->priced_fixed = p->planned = 0;
        if (c->compressor->memory) continue;
        atomo__stage_stop(p);
        if (p->state_size) memset(p->state, 0, p->state_size);
        if (p->stages->start) ATOMO_TRY(p->stages->start(p));
    }
    return ATOMO_OK;
}
