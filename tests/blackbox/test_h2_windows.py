# SPDX-License-Identifier: Apache-2.0
"""How far an upstream of HTTP/2 may send ahead: further where the way is long and the reader quick."""

import pytest

from tests.harness import envoy_path
from tests.harness.faults import SOURCE, compiled

FIRST = 64 * 1024
BYTES = 4 * 1024 * 1024
MOST = 16 * 1024 * 1024


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    library = compiled(tmp_path_factory.mktemp("rtt"), SOURCE.with_name("rtt.c"))
    if library is None:
        pytest.skip("no C compiler: cc, gcc or $CC")
    return library


@pytest.fixture
def far(rig, library, binary, monkeypatch):
    """far(round trip in microseconds, options of HTTP/2): a subject to which its upstreams are so far."""
    if binary == envoy_path():
        pytest.skip("Envoy begins with its largest window")

    def make(rtt_us, http2=None):
        with monkeypatch.context() as environment:
            environment.setenv("LD_PRELOAD", str(library))
            environment.setenv("KB_RTT_US", str(rtt_us))
            environment.setenv("ASAN_OPTIONS", "verify_asan_link_order=0:detect_leaks=1:exitcode=99")
            return rig({"clusters": {"up": {"http2": http2 or {}}}, "upstreams": {"up": {"mode": "h2"}}},
                       concurrency=1)
    return make


def fetch(one, count=BYTES):
    one.up.expect([f"head 200 content-length={count}; bytes {count}; end"])
    conn = one.get("/a")
    assert len(conn.received) > count
    return one.up.widest


def test_windows_grow_on_a_long_way(far):
    one = far(10_000_000)
    widest = fetch(one)
    assert FIRST < widest <= MOST
    one.up.widest = 0  # the next stream begins as the first did
    assert fetch(one, 1000) <= FIRST


def test_windows_stay_on_a_short_way(far):
    assert fetch(far(900)) <= FIRST


def test_configured_windows_stay(far):
    assert fetch(far(10_000_000, {"initial_stream_window_size": 100_000})) <= 100_000
