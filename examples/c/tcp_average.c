/* tcp_average.c - processes that average their gradients through compressed messages over plain TCP, without MPI.
 *
 * They train a linear model y = W x together: each process has samples of its own, and in every step its gradient of
 * the squared error. It encodes the gradient to one message and sends it to process 0, which sends all messages to all
 * processes. Each decodes them in the order of the ranks, so that averages, and W, are bit-identical in all of them.
 *
 *     cc tcp_average.c $(pkg-config --cflags --libs atomo-codec) -lm -o tcp_average
 *     ./tcp_average 0 3 127.0.0.1 4711 & ./tcp_average 1 3 127.0.0.1 4711 & ./tcp_average 2 3 127.0.0.1 4711
 *
 * The arguments are the rank, the number of processes, the IPv4 address of process 0 and its port (at process 0, port 0
 * takes a free one, which it prints). Two more may follow: a set of atoms, "entry" unless given, and the ratio of the
 * gradient's bytes to the message's, 16 unless given. */
#include <arpa/inet.h>
#include <atomo_codec.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { OUT = 32, IN = 64, W = OUT * IN, SAMPLES = 16, STEPS = 150, MOST_RANKS = 64, WAIT = 30 /* seconds */ };

static int rank, ranks;

static void fail(const char *what)
{
    fprintf(stderr, "rank %d: %s: %s\n", rank, what, strerror(errno));
    exit(1);
}

static void need(int status) /* of a function of the library: every status below 0 has a text */
{
    if (status >= 0) return;
    fprintf(stderr, "rank %d: %s: %s\n", rank, atomo_status_name(status), atomo_last_error());
    exit(1);
}

/* ---- sockets ----------------------------------------------------------------------------------------------------- */

static void send_all(int to, const void *data, size_t n)
{
    for (const char *at = data; n > 0;) {
        const ssize_t sent = write(to, at, n);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) fail("send");
        at += sent;
        n -= (size_t)sent;
    }
}

static void receive_all(int from, void *data, size_t n)
{
    for (char *at = data; n > 0;) {
        const ssize_t got = read(from, at, n);
        if (got < 0 && errno == EINTR) continue;
        if (got == 0) errno = ECONNRESET; /* the other process has ended */
        if (got <= 0) fail("receive");
        at += got;
        n -= (size_t)got;
    }
}

/* A block of bytes on the wire: its length in 4 bytes, then the bytes. */
static void send_block(int to, const void *data, size_t n)
{
    const uint32_t length = htonl((uint32_t)n);
    send_all(to, &length, sizeof length);
    send_all(to, data, n);
}

static size_t receive_block(int from, void *data, size_t room)
{
    uint32_t length;
    receive_all(from, &length, sizeof length);
    length = ntohl(length);
    if (length > room) {
        errno = EMSGSIZE;
        fail("receive");
    }
    receive_all(from, data, length);
    return length;
}

