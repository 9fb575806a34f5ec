/* test_bundle.c - bundles (codec/bundle.c): they open to the messages that were put in, they are shorter, and what was
 * damaged or forged behind a right checksum is refused. */
#include "check.h"
#include "codec/codec.h"

enum { TENSORS = 6, N = 400, RANK = 5, STEP = 1000, ROOM = 1 << 14 };

static atomo_codec *codec_of(const char *name, double ratio)
{
    atomo_codec *c;
    const double options[3] = {NAN, ratio, NAN}, shape[1] = {N};
    CHECK_OK(atomo_codec_new(name, 3, options, 1, ATOMO_WAY_UP, &c));
    for (int t = 1; t <= TENSORS; t++) CHECK_OK(atomo_codec_plan(c, t, 1, shape, 0, NULL));
    return c;
}

/* Writes the messages of tensors 1 .. count to data; returns their bytes. */
static double encode(atomo_codec *c, int count, uint8_t *data)
{
    const double shape[1] = {N};
    double size = 0, n;
    atomo_tensor *g;
    CHECK_OK(atomo_tensor_new(ATOMO_F32, 1, shape, &g));
    CHECK_OK(atomo_codec_begin(c, STEP, RANK));
    for (int t = 1; t <= count; t++) {
        for (int i = 0; i < N; i++) check_f32(g)[i] = (float)((i * 37 + t) % 101 - 50);
        CHECK_OK(atomo_codec_push(c, t, g, data + (size_t)size, ROOM - size, &n));
        size += n;
    }
    CHECK_OK(atomo_codec_end(c));
    atomo_tensor_free(g);
    return size;
}

static void test_round_trip(void)
{
    static uint8_t messages[ROOM], data[ROOM], opened[ROOM];
    for (int count = 2; count <= TENSORS; count++) {
        atomo_codec *c = codec_of("entry", 16);
        const double size = encode(c, count, messages);
        double length = size, room;
        memcpy(data, messages, sizeof data);
        CHECK_OK(atomo__bundle_make(c, 1, count, RANK, STEP, data, &length));
        CHECK(atomo__is_bundle(data, length));
        CHECK(length <= size - 10 * (count - 1));
        CHECK_OK(atomo__bundle_room(c, data, length, &room));
        CHECK(room >= size && room <= ROOM);
        CHECK(atomo__bundle_open(c, data, length, opened) == size);
        CHECK(memcmp(opened, messages, (size_t)size) == 0);
        atomo_codec_free(c);
    }
}

/* One message, none, and long ones are left as they are. */
static void test_left_alone(void)
{
    static uint8_t data[ROOM];
    atomo_codec *c = codec_of("entry", 16);
    double size = encode(c, 1, data), none = 0;
    const double before = size;
    CHECK_OK(atomo__bundle_make(c, 1, 1, RANK, STEP, data, &size));
    CHECK(size == before && !atomo__is_bundle(data, size));
    CHECK_OK(atomo__bundle_make(c, 1, 3, RANK, STEP, data, &none));
    CHECK(none == 0 && !atomo__is_bundle(data, none));
    double length = 2 * 4096 + 1; /* of two messages, which are not looked at */
    CHECK_OK(atomo__bundle_make(c, 1, 2, RANK, STEP, data, &length));
    CHECK(length == 2 * 4096 + 1 && !atomo__is_bundle(data, length));
    atomo_codec_free(c);
}

/* The budget counts the bytes that are sent: the body, and its place in the bundle. */
static void test_counted(void)
{
    static uint8_t data[ROOM];
    atomo_codec *c = codec_of("entry", 16);
    double counted = 0;
    atomo__bundle_plan(c, 1, TENSORS);
    double size = encode(c, TENSORS, data);
    for (int t = 1; t <= TENSORS; t++) counted += atomo__plan_of(c, t)->nbytes;
    CHECK_OK(atomo__bundle_make(c, 1, TENSORS, RANK, STEP, data, &size));
    CHECK(counted == size);
    atomo_codec_free(c);
}

static void seal(uint8_t *data, double length)
{
    const uint32_t crc = (uint32_t)atomo_crc32(data, length - 4);
    memcpy(data + (size_t)length - 4, &crc, 4);
}

/* Returns whether a bundle is refused; if it is not, its messages must decode or be refused one by one. */
static bool refused(const atomo_codec *c, const uint8_t *data, double length)
{
    static uint8_t opened[1 << 20];
    double room;
    const int status = atomo__bundle_room(c, data, length, &room);
    if (status < 0) CHECK(status == ATOMO_EFORMAT && *atomo_last_error());
    if (status == 0) CHECK(room < sizeof opened && atomo__bundle_open(c, data, length, opened) <= room);
    return status < 0;
}

static void test_damage(void)
{
    static uint8_t data[ROOM], copy[ROOM];
    atomo_codec *c = codec_of("entry", 16), *other = codec_of("rotated", 16);
    double length = encode(c, 4, data);
    CHECK_OK(atomo__bundle_make(c, 1, 4, RANK, STEP, data, &length));
    CHECK(!refused(c, data, length));
    CHECK(refused(other, data, length));
    for (double n = 1; n < length; n++) CHECK(refused(c, data, n));
    for (size_t i = 0; i < (size_t)length; i++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(copy, data, sizeof copy);
            copy[i] ^= (uint8_t)(1 << bit);
            CHECK(refused(c, copy, length));
        }
    for (size_t i = 0; i < (size_t)length - 4; i++) /* forged: the checksum is right */
        for (int v = 0; v < 256; v++) {
            memcpy(copy, data, sizeof copy);
            copy[i] = (uint8_t)v;
            seal(copy, length);
            refused(c, copy, length);
        }
    memcpy(copy, data, sizeof copy);
    copy[1] = 9; /* version */
    seal(copy, length);
    CHECK(refused(c, copy, length));
    memcpy(copy, data, sizeof copy);
    copy[3] = TENSORS - 2; /* the last tensors are not planned */
    seal(copy, length);
    CHECK(refused(c, copy, length));
    atomo_codec_free(c);
    atomo_codec_free(other);
}

int main(void)
{
    RUN(test_round_trip);
    RUN(test_left_alone);
    RUN(test_counted);
    RUN(test_damage);
    return check_done();
}
