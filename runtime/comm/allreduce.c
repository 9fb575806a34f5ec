/* allreduce.c - the dense all-reduce: the sum (max, min, product) of a buffer over all ranks, on all ranks.
 *
 * The choice of an algorithm by size and link belongs here: callers see one function. At present it is the MPI
 * library's own choice. Path: stage 7.
 */
#include "comm/comm.h"

int atomo__allreduce(atomo_comm *c, void *data, int count, MPI_Datatype type, MPI_Op op)
{
    ATOMO_MPI(MPI_Allreduce, MPI_IN_PLACE, data, count, type, op, c->mpi);
    return ATOMO_OK;
}
