/* flight_recorder.c - the flight recorder: the last 256 operations of this process, to diagnose one that does not end.
 *
 * It is a ring buffer in static memory. Recording takes a lock, normally uncontended, and copies less than 100 bytes at
 * the beginning and the end of an operation; it allocates nothing. The watchdog (watchdog.c) reads it and writes it to
 * a file. Path: stage 7.
 */
#include "comm/flight_recorder.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { RING = 256 };

static struct {
    pthread_mutex_t lock;
    uint64_t last, progress; /* sequence of the newest operation; finished parts of operations so far */
    atomo_flight_op ring[RING];
} flight = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local char note[ATOMO_FLIGHT_NOTE], purpose[ATOMO_FLIGHT_NOTE];
static _Thread_local int depth;

static void copy_text(char *out, const char *text, size_t n)
{
    size_t k = strnlen(text, n - 1);
    memcpy(out, text, k);
    out[k] = 0;
}

void atomo_flight_note(const char *text)
{
    copy_text(note, text ? text : "", sizeof note);
}

void atomo__flight_pop_note(char *out)
{
    memcpy(out, note, sizeof note);
    note[0] = 0;
}

const char *atomo__flight_purpose(void)
{
    return depth ? purpose : note;
}

uint64_t atomo__flight_begin(const char *operation, atomo_flight_group *group, double bytes)
{
    if (depth++) return 0;
    atomo__flight_pop_note(purpose);
    if (group && !group->message) group->number++;
    const double now = atomo_time();
    pthread_mutex_lock(&flight.lock);
    atomo_flight_op *op = &flight.ring[++flight.last % RING];
    op->sequence = flight.last;
    op->operation = operation;
    op->group = group;
    op->number = group ? group->number : 0;
    op->patient = op->asks = false;
    memcpy(op->note, purpose, sizeof purpose);
    op->bytes = bytes;
    op->begin = now;
    op->end = 0;
    const uint64_t token = flight.last;
    pthread_mutex_unlock(&flight.lock);
    return token;
}

void atomo__flight_end(const uint64_t *token)
{
    depth--;
    if (!*token) return;
    const double now = atomo_time();
    pthread_mutex_lock(&flight.lock);
    atomo_flight_op *op = &flight.ring[*token % RING];
    if (op->sequence == *token) {
        op->end = now;
        op->group = NULL;
    }
    pthread_mutex_unlock(&flight.lock);
}

void atomo__flight_detail(uint64_t token, const char *text, bool instead)
{
    if (!token) return;
    pthread_mutex_lock(&flight.lock);
    atomo_flight_op *op = &flight.ring[token % RING];
    if (op->sequence == token && (instead || !*op->note)) copy_text(op->note, text, sizeof op->note);
    pthread_mutex_unlock(&flight.lock);
}

void atomo__flight_patient(void)
{
    pthread_mutex_lock(&flight.lock);
    flight.ring[flight.last % RING].patient = true;
    pthread_mutex_unlock(&flight.lock);
}

void atomo__flight_asks(void)
{
    pthread_mutex_lock(&flight.lock);
    flight.ring[flight.last % RING].asks = true;
    pthread_mutex_unlock(&flight.lock);
}

void atomo__flight_progress(void)
{
    pthread_mutex_lock(&flight.lock);
    flight.progress++;
    pthread_mutex_unlock(&flight.lock);
}

bool atomo__flight_last(atomo_flight_op *out, uint64_t *progress)
{
    pthread_mutex_lock(&flight.lock);
    *out = flight.ring[flight.last % RING];
    *progress = flight.progress;
    const bool any = flight.last > 0;
    pthread_mutex_unlock(&flight.lock);
    return any;
}

bool atomo__flight_members(uint64_t sequence, bool *member, int n)
{
    memset(member, 0, sizeof *member * (size_t)n);
    pthread_mutex_lock(&flight.lock);
    const atomo_flight_op *op = &flight.ring[sequence % RING];
    const bool under_way = op->sequence == sequence && op->end == 0;
    for (int i = 0; under_way && op->group && i < op->group->size; i++)
        if (op->group->ranks[i] < n) member[op->group->ranks[i]] = true;
    pthread_mutex_unlock(&flight.lock);
    return under_way;
}

