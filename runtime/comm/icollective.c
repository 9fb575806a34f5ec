/* icollective.c - non-blocking collectives. They return requests (request.c).
 *
 * Each operation sends its fingerprint along. A rank that waits for the request first compares the fingerprints of all
 * ranks, so ranks that have begun different operations get an error instead of a hang or a wrong result. MPI cannot
 * cancel a collective that has begun, so the communicator cannot be used after such an error. Path: stage 7.
 */
#include "comm/request.h"

/* Makes a request, and starts the exchange of fingerprints if the communicator compares them on waiting. */
static int new_request(const char *what, atomo_comm *c, const atomo_tensor *t, int operation, int detail,
                       atomo_request **out)
{
    const bool compares = atomo__comm_compares_late(c);
    ATOMO_TRY(atomo__request_new(what, c, -1, t, compares, out));
    atomo_request *r = *out;
    r->ordinal = ++c->begun.other;
    atomo__request_count_open(r, true);
    if (!compares) return ATOMO_OK;
    const int n = (int)sizeof r->own;
    r->operation = operation;
    r->own = atomo__fingerprint_make(c, operation, t ? t->dtype : 0, detail, t ? t->numel : 0);
    const int rc = MPI_Iallgather(&r->own, n, MPI_BYTE, r->fingerprints, n, MPI_BYTE, c->control, &r->piece[0]);
    if (rc != MPI_SUCCESS) return atomo__request_post_failed(r, 0, rc, "MPI_Iallgather");
    atomo__comm_count(c, n * (c->size - 1.0), n * (c->size - 1.0));
    return ATOMO_OK;
}

int atomo_comm_ibarrier(atomo_comm *c, atomo_request **out)
{
    ATOMO_TRY(atomo__comm_usable(c, "ibarrier"));
    ATOMO_TRY(atomo__fingerprint_compare_if_all(c, COMM_IBARRIER, 0, 0, 0));
    atomo_request *r = NULL;
    ATOMO_TRY(new_request("ibarrier", c, NULL, COMM_IBARRIER, 0, &r));
    int rc = MPI_Ibarrier(c->mpi, &r->piece[r->first]);
    if (rc != MPI_SUCCESS) return atomo__request_post_failed(r, r->first, rc, "MPI_Ibarrier");
    *out = r;
    return ATOMO_OK;
}

int atomo_comm_iallreduce(atomo_comm *c, atomo_tensor *t, int op, atomo_request **out)
{
    MPI_Op mpi_op;
    ATOMO_TRY(atomo__comm_usable(c, "iallreduce"));
    ATOMO_TRY(atomo__comm_buffer(t, "iallreduce: tensor"));
    ATOMO_TRY(atomo__mpi_op(op, t->dtype, "iallreduce", &mpi_op));
    ATOMO_TRY(atomo__fingerprint_compare_if_all(c, COMM_IALLREDUCE, t->dtype, op, t->numel));
    atomo__requests_reap(false);
    atomo_request *r = NULL;
    ATOMO_TRY(new_request("iallreduce", c, t, COMM_IALLREDUCE, op, &r));
    r->writes = true;
    for (int i = r->first, count; i < r->n; i++) {
        char *p = atomo__request_piece(t, i - r->first, &count);
        int rc = MPI_Iallreduce(MPI_IN_PLACE, p, count, atomo__mpi_type(t->dtype), mpi_op, c->mpi, &r->piece[i]);
        if (rc != MPI_SUCCESS) return atomo__request_post_failed(r, i, rc, "MPI_Iallreduce");
    }
    double bytes = 2 * atomo__tensor_bytes(t) * (c->size - 1) / c->size;
    atomo__comm_count(c, bytes, bytes);
    *out = r;
    return ATOMO_OK;
}

int atomo_comm_ibcast(atomo_comm *c, atomo_tensor *t, int root, atomo_request **out)
{
    ATOMO_TRY(atomo__comm_usable(c, "ibcast"));
    ATOMO_TRY(atomo__comm_buffer(t, "ibcast: tensor"));
    ATOMO_TRY(atomo__comm_root(c, root, "ibcast: root"));
    ATOMO_TRY(atomo__fingerprint_compare_if_all(c, COMM_IBCAST, t->dtype, root, t->numel));
    atomo__requests_reap(false);
    atomo_request *r = NULL;
    ATOMO_TRY(new_request("ibcast", c, t, COMM_IBCAST, root, &r));
    r->writes = c->rank != root;
    for (int i = r->first, count; i < r->n; i++) {
        char *p = atomo__request_piece(t, i - r->first, &count);
        int rc = MPI_Ibcast(p, count, atomo__mpi_type(t->dtype), root, c->mpi, &r->piece[i]);
        if (rc != MPI_SUCCESS) return atomo__request_post_failed(r, i, rc, "MPI_Ibcast");
    }
    double bytes = atomo__tensor_bytes(t);
    atomo__comm_count(c, c->rank == root ? bytes * (c->size - 1) : 0, c->rank == root ? 0 : bytes);
    *out = r;
    return ATOMO_OK;
}
