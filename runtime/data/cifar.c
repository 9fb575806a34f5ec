/* cifar.c - reads CIFAR-10 and CIFAR-100 binary files. Path: stage 1.
 *
 * A record is one label byte (CIFAR-10) or two (CIFAR-100: coarse, fine), then the planes R, G, B of 32 x 32 bytes,
 * row-major [Krizhevsky 2009, cs.toronto.edu/~kriz/cifar.html]. A file may have any number of whole records, so that
 * subsets can be used. Images are stored as [N,H,W,C] bytes. All labels are checked here.
 */
#include "io/file.h"
#include "tensor/tensor.h"

enum { SIDE = 32, PLANE = SIDE * SIDE, PIXELS = 3 * PLANE, CHUNK = 64 };

typedef struct {
    const char *who;
    int nlabels, classes, coarse_classes;
} layout;

static const layout layouts[] = {{"cifar10", 1, 10, 0}, {"cifar100", 2, 100, 20}};

/* Checks that the file consists of whole records; *n = their number. */
static int count_records(const layout *lay, const char *path, int64_t *n)
{
    FILE *f;
    int64_t size, record = lay->nlabels + PIXELS;
    ATOMO_TRY(atomo__file_open(lay->who, path, &f, &size));
    fclose(f);
    *n = size / record;
    ATOMO_REQUIRE(size > 0, ATOMO_EFORMAT, "%s: %s is empty, expected records of %lld bytes", lay->who, path,
                  (long long)record);
    ATOMO_REQUIRE(size % record == 0, ATOMO_EFORMAT,
                  "%s: %s is %lld bytes, expected a multiple of %lld: at offset %lld record %lld has %lld bytes",
                  lay->who, path, (long long)size, (long long)record, (long long)(*n * record), (long long)*n + 1,
                  (long long)(size % record));
    return ATOMO_OK;
}

static int check_label(const layout *lay, const char *path, int64_t offset, const char *what, int label, int classes)
{
    ATOMO_REQUIRE(label < classes, ATOMO_EFORMAT, "%s: %s: offset %lld: %slabel %d, expected 0 to %d", lay->who, path,
                  (long long)offset, what, label, classes - 1);
    return ATOMO_OK;
}

/* out = the pixels of three planes R, G, B, interleaved. */
static void interleave(const uint8_t *planes, uint8_t *out)
{
    for (int i = 0; i < PLANE; i++) {
        out[3 * i] = planes[i];
        out[3 * i + 1] = planes[PLANE + i];
        out[3 * i + 2] = planes[2 * PLANE + i];
    }
}

/* Unpacks n records in `raw`, read from byte offset `at` of the file, to images, labels and coarse (may be NULL). */
static int unpack(const layout *lay, const char *path, int64_t at, const uint8_t *raw, int64_t n, uint8_t *images,
                  int32_t *labels, int32_t *coarse)
{
    const int record = lay->nlabels + PIXELS;
    for (int64_t i = 0; i < n; i++, raw += record, at += record) {
        int label = raw[lay->nlabels - 1];
        if (lay->coarse_classes) ATOMO_TRY(check_label(lay, path, at, "coarse ", raw[0], lay->coarse_classes));
        ATOMO_TRY(check_label(lay, path, at + lay->nlabels - 1, "", label, lay->classes));
        labels[i] = label;
        if (coarse) coarse[i] = raw[0];
        interleave(raw + lay->nlabels, images + i * PIXELS);
    }
    return ATOMO_OK;
}

static int read_file(const layout *lay, const char *path, int64_t n, uint8_t *buffer, uint8_t *images, int32_t *labels,
                     int32_t *coarse)
{
    FILE *f;
    int64_t size;
    const int64_t record = lay->nlabels + PIXELS;
    ATOMO_TRY(atomo__file_open(lay->who, path, &f, &size));
    int rc = ATOMO_OK;
    for (int64_t i = 0; i < n && rc == ATOMO_OK; i += CHUNK) {
        int64_t m = ATOMO_MIN(n - i, (int64_t)CHUNK);
        rc = atomo__file_read(lay->who, path, f, i * record, buffer, (size_t)(m * record));
        if (rc == ATOMO_OK)
            rc = unpack(lay, path, i * record, buffer, m, images + i * PIXELS, labels + i, coarse ? coarse + i : NULL);
    }
    fclose(f);
    return rc;
}

static int make_tensors(const layout *lay, int64_t n, atomo_tensor **images, atomo_tensor **labels,
                        atomo_tensor **coarse, void **buffer)
{
    double shape[4] = {(double)n, SIDE, SIDE, 3};
    ATOMO_TRY(atomo__alloc(buffer, (size_t)(CHUNK * (lay->nlabels + PIXELS))));
    ATOMO_TRY(atomo__output(images, ATOMO_U8, 4, shape, "cifar_read: images"));
    ATOMO_TRY(atomo__output(labels, ATOMO_I32, 1, shape, "cifar_read: labels"));
    if (coarse && lay->coarse_classes) ATOMO_TRY(atomo__output(coarse, ATOMO_I32, 1, shape, "cifar_read: coarse"));
    return ATOMO_OK;
}

int atomo_cifar_read(const char *const *paths, int count, int kind, atomo_tensor **images, atomo_tensor **labels,
                     atomo_tensor **coarse)
{
    ATOMO_REQUIRE(kind == 10 || kind == 100, ATOMO_EARG, "cifar_read: kind %d, expected 10 or 100", kind);
    ATOMO_REQUIRE(paths && count > 0, ATOMO_EARG, "cifar_read: no files given");
    const layout *lay = &layouts[kind == 100];
    const bool fresh_images = !*images, fresh_labels = !*labels, fresh_coarse = coarse && !*coarse;
    int64_t total = 0, n, at = 0;
    for (int i = 0; i < count; i++, total += n) ATOMO_TRY(count_records(lay, paths[i], &n));
    ATOMO_REQUIRE(total <= INT32_MAX, ATOMO_ELIMIT, "%s: %lld records, at most %d", lay->who, (long long)total,
                  INT32_MAX);
    void *buffer = NULL;
    int rc = make_tensors(lay, total, images, labels, coarse, &buffer);
    for (int i = 0; i < count && rc == ATOMO_OK; i++, at += n) {
        rc = count_records(lay, paths[i], &n);
        if (rc == ATOMO_OK && at + n > total)
            rc = atomo__fail(ATOMO_EIO, "%s: %s grew while it was read", lay->who, paths[i]);
        if (rc == ATOMO_OK)
            rc = read_file(lay, paths[i], n, buffer, (uint8_t *)(*images)->data + at * PIXELS, atomo__i32(*labels) + at,
                           coarse && *coarse ? atomo__i32(*coarse) + at : NULL);
    }
    if (rc == ATOMO_OK && at != total)
        rc = atomo__fail(ATOMO_EIO, "%s: %s shrank while it was read", lay->who, paths[0]);
    atomo__free(buffer);
    if (rc < 0) { /* frees the tensors made here */
        atomo_tensor **out[3] = {images, labels, coarse};
        const bool fresh[3] = {fresh_images, fresh_labels, fresh_coarse};
        for (int i = 0; i < 3; i++)
            if (fresh[i]) {
                atomo_tensor_free(*out[i]);
                *out[i] = NULL;
            }
    }
    return rc;
}
