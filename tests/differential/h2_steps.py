# SPDX-License-Identifier: Apache-2.0
"""The HTTP/2 steps of an exchange (`h2:`), and what its client saw as lines.

Each step is one of these, a frame or several; `stream:` says which, else requests take the next:

get: /path, request: POST /path, fields: ["name: value"]   HEADERS; with the last, nothing is added
    headers: [..], host:, scheme:, body: text, trailers: [..], end: false, pieces: n
data: text          end: false
trailers: [..]      alone, for a stream that was begun before
metadata: [..]      METADATA, of which `end: false` is not the last
rst: code           ping: text     settings: {number: value}     goaway: code     window: n
priority: stream it depends on     frame: [type, flags, payload in hex]
hex: bytes          anything; before the preface when `preface: ""` was said
open: {settings: {}, window: n, preface: text}             before anything else
done: n             wait until n streams of the connection ended or were reset
wait: text          wait until a line of what came begins with it
Any other step is that of HTTP/1 exchanges: conn, seen, release, close, half_close, end, stat...
`later: true` sends it together with the next step.
"""

from tests.harness.h2_client import H2, raw_frame

from . import normal

FRAMES = {"get", "request", "fields", "data", "trailers", "rst", "ping", "settings", "goaway",
          "window", "priority", "frame", "hex", "metadata"}


def pairs(lines, fill):
    """["name: value", ...] as pairs; a name may begin with a colon, a value may be empty."""
    out = []
    for line in lines:
        at = line.index(":", 1)
        out.append((line[:at], fill(line[at + 1:].removeprefix(" "))))
    return out


def lines_filled(lines, filled):
    """With `<<name#: value*3>>` as several lines."""
    return [one for line in lines for one in filled(str(line)).split("\r\n")]


class H2Steps:
    """Plays them on the connections of `steps`, each of which keeps its H2 in `.h2`."""

    def __init__(self, steps, filled):
        self.steps = steps
        self.filled = filled
        self.next = {}

    def fill(self, text):
        return self.filled(self.steps.run.layout.fill(str(text)))

    def client(self, options=None):
        conn = self.steps.conn()
        self.steps.handshake(conn)
        if getattr(conn, "h2", None) is None:
            options = options or {}
            extra = {"preface": options["preface"].encode()} if "preface" in options else {}
            conn.h2 = H2(conn, settings=options.get("settings"), **extra,
                         **({"window": options["window"]} if "window" in options else {}))
            self.next[conn.port] = 1
        return conn.h2

    def play(self, step):
        step = {step: True} if isinstance(step, str) else dict(step)
        if "open" in step:
            self.client(step["open"])
        elif "done" in step:
            self.client().send()
            client = self.client()
            self.steps.wait(self.steps.current, client.conn,
                            lambda seconds: client.wait_done(step["done"], seconds))
        elif "wait" in step:
            self.client().send()
            self.wait_line(self.client(), step["wait"])
        elif FRAMES & set(step):
            client = self.client()
            frames = self.frames(client, step)
            if step.get("later"):
                client.later(frames)
            else:
                client.send(frames)
        else:
            (verb, arg), = step.items()
            getattr(self.steps, "do_" + verb)(arg)

    def wait_line(self, client, text):
        self.steps.wait(self.steps.current, client.conn, lambda seconds: client.wait(
            lambda: any(str(event).startswith(text) for _, event in client.events), seconds))

    def frames(self, client, step):
        if {"get", "request", "fields"} & set(step):
            return self.request(client, step)
        stream = step.get("stream", 1)
        end = step.get("end", True)
        if "data" in step:
            return client.data(stream, self.fill(step["data"]).encode("latin-1"), end)
        if "trailers" in step:
            return client.headers(stream, self.fields(step["trailers"]), end)
        if "metadata" in step:
            return client.metadata(stream, self.fields(step["metadata"]), end)
        if "frame" in step:
            kind, flags, payload = step["frame"]
            return raw_frame(kind, flags, step.get("stream", 0), bytes.fromhex(self.filled(payload)))
        if "hex" in step:
            return bytes.fromhex(step["hex"])
        make = {"rst": lambda code: client.rst(stream, code),
                "ping": lambda text: client.ping(str(text).encode()),
                "settings": client.settings, "goaway": lambda code: client.goaway(code=code),
                "window": lambda n: client.window_update(step.get("stream", 0), n),
                "priority": lambda on: client.priority(stream, on)}
        (verb,) = set(make) & set(step)
        return make[verb](step[verb])

    def fields(self, lines):
        return pairs(lines_filled(lines, self.filled), self.fill)

    def request(self, client, step):
        port = client.conn.port
        stream = step.get("stream", self.next[port])
        self.next[port] = stream + 2
        if "fields" in step:
            fields = self.fields(step["fields"])
        else:
            method, path = ("GET", step["get"]) if "get" in step else step["request"].split(" ", 1)
            fields = client.request_fields(self.fill(path), method, step.get("host", "h.test"),
                                           step.get("scheme", "http"),
                                           self.fields(step.get("headers", [])))
        more = "body" in step or "trailers" in step
        end = step.get("end", not more)
        out = client.headers(stream, fields, end and not more, step.get("pieces", 1),
                             step.get("depends"))
        if "body" in step:
            out += client.data(stream, self.fill(step["body"]).encode("latin-1"),
                               "trailers" not in step and step.get("end", True))
        if "trailers" in step:
            out += client.headers(stream, self.fields(step["trailers"]))
        return out


def view(client, names, address):
    """What came, as lines: "[stream] text". Only the first WINDOW_UPDATE, since later ones are many;
    and behind the SETTINGS, since it races with acknowledgements."""
    lines = client.lines()
    updates = [line for line in lines if line[1].startswith("WINDOW_UPDATE")]
    lines = [line for line in lines if line not in updates]
    first = next((n for n, line in enumerate(lines) if line[1].startswith("SETTINGS ")), None)
    if first is not None:
        lines[first + 1:first + 1] = [line for line in updates if line[0] == 0][:1]
    out = []
    for stream, text, body in lines:
        text = normal.shorten(normal.text_of(text, names, address))
        out.append(f"[{stream}] {text}")
        if body is not None:
            out += [f"[{stream}] | {line}" for line in normal.lines_of(body, names, address)]
    return out
