/* fuzz_decode.c - arbitrary messages: decoding refuses them with EFORMAT or reads at most their bytes, and accesses
 * only the message, the accumulator and the planned scratch (checked by AddressSanitizer).
 *
 * The first byte selects the codec, the second the shape. If the second has its top bit set, the rest is a body that
 * gets a valid frame with checksum, so that the fuzzer reaches the decoders after the checksum. If it has the next bit
 * set, the rest is a bundle's head and bodies, which get the magic number and the checksum. Scripted decompositions use
 * the codec `_list`.
 */
#include "codec/codec.h"
#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { CODECS = 44, LISTS = 39, SHAPES = 5, MOST = 4096 }; /* from LISTS on: _list, the last of whole numbers */

static const struct {
    const char *name;
    int count;
    double value[6]; /* in the order of the option table; atom sets: atoms, ratio, bytes, sampling, then their own */
} make[CODECS] = {
    {"none", 0, {0}},
    {"entry", 5, {NAN, 16, NAN, 0, 0.25}},
    {"entry", 5, {NAN, 16, NAN, 0, 0}},
    {"svd", 6, {NAN, 16, NAN, 0, 8, 0}},
    {"svd", 6, {NAN, 16, NAN, 0, 32, 0}},
    {"svd", 6, {NAN, 16, NAN, 0, 4, 1}},
    {"svd", 6, {NAN, 16, NAN, 0, 2, 0}},
    {"svd", 6, {NAN, 16, NAN, 0, 16, 1}},
    {"qsgd", 0, {0}},
    {"qsgd", 4, {2, 100, 0, 1}},
    {"qsgd", 4, {7, 5, 1, 0}},
    {"qsgd", 4, {8, 0, 0, 1}},
    {"terngrad", 0, {0}},
    {"terngrad", 2, {0, 1}},
    {"natural", 0, {0}},
    {"randk", 1, {4}},
    {"topk", 1, {4}},
    {"signsgd", 0, {0}},
    {"signsgd", 1, {1}},
    {"fp16", 0, {0}},
    {"bf16", 0, {0}},
    {"powersgd", 1, {2}},
    {"atomo-published", 0, {0}},
    {"fourier", 6, {NAN, 16, NAN, 0, 0.25, 1}},
    {"fourier", 6, {NAN, 16, NAN, 0, 0, 2}},
    {"dct", 6, {NAN, 16, NAN, 0, 0.25, 0}},
    {"dct", 6, {NAN, 16, NAN, 0, 0.25, 8}},
    {"hadamard", 5, {NAN, 16, NAN, 0, 0.25}},
    {"haar", 5, {NAN, 16, NAN, 0, 0.25}},
    {"taps", 5, {NAN, 16, NAN, 0, 0.25}},
    {"rows", 5, {NAN, 16, NAN, 0, 8}},
    {"rows", 5, {NAN, 16, NAN, 0, 32}},
    {"auto", 6, {NAN, 16, NAN, 0, 0, 1}},
    {"rotated", 6, {NAN, 16, NAN, 0, 0, 16}},
    {"rotated", 6, {NAN, 4, NAN, 0, 1, 1}},
    {"eden", 1, {3}},
    {"svd", 6, {NAN, 16, NAN, 0, 0, 0}},
    {"svd", 6, {NAN, 64, NAN, 0, 0, 0}},
    {"qsgd", 4, {6, 50, 1, 2}},
    {"_list", 5, {NAN, 16, NAN, 0, 32}},
    {"_list", 5, {NAN, 16, NAN, 0, 8}},
    {"_list", 5, {NAN, 16, NAN, 0, 3}},
    {"_list", 5, {NAN, 16, NAN, 0, 16}},
    {"_list", 5, {NAN, 16, NAN, 0, 8}},
};
static const double shapes[SHAPES][4] = {{1, 1, 1, 1}, {5, 3, 3, 3}, {4, 1, 1, 67}, {40, 1, 1, 3}, {6, 1, 1, 300}};

