/* SPDX-License-Identifier: Apache-2.0 */
/* The attacker of the benchmark: sends prepared bytes over a set of connections at a bounded rate,
 * one thread. Each connection gets the file --open once and then --loop over and over (--laps times
 * at most, then the connection is closed and opened anew, as it is when the peer closes it).
 * Opening one again counts as OPEN_BYTES beside its bytes, so that the rate bounds that as well.
 *
 * --piece bounds the bytes of one write, --read the bytes that are read from a connection in a
 * second (without it: all). It prints "running" once every connection has sent its opening, and
 * after SIGTERM one JSON object: what it has sent since. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 4096,
    TICK_MS = 5,
    OPEN_BYTES = 100,
    SEND_MAX = 16384,
    READ_PART = 20, /* of many connections such a part is read in a tick */
    OPENING_S = 5,
    SMALL_BUFFER = 4096, /* of a socket that reads slowly */
};

struct bytes {
    char *p;
    size_t len;
};

struct connection {
    int fd;
    bool in_loop; /* the opening has been sent */
    size_t at;    /* bytes sent of the opening, or of this lap */
    unsigned long laps;
    double may_read;
};

static struct {
    struct sockaddr_in address;
    struct bytes open, loop;
    unsigned long connections, piece, laps;
    double rate, read; /* bytes a second; read < 0: all that comes */
} opt = {.connections = 1, .piece = SEND_MAX, .read = -1};

static struct connection *connections;
static unsigned long long sent, opened, blocked;
static volatile sig_atomic_t stopped;

