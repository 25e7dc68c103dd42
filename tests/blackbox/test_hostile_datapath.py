# SPDX-License-Identifier: Apache-2.0
"""Peers that pause, flood or leave at the wrong moment: memory stays bounded and nothing is lost or left waiting."""

import contextlib
import socket
import threading

from tests.harness.client import Connection, unchunk
from tests.harness.patience import DEADLINE_S
from tests.harness.upstream import Behaviour, wait_until

KIB = 1024
TRAILERS = {"http_protocol_options": {"enable_trailers": True}}
UPSTREAM_TRAILERS = {
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}}}}}


def gauge(one, name):
    return one.proxy.stats(f"^{name}$".replace(".", r"\.")).get(name, 0)


def limited(limit, **main):
    """A listener and a cluster with this buffer limit."""
    return {"listeners": {"main": {"listener": {"per_connection_buffer_limit_bytes": limit}, **main}},
            "clusters": {"up": {"per_connection_buffer_limit_bytes": limit, **UPSTREAM_TRAILERS}}}


def unread(one, count):
    """A client that asks `count` times and reads nothing: it is given up, others are served."""
    conn = one.connect()
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
    data = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * count

    def send():
        with contextlib.suppress(OSError):
            conn.sock.sendall(data)

    threading.Thread(target=send, daemon=True).start()
    one.proxy.wait_stat("http1.response_flood", 1)
    assert gauge(one, "http.main.downstream_cx_tx_bytes_buffered") < 256 * KIB
    one.proxy.wait_stat("http.main.downstream_cx_active", 0)
    assert one.get("/").state == "open"


def test_pipelined_answers_are_not_piled_up(rig):
    """The third request that comes while no answer has left ends its connection."""
    unread(rig(limited(16 * KIB, routes=[{"match": "/", "direct": [200, "d" * 4000]}])), 5000)


def test_pipelined_proxied_answers_are_not_piled_up(rig):
    """Likewise where an answer comes from an upstream, once the client's sockets are full."""
    one = rig(limited(64 * KIB))
    one.up.default = lambda head: "bytes:20000"
    unread(one, 5000)


def test_informational_answers_have_an_end(rig):
    """A few hundred are fine, an endless row of them is a broken upstream."""
    one = rig()
    one.up.expect([Behaviour([b"HTTP/1.1 103 Early Hints\r\nlink: a\r\nlink: b\r\n\r\n" * 500 +
                              b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]),
                   Behaviour([b"HTTP/1.1 100 Continue\r\n\r\n" * 100000], then="hang")])
    assert one.get("/").received.endswith(b"\r\n\r\nok")
    assert one.get("/").received.startswith(b"HTTP/1.1 502 ")


def test_heads_larger_than_the_buffer_limit(rig):
    one = rig(limited(1 * KIB))
    one.up.expect(["bighdr:20000"])
    conn = one.connect()
    head = b"GET / HTTP/1.1\r\nhost: a\r\nx-big: " + b"b" * 20000 + b"\r\n\r\n"
    conn.send(head[:5000])
    one.proxy.wait_stat("http.main.downstream_cx_rx_bytes_total", 5000)
    conn.send(head[5000:], ["GET"])
    assert conn.wait_responses(1)
    assert b"x-big: " + b"a" * 20000 in conn.received


def test_trailers_behind_a_pause(rig):
    """Body and trailers in one piece, the body alone fills the queue: the trailers still follow."""
    one = rig(limited(1 * KIB, hcm=TRAILERS))
    body = b"2710\r\n" + b"t" * 10000 + b"\r\n0\r\nx-end: yes\r\n\r\n"
    one.up.expect([Behaviour([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body])])
    assert one.get("/").received.endswith(b"\r\nx-end: yes\r\n\r\n")
    conn = one.connect()
    conn.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + body, ["POST"])
    assert conn.wait_responses(1)
    assert one.up.take_seen()[-1].raw.endswith(b"\r\nx-end: yes\r\n\r\n")


def test_client_that_leaves_while_its_upload_is_paused(rig):
    one = rig(limited(16 * KIB))
    one.up.expect(["lazy"])
    conn = one.connect()
    size = 32 * KIB * KIB
    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size
    sender = threading.Thread(target=conn.send, args=(head + b"y" * size, ["POST"]), daemon=True)
    sender.start()
    one.proxy.wait_stat("cluster.up.upstream_flow_control_backed_up_total", lambda n: n > 0)
    # A socket that another thread still writes to is not closed yet.
    conn.sock.shutdown(socket.SHUT_RDWR)
    sender.join(DEADLINE_S)
    conn.reset()
    one.proxy.wait_stat("http.main.downstream_cx_active", 0)
    one.proxy.wait_stat("cluster.up.upstream_rq_active", 0)
    one.up.release()


def test_whole_answer_arrives_when_the_upstream_closes(rig):
    """A slow reader, an upstream that closes behind its answer: not a byte is missing, whatever the size."""
    one = rig(limited(4 * KIB))
    for size in (16 * KIB - 38, 16 * KIB, 32 * KIB - 38, 64 * KIB - 38, 300000):
        head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
        assert len(head) == 38
        one.up.expect([Behaviour([head + b"c" * size], then="close")])
        conn = one.connect()
        conn.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
        assert conn.wait_responses(1), size
        assert len(unchunk(conn.received).partition(b"\r\n\r\n")[2]) == size
        conn.close()


