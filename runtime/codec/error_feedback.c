/* error_feedback.c - error feedback for any compressor; stages 4 to 6 of the path.
 *
 * Seide et al., "1-bit SGD", Interspeech 2014; Karimireddy et al., "Error feedback fixes SignSGD", ICML 2019, algorithm
 * 2; Stich et al., "Sparsified SGD with memory", NeurIPS 2018. The residual e, the part of the gradients that was not
 * sent, is added to the next gradient: e += g, send Q(e), e -= Q(e), where Q(e) is this rank's decoded message. So the
 * sum of all that was sent is the sum of all gradients less e, and e stays bounded if Q is a contraction. It takes two
 * f32 per entry: the new residual is encoded, and the old one is kept until the step is over (undo.c).
 */
#include "codec/codec.h"
#include <math.h>

const struct atomo__option atomo__feedback_option = {
    "ef", ATOMO_OPTION_BOOL, 0, 0, 1, NULL, "error feedback: what is not sent is added to the next gradient"};

int atomo__feedback_plan(atomo__plan *plan)
{
    ATOMO_TRY(atomo__calloc((void **)&plan->kept, sizeof(float) * (size_t)plan->n));
    return atomo__calloc((void **)&plan->residual, sizeof(float) * (size_t)plan->n);
}

ATOMO_CLONES static void add(float *restrict sum, const float *restrict e, const float *restrict g, int64_t n)
{
    for (int64_t i = 0; i < n; i++) sum[i] = e[i] + g[i];
}

int atomo__feedback_add(atomo__plan *plan, const float *g)
{
    double sum, square;
    float largest, held;
    atomo__measure(g, plan->n, &sum, &square, &largest);
    if (!isfinite(sum)) return atomo__refuse_nonfinite(plan, g);
    atomo__measure(plan->kept, plan->n, &sum, &square, &held);
    ATOMO_REQUIRE(isfinite(largest + held), ATOMO_ENONFINITE,
                  "%s: gradient of tensor %s: entries up to %g plus a residual up to %g leave the range of f32",
                  plan->codec->name, plan->name, (double)largest, (double)held);
    add(plan->residual, plan->kept, g, plan->n);
    return ATOMO_OK;
}

int atomo__feedback_subtract(atomo__plan *plan, const uint8_t *body, size_t size, atomo__context *c)
{
    atomo__reader r = {.data = body, .size = size};
    int rc = plan->stages->decode_add(plan, &r, c, -1, plan->residual);
    ATOMO_REQUIRE(rc == 0 && atomo__at_end(&r), ATOMO_EINTERNAL, "%s: tensor %s: its own message does not decode",
                  plan->codec->name, plan->name);
    return ATOMO_OK;
}

int atomo_codec_is_unbiased(const atomo_codec *c)
{
    const struct atomo_compressor *k = c->compressor;
    return k->unbiased && !c->feedback && !(k->biased && k->biased(c->option));
}

int atomo_codec_residual(const atomo_codec *c, int tensor, atomo_tensor **out)
{
    const atomo__plan *p = atomo__plan_of(c, tensor);
    ATOMO_REQUIRE(p && p->residual, ATOMO_EARG, "%s: residual of tensor %d: %s", c->name, tensor,
                  p ? "there is none without ef=true" : "it is not planned");
    ATOMO_TRY(atomo__output(out, ATOMO_F32, p->ndim, p->shape, "residual"));
    memcpy(atomo__f32(*out), p->kept, sizeof(float) * (size_t)p->n);
    return ATOMO_OK;
}

/* The two arrays on which a tensor's next message depends: the residual, and the compressor's memory. */
typedef struct {
    float *data[2]; /* NULL: there is none */
    int64_t n[2];   /* floats */
} stretches;

static stretches memory_of(const atomo__plan *p)
{
    const struct atomo_compressor *k = p->codec->compressor;
    stretches m = {{p->kept, NULL}, {p->kept ? p->n : 0, 0}};
    if (k->memory) m.data[1] = k->memory(p, &m.n[1]);
    return m;
}

int atomo_codec_memory(const atomo_codec *c, int tensor, atomo_tensor **out)
{
    const atomo__plan *p = atomo__plan_of(c, tensor);
    ATOMO_REQUIRE(p, ATOMO_EARG, "%s: memory of tensor %d: it is not planned", c->name, tensor);
    const stretches m = memory_of(p);
    const double n = (double)(m.n[0] + m.n[1]);
    ATOMO_TRY(atomo__output(out, ATOMO_F32, 1, &n, "memory"));
    if (m.n[0]) memcpy(atomo__f32(*out), m.data[0], sizeof(float) * (size_t)m.n[0]);
    if (m.n[1]) memcpy(atomo__f32(*out) + m.n[0], m.data[1], sizeof(float) * (size_t)m.n[1]);
    return ATOMO_OK;
}

int atomo_codec_set_memory(atomo_codec *c, int tensor, const atomo_tensor *memory)
{
    const atomo__plan *p = atomo__plan_of(c, tensor);
    ATOMO_REQUIRE(p, ATOMO_EARG, "%s: memory of tensor %d: it is not planned", c->name, tensor);
    ATOMO_TRY(atomo__expect(memory, ATOMO_F32, 1, "memory"));
    const stretches m = memory_of(p);
    ATOMO_REQUIRE(memory->numel == (double)(m.n[0] + m.n[1]), ATOMO_ESHAPE,
                  "%s: memory of tensor %s: %.0f numbers, expected %.0f: was it saved with other options?", c->name,
                  p->name, memory->numel, (double)(m.n[0] + m.n[1]));
    const float *from = atomo__f32(memory);
    for (int64_t i = 0; i < m.n[0] + m.n[1]; i++)
        ATOMO_REQUIRE(isfinite(from[i]), ATOMO_ENONFINITE, "%s: memory of tensor %s: number %.0f is %g", c->name,
                      p->name, (double)i + 1, (double)from[i]);
    if (m.n[0]) memcpy(m.data[0], from, sizeof(float) * (size_t)m.n[0]);
    if (m.n[1]) memcpy(m.data[1], from + m.n[0], sizeof(float) * (size_t)m.n[1]);
    return ATOMO_OK;
}
