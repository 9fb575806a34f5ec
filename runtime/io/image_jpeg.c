/* image_jpeg.c - reads JPEG files through libjpeg (libjpeg-turbo). Path: stage 1.
 *
 * Damaged or missing data are warnings of libjpeg, which fills the rest with grey: here they are errors. Bytes between
 * two markers, which many cameras write, are ignored.
 */
#include "io/image.h"
#include <setjmp.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)

enum { MOST_SCANS = 500, BLOCK = 64 };

typedef struct {
    struct jpeg_decompress_struct z;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf back;
    char text[JMSG_LENGTH_MAX];
    atomo__image *im;
} reader;

/* libjpeg does not report its version at run time. A later version with the same interface works, too. */
static const char *version_text(void)
{
#ifdef LIBJPEG_TURBO_VERSION
    return "libjpeg-turbo " TEXT(LIBJPEG_TURBO_VERSION) " when built";
#else
    return "libjpeg " TEXT(JPEG_LIB_VERSION) " when built";
#endif
}

__attribute__((constructor)) static void register_version(void)
{
    atomo__build_info_add("jpeg", version_text);
}

static void on_error(j_common_ptr z)
{
    reader *r = z->client_data;
    z->err->format_message(z, r->text);
    longjmp(r->back, 1);
}

static void on_message(j_common_ptr z, int level)
{
    if (level < 0 && z->err->msg_code != JWRN_EXTRANEOUS_DATA) on_error(z);
}

/* A progressive file may have any number of scans, each of a few bytes, which all go over the whole image. */
static void on_progress(j_common_ptr z)
{
    reader *r = z->client_data;
    if (!z->is_decompressor || r->z.input_scan_number <= MOST_SCANS) return;
    snprintf(r->text, sizeof r->text, "more than %d scans", MOST_SCANS);
    longjmp(r->back, 1);
}

/* A block of 8 x 8 samples takes one bit or more, and a component may have 1/16 of the samples. */
static int read_header(reader *r)
{
    jpeg_read_header(&r->z, TRUE);
    const double h = r->z.image_height, w = r->z.image_width;
    ATOMO_REQUIRE(r->z.num_components == 1 || r->z.num_components == 3, ATOMO_EFORMAT,
                  "image: %s: a JPEG of %d colour components (CMYK), expected 1 or 3: convert it to RGB", r->im->path,
                  r->z.num_components);
    r->z.out_color_space = r->z.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
    return atomo__image_sizes(r->im, h, w, r->z.num_components, h * w, 8.0 * BLOCK * 16);
}

static int read_pixels(reader *r)
{
    atomo__image *im = r->im;
    ATOMO_TRY(atomo__image_room(im));
    jpeg_start_decompress(&r->z);
    while (r->z.output_scanline < r->z.output_height) {
        JSAMPROW row = im->pixels + (int64_t)r->z.output_scanline * im->w * im->c;
        jpeg_read_scanlines(&r->z, &row, 1);
    }
    jpeg_finish_decompress(&r->z);
    return ATOMO_OK;
}

/* libjpeg returns here by longjmp when it fails. All variables that are used after that are in *r. */
static int read_all(reader *r)
{
    if (setjmp(r->back)) return atomo__fail(ATOMO_EFORMAT, "image: %s: %s (libjpeg, JPEG)", r->im->path, r->text);
    jpeg_create_decompress(&r->z);
    r->z.progress = &r->progress;
    jpeg_stdio_src(&r->z, r->im->f);
    ATOMO_TRY(read_header(r));
    return r->im->header_only ? ATOMO_OK : read_pixels(r);
}

int atomo__jpeg_read(atomo__image *im)
{
    void *p;
    ATOMO_TRY(atomo__calloc(&p, sizeof(reader)));
    reader *r = p;
    r->im = im;
    r->z.err = jpeg_std_error(&r->errors);
    r->z.client_data = r;
    r->errors.error_exit = on_error;
    r->errors.emit_message = on_message;
    r->progress.progress_monitor = on_progress;
    const int rc = read_all(r);
    jpeg_destroy_decompress(&r->z);
    atomo__free(r);
    return rc;
}
