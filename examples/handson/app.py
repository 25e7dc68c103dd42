#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The app of the hands-on: a page in the colour of its version. It knows nothing of the mesh.

usage: app.py --colour COLOUR [--name NAME] [--port PORT]
  /              the page; it asks for /colour by itself and shows who answered
  /colour        {"colour", "name"} as JSON
  /headers       the request's headers as JSON, as the app got them
  /status/N      an answer with this status
  /delay/SEC     an answer after this many seconds (at most 30)
  /healthz       200
Every answer says in x-colour and x-pod who gave it.
"""

import argparse
import http.server
import json
import socketserver
import time

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>hands-on</title><link rel="icon" href="data:,"><style>
body {{ margin: 0; font: 1.1rem/1.5 system-ui, sans-serif; color: #fff; background: {shade}; transition: background .3s; }}
main {{ max-width: 46rem; margin: 8vh auto; padding: 0 1rem; }}
h1 {{ font-size: 3.4rem; margin: 0; }}
#last {{ display: flex; flex-wrap: wrap; gap: 3px; margin: 1.2rem 0; }}
#last i {{ width: 15px; height: 15px; border-radius: 3px; background: #fff; }}
table {{ border-collapse: collapse; }} td {{ padding: .1rem 1.2rem .1rem 0; }}
td:nth-child(n+2) {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style></head><body><main>
<h1 id="colour">{colour}</h1>
<p>answered by <b id="pod">{name}</b>, asked again four times a second; each square is one answer.</p>
<div id="last"></div>
<table id="shares"></table>
<script>
const shade = {{ blue: "#1f5fbf", green: "#187640", grey: "#555" }}, last = [];
function show() {{
  const box = document.getElementById("last");
  box.replaceChildren(...last.map(one => {{
    const square = document.createElement("i");
    square.style.background = shade[one] || "#c22";
    square.style.outline = "1px solid #fff8";
    square.title = one;
    return square;
  }}));
  const table = document.getElementById("shares"), kinds = [...new Set(last)].sort();
  table.replaceChildren(...kinds.map(kind => {{
    const row = table.ownerDocument.createElement("tr"), of = last.filter(one => one === kind).length;
    for (const text of [kind, of, Math.round(100 * of / last.length) + " %"])
      row.appendChild(document.createElement("td")).textContent = text;
    row.dataset.kind = kind;
    return row;
  }}));
}}
async function ask() {{
  let kind;
  try {{
    const answer = await fetch("/colour", {{ cache: "no-store" }});
    kind = answer.ok ? (await answer.json()) : {{ colour: "status " + answer.status }};
  }} catch (error) {{ kind = {{ colour: "no answer" }}; }}
  last.push(kind.colour);
  if (last.length > 120) last.shift();
  if (kind.name) {{
    document.body.style.background = shade[kind.colour] || "#555";
    document.getElementById("colour").textContent = kind.colour;
    document.getElementById("pod").textContent = kind.name;
  }}
  show();
}}
setInterval(ask, 250);
ask();
</script></main></body></html>
"""
SHADES = {"blue": "#1f5fbf", "green": "#187640"}


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one write
    disable_nagle_algorithm = True
    colour = name = ""

    def answer(self, status, kind, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-colour", self.colour)
        self.send_header("x-pod", self.name)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def do_GET(self):
        first, _, rest = self.path.split("?")[0].lstrip("/").partition("/")
        plain = "text/plain; charset=utf-8"
        if first == "healthz":
            self.answer(200, plain, "ok\n")
        elif first == "colour":
            self.answer(200, "application/json", json.dumps({"colour": self.colour, "name": self.name}))
        elif first == "headers":
            seen = {name.lower(): value for name, value in self.headers.items()}
            self.answer(200, "application/json", json.dumps({"path": self.path, "headers": seen}, indent=1))
        elif first == "status" and rest.isdigit() and 200 <= int(rest) <= 599:
            self.answer(int(rest), plain, f"{self.name} answers {rest}\n")
        elif first == "delay":
            self.delay(rest)
        elif first in ("", "index.html"):
            page = PAGE.format(colour=self.colour, name=self.name, shade=SHADES.get(self.colour, "#555"))
            self.answer(200, "text/html; charset=utf-8", page)
        else:
            self.answer(404, plain, f"{self.name}: there is nothing at {self.path}\n")

    do_HEAD = do_GET

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.do_GET()

    def delay(self, text):
        try:
            seconds = min(max(float(text), 0), 30)
        except ValueError:
            self.answer(400, "text/plain", f"'{text}' is no number of seconds\n")
            return
        time.sleep(seconds)
        self.answer(200, "text/plain", f"{self.name} took {seconds} s\n")

    def log_message(self, *_):
        """Quiet: the sidecars' access logs say what came."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self):
        socketserver.TCPServer.server_bind(self)  # without a look-up of its own name: there may be no name server
        self.server_name, self.server_port = self.server_address[:2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--colour", default="grey")
    parser.add_argument("--name", default="app")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    App.colour, App.name = arguments.colour, arguments.name
    Server(("0.0.0.0", arguments.port), App).serve_forever()


if __name__ == "__main__":
    main()
