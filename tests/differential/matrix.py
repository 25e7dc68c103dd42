# SPDX-License-Identifier: Apache-2.0
"""One scenario over four pairs: clients of HTTP/1 and HTTP/2, upstreams of HTTP/1 and HTTP/2.

A case with `matrix: [up]` has the clusters of these names twice, `up_h1` and `up_h2`, and each listener too,
`main_h1` and `main_h2`, in which `<<up>>` stands for `up_h1` or `up_h2`. Each exchange is made four times; it
says what is meant, and the bytes or frames are made here:

get: /path, request: POST /path, headers: [..], host:
    body: text         with a content-length         chunks: [a, b]     chunks, or DATA frames
    trailers: [..]     behind the chunks             end: false         more `data` follows
websocket: /path, connect: "host:port"               what follows is the tunnel's
data: text, end: false                               another chunk or DATA; raw in a tunnel
trailers: [..]                                       ends a request that was begun with `end: false`
status: 200            wait for a head of that status
wait: text             wait until a piece of a body begins with it
done                   wait for one more complete answer, or reset
reset                  RST_STREAM CANCEL, or a reset connection
only: [h1 h1, h2 h1]   of an exchange: some of the pairs; "h2 *": those of HTTP/2 clients
Any other step is that of other exchanges. Behaviours of upstreams are the words of WORDS, for which both
scripted upstreams do the same; `{h1: [..], h2: [..]}` is what each does.
"""

from tests.harness.config import merged

