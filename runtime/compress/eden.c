/* eden.c - rotates the gradient, and sends its entries in a fixed number of bits each; stage 6 of the path.
 *
 * Vargaftik et al., "EDEN: Communication-efficient and robust distributed mean estimation for federated learning", ICML
 * 2022; with one bit it is DRIVE (NeurIPS 2021). The gradient is rotated at random (atoms/common/rotation.c), so that
 * its entries are nearly normal, and each becomes the value of its cell of the Lloyd-Max quantiser of a normal number.
 * The scale ||g||^2 / <R g, q> makes the message unbiased under a uniform rotation, and the squared error of every draw
 * known: (||q||^2 ||g||^2 / <R g, q>^2 - 1) ||g||^2. Units of at most 65536 entries have a rotation and a scale each.
 * A tensor of fewer than 256 entries is sent as floats: rotated, so few entries are not nearly normal. A unit is
 * written as its scale, an f32, and packed codes; if all entries are 0, as a scale of 0 alone.
 */
#include "atoms/common/rotation.h"
#include "compress/common/levels.h"
#include "sampling/normal.h"
#include <float.h>
#include <math.h>
#include <pthread.h>

enum { BITS };
enum { MOST_BITS = 6, CELLS = 1 << (MOST_BITS - 1), LEAST_ENTRIES = 256 };

static const struct atomo__option options[] = {
    {"bits", ATOMO_OPTION_INT, 2, 1, MOST_BITS, NULL, "bits of an entry on the wire, its sign included"}, {0}};

/* ---- the Lloyd-Max quantisers of a standard normal number ---- */
/* Of each number of bits: the positive values, and the lower ends of their cells. Negative values mirror them. */
static struct {
    float value[CELLS], threshold[CELLS];
} quantisers[MOST_BITS + 1];

/* Computes a quantiser by Lloyd's iteration: each value becomes the mean of its cell, and each end of a cell the middle
 * between two values. */
static void make(int bits)
{
    enum { ROUNDS = 2000 }; /* after these no value, of 1 to 6 bits, changes by more than 1e-7 a round */
    const int cells = 1 << (bits - 1);
    double value[CELLS], end[CELLS + 1] = {0};
    for (int i = 0; i < cells; i++) value[i] = 4.0 * (i + 0.5) / (cells + 1);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 1; i < cells; i++) end[i] = (value[i - 1] + value[i]) / 2;
        for (int i = 0; i < cells; i++) {
            const bool last = i == cells - 1;
            const double mass = atomo__normal_tail(end[i]) - (last ? 0 : atomo__normal_tail(end[i + 1]));
            value[i] = (atomo__normal_density(end[i]) - (last ? 0 : atomo__normal_density(end[i + 1]))) / mass;
        }
    }
    for (int i = 0; i < cells; i++) {
        quantisers[bits].value[i] = (float)value[i];
        quantisers[bits].threshold[i] = (float)end[i];
    }
}

static void make_all(void)
{
    for (int bits = 1; bits <= MOST_BITS; bits++) make(bits);
}

static void prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_all);
}

/* ---- units ---- */

static size_t unit_bytes(int64_t size, int bits)
{
    const int64_t rest = size % ATOMO__CHUNK;
    return 4 + (size_t)(size / ATOMO__CHUNK) * atomo__packed_size(ATOMO__CHUNK, bits) +
           (rest ? atomo__packed_size((int)rest, bits) : 0);
}

static int plan(atomo__plan *plan)
{
    prepare();
    if (plan->n < LEAST_ENTRIES) {
        plan->body_max = 4 * (size_t)plan->n;
        return ATOMO_OK;
    }
    plan->body_max = 0;
    for (atomo__rotation_units u = {.left = plan->n}; atomo__rotation_next(&u);)
        plan->body_max += unit_bytes(u.size, (int)plan->option[BITS]);
    plan->scratch = 2 * sizeof(float) * (size_t)atomo__rotation_size(ATOMO_MIN(plan->n, (int64_t)ATOMO__MOST_ROTATED));
    return ATOMO_OK;
}

/* code[i] = the number of thresholds that |y_i| reaches, with the sign in the top bit. */
ATOMO_CLONES static void find_codes(const float *restrict y, int n, int bits, const float *threshold,
                                    uint8_t *restrict code)
{
    const int cells = 1 << (bits - 1);
    for (int i = 0; i < n; i++) code[i] = (uint8_t)(y[i] < 0 ? cells : 0);
    for (int k = 1; k < cells; k++) {
        const float t = threshold[k];
        for (int i = 0; i < n; i++) code[i] = (uint8_t)(code[i] + (fabsf(y[i]) >= t));
    }
}

static float value_of(int bits, uint8_t code)
{
    const int cells = 1 << (bits - 1);
    const float v = quantisers[bits].value[code & (cells - 1)];
    return code & cells ? -v : v;
}

/* Writes the unit y [size], whose sum of squares is `energy`, and overwrites y. Returns the relative squared error of
 * this draw. */
