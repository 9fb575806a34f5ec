/* image_pnm.c - reads the netpbm formats P1 to P6: bitmaps, grey and colour images, as text or bytes. Path: stage 1.
 *
 * A header is "P5", width, height and (except in bitmaps) the largest value, separated by white space and comments. One
 * white space and the rows follow [netpbm.sourceforge.net/doc/pnm.html]. Values are scaled to 0 ... 255; bit 1 is
 * black.
 */
#include "io/image.h"
#include <ctype.h>
#include <string.h>

typedef struct {
    atomo__image *im;
    int64_t at; /* bytes read */
    bool text, bitmap;
    int most; /* the largest value */
} reader;

static int next_byte(reader *r)
{
    const int b = getc(r->im->f);
    if (b != EOF) r->at++;
    return b;
}

/* Returns the first byte after white space and comments, or EOF. */
static int skip(reader *r)
{
    int b = next_byte(r);
    while (b == '#' || (b != EOF && isspace(b))) {
        if (b == '#')
            while (b != EOF && b != '\n' && b != '\r') b = next_byte(r);
        else
            b = next_byte(r);
    }
    return b;
}

static int expected(const reader *r, int b, const char *what)
{
    if (b == EOF)
        return atomo__fail(ATOMO_EFORMAT, "image: %s ends at offset %lld, expected %s (PNM)", r->im->path,
                           (long long)r->at, what);
    return atomo__fail(ATOMO_EFORMAT, "image: %s: offset %lld: byte 0x%02x, expected %s (PNM)", r->im->path,
                       (long long)r->at - 1, (unsigned)b, what);
}

/* Reads a decimal number in [0, most] and, unless it ends the file, the byte behind it. */
static int read_number(reader *r, int most, const char *what, int *out)
{
    int b = skip(r);
    int64_t v = 0;
    if (b == EOF || !isdigit(b)) return expected(r, b, what);
    for (; b != EOF && isdigit(b) && v <= most; b = next_byte(r)) v = 10 * v + (b - '0');
    ATOMO_REQUIRE(v <= most, ATOMO_EFORMAT, "image: %s: offset %lld: %s above %d (PNM)", r->im->path, (long long)r->at,
                  what, most);
    if (b != EOF && !isspace(b) && b != '#') return expected(r, b, "white space");
    if (b == '#') ungetc(b, r->im->f);
    *out = (int)v;
    return ATOMO_OK;
}

static int read_header(reader *r)
{
    int w, h;
    next_byte(r);
    const int kind = next_byte(r) - '0'; /* 1 to 6: the caller has looked */
    r->text = kind <= 3;
    r->bitmap = kind % 3 == 1;
    r->most = 1;
    ATOMO_TRY(read_number(r, ATOMO__IMAGE_SIDE, "a width", &w));
    ATOMO_TRY(read_number(r, ATOMO__IMAGE_SIDE, "a height", &h));
    if (!r->bitmap) ATOMO_TRY(read_number(r, 65535, "a largest value", &r->most));
    ATOMO_REQUIRE(r->most > 0, ATOMO_EFORMAT, "image: %s: the largest value is 0, expected 1 to 65535 (PNM)",
                  r->im->path);
    const int64_t c = kind % 3 == 0 ? 3 : 1;
    const double samples = (double)h * w * (double)c, width = r->most > 255 ? 2 : 1;
    const double bytes = r->text ? samples : r->bitmap ? (double)h * (double)((w + 7) / 8) : samples * width;
    return atomo__image_sizes(r->im, h, w, c, bytes, 1);
}

static int scaled(const reader *r, int v)
{
    return (v * 255 + r->most / 2) / r->most;
}

/* Reads a sample, without scale. In a bitmap as text, digits need no space between them. */
static int read_sample(reader *r, int *v)
{
    if (r->text && r->bitmap) {
        const int b = skip(r);
        if (b != '0' && b != '1') return expected(r, b, "0 or 1");
        *v = b - '0';
        return ATOMO_OK;
    }
    if (r->text) return read_number(r, r->most, "a value", v);
    const int high = r->most > 255 ? next_byte(r) : 0, low = next_byte(r);
    if (high == EOF || low == EOF) return expected(r, EOF, "a value");
    *v = high << 8 | low;
    ATOMO_REQUIRE(*v <= r->most, ATOMO_EFORMAT, "image: %s: offset %lld: value %d above the largest, %d (PNM)",
                  r->im->path, (long long)r->at - 1, *v, r->most);
    return ATOMO_OK;
}

static int read_bits(reader *r, uint8_t *row)
{
    int b = 0;
    for (int64_t x = 0; x < r->im->w; x++) {
        if (x % 8 == 0 && (b = next_byte(r)) == EOF) return expected(r, EOF, "a row of bits");
        row[x] = b >> (7 - x % 8) & 1 ? 0 : 255;
    }
    return ATOMO_OK;
}

static int read_row(reader *r, uint8_t *row)
{
    if (r->bitmap && !r->text) return read_bits(r, row);
    for (int64_t i = 0; i < r->im->w * r->im->c; i++) {
        int v = 0;
        ATOMO_TRY(read_sample(r, &v));
        row[i] = (uint8_t)(r->bitmap ? 255 * (1 - v) : scaled(r, v));
    }
    return ATOMO_OK;
}

int atomo__pnm_read(atomo__image *im)
{
    reader r = {.im = im};
    ATOMO_TRY(read_header(&r));
    if (im->header_only) return ATOMO_OK;
    ATOMO_TRY(atomo__image_room(im));
    for (int64_t y = 0; y < im->h; y++) ATOMO_TRY(read_row(&r, im->pixels + y * im->w * im->c));
    return ATOMO_OK;
}
