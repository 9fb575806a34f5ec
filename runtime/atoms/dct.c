/* dct.c - cosine atoms (DCT-II): of the flattened tensor, or of squares of its matrix; stage 4 of the path.
 *
 * chunk=64: the tensor as out x the rest, cut into tiles of 64 x 64 (smaller ones at the edges, so nothing is padded
 * and there are as many atoms as entries), a two-dimensional DCT of each, as in Peng et al., "DeMo: Decoupled Momentum
 * Optimization", 2024. Promise: orthonormal to rounding.
 */
#include "coding/coding.h"

enum { STEP, CHUNK, OPTIONS };

static const struct atomo__option options[] = {
    ATOMO__STEP_OPTION,
    {"chunk", ATOMO_OPTION_INT, 0, 0, 4096, NULL, "side of the squares that are transformed; 0: the flattened tensor"},
    {0}};

static int plan(atomo__part *part)
{
    return atomo__basis_plan(part, sizeof(atomo__separable));
}

static int start(atomo__part *part)
{
    atomo__separable *s = atomo__basis_state(part);
    int64_t chunk = (int64_t)part->option[CHUNK];
    s->kind = ATOMO__DCT;
    s->rows = chunk > 0 && part->ndim > 1 ? (int64_t)part->shape[0] : 1;
    s->cols = part->n / s->rows;
    s->chunk[0] = chunk > 0 ? chunk : s->cols;
    s->chunk[1] = chunk > 0 ? chunk : s->rows;
    return atomo__separable_plan(s, part->codec->scratch, "dct");
}

static void stop(atomo__part *part)
{
    atomo__separable_free(atomo__basis_state(part));
}

static void transform(const atomo__part *part, float *x, bool inverse)
{
    atomo__separable_run(atomo__basis_state(part), x, inverse);
}

const struct atomo_atoms atomo_atoms_dct = {
    .name = "dct",
    .summary = "cosines (DCT-II) of the flattened gradient, or of squares of its matrix",
    .source = "Ahmed, Natarajan and Rao, Discrete cosine transform, IEEE Trans. Computers 1974; chunks: Peng et al., "
              "DeMo, 2024",
    .options = options,
    .plan = plan,
    .start = start,
    .stop = stop,
    .transform = transform,
    .measure = atomo__basis_measure,
    .guess = atomo__entries_guess,
    .price = atomo__basis_price,
    .encode = atomo__basis_encode,
    .decode_add = atomo__basis_decode_add,
};
