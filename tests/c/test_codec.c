/* test_codec.c - internals of codecs that no spec reaches: the steps in which auto searches, the limits of a list of
 * atoms, tensors listed twice, and error feedback of a message that does not decode. */
#include "atoms/common/auto_interval.h"
#include "check.h"
#include "codec/codec.h"

/* Runs `steps` steps at a constant price; writes the steps of auto's searches to `at` and returns their number. */
static int searches_of(int64_t n, int64_t side, const char *atoms, int steps, int *at, int room)
{
    atomo__cadence c = atomo__cadence_of(n, side, 0);
    int count = 0;
    for (int step = 0; step < steps; step++) {
        if (atomo__cadence_due(&c) && count < room) at[count++] = step;
        atomo__cadence_step(&c, atoms, 1);
    }
    return count;
}

/* The steps of auto's searches determine a run's messages (docs/compressors.md): gaps of 2, 16 and 128 steps, then gaps
 * in which searching takes 5 % of encoding. The cost model: searching [1000] takes 12.03 us, encoding it with entry
 * 1.2 us; searching [64,576] takes 573 us, encoding it with fourier 166 us, with svd 278 us. */
static void searches(void)
{
    enum { ROOM = 16 };
    static const struct {
        int64_t n, side;
        const char *atoms;
        int count, at[ROOM];
    } runs[] = {
        {1000, 1, "entry", 8, {0, 2, 18, 146, 347, 548, 749, 950}},
        {36864, 64, "fourier", 8, {0, 2, 18, 88, 158, 228, 298, 368}},
        {36864, 64, "svd", 8, {0, 2, 18, 60, 102, 144, 186, 228}},
    };
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        int at[ROOM];
        const int steps = runs[i].at[runs[i].count - 1] + 1;
        const int count = searches_of(runs[i].n, runs[i].side, runs[i].atoms, steps, at, ROOM);
        CHECK(count == runs[i].count);
        for (int k = 0; k < count; k++)
            check_report(at[k] == runs[i].at[k], __FILE__, __LINE__, "%s: search %d in step %d, expected %d",
                         runs[i].atoms, k, at[k], runs[i].at[k]);
    }
}

/* Three decoders of a body of 2 bytes: one refuses it after reading it, one leaves a byte unread, one decodes it. */
static int refuse(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    (void)plan, (void)c, (void)scale, (void)acc;
    while (!atomo__at_end(r)) atomo__get(r, 8);
    return ATOMO_EFORMAT;
}

static int leave(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    (void)plan, (void)c, (void)scale, (void)acc;
    atomo__get(r, 8);
    return ATOMO_OK;
}

static int take(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    (void)plan, (void)c;
    acc[0] += scale * (float)atomo__get(r, 8);
    atomo__get(r, 8);
    return ATOMO_OK;
}

/* Error feedback fails if the tensor's own message does not decode: the residual would be wrong. */
static void own_message(void)
{
    static const uint8_t body[2] = {5, 1};
    struct atomo_codec codec = {.name = "made-up"};
    float residual = 7;
    struct atomo__stages stages = {.decode_add = take};
    atomo__plan plan = {.codec = &codec, .stages = &stages, .n = 1, .name = "w", .residual = &residual};
    atomo__context c = {0};
    CHECK_OK(atomo__feedback_subtract(&plan, body, 2, &c));
    CHECK(residual == 2);
    stages.decode_add = refuse;
    CHECK_STATUS(atomo__feedback_subtract(&plan, body, 2, &c), ATOMO_EINTERNAL, "made-up: tensor w: its own message");
    stages.decode_add = leave;
    CHECK_STATUS(atomo__feedback_subtract(&plan, body, 2, &c), ATOMO_EINTERNAL, "made-up: tensor w: its own message");
}

/* Planning a list of more atoms than a message holds fails before anything is allocated. */
static void long_lists(void)
{
    atomo_codec *c;
    CHECK_OK(atomo_codec_new("_list", 0, NULL, 1, 0, &c));
    CHECK_STATUS(atomo_codec_plan_list(c, 1, 1, 2, (double[]){0x1p30, 0x1p30}, 10, "w"), ATOMO_ELIMIT,
                 "of shape [1,2147483649]");
    CHECK_STATUS(atomo_codec_plan_list(c, 1, 0x1p31, 1, (double[]){1}, 10, "w"), ATOMO_ELIMIT,
                 "of shape [2147483648,2]");
    CHECK_STATUS(atomo_codec_plan_list(c, 1, 1, 1, (double[]){0.5}, 10, "w"), ATOMO_ESHAPE,
                 "factor 1 of an atom has 0.5");
    CHECK_STATUS(atomo_codec_plan_list(c, 1, 1, 4, (double[]){1, 1, 1, 1}, 10, "w"), ATOMO_EARG,
                 "4 factors per atom, expected 1 to 3");
    atomo_codec_free(c);
}