def test_retried_body_stops_at_the_second_host(rig):
    """The body kept for a retry fills the new connection: the client is stopped until the host reads."""
    spec = limited(16 * KIB, routes=[{"match": "/", "route": {
        "cluster": "up", "timeout": "30s",
        "retry_policy": {"retry_on": "reset", "num_retries": 1,
                         "retry_back_off": {"base_interval": "0.001s"}}}}])
    spec["clusters"]["up"]["per_connection_buffer_limit_bytes"] = 2 * KIB
    one = rig(spec)
    one.up.expect([Behaviour([b""], then="rst", deaf=True), "lazy"])
    conn = one.connect()
    size = 16 * KIB * KIB
    conn.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size + b"y" * 15000, ["POST"])
    one.proxy.wait_stat("cluster.up.upstream_rq_retry", 1)
    one.proxy.wait_stat("cluster.up.upstream_rq_total", 2)
    sender = threading.Thread(target=conn.send, args=(b"y" * (size - 15000),), daemon=True)
    sender.start()
    one.proxy.wait_stat("cluster.up.upstream_flow_control_backed_up_total", lambda n: n > 0)
    assert gauge(one, "cluster.up.upstream_cx_tx_bytes_buffered") < 512 * KIB
    one.up.release()
    assert conn.wait_responses(1)
    sender.join(60)
    wait_until(lambda: one.up.seen, "the whole body")


def test_sigterm_while_connections_are_flushed(rig):
    """One client is waited for after its 400, one does not read its answer: the process still ends as it should."""
    one = rig({"listeners": {"main": {"hcm": {"delayed_close_timeout": "60s"}}}})
    size = 16 * KIB * KIB
    one.up.expect([f"bytes:{size}"])
    bad, slow = Connection(one.port()), Connection(one.port())
    bad.send(b"no request\r\n\r\n")
    slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
    slow.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    one.proxy.wait_stat("http.main.downstream_cx_active", 2)
    one.proxy.wait_stat("http.main.downstream_cx_tx_bytes_buffered", lambda n: n > 0)
    one.proxy.stop()


def test_sigterm_while_an_upstream_is_connected_to(rig):
    one = rig({"clusters": {"up": {"endpoints": ["blackhole"], "connect_timeout": "60s"}}})
    one.connect().send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    one.proxy.wait_stat("cluster.up.upstream_cx_active", 1)
    one.proxy.stop()


def test_answer_behind_an_empty_line(rig):
    """Empty lines may stand before a request, not before an answer; in one piece or two."""
    one = rig()
    whole = b"\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    one.up.expect([Behaviour([whole]), Behaviour([whole[:2], whole[2:]])])
    for _ in range(2):
        assert one.get("/").received.startswith(b"HTTP/1.1 502 ")


def test_bytes_behind_a_refused_upgrade(rig):
    """They go nowhere: to the upstream they would be a request that no route and no filter saw."""
    one = rig({"listeners": {"main": {"hcm": {"upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "x"}]}}}})
    for kind, status in (("websocket", "404 Not Found"), ("x", "404 Not Found"), ("x", "200 OK")):
        head = f"HTTP/1.1 {status}\r\ncontent-length: 6\r\n\r\nabc".encode()
        one.up.expect([Behaviour([head, None, b"def"])])
        conn = one.connect()
        conn.send(f"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: {kind}\r\n\r\n".encode(), ["GET"])
        wait_until(lambda: b"abc" in conn.received or not conn.settle(0.01), "the first half")
        read = one.proxy.stats("^http.main.downstream_cx_rx_bytes_total$")["http.main.downstream_cx_rx_bytes_total"]
        conn.send(b"GET /inner HTTP/1.1\r\nhost: a\r\n\r\n")
        one.proxy.wait_stat("http.main.downstream_cx_rx_bytes_total", lambda n: n > read)
        one.up.release()
        assert conn.wait_responses(1)
        assert conn.received.endswith(b"abcdef")
        conn.close()
    wait_until(one.at_rest, "rest")
    assert all(b"inner" not in seen.raw for seen in one.up.take_seen())


def test_trailers_behind_the_end_of_their_stream(rig):
    """The request waits for its mirror, and is answered before its trailers were looked at."""
    spec = limited(16 * KIB, hcm=TRAILERS, routes=[{"match": "/", "route": {
        "cluster": "up", "request_mirror_policies": [{"cluster": "hole"}]}}])
    spec["clusters"]["hole"] = {"endpoints": ["blackhole"], "connect_timeout": "3s"}
    one = rig(spec)
    body = b"%x\r\n%s\r\n0\r\n" % (40 * KIB, b"t" * 40 * KIB) + b"x-end: yes\r\n" * 20 + b"\r\n"
    for n in range(3):
        one.up.expect([Behaviour([None, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"], deaf=True)])
        conn = one.connect()
        conn.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + body, ["POST"])
        one.proxy.wait_stat("http.main.downstream_flow_control_paused_reading_total", n + 1)
        one.up.release()
        assert conn.wait_responses(1)
        assert conn.received.endswith(b"ok")
        conn.wait_end()
        conn.close()


def test_last_request_of_a_connection_is_paused(rig):
    """Nothing of a body is lost because the connection will close behind it."""
    one = rig(limited(16 * KIB))
    one.up.expect(["lazy"])
    conn = one.connect()
    body = bytes(range(256)) * 64 * KIB
    head = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    sender = threading.Thread(target=conn.send, args=(head + body, ["POST"]), daemon=True)
    sender.start()
    one.proxy.wait_stat("cluster.up.upstream_flow_control_backed_up_total", lambda n: n > 0)
    one.up.release()
    assert conn.wait_responses(1)
    sender.join(60)
    assert one.up.take_seen()[0].raw.endswith(body)
