# SPDX-License-Identifier: Apache-2.0
"""The differential runner itself: it has to see differences, and may not see others."""

import re
import types

import pytest

from tests.harness.client import Connection, chunked_end, methods_of, response_end, unchunk
from tests.harness.patience import DEADLINE_S
from tests.harness.upstream import Upstream

from . import casefile, golden, normal, runner
from .due import SHORT_S, Due

NAMES = normal.Names({"up": 40001})


def test_every_case_has_a_record_that_belongs_to_it():
    stale = [path.stem for path in sorted(casefile.CASES.glob("*.yaml"))
             if golden.load(casefile.load(path)) is None]
    assert not stale, "record them: python -m tests.differential.record " + " ".join(stale)


def test_every_record_has_a_case():
    cases = {path.stem for path in casefile.CASES.glob("*.yaml")}
    assert {path.stem for path in casefile.GOLDEN.glob("*.json")} <= cases


@pytest.mark.parametrize("one, other", [
    (b"HTTP/1.1 200 OK\r\na: b\r\n\r\n", b"HTTP/1.1 200 OK\r\na:  b\r\n\r\n"),
    (b"x: 1\r\ny: 2\r\n\r\n", b"y: 2\r\nx: 1\r\n\r\n"),
    (b"a\r\n", b"a\n"),
    (b"date: Sun, 06 Nov 2026 08:49:37 GMT", b"date: Sun, 6 Nov 2026 08:49:37 GMT"),
    (b"x-request-id: 0f2e1d3c-0000-4000-8000-000000000001",
     b"x-request-id: 0f2e1d3c-0000-9000-8000-000000000001"),
    (b"b" * 300, b"b" * 299 + b"c"),
    (b"127.0.0.1:40001", b"127.0.0.1:40002"),
])
def test_differences_are_seen(one, other):
    assert golden.diff(normal.lines_of(one, NAMES), normal.lines_of(other, NAMES))


@pytest.mark.parametrize("one, other", [
    (b"date: Sun, 06 Nov 2026 08:49:37 GMT", b"date: Mon, 07 Nov 2033 00:00:00 GMT"),
    (b"x-request-id: 0f2e1d3c-0000-4000-8000-000000000001",
     b"x-request-id: 11111111-2222-4333-a444-555555555555"),
    (b"x-envoy-upstream-service-time: 0", b"x-envoy-upstream-service-time: 123"),
])
def test_moving_values_are_not_seen(one, other):
    assert not golden.diff(normal.lines_of(one, NAMES), normal.lines_of(other, NAMES))


def test_an_allowance_has_to_be_named_and_needed(monkeypatch):
    monkeypatch.setattr(golden, "named_differences", lambda: {"known"})
    assert "no `### name`" in golden.judge({"a": 1}, {"a": 2}, ["unknown"])
    assert "no longer needed" in golden.judge({"a": 1}, {"a": 1}, ["known"])
    assert golden.judge({"a": 1}, {"a": 2}, ["known"]) == ""
    assert golden.judge({"a": 1}, {"a": 2}, [])


def test_allowed_counters_have_to_differ(monkeypatch):
    monkeypatch.setattr(golden, "named_differences", lambda: {"known"})
    assert golden.judge_stats({"x.a": 1, "y": 1}, {"x.a": 2, "y": 1}, {"known": "^x"}) == ""
    assert golden.judge_stats({"x.a": 1, "y": 1}, {"x.a": 2, "y": 2}, {"known": "^x"})
    assert "no longer needed" in golden.judge_stats({"x.a": 1}, {"x.a": 1}, {"known": "^x"})


