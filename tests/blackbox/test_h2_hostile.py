# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 clients that mean harm: what they send costs them their connection, and us little."""

import pytest

from tests.harness.h2_client import H2, raw_frame
from tests.harness.upstream import wait_until

from .test_connections import rss_kib

MIB = 1024


def h2(one, **options):
    return H2(one.connect(), **options)


def http2(one, name):
    return one.proxy.stats(f"^http2.{name}$").get(f"http2.{name}", 0)


def ended(client):
    """The connection goes, and a new client is served as ever."""
    assert client.conn.wait_end() != "open"


def served(one):
    other = h2(one)
    other.get(1, "/direct")
    assert other.wait_done(1) and other.streams[1].status == "200"


@pytest.fixture
def server(rig):
    """A listener with a route that answers by itself."""
    def make(**http2_options):
        return rig({"listeners": {"main": {
            "hcm": {"http2_protocol_options": http2_options},
            "routes": [{"match": {"path": "/direct"}, "direct": [200, "hello"]}, "/ -> up"]}}})
    return make


def test_rapid_reset(server):
    one = server()
    one.up.expect(["hang"] * 2000)
    client = h2(one)
    for n in range(1000):
        stream = 1 + 2 * n
        client.send(client.headers(stream, client.request_fields("/x")) + client.rst(stream))
        if client.conn.state != "open":
            break
    ended(client)
    assert one.proxy.stats("premature")["http.main.downstream_rq_too_many_premature_resets"] == 1
    one.proxy.wait_stat("http.main.downstream_rq_active", 0)
    assert one.proxy.stats("rq_http2_total")["http.main.downstream_rq_http2_total"] <= 260
    served(one)


def test_made_you_reset(server):
    """Streams that the server resets, for faults of the client in them, count alike."""
    one = server()
    one.up.expect(["hang"] * 2000)
    client = h2(one)
    for n in range(1000):
        stream = 1 + 2 * n
        client.send(client.headers(stream, client.request_fields("/x")) +
                    client.window_update(stream, 2**31 - 1))
        if client.conn.state != "open":
            break
    ended(client)
    assert one.proxy.stats("premature")["http.main.downstream_rq_too_many_premature_resets"] == 1
    one.proxy.wait_stat("http.main.downstream_rq_active", 0)
    one.proxy.wait_stat("cluster.up.upstream_rq_active", 0)
    served(one)


@pytest.mark.parametrize("payload", [b"", b"x" * 16])
def test_continuation_flood(server, payload):
    one = server()
    client = h2(one)
    client.send(raw_frame(1, 0, 1, client.block(client.request_fields())))
    for _ in range(2000):
        client.send(raw_frame(9, 0, 1, b"\x40" + bytes([len(payload)]) + payload + b"\x01v"
                              if payload else b""))
        if client.conn.state != "open":
            break
    ended(client)
    served(one)


def test_endless_header_block(server, memory_measured):
    """A block in large CONTINUATIONs ends at the limit of headers."""
    one = server()
    before = rss_kib(one.proxy.process.pid)
    client = h2(one)
    block = client.block(client.request_fields(headers=[("x-a", "a" * 4000)]))
    client.send(raw_frame(1, 0, 1, block))
    for n in range(200):
        client.send(raw_frame(9, 0, 1, client.block([(f"x-{n}-{m}", "b" * 1000)
                                                     for m in range(15)])))
        if client.conn.state != "open":
            break
    ended(client)
    assert rss_kib(one.proxy.process.pid) - before < 16 * MIB
    served(one)


@pytest.mark.parametrize("kind", ["ping", "settings"])
def test_flood_of_what_has_to_be_acknowledged(server, kind):
    """By a client that does not read: the answers wait for it, and they are counted."""
    one = server()
    client = h2(one)
    frame = client.ping() if kind == "ping" else client.settings({3: 100})
    for _ in range(400):
        client.send(frame * 1000)
        if client.conn.state != "open":
            break
    ended(client)
    served(one)


@pytest.mark.parametrize("limit", [1, 5])
def test_empty_frames(server, limit):
    one = server(max_consecutive_inbound_frames_with_empty_payload=limit)
    client = h2(one)
    client.send(client.headers(1, client.request_fields("/x", "POST"), end=False) +
                client.data(1, b"", end=False) * limit + client.data(1, b"a", end=False))
    one.proxy.wait_stat("http.main.downstream_rq_active", 1)
    assert http2(one, "inbound_empty_frames_flood") == 0
    client.send(client.data(1, b"", end=False) * (limit + 1))
    ended(client)
    assert http2(one, "inbound_empty_frames_flood") == 1
    served(one)


def test_priority_churn(server):
    one = server(max_inbound_priority_frames_per_stream=20)
    client = h2(one)
    client.get(1, "/direct")
    assert client.wait_done(1)
    client.send(b"".join(client.priority(3 + 2 * n, 1) for n in range(40)))
    client.send(client.ping())
    assert client.wait(lambda: client.pings == 1)
    client.send(client.priority(5, 3))
    ended(client)
    assert http2(one, "inbound_priority_frames_flood") == 1
    served(one)


