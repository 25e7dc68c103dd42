# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 from clients: what they get, and what they get of the connection itself."""

import hashlib
import random
import ssl
import subprocess

from tests.harness import certs
from tests.harness.client import unchunk
from tests.harness.h2_client import H2

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


def test_curl_with_prior_knowledge(rig):
    one = rig()
    done = subprocess.run(["curl", "-sS", "--http2-prior-knowledge", "-w", "%{http_version}",
                           f"http://127.0.0.1:{one.port()}/a"], capture_output=True, text=True,
                          timeout=20, check=True)
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
    assert client.wait_done(len(bodies), 30)
    assert {s.status for s in client.streams.values()} == {"200"}
    seen = {hashlib.sha256(unchunk(each.raw).partition(b"\r\n\r\n")[2]).digest()
            for each in one.up.take_seen()}
    assert seen == {hashlib.sha256(body).digest() for body in bodies.values()}
