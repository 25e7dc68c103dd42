/* SPDX-License-Identifier: Apache-2.0 */
/* The whole proxy in one thread, with simulated peers, network and clock, in random orders of
 * events: requests and answers in pieces, resets, ends, timeouts, local replies, changes of
 * configuration between any two of them. Promises: every request gets exactly one end; whatever the
 * proxy sends is well formed; when everybody has left, nothing is left: no connection, no byte, no
 * gauge.
 *
 *     events --config FOLDER [--steps N] [--seed N] [--first-episode N] [--trace]
 *
 * An episode is some hundred steps from its own seed; what it broke, it breaks again alone:
 * --seed N --first-episode N. */
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "proxy/http/hcm_internal.h"
#include "proxy/server/server.h"
#include "proxy/server/server_internal.h"
#include "proxy/stats/stat_iter.h"
#include "tests/events/events_config.h"
#include "tests/events/peer.h"

#define PEERS_MAX     256
#define CLIENTS_MAX   10
#define EPISODE_STEPS 400
#define SETTLE_MS     400000

static const char *const secrets[] = {"sds_server.yaml", "sds_client.yaml", "sds_roots.yaml",
                                      "sds_late.yaml", "sds_never.yaml"};
static const char *config_folder;
static uint64_t steps_wanted = 20000;
static uint64_t seed = 1;
static uint64_t first_episode;
static uint64_t episode, step;
static struct kb_server *server;
static struct kb_worker *worker;
static struct peer *peers[PEERS_MAX];
static size_t peer_count;
static bool leaving; /* the episode ends: nobody connects any more */
static bool health_failed;
static uint64_t streams_logged; /* that have ended */

/* ---- what the linker puts in place of the threads ---- */

void __wrap_kb_loop_run(struct kb_loop *loop);
int __wrap_kb_worker_start(struct kb_worker *started);
uint64_t __wrap_kb_rand_entropy(void);
void __real_kb_stream_log_write(struct kb_stream *stream, const char *type);
void __wrap_kb_stream_log_write(struct kb_stream *stream, const char *type);

int __wrap_kb_worker_start(struct kb_worker *started)
{
    worker = started;
    return 0;
}

uint64_t __wrap_kb_rand_entropy(void)
{
    return kb_rand_u64(&peer_rand);
}

void __wrap_kb_stream_log_write(struct kb_stream *stream, const char *type)
{
    streams_logged += strcmp(type, "DownstreamEnd") == 0;
    __real_kb_stream_log_write(stream, type);
}

/* ---- time and turns ---- */

static KB_NORETURN void fault(const char *what, uint64_t value)
{
    fprintf(stderr, "BROKEN PROMISE: %s: %" PRIu64 "\n", what, value);
    abort();
}

static void loops_turn(void)
{
    for (unsigned i = 0; i < 3; i++) {
        kb_loop_run_once(&server->main.loop, false);
        kb_loop_run_once(&worker->loop, false);
    }
}

static void tick(void *arg)
{
    struct kb_loop *loop = arg;

    kb_timer_wheel_advance(&loop->wheel, kb_loop_now_ms(loop));
}

static void time_pass(uint64_t ms)
{
    kb_clock_advance(ms * 1000000);
    kb_loop_post(&worker->loop, tick, &worker->loop);
    kb_loop_run_once(&worker->loop, false);
    kb_loop_post(&server->main.loop, tick, &server->main.loop);
    kb_loop_run_once(&server->main.loop, false);
}

/* To the next timer, some of the way, or beyond. */
static void time_step(void)
{
    uint64_t next_ms = kb_timer_wheel_next_ms(&worker->loop.wheel);
    uint64_t now_ms = kb_clock_mono_ns() / 1000000;

    if (next_ms > now_ms && next_ms < now_ms + 30000 && peer_chance(40)) {
        time_pass(next_ms - now_ms);
    } else {
        time_pass(peer_chance(10) ? peer_roll(3000) : 1 + peer_roll(30));
    }
}

/* ---- peers ---- */

static struct peer *peer_add(struct sim_conn *net, bool is_server, enum peer_kind kind, bool tls)
{
    KB_ASSERT(peer_count < PEERS_MAX);
    peers[peer_count] = peer_create(net, is_server, kind, tls);
    return peers[peer_count++];
}

