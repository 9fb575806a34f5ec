/* request_wait.c - waits for a message, and says which one for the watchdog.
 *
 * A rank that waits for a message of another tag than was sent waits for ever. MPI does not compare tags, and it is no
 * error yet that a message of another tag is here: messages of different tags may be received in any order. So the wait
 * looks every second for one that nobody has asked for, and notes its tag. Path: stage 7.
 */
#include "comm/request.h"
#include <stdio.h>

void atomo__request_note_tag(const atomo_request *r, uint64_t flight, bool look)
{
    char text[2 * ATOMO_FLIGHT_NOTE];
    const char *to = r->receives ? "from" : "to";
    int n = snprintf(text, sizeof text, "tag %d %s rank %d", r->tag, to, (int)r->peer), here = 0;
    MPI_Status s = {0};
    if (look) MPI_Iprobe(r->source, MPI_ANY_TAG, r->comm->control, &here, &s);
    here = here && s.MPI_TAG != r->tag && s.MPI_TAG <= ATOMO_COMM_TAG_MAX;
    if (here) snprintf(text + n, sizeof text - (size_t)n, ", which sent one of tag %d", s.MPI_TAG);
    if (here || !look) atomo__flight_detail(flight, text, here);
}

int atomo__request_wait_piece(atomo_request *r, int i, uint64_t flight, MPI_Status *s)
{
    const bool looks = r->receives && r->compares && i == 0;
    atomo__pauses pauses = atomo__pauses_begin();
    double next = pauses.began + 1;
    for (;;) {
        int over, rc = MPI_Test(&r->piece[i], &over, s);
        if (rc != MPI_SUCCESS || over) return rc;
        atomo__pause(&pauses);
        if (!looks || atomo_time() < next) continue;
        atomo__request_note_tag(r, flight, true);
        next = atomo_time() + 1;
    }
}
