# SPDX-License-Identifier: Apache-2.0
"""Requests that two readers could take for different ones: whatever the client sends, a strict
upstream sees whole requests with one framing, and never one that was hidden in another's body.

Each case holds `/hidden` where a reader who disagrees about the framing would begin a request. All
cases run at once, each on a connection of its own."""

import concurrent.futures
import re
import socket

import pytest

from tests.harness.patience import DEADLINE_S
from tests.harness.recorder import Recorder

from .conftest import Rig

HIDDEN = "GET /hidden-{n} HTTP/1.1\r\nhost: h.test\r\n\r\n"
AT_ONCE = 64

LENGTHS = {  # values of Content-Length that are not just a number
    "plus": "+{}", "minus": "-{}", "hex": "0x{:x}", "octal": "0{:o}", "underscore": "{}_0",
    "dot": "{}.0", "exponent": "{}e0", "list of the same": "{0},{0}", "list with space": "{0}, {0}",
    "list of others": "{},0", "list before": "0,{}", "empty": "", "space inside": "{} 0",
    "comma behind": "{},", "comma before": ",{}", "quotes": "\"{}\"", "letters": "{}a",
    "letter before": "a{}", "too large": "18446744073709551616", "wraps": "184467440737095516{:02}",
    "sign of 64 bits": "9223372036854775808", "vertical tab": "\x0b{}", "form feed": "\x0c{}",
    "nul": "{}\x00", "digits of another script": "\xd9\xa5", "semicolon": "{};a=b", "comment": "{} (x)",
}
CODINGS = {  # values of Transfer-Encoding
    "upper case": "CHUNKED", "mixed": "ChUnKeD", "x before": "xchunked", "x behind": "chunkedx",
    "identity": "identity", "identity before": "identity, chunked", "identity behind": "chunked, identity",
    "twice": "chunked, chunked", "gzip before": "gzip, chunked", "gzip behind": "chunked, gzip",
    "comma before": ",chunked", "comma behind": "chunked,", "empty": "", "quotes": "\"chunked\"",
    "single quotes": "'chunked'", "parameter": "chunked;q=1", "space inside": "chun ked",
    "tab before": "\tchunked", "vertical tab": "\x0bchunked", "form feed": "\x0cchunked",
    "nul behind": "chunked\x00", "nul before": "\x00chunked", "high byte": "chunked\xff",
    "no-break space": "\xa0chunked", "deflate": "deflate", "cow": "cow", "semicolon": "chunked;",
    "backslash": "\\chunked", "line separator": "chunked\x85", "newline inside": "chun\nked",
}
NAMES = {  # names of a header that a lax reader takes for Transfer-Encoding
    "space before the colon": "Transfer-Encoding ", "tab before the colon": "Transfer-Encoding\t",
    "nul in the name": "Transfer-\x00Encoding", "underscore": "Transfer_Encoding",
    "high byte": "Transfer\xadEncoding", "space before": " Transfer-Encoding",
    "tab before": "\tTransfer-Encoding", "no-break space": "\xa0Transfer-Encoding",
    "vertical tab": "Transfer-Encoding\x0b", "cr in the name": "Transfer\r-Encoding",
    "newline in a value": "X: y\nTransfer-Encoding", "cr in a value": "X: y\rTransfer-Encoding",
    "cr cr": "X: y\r\r\nTransfer-Encoding", "newline cr": "X: y\n\rTransfer-Encoding",
    "folded": "X: y\r\n Transfer-Encoding", "quotes": "\"Transfer-Encoding\"", "dot": "Transfer.Encoding",
    "slash": "Transfer/Encoding", "semicolon": "Transfer-Encoding;",
}
LENGTH_NAMES = {name: head.replace("Transfer-Encoding", "Content-Length")
                            .replace("Transfer", "Content").replace("Encoding", "Length")
                for name, head in NAMES.items()}
