/* form.c - the end of every body, for all compressors: the factor for error feedback, and the dense form; stages 4 to 6
 * and 8 of the path.
 *
 * Factor. Error feedback needs a contraction, E||x - Q(x)||^2 <= (1 - d) ||x||^2 with d > 0 (Stich et al. 2018). An
 * unbiased message of relative variance w >= 1 is no contraction, and the residual would grow by w in every step. So
 * the message decodes to f Q(x), where f = <Q, x> / ||Q||^2 is the best factor for this draw of Q. Then ||x - f Q||^2 =
 * ||x||^2 - <Q, x>^2 / ||Q||^2 is never more than ||x||^2. Its mean is at most (1 - 1 / (1 + w)) ||x||^2, because
 * E(X^2 / Y) >= (E X)^2 / E Y (Cauchy and Schwarz), with E<Q, x> = ||x||^2 and E||Q||^2 = (1 + w) ||x||^2. The best
 * fixed factor, 1 / (1 + w), is never better, and f needs no formula for w. The last two bytes of a body are the upper
 * 16 bits of f as an f32. This rounding of f costs 2^-16 of the reduction, and the residual is computed with the
 * rounded f. Compressors that contract by themselves (`contracts`) have no factor.
 *
 * Dense form. A body that would take 4 n bytes or more is replaced by the n floats that it decodes to, so that no
 * message is longer than a dense one. It decodes to the same values, so mean and variance do not change. (Sending g
 * itself when a draw happens to be long would be a bias.)
 */
#include "codec/codec.h"
#include <float.h>
#include <math.h>

enum { FACTOR_BYTES = 2 };

static size_t dense_size(const atomo__plan *plan)
{
    return 4 * (size_t)plan->n;
}

size_t atomo__form_bytes(const atomo_codec *c)
{
    return c->scaled ? FACTOR_BYTES : 0;
}

/* Returns whether messages may be replaced by the dense form or need a factor, so that the codec decodes its own
 * messages and needs memory for that. */
static bool decodes_its_own(const atomo__plan *plan)
{
    const atomo_codec *c = plan->codec;
    const bool long_body = plan->body_max >= dense_size(plan) && !c->compressor->dense;
    return !plan->elsewhere && (long_body || (c->scaled && c->feedback));
}

int atomo__form_plan(atomo_codec *c, atomo__plan *plan)
{
    plan->body_max += atomo__form_bytes(c);
    if (!decodes_its_own(plan) || plan->n <= c->sent_room) return ATOMO_OK;
    void *sent;
    ATOMO_TRY(atomo__alloc(&sent, sizeof(float) * (size_t)plan->n));
    atomo__free(c->sent);
    c->sent = sent;
    c->sent_room = plan->n;
    return ATOMO_OK;
}

/* codec->sent [n] = the decoded body that was just written. */
static int decode_own(atomo__plan *plan, const atomo__writer *w, atomo__context *c)
{
    float *sent = plan->codec->sent;
    atomo__reader r = {.data = w->data, .size = w->size};
    memset(sent, 0, sizeof(float) * (size_t)plan->n);
    int rc = plan->stages->decode_add(plan, &r, c, 1, sent);
    ATOMO_REQUIRE(rc == 0 && atomo__at_end(&r), ATOMO_EINTERNAL, "%s: tensor %s: its own message does not decode",
                  plan->codec->name, plan->name);
    return ATOMO_OK;
}

/* The largest factor. It is below the largest f32, so that its upper 16 bits are those of a finite number. */
static const double MOST_FACTOR = 3e38;

/* Returns the upper 16 bits of the factor as an f32, after clamping it to [0, MOST_FACTOR]. */
static uint16_t half_of(double factor)
{
    const float f = factor > 0 ? (float)ATOMO_MIN(factor, MOST_FACTOR) : 0;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return (uint16_t)(bits >> 16);
}

