# SPDX-License-Identifier: Apache-2.0
"""An HTTP/2 client that speaks in frames: it sends what it is told, right or wrong, and keeps what
comes.

It sits on a `Connection` of client.py. Windows are wide open unless the settings say otherwise.
"""

import time

from hpack import Decoder, Encoder, HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (ContinuationFrame, DataFrame, ExtensionFrame, Frame, GoAwayFrame, HeadersFrame,
                              PingFrame, PriorityFrame, RstStreamFrame, SettingsFrame,
                              WindowUpdateFrame)

from .patience import DEADLINE_S

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WIDE = 2**31 - 1
METADATA, END_METADATA = 0x4d, 4
SETTINGS = {1: "HEADER_TABLE_SIZE", 2: "ENABLE_PUSH", 3: "MAX_CONCURRENT_STREAMS",
            4: "INITIAL_WINDOW_SIZE", 5: "MAX_FRAME_SIZE", 6: "MAX_HEADER_LIST_SIZE",
            8: "ENABLE_CONNECT_PROTOCOL"}


def text_of(value):
    """Bytes of a field as text, whatever they are."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


class Stream:
    """What came on one stream."""

    def __init__(self):
        self.heads = []  # header lists: informational ones, the final one, trailers
        self.body = b""
        self.ended = False
        self.reset = None  # error code
        self.metadata = b""  # of a block that did not end yet

    @property
    def done(self):
        return self.ended or self.reset is not None

    @property
    def status(self):
        return next((dict(head)[":status"] for head in self.heads
                     if not dict(head).get(":status", "").startswith("1")), None)


def raw_frame(kind, flags, stream, payload):
    """A frame from nothing but numbers and bytes."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class H2:
    """One HTTP/2 connection; `streams` has what came, `events` in which order."""

    def __init__(self, conn, settings=None, window=WIDE - 65535, preface=PREFACE):
        self.conn = conn
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.parsed = 0
        self.streams = {}
        self.events = []  # (stream or 0, text)
        self.goaways = []
        self.pings = 0
        self.acks = 0
        self.broken = None
        start = preface + SettingsFrame(0, settings={4: WIDE} if settings is None
                                        else settings).serialize()
        if window:
            start += WindowUpdateFrame(0, window_increment=window).serialize()
        self.pending = start

    # ---- sending ----

    def send(self, data=b""):
        """Bytes behind what waits to be sent."""
        data, self.pending = self.pending + data, b""
        self.conn.send(data)

    def later(self, data):
        """Bytes that go with the next ones."""
        self.pending += data

    def block(self, fields, huffman=False):
        return self.encoder.encode([(n, v) for n, v in fields], huffman=huffman)

    def headers(self, stream, fields, end=True, pieces=1, priority=None):
        """A HEADERS frame, and pieces - 1 CONTINUATIONs."""
        block = self.block(fields)
        size = -(-len(block) // pieces)
        parts = [block[at:at + size] for at in range(0, len(block), size)] or [b""]
        frame = HeadersFrame(stream, parts[0])
        if priority is not None:
            frame.flags.add("PRIORITY")
            frame.depends_on, frame.stream_weight, frame.exclusive = priority
        if end:
            frame.flags.add("END_STREAM")
        frames = [frame] + [ContinuationFrame(stream, part) for part in parts[1:]]
        frames[-1].flags.add("END_HEADERS")
        return b"".join(f.serialize() for f in frames)

    @staticmethod
    def data(stream, body=b"", end=True):
        out = b""
        while True:
            frame = DataFrame(stream, body[:16384])
            body = body[16384:]
            if end and not body:
                frame.flags.add("END_STREAM")
            out += frame.serialize()
            if not body:
                return out

    @staticmethod
    def metadata(stream, fields, end=True):
        """METADATA frames with a block of their own; the encoder knows nothing of other blocks."""
        block = Encoder().encode(fields, huffman=False)
        parts = [block[at:at + 16384] for at in range(0, len(block), 16384)] or [b""]
        return b"".join(raw_frame(METADATA, END_METADATA if end and part is parts[-1] else 0, stream,
                                  part) for part in parts)

    @staticmethod
    def rst(stream, code=8):
        return RstStreamFrame(stream, error_code=code).serialize()

    @staticmethod
    def ping(data=b"01234567", ack=False):
        return PingFrame(0, data, flags=["ACK"] if ack else []).serialize()

    @staticmethod
    def window_update(stream, n):
        return WindowUpdateFrame(stream, window_increment=n).serialize()

    @staticmethod
    def settings(values=None, ack=False):
        return SettingsFrame(0, settings=values or {}, flags=["ACK"] if ack else []).serialize()

    @staticmethod
    def priority(stream, depends_on=0, weight=15, exclusive=False):
        return PriorityFrame(stream, depends_on=depends_on, stream_weight=weight,
                             exclusive=exclusive).serialize()

    @staticmethod
    def goaway(last=0, code=0):
        return GoAwayFrame(0, last_stream_id=last, error_code=code).serialize()

    @staticmethod
    def request_fields(path="/", method="GET", host="h.test", scheme="http", headers=()):
        return [(":method", method), (":path", path), (":scheme", scheme), (":authority", host),
                *headers]

    def get(self, stream, path="/", **more):
        self.send(self.headers(stream, self.request_fields(path, **more)))

    # ---- receiving ----

    def parse(self):
        """Take the complete frames out of what came."""
        buf = self.conn.received
        while not self.broken and len(buf) - self.parsed >= 9:
            try:
                frame, size = Frame.parse_frame_header(memoryview(buf[self.parsed:self.parsed + 9]))
                if len(buf) - self.parsed - 9 < size:
                    break
                frame.parse_body(memoryview(buf[self.parsed + 9:self.parsed + 9 + size]))
                self.take(frame)
            except (HyperframeError, HPACKError) as error:
                self.broken = f"{type(error).__name__}: {error}"
                break
            self.parsed += 9 + size

    def event(self, stream, text):
        self.events.append((stream, text))

    def take(self, frame):
        stream = self.streams.setdefault(frame.stream_id, Stream()) if frame.stream_id else None
        if isinstance(frame, SettingsFrame):
            self.take_settings(frame)
        elif isinstance(frame, HeadersFrame):
            head = [(text_of(name), text_of(value))
                    for name, value in self.decoder.decode(frame.data, raw=True)]
            stream.heads.append(head)
            stream.ended |= "END_STREAM" in frame.flags
            self.event(frame.stream_id, "HEADERS" + (" END_STREAM" if stream.ended else ""))
            for name, value in head:
                self.event(frame.stream_id, f"  {name}: {value}")
        elif isinstance(frame, DataFrame):
            stream.body += bytes(frame.data)
            if frame.data:
                self.event(frame.stream_id, bytes(frame.data))
            if "END_STREAM" in frame.flags:
                stream.ended = True
                self.event(frame.stream_id, "END_STREAM")
        elif isinstance(frame, RstStreamFrame):
            stream.reset = frame.error_code
            self.event(frame.stream_id, f"RST_STREAM {frame.error_code}")
        elif isinstance(frame, GoAwayFrame):
            self.goaways.append((frame.last_stream_id, frame.error_code))
            self.event(0, f"GOAWAY last={frame.last_stream_id} code={frame.error_code}"
                          f" {bytes(frame.additional_data or b'').decode('latin-1')!r}")
        elif isinstance(frame, PingFrame):
            self.pings += 1
            self.event(0, f"PING{' ACK' if 'ACK' in frame.flags else ''}")
        elif isinstance(frame, WindowUpdateFrame):
            self.event(frame.stream_id, f"WINDOW_UPDATE {frame.window_increment}")
        elif isinstance(frame, ExtensionFrame) and frame.type == METADATA and stream:
            self.take_metadata(stream, frame)
        else:
            self.event(frame.stream_id, type(frame).__name__)

    def take_metadata(self, stream, frame):
        stream.metadata += frame.body
        if not frame.flag_byte & END_METADATA:
            self.event(frame.stream_id, f"METADATA {len(frame.body)}")
            return
        self.event(frame.stream_id, "METADATA END")
        for name, value in sorted(Decoder(1 << 24).decode(stream.metadata, raw=True)):
            self.event(frame.stream_id, f"  {name.decode('latin-1')}: {value.decode('latin-1')}")
        stream.metadata = b""

    def take_settings(self, frame):
        if "ACK" in frame.flags:
            self.acks += 1
            self.event(0, "SETTINGS ACK")
            return
        words = [f"{SETTINGS.get(k, k)}={v}" for k, v in frame.settings.items()]
        self.event(0, " ".join(["SETTINGS", *words]))

    def wait(self, condition, deadline=DEADLINE_S):
        """Collect until the condition holds, the peer ends, or the deadline; does it hold?"""
        end = time.monotonic() + deadline
        while True:
            self.parse()
            if condition():
                return True
            if self.conn.state != "open" or time.monotonic() >= end:
                return False
            self.conn._collect(end - time.monotonic())

    def wait_done(self, count, deadline=DEADLINE_S):
        """Until so many streams ended or were reset."""
        return self.wait(lambda: sum(s.done for s in self.streams.values()) >= count, deadline)

    def lines(self):
        """What came, connection first, then stream by stream; pieces of a body together."""
        self.parse()
        out = []
        for stream in sorted({s for s, _ in self.events}):
            body = b""
            for text in [t for s, t in self.events if s == stream] + [None]:
                if isinstance(text, bytes):
                    body += text
                    continue
                if body:
                    out.append((stream, f"DATA {len(body)}", body))
                    body = b""
                if text is not None:
                    out.append((stream, text, None))
        if self.broken:
            out.append((0, self.broken, None))
        return out
