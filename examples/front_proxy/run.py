#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An app, the proxy in front of it, and what one sees from outside.

Every step says what it does, does it, shows what came back and checks it; the first one that is not as
described ends the demo with exit code 1. `--keep` leaves everything running to play with.
"""

import argparse
import http.client
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PORTS = {"listener": 10000, "admin": 9901, "app-1": 8001, "app-2": 8002, "nobody": 8003}
WAIT_SECONDS = 20


class Failed(Exception):
    pass


def colour(code, text):
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() else text


class Demo:
    def __init__(self, proxy, name, folder):
        self.proxy, self.name, self.folder = proxy, name, folder
        self.processes = []
        self.step = 0
        self.ports = self.choose_ports()

    @staticmethod
    def choose_ports():
        """The ports of proxy.yaml where they are free, others where not."""
        chosen, held = {}, []
        for name, wanted in PORTS.items():
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", wanted))
            except OSError:
                s.bind(("127.0.0.1", 0))
            held.append(s)
            chosen[name] = s.getsockname()[1]
        for s in held:
            s.close()
        return chosen

    def say(self, title, text=""):
        self.step += 1
        print("\n" + colour("1", f"{self.step}. {title}"))
        if text:
            print(text)

    def show(self, text, limit=14):
        lines = text.rstrip("\n").split("\n")
        for line in lines[:limit]:
            print(colour("36", "   | " + line))
        if len(lines) > limit:
            print(colour("36", f"   | ... {len(lines) - limit} more lines"))

    def expect(self, condition, what):
        if not condition:
            raise Failed(what)

    def start(self, name, argv):
        log = self.folder / f"{name}.log"
        with open(log, "wb") as out:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        process.log = log
        self.processes.append(process)
        return process

    def wait(self, what, condition, process):
        """Until condition() is true; OSError counts as not yet."""
        limit = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < limit:
            if process.poll() is not None:
                raise Failed(f"it ended with {process.returncode}:\n{process.log.read_text(errors='replace')}")
            try:
                if condition():
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.01)
        raise Failed(f"{what}: not so after {WAIT_SECONDS} s")

    def request(self, where, path, method="GET", quiet=False):
        """(status, headers, body); shown as the curl command that does the same."""
        port = self.ports[where]
        if not quiet:
            post = "-X POST " if method == "POST" else ""
            print(colour("32", f"   $ curl -si {post}http://127.0.0.1:{port}{path}"))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()
        finally:
            connection.close()

    def run(self):
        self.start_all()
        self.requests()
        self.retry()
        self.failure()
        self.admin()
        self.metrics()
        self.mistake()

    def start_all(self):
        self.say("Two copies of a small app", "They say who they are and what they saw (app.py).")
        for name in ("app-1", "app-2"):
            app = self.start(name, [sys.executable, str(HERE / "app.py"), name, str(self.ports[name])])
            self.wait(name, lambda name=name: self.request(name, "/", quiet=True)[0] == 200, app)
            self.show(f"{name} listens on 127.0.0.1:{self.ports[name]}")
        self.say(f"{self.name} in front of them", "The configuration is an ordinary Envoy v3 file: examples/front_proxy/proxy.yaml.")
        text = (HERE / "proxy.yaml").read_text()
        for name, port in PORTS.items():
            text = text.replace(f"port_value: {port} ", f"port_value: {self.ports[name]} ")
            if self.ports[name] != port:
                print(f"   (port {port} is taken here: {self.ports[name]} stands in for it)")
        config = self.folder / "proxy.yaml"
        config.write_text(text)
        argv = [self.proxy, "-c", str(config), "--concurrency", "2", "-l", "warning", "--file-flush-interval-msec", "100"]
        if self.name == "envoy":
            argv.append("--disable-hot-restart")
        print(colour("32", f"   $ {self.name} -c examples/front_proxy/proxy.yaml --concurrency 2 -l warning"))
        began = time.monotonic()
        self.server = self.start("proxy", argv)
        self.wait("/ready", lambda: self.request("admin", "/ready", quiet=True)[0] == 200, self.server)
        self.show(f"ready after {(time.monotonic() - began) * 1000:.0f} ms, as GET /ready of its admin says")

    def requests(self):
        self.say("Requests go to both copies in turn", "/app is rewritten to /; the proxy adds x-request-id, x-forwarded-proto and x-demo.")
        names = set()
        for _ in range(4):
            status, _, body = self.request("listener", "/app")
            self.show(body)
            self.expect(status == 200 and "x-demo: added for 127.0.0.1" in body, f"a 200 with x-demo, got {status} {body}")
            names.add(body.split(":")[0])
        self.expect(names == {"app-1", "app-2"}, f"answers of both copies, got {names}")
        self.say("Some answers need no app", "A direct response, a redirect, and a path that no route takes.")
        for path, expected in (("/hello", 200), ("/old/shoes", 301), ("/no-such-path", 404)):
            status, headers, body = self.request("listener", path)
            self.show("\n".join([str(status)] + [f"{k}: {v}" for k, v in headers.items() if k == "location"] + ([body] if body else [])))
            self.expect(status == expected, f"{expected} for {path}, got {status}")

    def retry(self):
        self.say(
            "A retry",
            "/flaky answers 503 to the first attempt. retry_on: 5xx makes the proxy try again, so the client\n"
            "sees a 200, and x-envoy-attempt-count says that it took two attempts.",
        )
        status, headers, body = self.request("listener", "/flaky")
        self.show(f"{status}\nx-envoy-attempt-count: {headers.get('x-envoy-attempt-count')}\n\n{body}")
        attempts = headers.get("x-envoy-attempt-count", "")
        self.expect(status == 200 and attempts == "2", f"a 200 after two attempts, got {status} after {attempts}")

    def failure(self):
        self.say("An upstream that is not there", "The client gets Envoy's words for it, with a 503 of the proxy's own.")
        status, _, body = self.request("listener", "/broken")
        self.show(f"{status}\n{body}")
        self.expect(status == 503 and "upstream connect error" in body, f"a 503 with the reason, got {status} {body}")
        wanted = "GET /broken -> 503 flags=UF"
        print("   The access log tells the two kinds of 5xx apart: UF, upstream connection failure.")
        self.wait("access log", lambda: wanted in self.server.log.read_text(), self.server)
        self.show("\n".join(line for line in self.server.log.read_text().split("\n") if line.startswith("GET ")))

    def admin(self):
        self.say("The admin", "Envoy's pages, under Envoy's paths.")
        _, _, body = self.request("admin", "/clusters")
        picked = [line for line in body.split("\n") if re.match(r"app::127.0.0.1:\d+::(rq_total|rq_error|cx_total|health_flags)", line)]
        self.show("\n".join(picked))
        self.expect(len(picked) == 8, f"two hosts in /clusters, got {body[:400]}")
        _, _, body = self.request("admin", "/listeners")
        self.show(body)
        self.expect(body.startswith("ingress::127.0.0.1:"), f"the listener, got {body}")
        _, _, body = self.request("admin", "/stats?filter=cluster.app.upstream_rq_(retry|total|2xx|503)$")
        self.show(body)
        self.expect("cluster.app.upstream_rq_retry: " in body, f"the retry counted, got {body}")

    def metrics(self):
        self.say("Metrics for Prometheus", "Names, types and labels are Envoy's, so dashboards made for it work.")
        _, _, body = self.request("admin", "/stats/prometheus")
        picked = [
            line for line in body.split("\n")
            if re.search(r"envoy_http_downstream_rq_xx\{.*ingress|envoy_cluster_upstream_rq_xx\{.*\"app\"|envoy_cluster_upstream_rq_retry\{.*\"app\"", line)
        ]
        self.show("\n".join(picked))
        self.expect(any("envoy_cluster_upstream_rq_retry{" in line for line in picked), "the retry counter among the metrics")

    def mistake(self):
        self.say("A mistake in the configuration", "One letter missing: 'prefix_rewrit'. --mode validate says so; nothing is started.")
        broken = self.folder / "broken.yaml"
        broken.write_text((self.folder / "proxy.yaml").read_text().replace("cluster: app, prefix_rewrite:", "cluster: app, prefix_rewrit:"))
        print(colour("32", f"   $ {self.name} --mode validate -c broken.yaml; echo $?"))
        done = subprocess.run([self.proxy, "--mode", "validate", "-c", str(broken)], capture_output=True, text=True, check=False)
        output = (done.stdout + done.stderr).replace(str(broken), "broken.yaml")
        self.show("\n".join(line for line in output.split("\n") if "prefix_rewrit" in line or self.name != "envoy") + f"\n{done.returncode}", 10)
        self.expect(done.returncode == 1 and "prefix_rewrit" in output, f"exit code 1 and the field's name, got {done.returncode}")

    def keep(self):
        self.say("Everything keeps running", f"proxy 127.0.0.1:{self.ports['listener']}, admin 127.0.0.1:{self.ports['admin']}; Ctrl-C ends it.")
        try:
            self.server.wait()
        except KeyboardInterrupt:
            print()

    def end(self):
        """The proxy through its admin, as one would in a pod; then the apps."""
        self.say("The end", "POST /quitquitquit asks the proxy to go.")
        status, _, body = self.request("admin", "/quitquitquit", method="POST")
        self.show(body)
        self.expect(status == 200, f"200, got {status}")
        code = self.server.wait(WAIT_SECONDS)
        self.show(f"the proxy ended with {code}")
        self.expect(code == 0, f"exit code 0, got {code}")

    def kill(self):
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main():
    parser = argparse.ArgumentParser(prog="examples/front_proxy/run.py", description=__doc__.split("\n")[0])
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    parser.add_argument("--proxy", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not os.access(options.proxy, os.X_OK):
        sys.exit(f"front_proxy: no program at {options.proxy}")
    name = "envoy" if pathlib.Path(options.proxy).name == "envoy" else "kobune"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="kobune-front-proxy-") as folder:
        demo = Demo(options.proxy, name, pathlib.Path(folder))
        try:
            demo.run()
            if options.keep:
                demo.keep()
            if demo.server.poll() is None:
                demo.end()
        except Failed as reason:
            print(f"\nfront_proxy: step {demo.step} is not as described: expected {reason}")
            return 1
        finally:
            demo.kill()
    print("\nfront_proxy: every step went as described")
    return 0


if __name__ == "__main__":
    sys.exit(main())
