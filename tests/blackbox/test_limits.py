# SPDX-License-Identifier: Apache-2.0
"""What the process has only so much of: descriptors, local ports, memory for bodies nobody reads."""

import os
import re
import resource
import socket

from tests.harness.patience import DEADLINE_S
from tests.harness.upstream import wait_until

KIB = 1024
MIB = KIB * KIB
SMALL = {"per_connection_buffer_limit_bytes": 64 * KIB}


def descriptors(one):
    return len(os.listdir(f"/proc/{one.proxy.process.pid}/fd"))


def anonymous_kib(one):
    with open(f"/proc/{one.proxy.process.pid}/status", encoding="ascii") as status:
        return int(re.search(r"RssAnon:\s+(\d+)", status.read()).group(1))


def descriptors_limit(one, more):
    """Lets the process open so many more descriptors."""
    limit = max(map(int, os.listdir(f"/proc/{one.proxy.process.pid}/fd"))) + 1 + more
    resource.prlimit(one.proxy.process.pid, resource.RLIMIT_NOFILE, (limit, 4096))


def pauses(one):
    return one.proxy.stderr().count("one more pause")


def worker_cpu_ns(one):
    """CPU time that the threads of the process have used."""
    tasks = f"/proc/{one.proxy.process.pid}/task"
    total = 0
    for task in os.listdir(tasks):
        with open(f"{tasks}/{task}/schedstat", encoding="ascii") as text:
            total += int(text.read().split()[0])
    return total


def test_out_of_descriptors(rig):
    """Accepting pauses instead of spinning; who is connected is served; afterwards all goes on."""
    one = rig(args=["--component-log-level", "conn_handler:debug"])
    kept = one.get("/")
    descriptors_limit(one, 8)
    clients = [one.connect() for _ in range(40)]
    one.proxy.wait_for("the pause", lambda: pauses(one) >= 2)
    before, cpu = pauses(one), worker_cpu_ns(one)
    one.get("/", conn=kept)
    one.proxy.wait_for("more pauses", lambda: pauses(one) >= before + 5)
    spent = (worker_cpu_ns(one) - cpu) / (pauses(one) - before)
    assert spent < 20e6, f"{spent / 1e6} ms of CPU for one attempt to accept"
    assert one.proxy.stderr().count("accepting pauses") < pauses(one), "said once, however long it takes"
    for conn in clients:
        conn.close()
    assert b"200 OK" in one.get("/").received
    one.proxy.wait_stat("http.main.downstream_cx_active", 2)


def test_no_descriptor_for_the_upstream(rig):
    one = rig()
    conn = one.connect()
    one.proxy.wait_stat("http.main.downstream_cx_active", 1)
    descriptors_limit(one, 0)
    assert one.get("/", conn=conn).received.startswith(b"HTTP/1.1 503 ")
    one.proxy.wait_stat("cluster.up.upstream_cx_active", 0)
    one.proxy.wait_stat("cluster.up.upstream_cx_connect_fail", 1)
    descriptors_limit(one, 100)
    assert b"200 OK" in one.get("/", conn=conn).received


def test_no_address_for_the_upstream(rig):
    """The address to connect from is not ours: an answer each, also when that is retried."""
    bind = {"source_address": {"address": "192.0.2.1", "port_value": 0}}
    retry = {"retry_on": "connect-failure,reset", "num_retries": 3, "retry_back_off": {"base_interval": "0.001s"}}
    one = rig({"clusters": {"up": {"upstream_bind_config": bind}},
               "listeners": {"main": {"routes": [{"match": "/", "route": {"cluster": "up", "retry_policy": retry}}]},
                             "raw": {"tcp": {"cluster": "up", "max_connect_attempts": 3}}}})
    for _ in range(5):
        assert one.get("/").received.startswith(b"HTTP/1.1 503 ")
    assert one.connect("raw").wait_end() in ("eof", "rst")
    one.proxy.wait_stat("cluster.up.upstream_cx_active", 0)
    one.proxy.wait_stat("cluster.up.upstream_cx_connect_fail", 5 * 4 + 3)


def flooded(one, sock, total):
    """Sends zeros until the peer takes no more for a while; the number of bytes that it took."""
    sent = 0
    sock.settimeout(0.3)
    try:
        while sent < total:
            sent += sock.send(bytes(64 * KIB))
    except TimeoutError:
        pass
    return sent


def test_unread_upgrade_is_bounded(rig, memory_measured):
    """30 MB into an upgraded connection whose other side does not read, both ways: some buffers, no more."""
    held = []

    def serve(sock):
        while b"\r\n\r\n" not in sock.recv(65536):
            pass
        held.append(sock)
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
        wait_until(lambda: len(held) > 1, "the end")
    one = rig({"listeners": {"main": {"listener": SMALL, "hcm": {"upgrade_configs": [{"upgrade_type": "websocket"}]}}},
               "clusters": {"up": SMALL}, "upstreams": {"up": {"mode": serve}}})
    conn = one.connect()
    conn.send(b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", ["GET"])
    assert conn.wait_responses(1)
    before = anonymous_kib(one)
    for sock, gauge in ((conn.sock, "upstream_cx_tx"), (held[0], "upstream_cx_rx")):
        assert flooded(one, sock, 30 * MIB) < 30 * MIB
        stats = one.proxy.stats("bytes_buffered$")
        assert sum(stats.values()) < 1 * MIB, (gauge, stats)
    assert anonymous_kib(one) - before < 4 * KIB
    held.append(None)
    conn.reset()


def test_unread_mirror_is_bounded(rig, memory_measured):
    """30 MB streamed to a host that reads and to a mirror that does not."""
    held = []

    def serve(sock):
        held.append(sock)
        wait_until(lambda: len(held) > 1, "the end")
    one = rig({"listeners": {"main": {"listener": SMALL, "routes": [
                   {"match": "/", "route": {"cluster": "up", "timeout": "60s",
                                            "request_mirror_policies": [{"cluster": "deaf"}]}}]}},
               "clusters": {"up": SMALL, "deaf": SMALL}, "upstreams": {"deaf": {"mode": serve}}})
    conn = one.connect()
    before = anonymous_kib(one)
    conn.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (30 * MIB), ["POST"])
    taken = flooded(one, conn.sock, 30 * MIB)
    assert taken < 30 * MIB
    stats = one.proxy.stats("bytes_buffered$")
    assert sum(stats.values()) < 1 * MIB, stats
    assert anonymous_kib(one) - before < 4 * KIB
    wait_until(lambda: held, "the mirror's connection")
    held[0].close()
    held.append(None)
    conn.sock.settimeout(DEADLINE_S)
    conn.send(bytes(30 * MIB - taken))
    assert conn.wait_responses(1)
    assert b"200 OK" in conn.received


def test_tcp_client_that_does_not_take_the_rest(rig):
    """Both have ended their side, the client reads nothing: the wait for it has an end."""
    one = rig({"upstreams": {"up": {"mode": lambda sock: sock.sendall(bytes(12 * MIB))}},
               "listeners": {"main": {"tcp": {"cluster": "up", "idle_timeout": "2s"}, "listener": {
                   "per_connection_buffer_limit_bytes": 64 * MIB}}}})
    before = descriptors(one)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
        client.connect(("127.0.0.1", one.port()))
        client.shutdown(socket.SHUT_WR)
        one.proxy.wait_stat("cluster.up.upstream_cx_destroy_remote", 1)
        assert descriptors(one) > before
        one.proxy.wait_for("the descriptor", lambda: descriptors(one) == before)