CHUNKS = {  # bodies of chunked requests; a whole reading ends before the hidden request or not at all
    "sign": "+0\r\n\r\n", "minus": "-0\r\n\r\n", "hex prefix": "0x0\r\n\r\n", "underscore": "0_0\r\n\r\n",
    "space before": " 0\r\n\r\n", "space behind": "0 \r\n\r\n", "tab behind": "0\t\r\n\r\n",
    "no size": "\r\n\r\n", "letters": "xyz\r\n\r\n", "comma": "0,0\r\n\r\n", "newline alone": "0\n\r\n",
    "newlines alone": "0\n\n", "cr alone": "0\r\r", "cr cr newline": "0\r\r\n\r\n", "nul": "0\x00\r\n\r\n",
    "too large": "10000000000000000\r\na\r\n0\r\n\r\n", "wraps to 1": "10000000000000001\r\na\r\n0\r\n\r\n",
    "many zeros": "0" * 100 + "1\r\na\r\n0\r\n\r\n", "data too short": "5\r\nabc\r\n0\r\n\r\n",
    "data too long": "3\r\nabcde\r\n0\r\n\r\n", "no line end behind data": "3\r\nabc0\r\n\r\n",
    "newline alone behind data": "3\r\nabc\n0\r\n\r\n", "cr alone behind data": "3\r\nabc\r0\r\n\r\n",
    "two bytes behind data": "3\r\nabcXX0\r\n\r\n",
    "extension": "0;a=b\r\n\r\n", "extension in quotes": "0;a=\"b;c\"\r\n\r\n",
    "newline in extension": "0;a\nb\r\n\r\n", "cr in extension": "0;a\rb\r\n\r\n",
    "cr cr in extension": "2\r\r;a\r\nab\r\n0\r\n\r\n", "line end in quoted extension": "0;a=\"\r\n\r\n\"\r\n\r\n",
    "newline ends an extension": "2;\nab\r\n0\r\n\r\n", "space before extension": "0 ;a\r\n\r\n",
    "empty extension": "0;\r\n\r\n", "nul in extension": "0;a\x00b\r\n\r\n",
    "long extension": "0;" + "a" * 100_000 + "\r\n\r\n",
    "framing in trailers": "0\r\ncontent-length: 50\r\n\r\n",
    "coding in trailers": "0\r\ntransfer-encoding: chunked\r\n\r\n",
    "host in trailers": "0\r\nhost: other.test\r\n\r\n", "bad trailer": "0\r\na b: c\r\n\r\n",
    "trailer without colon": "0\r\nabc\r\n\r\n", "folded trailer": "0\r\na: b\r\n c\r\n\r\n",
    "newline in trailer": "0\r\na: b\nc: d\r\n\r\n", "cr in trailer": "0\r\na: b\rc: d\r\n\r\n",
    "nul in trailer": "0\r\na: b\x00\r\n\r\n", "colon alone": "0\r\n: b\r\n\r\n",
}
LINES = {  # request lines
    "two spaces": "POST  /first-{n} HTTP/1.1", "tab": "POST\t/first-{n} HTTP/1.1",
    "space behind": "POST /first-{n} HTTP/1.1 ", "space in target": "POST /first-{n} x HTTP/1.1",
    "version 1.2": "POST /first-{n} HTTP/1.2", "version 2.0": "POST /first-{n} HTTP/2.0",
    "version 0.9": "POST /first-{n} HTTP/0.9", "lower case": "POST /first-{n} http/1.1",
    "no version": "POST /first-{n}", "nul": "POST /first-{n}\x00 HTTP/1.1", "cr": "POST /first-{n}\r HTTP/1.1",
    "newline": "POST /first-{n}\nx: HTTP/1.1", "hidden in the target":
        "POST /first-{n}%0d%0aGET%20/hidden-{n} HTTP/1.1", "high byte": "POST /first-{n}\xff HTTP/1.1",
    "odd method": "P\"ST /first-{n} HTTP/1.1", "method with colon": "POST: /first-{n} HTTP/1.1",
    "version with letters": "POST /first-{n} HTTP/1.1a", "comma version": "POST /first-{n} HTTP/1,1",
}


