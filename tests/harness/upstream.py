# SPDX-License-Identifier: Apache-2.0
"""A scripted upstream: raw sockets, one thread per connection, no HTTP library in between.

HTTP mode: each request takes the next behaviour of the script ("ok" when the script is empty).
TCP mode: each connection takes one.  h2 mode: HTTP/2, see h2_upstream.py.  A function as the mode
serves its connections itself, unrecorded.  Else everything received is kept, byte for byte, with the number
of the connection on which it came. With `tls` it is a TLS server:

    cert      a name of certs.py (default server)
    ca        whose clients it asks for, and insists on; optional: it does not insist
    alpn      protocols
    version   "1.3", or [lowest, highest]

With `proxy_header` a header of the PROXY protocol comes first on each connection; it is recorded in words.
"""

import collections
import os
import re
import socket
import ssl
import struct
import threading
import time

from . import certs, proxy_header as proxy_headers
from .patience import DEADLINE_S
from .tls_client import VERSIONS

class Behaviour:
    """What to send for one request, and what to do with the connection afterwards.

    parts   byte strings sent one after the other; None waits for release()
    then    keep | close | rst | hang | half_close
    early   answer as soon as the head is there; the body is read afterwards
    deaf    answer without reading the body at all
    lazy    wait for release() before reading the body
    """

    def __init__(self, parts, then="keep", early=False, deaf=False, lazy=False):
        self.parts = [parts] if isinstance(parts, bytes) else list(parts)
        self.then = then
        self.early = early or deaf
        self.deaf = deaf
        self.lazy = lazy


def reply(status="200 OK", headers=(), body=b"ok\n", length=True):
    lines = [f"HTTP/1.1 {status}", *headers]
    if length:
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def many(n):
    return [f"x-h{i}: 1" for i in range(n)]


OK = reply()
HEAD_200 = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD_200 + b"transfer-encoding: chunked\r\n\r\n"

