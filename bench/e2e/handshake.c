/* SPDX-License-Identifier: Apache-2.0 */
/* The handshake generator of the benchmark: mutual TLS 1.3 connections, one after the other, each
 * closed as soon as it stands; or (--hold) many that stay open and idle.
 *
 * --resume takes a session first, with a request so that the server's tickets are read, and resumes
 * it each time; a handshake that is not what it should be (full, resumed) ends the run.
 * With --sync it prints "warm" and "done" around the measured part, as load.c does; the last line
 * of output is one JSON object. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WARM_HANDSHAKES = 20, HOLD_MAX = 20000 };

/* The order in which the sidecars of a mesh offer them; servers follow it. */
#define SUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

static struct {
    struct sockaddr_in address;
    const char *certificate, *key, *ca, *server_name;
    unsigned long count, hold;
    double rate; /* handshakes a second; 0: as fast as they go */
    bool resume, sync;
} opt = {.count = 100, .server_name = "app.bench.local"};

static unsigned long made;
static volatile sig_atomic_t stopped; /* SIGTERM: what has been made is the result */

static SSL_SESSION *session; /* the newest that the server gave */

static void fatal(const char *what)
{
    fprintf(stderr, "handshake: %s: %s\n", what, errno != 0 ? strerror(errno) : "TLS");
    ERR_print_errors_fp(stderr);
    exit(1);
}

static int session_new(SSL *ssl, SSL_SESSION *fresh)
{
    (void)ssl;
    SSL_SESSION_free(session);
    session = fresh;
    return 1;
}

static SSL_CTX *context_create(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());

    if (context == NULL || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
        SSL_CTX_set_ciphersuites(context, SUITES) != 1 ||
        SSL_CTX_use_certificate_chain_file(context, opt.certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, opt.key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_load_verify_locations(context, opt.ca, NULL) != 1) {
        fatal("certificates");
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, session_new);
    return context;
}

static SSL *connection_open(SSL_CTX *context, bool resume)
{
    static const unsigned char alpn[] = "\x08http/1.1";
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    SSL *ssl = SSL_new(context);

    if (fd < 0 || connect(fd, (struct sockaddr *)&opt.address, sizeof(opt.address)) != 0) {
        fatal("connect");
    }
    SSL_set_fd(ssl, fd);
    SSL_set_tlsext_host_name(ssl, opt.server_name);
    SSL_set_alpn_protos(ssl, alpn, sizeof(alpn) - 1);
    if (resume) {
        SSL_SESSION *copy = SSL_SESSION_dup(session); /* a connection's end spoils its own */

        SSL_set_session(ssl, copy);
        SSL_SESSION_free(copy);
    }
    errno = 0;
    if (SSL_connect(ssl) != 1) {
        fatal("SSL_connect");
    }
    if (SSL_session_reused(ssl) != resume) {
        fprintf(stderr, "handshake: the server made a %s handshake\n", resume ? "full" : "resumed");
        exit(1);
    }
    return ssl;
}

/* Until the peer closed too: all of its work for this connection is done then. */
static void connection_close(SSL *ssl)
{
    int fd = SSL_get_fd(ssl);
    char rest[4096];

    SSL_shutdown(ssl);
    shutdown(fd, SHUT_WR);
    while (recv(fd, rest, sizeof(rest), 0) > 0) {
    }
    SSL_free(ssl);
    close(fd);
}

/* One request: the tickets come before its answer. */
static void session_take(SSL_CTX *context)
{
    static const char request[] = "GET / HTTP/1.1\r\nhost: bench.local\r\n\r\n";
    SSL *ssl = connection_open(context, false);
    char answer[8192];

    if (SSL_write(ssl, request, sizeof(request) - 1) <= 0 ||
        SSL_read(ssl, answer, sizeof(answer)) <= 0) {
        fatal("request");
    }
    connection_close(ssl);
    if (session == NULL) {
        fprintf(stderr, "handshake: the server gave no session to resume\n");
        exit(1);
    }
}

static void sync_with(const char *word)
{
    char line[64];

    if (opt.sync) {
        printf("%s\n", word);
        fflush(stdout);
        if (fgets(line, sizeof(line), stdin) == NULL) {
            exit(1);
        }
    }
}

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void handshakes(SSL_CTX *context, unsigned long count)
{
    double begun = now_s();

    for (unsigned long i = 0; i < count && !stopped; i++) {
        double early = opt.rate > 0 ? begun + (double)i / opt.rate - now_s() : 0;

        if (early > 0) {
            usleep((useconds_t)(early * 1e6));
        }
        connection_close(connection_open(context, opt.resume));
        made++;
    }
}

static void hold(SSL_CTX *context)
{
    static SSL *open_ones[HOLD_MAX];

    sync_with("warm");
    for (unsigned long i = 0; i < opt.hold && i < HOLD_MAX; i++) {
        open_ones[i] = connection_open(context, false);
    }
    sync_with("done");
    for (unsigned long i = 0; i < opt.hold && i < HOLD_MAX; i++) {
        connection_close(open_ones[i]);
    }
}

static void options_read(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];

        if (strcmp(name, "--sync") == 0) {
            opt.sync = true;
        } else if (strcmp(name, "--resume") == 0) {
            opt.resume = true;
        } else if (++i >= argc) {
            fprintf(stderr, "handshake: %s wants a value\n", name);
            exit(2);
        } else if (strcmp(name, "--port") == 0) {
            opt.address.sin_port = htons((uint16_t)strtoul(argv[i], NULL, 10));
        } else if (strcmp(name, "--certificate") == 0) {
            opt.certificate = argv[i];
        } else if (strcmp(name, "--key") == 0) {
            opt.key = argv[i];
        } else if (strcmp(name, "--ca") == 0) {
            opt.ca = argv[i];
        } else if (strcmp(name, "--count") == 0) {
            opt.count = strtoul(argv[i], NULL, 10);
        } else if (strcmp(name, "--rate") == 0) {
            opt.rate = strtod(argv[i], NULL);
        } else if (strcmp(name, "--hold") == 0) {
            opt.hold = strtoul(argv[i], NULL, 10);
        } else {
            fprintf(stderr, "handshake: unknown option %s\n", name);
            exit(2);
        }
    }
    if (opt.address.sin_port == 0 || !opt.certificate || !opt.key || !opt.ca || !opt.count) {
        fprintf(stderr, "usage: handshake --port PORT --certificate FILE --key FILE --ca FILE "
                        "[--count N [--rate N]] [--resume] [--hold N] [--sync]\n");
        exit(2);
    }
    opt.address.sin_family = AF_INET;
    opt.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
}

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

int main(int argc, char **argv)
{
    SSL_CTX *context;
    double begin;

    options_read(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, stop);
    context = context_create();
    if (opt.hold > 0) {
        hold(context);
        printf("{\"connections\": %lu}\n", opt.hold);
        return 0;
    }
    if (opt.resume) {
        session_take(context);
    }
    handshakes(context, WARM_HANDSHAKES);
    sync_with("warm");
    made = 0;
    begin = now_s();
    handshakes(context, opt.count);
    begin = now_s() - begin;
    sync_with("done");
    printf("{\"handshakes\": %lu, \"seconds\": %.4f}\n", made, begin);
    return 0;
}
