/* SPDX-License-Identifier: Apache-2.0 */
/* The load generator of the benchmark: HTTP/1.1 keep-alive GETs over a fixed set of connections,
 * one thread. Closed loop (every connection always has one request under way) or open loop (--rate:
 * requests are due on a fixed grid, --burst of them at each point of it, and latency counts from
 * when a request was due, so that a slow answer also counts against those that had to wait behind
 * it).
 *
 * With --sync it prints "warm" after the warm-up and "done" after the measured part, and each time
 * waits for a line on standard input: whoever measures reads his counters there, with all the
 * connections open and idle. The last line of output is one JSON object. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 4096,
    HEAD_MAX = 8192,
    REQUEST_MAX = 1024,
    /* Histogram of microseconds: 64 steps for each power of two, so 1.6 % wide at most. */
    STEP_BITS = 6,
    BUCKETS = (40 - STEP_BITS) << STEP_BITS,
    STALL_MS = 10000, /* no answer for so long: the proxy hangs, and the run says so */
};

struct connection {
    int fd;
    bool busy;
    bool in_body;
    uint64_t due_ns;    /* when the request under way was due */
    uint64_t body_left; /* bytes of the body still to come */
    size_t head_len;
    char head[HEAD_MAX];
};

struct options {
    struct sockaddr_in address;
    unsigned connections;
    double rate;       /* requests a second; 0: closed loop */
    uint64_t burst;    /* how many of them are due at one time */
    double seconds, warmup;
    uint64_t requests; /* 0: until the time is over */
    bool sync;
    char request[REQUEST_MAX];
};

/* What one phase (warm-up, measured part) did. */
struct phase {
    uint64_t started, finished, errors, reconnects;
    uint64_t begin_ns, end_ns;
    uint64_t histogram[BUCKETS];
    uint64_t max_us;
};

static struct options opt = {.connections = 1, .burst = 1, .seconds = 1};
static struct connection *connections;
static unsigned *idle; /* stack of the numbers of idle connections */
static unsigned idle_count;
static int epoll_fd;
static struct phase phase;
static bool stopping; /* no new requests; the phase ends when all are answered */

static void fatal(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static unsigned bucket_of(uint64_t us)
{
    unsigned shift = 0;
    unsigned bucket;

    while ((us >> shift) >= (2u << STEP_BITS)) {
        shift++;
    }
    bucket = (shift << STEP_BITS) + (unsigned)(us >> shift);
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static uint64_t bucket_top_us(unsigned bucket)
{
    unsigned shift = bucket < (2u << STEP_BITS) ? 0 : (bucket >> STEP_BITS) - 1;
    uint64_t low = bucket - (shift << STEP_BITS);

    return ((low + 1) << shift) - 1;
}

static uint64_t percentile_us(double share)
{
    uint64_t total = 0, seen = 0;

    for (unsigned i = 0; i < BUCKETS; i++) {
        total += phase.histogram[i];
    }
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += phase.histogram[i];
        if (total > 0 && (double)seen >= share * (double)total) {
            return bucket_top_us(i);
        }
    }
    return 0;
}

static void connection_open(unsigned number)
{
    struct connection *c = &connections[number];
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};
    int on = 1;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&opt.address, sizeof(opt.address)) != 0) {
        fatal("connect");
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event) != 0) {
        fatal("epoll_ctl");
    }
    c->busy = c->in_body = false;
    c->head_len = 0;
}

static void request_start(unsigned number, uint64_t due_ns)
{
    struct connection *c = &connections[number];
    size_t length = strlen(opt.request);

    c->busy = true;
    c->due_ns = due_ns;
    phase.started++;
    /* A request of a few hundred bytes into an empty socket buffer never goes out in part. */
    if (send(c->fd, opt.request, length, MSG_NOSIGNAL) != (ssize_t)length && errno != EPIPE &&
        errno != ECONNRESET) {
        fatal("send");
    }
}

/* The connection is idle: the next request on it, unless the phase is over. */
static void connection_idle(unsigned number)
{
    connections[number].busy = false;
    if (opt.rate == 0 && !stopping && (opt.requests == 0 || phase.started < opt.requests)) {
        request_start(number, now_ns());
    } else {
        idle[idle_count++] = number;
    }
}

static void connection_failed(unsigned number)
{
    if (connections[number].busy) {
        phase.errors++;
        phase.finished++;
    }
    phase.reconnects++;
    close(connections[number].fd);
    if (!connections[number].busy) {
        for (unsigned i = 0; i < idle_count; i++) {
            if (idle[i] == number) {
                idle[i] = idle[--idle_count];
                break;
            }
        }
    }
    connection_open(number);
    connection_idle(number);
}

