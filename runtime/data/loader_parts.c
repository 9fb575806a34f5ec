/* loader_parts.c - the order, the shares and the augmentation of atomo_loader, as functions for loaders over other
 * sets: tensors of any shape, and user-defined sets. Path: stage 2. */
#include "data/batch.h"
#include "tensor/tensor.h"

int atomo_loader_order(double seed, double epoch, int shuffle, double n, atomo_tensor **out)
{
    ATOMO_REQUIRE(seed >= 0 && seed <= 0x1p53 && seed == (double)(int64_t)seed, ATOMO_EARG,
                  "loader: seed %.17g, expected a whole number in [0, 2^53]", seed);
    ATOMO_REQUIRE(epoch >= 0 && epoch < 0x1p32 && epoch == (double)(uint32_t)epoch, ATOMO_EARG,
                  "loader: epoch %.17g, expected a whole number in [0, 2^32)", epoch);
    ATOMO_REQUIRE(n >= 1 && n <= INT32_MAX && n == (double)(int64_t)n, ATOMO_EARG,
                  "loader: %.17g samples, expected a whole number in [1, 2^31)", n);
    ATOMO_TRY(atomo__output(out, ATOMO_I32, 1, &n, "loader_order"));
    atomo__order(seed, epoch, shuffle != 0, (int64_t)n, atomo__i32(*out));
    return ATOMO_OK;
}

int atomo_loader_share(double n, double batch, double rank, double size, double step, double *first, atomo_batch *out)
{
    int64_t from;
    ATOMO_REQUIRE(n >= 1 && n <= INT32_MAX && batch >= 1 && size >= 1 && batch * size <= INT32_MAX && rank >= 0 &&
                      rank < size && step >= 0 && step * batch * size < n,
                  ATOMO_EARG, "loader_share: step %.17g of %.17g samples, rank %.17g of %.17g", step, n, rank, size);
    *out = (atomo_batch){.step = step};
    atomo__share((int64_t)n, (int64_t)batch, (int64_t)rank, (int64_t)size, (int64_t)step, &from, &out->n, &out->total);
    *first = (double)from;
    return ATOMO_OK;
}

static int augment_all(atomo__batcher *b, const atomo_tensor *images, const atomo_tensor *ids,
                       const atomo_loader_options *o, double epoch, float *x)
{
    ATOMO_TRY(atomo__batch_open(b, images, o));
    ATOMO_REQUIRE(!b->mixes, ATOMO_EARG, "loader: mixup needs a set that holds its images, {images=, labels=}");
    const int64_t pixels = b->h * b->w * b->c;
    for (int64_t i = 0; i < b->n; i++) {
        uint32_t id = (uint32_t)((const int32_t *)ids->data)[i], other;
        float part;
        atomo__batch_image(b, epoch, id, i, x + i * pixels, &other, &part);
    }
    return ATOMO_OK;
}

int atomo_augment(const atomo_tensor *images, const atomo_tensor *ids, const atomo_loader_options *options,
                  double epoch, atomo_tensor **out)
{
    ATOMO_REQUIRE(options, ATOMO_EARG, "augment: options are missing");
    ATOMO_TRY(atomo__batch_check(images, options));
    ATOMO_TRY(atomo__expect(ids, ATOMO_I32, 1, "augment: ids"));
    ATOMO_REQUIRE(ids->shape[0] == images->shape[0], ATOMO_ESHAPE, "augment: images %s, ids %s: expected one for each",
                  atomo__shape_text(images), atomo__shape_text(ids));
    const bool fresh = !*out;
    ATOMO_TRY(atomo__output(out, ATOMO_F32, 4, images->shape, "augment"));
    atomo__batcher b = {0};
    const int rc = augment_all(&b, images, ids, options, epoch, atomo__f32(*out));
    atomo__batch_close(&b);
    if (rc < 0 && fresh) {
        atomo_tensor_free(*out);
        *out = NULL;
    }
    return rc;
}
