/* test_packages.c - what works without FFTW and OpenBLAS. Built three times (tests/CMakeLists.txt): as the library is;
 * with FFTW left out (ATOMO_FFTW=OFF); and with HIDDEN, as if neither library were installed. */
#include "check.h"
#include "core/packages.h"

#ifdef HIDDEN
void *dlopen(const char *file, int flags); /* in place of the C library's */
char *dlerror(void);

void *dlopen(const char *file, int flags)
{
    (void)file, (void)flags;
    return NULL;
}

char *dlerror(void)
{
    static char text[] = "no such file";
    return text;
}
#endif

enum { NEEDS_BLAS = 1, NEEDS_FFTW = 2 };

static const struct {
    const char *name;
    int needs;
} rows[] = {{"svd", NEEDS_BLAS},
            {"powersgd", NEEDS_BLAS},
            {"fourier", NEEDS_FFTW},
            {"dct", NEEDS_FFTW},
            {"entry", 0},
            {"taps", 0},
            {"haar", 0},
            {"rotated", 0},
            {"qsgd", 0},
            {"none", 0},
            {"auto", NEEDS_BLAS | NEEDS_FFTW}};

/* Returns a part of the text that says why a compressor cannot be used in this program; NULL: it can. */
static const char *expected(int needs, bool is_auto)
{
#ifdef HIDDEN
    if (needs & NEEDS_BLAS) return "OpenBLAS cannot be loaded (no such file): apt install libopenblas0";
    if (needs & NEEDS_FFTW && !atomo__fftw_is_left_out())
        return "FFTW cannot be loaded (no such file): apt install libfftw3-single3";
#endif
    if (needs & NEEDS_FFTW && atomo__fftw_is_left_out() && !is_auto)
        return "this build leaves out FFTW (ATOMO_FFTW=OFF)";
    return NULL;
}

static int number_of(const char *name)
{
    atomo_codec_info about;
    for (int i = 0; atomo_codec_about(i, &about) == ATOMO_OK; i++)
        if (strcmp(about.name, name) == 0) return i;
    return -1;
}

static void compressors(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *why = expected(rows[i].needs, strcmp(rows[i].name, "auto") == 0);
        const char *missing = atomo_codec_missing(number_of(rows[i].name));
        atomo_codec *c = NULL;
        const int rc = atomo_codec_new(rows[i].name, 0, NULL, 1, ATOMO_WAY_UP, &c);
        check_report(rc == (why ? ATOMO_EUNSUPPORTED : ATOMO_OK), __FILE__, __LINE__, "%s: %s", rows[i].name,
                     atomo_status_name(rc));
        if (why) {
            CHECK(strstr(missing, why) != NULL && c == NULL);
            CHECK(strstr(atomo_last_error(), why) != NULL);
            CHECK(strncmp(atomo_last_error(), rows[i].name, strlen(rows[i].name)) == 0);
        } else {
            CHECK(*missing == 0);
        }
        atomo_codec_free(c);
    }
    CHECK(*atomo_codec_missing(-1) != 0 && *atomo_codec_missing(atomo_codec_count()) != 0);
}

/* An override may not bring in what is missing, either. */
static void overrides(void)
{
    const double shape[] = {8, 8};
    const char *why = expected(NEEDS_FFTW, false);
    atomo_codec *c;
    REQUIRE(atomo_codec_new("entry", 0, NULL, 1, ATOMO_WAY_UP, &c) == ATOMO_OK);
    const int rc = atomo_codec_plan_as(c, 1, 2, shape, 0, NULL, "fourier", 0, NULL);
    CHECK(rc == (why ? ATOMO_EUNSUPPORTED : ATOMO_OK) && (!why || strstr(atomo_last_error(), why)));
    atomo_codec_free(c);
}

static void texts(void)
{
#ifdef LEFT_OUT
    CHECK(atomo__fftw_is_left_out());
#endif
    CHECK((strcmp(atomo_build_info("fftw"), "none") == 0) == (expected(NEEDS_FFTW, false) != NULL));
    CHECK((strcmp(atomo_build_info("blas"), "none") == 0) == (expected(NEEDS_BLAS, false) != NULL));
    atomo_tensor *x = check_tensor(8, -1), *y = NULL;
    CHECK_OK(atomo_fill(x, 1));
    CHECK(atomo_rfft(x, &y) == (expected(NEEDS_FFTW, false) ? ATOMO_EUNSUPPORTED : ATOMO_OK));
    atomo_tensor_free(x);
    atomo_tensor_free(y);
}

/* auto, where it can be used: on a pure cosine it chooses fourier, and without FFTW another family. */
static void families(void)
{
    if (expected(NEEDS_BLAS | NEEDS_FFTW, true)) return;
    enum { N = 4096 };
    const double shape[] = {N}, options[] = {NAN, 64};
    const int tensor = 1;
    atomo_codec *c;
    atomo_tensor *x = check_tensor(N, -1), *sum = check_tensor(N, -1);
    REQUIRE(atomo_codec_new("auto", 2, options, 1, ATOMO_WAY_UP, &c) == ATOMO_OK);
    REQUIRE(atomo_codec_plan(c, 1, 1, shape, 0, NULL) == ATOMO_OK);
    uint8_t *out = malloc((size_t)atomo_codec_wire_max(c, 0));
    double length, used, square;
    for (int i = 0; i < N; i++) check_f32(x)[i] = cosf(6.2831853f * 37 * (float)i / N);
    CHECK_OK(atomo_fill(sum, 0));
    CHECK_OK(
        atomo_codec_encode(c, 1, &tensor, (const atomo_tensor *[]){x}, 0, 0, out, atomo_codec_wire_max(c, 0), &length));
    CHECK_OK(atomo_codec_decode_add(c, 1, 0, 0, out, length, 1, sum, &used));
    CHECK_OK(atomo_dot(sum, sum, &square));
    CHECK(square > 0);
    CHECK((strstr(atomo_codec_family(c, 1), "fourier") != NULL) == !atomo__fftw_is_left_out());
    free(out);
    atomo_codec_free(c);
    atomo_tensor_free(x);
    atomo_tensor_free(sum);
}

int main(void)
{
    RUN(compressors);
    RUN(overrides);
    RUN(texts);
    RUN(families);
    return check_done();
}
