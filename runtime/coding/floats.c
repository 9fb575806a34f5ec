/* floats.c - adds vectors to the sum of decoded gradients; stages 6 and 8 of the path. Uncompressed floats of a message
 * are the bodies of "none" and of dense forms.
 */
#include "coding/messages.h"
#include <string.h>

ATOMO_CLONES bool atomo__add_floats(const uint8_t *restrict in, int64_t n, float scale, float *restrict acc)
{
    uint32_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        float x;
        memcpy(&bits, in + 4 * i, 4);
        memcpy(&x, in + 4 * i, 4);
        bad |= (bits & 0x7F800000) == 0x7F800000 ? 1 : 0;
        acc[i] += scale * x;
    }
    return !bad;
}

ATOMO_CLONES void atomo__add_scaled(const float *restrict x, int64_t n, float scale, float *restrict acc)
{
    for (int64_t i = 0; i < n; i++) acc[i] += scale * x[i];
}
