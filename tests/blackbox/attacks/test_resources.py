# SPDX-License-Identifier: Apache-2.0
"""What runs out, or takes longer the more of it there is: bombs in compressed bodies, patterns, names that
collide, descriptors; and the turns of others while one client keeps a worker busy."""

import os
import random
import re
import resource
import signal
import socket
import threading
import zlib

import pytest

from tests.harness.client import Connection, unchunk
from tests.harness.h2_client import H2, raw_frame
from tests.harness.upstream import wait_until

from .cost import CONNECTION_FLOOR, MEMORY_RATIO, held, received, worker_cpu_ns

KIB = 1024
GZIP = {"decompressor": {"decompressor_library": {"name": "g", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.compression.gzip.decompressor.v3.Gzip"}}}}


READ = 64 * KIB  # so far a connection is read before others have their turn
UNPACKING_FLOOR = 256 * KIB  # a window of 32 KiB and tables; 64 KiB that were unpacked in this turn and the one before


def zeros(size, level=9):
    packer = zlib.compressobj(level, zlib.DEFLATED, 31)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)), packer.flush()])


@pytest.mark.parametrize("way", ["request", "response"])
@pytest.mark.parametrize("what", ["zeros", "zeros in zeros", "members", "endless name", "no end"])
def test_decompression_bomb(rig, stricter, what, way):
    """A thousand bytes for each that came: it is not unpacked further, whoever sent it, and memory stays bounded."""
    stricter("own-statistics")
    body = {"zeros": lambda: zeros(64 << 20), "zeros in zeros": lambda: zeros(64 << 20)[:20] + zlib.compress(zeros(32 << 20)),
            "members": lambda: zeros(1 << 20) * 50, "endless name": lambda: b"\x1f\x8b\x08\x08\0\0\0\0\0\x03" + b"n" * 300_000,
            "no end": lambda: zeros(64 << 20)[:-20]}[what]()
    one = rig({"listeners": {"main": {"filters": [GZIP], "routes": [{"match": "/", "route": {
        "cluster": "up", "timeout": "2s"}}]}}})
    before, came = held(one), received(one)
    peak = [before]
    conn = one.connect()
    head = b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    if way == "request":
        sender = threading.Thread(target=conn.send, args=(b"POST / HTTP/1.1\r\nhost: a\r\n" + head + body, ["POST"]))
        sender.start()
        while sender.is_alive():
            peak.append(held(one))
        sender.join()
    else:
        one.up.expect([{"raw": ("HTTP/1.1 200 OK\r\n".encode() + head + body).decode("latin-1"), "then": "keep"}])
        conn.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    for _ in range(5):
        peak.append(held(one))
    conn.wait_responses(1)
    seen = sum(len(s.raw) for s in one.up.take_seen()) if way == "request" else len(conn.received)
    total = (received(one) - came if way == "request" else 0) + len(body)
    assert seen <= 100 * total + (2 << 20), "it was unpacked"
    # a read, what is unpacked in a turn, once for each side, and what a library needs
    assert max(peak) - before <= CONNECTION_FLOOR + UNPACKING_FLOOR + MEMORY_RATIO * total
    conn.close()


