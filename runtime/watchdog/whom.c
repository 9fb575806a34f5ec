/* whom.c - which ranks a watchdog asks about a stall. Path: stage 7.
 *
 * If each of P waiting ranks asked all others, a slow start of a large job would send P^2 packets. So a rank first asks
 * a few, which is enough to see whether the next rank has left or a lower one speaks, and all others only before it
 * says something itself.
 */
#include "watchdog/watchdog.h"

bool atomo__whom_to_ask(const bool *member, int n, int own, int reach, bool lowest, bool *asked)
{
    int members = 0, chosen = 0;
    for (int i = 0; i < n; i++) {
        members += member[i];
        asked[i] = false;
    }
    for (int k = 1; k < n && chosen < reach; k++) {
        const int i = (own + k) % n;
        asked[i] = member[i];
        chosen += member[i];
    }
    for (int i = 0, few = 0; lowest && i < n && few < ATOMO__FEW; i++) {
        chosen += member[i] && !asked[i];
        asked[i] = asked[i] || member[i];
        few += member[i];
    }
    return chosen == members;
}

bool atomo__next_has_left(const atomo_stall *s)
{
    for (int k = 1; k < s->n; k++) {
        const atomo_peer *p = &s->peers[(s->own + k) % s->n];
        if (p->answered && (p->state.ended || p->state.waiting)) return p->state.ended;
    }
    return false;
}

bool atomo__another_waits(const atomo_stall *s)
{
    for (int i = 0; i < s->n; i++)
        if (i != s->own && s->peers[i].answered && s->peers[i].state.waiting) return true;
    return false;
}
