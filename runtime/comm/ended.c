/* ended.c - tells waiting ranks that a rank's script has ended, so that a wait in vain fails within two seconds.
 *
 * A rank that has waited for ASK_AFTER seconds asks the ranks that it waits for to say when their scripts end: by an
 * empty message, once for each rank and communicator. A rank that runs its script does not look for such questions. At
 * the end of the program it answers those that are here, and those that come. MPI matches the messages from one rank on
 * one communicator in the order in which they were sent. So when the answer is here, all that the rank ever sent on
 * that communicator is here, too, however long it was under way:
 *
 * - A receive that can still be cancelled waits for a message that was never sent.
 * - A rank that ends cancels the receives that nobody waits for, and answers when those that had a message already are
 *   done. A send that is not over by then is received by nobody.
 * - The answer says in how many collectives of the communicator the rank took part. Later ones never end.
 *
 * About a collective a rank asks at most MOST_ASKED ranks. The watchdog finds the other cases: a rank beyond these in a
 * larger communicator, a communicator that one rank has closed, and waits inside MPI. Path: stage 7.
 */
#include "comm/request.h"
#include <stdio.h>
#include <string.h>

static const double ASK_AFTER = 0.5;  /* seconds of a wait before it asks */
static const double SETTLE = 0.25;    /* seconds from an answer to the error, for other answers and the end of a send */
static const double COMPARING = 1.25; /* the same for the world (first opened, last of the list), whose fingerprints
                                         show the end, too, and say more */
enum { MOST_ASKED = 16 };

static _Atomic bool closing, at_end; /* the script has ended; and the engine has stopped, so nothing more is sent */
static char lost[512]; /* error text of a wait that failed while `closing`: no script is left to raise it */

void atomo__ended_script(void)
{
    closing = true;
}

