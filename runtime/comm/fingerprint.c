/* fingerprint.c - fingerprints, which check that all ranks are in the same operation.
 *
 * MPI does not detect that ranks call different collectives, or the same one with different counts or types. That may
 * fail on one rank, hang, or give wrong numbers. Collectives with lengths that differ must exchange these first, so
 * that exchange carries {sequence, operation, type, detail, crc, count, tag}. Every rank sees all fingerprints, so all
 * find the same difference and return the same error. The other blocking collectives compare fingerprints, too, unless
 * atomo_comm_set_checked turns it off. Non-blocking ones send them along and compare them when the request is waited
 * for, or before they begin with ATOMO_MPI_CHECK=1. Path: stage 7.
 */
#include "comm/comm.h"
#include "tensor/tensor.h"
#include <stdio.h>
#include <string.h>

static const char *const operation_names[] = {
#define ROW(name, text) text,
    ATOMO_COMM_OPERATIONS(ROW)
#undef ROW
};

/* Writes a text such as " (f32, 300 elements, sum)"; returns its length. */
static int describe_data(const atomo_fingerprint *f, char *text, size_t n)
{
    static const char *const reductions[] = {"sum", "max", "min", "prod"};
    const bool bytes =
        f->operation == COMM_ALLGATHERV || f->operation == COMM_ALLTOALLV || f->operation == COMM_ALLGATHER_PARTS;
    int k = snprintf(text, n, " (%s, %.0f %s", atomo__dtype_name(f->dtype), f->count, bytes ? "bytes" : "elements");
    if (f->operation == COMM_ALLREDUCE || f->operation == COMM_REDUCE || f->operation == COMM_IALLREDUCE)
        k += snprintf(text + k, n - (size_t)k, ", %s", reductions[f->detail & 3]);
    if (f->operation == COMM_REDUCE) k += snprintf(text + k, n - (size_t)k, ", root %d", f->detail >> 2);
    if (f->operation == COMM_BCAST || f->operation == COMM_GATHER || f->operation == COMM_IBCAST)
        k += snprintf(text + k, n - (size_t)k, ", root %d", f->detail);
    return k + snprintf(text + k, n - (size_t)k, ")");
}

/* Writes a text such as "rank 2 is in allreduce #12 (f32, 300 elements, sum) for 'layer3'". */
static void describe(const atomo_fingerprint *f, int rank, char *text, size_t n)
{
    if (f->operation >= COMM_OPERATIONS || f->dtype >= ATOMO_DTYPES) {
        snprintf(text, n, "rank %d sends bytes that are no fingerprint (in another operation?)", rank);
        return;
    }
    int k = snprintf(text, n, "rank %d is in %s #%u", rank, operation_names[f->operation], f->sequence);
    if (f->operation != COMM_CHECK && f->operation != COMM_BARRIER && f->operation != COMM_SPLIT &&
        f->operation != COMM_END && f->operation != COMM_IBARRIER)
        k += describe_data(f, text + k, n - (size_t)k);
    if (*f->tag) snprintf(text + k, n - (size_t)k, " for '%.*s'", (int)sizeof f->tag, f->tag);
}

static bool differs(const atomo_fingerprint *a, const atomo_fingerprint *b, bool exact)
{
    return a->sequence != b->sequence || a->operation != b->operation || a->dtype != b->dtype ||
           a->detail != b->detail || a->crc != b->crc || memcmp(a->tag, b->tag, sizeof a->tag) != 0 ||
           (exact && a->count != b->count);
}

/* Sends f to all ranks; c->fingerprints[r] = the fingerprint of rank r. */
static int exchange(atomo_comm *c, const atomo_fingerprint *f)
{
    int n = (int)sizeof *f;
    MPI_Request request;
    ATOMO_MPI(MPI_Iallgather, f, n, MPI_BYTE, c->fingerprints, n, MPI_BYTE, c->control, &request);
    ATOMO_TRY(atomo__comm_wait(c, 1, &request));
    atomo__comm_count(c, n * (c->size - 1.0), n * (c->size - 1.0));
    return ATOMO_OK;
}

/* EMISMATCH: ranks 0 and r are in different operations, or in one with different tensors. */
static int disagree(const char *operation, const atomo_fingerprint *fingerprints, int r)
{
    char a[160], b[160];
    describe(&fingerprints[0], 0, a, sizeof a);
    describe(&fingerprints[r], r, b, sizeof b);
    return atomo__fail(ATOMO_EMISMATCH,
                       "%s: the ranks disagree: %s, %s; expected the same operations in the same order on all ranks, "
                       "with the same types and sizes",
                       operation, a, b);
}

