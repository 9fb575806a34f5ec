/* sanitizer.c - AddressSanitizer's default options. Leaks are detected in the C tests only, because Open MPI leaks. An
 * allocation that is too large makes malloc return NULL instead of ending the program. */
#ifdef __SANITIZE_ADDRESS__
const char *__asan_default_options(void);

__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "detect_leaks=0:allocator_may_return_null=1";
}
#else
typedef int atomo_no_sanitizer; /* ISO C requires a declaration */
#endif