static void request_finish(unsigned number, bool good)
{
    uint64_t us = (now_ns() - connections[number].due_ns) / 1000;

    phase.finished++;
    phase.errors += !good;
    phase.histogram[bucket_of(us)]++;
    if (us > phase.max_us) {
        phase.max_us = us;
    }
    connection_idle(number);
}

/* The value of content-length in a whole head, or -1: nothing else frames a body here. */
static long long content_length(const char *head)
{
    for (const char *line = strchr(head, '\n'); line != NULL; line = strchr(line + 1, '\n')) {
        if (strncasecmp(line + 1, "content-length:", 15) == 0) {
            return strtoll(line + 16, NULL, 10);
        }
    }
    return -1;
}

/* Takes a head from what has been read; the rest of it is body. False: not an answer we know. */
static bool head_take(struct connection *c)
{
    char *end;
    long long length;
    size_t extra;

    c->head[c->head_len] = '\0';
    end = strstr(c->head, "\r\n\r\n");
    if (end == NULL) {
        return c->head_len < HEAD_MAX - 1;
    }
    extra = c->head_len - (size_t)(end + 4 - c->head);
    *end = '\0';
    length = content_length(c->head);
    if (length < 0 || (unsigned long long)length < extra) {
        fprintf(stderr, "load: an answer without a fitting content-length:\n%s\n", c->head);
        return false;
    }
    c->in_body = true;
    c->body_left = (uint64_t)length - extra;
    return true;
}

static void connection_read(unsigned number)
{
    struct connection *c = &connections[number];
    char body[65536];
    ssize_t n;

    if (c->in_body) {
        n = recv(c->fd, body, sizeof(body), MSG_DONTWAIT);
    } else {
        n = recv(c->fd, c->head + c->head_len, HEAD_MAX - 1 - c->head_len, MSG_DONTWAIT);
    }
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n <= 0 || !c->busy) {
        connection_failed(number);
        return;
    }
    if (c->in_body) {
        c->body_left = (uint64_t)n > c->body_left ? 0 : c->body_left - (uint64_t)n;
    } else {
        c->head_len += (size_t)n;
        if (!head_take(c)) {
            connection_failed(number);
            return;
        }
    }
    if (c->in_body && c->body_left == 0) {
        bool good = strncmp(c->head, "HTTP/1.1 200", 12) == 0;

        c->in_body = false;
        c->head_len = 0;
        request_finish(number, good);
    }
}

/* Starts what is due in the open loop; returns when the next request is due. */
static uint64_t rate_start_due(uint64_t now)
{
    for (;;) {
        uint64_t first = phase.started - phase.started % opt.burst;
        uint64_t due = phase.begin_ns + (uint64_t)((double)first * 1000000000.0 / opt.rate);

        if (due > now) {
            return due;
        }
        if (idle_count == 0) {
            return 0;
        }
        request_start(idle[--idle_count], due);
    }
}

static void timer_set(int timer_fd, uint64_t at_ns)
{
    struct itimerspec at = {.it_value = {.tv_sec = (time_t)(at_ns / 1000000000u),
                                         .tv_nsec = (long)(at_ns % 1000000000u)}};

    if (timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL) != 0) {
        fatal("timerfd_settime");
    }
}

static void phase_events(int timer_fd)
{
    struct epoll_event events[64];
    int count = epoll_wait(epoll_fd, events, 64, STALL_MS);

    if (count == 0) {
        fprintf(stderr, "load: no answer for %d ms\n", STALL_MS);
        exit(1);
    }
    for (int i = 0; i < count; i++) {
        if (events[i].data.u32 == UINT32_MAX) {
            uint64_t ticks;
            ssize_t ignored = read(timer_fd, &ticks, sizeof(ticks));

            (void)ignored;
        } else {
            connection_read(events[i].data.u32);
        }
    }
}