static int first_difference(const atomo_fingerprint *fingerprints, int ranks, bool exact)
{
    for (int r = 1; r < ranks; r++)
        if (differs(&fingerprints[0], &fingerprints[r], exact)) return r;
    return 0;
}

/* EMISMATCH, naming two ranks and their operations, if fingerprints differ. */
static int judge(const atomo_fingerprint *fingerprints, int ranks, int operation, bool exact)
{
    const int r = first_difference(fingerprints, ranks, exact);
    return r ? disagree(operation_names[operation], fingerprints, r) : ATOMO_OK;
}

atomo_fingerprint atomo__fingerprint_make(atomo_comm *c, int operation, int dtype, int detail, double count)
{
    atomo_fingerprint f = {c->sequence++, (uint16_t)operation, (uint16_t)dtype, detail, 0, count, ""};
    const char *purpose = atomo__flight_purpose(), *text = *c->tag ? c->tag : purpose;
    f.crc = atomo__crc32(atomo__crc32(0, c->tag, strlen(c->tag)), purpose, strlen(purpose));
    memcpy(f.tag, text, ATOMO_MIN(strlen(text), sizeof f.tag));
    return f;
}

bool atomo__comm_compares_late(const atomo_comm *c)
{
    return c->checked == CHECK_BLOCKING && !atomo__comm_checked && c->size > 1;
}

static bool is_begun(const atomo_fingerprint *f)
{
    return f->operation == COMM_IBARRIER || f->operation == COMM_IBCAST || f->operation == COMM_IALLREDUCE;
}

int atomo__fingerprint_judge_late(atomo_comm *c, const atomo_fingerprint *fingerprints, int operation)
{
    const int status = judge(fingerprints, c->size, operation, true);
    if (status < 0 && !*c->parted) snprintf(c->parted, sizeof c->parted, "%s", atomo_last_error());
    return status;
}

int atomo__fingerprint_compare(atomo_comm *c, int operation, int dtype, int detail, double count, bool exact)
{
    const atomo_fingerprint f = atomo__fingerprint_make(c, operation, dtype, detail, count);
    ATOMO_TRY(exchange(c, &f));
    bool late = false; /* a rank has begun a non-blocking collective */
    for (int r = 0; r < c->size; r++) late |= is_begun(&c->fingerprints[r]);
    return late && atomo__comm_compares_late(c) ? atomo__fingerprint_judge_late(c, c->fingerprints, operation)
                                                : judge(c->fingerprints, c->size, operation, exact);
}

int atomo__fingerprint_compare_if_checked(atomo_comm *c, int operation, int dtype, int detail, double count)
{
    return (c->checked || atomo__comm_checked) && c->size > 1
               ? atomo__fingerprint_compare(c, operation, dtype, detail, count, true)
               : ATOMO_OK;
}

int atomo__fingerprint_compare_if_all(atomo_comm *c, int operation, int dtype, int detail, double count)
{
    return c->checked == CHECK_BLOCKING && !atomo__comm_checked
               ? ATOMO_OK
               : atomo__fingerprint_compare_if_checked(c, operation, dtype, detail, count);
}

int atomo_comm_check(atomo_comm *c, const char *name, const char *value)
{
    enum { EXCERPT = 160 };
    ATOMO_TRY(atomo__comm_usable(c, "check"));
    ATOMO_REQUIRE(name && value, ATOMO_EARG, "check: the name or the value is missing");
    size_t n = strlen(value);
    atomo_flight_note(name);
    ATOMO_FLIGHT("check", &c->group, 0);
    atomo_fingerprint f = {c->sequence++, COMM_CHECK, 0, 0, atomo__crc32(0, value, n), (double)n, ""};
    memcpy(f.tag, name, ATOMO_MIN(strlen(name), sizeof f.tag));
    ATOMO_TRY(exchange(c, &f));
    int other = first_difference(c->fingerprints, c->size, true);
    if (!other) return ATOMO_OK;
    if (c->fingerprints[0].operation != c->fingerprints[other].operation ||
        memcmp(c->fingerprints[0].tag, c->fingerprints[other].tag, sizeof f.tag))
        return disagree("check", c->fingerprints, other);
    /* All ranks check the same name, but the values differ. Every rank has found that, so all take part here. */
    char first[EXCERPT] = "", second[EXCERPT] = "";
    strncpy(c->rank == 0 ? first : second, value, EXCERPT - 1);
    ATOMO_MPI(MPI_Bcast, first, EXCERPT, MPI_BYTE, 0, c->control);
    ATOMO_MPI(MPI_Bcast, second, EXCERPT, MPI_BYTE, other, c->control);
    return atomo__fail(ATOMO_EMISMATCH,
                       "check: %s differs: rank 0 has '%s', rank %d has '%s'; expected the same on all ranks", name,
                       first, other, second);
}