static void fatal(const char *what)
{
    fprintf(stderr, "attack: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void connection_open(struct connection *c)
{
    int on = 1, small = SMALL_BUFFER;

    *c = (struct connection){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (c->fd < 0) {
        fatal("socket");
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (opt.read >= 0) {
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    }
    if (connect(c->fd, (struct sockaddr *)&opt.address, sizeof(opt.address)) != 0 &&
        errno != EINPROGRESS) {
        fatal("connect");
    }
    opened++;
}

/* With a reset: nothing of it lingers that would keep its port. */
static void connection_close(struct connection *c)
{
    struct linger at_once = {.l_onoff = 1};

    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    close(c->fd);
}

static bool connection_failed(ssize_t n)
{
    return n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;
}

/* False: the peer has closed. */
static bool connection_read(struct connection *c, double seconds)
{
    static char bin[65536];
    size_t most = sizeof(bin);
    ssize_t n;

    if (opt.read >= 0) {
        c->may_read += opt.read * seconds;
        most = c->may_read < sizeof(bin) ? (size_t)c->may_read : sizeof(bin);
        if (most == 0) {
            return true;
        }
    }
    n = recv(c->fd, bin, most, 0);
    if (n > 0 && opt.read >= 0) {
        c->may_read -= (double)n;
    }
    return n != 0 && !connection_failed(n);
}

/* One write of a connection's next bytes; how many of the budget it took. */
static double connection_write(struct connection *c, double budget)
{
    const struct bytes *from = c->in_loop ? &opt.loop : &opt.open;
    size_t most = from->len - c->at;
    ssize_t n = 0;

    most = most < opt.piece ? most : opt.piece;
    most = (double)most < budget ? most : (size_t)budget + 1;
    most = most < from->len - c->at ? most : from->len - c->at;
    if (most > 0) {
        n = send(c->fd, from->p + c->at, most, MSG_NOSIGNAL);
    }
    if (connection_failed(n)) {
        connection_close(c);
        connection_open(c);
        return OPEN_BYTES;
    }
    if (n < 0) {
        blocked++;
        return 0;
    }
    sent += (unsigned long long)n;
    c->at += (size_t)n;
    if (c->at == from->len) {
        c->laps += c->in_loop;
        c->in_loop = true;
        c->at = 0;
        if (opt.laps > 0 && c->laps == opt.laps) {
            connection_close(c);
            connection_open(c);
            return (double)n + OPEN_BYTES;
        }
    }
    return (double)n;
}

/* What a connection may send in a tick is spread over all of them, the next tick goes on behind. */
static void tick(double seconds)
{
    static unsigned long next, next_read;
    static double budget;
    unsigned long idle = 0, reads = opt.connections < READ_PART ? opt.connections
                                                                : opt.connections / READ_PART;

    budget += opt.rate * seconds;
    if (budget > opt.rate / 10) { /* it could not send for so long: that is lost */
        budget = opt.rate / 10;
    }
    for (unsigned long i = 0; i < reads; i++) {
        struct connection *c = &connections[next_read];

        if (!connection_read(c, seconds * (double)opt.connections / (double)reads)) {
            connection_close(c);
            connection_open(c);
            budget -= OPEN_BYTES;
        }
        next_read = (next_read + 1) % opt.connections;
    }
    while (budget >= 1 && idle < opt.connections) {
        double took = connection_write(&connections[next], budget);

        idle = took > 0 ? 0 : idle + 1;
        budget -= took;
        next = (next + 1) % opt.connections;
    }
}

/* Opens all of them, and sends their openings: that is not paced. */
static void begin(void)
{
    double limit = now_s() + OPENING_S;
    unsigned long left = opt.connections;

    for (unsigned long i = 0; i < opt.connections; i++) {
        connection_open(&connections[i]);
    }
    while (left > 0 && now_s() < limit) {
        left = 0;
        for (unsigned long i = 0; i < opt.connections; i++) {
            if (!connections[i].in_loop) {
                (void)connection_write(&connections[i], SEND_MAX);
                left += !connections[i].in_loop;
            }
        }
    }
    if (left > 0) {
        fprintf(stderr, "attack: %lu connections did not open within %d s\n", left, OPENING_S);
        exit(1);
    }
    puts("running");
    fflush(stdout);
    sent = opened = blocked = 0;
}

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

static struct bytes file_read(const char *path)
{
    struct bytes out = {0};
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &about) != 0) {
        fatal(path);
    }
    out.len = (size_t)about.st_size;
    out.p = malloc(out.len + 1);
    if (out.p == NULL || read(fd, out.p, out.len) != (ssize_t)out.len) {
        fatal(path);
    }
    close(fd);
    return out;
}

static void options_read(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];

        if (strcmp(name, "--port") == 0) {
            opt.address.sin_port = htons((uint16_t)strtoul(value, NULL, 10));
        } else if (strcmp(name, "--open") == 0) {
            opt.open = file_read(value);
        } else if (strcmp(name, "--loop") == 0) {
            opt.loop = file_read(value);
        } else if (strcmp(name, "--rate") == 0) {
            opt.rate = strtod(value, NULL);
        } else if (strcmp(name, "--connections") == 0) {
            opt.connections = strtoul(value, NULL, 10);
        } else if (strcmp(name, "--piece") == 0) {
            opt.piece = strtoul(value, NULL, 10);
        } else if (strcmp(name, "--laps") == 0) {
            opt.laps = strtoul(value, NULL, 10);
        } else if (strcmp(name, "--read") == 0) {
            opt.read = strtod(value, NULL);
        } else {
            fprintf(stderr, "attack: unknown option %s\n", name);
            exit(2);
        }
    }
    if (opt.address.sin_port == 0 || opt.rate <= 0 || opt.loop.len == 0 || opt.piece == 0 ||
        opt.connections == 0 || opt.connections > CONNECTIONS_MAX) {
        fprintf(stderr, "usage: attack --port PORT --rate BYTES --open FILE --loop FILE "
                        "[--connections N] [--piece BYTES] [--laps N] [--read BYTES]\n");
        exit(2);
    }
    opt.piece = opt.piece < SEND_MAX ? opt.piece : SEND_MAX;
    opt.address.sin_family = AF_INET;
    opt.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
}

int main(int argc, char **argv)
{
    double begun, last;

    options_read(argc, argv);
    signal(SIGTERM, stop);
    connections = calloc(opt.connections, sizeof(*connections));
    if (connections == NULL) {
        fatal("calloc");
    }
    begin();
    begun = last = now_s();
    while (!stopped) {
        double now = now_s();

        tick(now - last);
        last = now;
        usleep(TICK_MS * 1000);
    }
    printf("{\"sent\": %llu, \"opened\": %llu, \"blocked\": %llu, \"seconds\": %.4f}\n", sent,
           opened, blocked, now_s() - begun);
    return 0;
}
