# SPDX-License-Identifier: Apache-2.0
"""The overload manager, and the ceiling of memory: what is not done any more, in which order, and how it ends."""

import json
import os

import pytest

from tests.harness import envoy_path
from tests.harness.config import TYPE

INJECTED = "envoy.resource_monitors.injected_resource"
LIMIT = "envoy.resource_monitors.global_downstream_max_connections"


def monitor(name, kind, **fields):
    return {"name": name, "typed_config": {"@type": f"{TYPE}extensions.resource_monitors.{kind}", **fields}}


def threshold(value, name=INJECTED):
    return [{"name": name, "threshold": {"value": value}}]


class Pressure:
    """The file of an injected resource."""

    def __init__(self, directory):
        self.path = directory / "pressure"
        self.set(0)

    def set(self, value):
        fresh = self.path.with_suffix(".new")
        fresh.write_text(str(value), encoding="ascii")
        os.rename(fresh, self.path)

    def manager(self, actions=(), points=(), **more):
        return {"refresh_interval": "0.02s",
                "resource_monitors": [monitor(INJECTED, "injected_resource.v3.InjectedResourceConfig",
                                              filename=str(self.path))],
                "actions": [{"name": f"envoy.overload_actions.{name}", "triggers": threshold(at), **fields}
                            for name, at, fields in actions],
                "loadshed_points": [{"name": f"envoy.load_shed_points.{name}", "triggers": threshold(at)}
                                    for name, at in points], **more}


@pytest.fixture
def pressure(tmp_path):
    return Pressure(tmp_path)


def reach(one, pressure, value):
    pressure.set(value)
    one.proxy.wait_stat(f"overload.{INJECTED}.pressure", round(value * 100))


def reach_action(one, pressure, value, name, active=1):
    pressure.set(value)
    one.proxy.wait_stat(f"overload.envoy.overload_actions.{name}.active", active)


def test_requests_and_keepalive(rig, pressure):
    manager = pressure.manager([("disable_http_keepalive", 0.5, {}), ("stop_accepting_requests", 0.9, {})])
    one = rig({"bootstrap": {"overload_manager": manager},
               "listeners": {"main": {"hcm": {"drain_timeout": "0.05s"}}}})
    kept = one.get("/")
    reach_action(one, pressure, 0.6, "disable_http_keepalive")
    one.get("/", conn=kept)
    assert b"connection: close" in kept.received and kept.wait_end() == "eof"
    reach_action(one, pressure, 0.95, "stop_accepting_requests")
    refused = one.get("/")
    assert refused.received.startswith(b"HTTP/1.1 503 ") and refused.received.endswith(b"envoy overloaded")
    assert refused.wait_end() == "eof"
    reach_action(one, pressure, 0.1, "stop_accepting_requests", 0)
    one.proxy.wait_stat("overload.envoy.overload_actions.disable_http_keepalive.active", 0)
    kept = one.get("/")
    assert b"200 OK" in kept.received and b"connection: close" not in kept.received
    assert one.proxy.stats("^http.main.downstream_(rq_overload_close|cx_overload_disable_keepalive)$") == {
        "http.main.downstream_rq_overload_close": 1, "http.main.downstream_cx_overload_disable_keepalive": 2}


def test_connections_are_rejected(rig, pressure):
    """Those of a listener that bypasses the overload manager are not."""
    manager = pressure.manager([("reject_incoming_connections", 0.5, {})], [("tcp_listener_accept", 0.8)])
    one = rig({"bootstrap": {"overload_manager": manager},
               "listeners": {"main": {}, "free": {"listener": {"bypass_overload_manager": True}}}})
    for value in (0.6, 0.9):
        reach(one, pressure, value)
        assert one.connect().wait_end() in ("eof", "rst")
        assert b"200 OK" in one.get("/", "free").received
    rejected = one.proxy.stats("cx_overload_reject$|shed_load_count$")
    assert sorted(rejected.values(), reverse=True)[:2] == [2, 1] and sum(rejected.values()) == 3
    reach(one, pressure, 0.1)
    assert b"200 OK" in one.get("/").received


