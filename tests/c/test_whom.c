/* Which ranks a watchdog asks about a stall (watchdog/whom.c): all of a small job; of a large one so few that the
 * packets grow with the ranks, and yet a rank that has left is found. */
#include "check.h"
#include "watchdog/watchdog.h"
#include <string.h>

enum { MOST = 1500 };
static bool member[MOST], asked[MOST];
static atomo_peer peers[MOST];
static uint32_t seed = 1;

static uint32_t below(uint32_t n)
{
    seed = seed * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)seed * n >> 32);
}

static int count(const bool *set, int n)
{
    int k = 0;
    for (int i = 0; i < n; i++) k += set[i];
    return k;
}

static void everyone_but(int n, int own)
{
    for (int i = 0; i < n; i++) member[i] = i != own;
}

static void few_ranks(void)
{
    for (int n = 2; n <= ATOMO__FEW + 1; n++)
        for (int own = 0; own < n; own++) {
            everyone_but(n, own);
            CHECK(atomo__whom_to_ask(member, n, own, ATOMO__FEW, false, asked));
            CHECK(count(asked, n) == n - 1 && !asked[own]);
        }
}

static void many_ranks(void)
{
    const int n = 100, own = 95;
    everyone_but(n, own);
    member[97] = false;
    CHECK(!atomo__whom_to_ask(member, n, own, ATOMO__FEW, false, asked));
    CHECK(count(asked, n) == ATOMO__FEW && asked[96] && !asked[97] && asked[98] && asked[99] && asked[12] &&
          !asked[13]);
    CHECK(!atomo__whom_to_ask(member, n, 50, ATOMO__FEW, true, asked)); /* and the lowest */
    CHECK(count(asked, n) == 2 * ATOMO__FEW && asked[0] && asked[15] && !asked[16] && asked[51] && asked[66]);
    CHECK(atomo__whom_to_ask(member, n, own, n, true, asked) && count(asked, n) == n - 2);
}

/* Rank `own`'s stall, with the answers of those it has asked. left, late: the ranks that have left, and that do not
 * wait. */
static atomo_stall stall_of(int n, int own, const bool *left, const bool *late)
{
    atomo_stall s = {.peers = peers};
    for (int i = 0; i < n; i++) {
        if (i == own) s.own = s.n;
        if (i != own && !asked[i]) continue;
        peers[s.n] = (atomo_peer){.rank = i, .answered = i != own && !(late[i] && i % 2)};
        peers[s.n].state.ended = left[i];
        peers[s.n++].state.waiting = left[i] || !late[i];
    }
    return s;
}

/* Jobs of random states: if a rank has left, the waiting rank before it finds that out. */
static void someone_speaks(void)
{
    static const int sizes[] = {2, 16, 18, 40, 300, MOST};
    static bool left[MOST], late[MOST];
    for (int trial = 0; trial < 60; trial++) {
        const int n = sizes[trial % 6], odds = trial % 4;
        int waiting = 0, gone = 0, speakers = 0;
        int64_t packets = 0;
        for (int i = 0; i < n; i++) {
            left[i] = below((uint32_t)n) < 2;
            late[i] =
                !left[i] && odds > 0 && below(1 + (odds == 1 ? 2 : (uint32_t)n / 2)) > 0; /* none, 2/3, nearly all */
        }
        left[trial % n] = true, late[trial % n] = false;
        left[(trial + n / 2) % n] = late[(trial + n / 2) % n] = false;
        for (int own = 0; own < n; own++) {
            gone += left[own];
            if (left[own] || late[own]) continue;
            waiting++;
            everyone_but(n, own);
            for (int reach = ATOMO__FEW;; reach *= 2) {
                const bool all = atomo__whom_to_ask(member, n, own, ATOMO_MIN(reach, n), false, asked);
                packets += count(asked, n);
                const atomo_stall s = stall_of(n, own, left, late);
                speakers += atomo__next_has_left(&s);
                if (atomo__next_has_left(&s) || atomo__another_waits(&s) || all) break;
            }
        }
        CHECK(speakers >= 1 && speakers <= gone);
        CHECK(packets <= (int64_t)ATOMO__FEW * waiting + 4 * n);
    }
}

int main(void)
{
    RUN(few_ranks);
    RUN(many_ranks);
    RUN(someone_speaks);
    return check_done();
}
