# SPDX-License-Identifier: Apache-2.0
"""The overload manager, and the ceiling of memory: what is not done any more, in which order, and how it ends."""

import json
import os

import pytest

from tests.harness import envoy_path
from tests.harness.config import TYPE
from tests.harness.h2_client import H2

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
               "listeners": {"main": {"hcm": {"drain_timeout": "0.05s"}},
                             "told": {"hcm": {"append_local_overload": True}}}})
    kept = one.get("/")
    reach_action(one, pressure, 0.6, "disable_http_keepalive")
    one.get("/", conn=kept)
    assert b"connection: close" in kept.received and kept.wait_end() == "eof"
    reach_action(one, pressure, 0.95, "stop_accepting_requests")
    refused = one.get("/")
    assert refused.received.startswith(b"HTTP/1.1 503 ") and refused.received.endswith(b"envoy overloaded")
    assert refused.wait_end() == "eof" and b"x-envoy-local-overloaded" not in refused.received
    assert b"x-envoy-local-overloaded: true\r\n" in one.get("/", name="told").received
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


@pytest.fixture
def shedding(rig, pressure):
    """shedding(points): a subject with these load-shed points, which shed everything once `reach`ed; its
    listener has a route that answers by itself."""
    def make(*points):
        return rig({"bootstrap": {"overload_manager": pressure.manager(points=[(point, 0.5) for point in points])},
                    "listeners": {"main": {"hcm": {"drain_timeout": "0.05s"}, "routes": [
                        {"match": {"path": "/direct"}, "direct": [200, "hello"]}, "/ -> up"]},
                        "raw": {"tcp": {"cluster": "tcp"}}},
                    "clusters": {"up": {}, "tcp": {}}, "upstreams": {"tcp": {"mode": "tcp"}}})
    return make


def shed(one, point, count):
    name = f"overload.envoy.load_shed_points.{point}.shed_load_count"
    one.proxy.wait_stat(name, count)


def log_of(one, **wanted):
    """The last line of the access log that has all of this, once there is one."""
    def find():
        path = one.proxy.dir / "access.log"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return next((line for line in reversed(lines) if wanted.items() <= line.items()), None)
    return one.proxy.wait_for(f"a line with {wanted}", find)


def test_http1_is_aborted(shedding, pressure):
    """Whatever comes is answered by 500, also in the middle of a request; HTTP/2 goes on."""
    one = shedding("http1_server_abort_dispatch")
    kept, half, two = one.get("/direct"), one.connect(), H2(one.connect())
    one.up.expect(["hold"])
    half.send(b"POST /half HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nabc", ["POST"])
    two.get(1, "/direct")
    assert two.wait_done(1)
    one.proxy.wait_stat("cluster.up.upstream_rq_active", 1)
    reach(one, pressure, 0.9)
    one.get("/direct", conn=kept)
    half.send(b"def")
    for conn in (kept, half):
        assert conn.wait_end() == "eof"
        answer = conn.received[conn.received.rindex(b"HTTP/1.1 "):]
        assert answer.startswith(b"HTTP/1.1 500 ") and b"connection: close" in answer
        assert answer.endswith(b"\r\n\r\nInternal Server Error")
    log_of(one, path="/half", code=500, details="overload", flags="DPE")
    log_of(one, path=None, code=500, details="overload", flags="DPE")
    shed(one, "http1_server_abort_dispatch", 2)
    two.get(3, "/direct")
    assert two.wait_done(2) and two.streams[3].status == "200"
    assert one.proxy.stats("rq_overload_close$|cx_protocol_error$")["http.main.downstream_rq_overload_close"] == 2
    reach(one, pressure, 0.1)
    assert b"200 OK" in one.get("/direct").received


def test_go_away(shedding, pressure):
    """Connections are drained: what comes is answered still."""
    one = shedding("http2_server_go_away_on_dispatch")
    two, kept = H2(one.connect()), one.get("/direct")
    two.get(1, "/direct")
    assert two.wait_done(1)
    reach(one, pressure, 0.9)
    two.get(3, "/direct")
    assert two.wait_done(2) and two.streams[3].status == "200" and two.goaways[0] == (2**31 - 1, 0)
    assert two.conn.wait_end() == "eof"
    one.get("/direct", conn=kept)
    assert b"connection: close" in kept.received and kept.wait_end() == "eof"
    shed(one, "http2_server_go_away_on_dispatch", 2)


def test_go_away_and_close(shedding, pressure):
    """Nobody is answered, not even those who had begun."""
    one = shedding("http2_server_go_away_and_close_on_dispatch")
    two, kept, fresh = H2(one.connect()), one.get("/direct"), H2(one.connect())
    two.send(two.headers(1, two.request_fields("/half", "POST"), end=False) + two.data(1, b"abc", end=False))
    one.proxy.wait_stat("cluster.up.upstream_rq_active", 1)
    reach(one, pressure, 0.9)
    two.send(two.data(1, b"def"))
    fresh.get(1, "/direct")
    kept.send(b"GET /direct HTTP/1.1\r\nhost: a\r\n\r\n")
    for client, last in ((two, 1), (fresh, 0)):
        assert client.conn.wait_end() == "eof"
        client.parse()
        assert client.goaways == [(2**31 - 1, 0), (last, 0)] and not client.broken
    assert kept.wait_end() == "eof" and kept.received.count(b"HTTP/1.1 ") == 1
    log_of(one, path="/half", code=0, details="forced_goaway", flags="-")
    shed(one, "http2_server_go_away_and_close_on_dispatch", 3)


