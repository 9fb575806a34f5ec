/* test_query.c - how watchdogs reach each other: which addresses a rank announces, and which packets it accepts. The
 * test replaces getifaddrs and two MPI functions: one process sees chosen network interfaces and plays both ranks of a
 * job. */
#include "check.h"
#include "watchdog/query.h"
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <unistd.h>

static struct ifaddrs *interfaces;

int getifaddrs(struct ifaddrs **list)
{
    *list = interfaces;
    return 0;
}

void freeifaddrs(struct ifaddrs *list)
{
    (void)list;
}

int MPI_Iallgather(const void *send, int n, MPI_Datatype type, void *recv, int m, MPI_Datatype same, MPI_Comm comm,
                   MPI_Request *request)
{
    (void)type, (void)m, (void)same, (void)comm;
    for (int r = 0; r < 2; r++) memcpy((char *)recv + r * n, send, (size_t)n);
    *request = MPI_REQUEST_NULL;
    return MPI_SUCCESS;
}

int MPI_Testall(int n, MPI_Request *requests, int *over, MPI_Status *statuses)
{
    (void)n, (void)requests, (void)statuses;
    *over = 1;
    return MPI_SUCCESS;
}

static void reaches_itself(void)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a010203)};
    struct sockaddr link = {.sa_family = AF_PACKET}, six = {.sa_family = AF_INET6};
    struct sockaddr *address[] = {
        NULL,  &link, &six, (struct sockaddr *)&here, (struct sockaddr *)&here, (struct sockaddr *)&here, &link, &link,
        &link, &link, &link};
    const unsigned flags[] = {IFF_UP, IFF_UP, IFF_UP, 0, IFF_UP | IFF_LOOPBACK, IFF_UP, IFF_UP,
                              IFF_UP, IFF_UP, IFF_UP, 0};
    enum { N = sizeof flags / sizeof *flags };
    struct ifaddrs list[N] = {{0}};
    for (int i = 0; i < N; i++) {
        list[i].ifa_next = i + 1 < N ? &list[i + 1] : NULL;
        list[i].ifa_addr = address[i];
        list[i].ifa_flags = flags[i];
    }
    interfaces = list;
    atomo_comm c = {.rank = 0, .size = 2};
    atomo_peer *peers;
    REQUIRE(atomo__query_open(&c, &peers) == ATOMO_OK);
    CHECK(peers[1].rank == 0 && peers[1].pid == getpid() && peers[1].key == peers[0].key);
    CHECK(peers[1].addresses == 1 && peers[1].address[0] == here.sin_addr.s_addr);

    atomo_packet p;
    const atomo_query_state state = {.waiting = 1, .seconds = 3, .operation = "barrier"};
    atomo__query_send(&peers[1], QUERY_ANSWER, 9, &state);
    REQUIRE(atomo__query_receive(5, &p));
    CHECK(p.kind == QUERY_ANSWER && p.round == 9 && p.from == 0 && p.state.waiting == 1 && p.state.seconds == 3);
    CHECK(strcmp(p.state.operation, "barrier") == 0);

    atomo_peer stranger = peers[1]; /* another job's key */
    stranger.key ^= 2;
    atomo__query_send(&stranger, QUERY_ANSWER, 10, &state);
    CHECK(!atomo__query_receive(0.2, &p));
    const int fd = socket(AF_INET, SOCK_DGRAM, 0); /* the right key, too short */
    const struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = peers[1].port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    p.key = peers[1].key;
    CHECK(sendto(fd, &p, sizeof p / 2, 0, (const struct sockaddr *)&to, sizeof to) == sizeof p / 2);
    CHECK(!atomo__query_receive(0.2, &p));
    close(fd);
    atomo__query_send(&peers[1], QUERY_ASK, 11, NULL);
    CHECK(atomo__query_receive(5, &p) && p.kind == QUERY_ASK && p.round == 11);
    atomo__query_close();
    atomo__free(peers);
}

int main(void)
{
    RUN(reaches_itself);
    return check_done();
}