NAMED = {
    "ok": lambda: Behaviour(OK),
    "close": lambda: Behaviour(b"", "close"),
    "rst": lambda: Behaviour(b"", "rst"),
    "hang": lambda: Behaviour(b"", "hang"),
    "hold": lambda: Behaviour([None, OK]),
    "holdclose": lambda: Behaviour([None], "close"),
    "garbage": lambda: Behaviour(b"NOT HTTP\r\n\r\n", "close"),
    "midclose": lambda: Behaviour(HEAD_200 + b"content-length: 100\r\n\r\nabc", "close"),
    "midrst": lambda: Behaviour([HEAD_200 + b"content-length: 100\r\n\r\nabc", None], "rst"),
    "midhold": lambda: Behaviour([HEAD_200 + b"content-length: 6\r\n\r\nabc", None, b"def"]),
    "midhang": lambda: Behaviour(HEAD_200 + b"content-length: 100\r\n\r\nabc", "hang"),
    "headhang": lambda: Behaviour(HEAD_200 + b"content-length: 100\r\n\r\n", "hang"),
    "partialhead": lambda: Behaviour(HEAD_200 + b"x-a: 1\r\n", "close"),
    "chunked": lambda: Behaviour(CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
    "chunkext": lambda: Behaviour(CHUNKED + b"5;a=b\r\nhello\r\n0\r\n\r\n"),
    "chunkbad": lambda: Behaviour(CHUNKED + b"5\r\nhello\r\nzz\r\n", "close"),
    "chunkclose": lambda: Behaviour(CHUNKED + b"5\r\nhello\r\n", "close"),
    "chunkempty": lambda: Behaviour(CHUNKED + b"0\r\n\r\n"),
    "trailers": lambda: Behaviour(HEAD_200 + b"transfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n"
                                  b"5\r\nhello\r\n0\r\nx-t: tv\r\nx-u: uv\r\n\r\n"),
    "noclen": lambda: Behaviour(HEAD_200 + b"\r\nuntil close\n", "close"),
    "both": lambda: Behaviour(HEAD_200 + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n"
                              b"3\r\nabc\r\n0\r\n\r\n", "close"),
    "bothequalcl": lambda: Behaviour(HEAD_200 + b"content-length: 3\r\ncontent-length: 3\r\n\r\n"
                                     b"abc", "close"),
    "badcl": lambda: Behaviour(HEAD_200 + b"content-length: x\r\n\r\nabc", "close"),
    "h10": lambda: Behaviour(b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nok\n", "close"),
    "h10keep": lambda: Behaviour(b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n"
                                 b"content-length: 3\r\n\r\nok\n"),
    "badversion": lambda: Behaviour(b"HTTP/3.7 200 OK\r\ncontent-length: 3\r\n\r\nok\n", "close"),
    "noreason": lambda: Behaviour(b"HTTP/1.1 200\r\ncontent-length: 3\r\n\r\nok\n"),
    "oddreason": lambda: Behaviour(reply("200 Fine By Me")),
    "status99": lambda: Behaviour(reply("99 Low"), "close"),
    "status600": lambda: Behaviour(reply("600 High"), "close"),
    "status1000": lambda: Behaviour(reply("1000 Over"), "close"),
    "barelf": lambda: Behaviour(b"HTTP/1.1 200 OK\ncontent-length: 3\n\nok\n"),
    "obsfold": lambda: Behaviour(HEAD_200 + b"x-f: a\r\n  b\r\ncontent-length: 3\r\n\r\nok\n"),
    "nulheader": lambda: Behaviour(HEAD_200 + b"x-f: a\0b\r\ncontent-length: 3\r\n\r\nok\n",
                                   "close"),
    "hints103": lambda: Behaviour(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK),
    "cont100": lambda: Behaviour([b"HTTP/1.1 100 Continue\r\n\r\n", OK]),
    "cont100early": lambda: Behaviour([b"HTTP/1.1 100 Continue\r\n\r\n"], "body"),
    "processing102": lambda: Behaviour(b"HTTP/1.1 102 Processing\r\n\r\n" + OK),
    "server": lambda: Behaviour(reply(headers=["server: backend/1"])),
    "date": lambda: Behaviour(reply(headers=["date: Sun, 06 Nov 1994 08:49:37 GMT"])),
    "via": lambda: Behaviour(reply(headers=["via: 1.1 inner"])),
    "case": lambda: Behaviour(reply(headers=["X-Camel-Case: V", "ETag: \"q\""])),
    "manyhdr": lambda: Behaviour(reply(headers=many(120)), "close"),
    "closing": lambda: Behaviour(reply(headers=["connection: close"]), "close"),
    "hop": lambda: Behaviour(reply(headers=["connection: keep-alive, x-hop", "x-hop: 1",
                                            "keep-alive: timeout=5", "proxy-connection: x",
                                            "upgrade: h2c"])),
    "idleclose": lambda: Behaviour(OK, "close"),
    "s204": lambda: Behaviour(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "s204cl": lambda: Behaviour(b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"),
    "s204body": lambda: Behaviour(b"HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\nabc",
                                  "close"),
    "s304": lambda: Behaviour(b"HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n"),
    "s304cl": lambda: Behaviour(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 42\r\n\r\n"),
    "s101": lambda: Behaviour(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n"
                              b"connection: upgrade\r\n\r\n", "hang"),
    "lazy": lambda: Behaviour(OK, lazy=True),
    "early": lambda: Behaviour(OK, early=True),
    "earlyclose": lambda: Behaviour(reply(headers=["connection: close"]), "close", deaf=True),
    "early413": lambda: Behaviour(reply("413 Too Large", ["connection: close"], b"no\n"), "close",
                                  deaf=True),
    "retryme": lambda: Behaviour(reply(headers=["x-retry-me: 1"])),
    "ratelimited": lambda: Behaviour(reply("503 Service Unavailable",
                                           ["x-envoy-ratelimited: true"], b"rl\n")),
    "grpc0": lambda: Behaviour(reply(headers=["content-type: application/grpc",
                                              "grpc-status: 0"], body=b"")),
    "grpc14": lambda: Behaviour(reply(headers=["content-type: application/grpc",
                                               "grpc-status: 14"], body=b"")),
    "redirect": lambda: Behaviour(reply("302 Found", ["location: http://a/moved?x=1"], b"")),
}


def behaviour(spec):
    """A Behaviour from its name in a case file, or from {raw: text, then: ...}."""
    if isinstance(spec, Behaviour):
        return spec
    if isinstance(spec, dict):
        parts = spec["raw"] if isinstance(spec["raw"], list) else [spec["raw"]]
        return Behaviour([None if p is None else p.encode("latin-1") for p in parts],
                         spec.get("then", "keep"), spec.get("early", False),
                         spec.get("deaf", False), spec.get("lazy", False))
    name, _, arg = str(spec).partition(":")
    if name in NAMED:
        return NAMED[name]()
    if name == "bytes":
        return Behaviour(reply(body=b"x" * int(arg)))
    if name == "bighdr":
        return Behaviour(reply(headers=["x-big: " + "a" * int(arg or 70000)]))
    if name == "nhdr":
        return Behaviour(reply(headers=many(int(arg))))
    if re.fullmatch(r"s\d{3}", name):
        return Behaviour(reply(f"{name[1:]} X", body=name.encode() + b"\n"))
    if name == "hdr":
        return Behaviour(reply(headers=[arg.strip()]))
    raise ValueError(f"unknown upstream behaviour {spec!r}; known: {', '.join(sorted(NAMED))}, "
                     "sNNN, bytes:N, bighdr:N, nhdr:N, hdr:LINE, {raw:, then:}")


Seen = collections.namedtuple("Seen", "server conn raw")


def server_context(cert="server", ca=None, optional=False, alpn=None, version=None, tickets=True):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(f"{certs.usual()}/{cert}.pem", f"{certs.usual()}/{cert}.key")
    lowest, highest = version if isinstance(version, list) else (version or "1.2", version or "1.3")
    made.minimum_version, made.maximum_version = VERSIONS[lowest], VERSIONS[highest]
    if ca:
        made.load_verify_locations(f"{certs.usual()}/{ca}.pem")
        made.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
    if alpn:
        made.set_alpn_protocols(alpn)
    if not tickets:
        made.options |= ssl.OP_NO_TICKET
        made.num_tickets = 0

    def asked(sock, name, _):
        if name:
            sock.kobune_note["sni"] = name
    made.sni_callback = asked
    return made


class Reader:
    """Reads one HTTP/1 request after the other from a socket and keeps the raw bytes."""

    def __init__(self, sock):
        self.sock = sock
        self.buf = b""

    def fill(self):
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self.buf += data

    def take(self, n):
        while len(self.buf) < n:
            self.fill()
        out, self.buf = self.buf[:n], self.buf[n:]
        return out

    def until(self, mark):
        while mark not in self.buf:
            self.fill()
        return self.take(self.buf.index(mark) + len(mark))

    def head(self):
        return self.until(b"\r\n\r\n")

    def body(self, head):
        """The raw body that belongs to this head, framing included."""
        length = re.search(rb"\r\ncontent-length: *(\d+)\r\n", head, re.I)
        if re.search(rb"\r\ntransfer-encoding:[^\r\n]*chunked\r\n", head, re.I):
            raw = b""
            while True:
                line = self.until(b"\r\n")
                raw += line
                size = int(line.split(b";")[0], 16)
                if size:
                    raw += self.take(size + 2)
                    continue
                while line != b"\r\n":
                    line = self.until(b"\r\n")
                    raw += line
                return raw
        return self.take(int(length.group(1))) if length else b""


class Gate:
    """Where replies wait until the test lets them go, in the order in which they came."""

    def __init__(self):
        self.lock = threading.Condition()
        self.waiting = 0
        self.allowed = 0

    def ticket(self):
        with self.lock:
            self.waiting += 1
            return self.waiting

    def passed(self, ticket):
        with self.lock:
            return self.lock.wait_for(lambda: ticket <= self.allowed, 0.005)

    def open_one(self):
        with self.lock:
            self.allowed += 1
            self.lock.notify_all()

    def open(self):
        with self.lock:
            self.allowed = float("inf")
            self.lock.notify_all()


class Upstream:
    """One listening scripted server; `number` is its port, `callers` are the addresses it saw."""

    def __init__(self, name="up", mode="http", tls=None, address="127.0.0.1", port=0,
                 proxy_header=False, **h2):
        self.name = name
        self.mode = mode
        self.proxy_header = proxy_header  # a header of the PROXY protocol comes first
        self.context = server_context(**tls) if tls is not None else None
        self.tls = {}
        self.h2 = h2  # of h2 mode: see h2_upstream.py
        self.script = collections.deque()
        self.default = None
        self.before_answer = None  # called between a request and its answer
        self.seen = []
        self.accepted = 0
        self.widest = 0  # window of a stream of h2 mode
        self.peers = {}
        self.callers = set()
        self.live = {}
        self.lock = threading.Condition()
        self.gate = Gate()
        self.closing = False
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            self.listener.bind((address, port))
            self.number = self.listener.getsockname()[1]
            if port or self.number > 9999:
                break
        self.listener.listen(1024)
        threading.Thread(target=self._accept, daemon=True).start()

    def expect(self, specs):
        """Set the script: behaviours for the next requests (TCP mode: connections)."""
        specs = specs if isinstance(specs, (list, tuple)) else [specs]
        with self.lock:
            self.script = collections.deque(behaviour(s) if self.mode == "http" else s
                                            for s in specs)
            self.gate = Gate()

    def release(self):
        """Let every reply that waits at a None part, and every later one, go on."""
        self.gate.open()

    def release_one(self):
        """Let the reply go on that has waited longest at a None part."""
        self.gate.open_one()

    def close_idle(self):
        """Close every connection from our side, as a server does with idle ones."""
        with self.lock:
            live = list(self.live.values())
        for sock in live:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def take_seen(self):
        with self.lock:
            out, self.seen = self.seen, []
            return out

    def wait(self, what, test, deadline=DEADLINE_S):
        with self.lock:
            if not self.lock.wait_for(test, deadline):
                raise AssertionError(f"upstream {self.name}: no {what} within {deadline} s; seen "
                                     f"{len(self.seen)} requests on {self.accepted} connections")

    def wait_seen(self, n, deadline=DEADLINE_S):
        self.wait(f"request number {n}", lambda: len(self.seen) >= n, deadline)

    def live_count(self):
        with self.lock:
            return len(self.live)

    def stop(self):
        self.closing = True
        self.gate.open()
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.close_idle()

    release_port = stop

    def _accept(self):
        while True:
            try:
                sock, peer = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.accepted += 1
                number = self.accepted
                self.live[number] = sock
                self.peers[peer[1]] = number
                self.callers.add(peer[0])
                self.lock.notify_all()
            serve = {"http": self._serve_http, "tcp": self._serve_tcp,
                     "plain": self._serve_plain, "closer": self._serve_closer,
                     "h2": self._serve_h2}.get(self.mode, self._serve_own)
            threading.Thread(target=self._serve, args=(serve, sock, number), daemon=True).start()

    def _secure(self, sock, number):
        """The TLS server's handshake; what became of it is in `tls`."""
        note = self.tls[number] = {}
        sock = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        sock.kobune_note = note
        with self.lock:
            self.live[number] = sock
        try:
            sock.do_handshake()
        except (ssl.SSLError, OSError) as error:
            note["refused"] = getattr(error, "reason", None) or type(error).__name__
            self._record(number, b"")
            raise
        note.update(version=sock.version(), cipher=sock.cipher()[0])
        if sock.selected_alpn_protocol():
            note["alpn"] = sock.selected_alpn_protocol()
        if sock.session_reused:
            note["reused"] = True
        if sock.getpeercert(True):
            note["cert"] = certs.name_of(sock.getpeercert(True))
        return sock

    def _serve(self, serve, sock, number):
        then = "close"
        try:
            if self.proxy_header:
                self._record(number, proxy_headers.read(sock).encode())
            if self.context:
                sock = self._secure(sock, number)
            then = serve(sock, number)
        except (OSError, EOFError):
            pass
        finally:
            with self.lock:
                sock = self.live.pop(number, sock)
                if then == "rst":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
                self.lock.notify_all()

    def _record(self, number, raw):
        with self.lock:
            self.seen.append(Seen(self.name, number, raw))
            self.lock.notify_all()

    def _next(self, head):
        with self.lock:
            if self.script:
                return self.script.popleft()
        return behaviour(self.default(head) if self.default else "ok")

    def _serve_own(self, sock, number):
        self.mode(sock)
        return "close"

    def _serve_plain(self, sock, number):
        """What a server without TLS says to a ClientHello; nothing is recorded."""
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
        return "close"

    def _serve_closer(self, sock, number):
        """Takes what comes and goes."""
        sock.recv(65536)
        return "close"

    def _serve_h2(self, sock, number):
        from .h2_upstream import H2Connection  # pylint: disable=import-outside-toplevel
        return H2Connection(self, sock, number).serve()

    def next_h2(self):
        """The steps for the next request."""
        with self.lock:
            return self.script.popleft() if self.script else (self.default or "ok")

    def _serve_http(self, sock, number):
        reader = Reader(sock)
        while True:
            head = reader.head()
            act = self._next(head)
            gate = self.gate
            if act.then == "body":
                sock.sendall(b"".join(act.parts))
                act = behaviour("ok")
            if act.lazy:
                ticket = gate.ticket()
                while not gate.passed(ticket):
                    pass
            ticket = None
            if not act.early:
                head, ticket = self._finish(reader, head, number, gate if None in act.parts else None)
            if self.before_answer:
                self.before_answer()
            self._send(sock, act, head, gate, ticket)
            if act.early and not act.deaf:
                self._finish(reader, head, number)
            elif act.deaf:
                self._record(number, head)
            if act.then in ("close", "rst"):
                return act.then
            if act.then == "half_close":
                sock.shutdown(socket.SHUT_WR)
            if act.then in ("hang", "half_close"):
                while sock.recv(65536):
                    pass
                return "close"

    def _finish(self, reader, head, number, gate=None):
        """Read the body; record the request, marked when it was cut off. With a gate it gets its ticket
        before it can be `seen`: what was seen first is released first."""
        partial = head
        try:
            raw = head + reader.body(head)
            ticket = gate.ticket() if gate else None
            self._record(number, raw)
            return raw, ticket
        except (OSError, EOFError):
            self._record(number, partial + reader.buf + b"<cut off>")
            raise

    def _send(self, sock, act, request, gate, ticket):
        is_head = request.startswith(b"HEAD ")
        for part in act.parts:
            if part is None:
                self._hold(sock, gate, ticket)
                ticket = None
            elif part:
                if is_head and b"\r\n\r\n" in part:
                    part = part[:part.rindex(b"\r\n\r\n") + 4]
                sock.sendall(part)

    def _hold(self, sock, gate, ticket=None):
        """Wait for release(), or for the peer to go away."""
        ticket = ticket or gate.ticket()
        with socket.socket(fileno=os.dup(sock.fileno())) as below:  # nothing peeks through TLS
            while not gate.passed(ticket):
                try:
                    if below.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
                        raise EOFError
                except BlockingIOError:
                    pass

    def _serve_tcp(self, sock, number):
        """TCP mode: echo | sink | banner... | closenow | hold | holdrst | halfecho ..."""
        with self.lock:
            act = self.script.popleft() if self.script else (self.default or "echo")
        gate = self.gate
        got = b""
        end = "eof"
        try:
            if act == "closenow":
                return "close"
            if act.startswith("banner"):
                sock.sendall(b"hello\n")
            if act == "bannerclose":
                return "close"
            if act == "bannerhalf":
                sock.shutdown(socket.SHUT_WR)
            if act.startswith("hold"):
                self._hold(sock, gate)
            if act == "holdrst":
                end = "we reset"
                return "rst"
            while True:
                data = sock.recv(65536)
                if not data:
                    break
                got += data
                if act in ("echo", "banner", "hold"):
                    sock.sendall(data)
                if act == "rstonread":
                    end = "we reset"
                    return "rst"
                if act == "replyclose":
                    sock.sendall(b"bye\n")
                    return "close"
            if act == "halfecho":
                sock.sendall(got)
            return "close"
        except OSError as error:
            end = type(error).__name__
            raise
        finally:
            self._record(number, got + f"<{end}>".encode())


def wait_until(test, what, deadline=DEADLINE_S):
    """Wait for a state in this process, with a deadline."""
    end = time.monotonic() + deadline
    while not test():
        if time.monotonic() > end:
            raise AssertionError(f"no {what} within {deadline} s")
        time.sleep(0.002)
