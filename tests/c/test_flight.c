/* test_flight.c - the flight recorder: what it keeps, nesting, notes, the file; and a stall put into words. */
#include "check.h"
#include "watchdog/watchdog.h"
#include <unistd.h>

static void operate(const char *name, atomo_flight_group *group, double bytes)
{
    ATOMO_FLIGHT(name, group, bytes);
}

static void records(void)
{
    atomo_flight_op op;
    uint64_t progress, later;
    const int32_t ranks[] = {1, 3};
    atomo_flight_group group = {.ranks = ranks, .size = 2};
    bool member[4];
    CHECK(!atomo__flight_last(&op, &progress)); /* nothing before the first */
    atomo_flight_note("a purpose that is far longer than the forty-seven bytes that a note has");
    operate("one", &group, 12);
    REQUIRE(atomo__flight_last(&op, &later));
    CHECK(op.sequence == 1 && op.number == 1 && group.number == 1 && op.bytes == 12 && !op.patient);
    CHECK(strcmp(op.operation, "one") == 0);
    CHECK(strcmp(op.note, "a purpose that is far longer than the forty-sev") == 0);
    CHECK(op.end >= op.begin && op.begin > 0);
    CHECK(later == progress);
    atomo__flight_progress();
    CHECK(atomo__flight_last(&op, &later) && later == progress + 1);
    CHECK(!atomo__flight_members(op.sequence, member, 4)); /* it is over */
    group = (atomo_flight_group){.ranks = ranks, .size = 2, .message = true};
    operate("two", &group, 0); /* a message: no number, and the note was used up */
    CHECK(atomo__flight_last(&op, &later) && op.sequence == 2 && op.number == 0 && op.note[0] == 0);
}

static void while_under_way(void)
{
    atomo_flight_op op;
    uint64_t progress;
    atomo_flight_note("outer");
    {
        ATOMO_FLIGHT("outer", NULL, 1);
        CHECK(strcmp(atomo__flight_purpose(), "outer") == 0);
        atomo_flight_note("the next one's");
        CHECK(strcmp(atomo__flight_purpose(), "outer") == 0);
        operate("inner", NULL, 1); /* part of the outer one: leaves no record and takes no note */
        CHECK(atomo__flight_last(&op, &progress) && strcmp(op.operation, "outer") == 0 && op.end == 0);
        atomo__flight_patient();
        CHECK(atomo__flight_last(&op, &progress) && op.patient);
        bool member[2];
        CHECK(atomo__flight_members(op.sequence, member, 2) && !member[0] && !member[1]);
    }
    CHECK(atomo__flight_last(&op, &progress) && op.end > 0);
    CHECK(strcmp(atomo__flight_purpose(), "the next one's") == 0);
    char note[ATOMO_FLIGHT_NOTE];
    atomo__flight_pop_note(note);
    CHECK(strcmp(note, "the next one's") == 0 && *atomo__flight_purpose() == 0);
}

static void members(void)
{
    atomo_flight_op op;
    uint64_t progress;
    const int32_t ranks[] = {1, 5};
    bool member[3];
    atomo_flight_group group = {.ranks = ranks, .size = 2};
    ATOMO_FLIGHT("with others", &group, 1);
    CHECK(atomo__flight_last(&op, &progress));
    CHECK(atomo__flight_members(op.sequence, member, 3) && !member[0] && member[1] && !member[2]);
}

static int lines_of(const char *path, char *first, char *last, size_t n)
{
    FILE *f = fopen(path, "r");
    REQUIRE(f != NULL);
    int lines = 0;
    for (; fgets(last, (int)n, f); lines++)
        if (lines == 0) memcpy(first, last, n);
    fclose(f);
    return lines;
}

static void writes_the_last_256(void)
{
    char path[] = "/tmp/atomo_flight_XXXXXX", part[64], first[1024], last[1024];
    int fd = mkstemp(path);
    REQUIRE(fd >= 0);
    close(fd);
    atomo_mem before, after;
    atomo_mem_stats(&before);
    for (int i = 0; i < 300; i++) operate("many", NULL, i);
    atomo_mem_stats(&after);
    CHECK(after.system_allocs == before.system_allocs);
    atomo_flight_note("with \"quotes\", a \\ and a \n");
    operate("last", NULL, 7);
    CHECK_OK(atomo_flight_write(path, "a \"reason\""));
    CHECK(lines_of(path, first, last, sizeof first) == 257);
    CHECK(strstr(first, "\"event\":\"flight\"") && strstr(first, "\"why\":\"a 'reason'\""));
    CHECK(strstr(last, "\"operation\":\"last\"") && strstr(last, "\"for\":\"with 'quotes', a ' and a  \""));
    snprintf(part, sizeof part, "%s.part", path);
    CHECK(access(part, F_OK) != 0);
    unlink(path);
    CHECK_STATUS(atomo_flight_write("/no/such/folder/x", "why"), ATOMO_EIO, "/no/such/folder/x");
    CHECK_STATUS(atomo_flight_write(NULL, "why"), ATOMO_EARG, "the path");
}

static atomo_peer peer(int rank, int answered, int waiting, uint32_t number, const char *operation)
{
    atomo_peer p = {.rank = rank, .pid = 100 + rank, .host = "node", .answered = answered};
    p.state.waiting = waiting;
    p.state.number = number;
    p.state.seconds = 5;
    p.state.step = 12;
    strcpy(p.state.operation, operation);
    return p;
}

static void words(void)
{
    char text[1024];
    atomo_flight_op op = {.sequence = 9, .operation = "allreduce", .number = 8, .note = "bucket 1", .bytes = 64};
    atomo_peer peers[] = {peer(0, 1, 1, 8, "allreduce"), peer(1, 0, 0, 0, ""), peer(2, 1, 0, 7, "allreduce"),
                          peer(3, 1, 1, 9, "barrier"), peer(4, 0, 0, 0, "")};
    atomo_stall stall = {&op, 61, peers, 5, 4};
    atomo__stall_text(&stall, text, sizeof text);
    CHECK(strstr(text, "no progress for 61 s in allreduce #8 for 'bucket 1' (64 bytes); waiting for\n"));
    CHECK(strstr(text, "  rank 1 (pid 101 on node) gives no sign of life"));
    CHECK(strstr(text, "  rank 2 (pid 102 on node) is in its script for 5 s, after allreduce #7, step 12\n"));
    CHECK(strstr(text, "  rank 3 (pid 103 on node) is elsewhere for 5 s: in barrier #9, step 12\n"));
    CHECK(strstr(text, "in it and waiting: ranks 0, 4\n"));
    CHECK(atomo__stall_spoken_for(&stall, 100)); /* rank 0 waits in the same */
    peers[0] = peer(0, 1, 0, 7, "allreduce");
    CHECK(!atomo__stall_spoken_for(&stall, 100));
    CHECK(atomo__stall_spoken_for(&stall, 4)); /* rank 3 has waited for long, elsewhere */
    for (int i = 0; i < 4; i++) peers[i] = peer(i, 1, 1, 8, "allreduce");
    atomo__stall_text(&stall, text, sizeof text);
    CHECK(strstr(text, "all 5 ranks wait in it: the network delivers nothing"));
    atomo__stall_text(&stall, text, 40); /* cut, not overrun */
    CHECK(strlen(text) == 39);
}

int main(void)
{
    RUN(records);
    RUN(while_under_way);
    RUN(members);
    RUN(writes_the_last_256);
    RUN(words);
    return check_done();
}
