# SPDX-License-Identifier: Apache-2.0
"""A raw client: sends bytes, collects bytes, says how the connection stands afterwards."""

import re
import select
import socket
import struct
import time
import zlib

from .patience import DEADLINE_S


def head_end(buf, at):
    """Index after the empty line that ends the head starting at `at`, or -1."""
    end = buf.find(b"\r\n\r\n", at)
    return -1 if end < 0 else end + 4


def chunked_end(buf, at):
    """Index after a chunked body that starts at `at`, or -1 while it is incomplete."""
    while True:
        eol = buf.find(b"\r\n", at)
        if eol < 0:
            return -1
        try:
            size = int(buf[at:eol].split(b";")[0], 16)
        except ValueError:
            return -1
        at = eol + 2
        if size:
            at += size + 2
            if at > len(buf):
                return -1
            continue
        while True:
            eol = buf.find(b"\r\n", at)
            if eol < 0:
                return -1
            if eol == at:
                return at + 2
            at = eol + 2


def unchunk(raw):
    """A message with its chunked body decoded, as it is if it has none."""
    head, mark, body = raw.partition(b"\r\n\r\n")
    if not mark or not re.search(rb"\r\ntransfer-encoding: *chunked", head, re.I):
        return raw
    end = chunked_end(body, 0)
    if end < 0:
        return raw
    out, at = b"", 0
    while True:
        eol = body.index(b"\r\n", at)
        size = int(body[at:eol].split(b";")[0], 16)
        if not size:
            return head + mark + out + body[eol + 4:]
        out += body[eol + 2:eol + 2 + size]
        at = eol + 2 + size + 2


def unpack(raw):
    """A message without the gzip of its body, which no two libraries do alike."""
    head, mark, body = raw.partition(b"\r\n\r\n")
    if not re.search(rb"\r\ncontent-encoding: *gzip\r?\n?", head, re.I) or body[:2] != b"\x1f\x8b":
        return raw
    return head + mark + b"<gzip of> " + zlib.decompressobj(31).decompress(body)


def response_end(buf, at, method, closed):
    """(index after the response that starts at `at`, its status); index -1 while incomplete."""
    end = head_end(buf, at)
    if end < 0:
        return -1, 0
    head = buf[at:end]
    match = re.match(rb"HTTP/1\.[01] (\d+)", head)
    if not match:
        return -1, 0
    status = int(match.group(1))
    if status < 200 and status != 101:
        return end, status
    if method == "HEAD" or status in (101, 204, 304):
        return end, status
    if method == "CONNECT" and status < 300:
        return end, status
    if re.search(rb"\r\ntransfer-encoding: *chunked\r\n", head, re.I):
        return chunked_end(buf, end), status
    length = re.search(rb"\r\ncontent-length: *(\d+)\r\n", head, re.I)
    if length:
        end += int(length.group(1))
        return (end if end <= len(buf) else -1), status
    return (len(buf) if closed else -1), status


class Connection:
    """One client connection to the subject.

    `state` is open, eof, rst or refused; `received` is everything that came.
    """

    def __init__(self, port, used=(), source="127.0.0.1", address="127.0.0.1"):
        """Connect to a port of the subject, from a local port that is not in `used`."""
        while True:
            self.sock = socket.socket()
            self.sock.bind((source, 0))
            self.port = self.sock.getsockname()[1]
            if self.port not in used and self.port > 9999:
                break
            self.sock.close()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(DEADLINE_S)
        self.received = b""
        self.parsed = 0
        self.done = 0
        self.state = "open"
        self.methods = []
        try:
            self.sock.connect((address, port))
        except ConnectionRefusedError:
            self.state = "refused"
        except ConnectionResetError:
            self.state = "rst"

    def send(self, data, methods=()):
        """Send all of it; a peer that is gone shows in `state`."""
        self.methods += methods
        try:
            self.sock.sendall(data)
        except OSError:
            self._collect(0)
            if self.state == "open":
                self.state = "rst"

    def _collect(self, timeout):
        """Read what is there within `timeout` seconds; False when nothing happened."""
        if self.state != "open":
            return False
        ready, _, _ = select.select([self.sock], [], [], max(timeout, 0))
        if not ready:
            return False
        try:
            data = self.sock.recv(262144)
        except OSError:
            self.state = "rst"
            return True
        if data:
            self._take(data)
        else:
            self.state = "eof"
        return True

    def _take(self, data):
        self.received += data

    def _advance(self):
        """Count complete final responses; true when the received bytes end at a boundary."""
        while self.parsed < len(self.received):
            method = self.methods[self.done] if self.done < len(self.methods) else "GET"
            end, status = response_end(self.received, self.parsed, method, self.state != "open")
            if end < 0:
                return False
            self.parsed = end
            if status >= 200 or status == 101:
                self.done += 1
        return True

    def wait_responses(self, total, deadline=DEADLINE_S):
        """Collect until `total` final responses are complete, the peer ends, or the deadline."""
        end = time.monotonic() + deadline
        while True:
            self._advance()
            if self.done >= total or self.state != "open":
                return self.done >= total
            if not self._collect(end - time.monotonic()) and time.monotonic() >= end:
                return False

    def wait_bytes(self, total, deadline=DEADLINE_S):
        return self._wait(lambda: len(self.received) >= total, deadline)

    def wait_text(self, text, deadline=DEADLINE_S):
        """Collect until these bytes are among what came, the peer ends, or the deadline."""
        return self._wait(lambda: text in self.received, deadline)

    def _wait(self, condition, deadline):
        end = time.monotonic() + deadline
        while not condition() and self.state == "open":
            if not self._collect(end - time.monotonic()) and time.monotonic() >= end:
                return False
        return condition()

    def wait_end(self, deadline=DEADLINE_S):
        """Collect until the peer closes or resets; the state after at most `deadline`."""
        end = time.monotonic() + deadline
        while self.state == "open":
            if not self._collect(end - time.monotonic()) and time.monotonic() >= end:
                break
        return self.state

    def announces_close(self):
        """Does the last complete response say that the connection will be closed?"""
        heads = re.findall(rb"HTTP/1\.[01] \d{3}.*?\r\n\r\n", self.received, re.S)
        return bool(heads and re.search(rb"\r\nconnection: close\r\n", heads[-1], re.I))

    def settle(self, quiet, deadline=5.0):
        """Collect until nothing has come for `quiet` seconds, or the peer ended."""
        end = time.monotonic() + deadline
        while self.state == "open" and time.monotonic() < end:
            if not self._collect(quiet):
                break
        return self.state

    def half_close(self):
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.sock.close()

    def reset(self):
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        self.sock.close()


def methods_of(data):
    """The request methods in raw request bytes, in order (needed to know HEAD answers)."""
    return [m.decode("latin-1") for m in re.findall(rb"(?:^|\n)([A-Za-z]+)[ \t][^\r\n]*HTTP/", data)]
