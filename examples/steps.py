# SPDX-License-Identifier: Apache-2.0
"""What the examples' scripts have in common: steps that are said, shown and checked, programs that
are started, waited for and ended, and ports that may be taken."""

import argparse
import http.client
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

EXAMPLES = pathlib.Path(__file__).resolve().parent
WAIT_SECONDS = 20


class Failed(Exception):
    """A step did not go as described; the text is what was expected, and what came."""


def colour(code, text):
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() else text


class Steps:
    """One run of an example. A subclass has `name`, `ports` ({name: the port of its files}) and run()."""

    name = ""
    ports = {}

    def __init__(self, proxy, folder):
        self.proxy, self.folder = proxy, pathlib.Path(folder)
        self.program = "envoy" if pathlib.Path(proxy).name == "envoy" else "kobune"
        self.processes = {}
        self.step = 0
        self.usual = dict(self.ports)
        self.ports = self.choose_ports()

    def choose_ports(self):
        """The ports of the files where they are free, others where not."""
        chosen, held = {}, []
        for name, wanted in self.usual.items():
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

    def with_ports(self, text):
        """A configuration's text with the ports of this run ("port_value: N" stands before a blank or a line's end)."""
        for name, port in self.usual.items():
            for end in (" ", "\n", ",", "}"):
                text = text.replace(f"port_value: {port}{end}", f"port_value: {self.ports[name]}{end}")
        return text

    def say(self, title, text=""):
        self.step += 1
        print("\n" + colour("1", f"{self.step}. {title}"))
        if text:
            print(text)

    def show(self, text, limit=14):
        lines = text.rstrip("\n").split("\n")
        for line in lines[:limit]:
            print(colour("36", "   | " + line), flush=True)
        if len(lines) > limit:
            print(colour("36", f"   | ... {len(lines) - limit} more lines"))

    def command(self, text):
        print(colour("32", "   $ " + text))

    def expect(self, condition, what):
        if not condition:
            raise Failed(what)

    def start(self, name, argv, cwd=None):
        log = self.folder / f"{name}.log"
        with open(log, "wb") as out:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=cwd)
        process.log = log
        self.processes[name] = process
        return process

    def start_app(self, name):
        """The small app of the front proxy, which says who it is and what it saw."""
        app = self.start(name, [sys.executable, str(EXAMPLES / "front_proxy" / "app.py"), name, str(self.ports[name])])
        self.wait(name, lambda: self.request(name, "/", quiet=True)[0] == 200, app)
        self.show(f"{name} listens on 127.0.0.1:{self.ports[name]}")

    def start_proxy(self, name, config, admin, shown=None, cwd=None):
        """The proxy with this file, until its admin says that it is ready."""
        argv = [self.proxy, "-c", str(config), "--concurrency", "2", "-l", "warning", "--file-flush-interval-msec", "100"]
        if self.program == "envoy":
            argv.append("--disable-hot-restart")
        self.command(f"{self.program} -c {shown or config} --concurrency 2 -l warning")
        began = time.monotonic()
        server = self.start(name, argv, cwd)
        self.wait("/ready", lambda: self.request(admin, "/ready", quiet=True)[0] == 200, server)
        self.show(f"ready after {(time.monotonic() - began) * 1000:.0f} ms, as GET /ready of its admin says")
        return server

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
            self.command(f"curl -si {'-X POST ' if method == 'POST' else ''}http://127.0.0.1:{port}{path}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()
        finally:
            connection.close()

    def stats(self, admin, pattern):
        """Counters and gauges by a regular expression: {name: value}."""
        _, _, body = self.request(admin, f"/stats?filter={pattern}", quiet=True)
        return {name: int(value) for name, _, value in (line.partition(": ") for line in body.splitlines()) if value.isdigit()}

    def keep(self, text, process):
        print("\n" + colour("1", "Everything keeps running") + f": {text}; Ctrl-C ends it.", flush=True)
        try:
            process.wait()
        except KeyboardInterrupt:
            print()

    def end_proxy(self, name, admin):
        """Through its admin, as one would in a pod."""
        server = self.processes[name]
        if server.poll() is None:
            self.request(admin, "/quitquitquit", method="POST")
        code = server.wait(WAIT_SECONDS)
        self.show(f"{name} ended with {code}")
        self.expect(code == 0, f"exit code 0, got {code}")

    def kill(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main(steps, description):
    """Runs a subclass of Steps; the exit code."""
    parser = argparse.ArgumentParser(prog=f"examples/{steps.name}/run.py", description=description.split("\n")[0])
    parser.add_argument("--proxy", required=True, help="the binary: build/release/kobune, or that of Envoy to compare")
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    parser.add_argument("--folder", help="where files go that are made (a temporary folder)")
    options = parser.parse_args()
    if not os.access(options.proxy, os.X_OK):
        print(f"{steps.name}: no program at {options.proxy}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix=f"kobune-{steps.name}-") as folder:
        if options.folder:
            os.makedirs(options.folder, exist_ok=True)
        run = steps(os.path.abspath(options.proxy), os.path.abspath(options.folder or folder))
        try:
            run.run(options.keep)
        except Failed as reason:
            print(f"\n{steps.name}: step {run.step} is not as described: expected {reason}")
            return 1
        finally:
            run.kill()
    print(f"\n{steps.name}: every step went as described")
    return 0
