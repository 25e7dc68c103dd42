# SPDX-License-Identifier: Apache-2.0
"""Tunnels: CONNECT that ends here or is passed on, and tcp_proxy through one of its own."""

import hashlib
import random
import socket
import threading

import pytest

KIB = 1024
LIMIT = 16 * KIB
CONNECT = b"CONNECT a.test:443 HTTP/1.1\r\nhost: a.test:443\r\n\r\n"
ENDS = {"upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}


def tunnels(cluster="up", **route):
    """A listener whose CONNECT goes to this cluster."""
    return {"hcm": {"upgrade_configs": [{"upgrade_type": "CONNECT"}]},
            "virtual_hosts": [{"routes": [
                {"match": {"connect_matcher": {}}, "route": {"cluster": cluster, **route}},
                {"match": "/", "route": cluster}]}],
            "listener": {"per_connection_buffer_limit_bytes": LIMIT}}


SMALL = {"per_connection_buffer_limit_bytes": LIMIT}
SPECS = {
    "ended here": {"upstreams": {"up": {"mode": "tcp"}}, "clusters": {"up": SMALL},
                   "listeners": {"main": tunnels(**ENDS)}},
    # tcp_proxy opens a tunnel to a second listener, which passes it on to a third, which ends it
    "through tcp_proxy": {
        "upstreams": {"up": {"mode": "tcp"}},
        "clusters": {"up": SMALL, "next": {"endpoints": ["passing"], **SMALL},
                     "last": {"endpoints": ["ending"], **SMALL}},
        "listeners": {
            "main": {"tcp": {"cluster": "next", "tunneling_config": {"hostname": "a.test:443"}},
                     "listener": {"per_connection_buffer_limit_bytes": LIMIT}},
            "passing": tunnels("last"), "ending": tunnels(**ENDS)}},
}


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def tunnel(one, kind):
    """A client connection on which bytes pass."""
    conn = one.connect()
    if kind == "ended here":
        conn.send(CONNECT, ["CONNECT"])
        assert conn.wait_responses(1), conn.received
        conn.received = b""
    return conn


def stopped(one, kind):
    """The proxy no longer reads the client."""
    name = "http.main" if kind == "ended here" else "tcp.main"
    return f"{name}.downstream_flow_control_paused_reading_total"


@pytest.mark.parametrize("kind", SPECS)
def test_bytes_arrive_unchanged_both_ways(rig, kind):
    one = rig(SPECS[kind])
    one.up.default = "echo"
    rng = random.Random(1)
    for size in (1, LIMIT, 70000, 3 << 20):
        body = rng.randbytes(size)
        conn = tunnel(one, kind)
        sender = threading.Thread(target=conn.send, args=(body,), daemon=True)
        sender.start()
        assert conn.wait_bytes(size), (size, len(conn.received))
        sender.join(60)
        assert hashlib.sha256(conn.received).digest() == hashlib.sha256(body).digest(), size
        conn.close()


@pytest.mark.parametrize("kind", SPECS)
def test_memory_is_bounded_when_neither_end_reads(rig, kind, memory_measured):
    """The client sends 32 MiB and reads nothing, the upstream begins late: both have to wait."""
    one = rig(SPECS[kind])
    one.up.default = "hold"
    tunnel(one, kind).close()
    before = rss_kib(one.proxy.process.pid)
    size = 32 * KIB * KIB
    conn = tunnel(one, kind)
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LIMIT)
    sender = threading.Thread(target=conn.send, args=(b"y" * size,), daemon=True)
    sender.start()
    one.proxy.wait_stat(stopped(one, kind), lambda n: n > 0)
    one.up.release()
    one.proxy.wait_stat("cluster.up.upstream_flow_control_paused_reading_total", lambda n: n > 0)
    held = rss_kib(one.proxy.process.pid) - before
    assert held < 8 * KIB, f"{held} KiB more with one tunnel"
    assert conn.wait_bytes(size), len(conn.received)
    sender.join(60)
    assert len(conn.received) == size and set(conn.received) == set(b"y")


def test_memory_is_bounded_before_a_tunnel_stands(rig, memory_measured):
    """What a client sends behind CONNECT waits until the upstream has agreed, within limits."""
    one = rig({"clusters": {"up": SMALL}, "listeners": {"main": tunnels()}})
    one.up.expect([{"raw": [None, "HTTP/1.1 200 OK\r\n\r\nhello", None], "then": "close"}])
    before = rss_kib(one.proxy.process.pid)
    conn = one.connect()
    sender = threading.Thread(target=conn.send, args=(CONNECT + b"y" * (8 * KIB * KIB), ["CONNECT"]),
                              daemon=True)
    sender.start()
    one.proxy.wait_stat("http.main.downstream_flow_control_paused_reading_total", lambda n: n > 0)
    held = rss_kib(one.proxy.process.pid) - before
    assert held < 4 * KIB, f"{held} KiB more before the tunnel stands"
    one.up.release_one()
    assert conn.wait_responses(1)
    one.up.release()
    conn.wait_end()
    sender.join(60)


@pytest.mark.parametrize("answer", [
    "HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n",
    "HTTP/1.1 403 No\r\ncontent-length: 4\r\n\r\nno",
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "HTTP/1.1 302 Found\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"])
def test_nothing_behind_a_refused_connect_is_a_request(rig, answer):
    one = rig({"clusters": {"up": {}}, "listeners": {"main": tunnels()}})
    smuggled = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
    one.up.expect([{"raw": [None, answer, None, "ok"]}])
    conn = one.connect()
    conn.send(CONNECT + smuggled, ["CONNECT"])
    one.up.wait_seen(1)
    conn.send(smuggled)
    one.up.release_one()
    one.proxy.wait_stat("http.main.downstream_rq_completed", 1)
    conn.send(smuggled)
    one.up.release()
    conn.wait_end()
    one.get("/after").close()
    heads = [seen.raw.split(b"\r\n")[0] for seen in one.up.take_seen()]
    assert heads == [b"CONNECT a.test:443 HTTP/1.1", b"GET /after HTTP/1.1"]


def test_many_tunnels_at_once_and_an_end_in_their_midst(rig):
    """SIGTERM comes while tunnels stand: the process ends cleanly all the same."""
    one = rig(SPECS["through tcp_proxy"])
    one.up.default = "echo"
    conns = [tunnel(one, "through tcp_proxy") for _ in range(20)]
    for conn in conns:
        conn.send(b"hello")
    for conn in conns:
        assert conn.wait_bytes(5)
    one.proxy.stop()
    for conn in conns:
        assert conn.wait_end() in ("eof", "rst")
