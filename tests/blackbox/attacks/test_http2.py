# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 clients that want much for little: header blocks that grow, frames that cost and move nothing, streams
that are begun to be thrown away. What each costs is asserted as a ratio to what it sent; see cost.py."""

import itertools
import signal

import pytest

from tests.harness.h2_client import END_METADATA, H2, METADATA, raw_frame

from .cost import Meter, worker_cpu_ns

MOST = 4 << 20  # bytes that an attacker may send before it has to be gone


@pytest.fixture
def server(rig, stricter):
    """A listener that answers /direct by itself, and whose upstream never answers."""
    stricter("own-statistics")
    def make(hcm=None, **http2_options):
        one = rig({"listeners": {"main": {
            "hcm": {"http2_protocol_options": http2_options, **(hcm or {})}, "log": "none",
            "routes": [{"match": {"path": "/direct"}, "direct": [200, "hello"]}, "/hang -> hang", "/ -> up"]}},
            "clusters": {"up": {}, "hang": {"endpoints": ["blackhole"], "connect_timeout": "60s",
                                            "circuit_breakers": {"thresholds": [{"max_pending_requests": 100000}]}}}})
        one.at_rest = lambda: not [k for k in one.proxy.active() if k.startswith("http.")]
        return one
    return make


def served(one):
    other = H2(one.connect())
    other.get(1, "/direct")
    assert other.wait_done(1) and other.streams[1].status == "200"
    other.conn.close()


def run(one, client, pieces, every=8):
    """Sends pieces until the connection ends or there are none; the meter of it."""
    meter = Meter(one)
    sent = 0
    for n, piece in enumerate(pieces):
        client.send(piece)
        client.conn._collect(0)
        sent += len(piece)
        if n % every == 0:
            meter.look()
        if client.conn.state != "open" or sent > MOST:
            break
    return meter


# ---- header blocks that grow ----

LONG = "v" * 3900
BOMBS = {"cookie": ("cookie", LONG), "header": ("x-long", LONG), "accept": ("accept", LONG),
         "short": ("x", "y"), "crumbs": ("cookie", "a=b"), "empty": ("x-empty", ""),
         "authority": (":authority", "h" * 200), "underscores": ("x_long", LONG), "host": ("host", "h" * 3000)}


def bomb(client, field, references, streams, end=5):
    """Requests with so many references, of one byte each, to one entry of the table."""
    first = client.headers(1, client.request_fields("/hang", headers=[field] if not field[0].startswith(":") else []))
    block = client.block(client.request_fields("/hang"))
    again = client.block([field])
    yield first
    for n in range(1, streams):
        yield raw_frame(1, end, 1 + 2 * n, block + again * references)


@pytest.mark.parametrize("what,references,action", [(what, n, "ALLOW") for what in BOMBS for n in (14, 95, 16000)] + [
    ("underscores", n, "DROP_HEADER") for n in (14, 95, 16000)])
def test_bomb(server, stricter, what, references, action):
    """Whatever a byte stands for, memory stays in proportion; an entry that is named fifty times costs the connection."""
    stricter("header-compression-bombs")
    one = server({"common_http_protocol_options": {"headers_with_underscores_action": action}})
    client = H2(one.connect(), settings={4: 0}, window=0)
    client.send()
    field = BOMBS[what]
    meter = run(one, client, bomb(client, field, references, 200))
    if references in (14, 95) and len(field[1]) > 2000:
        assert client.conn.wait_end() != "open"
        # a second host is wrong by itself
        assert what == "host" or one.proxy.stats("header_overflow")["http2.header_overflow"] >= 1
    meter.check(streams=200)
    client.conn.close()
    served(one)


def test_a_table_used_as_it_should_be(server):
    """Every request names a cookie of 3,900 bytes once, and there are many of them: that is what tables are for."""
    one = server()
    client = H2(one.connect())
    fields = client.request_fields("/direct", headers=[("cookie", LONG)])
    for n in range(300):
        client.send(client.headers(1 + 2 * n, fields))
    assert client.wait_done(300)
    assert {s.status for s in client.streams.values()} == {"200"}


def test_headers_of_the_same_value(server):
    """By value or by number, as encoders do: thirty times is not what a bomb looks like."""
    one = server()
    client = H2(one.connect())
    fields = client.request_fields("/direct", headers=[("x-tag", "some value of a header")] * 90)
    client.send(client.headers(1, fields) + client.headers(3, fields))
    assert client.wait_done(2)
    assert {s.status for s in client.streams.values()} == {"200"}


# ---- frames ----

def forever(data):
    return itertools.repeat(data * max(1, 8192 // len(data)))


def in_block(client, piece):
    yield raw_frame(1, 0, 1, client.block(client.request_fields("/direct")))
    yield from forever(piece)


def in_body(client, piece):
    yield client.headers(1, client.request_fields("/direct", "POST"), end=False)
    yield from forever(piece)


FLOODS = {  # name: pieces that are sent until the connection ends
    "ping": lambda c: forever(c.ping()),
    "ping answers": lambda c: forever(c.ping(ack=True)),
    "settings": lambda c: forever(c.settings({3: 100})),
    "empty settings": lambda c: forever(c.settings()),
    "settings answers": lambda c: forever(c.settings(ack=True)),
    "table sizes": lambda c: forever(c.settings({1: 0}) + c.settings({1: 4096})),
    "windows": lambda c: forever(c.settings({4: 0}) + c.settings({4: 2**31 - 1})),
    "large settings": lambda c: forever(raw_frame(4, 0, 0, b"\xff\xff\0\0\0\1" * 2000)),
    "window updates": lambda c: forever(c.window_update(0, 1)),
    "window updates of a stream": lambda c: in_body(c, c.window_update(1, 1)),
    "priority": lambda c: forever(c.priority(3, 1)),
    "priority of many": lambda c: (b"".join(c.priority(1 + 2 * n, 0) for n in range(k, k + 800))
                                   for k in range(1, 800_000, 800)),
    "unknown frames": lambda c: forever(raw_frame(0xbe, 0, 0, b"")),
    "unknown frames of streams": lambda c: forever(raw_frame(0xbe, 0, 77, b"x")),
    "large unknown frames": lambda c: forever(raw_frame(0xbe, 0, 0, bytes(16384))),
    "altsvc": lambda c: forever(raw_frame(10, 0, 0, b"\0\1ab")),
    "priority updates": lambda c: forever(raw_frame(16, 0, 0, b"\0\0\0\1u=1")),
    "goaway": lambda c: forever(c.goaway()),
    "resets of idle streams": lambda c: forever(c.rst(1)),
    "resets of one stream": lambda c: in_body(c, c.rst(1)),
    "empty data": lambda c: in_body(c, c.data(1, b"", end=False)),
    "padding alone": lambda c: in_body(c, raw_frame(0, 8, 1, b"\x05" + bytes(5))),
    "continuations": lambda c: in_block(c, raw_frame(9, 0, 1, c.block([("x-a", "b")]))),
    "empty continuations": lambda c: in_block(c, raw_frame(9, 0, 1, b"")),
    "large continuations": lambda c: in_block(c, raw_frame(9, 0, 1, b"\0\1a\x7f\xff\x7c" + b"v" * 16000)),
    "table updates": lambda c: in_block(c, raw_frame(9, 0, 1, b"\x20\x3f\xe1\x1f" * 4)),
    "headers without length": lambda c: forever(raw_frame(1, 4, 1, b"")),
    "promises": lambda c: forever(raw_frame(5, 4, 1, b"\0\0\0\2\x82")),
}
STAYS = {"large unknown frames", "padding alone"}  # what is paid for byte by byte


@pytest.mark.parametrize("reads", [True, False], ids=["reads", "deaf"])
@pytest.mark.parametrize("what", FLOODS)
def test_flood(server, what, reads):
    """Each ends the connection before long, or costs no more than what it is made of."""
    one = server()
    client = H2(one.connect(), settings=None if reads else {4: 0}, window=2**31 - 65536 if reads else 0)
    client.send()
    meter = run(one, client, FLOODS[what](client))
    if what not in STAYS:
        assert client.conn.wait_end() != "open", "it was never cut off"
    meter.check(streams=1)
    client.conn.close()
    served(one)


PAIR = b"\0\1a\1b"
def in_hanging(client, piece):
    """On a stream that waits for its upstream, and what is sent with it waits as well."""
    yield client.headers(1, client.request_fields("/hang", "POST"), end=False)
    yield from forever(piece)


METADATA_FLOODS = {
    "whole": lambda c: in_hanging(c, raw_frame(METADATA, END_METADATA, 1, PAIR)),
    "large": lambda c: in_hanging(c, raw_frame(METADATA, END_METADATA, 1, b"\0\1a\x7f\x81\x7c" + b"b" * 16000)),
    "without end": lambda c: in_hanging(c, raw_frame(METADATA, 0, 1, PAIR * 3000)),
    "empty": lambda c: in_hanging(c, raw_frame(METADATA, END_METADATA, 1, b"")),
    "that grows": lambda c: in_hanging(c, raw_frame(METADATA, END_METADATA, 1, b"\x40\1a\x7f\x81\x1e" + b"b" * 3968
                                                 + b"\xbe" * 10000)),
}


@pytest.mark.parametrize("what", METADATA_FLOODS)
def test_metadata(server, what):
    """No flow control holds it back: what is kept of it has a bound, and what is for nobody an end."""
    one = server(allow_metadata=True)
    client = H2(one.connect())
    client.send()
    meter = run(one, client, METADATA_FLOODS[what](client))
    if what != "large":  # which is paid for byte by byte
        assert client.conn.wait_end() != "open", "it was never cut off"
    meter.check(streams=1)
    client.conn.close()
    served(one)


# ---- streams ----

def opened(client, stream, path="/hang", method="POST", end=False, headers=()):
    return client.headers(stream, client.request_fields(path, method, headers=headers), end=end)


RESETS = {  # ways to have a stream thrown away, by us or by the client
    "reset": lambda c, s: opened(c, s) + c.rst(s),
    "reset behind a whole request": lambda c, s: opened(c, s, method="GET", end=True) + c.rst(s),
    "window overflow": lambda c, s: opened(c, s) + c.window_update(s, 2**31 - 1),
    "window update of 0": lambda c, s: opened(c, s) + raw_frame(8, 0, s, b"\0\0\0\0"),
    "data behind the end": lambda c, s: opened(c, s, end=True) + c.data(s, b"x"),
    "headers behind the end": lambda c, s: opened(c, s, end=True) + opened(c, s, end=True),
    "data behind a reset": lambda c, s: opened(c, s) + c.rst(s) + c.data(s, b"x"),
    "longer than its length": lambda c, s: opened(c, s, headers=[("content-length", "1")]) + c.data(s, b"xx", end=False),
    "shorter than its length": lambda c, s: opened(c, s, headers=[("content-length", "9")]) + c.data(s, b"xx"),
    "length and no body": lambda c, s: opened(c, s, headers=[("content-length", "9")], end=True),
    "own dependency": lambda c, s: opened(c, s) + raw_frame(2, 0, s, s.to_bytes(4, "big") + b"\x0f"),
    "pseudo-header in trailers": lambda c, s: opened(c, s) + c.headers(s, [(":path", "/")]),
    "trailers that do not end": lambda c, s: opened(c, s) + c.headers(s, [("x-t", "1")], end=False),
    "upper case in trailers": lambda c, s: opened(c, s) + c.headers(s, [("X-T", "1")]),
    "bad header": lambda c, s: opened(c, s, headers=[("connection", "close")]),
    "bad name": lambda c, s: opened(c, s, headers=[("a b", "c")]),
    "bad method": lambda c, s: opened(c, s, method="G T"),
    "no path": lambda c, s: opened(c, s, path=""),
    "too many headers": lambda c, s: opened(c, s, headers=[(f"x-{n}", "v") for n in range(100)]),
    "too large headers": lambda c, s: c.headers(s, c.request_fields("/hang", headers=[
        (f"x-{n}", "v" * 4000) for n in range(16)]), pieces=5),
    "priority in headers of itself": lambda c, s: raw_frame(1, 0x24, s, s.to_bytes(4, "big") + b"\x0f" + c.block(
        c.request_fields("/hang", "POST"))),
}


@pytest.mark.parametrize("lenient", [False, True], ids=["strict", "lenient"])
@pytest.mark.parametrize("how", RESETS)
def test_streams_thrown_away(server, how, lenient):
    """A client that has a thousand streams thrown away, by itself or by us, is thrown out; nothing is left upstream."""
    one = server(override_stream_error_on_invalid_http_message=True) if lenient else server()
    client = H2(one.connect())
    meter = run(one, client, (RESETS[how](client, 1 + 2 * n) for n in range(2000)), every=50)
    if how != "too large headers":  # each was paid for
        assert client.conn.wait_end() != "open", "it was never cut off"
    client.conn.close()
    for gauge in ("http.main.downstream_rq_active", "cluster.hang.upstream_rq_pending_active"):
        one.proxy.wait_stat(gauge, 0)
    begun = one.proxy.stats("^cluster.hang.upstream_rq_pending_total$").get("cluster.hang.upstream_rq_pending_total", 0)
    assert begun <= 1030, "as many as may be open, and one read"
    meter.check(streams=1024)
    served(one)


@pytest.mark.parametrize("how", ["reset", "window overflow"])
def test_requests_thrown_away_connect_to_nobody(server, stricter, how):
    """Hundreds of them that come at a time, each thrown away by what is behind it: they have a few connections made, not one each."""
    if how == "window overflow":
        stricter("broken frames: it closes the connection at the first")
    one = server()
    client = H2(one.connect())
    client.send()
    one.proxy.wait_stat("http.main.downstream_cx_active", 1)
    one.proxy.signal(signal.SIGSTOP)
    try:
        client.send(b"".join(RESETS[how](client, 1 + 2 * n) for n in range(400)))
    finally:
        one.proxy.signal(signal.SIGCONT)
    one.proxy.wait_stat("http.main.downstream_rq_rx_reset", lambda n: n >= 249)
    one.proxy.wait_stat("http.main.downstream_rq_active", 0)
    assert one.proxy.stats("^cluster.hang.upstream_cx_total$")["cluster.hang.upstream_cx_total"] <= 40
    client.conn.close()
    served(one)


def test_requests_thrown_away_spoil_no_connection(server):
    """A connection on which nothing of such a request has left serves the next one."""
    def thrown_away(first, count, path):
        return b"".join(opened(client, s, path, "GET", end=True) + client.rst(s)
                        for s in range(first, first + 2 * count, 2))

    one = server()
    client = H2(one.connect())
    client.send(thrown_away(1, 20, "/hang"))  # from here on it is suspect
    one.proxy.wait_stat("http.main.downstream_rq_rx_reset", 20)
    client.get(101, "/")
    assert client.wait_done(1) and client.streams[101].status == "200"
    one.proxy.signal(signal.SIGSTOP)
    try:
        client.send(thrown_away(103, 200, "/"))
        client.send(client.headers(1001, client.request_fields("/"), end=True))
    finally:
        one.proxy.signal(signal.SIGCONT)
    assert client.wait_done(2) and client.streams[1001].status == "200"
    one.proxy.wait_stat("http.main.downstream_rq_active", 0)
    stats = one.proxy.stats("^cluster.up.upstream_(cx|rq)_total$")
    assert stats["cluster.up.upstream_rq_total"] == 202
    assert stats["cluster.up.upstream_cx_total"] == 1
    client.conn.close()
    served(one)


@pytest.mark.parametrize("how", ["reset", "connection"])
def test_many_streams_end_in_linear_time(server, how):
    """Four times the streams cost four times, not sixteen times."""
    one = server(max_concurrent_streams=20000)
    one.proxy.admin("/runtime_modify?overload.premature_reset_total_stream_count=1000000", "POST")

    def spent(count):
        client = H2(one.connect())
        client.send(opened(client, 1))
        block = client.block(client.request_fields("/hang", "POST"))
        client.send(b"".join(raw_frame(1, 4, 3 + 2 * n, block) for n in range(count - 1)))
        one.proxy.wait_stat("http.main.downstream_rq_active", count)
        before = worker_cpu_ns(one)
        if how == "reset":
            client.send(b"".join(client.rst(1 + 2 * n) for n in range(count)))
        else:
            client.conn.close()
        one.proxy.wait_stat("http.main.downstream_rq_active", 0)
        served(one)  # so that the worker is done with it, and its clock was stopped since
        after = worker_cpu_ns(one)
        client.conn.close()
        return after - before
    spent(500)
    few = max(spent(1000) for _ in range(3))
    assert min(spent(10000) for _ in range(2)) < 25 * few
