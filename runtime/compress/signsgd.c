/* signsgd.c - one bit per entry: its sign; stage 6 of the path.
 *
 * Bernstein et al., "signSGD: Compressed optimisation for non-convex problems", ICML 2018; Karimireddy et al., "Error
 * feedback fixes SignSGD", ICML 2019. Signs are decoded times the mean magnitude ||g||_1/n, which is the best scale:
 * ||g - ghat||^2 = (1 - delta) ||g||^2 with delta = ||g||_1^2 / (n ||g||_2^2) > 0. It is biased, so use it with
 * ef=true. One bit cannot represent 0. An entry that is 0 (as of a dead unit, or of an embedding row that the batch
 * does not use) is sent as + and - alternately, over the ranks and over the steps, so that it does not drift.
 *
 * vote=true is signSGD with majority vote: messages decode to +-1, their sum counts the votes, and atomo_codec_finish
 * turns it into the sign of the majority (0 for a tie), on every rank from the same messages. Updates are +-1, so the
 * learning rate is the change of every weight in a step.
 */
#include "compress/common/levels.h"
#include <math.h>

enum { VOTE };

static const struct atomo__option options[] = {
    {"vote", ATOMO_OPTION_BOOL, 0, 0, 1, NULL, "majority vote over the ranks: the update is +1, -1 or 0 (a tie)"}, {0}};

static int plan(atomo__plan *plan)
{
    ATOMO_REQUIRE(plan->option[VOTE] == 0 || !plan->codec->feedback, ATOMO_EARG,
                  "signsgd: vote=true sends no magnitudes, which ef=true needs; expected one of the two");
    plan->body_max = 4 + (size_t)(plan->n / ATOMO__CHUNK) * (ATOMO__CHUNK / 8) +
                     atomo__packed_size((int)(plan->n % ATOMO__CHUNK), 1);
    return ATOMO_OK;
}

/* code[i] = 1 if x[i] is negative, 0 if it is positive, `zero` if it is 0. */
ATOMO_CLONES static void signs_of(const float *restrict x, int n, uint8_t zero, uint8_t *restrict code)
{
    for (int i = 0; i < n; i++) code[i] = (uint8_t)((x[i] < 0 ? 1 : 0) | (x[i] == 0 ? zero : 0));
}

ATOMO_CLONES static void add_signs(const uint8_t *restrict code, int n, float size, float *restrict acc)
{
    for (int i = 0; i < n; i++) acc[i] += code[i] ? -size : size;
}

static int encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    const double n = (double)plan->n;
    const uint8_t zero = (c->stream.step + c->stream.rank) & 1;
    double sum;
    float largest;
    uint8_t code[ATOMO__CHUNK];
    ATOMO_TRY(atomo__gradient_size(plan, g, &sum, &largest));
    double size = !(sum > 0) ? 0 : plan->option[VOTE] != 0 ? 1 : sum / n;
    if (size > 0 && (float)size == 0) size = 0x1p-149;
    plan->variance = ATOMO_MAX(0, plan->square - 2 * size * sum + n * size * size);
    plan->expected = plan->sent = n;
    atomo__put_raw_f32(w, (float)size);
    for (int64_t at = 0; at < plan->n && size > 0; at += ATOMO__CHUNK) {
        int len = (int)ATOMO_MIN((int64_t)ATOMO__CHUNK, plan->n - at);
        uint8_t *out = atomo__put_raw(w, atomo__packed_size(len, 1));
        signs_of(g + at, len, zero, code);
        if (out) atomo__pack(code, len, 1, out);
    }
    return ATOMO_OK;
}

static int decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    (void)c;
    const float size = atomo__get_raw_f32(r);
    uint8_t code[ATOMO__CHUNK];
    if (!(size >= 0) || !isfinite(size) || (plan->option[VOTE] != 0 && size != 0 && size != 1)) return ATOMO_EFORMAT;
    for (int64_t at = 0; at < plan->n && size > 0; at += ATOMO__CHUNK) {
        int len = (int)ATOMO_MIN((int64_t)ATOMO__CHUNK, plan->n - at);
        const uint8_t *in = atomo__get_raw(r, atomo__packed_size(len, 1));
        if (!in || !atomo__unpack(in, len, 1, code)) return ATOMO_EFORMAT;
        add_signs(code, len, scale * size, acc + at);
    }
    return r->bad ? ATOMO_EFORMAT : ATOMO_OK;
}

/* acc is the sum of votes times scale. Less than half a vote counts as a tie, because of rounding. */
static void finish(const atomo__plan *plan, float scale, float *acc)
{
    if (plan->option[VOTE] == 0) return;
    const float tie = 0.5f * scale;
    for (int64_t i = 0; i < plan->n; i++) acc[i] = acc[i] > tie ? 1.0f : acc[i] < -tie ? -1.0f : 0.0f;
}

const struct atomo_compressor atomo_compressor_signsgd = {
    .name = "signsgd",
    .summary = "signs times the mean size (biased: use ef=true), or a majority vote of signs",
    .source = "Bernstein et al., ICML 2018; Karimireddy et al., ICML 2019",
    .unbiased = false,
    .contracts = true,
    .options = options,
    .stages = {.plan = plan, .encode = encode, .decode_add = decode_add},
    .finish = finish,
};
