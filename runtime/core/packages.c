/* packages.c - loads FFTW and OpenBLAS when they are first needed.
 *
 * The dynamic loader finds the libraries as it finds libraries that a program is linked to (LD_LIBRARY_PATH,
 * ld.so.conf). A library that the process has loaded already is used again. So results are bit-identical to those of a
 * program linked to them. They are never unloaded, because OpenMP threads may run their code. The build option
 * ATOMO_FFTW=OFF leaves FFTW out.
 */
#include "core/packages.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

typedef struct symbol {
    const char *name;
    size_t at; /* offset of the pointer in the table */
} symbol;

/* Opens a library and fills in the pointers of `table`. Returns the handle; NULL: `missing` [512] says why. */
static void *load(const char *title, const char *file, const char *package, const symbol *symbols, void *table,
                  char *missing)
{
    const char *why = NULL;
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!handle) why = dlerror();
    for (const symbol *s = symbols; handle && s->name; s++) {
        void *address = dlsym(handle, s->name);
        if (!address) {
            why = dlerror();
            handle = NULL; /* stays loaded: another part of the process may use it */
            break;
        }
        memcpy((char *)table + s->at, &address, sizeof address);
    }
    if (!handle) snprintf(missing, 512, "%s cannot be loaded (%.300s): apt install %s", title, why, package);
    return handle;
}

/* ---- OpenBLAS ---------------------------------------------------------------------------------------------------- */

#define AT(function) offsetof(atomo__blas_table, function)
static const symbol blas_symbols[] = {{"cblas_sgemm", AT(sgemm)},
                                      {"cblas_ssyrk", AT(ssyrk)},
                                      {"cblas_ssymm", AT(ssymm)},
                                      {"ssyevd_", AT(ssyevd)},
                                      {"openblas_get_config", AT(config)},
                                      {"openblas_get_corename", AT(corename)},
                                      {"openblas_set_num_threads", AT(set_num_threads)},
                                      {NULL, 0}};
#undef AT
static const char blas_file[] = "libopenblas.so.0";

static pthread_once_t blas_once = PTHREAD_ONCE_INIT;
static atomo__blas_table blas;
static bool blas_loaded;
static char blas_missing[512];
static _Atomic int threads; /* OpenBLAS's threads as set; 0: not set, OpenBLAS chooses */

static void load_blas(void)
{
    blas_loaded = load("OpenBLAS", blas_file, "libopenblas0", blas_symbols, &blas, blas_missing) != NULL;
    if (blas_loaded && threads > 0) blas.set_num_threads(threads);
}

const atomo__blas_table *atomo__blas(void)
{
    pthread_once(&blas_once, load_blas);
    return blas_loaded ? &blas : NULL;
}

const char *atomo__blas_missing(void)
{
    atomo__blas();
    return blas_missing;
}

void atomo__blas_set_threads(int n)
{
    threads = n;
    void *handle = dlopen(blas_file, RTLD_LAZY | RTLD_NOLOAD);
    if (!handle) return;
    void (*set)(int);
    void *address = dlsym(handle, "openblas_set_num_threads");
    memcpy(&set, &address, sizeof set);
    if (set) set(n);
    dlclose(handle);
}

/* ---- FFTW -------------------------------------------------------------------------------------------------------- */

static pthread_mutex_t planner = PTHREAD_MUTEX_INITIALIZER;

void atomo__fft_lock(void)
{
    pthread_mutex_lock(&planner);
}

void atomo__fft_unlock(void)
{
    pthread_mutex_unlock(&planner);
}

static pthread_once_t fftw_once = PTHREAD_ONCE_INIT;
static atomo__fftw_table fftw;
static bool fftw_loaded;
static char fftw_missing[512];

#ifdef ATOMO_HAVE_FFTW
#define AT(function) offsetof(atomo__fftw_table, function)
static const symbol fftw_symbols[] = {{"fftwf_plan_dft_r2c_1d", AT(plan_r2c)},
                                      {"fftwf_plan_dft_c2r_1d", AT(plan_c2r)},
                                      {"fftwf_plan_many_dft_r2c", AT(plan_many_r2c)},
                                      {"fftwf_plan_many_dft_c2r", AT(plan_many_c2r)},
                                      {"fftwf_destroy_plan", AT(destroy)},
                                      {"fftwf_execute_dft_r2c", AT(execute_r2c)},
                                      {"fftwf_execute_dft_c2r", AT(execute_c2r)},
                                      {"fftwf_alignment_of", AT(alignment_of)},
                                      {"fftwf_version", AT(version)},
                                      {NULL, 0}};
#undef AT

static void load_fftw(void)
{
    fftw_loaded = load("FFTW", "libfftw3f.so.3", "libfftw3-single3", fftw_symbols, &fftw, fftw_missing) != NULL;
}
#else
static void load_fftw(void)
{
    snprintf(fftw_missing, sizeof fftw_missing, "this build leaves out FFTW (ATOMO_FFTW=OFF)");
}
#endif

const atomo__fftw_table *atomo__fftw(void)
{
    pthread_once(&fftw_once, load_fftw);
    return fftw_loaded ? &fftw : NULL;
}

const char *atomo__fftw_missing(void)
{
    atomo__fftw();
    return fftw_missing;
}

bool atomo__fftw_is_left_out(void)
{
#ifdef ATOMO_HAVE_FFTW
    return false;
#else
    return true;
#endif
}

int atomo__need(const char *user, const char *(*missing)(void))
{
    const char *why = missing ? missing() : "";
    ATOMO_REQUIRE(!*why, ATOMO_EUNSUPPORTED, "%s: %s", user, why);
    return ATOMO_OK;
}
