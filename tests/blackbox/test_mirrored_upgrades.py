# SPDX-License-Identifier: Apache-2.0
"""Mirrors of requests to upgrade: what the client sends behind them reaches a mirror that agreed, and no other."""

import pytest

from tests.harness.upstream import wait_until

AGREED = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
REFUSED = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"


def upgrading(answer, got, held=None):
    """An upstream that answers so, once `held` says so, and keeps what comes."""
    def serve(sock):
        got.append(b"")
        while b"\r\n\r\n" not in got[-1]:
            got[-1] += sock.recv(65536)
        if held:
            wait_until(held, "leave to answer")
        sock.sendall(answer)
        while data := sock.recv(65536):
            got[-1] += data
    return serve


@pytest.mark.parametrize("answer, code", [(AGREED, 101), (REFUSED, 403), (OK, None)])
def test_bytes_reach_a_mirror_that_agreed_only(rig, answer, code):
    up, mirror = [], []
    route = {"match": "/", "route": {"cluster": "up", "request_mirror_policies": [{"cluster": "mir"}]}}
    one = rig({"clusters": {"up": {}, "mir": {}},
               "upstreams": {"up": {"mode": upgrading(AGREED, up)},
                             "mir": {"mode": upgrading(answer, mirror, lambda: up and SMUGGLED in up[0])}},
               "listeners": {"main": {"routes": [route], "hcm": {"upgrade_configs": [{"upgrade_type": "websocket"}]}}}})
    conn = one.connect()
    conn.send(b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", ["GET"])
    assert conn.wait_bytes(len(AGREED))
    conn.send(SMUGGLED)
    if code == 101:
        wait_until(lambda: mirror and mirror[0].endswith(SMUGGLED), "the bytes at the mirror")
    elif code:
        one.proxy.wait_stat(f"cluster.mir.upstream_rq_{code}", 1)
    else:
        one.proxy.wait_stat("cluster.mir.upstream_cx_destroy", 1)
    conn.send(b"more")
    wait_until(lambda: up[0].endswith(SMUGGLED + b"more"), "the rest at the upstream")
    if code == 101:
        wait_until(lambda: mirror[0].endswith(SMUGGLED + b"more"), "the rest at the mirror")
    else:
        assert mirror[0].endswith(b"\r\n\r\n") and b"smuggled" not in mirror[0]
    conn.close()
