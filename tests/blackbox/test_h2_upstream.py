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
    one.up.expect([f"head 200 content-length={MUCH}; bytes {MUCH}; end"])
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
