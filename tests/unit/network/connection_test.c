/* SPDX-License-Identifier: Apache-2.0 */
/* Connections whose owner pauses, whose peer leaves meanwhile, that end before they begin, and that
 * their owner has closed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/addr.h"
#include "proxy/api/connection.h"

static struct kb_worker worker;

struct owner {
    struct kb_conn *conn; /* NULL after the last event */
    size_t take;          /* bytes that on_data takes before it pauses */
    size_t taken;
    unsigned remote_closes;
    unsigned local_closes;
};

static void on_data(void *arg, struct kb_buf *in, bool end_stream)
{
    struct owner *owner = arg;
    size_t n = KB_MIN(owner->take, in->len);

    (void)end_stream;
    kb_buf_consume(in, n);
    owner->taken += n;
    owner->take -= n;
    if (owner->take == 0) {
        kb_conn_read_disable(owner->conn, true);
    }
}

static void on_event(void *arg, enum kb_conn_event event)
{
    struct owner *owner = arg;

    owner->remote_closes += event == KB_CONN_REMOTE_CLOSE;
    owner->local_closes += event == KB_CONN_LOCAL_CLOSE;
    owner->conn = NULL;
}

static const struct kb_conn_callbacks callbacks = {.on_data = on_data, .on_event = on_event};

static void turn(void)
{
    for (unsigned i = 0; i < 4; i++) {
        kb_loop_run_once(&worker.loop, false);
    }
}

/* A started connection of `owner`; gives the peer's descriptor. */
static int begin(struct owner *owner)
{
    struct kb_addr addr;
    int fds[2];

    memset(&addr, 0, sizeof(addr));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    owner->conn = kb_conn_create_accepted(&worker, fds[0], &addr, &addr, 0);
    assert_non_null(owner->conn);
    kb_conn_set_owner(owner->conn, &callbacks, owner);
    kb_conn_start(owner->conn);
    return fds[1];
}

static void go_on(void *arg)
{
    struct owner *owner = arg;

    owner->take = SIZE_MAX;
    kb_conn_read_disable(owner->conn, false);
}

/* The end comes in the same read as the last bytes, while the owner has taken only some of them. */
static void test_end_behind_a_pause(void **state)
{
    static const char bytes[KB_SLICE_BYTES];
    struct owner owner = {.take = 100};
    int peer = begin(&owner);

    (void)state;
    assert_int_equal(write(peer, bytes, sizeof(bytes)), sizeof(bytes));
    close(peer);
    turn();
    assert_int_equal(owner.taken, 100);
    assert_int_equal(owner.remote_closes, 0);
    kb_loop_post(&worker.loop, go_on, &owner);
    turn();
    assert_int_equal(owner.taken, sizeof(bytes));
    assert_int_equal(owner.remote_closes, 1);
    turn();
    assert_int_equal(worker.connections_open, 0);
}

static void test_early_close(void **state)
{
    struct owner owner = {.take = 1};
    int peer = begin(&owner);

    (void)state;
    owner.conn->early_close_detected = true;
    assert_int_equal(write(peer, "ab", 2), 2);
    turn();
    assert_int_equal(owner.taken, 1);
    assert_int_equal(owner.remote_closes, 0);
    close(peer);
    turn();
    assert_int_equal(owner.remote_closes, 1);
    assert_int_equal(worker.connections_open, 0);
}

static void timer_fired(struct kb_timer *timer)
{
    timer->cb = NULL;
}

/* Connecting failed at once; the owner closes before it hears of it. */
static void test_close_before_failure_is_told(void **state)
{
    struct owner owner = {.take = 1};
    struct kb_timer timer;
    struct kb_addr addr;

    (void)state;
    assert_int_equal(kb_addr_from_path(&addr, KB_STR("/nonexistent/socket")), 0);
    owner.conn = kb_conn_create_connecting(&worker, &addr, NULL, 1000, 0);
    kb_conn_set_owner(owner.conn, &callbacks, &owner);
    kb_conn_close(owner.conn, KB_CONN_NO_FLUSH);
    assert_int_equal(owner.local_closes, 1);
    assert_int_equal(worker.connections_open, 0);
    kb_timer_init(&timer, timer_fired);
    kb_loop_timer_arm(&worker.loop, &timer, 3);
    while (timer.cb != NULL) {
        kb_loop_run_once(&worker.loop, true);
    }
    assert_int_equal(owner.remote_closes, 0);
}

static void close_delayed(void *arg)
{
    struct owner *owner = arg;

    kb_buf_append(&owner->conn->out, "answer", 6);
    kb_conn_close(owner->conn, KB_CONN_FLUSH_WRITE_AND_DELAY);
}

/* A connection closed with something left to send and a peer to wait for; what is sent arrives. */
static int closed_late(struct owner *owner)
{
    int peer = begin(owner);
    char got[8];

    owner->conn->close_told_late = true;
    owner->conn->delayed_close_ms = 60000;
    kb_loop_post(&worker.loop, close_delayed, owner);
    turn();
    assert_int_equal(read(peer, got, sizeof(got)), 6);
    assert_int_equal(owner->local_closes + owner->remote_closes, 0);
    return peer;
}

static void test_late_close_by_peer(void **state)
{
    struct owner owner = {.take = SIZE_MAX};
    int peer = closed_late(&owner);

    (void)state;
    assert_int_equal(write(peer, "more", 4), 4);
    turn();
    assert_int_equal(owner.taken, 0);
    assert_int_equal(owner.remote_closes, 0);
    close(peer);
    turn();
    assert_int_equal(owner.remote_closes, 1);
    assert_int_equal(owner.local_closes, 0);
    assert_int_equal(worker.connections_open, 0);
}

static void test_late_close_cut_short(void **state)
{
    struct owner owner = {.take = SIZE_MAX};
    struct kb_conn *conn;
    int peer;

    (void)state;
    peer = closed_late(&owner);
    conn = owner.conn;
    kb_conn_close(conn, KB_CONN_FLUSH_WRITE);
    assert_int_equal(owner.local_closes, 0);
    kb_conn_close(conn, KB_CONN_NO_FLUSH);
    assert_int_equal(owner.local_closes, 1);
    turn();
    assert_int_equal(owner.local_closes + owner.remote_closes, 1);
    assert_int_equal(worker.connections_open, 0);
    close(peer);
}

/* Without flushing, what the socket takes still arrives. */
static void test_last_write(void **state)
{
    struct owner owner = {.take = SIZE_MAX};
    int peer = begin(&owner);
    char got[8];

    (void)state;
    kb_buf_append(&owner.conn->out, "part", 4);
    kb_conn_close(owner.conn, KB_CONN_NO_FLUSH);
    assert_int_equal(owner.local_closes, 1);
    assert_int_equal(read(peer, got, sizeof(got)), 4);
    turn();
    assert_int_equal(worker.connections_open, 0);
    close(peer);
}

static int setup(void **state)
{
    (void)state;
    return kb_worker_init(&worker, 0);
}

static int teardown(void **state)
{
    (void)state;
    kb_worker_dispose(&worker);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_end_behind_a_pause, setup, teardown),
        cmocka_unit_test_setup_teardown(test_early_close, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_before_failure_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late_close_by_peer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late_close_cut_short, setup, teardown),
        cmocka_unit_test_setup_teardown(test_last_write, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
