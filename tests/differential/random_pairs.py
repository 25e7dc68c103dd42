# SPDX-License-Identifier: Apache-2.0
"""Random requests and answers for both binaries: python -m tests.differential.random_pairs

Draws exchanges from a seed, runs them against the real Envoy and against the subject, and prints
what differs, each difference shrunk to the lines and options that it needs. Exit code 1 when there is
one. Some clients and upstreams speak HTTP/2; besides the listeners here there are six of random_world.py,
others for each hundred exchanges.

    --seed N --count N      which exchanges, and how many (default 1, 500)
    --jobs N                so many batches at once (default 1): most of a run is waiting
    --malformed             heads with several mistakes each, of requests or of answers
    --keep FILE             write the shrunk exchanges as a case file, to start a case from
"""

import argparse
import concurrent.futures
import functools
import json
import random
import sys
import tempfile
from pathlib import Path

import yaml

from tests.harness.proxy import envoy_path, subject_path

from . import casefile, golden, malformed, random_world, runner

BATCH = 120  # exchanges a run of the binaries

RETRY = {"retry_on": "5xx,reset,retriable-4xx", "num_retries": 1,
         "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"}}
CHANGED = {
    "request_headers_to_add": [
        {"header": {"key": "x-path", "value": "%REQ(:PATH)%|%REQ(X-A?X-B):5%|%PROTOCOL%"}},
        {"header": {"key": "x-a", "value": "route"}, "append_action": "ADD_IF_ABSENT"},
        {"header": {"key": "cookie", "value": "r=1"}}],
    "request_headers_to_remove": ["x-b", "accept"],
    "response_headers_to_add": [
        {"header": {"key": "x-code", "value": "%RESPONSE_CODE%/%RESPONSE_FLAGS%"}},
        {"header": {"key": "x-u", "value": "over"}, "append_action": "OVERWRITE_IF_EXISTS"}],
    "response_headers_to_remove": ["x-v"],
}
ROUTES = [
    {"match": {"path": "/direct"}, "direct": [201, "made\n"]},
    {"match": {"prefix": "/gone"}, "redirect": {"path_redirect": "/new", "strip_query": True}},
    {"match": {"prefix": "/host"}, "redirect": {"host_redirect": "r.test", "https_redirect": True}},
    {"match": {"prefix": "/re/"}, "route": {"cluster": "up", "regex_rewrite": {
        "pattern": {"regex": "^/re/([^/]+)/(.*)$"}, "substitution": r"/\2/\1"}}},
    {"match": {"prefix": "/pre"}, "route": {"cluster": "up", "prefix_rewrite": "/after"}},
    {"match": {"prefix": "/changed"}, "route": {"cluster": "up"}, **CHANGED},
    {"match": {"prefix": "/q", "query_parameters": [{"name": "a", "string_match": {"exact": "1"}}]},
     "route": {"cluster": "up", "prefix_rewrite": "/query"}},
    {"match": {"prefix": "/", "headers": [{"name": "x-a", "string_match": {"prefix": "v"}}]},
     "route": {"cluster": "up", "prefix_rewrite": "/header/"}},
    {"match": {"prefix": "/"}, "route": {"cluster": "up", "retry_policy": RETRY}},
]
LISTENERS = {
    "inner": {"routes": ROUTES},
    "edge": {"routes": ROUTES, "hcm": {"use_remote_address": True, "via": "kob",
                                       "server_name": "srv"}},
    "hops": {"routes": ROUTES, "hcm": {
        "use_remote_address": True, "xff_num_trusted_hops": 1, "preserve_external_request_id": True,
        "server_header_transformation": "PASS_THROUGH", "append_x_forwarded_port": True}},
    "paths": {"routes": ROUTES, "hcm": {
        "normalize_path": True, "merge_slashes": True, "strip_any_host_port": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
        "always_set_request_id_in_response": True}},
    "old": {"routes": ROUTES, "hcm": {"http_protocol_options": {
        "accept_http_10": True, "default_host_for_http_10": "old.test"}}},
    "strict": {"routes": ROUTES, "hcm": {
        "http_protocol_options": {"enable_trailers": True},
        "common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER",
                                         "max_headers_count": 12},
        "server_header_transformation": "APPEND_IF_ABSENT", "strip_matching_host_port": True}},
}
CLUSTERS = {"up": {"typed_extension_protocol_options": {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}}}}}}