class SlowUpstream:
    """Answers, or reads a request, once `go` is set."""

    def __init__(self, answer):
        self.answer, self.go, self.seen = answer, threading.Event(), b""

    def __call__(self, sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
        if self.answer is not None:
            sock.recv(65536)
            sock.sendall(self.answer)
            return
        self.go.wait()
        while True:
            data = sock.recv(65536)
            if not data:
                return
            self.seen += data
            if b"uncompressed-bytes" in self.seen[-300:] and self.seen.endswith(b"\r\n\r\n"):
                sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


def text(size):
    """Lines, which are a sixth of it when they are packed."""
    return b"".join(b"number %d of a row, and %d\n" % (n, n * 7919 % 1000) for n in range(size // 24))[:size]


@pytest.mark.parametrize("way", ["request", "response"])
def test_unpacking_waits(rig, stricter, way):
    """Nobody takes what is unpacked: what is held stays where it is; then all of it comes, with its sizes."""
    stricter("own-statistics")
    plain = text(8 << 20)
    packed = zlib.compressobj(6, zlib.DEFLATED, 31)
    packed = packed.compress(plain) + packed.flush()
    head = b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    trailers = {"http_protocol_options": {"enable_trailers": True}}
    slow = SlowUpstream(b"HTTP/1.1 200 OK\r\n" + head + packed if way == "response" else None)
    one = rig({"listeners": {"main": {"filters": [GZIP], "hcm": trailers}}, "upstreams": {"up": {"mode": slow}},
               "clusters": {"up": {"http": {"explicit_http_config": trailers}}}})
    before = held(one)
    conn = one.connect()
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
    if way == "request":
        sender = threading.Thread(target=conn.send, args=(b"POST / HTTP/1.1\r\nhost: a\r\n" + head + packed, ["POST"]))
        sender.start()
    else:
        conn.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    looks = []

    def same():
        looks.append(held(one))
        return len(looks) > 30 and max(looks[-20:]) == min(looks[-20:]) > before
    wait_until(same, "rest")
    assert max(looks) - before <= 2 * CONNECTION_FLOOR + UNPACKING_FLOOR
    slow.go.set()
    if way == "request":
        wait_until(lambda: b"x-envoy-decompressor-g-uncompressed-bytes: %d" % len(plain) in slow.seen[-300:], "the request")
        sender.join()
        body = slow.seen
    else:
        conn.wait_responses(1)
        body = bytes(conn.received)
    assert unchunk(body).split(b"\r\n\r\n", 1)[1].startswith(plain)
    assert held(one) <= max(looks)
    conn.close()


def costs_are_linear(one, requests, few, status=b""):
    """Eight times of what `requests` makes this many of cost about eight times: no more than 32. Each piece that
    it gives is sent when the one before was answered; one of several requests has them all in it."""
    def spent(size):
        conn = Connection(one.port())
        pieces = requests(size)
        before = worker_cpu_ns(one)
        answers = 0
        for piece in pieces:
            sent = piece.count(b" HTTP/1.1\r\n")
            conn.send(piece, ["GET"] * sent)
            answers += sent
            assert conn.wait_responses(answers)
        after = worker_cpu_ns(one)
        assert conn.received.startswith(b"HTTP/1.1 " + status)
        conn.close()
        return after - before
    spent(100)
    less = min(spent(few) for _ in range(3))
    assert min(spent(8 * few) for _ in range(2)) < 32 * less


PATTERNS = ["(a+)+$", "(a|aa)+$", "(a|a?)+$", "(.*a){12}$", "([a-z]+)*$", "(a*)*b", "^(([a-z])+.)+[A-Z]([a-z])+$", "(x+x+)+y",
            "(.*)(.*)(.*)(.*)(.*)[^/]*$", "(?:a?){30}a{30}", "(a{1,3}){1,3}b", "[^/]*[^/]*[^/]*[^/]*#"]


@pytest.mark.parametrize("place", ["path", "header", "rewrite"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_are_linear(regexes, pattern, place):
    """Eight times the text costs at most about eight times: what backtracks would never come back."""
    one, number = regexes[0], PATTERNS.index(pattern)

    def requests(size):
        text = "a" * size + "!"
        lines = f"GET /{text if place == 'path' else 'r' + text} HTTP/1.1\r\nhost: {place}{number}.test\r\nx-a: {text}\r\n\r\n"
        return [lines.encode()] * 3
    costs_are_linear(one, requests, 1500)


@pytest.fixture(scope="module")
def regexes(binary):
    from tests.blackbox.conftest import Rig
    direct = {"direct": [200, "x"]}
    hosts = []
    for n, pattern in enumerate(PATTERNS):
        regex = {"safe_regex": {"regex": "/" + pattern.lstrip("^")}}
        hosts += [{"name": f"p{n}", "domains": [f"path{n}.test"], "routes": [{"match": regex, **direct}, {"match": "/", **direct}]},
                  {"name": f"h{n}", "domains": [f"header{n}.test"], "routes": [{"match": {"prefix": "/", "headers": [
                      {"name": "x-a", "string_match": {"safe_regex": {"regex": pattern}}}]}, **direct}, {"match": "/", **direct}]},
                  {"name": f"r{n}", "domains": [f"rewrite{n}.test"], "routes": [{"match": "/", "redirect": {
                      "regex_rewrite": {"pattern": {"regex": pattern}, "substitution": "x"}}}]}]
    one = Rig(binary, {"listeners": {"main": {"virtual_hosts": hosts, "log": "none"}}})
    try:
        yield [one]
        one.proxy.stop()
    finally:
        one.abandon()


@pytest.mark.parametrize("kind", ["alike", "one letter", "lengths", "many of one", "random", "known"])
def test_header_names(rig, kind):
    """Names that a plain sum or a hash without a seed puts into one place cost as others do."""
    one = rig({"listeners": {"main": {"log": "none", "routes": [{"match": "/", "direct": [200, "x"]}], "hcm": {
        "common_http_protocol_options": {"max_headers_count": 5000}, "max_request_headers_kb": 512}}}})
    rng = random.Random(5)

    def names(count):
        if kind == "alike":  # the same letters in another order: the same sum
            return ["x-" + "".join(rng.sample("abcdefghijklmnop", 16)) for _ in range(count)]
        if kind == "one letter":
            return [f"x-{'a' * 12}{n:04}" for n in range(count)]
        if kind == "lengths":
            return ["x-" + "a" * (n % 60) + f"{n:x}" for n in range(count)]
        if kind == "many of one":
            return ["x-a"] * count
        if kind == "known":
            return [rng.choice(["accept", "cookie", "x-forwarded-for", "te", "x-request-id", "via"]) for _ in range(count)]
        return [f"x-{rng.randbytes(8).hex()}" for _ in range(count)]

    def requests(count):
        lines = "GET / HTTP/1.1\r\nhost: a\r\n" + "".join(f"{name}: v\r\n" for name in names(count)) + "\r\n"
        return [lines.encode() * 2]
    costs_are_linear(one, requests, 500, status=b"200")


def test_sixty_four_descriptors(rig):
    """More clients than there are descriptors: nobody spins, who is in is served, and afterwards all is as before."""
    one = rig(args=["--component-log-level", "conn_handler:debug"])
    kept = one.get("/")
    pid = one.proxy.process.pid
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, 4096))
    clients = [one.connect() for _ in range(100)]
    for conn in clients:
        conn.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    one.proxy.wait_for("the limit", lambda: len(os.listdir(f"/proc/{pid}/fd")) >= 63)
    for _ in range(20):
        assert one.get("/", conn=kept).state == "open"
    for conn in clients[:80]:
        conn.close()
    for conn in clients[80:]:
        assert conn.wait_responses(1) and conn.received[9:12] in (b"200", b"503")
        conn.close()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (1024, 4096))
    one.proxy.wait_for("a new client", lambda: b"200 OK" in one.get("/").received)
    one.proxy.wait_stat("http.main.downstream_cx_active", lambda n: n <= 3)


# ---- turns ----

ATTACKERS, HONEST = 4, 8


def busy_chunks():
    return b"POST /busy HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 90_000 + \
        b"0\r\n\r\nGET /end HTTP/1.1\r\nhost: a\r\n\r\n"


def h2_client():
    client = H2.__new__(H2)
    from hpack import Encoder
    client.encoder = Encoder()
    return client


def h2_bytes(between):
    client = h2_client()
    start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + client.settings({4: 2**31 - 1}) + client.window_update(0, 2**31 - 65536)
    return start + between(client) + client.headers(100_001, client.request_fields("/end"))


def busy_data(client):
    return client.headers(1, client.request_fields("/busy", "POST"), end=False) + raw_frame(0, 0, 1, b"a") * 50_000


def busy_requests(client):
    client.block(client.request_fields("/busy"))
    block = client.block(client.request_fields("/busy"))
    return client.headers(1, client.request_fields("/busy")) + b"".join(raw_frame(1, 5, 3 + 2 * n, block) for n in range(40_000))


BUSY = {"chunks of a byte": busy_chunks,
        "data of a byte": lambda: h2_bytes(busy_data), "streams": lambda: h2_bytes(busy_requests)}


@pytest.mark.parametrize("what", BUSY)
def test_everybody_has_a_turn(rig, stricter, what):
    """Four clients have sent half a megabyte each, eight honest ones a request each, before the worker looks:
    all eight are answered before any of the four is through, behind one turn of each."""
    stricter("turns are not compared")
    routes = [{"match": {"path": "/busy"}, "direct": [200, "b"]}, {"match": "/", "direct": [200, "x"]}]
    large = {"level": 1, "name": 8, "int_value": 4 << 20, "state": "STATE_PREBIND"}  # SO_RCVBUF: all of it waits there
    one = rig({"listeners": {"main": {"routes": routes, "listener": {"socket_options": [large]}, "hcm": {
        "http2_protocol_options": {"max_concurrent_streams": 100_000}}}}})
    data = BUSY[what]()
    attackers = [one.connect() for _ in range(ATTACKERS)]
    honest = [one.connect() for _ in range(HONEST)]
    one.proxy.wait_stat("listener.main.downstream_cx_active", ATTACKERS + HONEST)
    clients = [] if what == "chunks of a byte" else [H2(conn) for conn in honest]
    one.proxy.signal(signal.SIGSTOP)
    try:
        for conn in attackers:
            conn.send(data)
        for n, conn in enumerate(honest):
            if clients:
                clients[n].get(1, f"/honest-{n}")
            else:
                conn.send(f"GET /honest-{n} HTTP/1.1\r\nhost: a\r\n\r\n".encode(), ["GET"])
    finally:
        one.proxy.signal(signal.SIGCONT)
    readers = [threading.Thread(target=conn.wait_end, daemon=True) for conn in attackers]
    for thread in readers:
        thread.start()
    for n, conn in enumerate(honest):
        assert clients[n].wait_done(1) if clients else conn.wait_responses(1)
    path = one.proxy.dir / "access.log"
    one.proxy.wait_for("their lines", lambda: path.read_text().count("/honest-") == HONEST)
    paths = re.findall(r'"path":"(/[a-z]+)', path.read_text())
    last = max(n for n, p in enumerate(paths) if p == "/honest")
    assert "/end" not in paths[:last], "one of them was served to its end before others had their turn"
    # one turn of each, and a quarter more
    most = 1.25 * ATTACKERS * READ / (len(data) / 40_000) if what == "streams" else 0
    assert last < most + HONEST + ATTACKERS, f"{last} requests were answered before the last honest one"
    for conn in attackers:
        conn.half_close()
    for thread in readers:
        thread.join()
