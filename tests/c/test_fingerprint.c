/* test_fingerprint.c - the error text when two ranks are in different operations, and when a rank's bytes are no
 * fingerprint (another version's, say). The test replaces two MPI functions, so that one process plays both ranks. */
#include "check.h"
#include "comm/comm.h"

static atomo_fingerprint other; /* what rank 1 sends */

int MPI_Iallgather(const void *send, int n, MPI_Datatype type, void *recv, int m, MPI_Datatype same, MPI_Comm comm,
                   MPI_Request *request)
{
    (void)type, (void)m, (void)same, (void)comm;
    memcpy(recv, send, (size_t)n);
    memcpy((char *)recv + n, &other, (size_t)n);
    *request = MPI_REQUEST_NULL;
    return MPI_SUCCESS;
}

int MPI_Testall(int n, MPI_Request *requests, int *over, MPI_Status *statuses)
{
    (void)n, (void)requests, (void)statuses;
    *over = 1;
    return MPI_SUCCESS;
}

/* Rank 0 is in an all-reduce (#7) of 300 f32, summed. */
static int compare(void)
{
    atomo_fingerprint fingerprints[2];
    atomo_comm c = {.size = 2, .sequence = 7, .fingerprints = fingerprints, .tag = "layer3"};
    return atomo__fingerprint_compare(&c, COMM_ALLREDUCE, ATOMO_F32, ATOMO_MPI_SUM, 300, true);
}

static void names_both(void)
{
    other = (atomo_fingerprint){7, COMM_REDUCE, ATOMO_I32, 1 << 2 | ATOMO_MPI_MAX, 0, 20, ""};
    CHECK_STATUS(compare(), ATOMO_EMISMATCH,
                 "allreduce: the ranks disagree: rank 0 is in allreduce #7 (f32, 300 elements, sum) for 'layer3', "
                 "rank 1 is in reduce #7 (i32, 20 elements, max, root 1)");
    other = (atomo_fingerprint){8, COMM_ALLGATHERV, ATOMO_U8, 0, 0, 20, "layer4"};
    CHECK_STATUS(compare(), ATOMO_EMISMATCH, "rank 1 is in allgatherv #8 (u8, 20 bytes) for 'layer4'");
    other = (atomo_fingerprint){7, COMM_BARRIER, 0, 0, 0, 0, ""};
    CHECK_STATUS(compare(), ATOMO_EMISMATCH, "rank 1 is in barrier #7");
}

static void bytes_of_something_else(void)
{
    const char *text = "rank 1 sends bytes that are no fingerprint";
    other = (atomo_fingerprint){7, 60000, ATOMO_F32, 0, 0, 300, ""};
    CHECK_STATUS(compare(), ATOMO_EMISMATCH, text);
    other = (atomo_fingerprint){7, COMM_OPERATIONS, ATOMO_F32, 0, 0, 300, ""};
    CHECK_STATUS(compare(), ATOMO_EMISMATCH, text);
    other = (atomo_fingerprint){7, COMM_ALLREDUCE, 60000, 0, 0, 300, ""};
    CHECK_STATUS(compare(), ATOMO_EMISMATCH, text);
}

int main(void)
{
    RUN(names_both);
    RUN(bytes_of_something_else);
    return check_done();
}