METHODS = ["GET"] * 6 + ["POST"] * 4 + ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PURGE"]
PATHS = ["/", "/a", "/a/b?c=d&e", "/direct", "/gone/x?y", "/host/x?y", "/re/one/two/three", "/pre",
         "/prefix/x?q", "/changed", "/changed/x?a=1", "/q?a=1&b", "/q?b&a=2", "/q?a=1&a=2", "//a//b",
         "/a/../b", "/a/./b/", "/../..", "/a%2fb%5Cc", "/%61%7e%zz", "/a;b=c/d", "/a b", "/a#frag",
         "/caf\xe9", "/\"<>^`{|}", "*", "", "a", "http://abs.test/x?y", "HTTPS://abs.test", "http://",
         "http://u:p@abs.test:80/", "/" + "l" * 300, "/?" + "q" * 200]
HEADERS = {
    "host": ["h.test", "h.test:80", "H.Test:8080", "[::1]:80", "", "a b", "u@h.test", "h.test:"],
    "connection": ["close", "keep-alive", "Close", "keep-alive, x-a", "x-a,x-b", "te", "upgrade", "",
                   "close, keep-alive", "host", "x-forwarded-for"],
    "te": ["trailers", "gzip", "trailers, deflate", ""],
    "keep-alive": ["timeout=5"], "proxy-connection": ["keep-alive", "close"],
    "upgrade": ["websocket", "h2c", ""], "expect": ["100-continue", "200-ok"],
    "x-forwarded-for": ["1.2.3.4", "1.2.3.4, 10.0.0.1", "10.1.1.1", "", "x", "::1,2001:db8::1", "1.1.1.1:80"],
    "x-forwarded-proto": ["http", "https", "HTTPS", "ftp", "http,https", ""],
    "x-forwarded-host": ["f.test"], "x-forwarded-port": ["99"],
    "x-request-id": ["abc", "12345678-1234-4234-9234-123456789abc", ""],
    "x-envoy-retry-on": ["5xx", "gateway-error,reset", "retriable-status-codes", "nonsense", ""],
    "x-envoy-max-retries": ["0", "2", "x"], "x-envoy-retriable-status-codes": ["418,200", "x"],
    "x-envoy-retriable-header-names": ["x-v", "X-U,x-v"],
    "x-envoy-upstream-rq-timeout-ms": ["9000", "0", "abc", ""],
    "x-envoy-upstream-rq-per-try-timeout-ms": ["8000", "x"],
    "x-envoy-expected-rq-timeout-ms": ["77"], "x-envoy-internal": ["true", "false"],
    "x-envoy-original-path": ["/was"], "x-envoy-attempt-count": ["7"],
    "x-envoy-upstream-rq-timeout-alt-response": ["1"], "x-envoy-decorator-operation": ["op"],
    "x-envoy-downstream-service-cluster": ["dc"], "x-envoy-upstream-alt-stat-name": ["alt"],
    "x-envoy-external-address": ["9.9.9.9"], "x-envoy-force-trace": ["1"],
    "via": ["1.1 me"], "cookie": ["a=1", "b=2; c=3", ""], "accept": ["*/*", "text/html"],
    "authorization": ["Basic eDp5"], "user-agent": ["ua/1", ""], "content-type":
    ["text/plain", "application/grpc", "application/grpc+proto", ""], "grpc-timeout": ["1S", "x"],
    "x-a": ["v1", "other", "", "  padded  ", "a\tb", "\xe9\xff"], "x-b": ["1", "2"], "x_c": ["under"],
    "X-MiXed": ["Case"], "x-long": ["l" * 500], "!#$%&'*+-.^_`|~": ["odd name"], "date": ["then"],
    "server": ["mine"], "trailer": ["x-t"], "content-encoding": ["gzip"], "cache-control": ["no-store"],
}
BROKEN = ["no colon", "x y: z", ": empty name", "x-bell: a\x07b", "x-del: \x7f", " folded", "x-nul: a\0b",
          "x-cr: a\rb", "x-\xe9: name", "x(y): z", "x-space : v"]
