# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 from clients: what they get, and what they get of the connection itself."""

import hashlib
import random
import shutil
import socket
import ssl
import subprocess

import pytest

from tests.harness import certs
from tests.harness.client import unchunk
from tests.harness.h2_client import H2
from tests.harness.patience import DEADLINE_S

from .test_connections import rss_kib

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"


def h2(one, **options):
    return H2(one.connect(), **options)


def test_one_get(rig):
    one = rig()
    client = h2(one)
    client.get(1, "/a")
    assert client.wait_done(1)
    assert client.streams[1].status == "200"
    assert client.streams[1].body == b"ok\n"
    seen = one.up.take_seen()[0]
    assert seen.raw.startswith(b"GET /a HTTP/1.1\r\nhost: h.test\r\n")


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl: apt-get install curl")
def test_curl_with_prior_knowledge(rig):
    one = rig()
    done = subprocess.run(["curl", "-sS", "--http2-prior-knowledge", "-w", "%{http_version}",
                           f"http://127.0.0.1:{one.port()}/a"], capture_output=True, text=True,
                          timeout=DEADLINE_S, check=True)
    assert done.stdout == "ok\n2"


def test_codec_http2_takes_nothing_else(rig):
    one = rig({"listeners": {"main": {"hcm": {"codec_type": "HTTP2"}}}})
    client = h2(one)
    client.get(1)
    assert client.wait_done(1) and client.streams[1].status == "200"
    conn = one.connect()
    conn.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert conn.wait_end() != "open"
    assert b"HTTP/1" not in conn.received


