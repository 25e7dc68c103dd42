# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 requests whose fields would be something else once they are lines of HTTP/1: whatever the client
sends, the upstream's strict parser sees one whole request or none, and nothing that was hidden in a field.

All cases run at once, each on a connection of its own, to the same recorder."""

import concurrent.futures

import pytest

from tests.blackbox.conftest import Rig
from tests.harness.client import Connection
from tests.harness.h2_client import H2
from tests.harness.recorder import Recorder

AT_ONCE = 32
TRAILERS = {"explicit_http_config": {"http_protocol_options": {"enable_trailers": True}}}
HIDDEN = "GET /hidden-{n} HTTP/1.1\r\nhost: h.test\r\n\r\n"

BREAKS = {  # what ends a line, or a string, for somebody
    "crlf": "\r\n", "newline": "\n", "cr": "\r", "nul": "\0", "two lines": "\r\n\r\n", "newlines": "\n\n",
    "newline and space": "\n ", "cr cr newline": "\r\r\n",
}
FORBIDDEN = {  # RFC 9113 section 8.2.2: they belong to one connection
    "coding": ("transfer-encoding", "chunked"), "identity": ("transfer-encoding", "identity"),
    "connection": ("connection", "x-a"), "close": ("connection", "close"), "keep-alive": ("keep-alive", "timeout=1"),
    "proxy": ("proxy-connection", "keep-alive"), "upgrade": ("upgrade", "websocket"), "te": ("te", "gzip"),
    "te with more": ("te", "trailers, chunked"),
}
NAMES = {  # names that are none
    "empty": "", "upper case": "X-Evil", "space": "x evil", "space behind": "x-evil ", "space before": " x-evil",
    "tab": "x\tevil", "colon": "x:evil", "colon behind": "x-evil:", "colon and value": "x-evil: 1\r\ny",
    "high byte": "x-\xe9vil", "delete": "x-\x7f", "comma": "x,evil", "quotes": "\"x-evil\"", "brackets": "(x-evil)",
    "slash": "x/evil", "equals": "x=evil", "at": "x@evil", "upper coding": "Transfer-Encoding",
    "coding and space": "transfer-encoding ", "coding and newline": "transfer-encoding\n",
    "length and tab": "content-length\t", "pseudo behind": ":x-evil",
}
PATHS = {
    "empty": "", "no slash": "first-{n}", "space": "/first-{n} x", "version": "/first-{n} HTTP/1.1",
    "hidden request": "/first-{n} HTTP/1.1\r\nhost: a\r\n\r\nGET /hidden-{n}", "tab": "/first-{n}\tx",
    "fragment": "/first-{n}#x", "nul": "/first-{n}\0x", "high byte": "/first-{n}\xff", "star": "*",
    "absolute": "http://other.test/first-{n}", "delete": "/first-{n}\x7f", "newline at the end": "/first-{n}\n",
    "encoded line": "/first-{n}%0d%0aGET%20/hidden-{n}", "backslash": "/first-{n}\\x", "bytes": "/first-{n}\x01",
}
METHODS = {
    "empty": "", "space": "GET /hidden-{n} HTTP/1.1", "crlf": "GET /hidden-{n} HTTP/1.1\r\nx: y\r\n\r\nGET",
    "lower case": "get", "colon": "GET:", "high byte": "G\xcaT", "tab": "GET\t", "unknown": "BREW", "nul": "GET\0",
    "comma": "GET,POST", "quotes": "\"GET\"",
}
AUTHORITIES = {
    "empty": "", "space": "h.test x", "crlf": "h.test\r\nx-evil: 1", "user": "user@h.test", "slash": "h.test/x",
    "query": "h.test?x", "fragment": "h.test#x", "tab": "h.test\tx", "nul": "h.test\0", "high byte": "h\xff.test",
    "backslash": "h.test\\x", "odd port": "h.test:99999", "letters as port": "h.test:a", "two ports": "h.test:1:2",
    "list": "h.test, other.test", "angle": "<h.test>",
}
SCHEMES = {"empty": "", "crlf": "http\r\nx-evil: 1", "space": "http x", "url": "http://h.test/hidden-{n} HTTP/1.1\r\n",
           "unknown": "ftp", "upper case": "HTTP", "nul": "http\0"}
LENGTHS = {  # content-length of a body of three bytes
    "too small": "1", "too large": "1000", "plus": "+3", "minus": "-3", "list": "3,3", "list of others": "3,0",
    "hex": "0x3", "empty": "", "letters": "abc", "dot": "3.0", "space inside": "3 0", "huge": "18446744073709551619",
    "zeros before": "0003", "exponent": "3e0", "nul": "3\0",
}


def fields(number, **changes):
    base = {":method": "POST", ":path": f"/first-{number}", ":scheme": "http", ":authority": "h.test"}
    base.update(changes)
    return [(name, value) for name, value in base.items() if value is not None]


def cases():
    """Name: (fields, body, trailers, may it reach the upstream?); {n} is the case's number."""
    n = "{n}"
    plain = fields(n)
    out = {}
    for name, mark in BREAKS.items():
        hidden = f"b{mark}x-evil: 1"
        out[f"value: {name}"] = (plain + [("x-a", hidden)], "", None, False)
        out[f"value behind a length: {name}"] = (plain + [("content-length", f"0{mark}x-evil: 1")], "", None, False)
        out[f"name: {name}"] = (plain + [(f"x-a{mark}x-evil", "1")], "", None, False)
        out[f"cookie: {name}"] = (plain + [("cookie", "a=b"), ("cookie", hidden)], "", None, False)
        out[f"whole request in a value: {name}"] = (plain + [("x-a", f"b{mark}{mark}{HIDDEN}")], "", None, False)
        out[f"path: {name}"] = (fields(n, **{":path": f"/first-{n}{mark}x-evil: 1"}), "", None, False)
        out[f"authority: {name}"] = (fields(n, **{":authority": f"h.test{mark}x-evil: 1"}), "", None, False)
        out[f"host: {name}"] = (fields(n, **{":authority": None}) + [("host", f"h{mark}x-evil: 1")], "", None, False)
        out[f"trailer: {name}"] = (plain, "abc", [("x-t", hidden)], None)
        out[f"trailer's name: {name}"] = (plain, "abc", [(f"x-t{mark}x-evil", "1")], None)
    for name, field in FORBIDDEN.items():
        out[f"of a connection: {name}"] = (plain + [field], HIDDEN, None, False)
        out[f"of a connection, in trailers: {name}"] = (plain, "abc", [field], None)
    for name, odd in NAMES.items():
        out[f"odd name: {name}"] = (plain + [(odd, "1")], HIDDEN, None, False)
    for what, values in ((":path", PATHS), (":method", METHODS), (":authority", AUTHORITIES), (":scheme", SCHEMES)):
        for name, value in values.items():
            out[f"{what[1:]}: {name}"] = (fields(n, **{what: value}), HIDDEN, None, None)
        out[f"{what[1:]}: twice"] = (plain + [(what, dict(plain)[what])], HIDDEN, None, False)
        out[f"{what[1:]}: behind a header"] = (
            [(k, v) for k, v in plain if k != what] + [("x-a", "b"), (what, dict(plain)[what])], HIDDEN, None, False)
    for name, value in LENGTHS.items():
        sound = name == "zeros before"
        out[f"length: {name}"] = (plain + [("content-length", value)], "abc", None, None if sound else False)
        out[f"second length: {name}"] = (plain + [("content-length", "3"), ("content-length", value)], "abc", None,
                                         None if sound else False)
    for name in (":evil", ":status", ":path", ":authority", "content-length", "host", "transfer-encoding", "trailer",
                 "", "X-Upper", "te", "connection"):
        out[f"in trailers: {name!r}"] = (plain, "abc", [(name, "1")], None)
    out["host beside authority"] = (plain + [("host", "other.test")], "", None, None)
    out["two hosts"] = (fields(n, **{":authority": None}) + [("host", "h.test"), ("host", "other.test")], "", None, None)
    out["protocol without a name"] = (fields(n, **{":method": "CONNECT", ":protocol": "websocket"}), "", None, False)
    out["protocol with GET"] = (fields(n, **{":method": "GET", ":protocol": "websocket"}), "", None, False)
    out["connect with a path"] = (fields(n, **{":method": "CONNECT"}), HIDDEN, None, False)
    out["get with a body"] = (fields(n, **{":method": "GET"}), HIDDEN, None, None)
    out["head with a body"] = (fields(n, **{":method": "HEAD"}), HIDDEN, None, None)
    out["body is a request"] = (plain, HIDDEN * 3, None, True)
    out["body is a chunk"] = (plain, "0\r\n\r\n" + HIDDEN, None, True)
    out["body with its length"] = (plain + [("content-length", "3")], "abc", None, True)
    out["space around a value"] = (plain + [("x-a", "  b\t ")], "", None, None)
    out["folded value"] = (plain + [("x-a", "b\r\n c")], "", None, False)
    out["expect"] = (plain + [("expect", "100-continue")], HIDDEN, None, None)
    return out