STATUSES = ["200 OK"] * 6 + ["201 Created", "202 ", "203 Non-Authoritative \xe9", "206 Partial Content",
            "302 Found", "400 Bad Request", "404 Not Found", "409 Conflict", "418 Teapot",
            "429 Too Many Requests", "500 Internal Server Error", "503 Service Unavailable", "504 Late",
            "599 Odd"]
ANSWER_HEADERS = {
    "server": ["backend"], "date": ["Sun, 06 Nov 1994 08:49:37 GMT", "then"], "x-u": ["1", "2"],
    "x-v": ["a", ""], "set-cookie": ["a=1; Path=/", "b=2"], "via": ["1.1 up"], "location": ["/else", "http://o.test/"],
    "connection": ["close", "keep-alive", "x-u", ""], "keep-alive": ["timeout=5"],
    "proxy-connection": ["x"], "upgrade": ["h2c"], "x-envoy-upstream-service-time": ["99"],
    "x-envoy-ratelimited": ["true"], "x-envoy-degraded": [""], "x-envoy-overloaded": ["true"],
    "x-envoy-immediate-health-check-fail": [""], "x-request-id": ["from-up"], "content-type":
    ["text/plain", "application/grpc"], "grpc-status": ["0", "14"], "etag": ["\"q\""], "vary": ["a", "b"],
    "X-Camel": ["V"], "retry-after": ["1"], "transfer-encoding": ["gzip"], "te": ["x"], "x_under": ["u"],
    "x-pad": ["  both  ", "\xe9"], "cache-control": ["no-cache", "private"], "alt-svc": ["h3=\":1\""],
}
BODIES = ["", "a", "hello\n", "b" * 1000, "c" * 70000]
EXTENSIONS = ["", "", ";e=1", ";q", ';a="b;c"', ";x=y;z"]
INFORMATIONAL = [["100 Continue"], ["103 Early Hints", "link: </a>"], ["103 Early Hints", "X-Early: 1", "link: </b>"],
                 ["102 Processing"]]
TRAILERS = ["x-t: 1", "X-T2: two", "grpc-status: 0", "x_t: under"]


def chunks_of(draw, body):
    """The body as chunk lines, cut somewhere."""
    cut = draw.randrange(len(body) + 1)
    return "".join(f"{len(part):{draw.choice('xX')}}{draw.choice(EXTENSIONS)}\r\n{part}\r\n"
                   for part in (body[:cut], body[cut:]) if part)


def framed(draw, lines, body):
    """Adds framing lines to `lines` and gives the body's bytes and trailer lines."""
    way = draw.choice(["length", "length", "chunked", "trailers"])
    if way == "length":
        lines.append(draw.choice(["content-length", "Content-Length"]) + f": {len(body)}")
        return {"body": body, "plain": body}
    body = body[:100]  # more may come in several reads, and where those end is not compared
    lines.append("transfer-encoding: chunked")
    trailers = draw.sample(TRAILERS, draw.randrange(1, 3)) if way == "trailers" else []
    return {"body": chunks_of(draw, body) + "0\r\n", "plain": body, "trailers": trailers}


def drawn_headers(draw, table, most):
    out = []
    for name in draw.sample(sorted(table), draw.randrange(most + 1)):
        for _ in range(draw.choice([1] * 8 + [2])):
            out.append(f"{name}:{draw.choice([' ', ' ', '', '  '])}{draw.choice(table[name])}")
    return out


