/* query.c - UDP packets between the watchdogs of a job, which ask each other for their state.
 *
 * MPI cannot be used while one of its operations hangs, so every watchdog has a UDP socket of its own. A stopped
 * process does not answer, which tells the others that it is stopped. Nothing is sent before an operation stalls. A
 * packet carries a random key of its receiver, so that packets from another job, or meant for another host with the
 * same private address, are ignored. IPv4 only. Path: stage 7.
 */
#define _GNU_SOURCE
#include "watchdog/query.h"
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

static int fd = -1;
static atomo_peer self;

static void find_addresses(void)
{
    struct ifaddrs *list;
    if (getifaddrs(&list) < 0) return;
    for (const struct ifaddrs *i = list; i && self.addresses < QUERY_ADDRESSES; i = i->ifa_next) {
        struct sockaddr_in a;
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || !(i->ifa_flags & IFF_UP)) continue;
        if (i->ifa_flags & IFF_LOOPBACK) continue; /* ranks on the same host use it anyway */
        memcpy(&a, i->ifa_addr, sizeof a);
        self.address[self.addresses++] = a.sin_addr.s_addr;
    }
    freeifaddrs(list);
}

/* Opens the socket. If that fails the port stays 0: the watchdog still works, but the others cannot ask this rank. */
static void open_socket(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    socklen_t n = sizeof a;
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return;
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || getsockname(fd, (struct sockaddr *)&a, &n) < 0) {
        atomo__query_close();
        return;
    }
    self.port = a.sin_port;
}

int atomo__query_open(atomo_comm *c, atomo_peer **peers)
{
    self.rank = c->rank;
    self.pid = (int32_t)getpid();
    strncpy(self.host, atomo_mpi_hostname(), sizeof self.host - 1);
    if (getrandom(&self.key, sizeof self.key, GRND_NONBLOCK) != sizeof self.key)
        self.key = (uint64_t)(atomo_time() * 1e9) ^ (uint64_t)self.pid << 32;
    self.key |= 1;
    find_addresses();
    open_socket();
    void *p;
    ATOMO_TRY(atomo__calloc(&p, (size_t)c->size * sizeof(atomo_peer)));
    const int n = (int)sizeof self;
    MPI_Request request;
    int rc = MPI_Iallgather(&self, n, MPI_BYTE, p, n, MPI_BYTE, c->mpi, &request);
    int status = rc == MPI_SUCCESS ? atomo__comm_wait(c, 1, &request) : atomo__mpi_fail(rc, "MPI_Iallgather");
    ATOMO_TRY(status); /* after a failure p is not freed: MPI may still write to it */
    *peers = p;
    return ATOMO_OK;
}

void atomo__query_close(void)
{
    if (fd >= 0) close(fd);
    fd = -1;
}

static void send_to(uint32_t address, uint16_t port, const atomo_packet *p)
{
    const struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = address};
    /* A failure is ignored: the peer then counts as a rank that does not answer. */
    if (sendto(fd, p, sizeof *p, 0, (const struct sockaddr *)&a, sizeof a) < 0) return;
}

void atomo__query_send(const atomo_peer *to, int kind, uint32_t round, const atomo_query_state *state)
{
    if (fd < 0 || to->port == 0) return;
    atomo_packet p = {.kind = (uint32_t)kind, .round = round, .key = to->key, .from = self.rank};
    if (state) p.state = *state;
    if (strncmp(to->host, self.host, sizeof self.host) == 0) {
        send_to(htonl(INADDR_LOOPBACK), to->port, &p);
        return;
    }
    for (int i = 0; i < to->addresses; i++) send_to(to->address[i], to->port, &p);
}

bool atomo__query_receive(double seconds, atomo_packet *out)
{
    struct pollfd set = {.fd = fd, .events = POLLIN}; /* with fd -1 poll only sleeps */
    if (poll(&set, 1, (int)(seconds * 1e3) + 1) <= 0) return false;
    if (recv(fd, out, sizeof *out, MSG_DONTWAIT) != (ssize_t)sizeof *out || out->key != self.key) return false;
    out->state.operation[sizeof out->state.operation - 1] = 0;
    out->state.note[sizeof out->state.note - 1] = 0;
    return true;
}
