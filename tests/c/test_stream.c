/* test_stream.c - a codec that gets only some of its tensors, as an owner's codec in topology sharded. */
#include "check.h"
#include "codec/codec.h"
#include "tensor/tensor.h"

enum { ROWS = 32, COLUMNS = 48 };

static const double shape[] = {ROWS, COLUMNS};

/* A codec with two planned tensors, of which only the first is encoded. */
static void energy_is_of_those_that_came(void)
{
    atomo_codec *c;
    atomo_tensor *g;
    REQUIRE(CHECK_OK(atomo_codec_new("auto", 0, NULL, 7, ATOMO_WAY_UP, &c)));
    for (int tensor = 1; tensor <= 2; tensor++) CHECK_OK(atomo_codec_plan(c, tensor, 2, shape, 0, NULL));
    REQUIRE(CHECK_OK(atomo_codec_set_budget(c, 0, 4, 0)));
    REQUIRE(CHECK_OK(atomo_tensor_new(ATOMO_F32, 2, shape, &g)));
    double square = 0;
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        const float v = (float)(i % 17) - 8;
        atomo__f32(g)[i] = v;
        square += (double)v * v;
    }
    const double room = atomo_codec_wire_max(c, 1);
    uint8_t *message = malloc((size_t)room);
    REQUIRE(message != NULL);
    for (int step = 0; step < 2; step++) {
        double n;
        CHECK_OK(atomo_codec_begin(c, step, 0));
        CHECK_OK(atomo_codec_push(c, 1, g, message, room, &n));
        CHECK_OK(atomo_codec_end(c));
        CHECK_NEAR(c->energy, square / (ROWS * COLUMNS), 1e-9);
        CHECK(atomo__entries_that_came(c) == 0); /* the next step has no tensor */
    }
    free(message);
    atomo_tensor_free(g);
    atomo_codec_free(c);
}

int main(void)
{
    RUN(energy_is_of_those_that_came);
    return check_done();
}
