/* dither.c - rounds entries to levels of one scale with subtractive dither; stages 6 and 8 of the path.
 *
 * q = round(x / step + d) with d uniform in [-1/2, 1/2), decoded as (q - d) step, with the same d, which the receiver
 * computes from the key of the message [Roberts 1962; Gray and Stockham, IEEE Trans. Information Theory 1993]. The
 * error is uniform in +-step / 2 and independent of x. So the message is unbiased, with a variance of step^2 / 12 for
 * every entry, half of what stochastic rounding has on average, f (1 - f) step^2 with f uniform. But an entry much
 * smaller than a step also gets this error, where stochastic rounding nearly always sends an exact 0.
 */
#include "compress/common/levels.h"
#include <float.h>
#include <math.h>

/* Returns d from a word of the stream. */
static inline float dither_of(uint32_t word)
{
    return (float)(int32_t)(word >> 8) * 0x1p-24f - 0.5f;
}

ATOMO_CLONES static void round_chunk(const float *restrict x, const uint32_t *restrict words, int n, atomo__inverse inv,
                                     float levels, uint8_t *restrict code)
{
    for (int i = 0; i < n; i++) {
        float t = (x[i] * inv.up) * inv.rest;
        float q = floorf(t + dither_of(words[i]) + 0.5f);
        q = q > levels ? levels : q < -levels ? -levels : q;
        code[i] = (uint8_t)(int32_t)(q + levels);
    }
}

ATOMO_CLONES static void add_chunk(const uint8_t *restrict code, const uint32_t *restrict words, int n, float levels,
                                   float step, float *restrict acc)
{
    for (int i = 0; i < n; i++) acc[i] += ((float)code[i] - levels - dither_of(words[i])) * step;
}

/* words [n] = the words of entries at .. at + n - 1 of a vector whose first block is `first`; at is a multiple of 4. */
static void dithers(const atomo__context *c, uint32_t first, int64_t at, int n, uint32_t *words)
{
    atomo_stream s = c->stream;
    s.purpose = ATOMO_RNG_SAMPLE;
    atomo__random_words(&s, first + (uint32_t)(at / 4), (uint32_t)(n + 3) / 4, words);
}

float atomo__dither_most(int bits)
{
    const double levels = atomo__levels_of(bits);
    return (float)((double)FLT_MAX * (1 - 0x1p-20) / (1 + 0.5 / levels));
}

double atomo__dither_write(atomo__writer *w, const float *x, int64_t n, float scale, int bits, const atomo__context *c,
                           uint32_t first)
{
    const int levels = atomo__levels_of(bits);
    const double step = (double)scale / levels;
    uint32_t words[ATOMO__CHUNK];
    uint8_t code[ATOMO__CHUNK];
    atomo__put_raw_f32(w, scale);
    if (!(scale > 0)) return 0;
    const atomo__inverse inv = atomo__inverse_of(scale, levels);
    for (int64_t at = 0; at < n; at += ATOMO__CHUNK) {
        const int len = (int)ATOMO_MIN((int64_t)ATOMO__CHUNK, n - at);
        uint8_t *out = atomo__put_raw(w, atomo__packed_size(len, bits));
        if (!out) break;
        dithers(c, first, at, len, words);
        round_chunk(x + at, words, len, inv, (float)levels, code);
        atomo__pack(code, len, bits, out);
    }
    return (double)n * step * step / 12;
}

void atomo__dither_read(atomo__reader *r, int64_t n, int bits, float factor, const atomo__context *c, uint32_t first,
                        float *acc)
{
    const int levels = atomo__levels_of(bits);
    const float scale = atomo__get_raw_f32(r), step = (float)((double)factor * (double)scale / levels);
    uint32_t words[ATOMO__CHUNK];
    uint8_t code[ATOMO__CHUNK];
    if (!(scale >= 0) || !isfinite(scale)) r->bad = true;
    for (int64_t at = 0; at < n && scale > 0 && !r->bad; at += ATOMO__CHUNK) {
        const int len = (int)ATOMO_MIN((int64_t)ATOMO__CHUNK, n - at);
        const uint8_t *in = atomo__get_raw(r, atomo__packed_size(len, bits));
        r->bad = !in || !atomo__unpack(in, len, bits, code) || atomo__highest_code(code, len) > 2 * levels;
        if (r->bad) return;
        dithers(c, first, at, len, words);
        add_chunk(code, words, len, (float)levels, step, acc + at);
    }
}
