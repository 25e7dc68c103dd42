#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The app of the examples: a small HTTP/1.1 server that says who it is and what it saw.

usage: app.py NAME PORT
  /flaky   503 to a first attempt, 200 to a second (for the retry; the proxy counts attempts in a header)
  else     200, with the method, the path and the headers that the proxy added
"""

import http.server
import sys


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together
    name = "app"

    def do_GET(self):
        status = 200
        if self.path.startswith("/flaky") and self.headers.get("x-envoy-attempt-count") == "1":
            status = 503
        lines = [f"{self.name}: {self.command} {self.path}"]
        for header in ("x-envoy-attempt-count", "x-forwarded-proto", "x-forwarded-client-cert", "x-demo", "x-request-id"):
            if header in self.headers:
                lines.append(f"  {header}: {self.headers[header]}")
        body = ("\n".join(lines) + "\n").encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Quiet: the proxy's access log is what the demo shows."""


if __name__ == "__main__":
    App.name = sys.argv[1]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), App)
    server.daemon_threads = True
    server.serve_forever()
