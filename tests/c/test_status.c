/* test_status.c - the table of statuses, the thread's last error, versions and checksums. */
#include "check.h"
#include <pthread.h>
#include <zlib.h>

static void table(void)
{
    int count = 0;
#define ROW(name, value, text)                                                                                         \
    CHECK(ATOMO_##name == (value));                                                                                    \
    CHECK(strcmp(atomo_status_name(value), #name) == 0);                                                               \
    CHECK(strcmp(atomo_status_text(value), text) == 0);                                                                \
    CHECK((value) == -count); /* consecutive: no two share a value */                                                  \
    count++;
    ATOMO_STATUSES(ROW)
#undef ROW
    CHECK(strcmp(atomo_status_name(-count), "UNKNOWN") == 0);
    CHECK(strcmp(atomo_status_text(1), "unknown status") == 0);
}

static void *other_thread(void *seen)
{
    bool *empty = seen;
    *empty = atomo_last_error()[0] == 0;
    atomo__fail(ATOMO_EIO, "from the other thread");
    return NULL;
}

static void last_error(void)
{
    CHECK(atomo__fail(ATOMO_EARG, "f: got %d, expected %s", 3, "four") == ATOMO_EARG);
    CHECK(strcmp(atomo_last_error(), "f: got 3, expected four") == 0);
    pthread_t thread;
    bool empty = false;
    CHECK(pthread_create(&thread, NULL, other_thread, &empty) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(empty);
    CHECK(strcmp(atomo_last_error(), "f: got 3, expected four") == 0);

    char big[5000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    atomo__fail(ATOMO_EARG, "%s", big); /* truncated to the buffer */
    CHECK(strlen(atomo_last_error()) == 1023);
}

static void versions(void)
{
    CHECK(atomo_abi() == ATOMO_ABI);
    CHECK(atomo_version()[0] >= '0' && atomo_version()[0] <= '9');
    const char *keys[] = {"compiler", "build", "blas", "fftw", "cpu", "mpi", "onednn", "bf16", "png", "jpeg"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        CHECK(atomo_build_info(keys[i]) && atomo_build_info(keys[i])[0]);
    CHECK(atomo_build_info("no such key") == NULL);
    CHECK(atomo_build_info(NULL) == NULL);
}

static void threads(void)
{
    CHECK(atomo_num_cores() >= 1);
    CHECK(atomo_num_threads() >= 1);
    CHECK_OK(atomo_set_num_threads(3));
    CHECK(atomo_num_threads() == 3);
    CHECK_STATUS(atomo_set_num_threads(0), ATOMO_EARG, "set_num_threads: 0");
    CHECK_STATUS(atomo_set_num_threads(-1), ATOMO_EARG, "expected 1 to");
    CHECK(atomo_num_threads() == 3);
    double before = atomo_time();
    CHECK(atomo_time() >= before);
}

/* The check value of CRC-32 (ISO-HDLC) for "123456789", whole and in two parts. */
static void crc(void)
{
    CHECK(atomo__crc32(0, "123456789", 9) == 0xCBF43926u);
    CHECK(atomo__crc32(atomo__crc32(0, "1234", 4), "56789", 5) == 0xCBF43926u);
    CHECK(atomo__crc32(0, "", 0) == 0);
}

/* Long inputs are folded: all lengths, places and first values have zlib's CRC. */
static void long_crc(void)
{
    enum { MOST = 1500 };
    static uint8_t bytes[MOST + 16];
    const atomo_stream noise = {.seed = {5}, .purpose = ATOMO_RNG_USER};
    for (uint32_t i = 0; i < sizeof bytes / 16; i++) {
        uint32_t word[4];
        atomo_random_block(&noise, i, word);
        memcpy(bytes + 16 * i, word, 16);
    }
    for (size_t n = 0; n < MOST; n++) {
        const uint8_t *at = bytes + n % 16;
        const uint32_t first = n % 3 ? 0 : (uint32_t)(n * 2654435761u);
        CHECK(atomo__crc32(first, at, n) == (uint32_t)crc32_z(first, at, n));
        CHECK(atomo__crc32(atomo__crc32(first, at, n / 2), at + n / 2, n - n / 2) == (uint32_t)crc32_z(first, at, n));
    }
}

int main(void)
{
    RUN(table);
    RUN(last_error);
    RUN(versions);
    RUN(threads);
    RUN(crc);
    RUN(long_crc);
    return check_done();
}
