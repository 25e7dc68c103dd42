# SPDX-License-Identifier: Apache-2.0
"""Requests that are just small enough, and just too large: one byte or one header decides, at the place where
it decides with Envoy, and what is too large reaches nobody."""

import pytest

from tests.harness.client import Connection

from .recorded import ask, recorded

KIB = 1024
LISTENERS = {"usual": {}, "small": {"max_request_headers_kb": 8},
             "few": {"common_http_protocol_options": {"max_headers_count": 5}}}
BYTES = {"usual": 60 * KIB, "small": 8 * KIB}
COUNT = {"usual": 100, "few": 5}
# So much less than the limit is the longest of its kind with Envoy 1.40.
LEFT_OUT = {"h1": {"value": 39, "name": 37, "path": 32, "two values": 46},
            "h2": {"value": 46, "name": 44, "path": 43, "two values": 49, "method": 40}}
OTHERS = {"h1": 1, "h2": 4}  # host; the pseudo-headers


def sized(kind, n):
    """Arguments of `ask` for a request with n bytes of it."""
    if kind == "value":
        return {"path": "/", "headers": [("x-a", "v" * n)]}
    if kind == "name":
        return {"path": "/", "headers": [("x" * n, "v")]}
    if kind == "path":
        return {"path": "/" + "p" * n}
    if kind == "method":
        return {"path": "/", "method": "M" * n}
    return {"path": "/", "headers": [("x-a", "v" * (n // 2)), ("x-b", "v" * (n - n // 2))]}


@pytest.fixture(scope="module")
def one(binary):
    with recorded(binary, {name: {"log": "none", "hcm": hcm} for name, hcm in LISTENERS.items()}) as it:
        yield it
        assert it.recorder.faults == []


def answered(one, protocol, fits, **request):
    """A request that fits is passed on once; another is answered by 431, or its stream is reset."""
    one.recorder.requests.clear()
    status = ask(one, protocol, **request)
    received = sum(map(len, one.recorder.requests.values()))
    assert (status, received) == ((200, 1) if fits else (431 if protocol == "h1" else None, 0))


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("name", BYTES)
@pytest.mark.parametrize("protocol,kind", [(p, kind) for p, kinds in LEFT_OUT.items() for kind in kinds])
def test_bytes(one, protocol, kind, name, more):
    answered(one, protocol, more <= 0, name=name, **sized(kind, BYTES[name] - LEFT_OUT[protocol][kind] + more))


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("name", COUNT)
@pytest.mark.parametrize("kind", ["different", "same", "cookies"])
@pytest.mark.parametrize("protocol", ["h1", "h2"])
def test_headers(one, protocol, kind, name, more):
    count = COUNT[name] - OTHERS[protocol] + more
    fields = {"different": [(f"x-{n}", "v") for n in range(count)], "same": [("x-a", "v")] * count,
              "cookies": [("cookie", f"a{n}=v") for n in range(count)]}[kind]
    answered(one, protocol, more <= 0, name=name, path="/", headers=fields)


BEGINNINGS = {"method": b"M", "line": b"GET /", "head": b"GET / HTTP/1.1\r\nhost: a\r\nx: ",
              "spaces": b"GET / HTTP/1.1\r\nhost: a\r\nx:", "chunk size": b"", "extension": b"1;",
              "extensions": b"1;a", "quoted extension": b"1;a=\"", "trailer": b"0\r\nx: ", "trailers": b"0\r\n"}
PIECES = {"spaces": b" ", "chunk size": b"0", "extensions": b";a", "trailers": b"x: y\r\n"}


@pytest.mark.parametrize("what", BEGINNINGS)
def test_endless(one, what, stricter):
    """No end comes: the answer does, once a limit is reached; of a chunk's line after 16 KiB."""
    chunked = BEGINNINGS[what][:1] in (b"", b"0", b"1")
    if chunked and what != "trailer":
        stricter("chunk-lines")
    conn = Connection(one.port("usual"))
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" if chunked else b""
    begin = head + BEGINNINGS[what]
    limit = 60 * KIB if not chunked or what in ("trailer", "trailers") else 36 * KIB
    conn.send(begin + (PIECES.get(what, b"M") * limit)[:limit], ["POST"])
    assert conn.wait_responses(1)
    assert conn.received[:12] in (b"HTTP/1.1 431", b"HTTP/1.1 400")
    conn.close()


@pytest.mark.parametrize("size", [1, 8 * KIB])
def test_extensions_that_are_short_enough(one, size):
    one.recorder.requests.clear()
    conn = Connection(one.port("usual"))
    chunk = b"1;" + b"e" * size + b"\r\na\r\n"
    conn.send(b"POST /ext HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + chunk * 20 + b"0\r\n\r\n", ["POST"])
    assert conn.wait_responses(1) and conn.received.startswith(b"HTTP/1.1 200")
    assert one.recorder.requests["/ext"][0][1] == b"a" * 20
    conn.close()
