/* status.c - statuses, the calling thread's last error text, versions. The table ATOMO_STATUSES in atomo_codec.h
 * generates the enum, the names and the texts. */
#include "core/packages.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char last_error[1024];

int atomo__fail(int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(last_error, sizeof last_error, fmt, ap);
    va_end(ap);
    return status;
}

const char *atomo__system_error(int number)
{
    static const struct {
        int number;
        const char *remedy;
    } remedies[] = {
        {ENOENT, "check the path, whose folders must exist"},
        {ENOTDIR, "choose a path in a folder: a part of this one is a file"},
        {EISDIR, "give the path of a file: this one is a folder"},
        {EACCES, "change its permissions or choose another path"},
        {EPERM, "change its permissions or choose another path"},
        {EROFS, "choose another place: this file system is read-only"},
        {ENOSPC, "free some space or choose another place"},
        {EDQUOT, "free some space or choose another place: your quota is used up"},
        {EMFILE, "raise the limit of open files: ulimit -n"},
    };
    static _Thread_local char text[256];
    const char *remedy = NULL;
    for (size_t i = 0; i < sizeof remedies / sizeof *remedies; i++)
        if (remedies[i].number == number) remedy = remedies[i].remedy;
    snprintf(text, sizeof text, "%s%s%s", strerror(number), remedy ? "; " : "", remedy ? remedy : "");
    return text;
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

int atomo_codec_abi(void)
{
    return ATOMO_CODEC_ABI;
}

const char *atomo_version(void)
{
    return ATOMO_VERSION;
}

static const char *compiler_text(void)
{
    return __VERSION__;
}

static const char *blas_text(void)
{
    return atomo__blas() ? atomo__blas()->config() : "none";
}

static const char *cpu_text(void)
{
    return atomo__blas() ? atomo__blas()->corename() : "unknown";
}

static const char *fftw_text(void)
{
    return atomo__fftw() ? atomo__fftw()->version : "none";
}

#ifdef __has_feature /* clang */
#define HAS_FEATURE(name) __has_feature(name)
#else
#define HAS_FEATURE(name) 0
#endif
#if defined __SANITIZE_ADDRESS__ || HAS_FEATURE(address_sanitizer)
#define SANITIZER "AddressSanitizer"
#elif defined __SANITIZE_THREAD__ || HAS_FEATURE(thread_sanitizer)
#define SANITIZER "ThreadSanitizer"
#else
#define SANITIZER "no sanitizer"
#endif
#ifdef __OPTIMIZE__
#define OPTIMISED "optimised"
#else
#define OPTIMISED "not optimised"
#endif
#ifdef NDEBUG
#define ASSERTIONS "assertions off"
#else
#define ASSERTIONS "assertions on"
#endif

static const char *build_text(void)
{
    return OPTIMISED ", " ASSERTIONS ", " SANITIZER;
}

static struct {
    const char *key;
    atomo__info_fn *text; /* NULL: this library has no such part */
} infos[] = {{"compiler", compiler_text},
             {"build", build_text},
             {"blas", blas_text},
             {"fftw", fftw_text},
             {"cpu", cpu_text},
             {"mpi", NULL},
             {"onednn", NULL},
             {"bf16", NULL},
             {"png", NULL},
             {"jpeg", NULL}};

void atomo__build_info_add(const char *key, atomo__info_fn *text)
{
    for (size_t i = 0; i < sizeof infos / sizeof *infos; i++)
        if (strcmp(infos[i].key, key) == 0) infos[i].text = text;
}

const char *atomo_build_info(const char *key)
{
    for (size_t i = 0; key && i < sizeof infos / sizeof *infos; i++)
        if (strcmp(infos[i].key, key) == 0) return infos[i].text ? infos[i].text() : "none";
    return NULL;
}