CASES = list(cases().items())


def numbered(pairs, number):
    return [(k.replace("{n}", number).encode("latin-1"), v.replace("{n}", number).encode("latin-1")) for k, v in pairs]


def conversation(port, index):
    """The final status, or None: reset, closed, or nothing but an error of the connection."""
    head, body, trailers, _ = CASES[index][1]
    number = f"{index:03}"
    client = H2(Connection(port))
    body = body.replace("{n}", number).encode("latin-1")
    try:
        data = client.headers(1, numbered(head, number), end=not body and not trailers)
        if body:
            data += client.data(1, body, end=not trailers)
        if trailers:
            data += client.headers(1, numbered(trailers, number))
        client.send(data)
        client.wait(lambda: 1 in client.streams and client.streams[1].done or client.goaways)
        return client.streams[1].status if 1 in client.streams else None
    finally:
        client.conn.close()


@pytest.fixture(scope="module")
def outcome(binary):
    recorder = Recorder()
    up = {"load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
        "socket_address": {"address": "127.0.0.1", "port_value": recorder.port}}}}]}]}, "http": TRAILERS}
    one = Rig(binary, {"clusters": {"up": up}, "listeners": {"main": {"log": "none"}}})
    try:
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            statuses = list(pool.map(lambda n: conversation(one.port(), n), range(len(CASES))))
        one.proxy.stop()
    finally:
        one.abandon()
        recorder.stop()
    return statuses, recorder


