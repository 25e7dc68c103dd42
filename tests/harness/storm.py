# SPDX-License-Identifier: Apache-2.0
"""Random but repeatable misbehaviour: what a hostile client or upstream does is drawn from a seed.

A request carries its seed in its path (/route/SEED); the upstream draws its answer from the seed
and the number of the attempt, so one seed names one exchange.
"""

import random
import re
import select
import socket
import struct
import time

KIB = 1024
PATIENCE = 0.15     # seconds that a peer waits for the other to move before it leaves
ROUTES = ("plain", "plain", "retry", "retry", "mirror", "redirect", "tight", "quick", "refused",
          "hole", "direct", "nowhere")
RESPONSES = (b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 404 Not Found\r\n", b"HTTP/1.1 503 Busy\r\n",
             b"HTTP/1.1 500 Bad\r\n", b"HTTP/1.0 200 OK\r\n")


def linger_reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def chunks(rng, body):
    """The body in chunks of random sizes, with its end."""
    out, at = [], 0
    while at < len(body):
        n = rng.choice((1, 7, 100, 5000, 70000))
        piece = body[at:at + n]
        ext = rng.choice((b"", b"", b";a=b"))
        out.append(b"%x%s\r\n%s\r\n" % (len(piece), ext, piece))
        at += n
    trailers = rng.choice((b"", b"", b"x-end: 1\r\n", b"x-a: b\r\n" * 20))
    return b"".join(out) + b"0\r\n" + trailers + b"\r\n"


def body_of(rng):
    return b"b" * rng.choice((0, 1, 10, 1000, 16384, 40000, 300000))