def drawn_request(draw):
    lines = drawn_headers(draw, {k: v for k, v in HEADERS.items() if k != "host"}, 9)
    if draw.random() < 0.9:
        lines.insert(draw.randrange(len(lines) + 1), "Host: " + (
            "h.test" if draw.random() < 0.8 else draw.choice(HEADERS["host"])))
    if draw.random() < 0.06:
        lines.insert(draw.randrange(len(lines) + 1), draw.choice(BROKEN))
    method = draw.choice(METHODS)
    if draw.random() < (0.9 if method in ("POST", "PUT", "PATCH") else 0.1):
        rest = framed(draw, lines, draw.choice(BODIES))
    else:
        rest = {"body": "", "plain": ""}
    version = "HTTP/1.1" if draw.random() < 0.94 else draw.choice(["HTTP/1.0", "HTTP/1.2", "http/1.1"])
    target = draw.choice(PATHS[:20] if draw.random() < 0.75 else PATHS)
    return {"first": f"{method} {target} {version}", "lines": lines, **rest}


def drawn_answer(draw):
    lines = drawn_headers(draw, ANSWER_HEADERS, 6)
    lines = [one for one in lines if not one.startswith("transfer-encoding")] \
        if draw.random() < 0.95 else lines
    rest = framed(draw, lines, draw.choice(BODIES))
    draw.shuffle(lines)
    return {"first": "HTTP/1.1 " + draw.choice(STATUSES), "lines": lines, **rest,
            "before": draw.sample(INFORMATIONAL, draw.choice([1, 1, 2])) if draw.random() < 0.1 else []}


def drawn_malformed(seed, n):
    draw = random.Random(f"malformed/{seed}/{n}")
    one = {"name": f"{seed}/{n}", "to": draw.choice(sorted(LISTENERS)), "answers": []}
    if draw.random() < 0.7:
        return {**one, "request": malformed.request(draw)}
    request = {"first": draw.choice(["GET", "HEAD"]) + " / HTTP/1.1", "lines": ["host: h.test"], "body": ""}
    return {**one, "to": "inner", "request": request, "answers": [malformed.answer(draw)]}


@functools.lru_cache(4)
def world_of(seed, batch):
    """The listeners and clusters that the exchanges of a batch share."""
    world = random_world.world(random.Random(f"world/{seed}/{batch}"))
    return {**world, "listeners": {**LISTENERS, **world["listeners"]}}