static float factor_of(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

enum { LANES = 8 };

/* a [LANES] = x [n], n <= LANES, followed by zeros. */
static void last_lanes(const float *x, int64_t n, float *a)
{
    memset(a, 0, sizeof(float) * LANES);
    if (n > 0) memcpy(a, x, sizeof(float) * (size_t)n);
}

ATOMO_CLONES static void add_products(const float *a, const float *b, int64_t n, double *inner, double *square)
{
    for (int64_t i = 0; i < n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            inner[l] += (double)a[i + l] * (double)b[i + l];
            square[l] += (double)a[i + l] * (double)a[i + l];
        }
}

/* Returns <sent, x> / ||sent||^2, summed in a fixed order; 1 if sent is all zeros. */
static double best_factor(const float *sent, const float *x, int64_t n)
{
    const int64_t whole = n / LANES * LANES;
    double inner[LANES] = {0}, square[LANES] = {0};
    float a[LANES], b[LANES];
    add_products(sent, x, whole, inner, square);
    last_lanes(sent + whole, n - whole, a);
    last_lanes(x + whole, n - whole, b);
    add_products(a, b, LANES, inner, square);
    for (int l = 1; l < LANES; l++) {
        inner[0] += inner[l];
        square[0] += square[l];
    }
    return square[0] > 0 ? inner[0] / square[0] : 1;
}

/* sent *= factor; e -= sent. */
ATOMO_CLONES static void subtract(float *restrict sent, float factor, float *restrict e, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        sent[i] *= factor;
        e[i] -= sent[i];
    }
}

static void put_floats(atomo__writer *w, const float *x, int64_t n)
{
    w->size = 4 * (size_t)n;
    w->summed = 0;
    memcpy(w->data, x, w->size);
}

int atomo__form_close(atomo__plan *plan, atomo__writer *w, atomo__context *c)
{
    const atomo_codec *codec = plan->codec;
    const bool fitted = codec->scaled && codec->feedback;
    const bool replaced = w->size + atomo__form_bytes(codec) >= dense_size(plan) && decodes_its_own(plan);
    uint16_t half = half_of(1);
    if (codec->feedback && !fitted) ATOMO_TRY(atomo__feedback_subtract(plan, w->data, w->size, c));
    if (fitted || replaced) ATOMO_TRY(decode_own(plan, w, c));
    if (fitted) {
        half = half_of(best_factor(codec->sent, plan->residual, plan->n));
        subtract(codec->sent, factor_of(half), plan->residual, plan->n);
        double sum;
        float largest;
        atomo__measure(plan->residual, plan->n, &sum, &plan->variance, &largest);
        ATOMO_REQUIRE(isfinite(sum), ATOMO_ENONFINITE,
                      "%s: tensor %s: the residual of error feedback leaves the f32 range", codec->name, plan->name);
    }
    if (replaced) {
        put_floats(w, codec->sent, plan->n);
    } else if (codec->scaled) {
        memcpy(w->data + w->size, &half, FACTOR_BYTES);
        w->size += FACTOR_BYTES;
    }
    return ATOMO_OK;
}

/* Returns whether a body of `size` bytes is in dense form: for every compressor, if and only if it has 4 n bytes. */
static bool is_dense(const atomo__plan *plan, size_t size)
{
    return !plan->elsewhere && size == dense_size(plan);
}

int atomo__form_decode(const atomo__plan *plan, atomo__reader *body, atomo__context *c, float scale, float *acc)
{
    if (is_dense(plan, body->size)) {
        const uint8_t *in = atomo__get_raw(body, body->size);
        return in && atomo__add_floats(in, plan->n, scale, acc) ? ATOMO_OK : ATOMO_EFORMAT;
    }
    if (plan->codec->scaled) {
        uint16_t half;
        if (body->size < FACTOR_BYTES) return ATOMO_EFORMAT;
        body->size -= FACTOR_BYTES;
        memcpy(&half, body->data + body->size, FACTOR_BYTES);
        const float factor = factor_of(half);
        if (!(factor >= 0) || !isfinite(factor * scale)) return ATOMO_EFORMAT;
        scale *= factor;
    }
    return plan->stages->decode_add(plan, body, c, scale, acc);
}

int atomo_codec_carry_factor(atomo_codec *c)
{
    ATOMO_REQUIRE(c->plans == 0, ATOMO_EARG, "%s: carry_factor: tensors are planned already", c->name);
    c->scaled = true;
    return ATOMO_OK;
}

/* Checks the frame of the message at bytes, and sets *plan, *body and the message's *length. */
static int open_body(const atomo_codec *c, int tensor, const uint8_t *bytes, double size, atomo__plan **plan,
                     atomo__reader *body, size_t *length)
{
    *plan = atomo__plan_of(c, tensor);
    ATOMO_REQUIRE(*plan, ATOMO_EARG, "%s: tensor number %d is not planned", c->name, tensor);
    atomo__frame want = atomo__frame_of(*plan, UINT32_MAX, UINT32_MAX), got;
    return atomo__frame_open(&want, (*plan)->name, bytes, (size_t)size, body, length, &got);
}