int atomo__ended_begin(void)
{
    at_end = true;
    ATOMO_REQUIRE(!*lost, ATOMO_EMISMATCH, "%s", lost);
    return ATOMO_OK;
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

static void send_small(const atomo_collectives *begun, int n, int rank, int tag, MPI_Comm on)
{
    MPI_Request request;
    if (MPI_Isend(begun, n, MPI_BYTE, rank, tag, on, &request) == MPI_SUCCESS) MPI_Request_free(&request);
}

static void answer(atomo_comm *c)
{
    MPI_Status s;
    for (int here; MPI_Iprobe(MPI_ANY_SOURCE, TAG_ASK, c->mpi, &here, &s) == MPI_SUCCESS && here; c->unanswered++) {
        if (MPI_Recv(NULL, 0, MPI_BYTE, s.MPI_SOURCE, TAG_ASK, c->mpi, MPI_STATUS_IGNORE) != MPI_SUCCESS) return;
        c->ends[s.MPI_SOURCE].asks = true;
    }
    c->begun.blocking = c->group.number;
    for (int r = 0; r < c->size && c->unanswered > 0; r++) {
        if (!c->ends[r].asks || atomo__requests_receive_from(c, r)) continue;
        c->ends[r].asks = false;
        c->unanswered--;
        send_small(&c->begun, (int)sizeof c->begun, r, TAG_ENDED, c->mpi);
        send_small(&c->begun, (int)sizeof c->begun, r, TAG_ENDED, c->control);
    }
}

/* ---- questions ------------------------------------------------------------------------------------------------- */

static void receive_answer(atomo__end *e, int from, MPI_Comm on, bool *here)
{
    int there = 0;
    if (*here || MPI_Iprobe(from, TAG_ENDED, on, &there, MPI_STATUS_IGNORE) != MPI_SUCCESS || !there) return;
    *here = MPI_Recv(&e->begun, (int)sizeof e->begun, MPI_BYTE, from, TAG_ENDED, on, MPI_STATUS_IGNORE) == MPI_SUCCESS;
}

static bool has_ended(atomo_comm *c, int rank)
{
    atomo__end *e = &c->ends[rank];
    if (!e->asked) send_small(NULL, 0, rank, TAG_ASK, c->mpi);
    e->asked = true;
    receive_answer(e, rank, c->mpi, &e->here);
    receive_answer(e, rank, c->control, &e->here_control);
    return e->here && e->here_control;
}

/* Returns the lowest rank that ended before the collective, of those that are asked; -1: none has. */
static int missing(atomo_comm *c, uint32_t blocking, uint32_t other)
{
    int found = -1;
    for (int k = 1; k < c->size && k <= MOST_ASKED; k++) {
        const int r = (c->rank + k) % c->size;
        if (!has_ended(c, r)) continue;
        if (c->ends[r].begun.blocking >= blocking && c->ends[r].begun.other >= other) continue;
        if (found < 0 || c->world_rank[r] < c->world_rank[found]) found = r;
    }
    return found;
}

static bool settled(atomo__pauses *p, double seconds)
{
    const double now = atomo_time();
    if (!p->vain) p->vain = now;
    return now - p->vain >= seconds;
}

static const char *name_of(const atomo_comm *c, int rank, char *out, size_t n)
{
    if (c->world_rank[rank] == rank)
        snprintf(out, n, "rank %d", rank);
    else
        snprintf(out, n, "rank %d (%d of this communicator)", c->world_rank[rank], rank);
    return out;
}

static int refuse_collective(atomo_comm *c, int rank)
{
    char name[64], purpose[ATOMO_FLIGHT_NOTE + 8] = "";
    atomo_flight_op op = {.operation = "a collective"};
    uint64_t progress;
    atomo__flight_last(&op, &progress);
    if (*op.note) snprintf(purpose, sizeof purpose, " for '%s'", op.note);
    const int status = atomo__fail(ATOMO_EMISMATCH,
                                   "%s%s: waits for %s, which has ended its script; expected the same operations in "
                                   "the same order on all ranks",
                                   op.operation, purpose, name_of(c, rank, name, sizeof name));
    if (!*c->parted) snprintf(c->parted, sizeof c->parted, "%s", atomo_last_error());
    if (closing) snprintf(lost, sizeof lost, "%s", atomo_last_error());
    return status;
}

static int look_for(atomo_comm *c, uint32_t blocking, uint32_t other, atomo__pauses *p)
{
    if (atomo_time() - p->began < ASK_AFTER) return ATOMO_OK;
    if (c->size <= MOST_ASKED + 1) atomo__flight_asks();
    const int r = missing(c, blocking, other);
    return r >= 0 && settled(p, !c->next ? COMPARING : SETTLE) ? refuse_collective(c, r) : ATOMO_OK;
}

int atomo__ended_look(atomo_comm *c, atomo__pauses *p)
{
    if (!at_end) return look_for(c, c->group.number, 0, p);
    atomo__requests_reap(false);
    for (atomo_comm *each = atomo__comms_open; each; each = each->next) answer(each);
    return ATOMO_OK;
}

static int refuse_message(const atomo_request *r)
{
    char name[64], other[40] = "";
    const int tag = r->receives ? atomo__request_other_tag(r) : -1;
    if (tag >= 0) snprintf(other, sizeof other, " (it sent one of tag %d)", tag);
    return atomo__fail(ATOMO_EMISMATCH,
                       "%s: waits %s a message of tag %d (%.0f bytes) %s %s, which has ended its script%s; expected a "
                       "%s on that rank",
                       r->what, r->receives ? "for" : "with", r->tag, atomo__tensor_bytes(r->hold),
                       r->receives ? "from" : "for", name_of(r->comm, r->source, name, sizeof name), other,
                       r->receives ? "send" : "receive");
}

/* A receive's piece i is cancelled, unless a message has come for it. Returns whether it was. */
static bool cancelled(atomo_request *r, int i)
{
    MPI_Status s;
    int is = 0, over = 0;
    MPI_Request piece = r->piece[i];
    if (MPI_Cancel(&piece) != MPI_SUCCESS || MPI_Request_get_status(piece, &over, &s) != MPI_SUCCESS || !over)
        return false;
    return MPI_Test_cancelled(&s, &is) == MPI_SUCCESS && is;
}

int atomo__ended_look_request(atomo_request *r, int i, atomo__pauses *p)
{
    if (!r->message) return look_for(r->comm, 0, r->ordinal, p);
    if (r->source == r->comm->rank || atomo_time() - p->began < ASK_AFTER) return ATOMO_OK;
    atomo__flight_asks();
    if (!has_ended(r->comm, r->source)) return ATOMO_OK;
    if (r->receives ? i > 0 || !cancelled(r, i) : !settled(p, SETTLE)) return ATOMO_OK; /* 0: sent with the others */
    return refuse_message(r);
}