/* Runs for `seconds`, or for opt.requests where `counted`, then until every request is answered. */
static void phase_run(int timer_fd, double seconds, bool counted)
{
    uint64_t limit = counted ? opt.requests : 0;
    uint64_t saved = opt.requests;

    opt.requests = limit;
    memset(&phase, 0, sizeof(phase));
    stopping = false;
    phase.begin_ns = now_ns();
    phase.end_ns = phase.begin_ns + (uint64_t)(seconds * 1e9);
    if (opt.rate == 0) {
        unsigned count = idle_count;

        idle_count = 0;
        for (unsigned i = 0; i < count; i++) {
            connection_idle(idle[i]);
        }
    }
    while (!stopping || idle_count < opt.connections) {
        uint64_t now = now_ns();

        stopping = stopping || (limit > 0 ? phase.started >= limit : now >= phase.end_ns);
        if (opt.rate > 0 && !stopping) {
            uint64_t due = rate_start_due(now);

            if (due != 0) {
                timer_set(timer_fd, due);
            }
        }
        if (!stopping || idle_count < opt.connections) {
            phase_events(timer_fd);
        }
    }
    phase.end_ns = now_ns();
    opt.requests = saved;
}

static void sync_with(const char *word)
{
    char line[64];

    if (!opt.sync) {
        return;
    }
    printf("%s\n", word);
    fflush(stdout);
    if (fgets(line, sizeof(line), stdin) == NULL) {
        exit(1);
    }
}

static void options_read(int argc, char **argv)
{
    const char *path = "/", *port = NULL;

    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];

        if (strcmp(name, "--sync") == 0) {
            opt.sync = true;
            continue;
        }
        if (++i >= argc) {
            fprintf(stderr, "load: %s wants a value\n", name);
            exit(2);
        }
        if (strcmp(name, "--port") == 0) {
            port = argv[i];
        } else if (strcmp(name, "--path") == 0) {
            path = argv[i];
        } else if (strcmp(name, "--connections") == 0) {
            opt.connections = (unsigned)strtoul(argv[i], NULL, 10);
        } else if (strcmp(name, "--rate") == 0) {
            opt.rate = strtod(argv[i], NULL);
        } else if (strcmp(name, "--burst") == 0) {
            opt.burst = strtoull(argv[i], NULL, 10);
        } else if (strcmp(name, "--seconds") == 0) {
            opt.seconds = strtod(argv[i], NULL);
        } else if (strcmp(name, "--warmup") == 0) {
            opt.warmup = strtod(argv[i], NULL);
        } else if (strcmp(name, "--requests") == 0) {
            opt.requests = strtoull(argv[i], NULL, 10);
        } else {
            fprintf(stderr, "load: unknown option %s\n", name);
            exit(2);
        }
    }
    if (port == NULL || opt.connections == 0 || opt.connections > CONNECTIONS_MAX ||
        opt.burst == 0) {
        fprintf(stderr, "usage: load --port PORT [--connections N] [--rate N [--burst N]] "
                        "[--seconds S] [--warmup S] [--requests N] [--path PATH] [--sync]\n");
        exit(2);
    }
    opt.address.sin_family = AF_INET;
    opt.address.sin_port = htons((uint16_t)strtoul(port, NULL, 10));
    opt.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    snprintf(opt.request, sizeof(opt.request),
             "GET %s HTTP/1.1\r\nhost: bench.local\r\nuser-agent: load/1\r\naccept: */*\r\n\r\n",
             path);
}

int main(int argc, char **argv)
{
    struct epoll_event timer = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
    int timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    double seconds;

    options_read(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0 || timer_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &timer) != 0) {
        fatal("epoll");
    }
    connections = calloc(opt.connections, sizeof(*connections));
    idle = calloc(opt.connections, sizeof(*idle));
    if (connections == NULL || idle == NULL) {
        fatal("calloc");
    }
    for (unsigned i = 0; i < opt.connections; i++) {
        connection_open(i);
        idle[idle_count++] = i;
    }
    if (opt.warmup > 0) {
        phase_run(timer_fd, opt.warmup, false);
    }
    sync_with("warm");
    phase_run(timer_fd, opt.seconds, opt.requests > 0);
    sync_with("done");
    seconds = (double)(phase.end_ns - phase.begin_ns) / 1e9;
    printf("{\"requests\": %llu, \"errors\": %llu, \"reconnects\": %llu, \"seconds\": %.4f, "
           "\"rps\": %.1f, \"p50_us\": %llu, \"p90_us\": %llu, \"p99_us\": %llu, "
           "\"p999_us\": %llu, \"max_us\": %llu}\n",
           (unsigned long long)phase.finished, (unsigned long long)phase.errors,
           (unsigned long long)phase.reconnects, seconds, (double)phase.finished / seconds,
           (unsigned long long)percentile_us(0.5), (unsigned long long)percentile_us(0.9),
           (unsigned long long)percentile_us(0.99), (unsigned long long)percentile_us(0.999),
           (unsigned long long)phase.max_us);
    return 0;
}