/* Ports of upstreams: 2005x are of plain bytes, 2007x of TLS, 2008x of plain bytes in TLS. */
static void on_connecting(struct sim_conn *net)
{
    unsigned tens = kb_addr_port(&net->remote) / 10;
    bool tls;

    if (leaving || peer_count == PEERS_MAX || peer_chance(3)) {
        net->connect = SIM_REFUSED;
        return;
    }
    net->connect = SIM_CONNECTING;
    tls = tens == 2007 || tens == 2008;
    if (tls && peer_chance(2)) { /* it speaks no TLS after all */
        tls = false;
        tens = 2005;
    }
    peer_add(net, true, tens == 2005 || tens == 2008 ? PEER_RAW : PEER_UNKNOWN, tls);
}

static void client_dial(void)
{
    static const struct {
        uint16_t port;
        enum peer_kind kind;
        bool tls;
    } doors[] = {{10001, PEER_H1, false},  {10001, PEER_H1, false},  {10001, PEER_H2, false},
                 {10001, PEER_H2, false},  {10002, PEER_RAW, false}, {10003, PEER_RAW, false},
                 {10004, PEER_H1, true},   {10004, PEER_H1, true},   {10004, PEER_H2, true},
                 {10004, PEER_H2, true},   {10004, PEER_H1, false},  {10005, PEER_RAW, true},
                 {10005, PEER_RAW, false}, {10006, PEER_H1, true},   {10006, PEER_H2, true}};
    size_t door = peer_roll(KB_ARRAY_LEN(doors));
    struct sim_conn *net;
    size_t clients = 0;

    for (size_t i = 0; i < peer_count; i++) {
        clients += !peers[i]->server;
    }
    if (clients >= CLIENTS_MAX || peer_count == PEERS_MAX) {
        return;
    }
    net = sim_dial(doors[door].port, (uint16_t)(40000 + step % 20000));
    if (net != NULL) {
        peer_note(peer_add(net, false, doors[door].kind, doors[door].tls), "connects");
    }
}

static void peers_closed_forget(void)
{
    for (size_t i = 0; i < peer_count;) {
        if (peers[i]->net == NULL) {
            peer_destroy(peers[i]);
            peers[i] = peers[--peer_count];
        } else {
            i++;
        }
    }
}

/* ---- steps ---- */

static void config_step(void)
{
    static const char *const names[] = {"cds.yaml",       "lds.yaml",        "rds.yaml",
                                        "rds.yaml",       "sds_server.yaml", "sds_client.yaml",
                                        "sds_roots.yaml", "sds_late.yaml"};
    const char *name = names[peer_roll(KB_ARRAY_LEN(names))];

    if (peer_trace) {
        fprintf(stderr, "  %s changes\n", name);
    }
    if (peer_chance(10)) {
        health_failed = !health_failed;
        kb_lifecycle_fail_health_check(&server->lifecycle, health_failed);
        return;
    }
    events_config_draw(config_folder, name, false);
    kb_loop_run_once(&server->main.loop, false); /* it has heard; the worker not yet */
}

static void one_step(void)
{
    struct peer *peer = peer_count > 0 ? peers[peer_roll(peer_count)] : NULL;
    uint64_t roll = peer_roll(1000);

    if (roll < 40 || peer == NULL) {
        client_dial();
    } else if (roll < 330) {
        (void)sim_poll(kb_rand_u64(&peer_rand));
    } else if (roll < 560) {
        peer_send(peer, peer_chance(50) ? SIZE_MAX : 1 + peer_roll(2000));
    } else if (roll < 740) {
        peer_read(peer, peer_chance(70) ? SIZE_MAX : 1 + peer_roll(5000));
    } else if (roll < 920) {
        peer_act(peer);
    } else if (roll < 972) {
        time_step();
    } else if (roll < 992) {
        loops_turn();
    } else {
        config_step();
    }
    peers_closed_forget();
}

/* ---- the beginning and the end of an episode ---- */

/* What an episode does depends on its number and the seed, as little as can be on those before. */
static void episode_begin(void)
{
    kb_rand_init(&peer_rand, seed * UINT64_C(1000003) + episode);
    kb_rand_init(&worker->rand, kb_rand_u64(&peer_rand));
    if (peer_trace) {
        fprintf(stderr, "episode %" PRIu64 "\n", episode);
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(secrets); i++) {
        events_config_draw(config_folder, secrets[i], true);
    }
    events_config_draw(config_folder, "cds.yaml", true);
    loops_turn();
    events_config_draw(config_folder, "rds.yaml", true);
    events_config_draw(config_folder, "lds.yaml", true);
    loops_turn();
    time_pass(20000);
}