def test_connections_wait(rig, pressure):
    """While none are accepted they wait, and are served afterwards."""
    one = rig({"bootstrap": {"overload_manager": pressure.manager([("stop_accepting_connections", 0.5, {})])}})
    kept = one.get("/")
    reach_action(one, pressure, 0.9, "stop_accepting_connections")
    waiting = [one.connect() for _ in range(3)]
    for conn in waiting:
        conn.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    for _ in range(3):
        one.get("/", conn=kept)
    assert one.proxy.stats("^http.main.downstream_cx_total$") == {"http.main.downstream_cx_total": 1}
    reach_action(one, pressure, 0.1, "stop_accepting_connections", 0)
    for conn in waiting:
        assert conn.wait_responses(1) and b"200 OK" in conn.received


def test_idle_timeouts_shrink(rig, pressure):
    """A connection that was idle before has a shorter time from then on."""
    scale = {"typed_config": {"@type": TYPE + "config.overload.v3.ScaleTimersOverloadActionConfig",
                              "timer_scale_factors": [{"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE",
                                                       "min_timeout": "0.01s"}]}}
    one = rig({"bootstrap": {"overload_manager": pressure.manager([("reduce_timeouts", 0.5, scale)])},
               "listeners": {"main": {"hcm": {"drain_timeout": "0.01s"}}}})
    kept = one.get("/")
    reach_action(one, pressure, 0.9, "reduce_timeouts")
    assert kept.wait_end() == "eof"
    assert one.proxy.stats("^http.main.downstream_cx_idle_timeout$") == {"http.main.downstream_cx_idle_timeout": 1}


def test_connections_of_the_process(rig):
    """The limit counts those of all listeners, without the admin port."""
    limit = monitor(LIMIT, "downstream_connections.v3.DownstreamConnectionsConfig", max_active_downstream_connections=2)
    one = rig({"bootstrap": {"overload_manager": {"refresh_interval": "0.02s", "resource_monitors": [limit]}},
               "listeners": {"main": {}, "other": {}, "free": {"listener": {"ignore_global_conn_limit": True}}}})
    one.get("/")
    one.get("/", "other")
    for name in ("main", "other"):
        assert one.connect(name).wait_end() in ("eof", "rst")
    assert b"200 OK" in one.get("/", "free").received
    overflow = one.proxy.stats("downstream_global_cx_overflow$")
    assert sum(overflow.values()) == 2


def stage(one, text):
    one.proxy.wait_for(text, lambda: text in one.proxy.stderr())


def test_memory_ceiling_sheds(rig, binary):
    """Far above the ceiling: what is idle is closed, nothing new is taken, and the process lives on."""
    if str(binary) == str(envoy_path()):
        pytest.skip("--max-memory is Kobune's own")
    one = rig(args=["--max-memory", "1Mi"])
    stage(one, "the streams that hold most are reset")
    conn = one.connect()
    conn.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    for _ in range(5):
        assert one.proxy.stats("^http.main.downstream_cx_total$") == {"http.main.downstream_cx_total": 0}
    conn.close()


def test_memory_ceiling_closes_what_says_nothing(rig, binary):
    """A connection that never sent a byte is as idle as one whose requests are answered."""
    if str(binary) == str(envoy_path()):
        pytest.skip("--max-memory is Kobune's own")
    spec = {"listeners": {"main": {"routes": [{"match": {"path": "/direct"}, "direct": [200, "hello"]}, "/ -> hole"]}},
            "clusters": {"hole": {"endpoints": ["blackhole"], "connect_timeout": "60s"}}}
    used = int(json.loads(rig(spec).proxy.admin("/memory")[1])["total_physical_bytes"])
    one = rig(spec, args=["--max-memory", str(used + 12 * 1024 * 1024)])
    silent, kept = one.connect(), one.get("/direct")
    large = [one.connect() for _ in range(50)]
    for conn in large:
        conn.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 900000\r\n\r\n", ["POST"])
    one.proxy.wait_stat("cluster.hole.upstream_rq_pending_active", len(large))
    for conn in large:
        conn.send(bytes(899999))
        if "idle ones are closed" in one.proxy.stderr():
            break
    stage(one, "idle ones are closed")
    assert kept.wait_end() == "eof" and silent.wait_end() == "eof"
    for conn in large:
        conn.close()
    # connecting to the hole goes on
    one.at_rest = lambda: not [k for k in one.proxy.active() if k.startswith("http.")]


def test_memory_ceiling_far(rig, binary):
    if str(binary) == str(envoy_path()):
        pytest.skip("--max-memory is Kobune's own")
    one = rig(args=["--max-memory", "100G", "--component-log-level", "main:info"])
    stage(one, "at most 95367 MiB")
    assert b"200 OK" in one.get("/").received
