/* sanitizer.c - what AddressSanitizer is to assume where ASAN_OPTIONS says nothing: Open MPI leaks by itself, so leaks
 * are looked for in the C tests only; a size that no machine has is refused by malloc, not the end of the program. */
#ifdef __SANITIZE_ADDRESS__
const char *__asan_default_options(void);

__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "detect_leaks=0:allocator_may_return_null=1";
}
#else
typedef int atomo_no_sanitizer; /* ISO C wants a declaration */
#endif