static void quiet(void)
{
    for (unsigned i = 0; i < 100000; i++) {
        if (!sim_poll(0)) {
            loops_turn();
            if (!sim_poll(0)) {
                return;
            }
        }
    }
    fault("sockets stay ready, whatever the proxy does; rounds", 100000);
}

/* Upstreams fall silent, clients say all that they have to say and take what comes: every request
 * has its end in time. */
static void patience_check(void)
{
    uint64_t until_ms = kb_clock_mono_ns() / 1000000 + SETTLE_MS;

    while (kb_clock_mono_ns() / 1000000 < until_ms) {
        for (size_t i = 0; i < peer_count; i++) {
            if (!peers[i]->server || peers[i]->kind == PEER_H2) {
                peer_send(peers[i], SIZE_MAX);
            }
            peer_read(peers[i], SIZE_MAX);
            if (peers[i]->kind == PEER_H2 && peers[i]->net != NULL && peers[i]->manual_window) {
                nghttp2_session_consume_connection(peers[i]->session, 65535);
            }
        }
        peers_closed_forget();
        quiet();
        time_pass(200 + peer_roll(2000));
    }
    for (size_t i = 0; i < peer_count; i++) {
        if (!peers[i]->server && !peer_settled(peers[i])) {
            peer_fault(peers[i], "a request has no end, however long it waits");
        }
    }
}

static bool ends_with(struct kb_str name, const char *end)
{
    size_t n = strlen(end);

    return name.len >= n && memcmp(name.p + name.len - n, end, n) == 0;
}

static void gauges_check(void)
{
    static const char *const zero[] = {"_cx_active",
                                       "_rq_active",
                                       "_pending_active",
                                       "streams_active",
                                       "bytes_buffered",
                                       "_open",
                                       "frames_active",
                                       "pending_send_bytes",
                                       "_upgrades_active",
                                       "flush_active",
                                       "deferred_stream_close",
                                       "http1_active",
                                       "http2_active",
                                       "s_draining",
                                       "_warming"};
    struct kb_stat_iter iter;
    struct kb_stat_view view;

    kb_stat_iter_init(&iter, server->context.stats, KB_STAT_PHASE_GAUGES);
    while (kb_stat_iter_next(&iter, &view)) {
        for (size_t i = 0; view.value != 0 && i < KB_ARRAY_LEN(zero); i++) {
            if (ends_with(view.name, zero[i])) {
                fprintf(stderr, "gauge %.*s\n", KB_STR_ARG(view.name));
                fault("a gauge is not 0 when everybody has left", view.value);
            }
        }
    }
    kb_stat_iter_dispose(&iter);
}

static void nothing_left_check(void)
{
    uint64_t total = 0;

    if (kb_stat_store_find(server->context.stats, KB_STR("http.main.downstream_rq_total"),
                           &total) != 0 ||
        total != streams_logged) {
        fprintf(stderr, "%" PRIu64 " requests, %" PRIu64 " ends\n", total, streams_logged);
        fault("requests without exactly one end", total - streams_logged);
    }
    if (worker->connections_open != 0 || sim_conns_open() != 0) {
        sim_conns_show();
        fault("connections are still open", worker->connections_open);
    }
    if (sim_conns_open() != 0) {
        fault("descriptors are still open", sim_conns_open());
    }
    if (worker->slices.bytes_in_use != 0) {
        fault("bytes are still in buffers", worker->slices.bytes_in_use);
    }
    if (worker->arena_blocks.used_count != 0) {
        fault("arena blocks are still in use", worker->arena_blocks.used_count);
    }
    gauges_check();
}

static void episode_end(void)
{
    if (health_failed) {
        health_failed = false;
        kb_lifecycle_fail_health_check(&server->lifecycle, false);
    }
    if (peer_chance(40)) {
        patience_check();
    }
    leaving = true;
    for (size_t i = 0; i < peer_count; i++) {
        if (!peers[i]->server || peer_chance(50)) {
            peer_close(peers[i], peer_chance(30));
        }
    }
    peers_closed_forget();
    quiet();
    for (unsigned i = 0; i < 20; i++) { /* retries, delayed closes, drains, ejections */
        time_pass(20000);
        quiet();
    }
    for (size_t i = 0; i < peer_count; i++) {
        peer_close(peers[i], false);
    }
    peers_closed_forget();
    for (unsigned i = 0; i < 6; i++) { /* attempts that follow on a failed one */
        quiet();
        time_pass(20000);
    }
    quiet();
    nothing_left_check();
    leaving = false;
}

