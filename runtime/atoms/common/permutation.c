/* permutation.c - a random permutation of a line, for rotations (rotation.c); stage 4 of the path.
 *
 * Groups of 16 entries change places by a keyed bijection of their numbers, and entry i of a group becomes entry i ^
 * move, with a random move for each group. So a line is permuted at the speed of a copy. Of all permutations few can
 * come; what is wanted is that no pattern of signs or places that butterflies leave outlives it.
 */
#include "atoms/common/permutation.h"
#include "sampling/sampling.h"
#ifdef ATOMO_X86
#include <immintrin.h>
#endif

atomo__permutation atomo__permutation_of(const atomo_stream *s, uint32_t first, int64_t groups)
{
    atomo__permutation p = {.mask = (uint32_t)groups - 1, .shift = (__builtin_ctzll((uint64_t)groups) + 1) / 2};
    atomo__random_words(s, first, ATOMO__PERMUTATION_BLOCKS, p.key);
    for (int i = 0; i < 3; i++) p.key[i] |= 1; /* odd factors are invertible */
    return p;
}

/* Of groups first .. first + GROUPS - 1 of row r: where they are taken from, by products and shifted sums, each of
 * which can be undone, and what their entries are moved by: entry i from i ^ move. */
enum { GROUPS = 64, LANES = ATOMO__LANES };
typedef struct {
    uint32_t place[GROUPS], move[GROUPS];
} places_of_groups;

ATOMO_CLONES static void find_places(const atomo__permutation *p, uint32_t first, uint32_t r,
                                     places_of_groups *restrict to)
{
    const uint32_t *k = p->key, mask = p->mask;
    const int shift = p->shift;
    for (uint32_t i = 0; i < GROUPS; i++) {
        uint32_t v = ((first + i) * k[0] + (k[3] >> 8) + r * k[4]) & mask, w = (first + i + k[5]) * (k[6] | 1);
        v ^= v >> shift;
        v = (v * k[1]) & mask;
        v ^= v >> shift;
        to->place[i] = (v * k[2]) & mask;
        w ^= w >> 15;
        to->move[i] = w * (k[7] | 1) >> 28;
    }
}

typedef int32_t masks __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define MOVE(v, bit, ...) (v) ^= ((v) ^ ATOMO__IN_ORDER(v, __VA_ARGS__)) & -(int32_t)((bit)&1)

/* to = the groups of `from`, moved, one by one from their places, or back to them. */
ATOMO_CLONES static void move_groups(const places_of_groups *at, int count, bool back, const float *from, float *to)
{
    for (int i = 0; i < count; i++) {
        const int64_t here = LANES * i, there = LANES * (int64_t)at->place[i];
        const uint32_t move = at->move[i];
        masks v = *(const masks *)(from + (back ? here : there));
        MOVE(v, move, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
        MOVE(v, move >> 1, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
        MOVE(v, move >> 2, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
        MOVE(v, move >> 3, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
        *(masks *)(to + (back ? there : here)) = v;
    }
}

#ifdef ATOMO_X86
/* The same with one instruction for the lanes. */
__attribute__((target("avx512f"))) static void move_groups_512(const places_of_groups *at, int count, bool back,
                                                               const float *from, float *to)
{
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int i = 0; i < count; i++) {
        const int64_t here = LANES * i, there = LANES * (int64_t)at->place[i];
        const __m512i order = _mm512_xor_epi32(lane, _mm512_set1_epi32((int32_t)at->move[i]));
        const __m512 v = _mm512_loadu_ps(from + (back ? here : there));
        _mm512_storeu_ps(to + (back ? there : here), _mm512_permutexvar_ps(order, v));
    }
}
#endif

void atomo__permute(const atomo__permutation *p, int rows, bool back, const float *from, float *to)
{
    void (*move)(const places_of_groups *, int, bool, const float *, float *) = move_groups;
#ifdef ATOMO_X86
    if (__builtin_cpu_supports("avx512f")) move = move_groups_512;
#endif
    const int64_t groups = (int64_t)p->mask + 1;
    for (int r = 0; r < rows; r++, from += LANES * groups, to += LANES * groups)
        for (int64_t v = 0; v < groups; v += GROUPS) {
            places_of_groups at;
            find_places(p, (uint32_t)v, (uint32_t)r, &at);
            const float *source = back ? from + LANES * v : from;
            move(&at, (int)ATOMO_MIN((int64_t)GROUPS, groups - v), back, source, back ? to : to + LANES * v);
        }
}
