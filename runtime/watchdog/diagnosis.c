/* diagnosis.c - describes a stall in words: which ranks the others wait for, and what these ranks do. Path: stage 7. */
#include "watchdog/watchdog.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { NAMED = 8 }; /* ranks that are listed; of more, only the number is given */

typedef struct text {
    char *at;    /* where the next text goes */
    size_t left; /* bytes from there */
} text;

static void say(text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(t->at, t->left, fmt, args);
    va_end(args);
    size_t k = n < 0 ? 0 : ATOMO_MIN((size_t)n, t->left - 1);
    t->at += k;
    t->left -= k;
}

static bool waits_in_the_same(const atomo_stall *s, const atomo_peer *p)
{
    return p->state.waiting && p->state.number == s->op->number && strcmp(p->state.operation, s->op->operation) == 0;
}

/* What a rank does: does not answer; is in its script; waits in another operation; waits in the stalled operation. */
enum kind { SILENT, BUSY, ELSEWHERE, WAITS, KINDS };

static enum kind kind_of(const atomo_stall *s, int i)
{
    const atomo_peer *p = &s->peers[i];
    if (i == s->own) return WAITS;
    if (!p->answered) return SILENT;
    if (!p->state.waiting) return BUSY;
    return waits_in_the_same(s, p) ? WAITS : ELSEWHERE;
}

static void name_operation(text *t, const char *operation, uint32_t number, const char *note)
{
    say(t, "%s", operation);
    if (number) say(t, " #%u", number);
    if (*note) say(t, " for '%s'", note);
}

static void describe(text *t, const atomo_peer *p, enum kind kind)
{
    const atomo_query_state *s = &p->state;
    say(t, "  rank %d (pid %d on %s) ", p->rank, p->pid, p->host);
    if (kind == SILENT) {
        say(t, "gives no sign of life: stopped, or its host is down, or UDP to it is blocked\n");
        return;
    }
    say(t, kind == BUSY ? "is in its script for %.0f s" : "is elsewhere for %.0f s: in ", s->seconds);
    if (kind == BUSY && *s->operation) say(t, ", after ");
    if (*s->operation) name_operation(t, s->operation, s->number, s->note);
    if (s->step >= 0) say(t, ", step %.0f", s->step);
    say(t, "\n");
}

static void list_ranks(text *t, const atomo_stall *s, enum kind kind)
{
    int n = 0;
    for (int i = 0; i < s->n; i++) {
        if (kind_of(s, i) != kind) continue;
        if (++n <= NAMED) say(t, "%s%d", n > 1 ? ", " : "", s->peers[i].rank);
    }
    if (n > NAMED) say(t, " and %d more", n - NAMED);
}

void atomo__stall_text(const atomo_stall *s, char *out, size_t size)
{
    text t = {out, size};
    int count[KINDS] = {0};
    for (int i = 0; i < s->n; i++) count[kind_of(s, i)]++;
    say(&t, "no progress for %.0f s in ", s->waited);
    name_operation(&t, s->op->operation, s->op->number, s->op->note);
    say(&t, " (%.0f bytes)", s->op->bytes);
    if (count[WAITS] == s->n) {
        say(&t, "; all %d ranks wait in it: the network delivers nothing\n", s->n);
        return;
    }
    say(&t, "; waiting for\n");
    for (int kind = SILENT, named = 0; kind < WAITS; kind++)
        for (int i = 0; i < s->n; i++)
            if ((int)kind_of(s, i) == kind && ++named <= 2 * NAMED) describe(&t, &s->peers[i], (enum kind)kind);
    if (count[SILENT] + count[BUSY] + count[ELSEWHERE] > 2 * NAMED) say(&t, "  and others\n");
    say(&t, "  in it and waiting: rank%s ", count[WAITS] > 1 ? "s" : "");
    list_ranks(&t, s, WAITS);
    say(&t, "\n");
}

bool atomo__stall_spoken_for(const atomo_stall *s, double least)
{
    for (int i = 0; i < s->n; i++) {
        const atomo_peer *p = &s->peers[i];
        if (p->rank >= s->peers[s->own].rank || !p->answered || !p->state.waiting || p->state.ended) continue;
        if (waits_in_the_same(s, p) || p->state.seconds >= least) return true;
    }
    return false;
}