static void on_abort(int number)
{
    char text[256];
    int n = snprintf(text, sizeof(text),
                     "again: --seed %" PRIu64 " --first-episode %" PRIu64 " --trace (step %" PRIu64
                     ")\n",
                     seed, episode, step);

    (void)number;
    (void)!write(STDERR_FILENO, text, (size_t)n);
    signal(SIGABRT, SIG_DFL);
}

void __wrap_kb_loop_run(struct kb_loop *loop)
{
    server = KB_CONTAINER_OF(loop, struct kb_server, main.loop);
    for (unsigned i = 0; i < 1000 && worker == NULL; i++) {
        kb_clock_advance(20000000); /* clusters wait for the first checks of their hosts */
        kb_loop_post(loop, tick, loop);
        kb_loop_run_once(loop, false);
    }
    if (worker == NULL) {
        fault("the proxy did not start; turns of its loop", 1000);
    }
    loops_turn();
    for (episode = first_episode; step < steps_wanted; episode++) {
        uint64_t length;

        episode_begin();
        length = 1 + peer_roll(2 * EPISODE_STEPS);
        for (uint64_t i = 0; i < length && step < steps_wanted; i++, step++) {
            one_step();
        }
        episode_end();
    }
    printf("%" PRIu64 " steps in %" PRIu64 " episodes from seed %" PRIu64 ": %" PRIu64
           " requests made by clients, %" PRIu64 " answers, %" PRIu64 " streams, %" PRIu64
           " TLS handshakes\n",
           step, episode - first_episode, seed, peer_requests, peer_answers, streams_logged,
           peer_handshakes);
}

static void options_read(int argc, char **argv)
{
    static const struct option known[] = {
        {"config", required_argument, NULL, 'c'}, {"steps", required_argument, NULL, 'n'},
        {"seed", required_argument, NULL, 's'},   {"first-episode", required_argument, NULL, 'e'},
        {"trace", no_argument, NULL, 't'},        {NULL, 0, NULL, 0}};
    static char folder[PATH_MAX];
    int option;

    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'c':
            config_folder = realpath(optarg, folder);
            break;
        case 'n':
            steps_wanted = strtoull(optarg, NULL, 10);
            break;
        case 's':
            seed = strtoull(optarg, NULL, 10);
            break;
        case 'e':
            first_episode = strtoull(optarg, NULL, 10);
            break;
        case 't':
            peer_trace = true;
            break;
        default:
            exit(2);
        }
    }
    if (config_folder == NULL) {
        fprintf(stderr, "usage: events --config FOLDER [--steps N] [--seed N] [--first-episode N] "
                        "[--trace]\nFOLDER is tests/events/config\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"bootstrap.yaml", "cds.yaml", "lds.yaml", "rds.yaml"};
    static char *arguments[] = {(char *)"kobune",
                                (char *)"-c",
                                (char *)"bootstrap.yaml",
                                (char *)"--concurrency",
                                (char *)"1",
                                (char *)"-l",
                                (char *)"off",
                                (char *)"--drain-time-s",
                                (char *)"3"};
    static struct kb_options options;
    char place[] = "/tmp/kobune-events-XXXXXX";
    int rc;

    options_read(argc, argv);
    if (getenv("KB_EVENTS_LOG") != NULL) {
        arguments[6] = getenv("KB_EVENTS_LOG");
    }
    KB_ASSERT(mkdtemp(place) != NULL && chdir(place) == 0);
    signal(SIGABRT, on_abort);
    kb_rand_init(&peer_rand, seed);
    kb_clock_simulate(UINT64_C(1000000000000), UINT64_C(1700000000000000000));
    for (size_t i = 0; i < KB_ARRAY_LEN(names); i++) {
        events_config_draw(config_folder, names[i], true);
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(secrets); i++) {
        events_config_draw(config_folder, secrets[i], true);
    }
    peer_tls_certs_write();
    sim_connecting = on_connecting;
    KB_ASSERT(kb_options_parse(&options, KB_ARRAY_LEN(arguments), arguments, stdout, stderr) ==
              KB_OPTIONS_RUN);
    rc = kb_server_main(&options);
    for (size_t i = 0; i < KB_ARRAY_LEN(names); i++) {
        unlink(names[i]);
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(secrets); i++) {
        unlink(secrets[i]);
    }
    peer_tls_dispose();
    KB_ASSERT(chdir("/") == 0 && rmdir(place) == 0);
    return rc;
}
