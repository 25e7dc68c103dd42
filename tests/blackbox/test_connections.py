# SPDX-License-Identifier: Apache-2.0
"""Connections: many of them, slow readers, bytes in = bytes out, and nothing left at the end."""

import hashlib
import random
import socket
import threading

from tests.harness.client import unchunk
from tests.harness.upstream import wait_until

KIB = 1024


def rss_kib(pid):
    """Anonymous memory of a process."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
    raise AssertionError("no RssAnon")


def test_many_connections_at_once(rig):
    one = rig(concurrency=2)
    conns = [one.connect() for _ in range(500)]
    for conn in conns:
        conn.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    for conn in conns:
        assert conn.wait_responses(1)
        assert conn.received.endswith(b"ok\n")
    one.proxy.wait_stat("http.main.downstream_cx_active", 500)
    for conn in conns:
        conn.close()
    one.proxy.wait_stat("http.main.downstream_cx_active", 0)
    assert one.proxy.stats("^http.main.downstream_rq_2xx$")["http.main.downstream_rq_2xx"] == 500


def test_many_requests_on_one_connection(rig):
    one = rig()
    conn = one.connect()
    for n in range(300):
        one.get(f"/{n}", conn=conn)
    assert len({seen.conn for seen in one.up.take_seen()}) == 1


def test_thousand_pipelined_requests(rig):
    one = rig()
    conn = one.connect()
    conn.send(b"".join(b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n" % n for n in range(1000)), ["GET"] * 1000)
    assert conn.wait_responses(1000)
    paths = [seen.raw.split()[1] for seen in one.up.take_seen()]
    assert paths == [b"/%d" % n for n in range(1000)]


def test_memory_is_bounded_with_a_slow_reader(rig, memory_measured):
    """A client that does not read must stop the upstream, not fill the proxy (8 MiB answer)."""
    small = {"listener": {"per_connection_buffer_limit_bytes": 16 * KIB}}
    one = rig({"listeners": {"main": small},
               "clusters": {"up": {"per_connection_buffer_limit_bytes": 16 * KIB}}})
    one.get("/warm").close()
    before = rss_kib(one.proxy.process.pid)
    size = 8 * KIB * KIB
    one.up.expect([f"bytes:{size}"])
    conn = one.connect()
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
    conn.send(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    one.proxy.wait_stat("cluster.up.upstream_flow_control_paused_reading_total", lambda n: n > 0)
    held = rss_kib(one.proxy.process.pid) - before
    assert held < 4 * KIB, f"{held} KiB more with one slow reader"
    assert conn.wait_responses(1)
    assert conn.received.endswith(b"x" * 1000) and len(conn.received) > size


def test_bytes_held_are_accounted(rig):
    """What a slow reader makes the proxy hold shows for its worker and for the process, and is gone with it."""
    one = rig(concurrency=2)
    def workers():
        return one.proxy.stats(r"^kobune\.worker_\d\.bytes_in_use$")

    assert workers() == {"kobune.worker_0.bytes_in_use": 0, "kobune.worker_1.bytes_in_use": 0}
    idle = one.connect()
    one.get("/", conn=idle)
    # an idle connection holds its manager, and no buffer
    one.proxy.wait_for("nothing but an idle connection", lambda: sum(workers().values()) < KIB)
    one.up.expect([f"bytes:{16 * KIB * KIB}"])
    conn = one.connect()
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
    conn.send(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    one.proxy.wait_stat("cluster.up.upstream_flow_control_paused_reading_total", lambda n: n > 0)
    seen = []

    def still():
        """No byte moved since the last look; the main thread's own change with each answer."""
        seen.append(one.proxy.stats("bytes_(in_use|buffered)$"))
        return len(seen) > 1 and all(seen[-2][name] == value for name, value in seen[-1].items()
                                     if ".worker_" in name or "buffered" in name)
    one.proxy.wait_for("bytes that stand still", still)
    stats = seen[-1]
    held = stats["kobune.worker_0.bytes_in_use"] + stats["kobune.worker_1.bytes_in_use"]
    buffered = stats["http.main.downstream_cx_tx_bytes_buffered"]
    assert 0 < buffered <= held < 8 * KIB * KIB, stats
    assert 0 in (stats["kobune.worker_0.bytes_in_use"], stats["kobune.worker_1.bytes_in_use"])
    assert stats["kobune.main_thread.bytes_in_use"] > 0, "this answer itself"
    assert stats["kobune.bytes_in_use"] > held, stats
    conn.reset()
    idle.close()
    one.proxy.wait_for("nothing held", lambda: set(workers().values()) == {0})


def test_memory_is_bounded_with_a_slow_upstream(rig, memory_measured):
    """An upstream that does not read must stop the client (8 MiB request)."""
    small = {"listener": {"per_connection_buffer_limit_bytes": 16 * KIB}}
    one = rig({"listeners": {"main": small},
               "clusters": {"up": {"per_connection_buffer_limit_bytes": 16 * KIB}}})
    one.get("/warm").close()
    before = rss_kib(one.proxy.process.pid)
    one.up.expect(["lazy"])
    size = 8 * KIB * KIB
    conn = one.connect()
    head = b"POST /big HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size
    sender = threading.Thread(target=conn.send, args=(head + b"y" * size, ["POST"]), daemon=True)
    sender.start()
    one.proxy.wait_stat("http.main.downstream_flow_control_paused_reading_total", lambda n: n > 0)
    held = rss_kib(one.proxy.process.pid) - before
    assert held < 4 * KIB, f"{held} KiB more with one slow upstream"
    one.up.release()
    one.up.wait("the whole body", lambda: len(one.up.seen) == 2)
    sender.join(60)
    assert len(one.up.take_seen()[-1].raw) > size