def request(lines, body, first="POST /first-{n} HTTP/1.1"):
    return "\r\n".join([first, "host: h.test", *lines, "", ""]) + body


def length_of(body, value="{}"):
    size = len(body.replace("{n}", "123"))
    return value.format(size, size) if "{" in value else value


def cases():
    """Name: bytes as text, with {n} for the case's number, of three digits."""
    out = {}
    ends = "0\r\n\r\n" + HIDDEN
    for name, value in LENGTHS.items():
        out[f"length: {name}"] = request([f"content-length: {length_of(HIDDEN, value)}"], HIDDEN)
        out[f"second length: {name}"] = request(
            ["content-length: 0", f"content-length: {length_of(HIDDEN, value)}"], HIDDEN)
    for name, value in CODINGS.items():
        length = f"content-length: {length_of(ends)}"
        out[f"length, then coding: {name}"] = request([length, f"transfer-encoding: {value}"], ends)
        out[f"coding, then length: {name}"] = request(
            [f"transfer-encoding: {value}", "content-length: 0"], ends)
        out[f"coding: {name}"] = request([f"transfer-encoding: {value}"], ends)
        out[f"second coding: {name}"] = request(
            ["transfer-encoding: chunked", f"transfer-encoding: {value}"], ends)
    for name, head in NAMES.items():
        out[f"coding's name: {name}"] = request(
            [f"content-length: {length_of(ends)}", f"{head}: chunked"], ends)
    for name, head in LENGTH_NAMES.items():
        out[f"length's name: {name}"] = request([f"{head}: {length_of(HIDDEN)}"], HIDDEN)
    for name, body in CHUNKS.items():
        out[f"chunks: {name}"] = request(["transfer-encoding: chunked"], body + HIDDEN)
    for name, line in LINES.items():
        out[f"request line: {name}"] = request([f"content-length: {length_of(HIDDEN)}"], HIDDEN, line)
    return out


CASES = list(cases().items())

def spec(port):
    up = {"load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [{
        "endpoint": {"address": {"socket_address": {"address": "127.0.0.1",
                                                    "port_value": port}}}}]}]}}
    quick = {"request_timeout": "2s", "common_http_protocol_options": {"idle_timeout": "2s"}}
    return {"clusters": {"up": up}, "listeners": {"main": {"hcm": quick, "log": "none"}}}


def conversation(port, data):
    """All that the proxy says until it closes."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as sock:
        sock.sendall(data)
        try:
            while piece := sock.recv(65536):
                got += piece
        except ConnectionResetError:
            pass
    return got


@pytest.fixture(scope="module")
def outcome(binary):
    """What each case's client heard, and what the upstream saw of all of them."""
    recorder = Recorder()
    one = Rig(binary, spec(recorder.port))
    try:
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            heard = list(pool.map(
                lambda n: conversation(one.port(), CASES[n][1].replace("{n}", f"{n:03}").encode("latin-1")),
                range(len(CASES))))
        one.proxy.stop()
    finally:
        one.abandon()
        recorder.stop()
    return heard, recorder


def test_the_upstream_always_understood(outcome):
    _, recorder = outcome
    assert recorder.faults == []


@pytest.mark.parametrize("number", range(len(CASES)), ids=[name for name, _ in CASES])
def test_one_request_or_none(outcome, number):
    heard, recorder = outcome
    statuses = [int(s) for s in re.findall(rb"HTTP/1\.[01] (\d{3})", heard[number])]
    mine = {target: seen for target, seen in recorder.requests.items() if f"-{number:03}" in target}
    hidden = [target for target in mine if target.startswith("/hidden")]
    assert hidden == [] or statuses[:1] == [200], "a request behind one that was refused"
    for target, seen in mine.items():
        assert len(seen) == 1, f"{target} was sent {len(seen)} times"
        headers, _ = seen[0]
        framing = [(name, value) for name, value in headers
                   if name in (b"content-length", b"transfer-encoding")]
        assert len(framing) <= 1, framing
    assert statuses.count(200) == len(mine)
