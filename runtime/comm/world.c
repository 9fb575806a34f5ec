/* world.c - starts, ends and aborts MPI, and makes the communicator of all ranks.
 *
 * MPI is started with MPI_THREAD_SERIALIZED: the exchange engine's communication thread and the main thread both call
 * MPI, but never at the same time. MPI's errors are returned (MPI_ERRORS_RETURN), never fatal. Path: stage 7.
 */
#define _GNU_SOURCE
#include "comm/comm.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static enum { MPI_IS_NEW, MPI_IS_UP, MPI_IS_DOWN } state;
static bool ours; /* this library has called MPI_Init, so it calls MPI_Finalize */
static atomo_comm *world;
static char hostname[256], label[320];
static _Atomic double noted_step = -1;

int64_t atomo__comm_chunk = (int64_t)256 << 20;
int atomo__comm_checked;

int atomo__mpi_fail(int rc, const char *fn)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    if (MPI_Error_string(rc, text, &n) != MPI_SUCCESS) snprintf(text, sizeof text, "error %d", rc);
    return atomo__fail(ATOMO_EMPI, "%s failed on %s: %s", fn, *label ? label : "this rank", text);
}

/* Returns the name and version of the MPI library; may be called before MPI_Init. */
static const char *version_text(void)
{
    static char kept[64];
    char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int n = 0;
    MPI_Get_library_version(text, &n);
    char *comma = strchr(text, ',');
    if (comma) *comma = 0;
    snprintf(kept, sizeof kept, "%.63s", text);
    return kept;
}

__attribute__((constructor)) static void register_version(void)
{
    atomo__build_info_add("mpi", version_text);
}

static double env_number(const char *name, double absent)
{
    const char *text = getenv(name);
    char *end;
    if (!text || !*text) return absent;
    double v = strtod(text, &end);
    return *end ? absent : v;
}

int atomo_mpi_launched(void)
{
    static const char *const sizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
    static const char *const ranks[] = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"};
    for (int i = 0; i < 3; i++)
        if (getenv(ranks[i]) && getenv(sizes[i])) return env_number(sizes[i], 1) > 1;
    return getenv("PMIX_RANK") != NULL && !getenv("OMPI_COMM_WORLD_SIZE");
}

/* Sets environment variables that configure Open MPI, unless the user has set them. Must run before MPI_Init. */
static void set_defaults(void)
{
    char byte = 1, copy = 0;
    struct iovec from = {&byte, 1}, to = {&copy, 1};
    if (env_number("OMPI_COMM_WORLD_LOCAL_SIZE", 1) > atomo_num_host_cores())
        setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    if (!getenv("OMPI_COMM_WORLD_SIZE")) setenv("OMPI_MCA_ess_singleton_isolated", "1", 0); /* alone: no daemon */
    if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) < 0 &&
        errno != ENOSYS) /* forbidden, as in containers: Open MPI's single-copy messages would fail */
        setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0);
    /* Lets a segment of the ring (ring_allreduce.c) be sent at once. Above this limit, 64 kB by default, a sender first
     * waits for an answer, which queues behind other data, and a ring uses only three quarters of a 100 Mbit/s link. */
    setenv("OMPI_MCA_btl_tcp_eager_limit", "270336", 0);
}

#ifdef __GLIBC__
/* Runs when the process calls exit(). With code 0 it ends MPI; with any other code it aborts all ranks, so that they do
 * not wait for this one. For the host program MPI has ended already, and nothing happens. */
static void at_exit(int code, void *unused)
{
    (void)unused;
    if (state != MPI_IS_UP || !ours) return;
    fflush(NULL);
    if (code != 0 && world->size > 1) MPI_Abort(MPI_COMM_WORLD, code);
    atomo_mpi_finalize();
}
#define REGISTER_AT_EXIT() on_exit(at_exit, NULL)
#else
static void at_exit(void) /* the exit code is not known, and with several ranks MPI_Finalize might never return */
{
    if (state == MPI_IS_UP && ours && world->size == 1) atomo_mpi_finalize();
}
#define REGISTER_AT_EXIT() atexit(at_exit)
#endif

