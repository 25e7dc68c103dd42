# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 servers that mean harm: each is cut off, its request is answered, the others are served."""

import select
import struct
import threading

import hpack
import pytest

from tests.harness.h2_upstream import (CONTINUATION, DATA, END_HEADERS, END_METADATA, END_STREAM,
                                       GOAWAY, HEADERS, METADATA, PING, PREFACE, PRIORITY, RST, SETTINGS, WINDOW, frame)
from tests.harness.patience import DEADLINE_S

MOST = 16 << 20  # what an attacker may get rid of before it is cut off


class Attacker:
    """Takes a connection, its first request, and then sends the same piece again and again."""

    def __init__(self, piece, first=b"", reads=True, times=None):
        self.piece, self.first, self.reads, self.times = piece, first, reads, times
        self.sent = 0
        self.cut = threading.Event()

    def __call__(self, sock):
        buf = b""
        try:
            while len(buf) < len(PREFACE) or HEADERS not in self.kinds(buf):
                data = sock.recv(65536)
                if not data:
                    return
                buf += data
            sock.sendall(frame(SETTINGS, 0, 0) + frame(SETTINGS, END_STREAM, 0) + self.first)
            sock.settimeout(5)
            left = self.times
            while self.sent < MOST and left != 0:
                sock.sendall(self.piece)
                self.sent += len(self.piece)
                left = left - 1 if left is not None else None
                if self.reads:
                    self.drop(sock)
            while sock.recv(65536):
                pass
            self.cut.set()
        except (ConnectionError, BrokenPipeError):
            self.cut.set()
        except OSError:
            pass

    @staticmethod
    def drop(sock):
        if select.select([sock], [], [], 0)[0] and sock.recv(65536) == b"":
            raise ConnectionResetError

    @staticmethod
    def kinds(buf):
        out, at = [], len(PREFACE)
        while at + 9 <= len(buf):
            out.append(buf[at + 3])
            at += 9 + int.from_bytes(buf[at:at + 3], "big")
        return out


def many(one, n=200):
    return one * n


HEAD = frame(HEADERS, END_HEADERS, 1, b"\x88")
INTERIM = hpack.Encoder().encode([(":status", "103"), ("link", "</a>")])
BOMB = hpack.Encoder().encode([(":status", "200"), ("x", "a" * 4000)]) + b"\xbe" * 12000

ATTACKS = {
    "pings": Attacker(many(frame(PING, 0, 0, b"12345678"))),
    "pings whose answers are not read": Attacker(many(frame(PING, 0, 0, b"12345678")), reads=False),
    "settings": Attacker(many(frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100)))),
    "empty data": Attacker(many(frame(DATA, 0, 1)), HEAD),
    "empty continuations": Attacker(many(frame(CONTINUATION, 0, 1)), frame(HEADERS, 0, 1, b"\x88")),
    "continuations": Attacker(frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 3000),
                              frame(HEADERS, 0, 1, b"\x88")),
    "priorities": Attacker(many(frame(PRIORITY, 0, 1, b"\0\0\0\0\1"))),
    "window updates": Attacker(many(frame(WINDOW, 0, 0, struct.pack(">I", 1)))),
    "goaways": Attacker(many(frame(GOAWAY, 0, 0, struct.pack(">II", 1, 0)))),
    "interim answers": Attacker(frame(HEADERS, END_HEADERS, 1, INTERIM), times=200),
    "resets of what is gone": Attacker(many(frame(RST, 0, 1, struct.pack(">I", 8)))),
    "unknown frames": Attacker(many(frame(0xbe, 0, 0))),
    "unknown frames of the stream": Attacker(many(frame(0xbe, 0, 1, b"x"))),
    "empty metadata": Attacker(many(frame(METADATA, END_METADATA, 1))),
    "metadata": Attacker(many(frame(METADATA, END_METADATA, 1, b"\0\1a\1b")), HEAD),
    "metadata without end": Attacker(frame(METADATA, 0, 1, b"\0\1a\1b" * 3000)),
    "metadata that grows": Attacker(frame(METADATA, END_METADATA, 1,
                                          b"\x40\1a\x7f\x81\x1e" + b"b" * 3968 + b"\xbe" * 10000), times=1),
    "a promise": Attacker(frame(5, END_HEADERS, 1, struct.pack(">I", 2) + b"\x82"), times=1),
}


@pytest.mark.parametrize("what", sorted(ATTACKS))
def test_it_is_cut_off(rig, what):
    attacker = ATTACKS[what]
    one = rig({"upstreams": {"up": {"mode": attacker}, "good": {"mode": "h2"}},
               "clusters": {"up": {"http2": {"initial_stream_window_size": 65535, "allow_metadata": True}}, "good": {"http2": {}}},
               "listeners": {"main": {"routes": ["/good -> good", {"match": "/", "route": {
                   "cluster": "up", "timeout": "30s"}}]}}})
    client = one.connect()
    client.send(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    assert b"200 OK" in one.get("/good").received
    assert attacker.cut.wait(DEADLINE_S), f"not cut off after {attacker.sent} bytes"
    assert attacker.sent < MOST
    client.wait_bytes(12)
    assert client.received.startswith(b"HTTP/1.1 ")
    assert b"200 OK" in one.get("/good").received
    assert one.proxy.stats(r"^cluster\.up\.upstream_cx_destroy$")["cluster.up.upstream_cx_destroy"] == 1


def test_header_bombs_cost_their_request_only(rig):
    """Headers that grow by a factor of thousands when they are unpacked."""
    one = rig({"upstreams": {"up": {"mode": "h2"}}, "clusters": {"up": {"http2": {}}}})
    one.up.expect(["raw " + frame(HEADERS, END_HEADERS | END_STREAM, 0, BOMB).hex()[:10] + "SSSSSSSS" +
                   BOMB.hex()])
    assert b"503 Service" in one.get("/a").received
    assert b"200 OK" in one.get("/b").received


def test_data_beyond_the_window_is_not_kept(rig, memory_measured):
    """A client that does not read, and a server that does not care."""
    attacker = Attacker(frame(DATA, 0, 1, b"x" * 16384), HEAD)
    one = rig({"upstreams": {"up": {"mode": attacker}},
               "clusters": {"up": {"http2": {"initial_stream_window_size": 65535}}}})
    client = one.connect()
    client.send(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    one.proxy.wait_stat("cluster.up.http2.tx_reset", 1)
    assert one.proxy.stats(r"^kobune\.bytes_in_use$")["kobune.bytes_in_use"] < 4 << 20
    client.close()
