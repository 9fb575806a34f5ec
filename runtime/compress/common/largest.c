/* largest.c - selects the k largest entries in O(n), without a sort; stage 5 of the path (top-k).
 *
 * Magnitudes compare as their bits do as integers. A histogram of the upper 16 of the 31 bits finds the bin of the k-th
 * largest entry, a second one of the lower 15 bits within that bin its value. The result is exact; of equal entries the
 * lower index is selected; zeros are never selected.
 */
#include "compress/common/levels.h"
#include <math.h>

enum { LOW = 15, BINS = 65536 };

static uint32_t size_bits(float x)
{
    uint32_t v;
    memcpy(&v, &x, 4);
    return v & 0x7FFFFFFF;
}

/* Returns the bin that contains the k-th entry, counted from the top; *k becomes its number within the bin. */
static uint32_t bin_of(const uint32_t *histogram, uint32_t bins, int64_t *k)
{
    uint32_t b = bins;
    while (b > 0 && *k > histogram[b - 1]) *k -= histogram[--b];
    return b > 0 ? b - 1 : 0;
}

int64_t atomo__select_largest(const float *x, int64_t n, int64_t k, uint32_t *histogram, uint32_t *index)
{
    int64_t left = k;
    memset(histogram, 0, sizeof *histogram * BINS);
    for (int64_t i = 0; i < n; i++) histogram[size_bits(x[i]) >> LOW]++;
    uint32_t high = bin_of(histogram, BINS, &left);
    memset(histogram, 0, sizeof *histogram * (1 << LOW));
    for (int64_t i = 0; i < n; i++) {
        uint32_t v = size_bits(x[i]);
        if (v >> LOW == high) histogram[v & ((1 << LOW) - 1)]++;
    }
    /* cut: the k-th largest magnitude; `left` of the entries equal to it are selected */
    uint32_t cut = high << LOW | bin_of(histogram, 1 << LOW, &left);
    int64_t m = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t v = size_bits(x[i]);
        if (v < cut || v == 0) continue;
        if (v == cut && left-- <= 0) continue;
        index[m++] = (uint32_t)i;
    }
    return m;
}

int64_t atomo__select_count(int64_t n, double ratio, bool indices)
{
    double bits = 32 * (double)n / ratio, low = 1, high = (double)n;
    while (high - low > 0.5) { /* bisection, since the length grows with k */
        double k = (low + high) / 2, length = 32 * k + (indices ? atomo__index_bits(k, (double)n) : 0);
        if (length > bits)
            high = k;
        else
            low = k;
    }
    return (int64_t)(low + 0.5);
}

double atomo__sum_square_at(const float *x, const uint32_t *index, int64_t m)
{
    double sum = 0;
    for (int64_t i = 0; i < m; i++) sum += (double)x[index[i]] * (double)x[index[i]];
    return sum;
}

int atomo__gradient_size(atomo__plan *plan, const float *g, double *sum, float *largest)
{
    atomo__measure(g, plan->n, sum, &plan->square, largest);
    return isfinite(*sum) ? ATOMO_OK : atomo__refuse_nonfinite(plan, g);
}