def damaged(rng, data):
    """The same bytes with a few of them changed, gone or doubled."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        kind = rng.randrange(3)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at:at + rng.randint(1, 4)]
        else:
            data[at:at] = data[at:at + rng.randint(1, 40)]
        if not data:
            return b"x"
    return bytes(data)


def pieces(rng, data):
    """The bytes in one piece, in a few, or (when short) one by one."""
    kind = rng.randrange(4)
    if kind < 2 or len(data) < 2:
        return [data]
    if kind == 2 and len(data) < 400:
        return [data[i:i + 1] for i in range(len(data))]
    cuts = sorted(rng.randrange(len(data)) for _ in range(rng.randint(1, 5)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)]) if b > a]


def leave(rng, sock):
    """End a connection in one of the ways there are."""
    how = rng.randrange(4)
    try:
        if how == 0:
            linger_reset(sock)
        elif how == 1:
            sock.shutdown(socket.SHUT_WR)
            drain(rng, sock)
    except OSError:
        pass
    sock.close()


def drain(rng, sock, slow=False):
    """Read what comes until the peer ends or is silent for a while."""
    got = 0
    until = time.monotonic() + 2
    while time.monotonic() < until:
        try:
            data = sock.recv(512 if slow else 65536)
        except OSError:
            break
        if not data:
            break
        got += len(data)
        if slow and got > 20000 and rng.randrange(50) == 0:
            break
    return got


# ---- upstream ----

def answer(rng):
    """One answer: its bytes, and whether its end is the end of the connection."""
    body = body_of(rng)
    head = rng.choice(RESPONSES)
    for _ in range(rng.randrange(3)):
        head += b"x-h%d: v\r\n" % rng.randrange(9)
    kind = rng.randrange(6)
    if kind == 0:
        return head + b"\r\n" + body, True
    if kind == 1:
        return head + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body, True
    if kind == 2 and head.startswith(b"HTTP/1.1"):
        return head + b"transfer-encoding: chunked\r\n\r\n" + chunks(rng, body), False
    return head + b"content-length: %d\r\n\r\n" % len(body) + body, False


def response_bytes(rng):
    """What the upstream sends for a request, and what it does then: keep, close, rst, half, hang."""
    data, closes = answer(rng)
    then = "close" if closes else "keep"
    kind = rng.randrange(20)
    if kind == 0:
        data, then = b"", rng.choice(("close", "rst", "hang"))
    elif kind == 1:
        data = data[:rng.randrange(len(data))]
        then = rng.choice(("close", "rst", "hang", "half"))
    elif kind == 2:
        data = damaged(rng, data)
        then = rng.choice(("close", "rst", "hang"))
    elif kind == 3:
        data = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" * rng.choice((1, 5, 500)) + data
    elif kind == 4:
        data = b"HTTP/1.1 100 Continue\r\n\r\n" * rng.choice((1, 3, 60000)) + data
    elif kind == 5:
        data = data + answer(rng)[0]
    elif kind == 6:
        data = b"HTTP/1.1 200 OK\r\nx-big: " + b"a" * rng.choice((20000, 70000)) + b"\r\n\r\n"
        then = "close"
    elif kind == 7:
        data = b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 150 + b"content-length: 0\r\n\r\n"
    elif kind == 8:
        data = b"HTTP/1.1 200 OK\r\ncontent-length: 4000000\r\n\r\n" + b"z" * 4000000
    elif kind == 9:
        data = b"HTTP/1.1 204 No Content\r\n\r\n"
    elif kind == 10:
        data = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhello"
        then = rng.choice(("close", "rst", "hang", "half"))
    return data, then


def redirect_bytes(rng):
    where = rng.choice((b"http://h.test/plain/%d", b"/redirect/%d", b"http://h.test/redirect/%d",
                        b"http://other.test/direct/%d", b"http://h.test/nowhere/%d", b"bad url %d"))
    return b"HTTP/1.1 302 Found\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n" % (where % rng.randrange(10 ** 9))


def body_take(rng, sock, head, rest):
    """Read the body that the head announces, roughly: until it is there or nothing comes."""
    length = re.search(rb"\r\ncontent-length: *(\d{1,9})\r\n", head, re.I)
    want = int(length.group(1)) if length else 0
    chunked = re.search(rb"\r\ntransfer-encoding: *chunked\r\n", head, re.I)
    while len(rest) < want or (chunked and not re.search(rb"0\r\n(?:[^\r\n]+\r\n)*\r\n$", rest[-400:])):
        data = sock.recv(rng.choice((100, 65536)))
        if not data:
            return None
        rest += data
    return b"" if chunked else rest[want:]


def upgraded_serve(rng, sock):
    sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
    for _ in range(rng.randrange(30)):
        data = sock.recv(65536)
        if not data:
            break
        sock.sendall(data * rng.randrange(4))
    leave(rng, sock)


def request_serve(rng, sock, head, rest):
    """One request; gives what was read too much, or None when the connection is over."""
    if b"\r\nupgrade: websocket" in head.lower() and rng.randrange(3):
        upgraded_serve(rng, sock)
        return None
    if head.split()[1].startswith(b"/redirect") and rng.randrange(4):
        data, then = redirect_bytes(rng), "keep"
    else:
        data, then = response_bytes(rng)
    if head.startswith(b"HEAD "):
        data = data[:data.find(b"\r\n\r\n") + 4]
    early = rng.randrange(6) == 0
    if not early:
        rest = body_take(rng, sock, head, rest)
        if rest is None:
            return None
    for piece in pieces(rng, data):
        sock.sendall(piece)
    if early:
        rest = body_take(rng, sock, head, rest) if rng.randrange(2) else None
    if then == "keep":
        return rest
    if then == "rst":
        linger_reset(sock)
    if then == "half":
        sock.shutdown(socket.SHUT_WR)
    if then in ("half", "hang"):
        while sock.recv(65536):
            pass
    return None


def http_serve(sock):
    """An upstream's connection, until one side has had enough."""
    rest = b""
    sock.settimeout(5)
    try:
        while rest is not None:
            while b"\r\n\r\n" not in rest:
                data = sock.recv(65536)
                if not data:
                    return
                rest += data
            head, _, rest = rest.partition(b"\r\n\r\n")
            head += b"\r\n\r\n"
            seed = re.search(rb"/(\d+)", head.split(b"\r\n")[0])
            attempt = re.search(rb"\r\nx-envoy-attempt-count: (\d+)", head)
            rng = random.Random(f"{seed and int(seed.group(1))}/{attempt and int(attempt.group(1))}")
            rest = request_serve(rng, sock, head, rest)
    except OSError:
        pass


def tcp_serve(sock):
    sock.settimeout(5)
    try:
        first = sock.recv(65536)
        rng = random.Random(len(first))
        if rng.randrange(8) == 0:
            linger_reset(sock)
            return
        sock.sendall(first * rng.randint(1, 40))
        if rng.randrange(4) == 0:
            sock.shutdown(socket.SHUT_WR)
        while True:
            data = sock.recv(65536)
            if not data:
                break
            sock.sendall(data)
    except OSError:
        pass


# ---- clients ----

