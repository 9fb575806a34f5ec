/* status.c - statuses, the calling thread's last error text, versions. The table ATOMO_STATUSES in atomo.h generates
 * the enum, the names and the texts. */
#include "core/core.h"
#include <mpi.h>
#include <fftw3.h>
#include <cblas.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#ifdef ATOMO_HAVE_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

static _Thread_local char last_error[1024];

int atomo__fail(int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(last_error, sizeof last_error, fmt, ap);
    va_end(ap);
    return status;
}

const char *atomo_last_error(void)
{
    return last_error;
}

static const struct {
    int value;
    const char *name, *text;
} statuses[] = {
#define ROW(name, value, text) {value, #name, text},
    ATOMO_STATUSES(ROW)
#undef ROW
};

const char *atomo_status_name(int status)
{
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        if (statuses[i].value == status) return statuses[i].name;
    return "UNKNOWN";
}

const char *atomo_status_text(int status)
{
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        if (statuses[i].value == status) return statuses[i].text;
    return "unknown status";
}

int atomo_abi(void)
{
    return ATOMO_ABI;
}

const char *atomo_version(void)
{
    return ATOMO_VERSION;
}

const char *atomo_build_info(const char *key)
{
    static char mpi_text[64], onednn_text[32];
    if (!key) return NULL;
    if (strcmp(key, "compiler") == 0) return __VERSION__;
    if (strcmp(key, "blas") == 0) return openblas_get_config();
    if (strcmp(key, "cpu") == 0) return openblas_get_corename();
    if (strcmp(key, "fftw") == 0) return fftwf_version;
    if (strcmp(key, "mpi") == 0) {
        char text[MPI_MAX_LIBRARY_VERSION_STRING];
        int n = 0;
        MPI_Get_library_version(text, &n); /* allowed before MPI_Init */
        char *comma = strchr(text, ',');
        if (comma) *comma = 0;
        snprintf(mpi_text, sizeof mpi_text, "%.63s", text);
        return mpi_text;
    }
    if (strcmp(key, "onednn") == 0) {
#ifdef ATOMO_HAVE_ONEDNN
        const dnnl_version_t *v = dnnl_version();
        snprintf(onednn_text, sizeof onednn_text, "%d.%d.%d", v->major, v->minor, v->patch);
        return onednn_text;
#else
        (void)onednn_text;
        return "none";
#endif
    }
    return NULL;
}