/* ---- writing the file ------------------------------------------------------------------------------------------ */

static int put(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t k = write(fd, text, n);
        if (k == 0) errno = ENOSPC; /* nothing was written, without an error code */
        if (k == 0 || (k < 0 && errno != EINTR)) return -1;
        if (k > 0) text += k, n -= (size_t)k;
    }
    return 0;
}

/* Copies text for use between the quotes of a JSON string; characters that would need an escape are replaced. */
static void plain(char *out, const char *text, size_t n)
{
    copy_text(out, text, n);
    for (char *p = out; *p; p++)
        if ((unsigned char)*p < ' ')
            *p = ' ';
        else if (*p == '"' || *p == '\\')
            *p = '\'';
}

static int put_op(int fd, const atomo_flight_op *op, double since)
{
    char line[512], purpose_text[ATOMO_FLIGHT_NOTE], end[32] = "null";
    plain(purpose_text, op->note, sizeof purpose_text);
    if (op->end > 0) snprintf(end, sizeof end, "%.6f", op->end - since);
    int n = snprintf(line, sizeof line,
                     "{\"sequence\":%llu,\"operation\":\"%s\",\"number\":%u,\"for\":\"%s\",\"bytes\":%.0f,"
                     "\"begin\":%.6f,\"end\":%s}\n",
                     (unsigned long long)op->sequence, op->operation, op->number, purpose_text, op->bytes,
                     op->begin - since, end);
    return put(fd, line, (size_t)n);
}

static int write_all(int fd, const char *why)
{
    static atomo_flight_op copy[RING]; /* so that the lock is not held while writing to the disk */
    char line[1024], label[256], reason[512];
    pthread_mutex_lock(&flight.lock);
    memcpy(copy, flight.ring, sizeof copy);
    const uint64_t last = flight.last;
    pthread_mutex_unlock(&flight.lock);
    const uint64_t first = last > RING ? last - RING + 1 : 1;
    const double since = last ? copy[first % RING].begin : 0;
    atomo_comm *world = NULL;
    if (atomo_mpi_started() && atomo_comm_world(&world) < 0) world = NULL;
    plain(label, atomo_mpi_label(), sizeof label);
    plain(reason, why, sizeof reason);
    int n = snprintf(
        line, sizeof line,
        "{\"event\":\"flight\",\"rank\":%d,\"label\":\"%s\",\"pid\":%ld,\"step\":%.0f,\"now\":%.6f,\"operations\":%llu,"
        "\"why\":\"%s\"}\n",
        world ? atomo_comm_rank(world) : 0, label, (long)getpid(), atomo_noted_step(), atomo_time() - since,
        (unsigned long long)last, reason);
    if (put(fd, line, (size_t)n) < 0) return -1;
    for (uint64_t k = first; k <= last; k++)
        if (put_op(fd, &copy[k % RING], since) < 0) return -1;
    return fsync(fd);
}

int atomo_flight_write(const char *path, const char *why)
{
    static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER;
    char part[1024];
    ATOMO_REQUIRE(path && why, ATOMO_EARG, "flight_write: the path or the reason is missing");
    const int n = snprintf(part, sizeof part, "%s.part", path);
    ATOMO_REQUIRE(n < (int)sizeof part, ATOMO_EARG, "flight_write: the path has %d bytes, at most %d", n,
                  (int)sizeof part - 6);
    pthread_mutex_lock(&writing);
    const int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int bad = fd < 0 || write_all(fd, why) < 0 ? errno : 0;
    if (fd >= 0 && close(fd) < 0 && !bad) bad = errno;
    if (!bad && rename(part, path) < 0) bad = errno;
    if (bad && fd >= 0) unlink(part);
    pthread_mutex_unlock(&writing);
    ATOMO_REQUIRE(!bad, ATOMO_EIO, "flight_write: %s: %s", path, atomo__system_error(bad));
    return ATOMO_OK;
}
