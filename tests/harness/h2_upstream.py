# SPDX-License-Identifier: Apache-2.0
"""The scripted upstream's HTTP/2 side: frames by hand, so that it can misbehave.

A behaviour is steps joined by ";", or one of the names of NAMED:

    head 200 a=b      HEADERS                   headend 200 a=b   HEADERS with END_STREAM
    data abc          DATA                      bytes 70000       so many, as the windows let them go
    end               empty DATA, END_STREAM    dataend abc       DATA with END_STREAM
    trailers a=b      HEADERS with END_STREAM   rst 8             RST_STREAM
    said 5b5b...      HEADERS, from JSON in hexadecimal: [[name, value], ...]; saidend: with END_STREAM
    goaway 1 0        GOAWAY, last id (`this`, `below`: of this stream), code
    settings 3=2      SETTINGS                  raw 0000...       any bytes, in hexadecimal
    meta a=b          METADATA                  metas 5 a=b       so many of them
    hold              waits for release()       close, abort      FIN, RST of the connection
    early             the steps behind it do not wait for the end of the request

Recorded is each request: a line for each header, an empty one, the body, and trailers; `<rst 2>`
where the subject resets it before its end, `<metadata a: b>` where one came, among the body or
before the headers. Further settings of an upstream:

    settings       {number: value} of our SETTINGS
    greeting       a text that is sent in place of everything else
    shown          SETTINGS are recorded
    resets         a reset that comes after the request is one more entry, and so is a GOAWAY
    deaf_to_pings  PINGs stay without answer
    greedy         windows never open again
    sorted         pseudo headers are recorded in an order of ours
"""

import contextlib
import json
import socket
import struct
import threading

import hpack

from .h2_client import text_of
from .patience import DEADLINE_S

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 1, 1, 4, 8, 32
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
METADATA, END_METADATA = 0x4d, 4
FRAME_MAX = 16384
GATHERED_MAX = 65536

NAMED = {
    "ok": "head 200 content-length=3; dataend ok\n",
    "nolength": "head 200; data ok\n; end",
    "s204": "headend 204",
    "trailers": "head 200; data hello; trailers x-t=tv x-u=uv",
    "hang": "",
    "holdok": "hold; head 200 content-length=3; dataend ok\n",
    "cont100": "early; head 100; head 200 content-length=3; dataend ok\n",
    "hints103": "head 103 link=</a>; head 200 content-length=3; dataend ok\n",
    "grpc": "head 200 content-type=application/grpc; data abc; trailers grpc-status=0",
}


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + \
        struct.pack(">I", stream) + payload


def fields(words):
    """a=b words as header fields; `_` in a value stands for a space."""
    pairs = (w.partition("=") for w in words)
    return [(k, v.replace("_", " ")) for k, _, v in pairs]


class Stream:
    def __init__(self, number):
        self.number = number
        self.lines = []
        self.body = b""
        self.trailers = []
        self.started = False
        self.done = threading.Event()
        self.gate = None  # where its first `hold` waits, if it does not answer early
        self.ticket = None
        self.reset = False
        self.window = 0  # what its WINDOW_UPDATEs gave
        self.sent = 0
        self.metadata = b""  # of a block that did not end yet


