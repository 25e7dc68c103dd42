# SPDX-License-Identifier: Apache-2.0
"""Clients that take the first bytes of an answer without end: what is held for one of them at a hop, with nothing configured."""

import itertools
import socket

import pytest

from tests.harness import envoy_path
from tests.harness.h2_client import H2
from tests.harness.tls_client import Contexts, TlsConnection
from tests.harness.upstream import wait_until

KIB = 1024
READERS = 8
HELD_MAX = 240 * KIB  # in slices, which are not always full
HOP_MAX = 256 * KIB  # with the session of a HTTP/2 client
SESSION_MAX = 32 * KIB  # what a HTTP/2 connection holds with nothing on it
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def held(one):
    return one.proxy.stats(r"^kobune\.worker_0\.bytes_in_use$")["kobune.worker_0.bytes_in_use"]


def at_rest(one):
    """What is held once no byte moved between several looks."""
    seen = []

    def same():
        seen.append(one.proxy.stats(r"(upstream_cx_rx_bytes_total|worker_0\.bytes_in_use)$"))
        return len(seen) > 20 and all(look == seen[-1] for look in seen[-20:])
    wait_until(same, "rest")
    return held(one)


def endless(piece):
    """An upstream of HTTP/1 whose chunks have `piece` bytes."""
    chunk = b"%x\r\n%s\r\n" % (piece, b"x" * piece)
    chunk *= max(1, 65536 // len(chunk))

    def serve(sock):
        sock.recv(65536)
        sock.sendall(HEAD)
        while True:
            sock.sendall(chunk)
    return serve


def upstream(kind):
    protocol, _, tls = kind.partition(" over ")
    spec = {"mode": "h2" if protocol == "h2" else endless({"h1": 65536, "small chunks": 2500}[protocol])}
    cluster = {"http2": {}} if protocol == "h2" else {}
    if tls:
        spec["tls"] = {"alpn": ["h2"]} if protocol == "h2" else {}
        cluster["tls"] = {}
    return {"upstreams": {"up": spec}, "clusters": {"up": cluster}}


def reader(one, kind, contexts):
    protocol, _, tls = kind.partition(" over ")
    if tls:
        conn = TlsConnection(one.port(), {"alpn": ["h2" if protocol == "h2" else "http/1.1"]}, contexts)
        one.connections.append(conn)
    else:
        conn = one.connect()
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
    if protocol == "h2":
        H2(conn, settings={4: 1 << 30}).get(1, "/a")
    else:
        conn.send(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    return conn


@pytest.mark.parametrize("client, up", list(itertools.product(
    ["h1", "h2", "h1 over TLS", "h2 over TLS"], ["h1", "small chunks", "h2", "h1 over TLS", "h2 over TLS"])))
def test_what_a_slow_reader_holds(rig, binary, client, up):
    if binary == envoy_path():
        pytest.skip("Envoy has no such bound")
    spec = upstream(up)
    if "TLS" in client:
        spec["listeners"] = {"main": {"tls": {"alpn": ["h2", "http/1.1"]}}}
    one = rig(spec, concurrency=1)
    if spec["upstreams"]["up"]["mode"] == "h2":
        one.up.expect([f"head 200; bytes {1 << 30}"] * READERS)
    contexts = Contexts()
    conns = [reader(one, client, contexts) for _ in range(READERS)]
    one.proxy.wait_stat("cluster.up.upstream_rq_active", READERS)
    one.proxy.wait_stat("cluster.up.upstream_cx_rx_bytes_total", lambda moved: moved > READERS * 64 * KIB)
    each = at_rest(one) / READERS
    most = HOP_MAX if client.startswith("h2") else HELD_MAX
    assert each <= most, f"{each / KIB:.0f} KiB"
    for conn in conns:
        conn.reset()
    kept = SESSION_MAX if up.startswith("h2") else 0  # the upstream's stays open
    one.proxy.wait_for("nothing held", lambda: held(one) <= kept)