def test_responses_are_found():
    two = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\naHTTP/1.1 204 No Content\r\n\r\n"
    end, status = response_end(two, 0, "GET", False)
    assert (two[:end][-1:], status) == (b"a", 200)
    assert response_end(two, end, "GET", False) == (len(two), 204)
    assert response_end(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\na", 0, "GET", False)[0] == -1
    assert response_end(b"HTTP/1.1 200 OK\r\n\r\na", 0, "GET", False)[0] == -1
    assert response_end(b"HTTP/1.1 200 OK\r\n\r\na", 0, "GET", True)[0] == 20
    assert methods_of(b"GET / HTTP/1.1\r\n\r\nHEAD / HTTP/1.1\r\n\r\n") == ["GET", "HEAD"]


def test_chunks_are_joined():
    body = b"3;x\r\nabc\r\n2\r\nde\r\n0\r\nt: v\r\n\r\n"
    assert chunked_end(body, 0) == len(body)
    assert chunked_end(body[:-1], 0) == -1
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert unchunk(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n") == head + b"abcde"


@pytest.mark.parametrize("what, state", [("close", "eof"), ("rst", "rst"), ("ok", "open")])
def test_the_client_sees_how_a_connection_ends(what, state):
    upstream = Upstream()
    upstream.expect([what])
    conn = Connection(upstream.number)
    conn.send(b"GET / HTTP/1.1\r\n\r\n", ["GET"])
    conn.wait_responses(1)
    assert (conn.settle(0.05) if state == "open" else conn.wait_end()) == state
    conn.close()
    upstream.stop()


def test_short_forms():
    spec = {"request": "POST /", "body": "<<a*3>>", "headers": ["x: <<b*2>>"]}
    assert casefile.request_text(spec) == ("POST / HTTP/1.1\r\nhost: h.test\r\nx: bb\r\n"
                                           "content-length: 3\r\n\r\naaa")
    assert casefile.request_text({"send": "GET / HTTP/1.1\nhost: a"}) == \
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    assert casefile.filled("<<h#: 1*2>>") == "h0: 1\r\nh1: 1"
    assert [e.name for e in casefile.expand({"get": "/<<n>>", "each": {"n": [1, 2]}}, "x")] == \
        ["GET /1", "GET /2"]


@pytest.mark.parametrize("text, words", [
    ("{listeners: {a: {}, b: {}}, clusters: {up: {}, b: {}}}", "the listener and the cluster 'b'"),
    ("{listeners: {a: {}}, upstreams: {a: {mode: tcp}}}", "the listener and the upstream 'a'"),
    ("{listeners: {a: {}}, clusters: {a: {endpoints: [up]}}}", None),
    ("{listeners: {a: {}, b: {}}, clusters: {up: {endpoints: [b]}}}", None),
])
def test_a_proxy_does_not_call_itself_for_its_upstream(tmp_path, text, words):
    path = tmp_path / "case.yaml"
    path.write_text(f"{{about: names, {text[1:]}")
    if words is None:
        casefile.load(path)
    else:
        with pytest.raises(casefile.CaseError, match=words):
            casefile.load(path)


def test_what_the_record_has_is_waited_for():
    exchange = casefile.expand({"get": "/"}, "x")[0]
    record = {"exchanges": [{"name": exchange.name, "client": ["a"], "after": "open"}], "stats": {}}
    due = Due(record, {})
    tries = []
    assert due.wait(exchange, lambda seconds: tries.append(seconds) or len(tries) == 3, 0.01, lambda: False)
    assert not due.wait(exchange, lambda seconds: False, 0.01, lambda: True) and not due.failed
    assert due.patience(exchange) == DEADLINE_S
    due.failed = True
    assert due.patience(exchange) == SHORT_S
    assert Due(record, {exchange.name: ["known"]}).patience(exchange) == SHORT_S
    assert not Due(None, {}).there and not Due({"exchanges": []}, {}).there


def test_counters_of_the_record_are_waited_for():
    """Also when they stand still for a moment on their way."""
    run = runner.Run.__new__(runner.Run)
    run.case, run.quiet = types.SimpleNamespace(spec={}), 0.001
    run.due = Due({"exchanges": [{"name": "x"}], "stats": {"a": 2}}, {})
    looks = iter([{"a": 1}] * 5 + [{"a": 2}])
    run.stats = lambda: next(looks)
    assert run.stats_at_rest() == {"a": 2}
    run.due.failed = True
    looks = iter([{"a": 1}] * 2)
    assert run.stats_at_rest() == {"a": 1}


def places():
    """The names of files in coverage.md, each with the beginnings that it has to have."""
    text = (casefile.HERE / "coverage.md").read_text()
    rows = [row.rsplit("|", 2)[1] for row in text.splitlines() if re.match(r"\| \d", row)]
    assert len(rows) == 45
    for row in rows:
        for name, _, starts in re.findall(r"`([\w/]+)`( \(([^`]*)\))?", row):
            yield name, [one for one in starts.split(", ") if one]


@pytest.mark.parametrize("name, starts", list(places()))
def test_what_coverage_names_is_there(name, starts):
    if "/" in name:
        there = re.findall(r"^def (\w+)", (casefile.HERE.parent / f"{name}.py").read_text(), re.M)
    else:
        there = [e.name for e in casefile.load(casefile.CASES / f"{name}.yaml").exchanges]
    missing = [one for one in starts if not any(n.startswith(one) for n in there)]
    assert there and not missing