def test_the_upstream_always_understood(outcome):
    """But for bytes above 0x7f in a path, which Envoy passes on too: they end nothing."""
    faults = [fault for fault in outcome[1].faults if b"\xff HTTP/1.1\r\n" not in fault[1]]
    assert faults == [] and len(outcome[1].faults) <= 1


def test_nothing_was_hidden(outcome):
    """Neither a request nor a header that stood within a field."""
    for target, seen in outcome[1].requests.items():
        assert not target.startswith("/hidden"), target
        for headers, _ in seen:
            assert b"x-evil" not in dict(headers), (target, headers)


@pytest.mark.parametrize("index", range(len(CASES)), ids=[name for name, _ in CASES])
def test_one_request_or_none(outcome, index):
    statuses, recorder = outcome
    head, body, _, allowed = CASES[index][1]
    mine = [(target, seen) for target, seen in recorder.requests.items() if f"-{index:03}" in target]
    assert len(mine) <= 1 and all(len(seen) == 1 for _, seen in mine), mine
    if allowed is not None:
        assert (len(mine) == 1) == allowed, (statuses[index], mine)
    if allowed:
        assert statuses[index] == "200"
    for _, seen in mine:
        headers, received = seen[0]
        framing = [name for name, _ in headers if name in (b"content-length", b"transfer-encoding")]
        assert len(framing) <= 1, headers
        assert received == body.replace("{n}", f"{index:03}").encode("latin-1")
        assert sum(name == b"host" for name, _ in headers) == 1