/* Makes the settings from the environment equal on all ranks, since mpirun may not pass variables to other hosts. */
static int share_settings(void)
{
    double v[2] = {env_number("ATOMO_MPI_CHECK", 0) != 0, -env_number("ATOMO_MPI_CHUNK", (double)((int64_t)256 << 20))};
    ATOMO_MPI(MPI_Allreduce, MPI_IN_PLACE, v, 2, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    atomo__comm_checked = v[0] > 0;
    int64_t chunk = v[1] <= -4 && v[1] >= -INT_MAX ? (int64_t)-v[1] : (int64_t)256 << 20;
    atomo__comm_chunk = chunk - chunk % 4; /* whole elements */
    return ATOMO_OK;
}

static int start_mpi(void)
{
    ATOMO_REQUIRE(state == MPI_IS_NEW, ATOMO_EMPI, "mpi: MPI was ended in this process and cannot start again");
    int up = 0, level = 0;
    ATOMO_MPI(MPI_Initialized, &up);
    if (!up) {
        set_defaults();
        ATOMO_MPI(MPI_Init_thread, NULL, NULL, MPI_THREAD_SERIALIZED, &level);
        ours = true;
    } else {
        ATOMO_MPI(MPI_Query_thread, &level);
    }
    ATOMO_REQUIRE(level >= MPI_THREAD_SERIALIZED, ATOMO_EMPI,
                  "mpi: this MPI provides thread level %d, expected at least %d (MPI_THREAD_SERIALIZED)", level,
                  MPI_THREAD_SERIALIZED);
    ATOMO_MPI(MPI_Comm_set_errhandler, MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    ATOMO_MPI(MPI_Comm_set_errhandler, MPI_COMM_SELF, MPI_ERRORS_RETURN);
    state = MPI_IS_UP;
    if (gethostname(hostname, sizeof hostname - 1)) snprintf(hostname, sizeof hostname, "unknown");
    return ATOMO_OK;
}

int atomo_mpi_init(void)
{
    if (state == MPI_IS_UP && world) return ATOMO_OK;
    if (state != MPI_IS_UP) ATOMO_TRY(start_mpi());
    ATOMO_TRY(share_settings()); /* if this or a later call fails, atomo_mpi_init may be called again */
    ATOMO_TRY(atomo__comm_open(MPI_COMM_WORLD, &world));
    ATOMO_TRY(atomo__run_start(world));
    snprintf(label, sizeof label, "rank %d of %d on %s", world->rank, world->size, hostname);
    if (ours) REGISTER_AT_EXIT();
    if (world->local_size > 1) atomo__default_num_threads(world->local_size);
    return atomo_comm_check(world, "libatomo's version", ATOMO_VERSION);
}

int atomo_mpi_ranks(void)
{
    return atomo_mpi_started() ? world->size : 1;
}

int atomo_mpi_started(void)
{
    return state == MPI_IS_UP;
}

/* Waits for all ranks and ends MPI. Other ranks may still work for long, so the watchdog warns, but does not abort. If
 * another rank is in a collective that compares fingerprints, both ranks get EMISMATCH; if it waits in any other
 * operation, its watchdog learns that this rank has ended. */
static int finalize(void)
{
    ATOMO_FLIGHT("the end of the program", NULL, 0);
    atomo__flight_patient();
    ATOMO_TRY(atomo__ended_begin());
    if (world->size > 1) ATOMO_TRY(atomo__fingerprint_compare(world, COMM_END, 0, 0, 0, true));
    state = MPI_IS_DOWN;
    if (ours) ATOMO_MPI(MPI_Finalize);
    return ATOMO_OK;
}

int atomo_mpi_finalize(void)
{
    atomo__ended_script();
    atomo__run_finalize(false);
    if (state != MPI_IS_UP) return ATOMO_OK;
    atomo__requests_reap(true);
    ATOMO_TRY(finalize());
    atomo__run_finalize(true);
    return ATOMO_OK;
}

void atomo_mpi_abort(int code)
{
    if (state != MPI_IS_UP) return;
    MPI_Abort(MPI_COMM_WORLD, code);
}

const char *atomo_mpi_label(void)
{
    return label;
}

const char *atomo_mpi_hostname(void)
{
    return hostname;
}

void atomo_note_step(double step)
{
    noted_step = step;
}

double atomo_noted_step(void)
{
    return noted_step;
}

int atomo_comm_world(atomo_comm **out)
{
    ATOMO_TRY(atomo_mpi_init());
    *out = world;
    return ATOMO_OK;
}
