# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a subject with its upstreams, ended cleanly and with nothing left over."""

import pytest

from tests.harness import Layout, Proxy, bootstrap, subject_path
from tests.harness.client import Connection
from tests.harness.proxy import sanitizer_env
from tests.harness.upstream import wait_until


@pytest.fixture(scope="session")
def binary():
    path = subject_path()
    if path is None:
        pytest.fail("no kobune binary: ./dev build, or set KOBUNE_BIN")
    return path


@pytest.fixture
def memory_measured(monkeypatch):
    """AddressSanitizer keeps what was released for a while: little of it where memory is measured."""
    options = sanitizer_env()["ASAN_OPTIONS"]
    monkeypatch.setenv("ASAN_OPTIONS", options + ":quarantine_size_mb=1"
                       ":thread_local_quarantine_size_kb=64")


class Rig:
    """A running subject and all that belongs to it."""

    def __init__(self, binary, spec, **options):
        self.config = bootstrap(spec)
        self.layout = Layout(self.config, spec.get("upstreams"))
        self.connections = []
        self.proxy = Proxy(binary, self._resolved, start=False, **options)
        self.proxy.start()
        self.proxy.wait_ready()

    def _resolved(self, scratch):
        return self.layout.resolved(log=str(scratch / "access.log"), dir=str(scratch))

    @property
    def upstreams(self):
        return self.layout.upstreams

    @property
    def up(self):
        return self.layout.upstreams["up"]

    def port(self, name="main"):
        return self.layout.numbers[name]

    def connect(self, name="main"):
        conn = Connection(self.port(name))
        self.connections.append(conn)
        return conn

    def get(self, path="/", name="main", headers=(), conn=None):
        """One GET; gives the connection back, its answer in `received`."""
        conn = conn or self.connect(name)
        lines = [f"GET {path} HTTP/1.1", "host: h.test", *headers, "", ""]
        conn.send("\r\n".join(lines).encode("latin-1"), ["GET"])
        before = conn.done
        assert conn.wait_responses(before + 1), f"no answer to GET {path}: {conn.received[-300:]!r}"
        return conn

    def at_rest(self):
        active = self.proxy.active()
        pool = sum(v for k, v in active.items() if k.endswith("upstream_cx_active"))
        busy = [k for k in active if not k.endswith("upstream_cx_active")]
        return not busy and pool == sum(u.live_count() for u in self.upstreams.values())

    def finish(self):
        """Close the clients, wait until the gauges say that nothing is left, end by SIGTERM."""
        for conn in self.connections:
            conn.close()
        if self.proxy.process.poll() is None:
            try:
                wait_until(self.at_rest, "rest of all connections")
            except AssertionError as error:
                raise AssertionError(f"{error}: {self.proxy.active()}") from error
            self.proxy.stop()

    def abandon(self):
        self.proxy.kill()
        self.layout.stop()
        for conn in self.connections:
            conn.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """Lets fixtures know how the test went."""
    report = (yield).get_result()
    if report.when == "call":
        item.went_well = report.passed


@pytest.fixture
def rig(binary, request):
    """rig(spec, **options of Proxy) starts a subject; its end is checked after a good test."""
    made = []

    def make(spec=None, **options):
        made.append(Rig(binary, spec or {}, **options))
        return made[-1]
    try:
        yield make
        for one in made if getattr(request.node, "went_well", False) else []:
            one.finish()
    finally:
        for one in made:
            one.abandon()