double atomo_codec_best_factor(const atomo_tensor *sent, const atomo_tensor *x)
{
    return best_factor(atomo__f32(sent), atomo__f32(x), atomo__numel(x));
}

int atomo_codec_set_factor(atomo_codec *c, int tensor, uint8_t *bytes, double size, double factor, double *kept)
{
    atomo__plan *p;
    atomo__reader body;
    size_t length;
    ATOMO_REQUIRE(c->scaled && isfinite(factor), ATOMO_EARG, "%s: set_factor: %g", c->name, factor);
    ATOMO_TRY(open_body(c, tensor, bytes, size, &p, &body, &length));
    const uint16_t half = half_of(factor);
    const float f = factor_of(half);
    uint8_t *at = bytes + (body.data - bytes);
    *kept = (double)f;
    for (size_t i = 0; is_dense(p, body.size) && i < body.size; i += 4) {
        float x;
        memcpy(&x, at + i, 4);
        x *= f;
        memcpy(at + i, &x, 4);
    }
    if (!is_dense(p, body.size)) memcpy(at + body.size - FACTOR_BYTES, &half, FACTOR_BYTES);
    const uint32_t crc = atomo__crc32(0, bytes, length - 4);
    memcpy(bytes + length - 4, &crc, 4);
    return ATOMO_OK;
}

/* ---- the dense form of messages that Lua decodes (list.c); the caller provides the gradient ---- */

int atomo_codec_dense(const atomo_codec *c, int tensor, double step, double rank, const atomo_tensor *values,
                      uint8_t *out, double capacity, double *nbytes)
{
    const atomo__plan *p = atomo__plan_of(c, tensor);
    ATOMO_REQUIRE(p, ATOMO_EARG, "%s: tensor number %d is not planned", c->name, tensor);
    ATOMO_TRY(atomo__expect(values, ATOMO_F32, -1, "dense form"));
    ATOMO_REQUIRE(values->numel == (double)p->n && capacity >= (double)(dense_size(p) + ATOMO__FRAME_MAX), ATOMO_EARG,
                  "%s: dense form of tensor %s: %g values into %g bytes do not fit", c->name, p->name, values->numel,
                  capacity);
    const atomo__frame f = atomo__frame_of(p, (uint32_t)rank, (uint32_t)step);
    const size_t begin = atomo__frame_begin(&f, dense_size(p));
    atomo__writer w = {.data = out + begin, .capacity = dense_size(p)};
    put_floats(&w, atomo__f32(values), p->n);
    *nbytes = (double)atomo__frame_close(&f, out, begin, &w);
    return ATOMO_OK;
}

double atomo_codec_dense_max(const atomo_codec *c, int tensor, double step, double rank)
{
    const atomo__plan *p = atomo__plan_of(c, tensor);
    if (!p) return 0;
    const atomo__frame f = atomo__frame_of(p, (uint32_t)rank, (uint32_t)step);
    return (double)dense_size(p) + atomo__frame_bits(&f, 8 * (double)dense_size(p)) / 8;
}

int atomo_codec_dense_add(const atomo_codec *c, int tensor, double step, double rank, const uint8_t *bytes, double size,
                          double scale, atomo_tensor *acc, double *used)
{
    const atomo__plan *p = atomo__plan_of(c, tensor);
    ATOMO_REQUIRE(p, ATOMO_EARG, "%s: tensor number %d is not planned", c->name, tensor);
    ATOMO_TRY(atomo__expect(acc, ATOMO_F32, -1, "decode: acc"));
    ATOMO_REQUIRE(acc->numel == (double)p->n, ATOMO_ESHAPE, "%s: tensor %s has %.0f entries, acc %s", c->name, p->name,
                  (double)p->n, atomo__shape_text(acc));
    size_t body;
    *used = 0;
    if (!atomo__frame_body(bytes, (size_t)ATOMO_MAX(size, 0), &body) || body != dense_size(p)) return 0;
    const atomo__frame want = atomo__frame_wanted(p, rank, step);
    atomo__frame got;
    atomo__reader r;
    size_t length;
    ATOMO_TRY(atomo__frame_open(&want, p->name, bytes, (size_t)size, &r, &length, &got));
    const uint8_t *in = atomo__get_raw(&r, body);
    if (!in || !atomo__add_floats(in, p->n, (float)scale, atomo__f32(acc)))
        return atomo__fail(ATOMO_EFORMAT, "decode: message for tensor %s: its dense form holds NaN or Inf", p->name);
    *used = (double)length;
    return 1;
}