def test_window_updates(server):
    one = server(max_inbound_window_update_frames_per_data_frame_sent=1)
    client = h2(one, window=0)
    client.get(1, "/direct")
    assert client.wait_done(1)
    client.send(client.window_update(0, 1) * 40)
    ended(client)
    assert http2(one, "inbound_window_update_frames_flood") == 1
    served(one)


def bomb(client, streams, fields):
    """Requests that refer again and again to one long field of the table: a byte stands for it."""
    client.send(client.headers(1, client.request_fields("/x", "POST", headers=[fields]), end=False))
    block = client.block(client.request_fields("/x", "POST"))
    again = client.block([fields])
    assert len(again) == 1
    for n in range(1, streams):
        client.send(raw_frame(1, 4, 1 + 2 * n, block + again * 95))
        if client.conn.state != "open":
            break


@pytest.mark.parametrize("name", ["cookie", "accept", "x-long"])
def test_hpack_bomb(server, name, memory_measured):
    """100 streams of 95 references to 3,900 bytes each, whose answers nobody waits for."""
    one = server()
    served(one)
    before = rss_kib(one.proxy.process.pid)
    client = h2(one, settings={4: 0}, window=0)
    bomb(client, 100, (name, "v" * 3900))
    client.send(client.ping())
    client.wait(lambda: client.pings == 1)
    assert rss_kib(one.proxy.process.pid) - before < 48 * MIB
    client.conn.close()
    served(one)


def test_small_bombs_of_many_streams(server, memory_measured):
    """What 1,000 open streams may hold in headers together is limited."""
    one = server()
    one.up.expect(["hang"] * 1100)
    served(one)
    before = rss_kib(one.proxy.process.pid)
    client = h2(one)
    fields = ("x-long", "v" * 3900)
    client.send(client.headers(1, client.request_fields("/x", headers=[fields])))
    block = client.block(client.request_fields("/x", headers=[fields]))
    again = client.block([fields])
    client.send(b"".join(raw_frame(1, 5, 1 + 2 * n, block + again) for n in range(1, 1000)))
    client.send(client.ping())
    assert client.wait(lambda: client.pings == 1 or client.conn.state != "open")
    assert http2(one, "header_list_size_too_large") > 200
    assert rss_kib(one.proxy.process.pid) - before < 64 * MIB
    client.conn.close()
    served(one)


def test_windows_that_never_open(server, memory_measured):
    """Answers to 100 streams with a window of 0 are held within a bound, and go with the client."""
    one = server()
    body = "raw", "HTTP/1.1 200 OK\r\ncontent-length: 4000000\r\n\r\n" + "x" * 4000000
    one.up.expect([dict([body])] * 100)
    served(one)
    before = rss_kib(one.proxy.process.pid)
    client = h2(one, settings={4: 0}, window=0)
    for n in range(100):
        client.get(1 + 2 * n, "/x")
    assert client.wait(lambda: sum(s.status == "200" for s in client.streams.values()) == 100)
    wait_until(lambda: http2(one, "pending_send_bytes") > 1000000, "answers that wait")
    assert rss_kib(one.proxy.process.pid) - before < 80 * MIB
    client.conn.close()
    one.proxy.wait_stat("http2.pending_send_bytes", 0)
    served(one)


def test_more_streams_than_allowed(server):
    one = server(max_concurrent_streams=3)
    one.up.expect(["hang"] * 3)
    client = h2(one)
    client.send(b"".join(client.headers(1 + 2 * n, client.request_fields("/x")) for n in range(10)))
    assert client.wait(lambda: sum(s.reset == 7 for s in client.streams.values()) == 7)
    assert http2(one, "stream_refused_errors") in (0, 7)
    assert one.proxy.stats("rq_active")["http.main.downstream_rq_active"] == 3
    client.conn.close()
    served(one)


@pytest.mark.parametrize("frame", [
    raw_frame(0, 0, 0, b"x"), raw_frame(1, 4, 0, b"\x82"), raw_frame(3, 0, 1, b"\0"),
    raw_frame(4, 0, 0, b"\0"), raw_frame(4, 1, 0, b"\0" * 6), raw_frame(5, 4, 1, b"\0\0\0\2"),
    raw_frame(6, 0, 0, b"x"), raw_frame(6, 0, 1, b"x" * 8), raw_frame(7, 0, 1, b"\0" * 8),
    raw_frame(8, 0, 0, b"\0" * 4), raw_frame(8, 0, 0, b"\0"), raw_frame(9, 4, 1, b""),
    raw_frame(0, 8, 1, b"\xff"), raw_frame(1, 4, 2, b"\x82"), raw_frame(0, 0, 9, b"x"),
    raw_frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff"), raw_frame(1, 4, 1, b"\x80"),
    raw_frame(1, 4, 1, b"\x3f\xff\xff\xff\x0f"), raw_frame(1, 0x24, 1, b"\0\0\0\1\x10\x82"),
    b"\xff\xff\xff\0\0\0\0\0\1",
], ids=lambda frame: frame[:12].hex())
def test_broken_frames(server, frame):
    one = server()
    client = h2(one)
    client.send(client.ping())
    assert client.wait(lambda: client.pings == 1)
    client.send(frame)
    ended(client)
    served(one)
