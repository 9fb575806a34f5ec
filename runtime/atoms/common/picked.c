/* picked.c - picks of rotated entries (sampling/picks.h): found, written and read; stages 5, 6 and 8 of the path.
 *
 * A pick is written as its place in its block, in a truncated binary code, lowest bit last, and its sign. Both sides
 * know the number of picks and so all blocks, so nothing else is written.
 */
#include "atoms/common/picked.h"
#include "coding/prefix_code.h"
#include <math.h>

/* ---- finding them ---- */

enum { COLUMNS = 32, LANES = 8, PLUS = INT32_MAX };

static int32_t bits_of(const float *y)
{
    int32_t bits;
    memcpy(&bits, y, 4);
    return bits;
}

/* The largest magnitudes of blocks first .. first + COLUMNS - 1 among their entries 0 .. rows - 1: value [COLUMNS], as
 * bits, and row [COLUMNS], the entries' numbers in their blocks. All entries of y that are read must exist; those of
 * blocks that do not are of no meaning. Magnitudes have the order of their bits. */
ATOMO_CLONES static void search(const float *y, int64_t m, int64_t rows, int32_t *restrict value, int32_t *restrict row)
{
    for (int l = 0; l < COLUMNS; l++) {
        value[l] = bits_of(y + l);
        row[l] = 0;
    }
    for (int64_t r = 1; r < rows; r++) {
        const float *x = y + r * m;
        for (int l = 0; l < COLUMNS; l++) {
            const int32_t a = bits_of(x + l);
            const bool more = (a & PLUS) > (value[l] & PLUS);
            value[l] = more ? a : value[l];
            row[l] = more ? (int32_t)r : row[l];
        }
    }
}

/* The same among entries rows .. of these blocks, of which there are `count`, one after the other. */
static void search_rest(const float *y, int64_t n, int64_t m, int64_t first, int64_t rows, int count, int32_t *value,
                        int32_t *row)
{
    for (int64_t r = rows; r * m + first < n; r++)
        for (int l = 0; l < count && r * m + first + l < n; l++) {
            const int32_t a = bits_of(y + r * m + first + l);
            if (r > 0 && (a & PLUS) <= (value[l] & PLUS)) continue;
            value[l] = a;
            row[l] = (int32_t)r;
        }
}

/* index [count] = the picks of blocks first .. first + count - 1 as places with their signs; adds their magnitudes to
 * sum [LANES]. */
ATOMO_CLONES static void finish(int64_t m, int64_t first, int count, const int32_t *restrict value,
                                const int32_t *restrict row, uint32_t *restrict index, double *restrict sum)
{
    const int32_t step = (int32_t)m, at = (int32_t)first;
    for (int l = 0; l < count; l++) index[l] = (uint32_t)(row[l] * step + at + l) | ((uint32_t)value[l] & ATOMO__MINUS);
    for (int l = 0; l < count; l++) {
        const int32_t plus = value[l] & PLUS;
        float v;
        memcpy(&v, &plus, 4);
        sum[l % LANES] += (double)v;
    }
}

double atomo__pick(const float *y, int64_t n, int64_t m, uint32_t *index)
{
    double sum[LANES] = {0}, all = 0;
    for (int64_t first = 0; first < m; first += COLUMNS) {
        int32_t value[COLUMNS] = {0}, row[COLUMNS] = {0};
        const int count = (int)ATOMO_MIN((int64_t)COLUMNS, m - first);
        /* the rows of which all COLUMNS entries from `first` on exist */
        const int64_t rows = n - first < COLUMNS ? 0 : (n - first - COLUMNS) / m + 1;
        const int64_t whole = ATOMO_MIN(rows, atomo__block_size(n, m, first + count - 1));
        if (whole > 0) search(y + first, m, whole, value, row);
        search_rest(y, n, m, first, whole, count, value, row);
        finish(m, first, count, value, row, index + first, sum);
    }
    for (int l = 0; l < LANES; l++) all += sum[l];
    return all;
}

/* ---- the message ---- */

/* The codes, each of bits [count] bits, of picks first .. first + count - 1, whose blocks have one size. Places are at
 * most 65536 (rotation.h: the most entries of a unit), so a product with 1 / m, rounded, is the exact quotient of a
 * multiple of m. */
ATOMO_CLONES static void find_codes(atomo__place_code c, int64_t m, int64_t first, int count,
                                    const uint32_t *restrict index, uint32_t *restrict code, uint32_t *restrict bits)
{
    const float inverse = 1 / (float)m;
    const int32_t at = (int32_t)first, shorter = (int32_t)c.shorter;
    const uint32_t usual = (uint32_t)c.bits;
    for (int i = 0; i < count; i++) {
        const int32_t in = (int32_t)(index[i] & ~ATOMO__MINUS) - at - i;
        const int32_t place = (int32_t)((float)in * inverse + 0.5f), more = place - shorter;
        const uint32_t is_long = more >= 0 ? 1 : 0, sum = (uint32_t)(place + shorter);
        const uint32_t head = is_long ? sum >> 1 | (sum & 1) << usual : (uint32_t)place;
        code[i] = head | (index[i] >> 31) << (usual + is_long);
        bits[i] = usual + 1 + is_long;
    }
}

void atomo__write_picks(atomo__writer *w, int64_t n, int64_t m, const uint32_t *index)
{
    uint32_t code[ATOMO__CODES], bits[ATOMO__CODES];
    atomo__writer to = *w; /* as its bytes might be any memory: so its fields can stay in registers */
    for (int64_t j = 0; j < m;) {
        const int64_t end = j < n % m ? n % m : m; /* of blocks of one size */
        const atomo__place_code c = atomo__place_code_of(atomo__block_size(n, m, j));
        for (int count; j < end; j += count) {
            count = (int)ATOMO_MIN((int64_t)ATOMO__CODES, end - j);
            find_codes(c, m, j, count, index + j, code, bits);
            atomo__put_codes(&to, code, bits, count); /* all, as none has more than 32 bits */
        }
    }
    *w = to;
}

bool atomo__read_picks(atomo__reader *r, int64_t n, int64_t m, uint32_t *index)
{
    atomo__reader from = *r;
    for (int64_t j = 0; j < m;) {
        const int64_t size = atomo__block_size(n, m, j), end = j < n % m ? n % m : m;
        const atomo__place_code c = atomo__place_code_of(size);
        const uint64_t mask = ((uint64_t)1 << c.bits) - 1;
        for (; j < end; j++) {
            atomo__refill(&from); /* always: a branch would be mispredicted, as would one for the code's length */
            const uint32_t head = (uint32_t)(from.word & mask), next = (uint32_t)(from.word >> c.bits & 1);
            const uint32_t is_long = head >= c.shorter;
            const int bits = c.bits + 1 + (int)is_long;
            if (from.fill < bits) {
                r->bad = true;
                return false;
            }
            const uint32_t place = head + is_long * (head + next - c.shorter);
            const uint32_t minus = (uint32_t)(from.word >> (bits - 1) & 1);
            from.word >>= bits;
            from.fill -= bits;
            index[j] = (uint32_t)((int64_t)place * m + j) | minus << 31;
        }
    }
    *r = from;
    return true;
}
