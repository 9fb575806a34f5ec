/* test_codec_strides.c - gradients and averages of the caller's memory in any strides: convolution weights that lie as
 * [out, in, kh, kw] give the messages and averages of contiguous [out, kh, kw, in], with every compressor. */
#include "check.h"

enum { OUT = 12, IN = 9, KH = 3, KW = 2, N = OUT * IN * KH * KW, MOST = 32 };
static const double shape[4] = {OUT, KH, KW, IN};
static const double strides[4] = {IN * KH * KW, KW, 1, KH *KW}; /* of [out, in, kh, kw] seen as [out, kh, kw, in] */

/* One side of the comparison: a codec, a gradient and an average in memory of the caller. */
typedef struct side {
    float gradient[N], average[N];
    atomo_tensor *grad, *sum;
    atomo_codec *codec;
    uint8_t *message;
    double room, length;
} side;

static bool side_new(side *s, const atomo_codec_info *about, const double *option, const double *stride)
{
    bool ok = CHECK_OK(atomo_tensor_wrap(ATOMO_F32, 4, shape, stride, s->gradient, &s->grad));
    ok = ok && CHECK_OK(atomo_tensor_wrap(ATOMO_F32, 4, shape, stride, s->average, &s->sum));
    ok = ok && CHECK_OK(atomo_codec_new(about->name, about->options, option, 3, ATOMO_WAY_UP, &s->codec));
    ok = ok && CHECK_OK(atomo_codec_plan(s->codec, 1, 4, shape, 0, NULL));
    s->room = ok ? atomo_codec_wire_max(s->codec, 0) : 0;
    s->message = malloc((size_t)s->room + 1);
    return ok;
}

static void side_free(side *s)
{
    atomo_tensor_free(s->grad);
    atomo_tensor_free(s->sum);
    atomo_codec_free(s->codec);
    free(s->message);
}

/* Encodes a step, in one call or in the streaming form, and decodes it twice into the average: each message alone, or
 * as a sum of coefficients. */
static void step_of(side *s, int step, bool summed)
{
    const int tensor = 1;
    double used;
    const atomo_stream noise = {.seed = {9}, .purpose = ATOMO_RNG_USER, .step = (uint32_t)step};
    atomo_tensor *dense = NULL;
    CHECK_OK(atomo_tensor_new(ATOMO_F32, 4, shape, &dense));
    atomo_random_uniform(&noise, 0, N, check_f32(dense));
    for (int i = 0; i < N; i++) check_f32(dense)[i] -= 0.5f;
    CHECK_OK(atomo_copy(s->grad, dense));
    atomo_tensor_free(dense);
    CHECK_OK(atomo_fill(s->sum, 0.25));
    if (step % 2 == 0) {
        CHECK_OK(atomo_codec_encode(s->codec, 1, &tensor, (const atomo_tensor *[]){s->grad}, step, 0, s->message,
                                    s->room, &s->length));
    } else {
        CHECK_OK(atomo_codec_begin(s->codec, step, 0));
        CHECK_OK(atomo_codec_push(s->codec, tensor, s->grad, s->message, s->room, &s->length));
        CHECK_OK(atomo_codec_end(s->codec));
    }
    if (summed) CHECK_OK(atomo_codec_sum(s->codec, tensor));
    for (int r = 0; r < 2; r++)
        CHECK_OK(atomo_codec_decode_add(s->codec, tensor, step, 0, s->message, s->length, 0.5, s->sum, &used));
    CHECK_OK(atomo_codec_finish(s->codec, tensor, 0.5, s->sum));
}

static bool same_average(const side *a, const side *b)
{
    for (int o = 0; o < OUT; o++)
        for (int i = 0; i < IN; i++)
            for (int t = 0; t < KH * KW; t++)
                if (a->average[(o * KH * KW + t) * IN + i] != b->average[(o * IN + i) * KH * KW + t]) return false;
    return true;
}

static void every_compressor(void)
{
    static side dense, strided;
    atomo_codec_info about;
    for (int i = 0; atomo_codec_about(i, &about) == ATOMO_OK; i++)
        for (int feedback = 0; feedback < 2; feedback++) {
            double option[MOST];
            if (about.name[0] == '_' || *atomo_codec_missing(i)) continue;
            REQUIRE(about.options <= MOST);
            for (int j = 0; j < about.options; j++) option[j] = NAN;
            option[check_option(i, "ef")] = feedback;
            memset(&dense, 0, sizeof dense);
            memset(&strided, 0, sizeof strided);
            const bool made = side_new(&dense, &about, option, NULL) && side_new(&strided, &about, option, strides);
            for (int step = 0; made && step < 3; step++) {
                step_of(&dense, step, step == 2);
                step_of(&strided, step, step == 2);
                check_report(dense.length == strided.length &&
                                 memcmp(dense.message, strided.message, (size_t)dense.length) == 0,
                             __FILE__, __LINE__, "%s: messages differ in step %d", about.name, step);
                check_report(same_average(&dense, &strided), __FILE__, __LINE__, "%s: averages differ in step %d",
                             about.name, step);
            }
            atomo_tensor *residual = NULL;
            check_report(!made || (atomo_codec_residual(dense.codec, 1, &residual) == ATOMO_OK) == feedback, __FILE__,
                         __LINE__, "%s: ef=%d, and %s residual", about.name, feedback, residual ? "a" : "no");
            atomo_tensor_free(residual);
            side_free(&dense);
            side_free(&strided);
        }
}

/* An abandoned step leaves nothing behind, also if its tensor was the first of other strides; and an average whose
 * elements share memory is refused and not changed. */
static void undone(void)
{
    static side s;
    const double still[4] = {0, 0, 0, 1};
    double length, used;
    atomo_tensor *expanded = NULL;
    memset(&s, 0, sizeof s);
    REQUIRE(side_new(&s, &(atomo_codec_info){.name = "entry"}, NULL, strides));
    for (int i = 0; i < N; i++) s.gradient[i] = (float)i;
    CHECK_OK(atomo_codec_begin(s.codec, 0, 0));
    CHECK_OK(atomo_codec_push(s.codec, 1, s.grad, s.message, s.room, &length));
    CHECK_OK(atomo_codec_undo(s.codec));
    step_of(&s, 0, false);
    CHECK_OK(atomo_tensor_wrap(ATOMO_F32, 4, shape, still, s.average, &expanded));
    s.average[0] = 7;
    CHECK_STATUS(atomo_codec_decode_add(s.codec, 1, 0, 0, s.message, s.length, 1, expanded, &used), ATOMO_EARG,
                 "share memory");
    CHECK(s.average[0] == 7);
    atomo_tensor_free(expanded);
    side_free(&s);
}

int main(void)
{
    RUN(every_compressor);
    RUN(undone);
    return check_done();
}