static void set_options(int peer)
{
    const int yes = 1;
    const struct timeval limit = {WAIT, 0}; /* a process that waits longer for another one ends with an error */
    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(peer, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

/* Rank 0: peer[r] = a connection from every other rank, which says its number first. */
static void accept_all(struct sockaddr_in at, int *peer)
{
    socklen_t size = sizeof at;
    const int yes = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0) fail("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    set_options(listener);
    if (bind(listener, (struct sockaddr *)&at, size) < 0 || listen(listener, MOST_RANKS) < 0) fail("listen");
    getsockname(listener, (struct sockaddr *)&at, &size);
    printf("listening on port %d\n", ntohs(at.sin_port));
    fflush(stdout);
    for (int n = 1; n < ranks; n++) {
        uint32_t number;
        const int s = accept(listener, NULL, NULL);
        if (s < 0) fail("accept");
        set_options(s);
        receive_all(s, &number, sizeof number);
        number = ntohl(number);
        if (number < 1 || number >= (uint32_t)ranks || peer[number] >= 0) {
            fprintf(stderr, "rank 0: a process says that it is rank %u\n", (unsigned)number);
            exit(1);
        }
        peer[number] = s;
    }
    close(listener);
}

/* Other ranks: returns a connection to rank 0, which may start later. */
static int connect_to(struct sockaddr_in at)
{
    const uint32_t number = htonl((uint32_t)rank);
    for (int tries = 0;; tries++) {
        const int s = socket(AF_INET, SOCK_STREAM, 0);
        if (s < 0) fail("socket");
        if (connect(s, (struct sockaddr *)&at, sizeof at) == 0) {
            set_options(s);
            send_all(s, &number, sizeof number);
            return s;
        }
        if (tries == 10 * WAIT) fail("connect");
        close(s);
        nanosleep(&(struct timespec){0, 100000000}, NULL);
    }
}

/* message[r], length[r] = the block of every rank, this one's given. Rank 0 receives them and sends all to all. */
static void all_gather(const int *peer, uint8_t *const *message, size_t *length, size_t room)
{
    if (rank > 0) {
        send_block(peer[0], message[rank], length[rank]);
        for (int r = 0; r < ranks; r++)
            if (r != rank) length[r] = receive_block(peer[0], message[r], room);
        return;
    }
    for (int r = 1; r < ranks; r++) length[r] = receive_block(peer[r], message[r], room);
    for (int to = 1; to < ranks; to++)
        for (int r = 0; r < ranks; r++)
            if (r != to) send_block(peer[to], message[r], length[r]);
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

/* n numbers between -1 and 1, the same for the same (purpose, rank, step). */
static void draw(uint32_t purpose, int of_rank, int step, int n, float *out)
{
    const atomo_stream s = {{purpose, 0}, ATOMO_RNG_USER, (uint32_t)of_rank, (uint32_t)step, 0};
    atomo_random_uniform(&s, 0, n, out);
    for (int i = 0; i < n; i++) out[i] = 2 * out[i] - 1;
}

/* grad = the gradient of mean |w x - true_w x|^2 over this rank's new samples x; returns that mean. */
static double loss_and_gradient(const float *w, const float *true_w, int step, float *grad)
{
    static float x[SAMPLES * IN];
    double loss = 0;
    draw(1, rank, step, SAMPLES * IN, x);
    memset(grad, 0, sizeof(float) * W);
    for (int s = 0; s < SAMPLES; s++)
        for (int o = 0; o < OUT; o++) {
            float error = 0;
            for (int i = 0; i < IN; i++) error += (w[o * IN + i] - true_w[o * IN + i]) * x[s * IN + i];
            for (int i = 0; i < IN; i++) grad[o * IN + i] += 2 * error * x[s * IN + i] / SAMPLES;
            loss += (double)error * error / SAMPLES;
        }
    return loss;
}

static void train(const int *peer, const char *atoms, double ratio)
{
    static float w[W], true_w[W], grad[W], average[W];
    const double shape[] = {OUT, IN}, options[] = {NAN, ratio}; /* atoms= is not set, ratio= is */
    const int tensor = 1;
    uint8_t *message[MOST_RANKS];
    size_t length[MOST_RANKS];
    double sent = 0, used, first = 0, last = 0;
    atomo_tensor *g, *sum;
    atomo_codec *codec;
    need(atomo_tensor_wrap(ATOMO_F32, 2, shape, NULL, grad, &g));
    need(atomo_tensor_wrap(ATOMO_F32, 2, shape, NULL, average, &sum));
    need(atomo_codec_new(atoms, 2, options, 1, ATOMO_WAY_UP, &codec));
    need(atomo_codec_plan(codec, tensor, 2, shape, 0, "w"));
    const double room = atomo_codec_wire_max(codec, 0);
    for (int r = 0; r < ranks; r++)
        if (!(message[r] = malloc((size_t)room))) fail("malloc");

    draw(2, 0, 0, W, true_w);
    for (int step = 0; step < STEPS; step++) {
        double bytes;
        last = loss_and_gradient(w, true_w, step, grad);
        if (step == 0) first = last;
        need(atomo_codec_encode(codec, 1, &tensor, (const atomo_tensor *[]){g}, step, rank, message[rank], room,
                                &bytes));
        length[rank] = (size_t)bytes;
        sent += bytes;
        all_gather(peer, message, length, (size_t)room);
        memset(average, 0, sizeof average);
        for (int r = 0; r < ranks; r++) {
            const double n = (double)length[r];
            need(atomo_codec_decode_add(codec, tensor, step, r, message[r], n, 1.0 / ranks, sum, &used));
        }
        need(atomo_codec_finish(codec, tensor, 1.0 / ranks, sum));
        for (int i = 0; i < W; i++) w[i] -= 0.1f * average[i];
    }

    uint32_t bits = 0; /* a checksum of w: the same on all ranks */
    for (int i = 0; i < W; i++) {
        uint32_t word;
        memcpy(&word, &w[i], sizeof word);
        bits = bits * 2654435761u + word;
    }
    printf("rank %d of %d: loss %.2f, then %.6f; %.0f bytes a message in place of %zu; weights %08x\n", rank, ranks,
           first, last, sent / STEPS, sizeof grad, (unsigned)bits);
    for (int r = 0; r < ranks; r++) free(message[r]);
    atomo_tensor_free(g), atomo_tensor_free(sum);
    atomo_codec_free(codec);
}

int main(int argc, char **argv)
{
    int peer[MOST_RANKS];
    struct sockaddr_in at = {.sin_family = AF_INET};
    for (int r = 0; r < MOST_RANKS; r++) peer[r] = -1;
    rank = argc > 4 ? atoi(argv[1]) : -1;
    ranks = argc > 4 ? atoi(argv[2]) : 0;
    if (argc > 7 || rank < 0 || rank >= ranks || ranks > MOST_RANKS || inet_pton(AF_INET, argv[3], &at.sin_addr) != 1) {
        fprintf(stderr, "usage: tcp_average RANK RANKS ADDRESS PORT [ATOMS [RATIO]]   (0 <= RANK < RANKS <= %d)\n",
                MOST_RANKS);
        return 2;
    }
    if (atomo_codec_abi() != ATOMO_CODEC_ABI) {
        fprintf(stderr, "tcp_average: the library has ABI %d, expected %d\n", atomo_codec_abi(), ATOMO_CODEC_ABI);
        return 1;
    }
    at.sin_port = htons((uint16_t)atoi(argv[4]));
    signal(SIGPIPE, SIG_IGN); /* writing to a process that has ended is an error with a text */
    if (rank > 0)
        peer[0] = connect_to(at);
    else
        accept_all(at, peer);
    train(peer, argc > 5 ? argv[5] : "entry", argc > 6 ? atof(argv[6]) : 16);
    return 0; /* the end of the process closes its connections */
}