def test_large_bodies_arrive_unchanged(rig):
    one = rig()
    rng = random.Random(1)
    for size in (1, 16 * KIB - 1, 16 * KIB, 70000, 1 << 20, 5 << 20):
        body = rng.randbytes(size)
        one.up.take_seen()
        conn = one.connect()
        head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size
        conn.send(head + body, ["POST"])
        assert conn.wait_responses(1), size
        raw = one.up.take_seen()[0].raw
        got = raw[raw.index(b"\r\n\r\n") + 4:]
        assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest(), size
        conn.close()


def tcp_rig(rig, script, **options):
    one = rig({"upstreams": {"up": {"mode": "tcp"}},
               "listeners": {"main": {"tcp": {"cluster": "up"}}}}, **options)
    one.up.default = script
    return one


def test_tcp_bytes_in_are_bytes_out(rig):
    """Random pieces both ways at once; the half close is passed on and what follows arrives."""
    one = tcp_rig(rig, "echo")
    rng = random.Random(2)
    data = rng.randbytes(3 << 20)
    conn = one.connect()

    def feed():
        at = 0
        while at < len(data):
            n = rng.randint(1, 100000)
            conn.sock.sendall(data[at:at + n])
            at += n
        conn.half_close()
    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    assert conn.wait_end() == "eof"
    feeder.join(60)
    assert hashlib.sha256(conn.received).digest() == hashlib.sha256(data).digest()


def test_tcp_half_close_then_the_answer(rig):
    one = tcp_rig(rig, "halfecho")
    conn = one.connect()
    data = random.Random(3).randbytes(500000)
    conn.send(data)
    conn.half_close()
    assert conn.wait_end() == "eof"
    assert conn.received == data
    assert one.up.take_seen()[0].raw == data + b"<eof>"


def test_tcp_many_connections(rig):
    one = tcp_rig(rig, "echo", concurrency=2)
    conns = [one.connect() for _ in range(300)]
    for n, conn in enumerate(conns):
        conn.send(b"%d" % n)
    for n, conn in enumerate(conns):
        assert conn.wait_bytes(len(str(n)))
        assert conn.received == b"%d" % n
    for n, conn in enumerate(conns):
        (conn.reset if n % 3 else conn.close)()
    one.proxy.wait_stat("listener.main.downstream_cx_active", 0)
    one.proxy.wait_stat("cluster.up.upstream_cx_active", 0)


def test_tcp_slow_reader_is_bounded(rig, memory_measured):
    one = tcp_rig(rig, "echo")
    conn = one.connect()
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
    data = b"z" * (16 << 20)
    before = rss_kib(one.proxy.process.pid)
    feeder = threading.Thread(target=lambda: (conn.send(data), conn.half_close()), daemon=True)
    feeder.start()
    one.proxy.wait_stat("cluster.up.upstream_flow_control_paused_reading_total", lambda n: n > 0)
    held = rss_kib(one.proxy.process.pid) - before
    assert held < 12 * KIB, f"{held} KiB more with one slow reader"
    assert conn.wait_end() == "eof"
    assert len(conn.received) == len(data)


def test_clients_that_vanish_leave_nothing(rig):
    """Every stage at which a client can go away, by FIN and by RST."""
    one = rig()
    stages = [b"", b"GE", b"GET / HTTP/1.1\r\nhost: a\r\n", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
              b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc",
              b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
              b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * 3, b"\x00\xff" * 100]
    one.up.default = lambda head: "hang"
    for stage in stages:
        for leave in ("close", "reset"):
            conn = one.connect()
            conn.send(stage)
            getattr(conn, leave)()
    one.proxy.wait_stat("http.main.downstream_cx_active", 0)
    one.proxy.wait_stat("cluster.up.upstream_rq_active", 0)
    one.up.default = None
    assert b"200 OK" in one.get("/").received


def test_upstreams_that_vanish_leave_nothing(rig):
    one = rig()
    for what in ("close", "rst", "garbage", "midclose", "chunkclose", "chunkbad", "partialhead", "noclen"):
        one.up.expect([what])
        conn = one.connect()
        conn.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
        conn.wait_responses(1) or conn.wait_end()
        assert conn.received, what
        conn.close()
    wait_until(one.at_rest, "rest")


def test_bytes_one_by_one(rig):
    """A request that comes a byte at a time, and an answer that does."""
    one = rig()
    conn = one.connect()
    request = b"POST /slow HTTP/1.1\r\nhost: a\r\nx-a: b\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-b: c\r\n\r\n3\r\nxyz\r\n0\r\n\r\n"
    one.up.expect({"raw": [answer[n:n + 1].decode() for n in range(len(answer))]})
    for n in range(len(request)):
        conn.send(request[n:n + 1])
    assert conn.wait_responses(1)
    assert unchunk(conn.received).endswith(b"\r\n\r\nxyz")
    raw = one.up.take_seen()[0].raw
    assert raw.startswith(b"POST /slow HTTP/1.1\r\nhost: a\r\nx-a: b\r\n")
    assert unchunk(raw).endswith(b"\r\n\r\nabc")
