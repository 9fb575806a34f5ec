/* transform2d.c - Fourier and cosine transforms along the axes of a matrix, whole or in chunks; stage 4 of the path.
 *
 * Rows are transformed in place. Columns are copied to scratch memory and back, several at a time, so that adjacent
 * entries of memory are read together.
 */
#include "atoms/common/transform1d.h"
#include <math.h>

enum { COLUMNS = 16 };

int atomo__separable_plan(atomo__separable *s, int kind, int64_t rows, int64_t cols, const int64_t chunk[2],
                          float *work, const char *name)
{
    const bool column = cols == 1; /* treated as one row, which has the same memory layout */
    s->rows = column ? 1 : rows;
    s->cols = column ? rows : cols;
    for (int axis = 0; axis < 2; axis++) {
        const int64_t size = axis ? s->rows : s->cols, length = ATOMO_MIN(chunk[column ? 1 - axis : axis], size);
        s->chunk[axis] = length;
        if (size == 1) continue;
        int rc = atomo__line_plan(&s->line[axis][0], kind, length, work);
        if (rc == 0 && size % length) rc = atomo__line_plan(&s->line[axis][1], kind, size % length, work);
        ATOMO_REQUIRE(rc != ATOMO_ENUMERIC, rc, "%s: FFTW has no plan for %.0f x %.0f", name, (double)rows,
                      (double)cols);
        ATOMO_TRY(rc);
    }
    return ATOMO_OK;
}

void atomo__separable_free(atomo__separable *s)
{
    for (int i = 0; i < 4; i++) atomo__line_free(&s->line[i >> 1][i & 1]);
}

static const atomo__line *line_at(const atomo__separable *s, int axis, int64_t at)
{
    return &s->line[axis][(axis ? s->rows : s->cols) - at < s->chunk[axis]];
}

static void run_rows(const atomo__separable *s, float *x, bool inverse, float *work)
{
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t at = 0; at < s->cols; at += s->chunk[0])
            atomo__line_run(line_at(s, 0, at), x + r * s->cols + at, inverse, work);
}

/* Copies `count` columns of `length` entries from x, whose rows are `stride` apart, to lines, or back. */
static void copy_columns(float *x, int64_t stride, int64_t length, int64_t count, float *lines, bool back)
{
    for (int64_t i = 0; i < length; i++)
        for (int64_t j = 0; j < count; j++) {
            if (back)
                x[i * stride + j] = lines[j * length + i];
            else
                lines[j * length + i] = x[i * stride + j];
        }
}

static void run_columns(const atomo__separable *s, float *x, bool inverse, float *work)
{
    const int64_t most = ATOMO_MIN((int64_t)COLUMNS, s->cols - 1); /* leaves scratch memory for the line */
    for (int64_t at = 0; at < s->rows; at += s->chunk[1])
        for (int64_t c = 0; c < s->cols; c += most) {
            const atomo__line *line = line_at(s, 1, at);
            const int64_t count = ATOMO_MIN(most, s->cols - c);
            float *from = x + at * s->cols + c;
            copy_columns(from, s->cols, line->n, count, work, false);
            for (int64_t j = 0; j < count; j++)
                atomo__line_run(line, work + j * line->n, inverse, work + count * line->n);
            copy_columns(from, s->cols, line->n, count, work, true);
        }
}

void atomo__separable_run(const atomo__separable *s, float *x, bool inverse, float *work)
{
    if (s->rows > 1 && inverse) run_columns(s, x, inverse, work);
    if (s->cols > 1) run_rows(s, x, inverse, work);
    if (s->rows > 1 && !inverse) run_columns(s, x, inverse, work);
}

int atomo__separable_size(atomo__plan *plan)
{
    return atomo__basis_plan(plan, sizeof(atomo__separable));
}

void atomo__separable_stop(atomo__plan *plan)
{
    atomo__separable_free(atomo__basis_state(plan));
}

void atomo__separable_transform(const atomo__plan *plan, float *x, bool inverse, float *work)
{
    atomo__separable_run(atomo__basis_state(plan), x, inverse, work);
}
