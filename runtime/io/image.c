/* image.c - reads image files, recognised by their first bytes, into a tensor of bytes. Path: stage 1. */
#include "io/image.h"
#include "io/file.h"
#include "tensor/tensor.h"
#include <errno.h>
#include <string.h>

int atomo__image_sizes(atomo__image *im, double h, double w, int64_t c, double least, double ratio)
{
    ATOMO_REQUIRE(h >= 1 && w >= 1 && h <= ATOMO__IMAGE_SIDE && w <= ATOMO__IMAGE_SIDE, ATOMO_EFORMAT,
                  "image: %s: %.0f x %.0f pixels (height x width), expected 1 to %d each", im->path, h, w,
                  ATOMO__IMAGE_SIDE);
    ATOMO_REQUIRE(least <= ratio * (double)im->bytes, ATOMO_EFORMAT,
                  "image: %s: a file of %lld bytes cannot hold the %.0f x %.0f pixels of its header", im->path,
                  (long long)im->bytes, h, w);
    im->h = (int64_t)h;
    im->w = (int64_t)w;
    im->c = c;
    return ATOMO_OK;
}

int atomo__image_room(atomo__image *im)
{
    void *p;
    ATOMO_TRY(atomo__calloc(&p, (size_t)(im->h * im->w * im->c)));
    im->pixels = p;
    return ATOMO_OK;
}

#ifndef ATOMO_HAVE_PNG
int atomo__png_read(atomo__image *im)
{
    return atomo__fail(ATOMO_EUNSUPPORTED,
                       "image: %s is a PNG, and this build has no libpng: apt install libpng-dev and build again",
                       im->path);
}
#endif
#ifndef ATOMO_HAVE_JPEG
int atomo__jpeg_read(atomo__image *im)
{
    return atomo__fail(ATOMO_EUNSUPPORTED,
                       "image: %s is a JPEG, and this build has no libjpeg: apt install libjpeg-dev and build "
                       "again",
                       im->path);
}
#endif

static int read_open(atomo__image *im)
{
    uint8_t b[8] = {0};
    const size_t n = fread(b, 1, sizeof b, im->f);
    ATOMO_REQUIRE(!ferror(im->f), ATOMO_EIO, "image: %s: %s", im->path, atomo__system_error(errno));
    rewind(im->f);
    if (n >= 8 && memcmp(b, "\x89PNG\r\n\x1a\n", 8) == 0) return atomo__png_read(im);
    if (n >= 3 && memcmp(b, "\xff\xd8\xff", 3) == 0) return atomo__jpeg_read(im);
    if (n >= 3 && b[0] == 'P' && b[1] >= '1' && b[1] <= '6') return atomo__pnm_read(im);
    return atomo__fail(ATOMO_EFORMAT,
                       "image: %s: begins with %02x %02x %02x %02x, expected a PNG, JPEG or PNM (P1 to P6)", im->path,
                       b[0], b[1], b[2], b[3]);
}

static int read_image(const char *path, bool header_only, atomo__image *im)
{
    *im = (atomo__image){.path = path, .header_only = header_only};
    ATOMO_TRY(atomo__file_open("image", path, &im->f, &im->bytes));
    const int rc = read_open(im);
    fclose(im->f);
    return rc;
}

int atomo_image_size(const char *path, double *size)
{
    atomo__image im;
    ATOMO_TRY(read_image(path, true, &im));
    size[0] = (double)im.h;
    size[1] = (double)im.w;
    size[2] = (double)im.c;
    return ATOMO_OK;
}

/* Changes im->pixels to c channels: grey is repeated; colours become grey by ITU-R 601, in 16 bits as in Pillow. */
static int change_channels(atomo__image *im, int64_t c)
{
    if (im->c == c) return ATOMO_OK;
    const int64_t n = im->h * im->w;
    uint8_t *in = im->pixels;
    ATOMO_REQUIRE(c == 1 || c == 3, ATOMO_ESHAPE, "images_read: %lld channels, expected 1 or 3", (long long)c);
    im->pixels = NULL;
    im->c = c;
    const int rc = atomo__image_room(im);
    uint8_t *out = im->pixels;
    for (int64_t i = 0; rc == ATOMO_OK && i < n; i++) {
        if (c == 3)
            out[3 * i] = out[3 * i + 1] = out[3 * i + 2] = in[i];
        else
            out[i] = (uint8_t)((in[3 * i] * 19595 + in[3 * i + 1] * 38470 + in[3 * i + 2] * 7471 + 0x8000) >> 16);
    }
    atomo__free(in);
    return rc;
}

static int read_one(const char *path, const atomo_tensor *images, int64_t i, bool resize)
{
    const int64_t h = atomo__size(images, 1), w = atomo__size(images, 2), c = atomo__size(images, 3);
    uint8_t *out = (uint8_t *)images->data + i * h * w * c;
    atomo__image im;
    int rc = read_image(path, false, &im);
    if (rc == ATOMO_OK) rc = change_channels(&im, c);
    if (rc == ATOMO_OK && im.h == h && im.w == w)
        memcpy(out, im.pixels, (size_t)(h * w * c));
    else if (rc == ATOMO_OK && resize)
        rc = atomo__image_resize(im.pixels, im.h, im.w, c, h, w, out);
    else if (rc == ATOMO_OK)
        rc = atomo__fail(ATOMO_ESHAPE, "image: %s is %lld x %lld pixels, expected %lld x %lld", path, (long long)im.h,
                         (long long)im.w, (long long)h, (long long)w);
    atomo__free(im.pixels);
    return rc;
}

int atomo_images_read(const char *const *paths, int count, int resize, atomo_tensor *images)
{
    ATOMO_TRY(atomo__expect(images, ATOMO_U8, 4, "images_read: images"));
    ATOMO_REQUIRE(images->shape[0] == count && images->numel > 0, ATOMO_ESHAPE,
                  "images_read: images %s for %d files, expected one for each, not empty", atomo__shape_text(images),
                  count);
    int status = ATOMO_OK, failed = count; /* of the first file that cannot be read */
    char text[1024] = "";
#pragma omp parallel for schedule(dynamic, 16)
    for (int i = 0; i < count; i++) {
        const int rc = read_one(paths[i], images, i, resize != 0);
        if (rc >= 0) continue;
#pragma omp critical(atomo_images_read)
        if (i < failed) {
            failed = i;
            status = rc;
            snprintf(text, sizeof text, "%s", atomo_last_error());
        }
    }
    atomo_tensor_touch(images);
    return status < 0 ? atomo__fail(status, "%s", text) : ATOMO_OK;
}
