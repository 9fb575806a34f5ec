/* comm.c - communicators: open, split, close, and the checks that every operation uses. Path: stage 7. */
#include "comm/comm.h"
#include "tensor/tensor.h"
#include <string.h>

atomo_comm *atomo__comms_open;

int atomo__comm_usable(const atomo_comm *c, const char *fn)
{
    ATOMO_REQUIRE(c && !c->closed, ATOMO_EARG, "%s: the communicator is closed", fn);
    ATOMO_REQUIRE(atomo_mpi_started(), ATOMO_EMPI, "%s: MPI is not running (not started, or ended already)", fn);
    ATOMO_REQUIRE(!*c->parted, ATOMO_EMISMATCH, "%s: the communicator's ranks are out of step since %s", fn, c->parted);
    atomo__gate();
    return ATOMO_OK;
}

int atomo__comm_root(const atomo_comm *c, int root, const char *fn)
{
    ATOMO_REQUIRE(root >= 0 && root < c->size, ATOMO_EARG,
                  "%s: rank %d, expected 0 to %d (this communicator has %d ranks)", fn, root, c->size - 1, c->size);
    return ATOMO_OK;
}

int atomo__comm_buffer(const atomo_tensor *t, const char *what)
{
    ATOMO_REQUIRE(t, ATOMO_EARG, "%s is missing", what);
    return atomo__expect(t, t->dtype, -1, what);
}

MPI_Datatype atomo__mpi_type(int dtype)
{
    switch (dtype) {
    case ATOMO_F32:
        return MPI_FLOAT;
    case ATOMO_I32:
        return MPI_INT32_T;
    case ATOMO_U8:
        return MPI_UINT8_T;
    default: /* f16, bf16: moved, not reduced */
        return MPI_UINT16_T;
    }
}

/* Maximum and minimum of f32, NaN where a rank has NaN. MPI_MAX drops a NaN or not by the order of the ranks. */
static void larger(void *from, void *to, int *n, MPI_Datatype *type)
{
    const float *a = from;
    float *b = to;
    (void)type;
    for (int i = 0; i < *n; i++) b[i] = b[i] > a[i] || b[i] != b[i] ? b[i] : a[i];
}

static void smaller(void *from, void *to, int *n, MPI_Datatype *type)
{
    const float *a = from;
    float *b = to;
    (void)type;
    for (int i = 0; i < *n; i++) b[i] = b[i] < a[i] || b[i] != b[i] ? b[i] : a[i];
}

int atomo__mpi_op(int op, int dtype, const char *fn, MPI_Op *out)
{
    static MPI_Op extremes[2] = {MPI_OP_NULL, MPI_OP_NULL}; /* MPI frees them when it ends */
    ATOMO_REQUIRE(op >= 0 && op < ATOMO_MPI_OP_COUNT, ATOMO_EARG, "%s: reduction %d, expected sum, max, min or prod",
                  fn, op);
    ATOMO_REQUIRE(dtype <= ATOMO_U8, ATOMO_EDTYPE, "%s: does not compute with %s, convert it first (t:to \"f32\")", fn,
                  atomo__dtype_name(dtype));
    *out = op == ATOMO_MPI_SUM ? MPI_SUM : op == ATOMO_MPI_MAX ? MPI_MAX : op == ATOMO_MPI_MIN ? MPI_MIN : MPI_PROD;
    if (dtype != ATOMO_F32 || (op != ATOMO_MPI_MAX && op != ATOMO_MPI_MIN)) return ATOMO_OK;
    MPI_Op *own = &extremes[op == ATOMO_MPI_MAX];
    if (*own == MPI_OP_NULL) ATOMO_MPI(MPI_Op_create, op == ATOMO_MPI_MAX ? larger : smaller, 1, own);
    *out = *own;
    return ATOMO_OK;
}

static int find_world_ranks(atomo_comm *c)
{
    MPI_Group all, own;
    int place[1], world[1];
    ATOMO_MPI(MPI_Comm_group, MPI_COMM_WORLD, &all);
    ATOMO_MPI(MPI_Comm_group, c->mpi, &own);
    for (int r = 0; r < c->size; r++) {
        place[0] = r;
        ATOMO_MPI(MPI_Group_translate_ranks, own, 1, place, all, world);
        c->world_rank[r] = world[0];
    }
    ATOMO_MPI(MPI_Group_free, &own);
    ATOMO_MPI(MPI_Group_free, &all);
    c->group = (atomo_flight_group){.ranks = c->world_rank, .size = c->size};
    return ATOMO_OK;
}

static int comm_fill(atomo_comm *c)
{
    MPI_Comm local;
    ATOMO_MPI(MPI_Comm_rank, c->mpi, &c->rank);
    ATOMO_MPI(MPI_Comm_size, c->mpi, &c->size);
    ATOMO_MPI(MPI_Comm_split_type, c->mpi, MPI_COMM_TYPE_SHARED, c->rank, MPI_INFO_NULL, &local);
    ATOMO_MPI(MPI_Comm_rank, local, &c->local_rank);
    ATOMO_MPI(MPI_Comm_size, local, &c->local_size);
    ATOMO_MPI(MPI_Comm_free, &local);
    void *p;
    size_t n;
    ATOMO_TRY(
        atomo__size_mul((size_t)c->size, sizeof(atomo_fingerprint) + sizeof(atomo__end) + 3 * sizeof(int), 1, &n));
    ATOMO_TRY(atomo__calloc(&p, n));
    c->fingerprints = p;
    c->ends = (atomo__end *)(c->fingerprints + c->size);
    c->counts = (int *)(c->ends + c->size);
    c->displs = c->counts + c->size;
    c->world_rank = c->displs + c->size;
    return find_world_ranks(c);
}