def test_alpn_chooses(rig):
    folder = certs.usual()
    config = {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": TLS, "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [{"certificate_chain": {"filename": f"{folder}/server.pem"},
                                  "private_key": {"filename": f"{folder}/server.key"}}]}}}
    one = rig({"listeners": {"main": {"chain": {"transport_socket": config}}}})
    for offered, chosen in (["h2"], "h2"), (["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"):
        context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
        context.check_hostname = False
        context.set_alpn_protocols(offered)
        conn = one.connect()
        conn.sock = context.wrap_socket(conn.sock, server_hostname="server.test")
        assert conn.sock.selected_alpn_protocol() == chosen
        if chosen == "h2":
            client = H2(conn)
            client.get(1)
            assert client.wait_done(1) and client.streams[1].body == b"ok\n"
        else:
            conn.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
            assert conn.wait_responses(1) and conn.received.endswith(b"ok\n")


def test_many_streams_with_bodies_at_once(rig):
    one = rig()
    client = h2(one)
    draw = random.Random(7)
    bodies = {1 + 2 * n: draw.randbytes(draw.randrange(1, 200000)) for n in range(30)}
    for stream in bodies:
        client.later(client.headers(stream, client.request_fields("/echo", "POST"), end=False))
    left = {stream: body for stream, body in bodies.items()}
    while left:
        stream = draw.choice(list(left))
        piece, left[stream] = left[stream][:16000], left[stream][16000:]
        client.send(client.data(stream, piece, end=not left[stream]))
        if not left[stream]:
            del left[stream]
    assert client.wait_done(len(bodies))
    assert {s.status for s in client.streams.values()} == {"200"}
    seen = {hashlib.sha256(unchunk(each.raw).partition(b"\r\n\r\n")[2]).digest()
            for each in one.up.take_seen()}
    assert seen == {hashlib.sha256(body).digest() for body in bodies.values()}


# ---- flow control ----

KIB = 1024


def pending(one):
    return one.proxy.stats("^http2.pending_send_bytes$")["http2.pending_send_bytes"]


def test_a_client_that_does_not_read_stops_the_upstream(rig, memory_measured):
    one = rig()
    one.get("/warm").close()
    size = 64 * KIB * KIB
    one.up.expect([f"bytes:{size}"])
    before = rss_kib(one.proxy.process.pid)
    client = h2(one)
    client.conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
    client.get(1, "/big")
    one.proxy.wait_stat("cluster.up.upstream_flow_control_paused_reading_total", lambda n: n > 0)
    assert pending(one) <= 256 * KIB
    in_use = one.proxy.stats("bytes_in_use$").get("kobune.bytes_in_use", 0)
    assert in_use < KIB * KIB
    held = rss_kib(one.proxy.process.pid) - before
    # A sanitizer keeps memory that was freed; a proxy that goes on reading would hold all.
    assert held < size // KIB // 4, f"{held} KiB more with one slow reader"
    client.conn.close()
    one.proxy.wait_stat("http2.pending_send_bytes", 0)


def test_a_window_that_does_not_open_stops_the_upstream(rig):
    one = rig()
    size = 8 * KIB * KIB
    one.up.expect([f"bytes:{size}", "ok"])
    client = h2(one, settings={4: 70000})
    client.get(1, "/big")
    one.proxy.wait_stat("cluster.up.upstream_flow_control_paused_reading_total", lambda n: n > 0)
    assert client.wait(lambda: 1 in client.streams and len(client.streams[1].body) == 70000)
    assert pending(one) <= 256 * KIB
    client.get(3, "/small")  # goes on beside it
    assert client.wait(lambda: client.streams.get(3) is not None and client.streams[3].ended)
    client.send(client.window_update(1, size))
    assert client.wait(lambda: client.streams[1].ended)
    assert len(client.streams[1].body) == size
    assert one.proxy.stats("resumed")["cluster.up.upstream_flow_control_resumed_reading_total"] > 0


def window(client, stream, initial):
    """What the server granted so far."""
    return initial + sum(int(text.split()[1]) for at, text in client.events
                         if at == stream and str(text).startswith("WINDOW_UPDATE"))


def test_an_upstream_that_does_not_read_stops_the_client(rig, memory_measured):
    options = {"initial_stream_window_size": 65535, "initial_connection_window_size": 1048576}
    one = rig({"listeners": {"main": {"hcm": {"http2_protocol_options": options}}}})
    one.get("/warm").close()
    one.up.expect(["lazy"])
    before = rss_kib(one.proxy.process.pid)
    client = h2(one)
    client.send(client.headers(1, client.request_fields("/up", "POST"), end=False))
    total, sent = 64 * KIB * KIB, 0

    def room():
        return min(window(client, 1, 65535), window(client, 0, 65535)) - sent

    one_piece = b"u" * 16384
    paused = "http.main.downstream_flow_control_paused_reading_total"
    assert client.wait(lambda: window(client, 0, 65535) > 65535)
    quiet = False
    while not (quiet and one.proxy.stats(paused).get(paused)):
        piece = one_piece[:max(room(), 0)]
        if piece:
            client.send(client.data(1, piece, end=False))
            sent += len(piece)
        assert sent < total
        quiet = not client.wait(lambda: room() > 0, 0.5)
    held = rss_kib(one.proxy.process.pid) - before
    assert held < 16 * KIB, f"{held} KiB more with one slow upstream"
    one.up.release()
    client.send(b"")
    assert client.wait(lambda: room() > 0)
    client.send(client.data(1, b"", end=True))
    assert client.wait_done(1) and client.streams[1].status == "200"
    head, _, body = one.up.take_seen()[-1].raw.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /up") and len(unchunk(head + b"\r\n\r\n" + body)) > sent


def test_a_stream_that_nobody_reads_is_given_up(rig):
    """The whole answer waits in the stream; its time is that of an idle stream."""
    one = rig({"listeners": {"main": {"hcm": {"stream_idle_timeout": "1s"}}}})
    client = h2(one, settings={4: 10})
    client.get(1, "/a")
    client.send(client.window_update(1, 1000))
    assert client.wait_done(1)
    one.up.expect(["bytes:2000"])
    client.get(3, "/b")
    assert client.wait(lambda: 3 in client.streams and client.streams[3].reset is not None)
    assert len(client.streams[3].body) == 10
    one.proxy.wait_stat("http2.tx_flush_timeout", 1)
    one.proxy.wait_stat("http.main.downstream_rq_active", 0)


def test_pings_behind_a_goaway_are_answered(rig):
    client = h2(rig())
    client.send(client.goaway() + client.ping())
    assert client.wait(lambda: client.pings == 1)
    # nothing else is under way, and these bytes are a read of their own
    client.send(client.ping()[:12])
    client.send(client.ping()[12:] + client.ping())
    assert client.wait(lambda: client.pings == 3)


def test_data_behind_a_reset_ends_the_connection(rig):
    one = rig()
    client = h2(one)
    client.send(client.headers(1, client.request_fields(method="POST"), end=False))
    one.up.wait("connection", lambda: one.up.accepted == 1)
    client.send(client.rst(1) + client.data(1, b"x"))
    assert client.wait(lambda: client.conn.state != "open")


@pytest.mark.parametrize("hcm,route", [({"stream_flush_timeout": "0.1s"}, {}),
                                       ({"stream_flush_timeout": "0s"}, {"flush_timeout": "0.1s"})])
def test_a_window_that_stays_shut(rig, hcm, route):
    """The answer is all there, the client opens no window: the stream is reset after its own time."""
    one = rig({"listeners": {"main": {"hcm": hcm, "routes": [{"match": "/", "route": {"cluster": "up", **route}}]}}})
    client = h2(one, settings={4: 0})
    client.get(1, "/")
    assert client.wait_done(1) and client.streams[1].reset is not None
    assert one.proxy.stats("^http2.tx_flush_timeout$") == {"http2.tx_flush_timeout": 1}
    assert one.proxy.stats("^http.main.downstream_rq_idle_timeout$") == {"http.main.downstream_rq_idle_timeout": 0}
