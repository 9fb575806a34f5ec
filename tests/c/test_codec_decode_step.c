/* test_codec_decode_step.c - atomo_codec_decode_add_step: the bits of the calls that it stands for, with every
 * compressor; and what a refused call leaves unchanged. */
#include "check.h"

/* Bodies of bf16 are decoded in parts: the first tensor has more entries than decode_add_step takes at once, and MANY
 * is more ranks than it takes at once. Other compressors decode whole bodies, one rank after the other. */
enum { TENSORS = 3, FEW = 3, MANY = 18, MOST = 32, STEP = 4 };
static const double shape[TENSORS][4] = {{16, 3, 3, 60}, {40, 7}, {65}};
static const int ndim[TENSORS] = {4, 2, 1};
static const int32_t numbers[TENSORS] = {1, 2, 3};

/* The messages of some ranks, each rank's in one block, and the tensors that they are decoded to. */
typedef struct steps {
    int ranks;
    atomo_codec *codec;
    atomo_tensor *acc[TENSORS];
    uint8_t *bytes[MANY];
    double length[MANY][TENSORS];
} steps;

static double total(const steps *s, int rank)
{
    double sum = 0;
    for (int i = 0; i < TENSORS; i++) sum += s->length[rank][i];
    return sum;
}

static void encode_rank(steps *s, int rank)
{
    atomo_tensor *grad[TENSORS] = {NULL};
    for (int i = 0; i < TENSORS; i++) {
        const atomo_stream noise = {
            .seed = {9}, .purpose = ATOMO_RNG_USER, .rank = (uint32_t)rank, .tensor = (uint32_t)i};
        CHECK_OK(atomo_tensor_new(ATOMO_F32, ndim[i], shape[i], &grad[i]));
        atomo_random_uniform(&noise, 0, grad[i]->numel, check_f32(grad[i]));
        for (int k = 0; k < (int)grad[i]->numel; k++) check_f32(grad[i])[k] -= 0.5f;
    }
    const double room = atomo_codec_wire_max(s->codec, 0);
    s->bytes[rank] = malloc((size_t)room + 1);
    CHECK_OK(atomo_codec_encode(s->codec, TENSORS, numbers, (const atomo_tensor *const *)grad, STEP, rank,
                                s->bytes[rank], room, s->length[rank]));
    for (int i = 0; i < TENSORS; i++) atomo_tensor_free(grad[i]);
}

static void steps_new(steps *s, const char *name, int options, const double *option, int ranks)
{
    memset(s, 0, sizeof *s);
    s->ranks = ranks;
    CHECK_OK(atomo_codec_new(name, options, option, 3, ATOMO_WAY_UP, &s->codec));
    for (int i = 0; i < TENSORS; i++) {
        CHECK_OK(atomo_codec_plan(s->codec, numbers[i], ndim[i], shape[i], 0, NULL));
        CHECK_OK(atomo_tensor_new(ATOMO_F32, ndim[i], shape[i], &s->acc[i]));
        CHECK_OK(atomo_fill(s->acc[i], 0.25));
    }
    for (int r = 0; r < ranks; r++) encode_rank(s, r);
}

static void steps_free(steps *s)
{
    for (int i = 0; i < TENSORS; i++) atomo_tensor_free(s->acc[i]);
    for (int r = 0; r < s->ranks; r++) free(s->bytes[r]);
    atomo_codec_free(s->codec);
}

static void set_blocks(const steps *s, atomo_codec_block *block)
{
    for (int r = 0; r < s->ranks; r++) block[r] = (atomo_codec_block){s->bytes[r], total(s, r), r};
}

/* The calls that decode_add_step stands for. */
static void decode_singly(steps *s, double scale, int which)
{
    for (int i = 0; i < TENSORS; i++) {
        double used;
        if (which & ATOMO_DECODE_FIRST) CHECK_OK(atomo_fill(s->acc[i], 0));
        if (which & ATOMO_DECODE_LAST && s->ranks > 1) CHECK_OK(atomo_codec_sum(s->codec, numbers[i]));
        for (int r = 0; r < s->ranks; r++) {
            const uint8_t *at = s->bytes[r];
            for (int k = 0; k < i; k++) at += (size_t)s->length[r][k];
            CHECK_OK(
                atomo_codec_decode_add(s->codec, numbers[i], STEP, r, at, s->length[r][i], scale, s->acc[i], &used));
        }
        if (which & ATOMO_DECODE_LAST) CHECK_OK(atomo_codec_finish(s->codec, numbers[i], scale, s->acc[i]));
    }
}

static bool same(const atomo_tensor *a, const atomo_tensor *b)
{
    return memcmp(a->data, b->data, sizeof(float) * (size_t)a->numel) == 0;
}