/* of lists: atoms, and the widths of one to three factors (the first are used) */
static const struct {
    double atoms;
    int factors;
    double width[3];
} lists[SHAPES] = {{1, 1, {1}}, {5, 2, {3, 7}}, {40, 3, {2, 9, 4}}, {3, 1, {65}}, {2, 2, {1, 5}}};

static atomo_codec *codec[CODECS];
static atomo_tensor *acc[2][SHAPES]; /* of gradients, of lists */

static void set_up(void)
{
    for (int i = 0; i < CODECS; i++) {
        if (atomo_codec_new(make[i].name, make[i].count, make[i].value, 0, ATOMO_WAY_UP, &codec[i]) < 0) abort();
        if (i == CODECS - 1 && atomo_codec_list_bits(codec[i], ATOMO_INTEGERS, ATOMO_INTEGERS, ATOMO_INTEGERS) < 0)
            abort();
        for (int s = 0; s < SHAPES; s++)
            if ((i >= LISTS ? atomo_codec_plan_list(codec[i], s + 1, lists[s].atoms, lists[s].factors, lists[s].width,
                                                    100, NULL)
                            : atomo_codec_plan(codec[i], s + 1, 4, shapes[s], 0, NULL)) < 0)
                abort();
    }
    for (int s = 0; s < SHAPES; s++) {
        double rows[2] = {lists[s].atoms, 1};
        for (int k = 0; k < lists[s].factors; k++) rows[1] += lists[s].width[k];
        if (atomo_tensor_new(ATOMO_F32, 4, shapes[s], &acc[0][s]) < 0) abort();
        if (atomo_tensor_new(ATOMO_F32, 2, rows, &acc[1][s]) < 0) abort();
    }
}

/* Opens a bundle whose bytes after the magic number and before the checksum are data [n]. */
static void open_bundle(const atomo_codec *c, const uint8_t *data, size_t n)
{
    uint8_t *bundle = malloc(n + 5);
    if (!bundle) return;
    bundle[0] = 0xA8;
    memcpy(bundle + 1, data, n);
    const uint32_t crc = atomo__crc32(0, bundle, n + 1);
    memcpy(bundle + n + 1, &crc, 4);
    double room;
    if (atomo__bundle_room(c, bundle, (double)(n + 5), &room) == 0) {
        uint8_t *out = malloc((size_t)room);
        if (out && atomo__bundle_open(c, bundle, (double)(n + 5), out) > room) abort();
        free(out);
    }
    free(bundle);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (!codec[0]) set_up();
    if (n < 2 || n > MOST) return 0;
    const int pick = data[0] % CODECS, s = data[1] % SHAPES;
    const atomo_codec *c = codec[pick];
    const bool framed = data[1] & 128;
    atomo_tensor *sum = acc[pick >= LISTS][s];
    if ((data[1] & 192) == 64) {
        open_bundle(c, data + 2, n - 2);
        return 0;
    }
    data += 2;
    uint8_t *message = malloc(n + ATOMO__FRAME_MAX); /* of exactly this size, so that a read past the end is detected */
    size_t size = n - 2;
    if (!message) return 0;
    if (framed) {
        const atomo__plan *p = atomo__plan_of(c, s + 1);
        atomo__frame f = {.codec = c->id, .tensor = (uint32_t)s + 1, .rank = 3, .step = 7, .hash = p->hash};
        memcpy(message + ATOMO__FRAME_MAX, data, size);
        const atomo__writer body = {.data = message + ATOMO__FRAME_MAX, .size = size};
        size = atomo__frame_close(&f, message, ATOMO__FRAME_MAX, &body);
        uint8_t *exact = malloc(size);
        if (exact) memcpy(exact, message, size);
        free(message);
        message = exact;
        if (!message) return 0;
    } else {
        memcpy(message, data, size);
    }
    double used;
    atomo_fill(sum, 0);
    int rc = atomo_codec_decode_add(codec[pick], s + 1, framed ? 7 : -1, -1, message, (double)size, 0.5, sum, &used);
    if (rc == 0 && (used <= 0 || used > (double)size)) abort();
    if (rc < 0 && rc != ATOMO_EFORMAT) abort();
    free(message);
    return 0;
}