def request_bytes(rng):
    """One request as it should be, more or less."""
    method = rng.choice((b"GET", b"GET", b"POST", b"POST", b"PUT", b"HEAD", b"DELETE"))
    path = b"/%s/%d" % (rng.choice(ROUTES).encode(), rng.randrange(10 ** 9))
    if rng.randrange(10) == 0:
        path = b"http://h.test" + path
    head = method + b" " + path + rng.choice((b" HTTP/1.1", b" HTTP/1.1", b" HTTP/1.1", b" HTTP/1.0"))
    head += b"\r\nhost: h.test\r\n"
    for _ in range(rng.randrange(4)):
        head += rng.choice((b"x-a: b\r\n", b"connection: close\r\n", b"expect: 100-continue\r\n",
                            b"x-envoy-upstream-rq-timeout-ms: 30\r\n", b"x-envoy-max-retries: 5\r\n",
                            b"x-long: " + b"l" * 3000 + b"\r\n", b"te: trailers\r\n",
                            b"x-request-id: 1\r\n", b"x-forwarded-for: 1.2.3.4\r\n", b"grpc-timeout: 1m\r\n",
                            b"content-type: application/grpc\r\n", b"x-envoy-hedge-on-per-try-timeout: true\r\n"))
    if method in (b"GET", b"HEAD", b"DELETE") and rng.randrange(8):
        return head + b"\r\n"
    body = body_of(rng)
    if rng.randrange(2):
        return head + b"transfer-encoding: chunked\r\n\r\n" + chunks(rng, body)
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def upgrade_bytes(rng):
    return (b"GET /%s/%d HTTP/1.1\r\nhost: h.test\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
            % (rng.choice((b"plain", b"retry", b"quick", b"direct")), rng.randrange(10 ** 9)))


def send_all(sock, parts):
    """Send; False when the peer is gone or does not read."""
    try:
        for part in parts:
            sock.sendall(part)
    except OSError:
        return False
    return True


def connect(port, rng):
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if rng.randrange(5) == 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
    sock.settimeout(PATIENCE)
    sock.connect(("127.0.0.1", port))
    return sock


def act_request(rng, sock):
    send_all(sock, pieces(rng, request_bytes(rng)))
    drain(rng, sock, slow=rng.randrange(4) == 0)


def act_several(rng, sock):
    """Several requests one after the other on one connection."""
    for _ in range(rng.randint(2, 6)):
        if not send_all(sock, pieces(rng, request_bytes(rng))):
            return
        ready, _, _ = select.select([sock], [], [], PATIENCE)
        try:
            if ready and not sock.recv(262144):
                return
        except OSError:
            return


def act_pipeline(rng, sock):
    data = b"".join(request_bytes(rng) for _ in range(rng.choice((2, 5, 30))))
    if rng.randrange(2):
        data = data[:rng.randrange(len(data))]
    send_all(sock, pieces(rng, data))
    if rng.randrange(3):
        drain(rng, sock)


def act_cut(rng, sock):
    data = request_bytes(rng)
    send_all(sock, pieces(rng, data[:rng.randrange(len(data))]))
    if rng.randrange(3) == 0:
        drain(rng, sock)


def act_damaged(rng, sock):
    send_all(sock, pieces(rng, damaged(rng, request_bytes(rng))))
    if rng.randrange(2):
        drain(rng, sock)


def act_oversize(rng, sock):
    head = b"GET /plain/1 HTTP/1.1\r\nhost: h.test\r\n"
    head += rng.choice((b"x-big: " + b"b" * rng.choice((50000, 61000, 200000)), b"x-a: b\r\n" * 101,
                        b"x-a: b\r\n" * 20000))
    send_all(sock, pieces(rng, head + rng.choice((b"", b"\r\n\r\n"))))
    drain(rng, sock)


def act_upgrade(rng, sock):
    send_all(sock, pieces(rng, upgrade_bytes(rng) + rng.choice((b"", b"early bytes"))))
    for _ in range(rng.randrange(8)):
        if not send_all(sock, [b"w" * rng.choice((1, 100, 30000))]):
            return
    if rng.randrange(3):
        drain(rng, sock, slow=rng.randrange(2) == 0)


def act_tcp(rng, sock):
    for _ in range(rng.randrange(6)):
        if not send_all(sock, pieces(rng, b"t" * rng.choice((1, 50, 3000, 200000)))):
            return
    drain(rng, sock, slow=rng.randrange(3) == 0)


HTTP_ACTS = (act_request, act_request, act_request, act_several, act_pipeline, act_cut, act_damaged,
             act_oversize, act_upgrade)


def client_act(seed, http_port, tcp_port):
    """One connection of a hostile client."""
    rng = random.Random(seed)
    tcp = rng.randrange(8) == 0
    try:
        sock = connect(tcp_port if tcp else http_port, rng)
    except OSError:
        return
    try:
        (act_tcp if tcp else rng.choice(HTTP_ACTS))(rng, sock)
    finally:
        leave(rng, sock)