static void compare(const char *name, const double *option, int options, int ranks, int which)
{
    static steps one, all;
    atomo_codec_block block[MANY];
    steps_new(&one, name, options, option, ranks);
    steps_new(&all, name, options, option, ranks);
    decode_singly(&one, 0.5, which);
    set_blocks(&all, block);
    CHECK_OK(atomo_codec_decode_add_step(all.codec, TENSORS, numbers, STEP, ranks, block, 0.5, which, all.acc));
    for (int i = 0; i < TENSORS; i++)
        check_report(same(one.acc[i], all.acc[i]), __FILE__, __LINE__, "%s: tensor %d of %d ranks, flags %d", name,
                     i + 1, ranks, which);
    for (int r = 0; r < ranks; r++) CHECK(block[r].left == 0 && block[r].at == all.bytes[r] + (size_t)total(&all, r));
    steps_free(&one);
    steps_free(&all);
}

static void every_compressor(void)
{
    atomo_codec_info about;
    for (int i = 0; atomo_codec_about(i, &about) == ATOMO_OK; i++) {
        double option[MOST];
        if (about.name[0] == '_' || *atomo_codec_missing(i)) continue;
        REQUIRE(about.options <= MOST);
        for (int j = 0; j < about.options; j++) option[j] = NAN;
        for (int which = 0; which < 4; which++) {
            compare(about.name, option, about.options, 1, which);
            compare(about.name, option, about.options, strcmp(about.name, "bf16") == 0 ? MANY : FEW, which);
        }
    }
}

/* A call with FEW or MANY blocks whose arguments a case changes; a refused one must leave acc and the blocks unchanged.
 */
static steps s;
static atomo_codec_block block[MANY];

static bool unchanged(void)
{
    bool ok = true;
    for (int i = 0; i < TENSORS; i++)
        for (int k = 0; k < (int)s.acc[i]->numel; k++) ok = ok && check_f32(s.acc[i])[k] == 0.25f;
    return ok;
}

static void refuses(int status, const char *text, int count, const int32_t *tensors, double step, int blocks,
                    double scale, int which)
{
    atomo_codec_block before[MANY];
    memcpy(before, block, sizeof block);
    CHECK_STATUS(atomo_codec_decode_add_step(s.codec, count, tensors, step, blocks, block, scale, which, s.acc), status,
                 text);
    CHECK(unchanged());
    for (int r = 0; r < s.ranks; r++) CHECK(block[r].at == before[r].at && block[r].left == before[r].left);
    set_blocks(&s, block);
}

static void refused(void)
{
    const int average = ATOMO_DECODE_FIRST | ATOMO_DECODE_LAST;
    steps_new(&s, "fourier", 0, NULL, FEW);
    set_blocks(&s, block);
    refuses(ATOMO_EARG, "-1 tensors", -1, numbers, STEP, FEW, 0.5, average);
    refuses(ATOMO_EARG, "0 blocks, expected 1 or more", TENSORS, numbers, STEP, 0, 0.5, average);
    refuses(ATOMO_EARG, "which is 8", TENSORS, numbers, STEP, FEW, 0.5, 8);
    refuses(ATOMO_EARG, "scale is nan", TENSORS, numbers, STEP, FEW, NAN, 0);
    refuses(ATOMO_EARG, "scale is 0, expected a number above 0", TENSORS, numbers, STEP, FEW, 0, average);
    refuses(ATOMO_EARG, "number 4 is not planned", TENSORS, (int32_t[]){1, 2, 4}, STEP, FEW, 0.5, average);
    refuses(ATOMO_ESHAPE, "tensor is [40,7], expected 3 [65]", TENSORS, (int32_t[]){1, 3, 2}, STEP, FEW, 0.5, average);
    refuses(ATOMO_EFORMAT, "step at byte 5 is 4, expected 5", TENSORS, numbers, 5, FEW, 0.5, average);
    block[1].rank = 7;
    refuses(ATOMO_EFORMAT, "rank at byte 4 is 1, expected 7", TENSORS, numbers, STEP, FEW, 0.5, average);
    block[2].left = -1;
    refuses(ATOMO_EARG, "block 3 has -1 bytes", TENSORS, numbers, STEP, FEW, 0.5, average);
    block[2].left = total(&s, 2) - s.length[2][2]; /* the last message is missing */
    refuses(ATOMO_EFORMAT, "message for 3 [65] ends in its magic", TENSORS, numbers, STEP, FEW, 0.5, average);
    block[2].left = total(&s, 2) - 1;
    refuses(ATOMO_EFORMAT, "exceed the", TENSORS, numbers, STEP, FEW, 0.5, average);
    refuses(ATOMO_EFORMAT, "bytes follow the last message of block 1", 2, numbers, STEP, FEW, 0.5,
            average | ATOMO_DECODE_ALL);
    s.bytes[1][(size_t)s.length[1][0]] ^= 1; /* the header of a message in the middle */
    refuses(ATOMO_EFORMAT, "message for 2 [40,7]: magic at byte 0", TENSORS, numbers, STEP, FEW, 0.5, average);
    steps_free(&s);
}