static double write_unit(const atomo_stream *s, uint32_t block, int bits, double energy, int64_t size, float *y,
                         float *work, atomo__writer *w)
{
    uint8_t code[ATOMO__CHUNK];
    double along = 0, square = 0;
    float scale = 0;
    uint8_t *at = atomo__put_raw(w, 4);
    if (at && energy > 0) {
        const double n = (double)size, sigma = sqrt(energy / n);
        atomo__rotate(y, size, s, block, 1 / sigma, work);
        for (int64_t i = 0; i < size; i += ATOMO__CHUNK) {
            const int m = (int)ATOMO_MIN((int64_t)ATOMO__CHUNK, size - i);
            find_codes(y + i, m, bits, quantisers[bits].threshold, code);
            for (int j = 0; j < m; j++) {
                const double q = (double)value_of(bits, code[j]);
                along += q * (double)y[i + j];
                square += q * q;
            }
            uint8_t *out = atomo__put_raw(w, atomo__packed_size(m, bits));
            if (out) atomo__pack(code, m, bits, out);
        }
        scale = (float)ATOMO_MIN(sigma * n / along, (double)FLT_MAX);
        square = ATOMO_MAX(0, square * n / (along * along) - 1);
    }
    if (at) memcpy(at, &scale, 4);
    return square;
}

static int encode(atomo__plan *plan, const float *g, atomo__context *c, atomo__writer *w)
{
    double sum;
    float most;
    ATOMO_TRY(atomo__gradient_size(plan, g, &sum, &most));
    plan->expected = plan->sent = (double)plan->n;
    plan->variance = 0;
    if (plan->n < LEAST_ENTRIES) {
        uint8_t *out = atomo__put_raw(w, 4 * (size_t)plan->n);
        if (out) memcpy(out, g, 4 * (size_t)plan->n);
        return ATOMO_OK;
    }
    float *y = atomo__claim_scratch(c), *work = y + plan->scratch / (2 * sizeof(float));
    atomo_stream stream = c->stream;
    stream.purpose = ATOMO_RNG_ROTATE;
    for (atomo__rotation_units u = {.left = plan->n}; atomo__rotation_next(&u);) {
        double energy;
        atomo__measure(g + u.at, u.count, &sum, &energy, &most);
        ATOMO_REQUIRE(sqrt(energy) < (double)FLT_MAX / 2, ATOMO_ENONFINITE,
                      "eden: gradient of tensor %s: its norm over %.0f entries, %g, is too large to be rotated",
                      plan->name, (double)u.count, sqrt(energy));
        memcpy(y, g + u.at, sizeof(float) * (size_t)u.count);
        memset(y + u.count, 0, sizeof(float) * (size_t)(u.size - u.count));
        const double loss = write_unit(&stream, u.block, (int)plan->option[BITS], energy, u.size, y, work, w);
        plan->variance += loss * energy * (double)(u.count - 1) / (double)ATOMO_MAX(u.size - 1, 1);
    }
    return ATOMO_OK;
}

/* y [size] = by * the unit read. Returns false if it is malformed. */
static bool read_unit(atomo__reader *r, const atomo_stream *s, uint32_t block, int bits, int64_t size, double by,
                      float *y, float *work)
{
    uint8_t code[ATOMO__CHUNK];
    const float scale = atomo__get_raw_f32(r);
    if (r->bad || scale < 0) return false;
    if (scale == 0) {
        memset(y, 0, sizeof(float) * (size_t)size);
        return true;
    }
    for (int64_t i = 0; i < size; i += ATOMO__CHUNK) {
        const int m = (int)ATOMO_MIN((int64_t)ATOMO__CHUNK, size - i);
        const uint8_t *in = atomo__get_raw(r, atomo__packed_size(m, bits));
        if (!in || !atomo__unpack(in, m, bits, code)) return false;
        for (int j = 0; j < m; j++) y[i + j] = value_of(bits, code[j]);
    }
    atomo__rotate_back(y, size, s, block, (double)scale * by, work);
    return true;
}

static int decode_add(const atomo__plan *plan, atomo__reader *r, atomo__context *c, float scale, float *acc)
{
    if (plan->n < LEAST_ENTRIES) {
        const uint8_t *in = atomo__get_raw(r, 4 * (size_t)plan->n);
        return in && atomo__add_floats(in, plan->n, scale, acc) ? ATOMO_OK : ATOMO_EFORMAT;
    }
    float *y = atomo__claim_scratch(c), *work = y + plan->scratch / (2 * sizeof(float));
    atomo_stream stream = c->stream;
    stream.purpose = ATOMO_RNG_ROTATE;
    for (atomo__rotation_units u = {.left = plan->n}; atomo__rotation_next(&u);) {
        if (!read_unit(r, &stream, u.block, (int)plan->option[BITS], u.size, (double)scale, y, work))
            return ATOMO_EFORMAT;
        atomo__add_scaled(y, u.count, 1, acc + u.at);
    }
    return ATOMO_OK;
}

const struct atomo_compressor atomo_compressor_eden = {
    .name = "eden",
    .summary = "rotated entries in a few bits each, scaled without bias",
    .source = "Vargaftik et al., EDEN, ICML 2022",
    .unbiased = true,
    .options = options,
    .stages = {.plan = plan, .encode = encode, .decode_add = decode_add},
};