def drawn(seed, n):
    draw = random.Random(f"{seed}/{n}")
    world = world_of(seed, n // BATCH)
    answers = [drawn_answer(draw) for _ in range(3)] if draw.random() < 0.7 else []
    to = draw.choice(sorted(world["listeners"]))
    return {"name": f"{seed}/{n}", "to": to, "request": drawn_request(draw), "answers": answers, "world": world,
            "h2": draw.random() < 0.4 and not compresses(world["listeners"][to]),
            "impolite": draw.random() < 0.05}


def compresses(listener):
    return any("compressor" in one for one in listener.get("filters", []))


def text_of(message):
    text = "".join("\r\n".join([f"HTTP/1.1 {status}", *lines]) + "\r\n\r\n"
                   for status, *lines in message.get("before", []))
    text += "\r\n".join([message["first"], *message["lines"]]) + "\r\n\r\n" + message["body"]
    if "trailers" in message:
        text += "".join(line + "\r\n" for line in message["trailers"]) + "\r\n"
    return text


def closes(message):
    return any(line.lower().replace(" ", "") == "connection:close" for line in message["lines"])


def upstream_script(one):
    head = one["request"]["first"].startswith("HEAD ")
    out = []
    for answer in one["answers"]:
        text = text_of(answer)
        if head:
            heads = text.split("\r\n\r\n")[:len(answer.get("before", [])) + 1]
            text = "\r\n\r\n".join(heads) + "\r\n\r\n"
        out.append({"raw": text, "then": "close" if closes(answer) else "keep"})
    return out


HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te", "host"}


def fields_of(lines, impolite):
    """Header lines as HTTP/2 has them: names in lower case, nothing of the connection unless impolite."""
    pairs = [line.partition(":")[::2] for line in lines if ":" in line[1:]]
    return [[name if impolite else name.lower(), value.strip(" \t")] for name, value in pairs
            if impolite or name.lower() not in HOP_BY_HOP]


def frames_script(one):
    """The answers as behaviours of an upstream of HTTP/2."""
    def said(verb, status, lines):
        return f"{verb} {json.dumps([[':status', status], *fields_of(lines, one['impolite'])]).encode().hex()}"
    head = one["request"]["first"].startswith("HEAD ")
    out = []
    for answer in one["answers"]:
        steps = [said("said", status.split()[0], lines) for status, *lines in answer.get("before", [])]
        body, trailers = ("", []) if head else (answer["plain"], answer.get("trailers", []))
        steps.append(said("said" if body or trailers else "saidend", answer["first"].split()[1], answer["lines"]))
        if body:
            steps.append(f"bytes {len(body)}" if len(body) > 1000 else f"data {body}")
        if trailers:
            pairs = fields_of(trailers, False)
            steps.append(f"saidend {json.dumps(pairs).encode().hex()}")
        elif body:
            steps.append("end")
        out.append(";".join(steps))
    return out


def h2_steps(one):
    """The request as a client of HTTP/2 makes it, after a polite beginning."""
    request = one["request"]
    method, *target, _ = request["first"].split(" ")
    hosts = [line.partition(":")[2].strip() for line in request["lines"] if line.lower().startswith("host:")]
    target = " ".join(target)
    fields = [[":method", method], [":scheme", "http"], *[[":authority", host] for host in hosts[:1]],
              [":path", target if one["impolite"] or target[:1] in ("/", "*") else "/"],
              *fields_of(request["lines"], one["impolite"])]
    fields = [f"{name}: {value}" for name, value in fields]
    body, trailers = request.get("plain", "")[:1000], request.get("trailers")
    if len(request.get("plain", "")) > 1000:
        fields = [line for line in fields if not line.startswith("content-length")]
    step = {"fields": fields}
    if body or trailers:
        step["body"] = body
    if trailers:
        step["trailers"] = [f"{name}: {value}" for name, value in fields_of(trailers, False)]
    return [{"open": {}}, {"wait": "SETTINGS "}, {"frame": [4, 1, ""]}, step, {"done": 1}]


def exchange_of(one):
    world = one.get("world", {})
    out = {"name": one["name"], "to": one["to"], "upstream": {"up": upstream_script(one)}}
    if "world" in one:
        out["upstream"]["two"] = frames_script(one)
        if compresses(world["listeners"][one["to"]]):
            out["drop_log"] = ["sent"]
    if one.get("h2"):
        return {**out, "h2": h2_steps(one)}
    return {**out, "raw": text_of(one["request"])}


def case_of(exchanges, where):
    world = exchanges[0].get("world") or {"listeners": LISTENERS, "clusters": CLUSTERS}
    spec = {"about": "Drawn from a seed.", "framing": "decoded", **world,
            "exchanges": [exchange_of(one) for one in exchanges]}
    path = Path(where) / "drawn.yaml"
    path.write_text(yaml.safe_dump(spec, allow_unicode=False, width=10000))
    return casefile.load(path)


def differences(exchanges):
    """[(exchange, diff)] of those that differ."""
    with tempfile.TemporaryDirectory(prefix="kb-random-") as where:
        case = case_of(exchanges, where)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            theirs, ours = pool.map(lambda binary: runner.Run(case, binary, {"exchanges": []}).run(),
                                    (envoy_path(), subject_path()))
    if "exit" in theirs:
        if len(exchanges) > 1:
            print(f"the real Envoy ended: {theirs['exit'][:3000]}", flush=True)
        return []
    if "exit" in ours:
        print(f"the subject ended: {ours['exit'][:3000]}", flush=True)
    named = [{e["name"]: {k: v for k, v in e.items()} for e in side["exchanges"]}
             for side in (theirs, ours)]
    out = []
    for one in exchanges:
        diff = golden.diff(named[0].get(one["name"]), named[1].get(one["name"]))
        if diff:
            out.append((one, diff))
    return out


def smaller(one):
    """Every exchange with one thing less."""
    out = []

    def put(key, message):
        out.append({**one, key: message})
    for n in range(len(one["request"]["lines"])):
        lines = one["request"]["lines"]
        put("request", {**one["request"], "lines": lines[:n] + lines[n + 1:]})
    if one["request"]["body"]:
        plain = [x for x in one["request"]["lines"]
                 if not x.lower().startswith(("content-length", "transfer-encoding"))]
        put("request", {"first": one["request"]["first"], "lines": plain, "body": "", "plain": ""})
    if one.get("h2"):
        put("h2", False)
    for n, answer in enumerate(one["answers"]):
        put("answers", one["answers"][:n] + one["answers"][n + 1:])
        if answer.get("before"):
            put("answers", one["answers"][:n] + [{**answer, "before": []}] + one["answers"][n + 1:])
        for m, line in enumerate(answer["lines"]):
            if not line.lower().startswith(("content-length", "transfer-encoding")):
                less = {**answer, "lines": answer["lines"][:m] + answer["lines"][m + 1:]}
                put("answers", one["answers"][:n] + [less] + one["answers"][n + 1:])
    if one["request"]["first"].split(" ")[1] != "/":
        method, *_, version = one["request"]["first"].split(" ")
        put("request", {**one["request"], "first": f"{method} / {version}"})
    return [{**small, "name": f"{one['name']}.{n}"} for n, small in enumerate(out)]


def shrunk(one, diff):
    """The smallest form found in which both still differ."""
    while True:
        found = differences(smaller(one) or [one])
        found = [(small, text) for small, text in found if small != one]
        if not found:
            break
        one, diff = found[-1]
    return narrowed(one, diff) if "world" in one else (one, diff)


def narrowed(one, diff):
    """With as few options of its listener as both still differ with."""
    world = one["world"]
    one = {**one, "world": {**world, "listeners": {one["to"]: world["listeners"][one["to"]]}}}
    tried = set()
    while True:
        for small in less(one["world"]["listeners"][one["to"]]):
            text = json.dumps(small, sort_keys=True)
            if text in tried:
                continue
            tried.add(text)
            smaller_world = {**one, "world": {**one["world"], "listeners": {one["to"]: small}}}
            found = differences([smaller_world])
            if found:
                one, diff = found[0]
                break
        else:
            return one, diff


def less(node):
    """Every form of a configuration with one member less, the large ones first."""
    if isinstance(node, dict):
        for key in node:
            yield {k: v for k, v in node.items() if k != key}
        for key, value in node.items():
            for small in less(value):
                yield {**node, key: small}
    elif isinstance(node, list):
        for n in range(len(node) if len(node) > 1 else 0):
            yield node[:n] + node[n + 1:]
        for n, value in enumerate(node):
            for small in less(value):
                yield node[:n] + [small] + node[n + 1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--malformed", action="store_true")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    kept = []
    draw = drawn_malformed if args.malformed else drawn
    starts = range(args.first, args.first + args.count, BATCH)
    pool = concurrent.futures.ThreadPoolExecutor(args.jobs)

    def batch(start):
        numbers = range(start, min(start + BATCH, args.first + args.count))
        found = differences([draw(args.seed, n) for n in numbers])
        # once more: what was a matter of timing (a body that is refused: eof or rst) is gone
        return differences([one for one, _ in found]) if found else []
    for start, found in zip(starts, pool.map(batch, starts)):
        print(f"{args.seed}/{start} to {min(start + BATCH, args.first + args.count) - 1}: {len(found)} differ", flush=True)
        for one, diff in found:
            small, diff = (one, diff) if args.no_shrink else shrunk(one, diff)
            kept.append(small)
            print(f"== {one['name']} to {small['to']}{' by HTTP/2' if small.get('h2') else ''}\n{text_of(small['request'])!r}")
            for script in upstream_script(small):
                print(f"  answer {script['raw'][:400]!r}")
            if "world" in small:
                print("  " + json.dumps(small["world"]["listeners"][small["to"]]))
            print(diff, flush=True)
    if args.keep and kept:
        with tempfile.TemporaryDirectory() as where:
            case_of(kept[-1:] if "world" in kept[-1] else kept, where)
            args.keep.write_text((Path(where) / "drawn.yaml").read_text())
    print(f"{len(kept)} of {args.count} differ")
    return 1 if kept else 0


if __name__ == "__main__":
    sys.exit(main())
