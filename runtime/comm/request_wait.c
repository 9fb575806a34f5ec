/* request_wait.c - waits for a message, and says which one for the watchdog.
 *
 * A rank that waits for a message of another tag than was sent waits for ever. MPI does not compare tags, and it is no
 * error yet that a message of another tag is here: messages of different tags may be received in any order. So the wait
 * looks every second for one that nobody has asked for, and notes its tag. Path: stage 7.
 */
#include "comm/request.h"
#include <stdio.h>

int atomo__request_other_tag(const atomo_request *r)
{
    MPI_Status s = {0};
    int here = 0;
    MPI_Iprobe(r->source, MPI_ANY_TAG, r->compares ? r->comm->control : r->comm->mpi, &here, &s);
    return here && s.MPI_TAG != r->tag && s.MPI_TAG <= ATOMO_COMM_TAG_MAX ? s.MPI_TAG : -1;
}

void atomo__request_note_tag(const atomo_request *r, uint64_t flight, bool look)
{
    char text[2 * ATOMO_FLIGHT_NOTE];
    const char *to = r->receives ? "from" : "to";
    const int n = snprintf(text, sizeof text, "tag %d %s rank %d", r->tag, to, (int)r->peer);
    const int other = look ? atomo__request_other_tag(r) : -1;
    if (other >= 0) snprintf(text + n, sizeof text - (size_t)n, ", which sent one of tag %d", other);
    if (other >= 0 || !look) atomo__flight_detail(flight, text, other >= 0);
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
        if (atomo__pauses_look(&pauses) && (r->failed = atomo__ended_look_request(r, i, &pauses)) < 0)
            return MPI_SUCCESS;
        if (!looks || atomo_time() < next) continue;
        atomo__request_note_tag(r, flight, true);
        next = atomo_time() + 1;
    }
}