/* A tensor that is listed twice in one encode is named, also after calls with another order; and nothing is encoded. */
static void listed_twice(void)
{
    enum { ROOM = 10000 };
    static uint8_t out[ROOM];
    double nbytes[3];
    atomo_codec *c;
    atomo_tensor *g = check_tensor(8, 4);
    const atomo_tensor *grads[3] = {g, g, g};
    CHECK_OK(atomo_fill(g, 1));
    CHECK_OK(atomo_codec_new("none", 0, NULL, 1, 0, &c));
    for (int tensor = 1; tensor <= 3; tensor++)
        CHECK_OK(atomo_codec_plan(c, tensor, 2, (double[]){8, 4}, 0, tensor == 2 ? "fc.weight" : NULL));
    CHECK_OK(atomo_codec_encode(c, 3, (int32_t[]){3, 1, 2}, grads, 0, 0, out, ROOM, nbytes));
    CHECK_STATUS(atomo_codec_encode(c, 3, (int32_t[]){2, 1, 2}, grads, 1, 0, out, ROOM, nbytes), ATOMO_EARG,
                 "none: encode: tensor fc.weight [8,4] is listed twice, as gradients 1 and 3");
    CHECK_STATUS(atomo_codec_encode(c, 2, (int32_t[]){3, 3}, grads, 1, 0, out, ROOM, nbytes), ATOMO_EARG,
                 "tensor 3 [8,4] is listed twice, as gradients 1 and 2");
    CHECK_OK(atomo_codec_encode(c, 1, (int32_t[]){2}, grads, 1, 0, out, ROOM, nbytes));
    CHECK_OK(atomo_codec_encode(c, 3, (int32_t[]){1, 2, 3}, grads, 1, 0, out, ROOM, nbytes));
    atomo_codec_free(c);
    atomo_tensor_free(g);
}

/* Gradients and averages that overlap the memory of messages are refused: by one byte, too, and also in a block. */
static void shared_memory(void)
{
    enum { ROOM = 400, N = 32 };
    static float memory[ROOM];
    uint8_t *bytes = (uint8_t *)memory;
    double nbytes, used;
    atomo_codec *c;
    atomo_tensor *g, *clear;
    CHECK_OK(atomo_codec_new("none", 0, NULL, 1, 0, &c));
    CHECK_OK(atomo_codec_plan(c, 1, 1, (double[]){N}, 0, "fc"));
    CHECK_OK(atomo_tensor_wrap(ATOMO_F32, 1, (double[]){N}, NULL, memory + 100, &g));
    CHECK_OK(atomo_tensor_wrap(ATOMO_F32, 1, (double[]){N}, NULL, memory + 200, &clear));
    const atomo_tensor *grads[1] = {g};
    for (int place = 0; place < 3; place++) {
        uint8_t *out = place == 0 ? bytes : place == 1 ? bytes + 410 : bytes + 400 + 4 * N - 1;
        const double room = place == 0 ? 401 : 200;
        CHECK_STATUS(atomo_codec_encode(c, 1, (int32_t[]){1}, grads, 0, 0, out, room, &nbytes), ATOMO_EARG,
                     "none: encode: tensor [32] and the messages share memory");
        CHECK_OK(atomo_codec_begin(c, 0, 0));
        CHECK_STATUS(atomo_codec_push(c, 1, g, out, room, &nbytes), ATOMO_EARG, "none: push: tensor [32] and the");
        CHECK_OK(atomo_codec_undo(c));
        CHECK_STATUS(atomo_codec_decode_add(c, 1, 0, 0, out, room, 1, g, &used), ATOMO_EARG, "decode: acc: tensor");
    }
    CHECK_OK(atomo_codec_encode(c, 1, (int32_t[]){1}, grads, 0, 0, bytes, 400, &nbytes));
    CHECK_OK(atomo_codec_encode(c, 1, (int32_t[]){1}, grads, 0, 0, bytes + 400 + 4 * N, 400, &nbytes));
    atomo_codec_block block = {bytes + 400 + 4 * N, nbytes + 4 * 200, 0};
    CHECK_STATUS(atomo_codec_decode_add_step(c, 1, (int32_t[]){1}, 0, 1, &block, 1, 0, &clear), ATOMO_EARG,
                 "decode: acc: tensor [32] and the messages share memory");
    block.left = nbytes;
    CHECK_OK(atomo_codec_decode_add_step(c, 1, (int32_t[]){1}, 0, 1, &block, 1, 0, &g));
    atomo_tensor_free(g);
    atomo_tensor_free(clear);
    atomo_codec_free(c);
}

int main(void)
{
    RUN(shared_memory);
    RUN(listed_twice);
    RUN(long_lists);
    RUN(searches);
    RUN(own_message);
    return check_done();
}
