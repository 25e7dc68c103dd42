# SPDX-License-Identifier: Apache-2.0
"""Malformed heads for random_pairs --malformed: one to four mistakes in one head, of requests and of
answers, so that it shows which of them decides."""

FIRST = ["GET / HTTP/1.1"] * 12 + ["POST / HTTP/1.1"] * 8 + [
    "GET / HTTP/1.0", "GET / HTTP/1.2", "GET / HTTP/2.0", "GET / HTTP/0.9", "GET / http/1.1",
    "GET / HTTP/1.1 ", "GET / HTTP/1.1 x", "GET / HTTP/11", "GET / HTTP/1.", "GET / HTTP/1.10",
    "GET / FTP/1.1", "GET", "GET ", "GET  HTTP/1.1", "GET  /  HTTP/1.1", "GET\t/\tHTTP/1.1", " GET / HTTP/1.1",
    "\tGET / HTTP/1.1", "get / HTTP/1.1", "BREW / HTTP/1.1", "G@T / HTTP/1.1", "G\0T / HTTP/1.1", "GET /\0 HTTP/1.1",
    "GET / HTTP/1.\0", "GET / HT\0P/1.1", "GET /\r HTTP/1.1", "GET\r / HTTP/1.1", "GET / HTTP/1.1\r", "GET /\x01 HTTP/1.1", "GET /\x7f HTTP/1.1",
    "GET /\xe9 HTTP/1.1", "GET /a b HTTP/1.1", "GET rel HTTP/1.1", "GET http:// HTTP/1.1", "GET http://a b/ HTTP/1.1",
    "GET ftp://a/ HTTP/1.1", "GET ://a/ HTTP/1.1", "GET *x HTTP/1.1", "CONNECT / HTTP/1.1", "CONNECT a HTTP/1.1", "CONNECT a:1 HTTP/1.0",
    "CONNECT a:1 HTTP/1.2", "GET #a HTTP/1.1", "GET ?a HTTP/1.1", "QUERY / HTTP/1.1", "M-SEARCH / HTTP/1.1", "POST / HTTP/1.0", "POST / HTTP/1.2"]
VALUES = ["", "v", " v", "v ", "\tv\t", "a\0b", "\0", "a\x01b", "\x7f", "a\rb", "\r", "v\r", "a\tb", "\xe9", "a b", "a,b", "\x0b", "\x0c", "a\x80\xff",
          "a\r\rb"]
NAMES = ["x-a", "X-A", "x", "x y", "x ", " x", "\tx", "", "x\0", "\0", "x\r", "\rx", "x\x01", "x\x7f", "\xe9", "x(", "x_y", "x\"", "x/y", "x@", "x[",
         "host", "Host", "host ", "content-length ", "transfer-encoding ", "content-length\r", "transfer-encoding\0", "x{", ":path", ":x", "x:y"]
WHOLE = ["x", "", ":", ": v", " ", "\t", " x: y", "\tx", " ", "\r", "\0", "x\r: v", "x: a\r\n b", "x: a\r\n\tb", "x: a\n b", "x:\r\n b", "x: a\r\n ",
         "x: a\r\n \r\n b", "x: a\nb: c", "x: a\r\r\nb: c", "x: a\r\nb", "a: b\n\tc\r\nd: e", "a: b\r\n\0c", "host: a\r\n b", "content-length: 3\r\n 4",
         "transfer-encoding:\r\n chunked", "transfer-encoding: chunked\r\n ,x"]
FRAMING = ["content-length: 3", "content-length: 3", "Content-Length: 3", "content-length: 4", "content-length: 3, 3", "content-length: -3", "content-length: +3",
           "content-length: 0x3", "content-length: 3a", "content-length:", "content-length: 3 3", "content-length: 99999999999999999999",
           "content-length: 18446744073709551615", "content-length: 003", "content-length: \x003", "content-length: 3\0", "content-length: 3\r",
           "transfer-encoding: chunked", "transfer-encoding: chunked", "Transfer-Encoding: Chunked", "transfer-encoding: gzip, chunked", "transfer-encoding: chunked, gzip",
           "transfer-encoding: identity", "transfer-encoding: xchunked", "transfer-encoding: chunked, chunked", "transfer-encoding: \x0bchunked",
           "transfer-encoding: chunked\0", "transfer-encoding: chunked;q=1", "transfer-encoding:\tchunked ", "transfer-encoding: \"chunked\"", "transfer-encoding: chunked\r"]
ORDINARY = ["x-b: 1", "x-c: 2", "cookie: a=b", "accept: */*", "te: trailers", "expect: 100-continue", "upgrade: websocket", "connection: close", "connection: keep-alive"]
ANSWERS = ["HTTP/1.1 200 OK"] * 12 + [
    "HTTP/1.0 200 OK", "HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1  200 OK", "HTTP/1.1 200  OK", "HTTP/1.1\t200\tOK", "HTTP/1.1 2x0 OK",
    "HTTP/1.1 600 OK", "HTTP/1.1 999 OK", "HTTP/1.1 -20 OK", "HTTP/1.1 OK", "HTTP/1.1", "http/1.1 200 OK", " HTTP/1.1 200 OK",
    "HTTP/1.1 200 O\0K", "HTTP/1.1 200 O\rK", "HTTP/1.1 200 \xe9", "HTTP/1.1 200 \x01", "ICY 200 OK", "HTTP/1.1 204 No", "HTTP/1.1 304 No", "HTTP/1.1 200 OK\r", "HTTP/1.1\0200 OK"]


def defect(draw):
    kind = draw.randrange(10)
    if kind < 3:
        return f"{draw.choice(NAMES)}:{draw.choice(['', ' '])}{draw.choice(['v', 'v', draw.choice(VALUES)])}"
    if kind < 5:
        return f"{draw.choice(['x-a', 'x-a', 'host', 'cookie'])}:{draw.choice(['', ' '])}{draw.choice(VALUES)}"
    if kind < 7:
        return draw.choice(WHOLE)
    return draw.choice(FRAMING)


def lines_of(draw, most):
    lines = [defect(draw) for _ in range(draw.randrange(1, most))]
    lines += draw.sample(ORDINARY, draw.randrange(3)) if draw.random() < 0.3 else []
    draw.shuffle(lines)
    return lines


def body_of(draw, lines):
    framing = " ".join(lines).lower()
    if "transfer-encoding" in framing:
        return "3\r\nabc\r\n0\r\n\r\n"
    return "abc" if "content-length" in framing else ""


def request(draw):
    lines = lines_of(draw, 4)
    if draw.random() < 0.9:
        lines.insert(draw.randrange(len(lines) + 1), "host: h.test")
    if draw.random() < 0.02:
        lines.append("x-large: " + "l" * draw.choice([61300, 61440, 65000]))
    if draw.random() < 0.03:
        lines[:0] = [f"n{n}: v" for n in range(draw.choice([10, 12, 97, 101]))]
    return {"first": draw.choice(FIRST), "lines": lines, "body": body_of(draw, lines)}


def answer(draw):
    lines = lines_of(draw, 4)
    return {"first": draw.choice(ANSWERS), "lines": lines, "body": body_of(draw, lines)}