/* A damaged body in the middle: the tensors before it are complete, and its block says where it is. */
static void damaged(void)
{
    static steps good;
    steps_new(&good, "fourier", 0, NULL, FEW);
    steps_new(&s, "fourier", 0, NULL, FEW);
    decode_singly(&good, 0.5, ATOMO_DECODE_LAST);
    set_blocks(&s, block);
    uint8_t *last = s.bytes[1] + (size_t)(s.length[1][0] + s.length[1][1]) - 1; /* of the checksum */
    *last ^= 1;
    CHECK_STATUS(
        atomo_codec_decode_add_step(s.codec, TENSORS, numbers, STEP, FEW, block, 0.5, ATOMO_DECODE_LAST, s.acc),
        ATOMO_EFORMAT, "message for 2 [40,7]: checksum is");
    CHECK(same(s.acc[0], good.acc[0]));
    CHECK(check_f32(s.acc[2])[0] == 0.25f);
    CHECK(block[1].at == s.bytes[1] + (size_t)s.length[1][0] && block[1].left == total(&s, 1) - s.length[1][0]);
    *last ^= 1;
    set_blocks(&s, block); /* nothing is left of the sum that failed */
    CHECK_OK(atomo_codec_decode_add_step(s.codec, TENSORS, numbers, STEP, FEW, block, 0.5,
                                         ATOMO_DECODE_FIRST | ATOMO_DECODE_LAST | ATOMO_DECODE_ALL, s.acc));
    for (int i = 0; i < TENSORS; i++) CHECK_OK(atomo_fill(good.acc[i], 0));
    decode_singly(&good, 0.5, ATOMO_DECODE_LAST);
    for (int i = 0; i < TENSORS; i++) CHECK(same(s.acc[i], good.acc[i]));
    steps_free(&good);
    steps_free(&s);
}

/* A body that is decoded in parts: a damaged bit of any part, and of the checksum itself, is refused with the text of
 * atomo_codec_decode_add; after that the next step is decoded as if nothing had happened. */
static void damaged_in_parts(void)
{
    static steps good;
    const int average = ATOMO_DECODE_FIRST | ATOMO_DECODE_LAST | ATOMO_DECODE_ALL;
    steps_new(&good, "bf16", 0, NULL, MANY);
    steps_new(&s, "bf16", 0, NULL, MANY);
    for (int i = 0; i < TENSORS; i++) CHECK_OK(atomo_fill(good.acc[i], 0));
    decode_singly(&good, 0.5, ATOMO_DECODE_LAST);
    const size_t length = (size_t)s.length[MANY - 1][0], at[] = {20, length / 2, length - 5, length - 1};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        for (int r = 1; r < MANY; r += 16) {
            char wanted[160];
            double used;
            set_blocks(&s, block);
            s.bytes[r][at[i]] ^= 0x40;
            const int status =
                atomo_codec_decode_add(s.codec, 1, STEP, r, s.bytes[r], (double)length, 0.5, s.acc[0], &used);
            CHECK(status == ATOMO_EFORMAT);
            snprintf(wanted, sizeof wanted, "%s", atomo_last_error());
            CHECK_STATUS(atomo_codec_decode_add_step(s.codec, TENSORS, numbers, STEP, MANY, block, 0.5, average, s.acc),
                         ATOMO_EFORMAT, wanted);
            CHECK(block[r].at == s.bytes[r] && block[r].left == total(&s, r));
            s.bytes[r][at[i]] ^= 0x40;
        }
    set_blocks(&s, block);
    CHECK_OK(atomo_codec_decode_add_step(s.codec, TENSORS, numbers, STEP, MANY, block, 0.5, average, s.acc));
    for (int i = 0; i < TENSORS; i++) CHECK(same(s.acc[i], good.acc[i]));
    steps_free(&good);
    steps_free(&s);
}

/* No tensors: nothing happens. Some of a block's tensors: `at` is behind their messages. */
static void parts(void)
{
    steps_new(&s, "entry", 0, NULL, FEW);
    set_blocks(&s, block);
    refuses(ATOMO_OK, "", 0, numbers, STEP, FEW, 0.5, ATOMO_DECODE_FIRST | ATOMO_DECODE_LAST);
    CHECK_OK(atomo_codec_decode_add_step(s.codec, 2, numbers, -1, 1, block, 1, 0, s.acc));
    CHECK(block[0].left == s.length[0][2] && check_f32(s.acc[2])[0] == 0.25f);
    CHECK_OK(atomo_codec_decode_add_step(s.codec, 1, numbers + 2, -1, 1, block, 1, 0, s.acc + 2));
    CHECK(block[0].left == 0);
    steps_free(&s);
}

int main(void)
{
    RUN(every_compressor);
    RUN(refused);
    RUN(damaged);
    RUN(damaged_in_parts);
    RUN(parts);
    return check_done();
}