class H2Connection:
    """Serves one connection of `upstream`, an Upstream whose mode is h2."""

    def __init__(self, upstream, sock, number):
        self.upstream = upstream
        self.options = upstream.h2
        self.sock = sock
        self.number = number
        self.streams = {}
        self.early = {}  # METADATA of streams that did not begin yet
        self.decoder = hpack.Decoder()
        self.encoder = hpack.Encoder()
        self.lock = threading.Lock()
        self.gathered = None  # what the steps under way sent, which hold the lock
        self.windows = threading.Condition()
        self.window = self.initial_window = 65535
        self.buf = b""
        self.then = "close"

    # ---- bytes

    def take(self, n):
        while len(self.buf) < n:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.buf += data
        out, self.buf = self.buf[:n], self.buf[n:]
        return out

    def send(self, data):
        with self.lock:
            self.sock.sendall(data)

    def answer(self, data):
        """What a step sends goes with that of the steps behind it, up to one that waits: a client whose answer is
        complete by its length may go, and is to find that the subject has its end, too."""
        self.gathered += data
        if len(self.gathered) > GATHERED_MAX:
            with self.apart():
                pass

    def flush(self):
        data, self.gathered = self.gathered, b""
        self.sock.sendall(data)

    @contextlib.contextmanager
    def apart(self):
        """Within, what was gathered has been sent and others may send."""
        self.flush()
        self.lock.release()
        try:
            yield
        finally:
            self.lock.acquire()

    def serve(self):
        try:
            if "greeting" in self.options:
                self.take(1)
                self.sock.sendall(self.options["greeting"].encode("latin-1"))
            if self.take(len(PREFACE)) != PREFACE:
                raise EOFError
            settings = b"".join(struct.pack(">HI", k, v)
                                for k, v in self.options.get("settings", {}).items())
            self.send(frame(SETTINGS, 0, 0, settings))
            while True:
                head = self.take(9)
                length = struct.unpack(">I", b"\0" + head[:3])[0]
                stream = struct.unpack(">I", head[5:])[0] & 0x7fffffff
                self.received(head[3], head[4], stream, self.take(length))
        finally:
            for stream in self.streams.values():
                stream.reset = True
                stream.done.set()
            with self.windows:
                self.windows.notify_all()
        return self.then

    # ---- frames

    def received(self, kind, flags, number, payload):
        if kind == SETTINGS and not flags & ACK:
            self.settings(payload)
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK and not self.options.get("deaf_to_pings"):
            self.send(frame(PING, ACK, 0, payload))
        elif kind == WINDOW:
            self.window_update(number, struct.unpack(">I", payload)[0])
        elif kind == HEADERS:
            self.headers(flags, number, payload)
        elif kind == DATA:
            self.data(flags, number, payload)
        elif kind == METADATA:
            self.metadata(flags, number, payload)
        elif kind == RST:
            self.rst(number, struct.unpack(">I", payload)[0])
        elif kind == GOAWAY and self.options.get("resets"):
            self.record(f"<goaway {struct.unpack('>I', payload[4:8])[0]}>")

    def metadata(self, flags, number, payload):
        stream = self.streams.get(number) or self.early.setdefault(number, Stream(number))
        stream.metadata += payload
        if not flags & END_METADATA:
            return
        pairs = hpack.Decoder(1 << 24).decode(stream.metadata, raw=True)
        stream.metadata = b""
        stream.body += b"<metadata " + b", ".join(sorted(k + b": " + v for k, v in pairs)) + b">"

    def settings(self, payload):
        pairs = list(struct.iter_unpack(">HI", payload))
        if self.options.get("shown"):
            self.record("<settings " + " ".join(f"{k}={v}" for k, v in pairs) + ">")
        for key, value in pairs:
            if key == 4:
                with self.windows:
                    self.initial_window = value
                    self.windows.notify_all()

    def window_update(self, number, size):
        with self.windows:
            if number == 0:
                self.window += size
            elif number in self.streams:
                self.streams[number].window += size
            self.windows.notify_all()

    def headers(self, flags, number, payload):
        while not flags & END_HEADERS:
            head = self.take(9)
            flags |= head[4] & END_HEADERS
            payload += self.take(struct.unpack(">I", b"\0" + head[:3])[0])
        if flags & PRIORITY_FLAG:
            payload = payload[5:]
        lines = [f"{text_of(k)}: {text_of(v)}" for k, v in self.decoder.decode(payload, raw=True)]
        if self.options.get("sorted"):
            lines.sort(key=lambda line: line.partition(": ")[0] if line[0] == ":" else "z")
        stream = self.streams.get(number)
        if stream is None:
            stream = self.streams[number] = Stream(number)
            stream.lines = lines
            if number in self.early:
                lines.insert(0, self.early.pop(number).body.decode("latin-1"))
            steps = self.upstream.next_h2()
            steps = [step.lstrip(" ") for step in NAMED.get(steps, steps).split(";")]
            if "hold" in steps and "early" not in steps:
                stream.gate = self.upstream.gate
            threading.Thread(target=self.play, args=(stream, steps), daemon=True).start()
        else:
            stream.trailers = lines
        if flags & END_STREAM:
            self.ended(stream)

    def data(self, flags, number, payload):
        stream = self.streams.get(number)
        if payload and not self.options.get("greedy"):
            update = struct.pack(">I", len(payload))
            self.send(frame(WINDOW, 0, 0, update) + frame(WINDOW, 0, number, update))
        if stream is not None:
            stream.body += payload
            if flags & END_STREAM:
                self.ended(stream)

    def rst(self, number, code):
        stream = self.streams.get(number)
        if stream is None:
            return
        if not stream.done.is_set():
            stream.trailers.append(f"<rst {code}>")
            stream.reset = True
            self.ended(stream)
        else:
            stream.reset = True
            if self.options.get("resets"):
                self.record(f"<rst {code}>")
        with self.windows:
            self.windows.notify_all()

    def ended(self, stream):
        text = "\r\n".join(stream.lines).encode("latin-1") + b"\r\n\r\n" + stream.body
        if stream.trailers:
            text += b"\r\n" + "\r\n".join(stream.trailers).encode("latin-1")
        if stream.gate:  # before it can be `seen`: what was seen first is released first
            stream.ticket = stream.gate.ticket()
        self.record(text)
        stream.done.set()

    def record(self, text):
        self.upstream._record(self.number, text if isinstance(text, bytes) else text.encode())

    # ---- answers

    def play(self, stream, steps):
        gate = stream.gate or self.upstream.gate
        try:
            if steps and steps[0] == "early":
                steps.pop(0)
            else:
                stream.done.wait()
            with self.lock:
                self.gathered = b""
                for step in steps:
                    verb, _, arg = step.partition(" ")
                    if verb:
                        getattr(self, "do_" + verb)(stream, arg, gate)
                self.flush()
        except OSError:
            pass

    def do_hold(self, stream, _, gate):
        ticket, stream.ticket = stream.ticket or gate.ticket(), None
        with self.apart():
            while not gate.passed(ticket) and not stream.reset:
                pass

    def do_early(self, *_):
        pass

    def do_wait(self, stream, *_):
        with self.apart():
            stream.done.wait()

    def heads(self, stream, words, flags):
        self.lines(stream, fields(words), flags)

    def lines(self, stream, pairs, flags):
        block = self.encoder.encode(pairs)
        pieces = [block[i:i + FRAME_MAX] for i in range(0, len(block), FRAME_MAX)] or [b""]
        for i, piece in enumerate(pieces):
            last = END_HEADERS if i == len(pieces) - 1 else 0
            self.answer(frame(HEADERS, flags | last, stream.number, piece) if i == 0 else
                        frame(CONTINUATION, last, stream.number, piece))

    def do_said(self, stream, arg, _, flags=0):
        pairs = json.loads(bytes.fromhex(arg))
        self.lines(stream, [(k.encode("latin-1"), v.encode("latin-1")) for k, v in pairs], flags)

    def do_saidend(self, stream, arg, gate):
        self.do_said(stream, arg, gate, END_STREAM)

    def do_head(self, stream, arg, _):
        status, *words = arg.split()
        self.heads(stream, [":status=" + status, *words], 0)

    def do_headend(self, stream, arg, _):
        status, *words = arg.split()
        self.heads(stream, [":status=" + status, *words], END_STREAM)

    def do_trailers(self, stream, arg, _):
        self.heads(stream, arg.split(), END_STREAM)

    def do_manyhead(self, stream, arg, _):
        self.heads(stream, [":status=200"] + [f"x-h{i}=1" for i in range(int(arg))], END_STREAM)

    def do_bighead(self, stream, arg, _):
        self.heads(stream, [":status=200", "x-big=" + "a" * int(arg)], END_STREAM)

    def do_data(self, stream, arg, _):
        self.answer(frame(DATA, 0, stream.number, arg.encode("latin-1")))

    def do_dataend(self, stream, arg, _):
        self.answer(frame(DATA, END_STREAM, stream.number, arg.encode("latin-1")))

    def do_bytes(self, stream, arg, _):
        """As the subject's windows let them go: nobody may send more, however soon they usually open again."""
        def room():
            ahead = self.initial_window + stream.window - stream.sent
            self.upstream.widest = max(self.upstream.widest, ahead)
            return min(self.window, ahead, FRAME_MAX)
        left = int(arg)
        while left > 0:
            if room() <= 0:
                with self.apart(), self.windows:
                    self.windows.wait_for(lambda: room() > 0 or stream.reset, DEADLINE_S)
            with self.windows:
                n = min(room(), left)
                if stream.reset or n <= 0:
                    return
                stream.sent += n
                self.window -= n
            self.answer(frame(DATA, 0, stream.number, b"x" * n))
            left -= n

    def do_end(self, stream, *_):
        self.answer(frame(DATA, END_STREAM, stream.number))

    def do_rst(self, stream, arg, _):
        self.answer(frame(RST, 0, stream.number, struct.pack(">I", int(arg))))

    def do_goaway(self, stream, arg, _):
        last, code = arg.split()
        last = {"this": stream.number, "below": stream.number - 1}.get(last) or int(last)
        self.answer(frame(GOAWAY, 0, 0, struct.pack(">II", max(last, 0), int(code))))

    def do_settings(self, _, arg, __):
        pairs = [w.split("=") for w in arg.split()]
        self.answer(frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", int(k), int(v))
                                                   for k, v in pairs)))

    def do_meta(self, stream, arg, _):
        block = hpack.Encoder().encode(fields(arg.split()), huffman=False)
        while True:
            end = END_METADATA if len(block) <= FRAME_MAX else 0
            self.answer(frame(METADATA, end, stream.number, block[:FRAME_MAX]))
            block = block[FRAME_MAX:]
            if end:
                return

    def do_metas(self, stream, arg, gate):
        count, _, words = arg.partition(" ")
        for _ in range(int(count)):
            self.do_meta(stream, words, gate)

    def do_raw(self, stream, arg, _):
        """Hexadecimal; SSSSSSSS stands for this stream's number."""
        self.answer(bytes.fromhex(arg.replace("SSSSSSSS", f"{stream.number:08x}")))

    def do_close(self, *_):
        self.then = "close"
        self.flush()
        self.sock.shutdown(socket.SHUT_RDWR)

    def do_abort(self, *_):
        self.then = "rst"
        self.flush()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.shutdown(socket.SHUT_RD)