/* MPI_COMM_WORLD is duplicated; of any other communicator *out becomes the owner, and it is freed after a failure. */
int atomo__comm_open(MPI_Comm from, atomo_comm **out)
{
    void *p;
    int made = atomo__calloc(&p, sizeof **out);
    if (made < 0) {
        if (from != MPI_COMM_WORLD) MPI_Comm_free(&from);
        return made;
    }
    atomo_comm *c = p;
    c->holders = 1;
    c->checked = CHECK_BLOCKING;
    c->mpi = from;
    int rc = from == MPI_COMM_WORLD ? MPI_Comm_dup(from, &c->mpi) : MPI_SUCCESS;
    int status = rc == MPI_SUCCESS ? comm_fill(c) : atomo__mpi_fail(rc, "MPI_Comm_dup");
    if (status == ATOMO_OK) {
        rc = MPI_Comm_dup(c->mpi, &c->control);
        status = rc == MPI_SUCCESS ? ATOMO_OK : atomo__mpi_fail(rc, "MPI_Comm_dup");
    }
    if (status < 0) {
        if (rc == MPI_SUCCESS) MPI_Comm_free(&c->mpi);
        atomo__free(c);
        return status;
    }
    c->next = atomo__comms_open;
    *out = atomo__comms_open = c;
    return ATOMO_OK;
}

static void leave_list(const atomo_comm *c)
{
    atomo_comm **at = &atomo__comms_open;
    while (*at && *at != c) at = &(*at)->next;
    if (*at) *at = c->next;
}

atomo_comm *atomo__comm_hold(atomo_comm *c)
{
    c->holders++;
    return c;
}

void atomo__comm_drop(atomo_comm *c)
{
    if (!c || --c->holders > 0) return;
    atomo__free(c->fingerprints);
    atomo__free(c);
}

int atomo_comm_split(atomo_comm *c, int color, int key, atomo_comm **out)
{
    ATOMO_TRY(atomo__comm_usable(c, "split"));
    ATOMO_REQUIRE(color >= -1, ATOMO_EARG, "split: color %d, expected 0 or more, or -1 to take no part", color);
    ATOMO_FLIGHT("split", &c->group, 0);
    ATOMO_TRY(atomo__fingerprint_compare_if_checked(c, COMM_SPLIT, 0, 0, 0));
    MPI_Comm made;
    ATOMO_MPI(MPI_Comm_split, c->mpi, color < 0 ? MPI_UNDEFINED : color, key, &made);
    *out = NULL;
    return made == MPI_COMM_NULL ? ATOMO_OK : atomo__comm_open(made, out);
}

int atomo_comm_split_shared(atomo_comm *c, atomo_comm **out)
{
    ATOMO_TRY(atomo__comm_usable(c, "split_shared"));
    ATOMO_FLIGHT("split_shared", &c->group, 0);
    ATOMO_TRY(atomo__fingerprint_compare_if_checked(c, COMM_SPLIT, 0, 1, 0));
    MPI_Comm made;
    ATOMO_MPI(MPI_Comm_split_type, c->mpi, MPI_COMM_TYPE_SHARED, c->rank, MPI_INFO_NULL, &made);
    return atomo__comm_open(made, out);
}

int atomo_comm_close(atomo_comm *c)
{
    if (!c || !*c->parted) ATOMO_TRY(atomo__comm_usable(c, "close"));
    atomo_comm *world;
    ATOMO_TRY(atomo_comm_world(&world));
    ATOMO_REQUIRE(c != world, ATOMO_EARG, "close: the world communicator stays open until the program ends");
    ATOMO_FLIGHT("close", &c->group, 0);
    c->closed = true;
    leave_list(c);
    if (!*c->parted) { /* else MPI would wait for collectives that never end */
        ATOMO_MPI(MPI_Comm_free, &c->control);
        ATOMO_MPI(MPI_Comm_free, &c->mpi);
    }
    atomo__comm_drop(c);
    return ATOMO_OK;
}

int atomo_comm_rank(const atomo_comm *c)
{
    return c->rank;
}

int atomo_comm_size(const atomo_comm *c)
{
    return c->size;
}

int atomo_comm_local_rank(const atomo_comm *c)
{
    return c->local_rank;
}

int atomo_comm_local_size(const atomo_comm *c)
{
    return c->local_size;
}

int atomo_comm_bytes(const atomo_comm *c, double *out)
{
    ATOMO_REQUIRE(c && out, ATOMO_EARG, "comm_bytes: the communicator is closed");
    out[0] = (double)atomic_load_explicit(&c->bytes_out, memory_order_relaxed);
    out[1] = (double)atomic_load_explicit(&c->bytes_in, memory_order_relaxed);
    return ATOMO_OK;
}

void atomo_comm_set_checked(atomo_comm *c, int on)
{
    c->checked = on ? CHECK_ALL : CHECK_NONE;
}

void atomo_comm_set_tag(atomo_comm *c, const char *tag)
{
    strncpy(c->tag, tag, sizeof c->tag - 1);
}