PAIRS = [("h1", "h1"), ("h1", "h2"), ("h2", "h1"), ("h2", "h2")]
CHUNKED = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
WORDS = {
    "ok": ("ok", "ok"),
    "nolength": ("chunked", "head 200; data hello;data  world; end"),
    "until close": ("noclen", "head 200; data until close\n; end"),
    "empty": ("s200empty", "headend 200 content-length=0"),
    "s204": ("s204", "s204"),
    "s304": ("s304cl", "headend 304 content-length=42"),
    "s205": ({"raw": "HTTP/1.1 205 X\r\ncontent-length: 0\r\n\r\n"}, "headend 205 content-length=0"),
    "trailers": ("trailers", "trailers"),
    "trailers alone": ({"raw": CHUNKED + "0\r\nx-t: tv\r\n\r\n"}, "head 200; trailers x-t=tv"),
    "continue": ("cont100", "cont100"),
    "hints": ("hints103", "hints103"),
    "processing": ("processing102", "head 102; head 200 content-length=3; dataend ok\n"),
    "hints twice": ({"raw": "HTTP/1.1 103 X\r\nlink: </a>\r\n\r\nHTTP/1.1 103 X\r\nlink: </b>\r\n\r\n"
                            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"},
                    "head 103 link=</a>; head 103 link=</b>; headend 200 content-length=0"),
    "early": ({"raw": "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n", "early": True},
              "early; head 200 content-length=3; dataend ok\n"),
    "early 413": ("early413", "early; head 413 content-length=3; dataend no\n"),
    "hang": ("hang", "hang"),
    "hold": ("hold", "holdok"),
    "mid hold": ("midhold", "head 200 content-length=6; data abc; hold; dataend def"),
    "mid hang": ("midhang", "head 200 content-length=100; data abc"),
    "close": ("close", "close"),
    "reset": ("rst", "rst 2"),
    "refused": ("rst", "rst 7"),
    "cut": ("midclose", "head 200 content-length=100; data abc; close"),
    "cut without length": ("chunkclose", "head 200; data hello; close"),
    "mid reset": ("midclose", "head 200 content-length=100; data abc; rst 2"),
    "gRPC": ({"raw": "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n"
                     "3\r\nabc\r\n0\r\ngrpc-status: 0\r\n\r\n"}, "grpc"),
    "gRPC alone": ("grpc14", "headend 200 content-type=application/grpc grpc-status=14 content-length=0"),
    "gRPC late": ({"raw": "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n"
                          "0\r\ngrpc-status: 14\r\n\r\n"},
                  "head 200 content-type=application/grpc; trailers grpc-status=14"),
    "many headers": ("nhdr:90", "head 200 content-length=3 "
                     + " ".join(f"x-h{i}=1" for i in range(90)) + "; dataend ok\n"),
    "too many headers": ("nhdr:120", "manyhead 120"),
    "big header": ("bighdr:70000", "bighead 70000"),
    "hop by hop": ("hop", "head 200 content-length=3 connection=keep-alive; dataend ok\n"),
    "websocket": ({"raw": ["HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
                           "hello"], "then": "hang"}, "early; head 200; data hello"),
    "websocket ends": ({"raw": ["HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n"
                                "connection: upgrade\r\n\r\n", "bye"], "then": "close"},
                       "early; head 200; data bye; end"),
    "websocket no": ("s403", "early; head 403 content-length=5; dataend s403\n"),
    "tunnel": ({"raw": ["HTTP/1.1 200 OK\r\n\r\n", "hello"], "then": "hang", "early": True},
               "early; head 200; data hello"),
    "tunnel ends": ({"raw": ["HTTP/1.1 200 OK\r\n\r\n", "bye"], "then": "close", "early": True},
                    "early; head 200; data bye; end"),
    "tunnel no": ("s403", "early; head 403 content-length=5; dataend s403\n"),
}
MESSAGE = {"get", "request", "websocket", "connect", "data", "trailers"}


def both(word):
    """What the two upstreams do for one word of a script."""
    if word in WORDS:
        one, two = WORDS[word]
        if one == "s200empty":
            one = {"raw": "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"}
        return {"h1": one, "h2": two}
    kind, _, arg = word.partition(":")
    if kind == "bytes":
        return {"h1": word, "h2": f"head 200 content-length={arg}; bytes {arg}; end"}
    if kind == "hdr":
        name, _, value = arg.strip().partition(": ")
        return {"h1": word, "h2": f"head 200 content-length=3 {name}={value.replace(' ', '_')}; dataend ok\n"}
    if kind == "to":
        return {"h1": {"raw": f"HTTP/1.1 302 Found\r\nlocation: {arg}\r\ncontent-length: 0\r\n\r\n"},
                "h2": f"headend 302 location={arg} content-length=0"}
    if word[0] == "s" and word[1:].isdigit():
        return {"h1": word, "h2": f"head {word[1:]} content-length=5; dataend {word}\n"}
    raise ValueError(f"matrix: unknown behaviour {word!r}; known: {', '.join(WORDS)}, sNNN, bytes:N, "
                     "hdr:NAME: VALUE, to:LOCATION")


def expanded(spec):
    """The case as it is without `matrix:`."""
    names = spec["matrix"]
    out = {k: v for k, v in spec.items() if k != "matrix"}
    out["clusters"], out["upstreams"] = {}, dict(spec.get("upstreams") or {})
    for name, one in spec["clusters"].items():
        if name not in names:
            out["clusters"][name] = one
            continue
        one = one or {}
        old = {k: v for k, v in one.items() if k != "http2"}
        if "http" in old:
            old = merged(old, {"http": {"explicit_http_config": {"http_protocol_options": {}}}})
        out["clusters"][f"{name}_h1"] = old
        out["clusters"][f"{name}_h2"] = merged(one, {"http2": one.get("http2", {})})
        out["upstreams"][f"{name}_h2"] = merged({"mode": "h2"}, out["upstreams"].pop(f"{name}_h2", {}))
    out["listeners"] = {f"{name}_{to}": named(names, to, one)
                        for name, one in spec["listeners"].items() for to in ("h1", "h2")}
    first = next(iter(spec["listeners"]))
    out["exchanges"] = [pair(names, first, client, to, one) for client, to in PAIRS
                        for one in spec["exchanges"] if wanted(one, client, to)]
    return out


def wanted(one, client, to):
    return any((a in (client, "*")) and (b in (to, "*"))
               for a, b in (text.split() for text in one.get("only", ["* *"])))


def named(names, to, node):
    """`<<up>>` replaced everywhere by the cluster of that protocol."""
    if isinstance(node, dict):
        return {named(names, to, k): named(names, to, v) for k, v in node.items()}
    if isinstance(node, list):
        return [named(names, to, v) for v in node]
    for name in names if isinstance(node, str) else ():
        node = node.replace(f"<<{name}>>", f"{name}_{to}")
    return node


def pair(names, first, client, to, one):
    """One exchange for one pair."""
    one = named(names, to, one)
    out = {k: v for k, v in one.items() if k in ("each", "repeat", "allow", "drop_log")}
    out["name"] = f"{client} to {to}: {one['name']}"
    out["to"] = f"{one.get('to', first)}_{to}"
    script = one.get("upstream", [])
    if isinstance(script, dict):
        script = script[to]
    else:
        script = [{"word": word, "to": to} for word in ([script] if isinstance(script, str) else script)]
    out["upstream"] = {f"{names[0]}_{to}": script}
    steps = one.get("steps") or [{k: v for k, v in one.items() if k in
                                  ("get", "request", "headers", "host", "body", "chunks", "trailers", "end")},
                                 "done"]
    made = (H1 if client == "h1" else Frames)().steps(steps)
    out["steps" if client == "h1" else "h2"] = made
    return out


def scripts(spec):
    """The exchange with the words of its scripts looked up, now that the marks in them are replaced."""
    script = spec.get("upstream")
    if not isinstance(script, dict) or "raw" in script:
        return spec
    return {**spec, "upstream": {
        name: [both(w["word"])[w["to"]] if isinstance(w, dict) and "word" in w else w for w in words]
        if isinstance(words, list) else words for name, words in script.items()}}


class H1:
    """The steps of a HTTP/1 client."""

    def __init__(self):
        self.chunked = self.tunnel = False

    def steps(self, steps):
        return [made for step in steps for made in self.step(step)]

    def step(self, step):
        step = {step: True} if isinstance(step, str) else step
        if MESSAGE & set(step):
            return [{"raw": self.message(step)}] if not self.half_closes(step) else \
                [{"raw": step["data"]}, "half_close"]
        if "done" in step:
            return [{"response": 1}]
        if "status" in step:
            return [{"text": f"HTTP/1.1 {step['status']}"}]
        if "wait" in step:
            return [{"text": step["wait"]}]
        return [step]

    def half_closes(self, step):
        return self.tunnel and "data" in step and step.get("end", True)

    def message(self, step):
        if "data" in step:
            end = "0\r\n\r\n" if step.get("end", True) else ""
            return step["data"] if self.tunnel else chunk(step["data"]) + end
        if set(step) == {"trailers"}:
            return ending(step["trailers"])
        return self.request(step)

    def request(self, step):
        line = step.get("request") or f"GET {step.get('get') or step.get('websocket')}"
        host = step.get("host", "h.test")
        lines = step.get("headers", [])
        if "connect" in step:
            line, host = f"CONNECT {step['connect']}", step["connect"]
        if "websocket" in step:
            lines = ["connection: upgrade", "upgrade: websocket", *lines]
        self.tunnel = "connect" in step or "websocket" in step
        self.chunked = bool({"chunks", "trailers"} & set(step)) or \
            step.get("end") is False and not self.tunnel
        head = [f"{line} HTTP/1.1", f"host: {host}", *lines]
        if self.chunked:
            head.append("transfer-encoding: chunked")
        elif "body" in step:
            head.append(f"content-length: {length(step['body'])}")
        body = step.get("body", "")
        if self.chunked:
            pieces = step.get("chunks", [body] if body else [])
            body = "".join(chunk(piece) for piece in pieces)
            body += ending(step.get("trailers", [])) if step.get("end", True) else ""
        return "\r\n".join(head) + "\r\n\r\n" + body


class Frames:
    """The steps of a HTTP/2 client, which has one stream after the other."""

    def __init__(self):
        self.stream, self.ended = -1, 0

    def steps(self, steps):
        """Begins as clients do that are polite: the settings hold once they are acknowledged."""
        begin = [{"open": {}}, {"wait": "SETTINGS "}, {"frame": [4, 1, ""]}]
        return begin + [made for step in steps for made in self.step(step)]

    def step(self, step):
        step = {step: True} if isinstance(step, str) else step
        if {"get", "request"} & set(step):
            return self.request(step)
        if "websocket" in step or "connect" in step:
            self.stream += 2
            fields = [":method: CONNECT", f":authority: {step.get('connect', 'h.test')}"]
            if "websocket" in step:
                fields += [":protocol: websocket", f":path: {step['websocket']}", ":scheme: http"]
            return [{"fields": fields + step.get("headers", []), "end": False}]
        if {"data", "trailers"} & set(step):
            return [{"stream": self.stream, **step}]
        if "done" in step:
            self.ended += 1
            return [{"done": self.ended}]
        if "status" in step:
            return [{"wait": f"  :status: {step['status']}"}]
        if "wait" in step:
            return [{"wait": f"b'{step['wait']}"}]
        if "reset" in step:
            return [{"rst": 8, "stream": self.stream}]
        return [step]

    def request(self, step):
        self.stream += 2
        out = {k: v for k, v in step.items() if k in ("get", "request", "headers", "host", "body", "end")}
        if "body" in step and step.get("end", True) and "trailers" not in step:
            out["headers"] = [*step.get("headers", []), f"content-length: {length(step['body'])}"]
        pieces = step.get("chunks", [])
        if not pieces:
            return [{**out, **({"trailers": step["trailers"]} if "trailers" in step else {})}]
        last = step.get("end", True) and "trailers" not in step
        made = [{**out, "end": False}] + [
            {"data": piece, "stream": self.stream, "end": last and n == len(pieces) - 1}
            for n, piece in enumerate(pieces)]
        if "trailers" in step:
            made.append({"trailers": step["trailers"], "stream": self.stream})
        return made


def length(text):
    from .casefile import filled  # pylint: disable=import-outside-toplevel,cyclic-import
    return len(filled(text))


def chunk(text):
    return f"{length(text):x}\r\n{text}\r\n" if text else ""


def ending(trailers):
    return "0\r\n" + "".join(f"{line}\r\n" for line in trailers) + "\r\n"
