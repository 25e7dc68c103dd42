# SPDX-License-Identifier: Apache-2.0
"""Flow control between HTTP/1 clients and HTTP/2 upstreams: who is slow bounds what is kept."""

import socket

import pytest

from tests.harness import envoy_path
from tests.harness.h2_client import H2
from tests.harness.upstream import wait_until

MUCH = 64 << 20
KEPT = "kobune.bytes_in_use"


def kept(one):
    return one.proxy.stats(r"^kobune\.bytes_in_use$")[KEPT]


def still(value):
    """Waits until value() is the same twenty times."""
    seen = []

    def same():
        seen.append(value())
        return len(seen) > 20 and len(set(seen[-20:])) == 1
    wait_until(same, "rest")
    return seen[-1]


def test_a_client_that_does_not_read_stops_the_upstream(rig, memory_measured):
    one = rig({"upstreams": {"up": {"mode": "h2"}},
               "clusters": {"up": {"http2": {"initial_stream_window_size": 65535}}},
               "listeners": {"main": {"listener": {"per_connection_buffer_limit_bytes": 65536}}}})
    one.up.expect([f"head 200 content-length={MUCH}; flood {MUCH}; end"])
    client = one.connect()
    client.send(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    one.up.wait_seen(1)
    got = still(lambda: one.proxy.stats("upstream_cx_rx_bytes_total$")
                ["cluster.up.upstream_cx_rx_bytes_total"])
    assert got < MUCH / 2
    assert kept(one) < 512 << 10
    # another one on the same connection is not held up
    assert b"200 OK" in one.get("/b").received
    assert one.up.accepted == 1
    assert client.wait_bytes(got + (4 << 20))  # more than was under way: it flows again


def test_an_upstream_that_does_not_read_stops_the_client(rig, memory_measured):
    one = rig({"upstreams": {"up": {"mode": "h2", "greedy": True}},
               "clusters": {"up": {"http2": {}, "per_connection_buffer_limit_bytes": 65536}},
               "listeners": {"main": {"listener": {"per_connection_buffer_limit_bytes": 65536}}}})
    client = one.connect()
    client.sock.setblocking(False)
    client.sock.sendall(b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % MUCH)
    sent = 0

    def push():
        nonlocal sent
        try:
            while True:
                sent += client.sock.send(b"x" * 65536)
        except BlockingIOError:
            pass
        return sent
    assert still(push) < MUCH / 2
    assert kept(one) < 512 << 10
    assert b"200 OK" in one.get("/b").received
    client.reset()


@pytest.mark.parametrize("client", ["h1", "h2"])
@pytest.mark.parametrize("upstream", ["h1", "h2"])
def test_a_slow_reader_holds_little(rig, binary, client, upstream):
    """Nothing is configured: an endless answer to a client that does not read holds some hundred KiB."""
    if binary == envoy_path():
        pytest.skip("Envoy holds its windows of 16 MiB and buffers of 1 MiB")
    spec = {"upstreams": {"up": {"mode": "h2"}}, "clusters": {"up": {"http2": {}}}} if upstream == "h2" else {}
    one = rig(spec)
    one.get("/warm").close()
    one.proxy.wait_stat("http.main.downstream_cx_active", 0)
    before = kept(one)
    one.up.expect([f"head 200 content-length={MUCH}; flood {MUCH}; end" if upstream == "h2" else f"bytes:{MUCH}"])
    conn = one.connect()
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
    if client == "h2":
        H2(conn, settings={4: 1 << 30}).get(1, "/a")
    else:
        conn.send(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    one.up.wait_seen(2)
    got = still(lambda: one.proxy.stats("upstream_cx_rx_bytes_total$")["cluster.up.upstream_cx_rx_bytes_total"])
    assert 128 << 10 < got < MUCH / 2
    # whole slices are counted, which are not always full: some 200 KiB of body
    assert kept(one) - before <= 512 << 10
    conn.reset()
