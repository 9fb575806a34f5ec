/* image_png.c - reads PNG files through libpng. Path: stage 1.
 *
 * Palettes and samples of less than 8 bits are expanded, samples of 16 bits become their high byte, alpha is left out,
 * and gamma is not applied: the values are those of Pillow's convert("RGB"), except that it clips grey samples of 16
 * bits at 255. A file without its end, or with a wrong checksum, is an error.
 */
#include "io/image.h"
#include "io/inflate.h"
#include <png.h>
#include <string.h>

typedef struct {
    atomo__image *im;
    png_structp png;
    png_infop info;
    char text[160]; /* libpng's error */
} reader;

static const char *version_text(void)
{
    return png_get_libpng_ver(NULL);
}

__attribute__((constructor)) static void register_version(void)
{
    atomo__build_info_add("png", version_text);
}

static void on_error(png_structp png, png_const_charp text)
{
    reader *r = png_get_error_ptr(png);
    snprintf(r->text, sizeof r->text, "%s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static int read_header(reader *r)
{
    png_read_info(r->png, r->info);
    const double h = png_get_image_height(r->png, r->info), w = png_get_image_width(r->png, r->info);
    const int bits = png_get_bit_depth(r->png, r->info) * png_get_channels(r->png, r->info);
    const int64_t c = png_get_color_type(r->png, r->info) & PNG_COLOR_MASK_COLOR ? 3 : 1;
    return atomo__image_sizes(r->im, h, w, c, h * (1 + w * bits / 8), ATOMO__MOST_INFLATED);
}

static int read_pixels(reader *r)
{
    atomo__image *im = r->im;
    ATOMO_TRY(atomo__image_room(im));
    png_set_expand(r->png);
    png_set_strip_16(r->png);
    png_set_strip_alpha(r->png);
    const int passes = png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    const size_t row = (size_t)(im->w * im->c);
    ATOMO_REQUIRE(png_get_rowbytes(r->png, r->info) == row, ATOMO_EFORMAT, "image: %s: rows of %zu bytes, expected %zu",
                  im->path, (size_t)png_get_rowbytes(r->png, r->info), row);
    for (int pass = 0; pass < passes; pass++)
        for (int64_t y = 0; y < im->h; y++) png_read_row(r->png, im->pixels + (size_t)y * row, NULL);
    png_read_end(r->png, NULL);
    return ATOMO_OK;
}

/* libpng returns here by longjmp when it fails. All variables that are used after that are in *r. */
static int read_all(reader *r)
{
    if (setjmp(png_jmpbuf(r->png)))
        return atomo__fail(ATOMO_EFORMAT, "image: %s: %s (libpng, PNG)", r->im->path, r->text);
    png_init_io(r->png, r->im->f);
    ATOMO_TRY(read_header(r));
    return r->im->header_only ? ATOMO_OK : read_pixels(r);
}

int atomo__png_read(atomo__image *im)
{
    reader r = {.im = im};
    r.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &r, on_error, on_warning);
    if (r.png) r.info = png_create_info_struct(r.png);
    const int rc = r.info ? read_all(&r) : atomo__fail(ATOMO_ENOMEM, "image: %s: libpng has no memory", im->path);
    png_destroy_read_struct(&r.png, &r.info, NULL);
    return rc;
}