def test_requests_are_checked_before_the_upstream(shedding, pressure):
    one = shedding("http_downstream_filter_check")
    reach(one, pressure, 0.9)
    kept = one.get("/direct")
    assert b"200 OK" in kept.received
    one.get("/", conn=kept)
    assert b"HTTP/1.1 503 " in kept.received and kept.received.endswith(b"envoy overloaded") and kept.state == "open"
    log_of(one, path="/", code=503, details="overload", flags="-", cluster="up")
    shed(one, "http_downstream_filter_check", 1)
    assert one.proxy.stats("^http.main.rq_overload_local_reply$") == {"http.main.rq_overload_local_reply": 1}
    assert one.proxy.stats("^cluster.up.upstream_rq_pending_total$") == {"cluster.up.upstream_rq_pending_total": 0}


def test_no_new_connections_to_upstreams(shedding, pressure):
    """Who finds an idle one is served."""
    one = shedding("connection_pool_new_connection")
    one.get("/")
    reach(one, pressure, 0.9)
    assert b"200 OK" in one.get("/").received
    one.up.expect(["hold"])
    held = one.connect()
    held.send(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    one.proxy.wait_stat("cluster.up.upstream_rq_active", 1)
    refused = one.get("/refused")
    assert refused.received.startswith(b"HTTP/1.1 503 ") and b"x-envoy-overloaded: true" in refused.received
    log_of(one, path="/refused", details="upstream_reset_before_response_started{overflow}", flags="UO")
    assert one.connect("raw").wait_end() in ("eof", "rst")
    shed(one, "connection_pool_new_connection", 2)
    assert one.proxy.stats("upstream_cx_total$")["cluster.up.upstream_cx_total"] == 1
    one.up.release()
    assert held.wait_responses(1)
    reach(one, pressure, 0.1)
    assert b"200 OK" in one.get("/").received


def test_tcp_connections_are_closed(shedding, pressure):
    one = shedding("tcp_proxy_on_data", "tcp_proxy_upstream_connect")
    kept = one.connect("raw")
    kept.send(b"hello")
    assert kept.wait_bytes(5)
    reach(one, pressure, 0.9)
    assert one.connect("raw").wait_end() in ("eof", "rst")
    kept.send(b"hello")
    assert kept.wait_end() in ("eof", "rst")
    for point in ("tcp_proxy_on_data", "tcp_proxy_upstream_connect"):
        shed(one, point, 1)
    log_of(one, flags="OM", attempts=0)
    log_of(one, flags="OM", attempts=1, received=10)
    assert one.proxy.stats("^tcp.raw.downstream_cx_overload_close$") == {"tcp.raw.downstream_cx_overload_close": 2}


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


def posts(one, count):
    """So many requests without their bodies, for a host that cannot be reached."""
    many = [one.connect() for _ in range(count)]
    for conn in many:
        conn.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 900000\r\n\r\n", ["POST"])
    one.proxy.wait_stat("cluster.hole.upstream_rq_pending_active", count)
    return many


def test_memory_ceiling_closes_what_says_nothing(rig, binary):
    """A connection that never sent a byte is as idle as one whose requests are answered."""
    if str(binary) == str(envoy_path()):
        pytest.skip("--max-memory is Kobune's own")
    spec = {"listeners": {"main": {"routes": [{"match": {"path": "/direct"}, "direct": [200, "hello"]}, "/ -> hole"]}},
            "clusters": {"hole": {"endpoints": ["blackhole"], "connect_timeout": "60s"}}}
    used = int(json.loads(rig(spec).proxy.admin("/memory")[1])["total_physical_bytes"])
    one = rig(spec, args=["--max-memory", str(used + 12 * 1024 * 1024)])
    silent, kept = one.connect(), one.get("/direct")
    large = posts(one, 50)
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


def test_memory_ceiling_resets_many_small_streams(rig, binary):
    """None of them holds much, all of them too much."""
    if str(binary) == str(envoy_path()):
        pytest.skip("--max-memory is Kobune's own")
    spec = {"listeners": {"main": {"routes": ["/ -> hole"]}},
            "clusters": {"hole": {"endpoints": ["blackhole"], "connect_timeout": "600s"}}}
    used = int(json.loads(rig(spec).proxy.admin("/memory")[1])["total_physical_bytes"])
    one = rig(spec, args=["--max-memory", str(used + 20 * 1024 * 1024)])
    many = posts(one, 200)
    for conn in many:
        conn.send(bytes(110000))
    stage(one, "the streams that hold most are reset")
    name = "envoy.overload_actions.reset_high_memory_stream.count"
    one.proxy.wait_for("streams that are reset", lambda: one.proxy.stats(f"^{name}$")[name] > 0)
    for conn in many:
        conn.close()
    one.at_rest = lambda: not [k for k in one.proxy.active() if k.startswith("http.")]


def test_memory_ceiling_far(rig, binary):
    if str(binary) == str(envoy_path()):
        pytest.skip("--max-memory is Kobune's own")
    one = rig(args=["--max-memory", "100G", "--component-log-level", "main:info"])
    stage(one, "at most 95367 MiB")
    assert b"200 OK" in one.get("/").received
