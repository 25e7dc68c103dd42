# SPDX-License-Identifier: Apache-2.0
"""What health checks do to the hosts of a cluster: several checks together, connections to a host that fails,
hosts that are new or gone, and what requests and outlier detection have to do with it. All of it holds for the
real Envoy too."""

import json
import socket

import pytest

from tests.harness.upstream import wait_until

from .test_eds import Endpoints
from .health import Host as OneAnswer
from .health import SOON, checked, flags, refused, status
from .test_hosts_that_go import Dns, resolved_by

OK = status(200)


class Host(OneAnswer):
    """Answers each path as `answers` says, "/" to whatever is not named there; None: not at all. A connection
    that begins with another word than GET is a tunnel: it hears that word again."""

    def __init__(self, **answers):
        self.answers = {"/": OK, **{"/" + path: answer for path, answer in answers.items()}}
        self.live = set()
        super().__init__()

    def _serve(self, conn):
        received = b""
        try:
            while data := conn.recv(4096):
                received += data
                if not received.startswith(b"GET"):
                    self.live.add(conn)
                    conn.sendall(data)
                    continue
                while b"\r\n\r\n" in received:
                    head, received = received.split(b"\r\n\r\n", 1)
                    path = head.split()[1].decode()
                    self.asked.append(path)
                    if b"Envoy/HC" not in head:
                        self.live.add(conn)
                    answer = self.answers.get(path, self.answers["/"])
                    if answer is not None:
                        conn.sendall(answer)
        except OSError:
            pass
        finally:
            self.live.discard(conn)
            conn.close()

    def close(self):
        super().close()
        for conn in list(self.live):
            conn.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def host():
    one = Host()
    yield one
    one.close()


@pytest.fixture
def other():
    one = Host()
    yield one
    one.close()


def http(path, **more):
    return {**SOON, "http_health_check": {"path": "/" + path}, **more}


def started(rig, cluster, **listener):
    return rig({"clusters": {"up": {}}, "listeners": {"main": listener or {"routes": ["/ -> c"]}},
                "bootstrap": {"static_resources": {"clusters": [cluster]}}})


def becomes(one, text):
    wait_until(lambda: flags(one) == text, f"health flags {text}")


def value(one, name):
    return one.proxy.stats("^" + name.replace(".", "\\.") + "$")[name]


# ---- several checks ----

def two_checks(host, **more):
    return checked(host.port, {}, health_checks=[http("a", name="one"), http("b", name="two")], **more)


def test_all_checks_have_to_pass(rig, host):
    one = started(rig, two_checks(host))
    assert flags(one) == "healthy"
    host.answers["/b"] = status(503)
    becomes(one, "/failed_active_hc")
    prefix = "cluster.c.health_check."
    assert [value(one, prefix + name) for name in ("healthy", "name.one.healthy", "name.two.healthy")] == [0, 1, 0]
    assert value(one, prefix + "name.one.failure") == 0
    host.answers["/a"] = status(503)
    one.proxy.wait_stat(prefix + "name.one.healthy", 0)
    host.answers["/b"] = OK
    one.proxy.wait_stat(prefix + "name.two.healthy", 1)
    assert flags(one) == "/failed_active_hc"
    assert value(one, prefix + "healthy") == 0
    host.answers["/a"] = status(200, "x-envoy-degraded: 1")
    becomes(one, "/degraded_active_hc")
    assert [value(one, prefix + name) for name in ("healthy", "degraded", "name.one.degraded", "name.two.degraded")] \
        == [1, 1, 1, 0]
    host.answers["/a"] = None
    one.get("/")
    names = one.proxy.stats("^cluster\\.c\\.health_check\\.")
    assert sorted(name[len(prefix):] for name in names if ".name." not in name) == ["degraded", "healthy"]


def test_warming_waits_for_each_check(rig, host):
    host.answers["/b"] = None
    one = started(rig, checked(host.port, {}, health_checks=[
        http("a", name="one"), http("b", name="two", timeout="0.2s", unhealthy_threshold=1)]))
    assert flags(one) == "/failed_active_hc/active_hc_timeout"
    assert value(one, "cluster.c.health_check.name.one.healthy") == 1
    host.answers["/b"] = OK
    becomes(one, "healthy")


def test_a_check_with_a_name(rig, host):
    one = started(rig, checked(host.port, {}, health_checks=[http("a", name="one")]))
    assert value(one, "cluster.c.health_check.name.one.healthy") == 1
    assert "cluster.c.health_check.healthy" not in one.proxy.stats("^cluster\\.c\\.health_check")


def test_checks_of_several_kinds(rig, host):
    """They have their own events, and answers that say different things."""
    sink = {"event_log_path": "{dir}/events"}
    one = started(rig, checked(host.port, {}, health_checks=[
        http("a", name="one", **sink), {**SOON, **sink, "name": "two", "tcp_health_check": {}}]))
    host.answers["/a"] = status(503)
    becomes(one, "/failed_active_hc")
    lines = one.proxy.dir / "events"
    wait_until(lambda: len(lines.read_text().splitlines()) == 3, "events")
    events = [json.loads(line) for line in lines.read_text().splitlines()]
    assert sorted(event["health_checker_type"] for event in events[:2]) == ["HTTP", "TCP"]
    assert all(event["add_healthy_event"] == {"first_check": True} for event in events[:2])
    assert events[2]["health_checker_type"] == "HTTP" and "eject_unhealthy_event" in events[2]


@pytest.mark.parametrize("names,text", [
    ([None, "b"], "health check at index 0 is missing a name; all health checks must have a name when multiple "
                  "health checks are configured"),
    (["a", None], "health check at index 1 is missing a name"),
    (["a", "b", "a"], "duplicate health check name 'a' at index 2; all health check names must be unique"),
    ([str(i) for i in range(9)], "value must contain no more than 8 item(s)"),
])
def test_names_are_checked(binary, tmp_path, names, text):
    checks = [http("a", **({"name": name} if name else {})) for name in names]
    assert text in refused(binary, tmp_path, checked(1, {}, health_checks=checks))


# ---- connections to a host that fails ----

def test_connections_are_drained(rig, host):
    one = started(rig, checked(host.port, {}, health_checks=[http("hc")],
                               common_lb_config={"healthy_panic_threshold": {"value": 0}}))
    host.answers["/slow"] = None
    slow = one.connect()
    slow.send(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    wait_until(lambda: "/slow" in host.asked, "the slow request")
    one.get("/")
    wait_until(lambda: len(host.live) == 2, "two connections")
    host.answers["/hc"] = status(503)
    becomes(one, "/failed_active_hc")
    wait_until(lambda: len(host.live) == 1, "the idle one is closed")
    assert one.get("/").received.startswith(b"HTTP/1.1 503")
    next(iter(host.live)).sendall(OK)
    assert slow.wait_responses(1)
    wait_until(lambda: not host.live, "the busy one is closed behind its answer")
    host.answers["/hc"] = OK
    wait_until(lambda: one.get("/").received.startswith(b"HTTP/1.1 200"), "the workers know")
    assert value(one, "cluster.c.upstream_cx_total") == 3
    assert value(one, "cluster.c.upstream_cx_destroy_local_with_active_rq") == 0


@pytest.mark.parametrize("close", [False, True])
def test_connections_of_tcp_proxy(rig, host, close):
    one = started(rig, checked(host.port, {}, health_checks=[http("hc")], close_connections_on_host_health_failure=close),
                  tcp={"cluster": "c"})
    conn = one.connect()
    conn.send(b"hello")
    assert conn.wait_bytes(5)
    host.answers["/hc"] = status(503)
    becomes(one, "/failed_active_hc")
    if close:
        assert conn.wait_end() == "eof"
        assert value(one, "cluster.c.upstream_cx_destroy_local") == 1
        return
    conn.send(b"again")
    assert conn.wait_bytes(10)
    assert value(one, "cluster.c.upstream_cx_destroy") == 0


# ---- what requests say ----

def test_a_request_tells_of_failure(rig, host):
    one = started(rig, checked(host.port, {}, health_checks=[http("hc", interval="3600s", no_traffic_interval="3600s")]))
    host.answers["/"] = status(200, "x-envoy-immediate-health-check-fail: true")
    assert b"immediate-health-check-fail" in one.get("/").received
    becomes(one, "/failed_active_hc/excluded_via_immediate_hc_fail")
    prefix = "cluster.c.health_check."
    assert [value(one, prefix + name) for name in ("passive_failure", "failure", "network_failure", "healthy", "attempt")] \
        == [1, 1, 0, 0, 1]
    assert value(one, "cluster.c.membership_excluded") == 1
    one.get("/")  # all are left out: that is panic
    wait_until(lambda: value(one, prefix + "passive_failure") == 2, "the second failure")
    assert value(one, "cluster.c.lb_healthy_panic") == 1


def test_a_request_to_a_host_with_several_checks(rig, host):
    later = {"interval": "3600s", "no_traffic_interval": "3600s"}
    one = started(rig, checked(host.port, {}, health_checks=[http("a", name="one", **later), http("b", name="two", **later)]))
    host.answers["/"] = status(200, "x-envoy-immediate-health-check-fail: true")
    one.get("/")
    becomes(one, "/failed_active_hc/excluded_via_immediate_hc_fail")
    prefix = "cluster.c.health_check.name."
    assert [value(one, prefix + name + ".passive_failure") for name in ("one", "two")] == [0, 1]


@pytest.mark.parametrize("uneject", [None, True, False])
def test_a_check_ends_an_ejection(rig, host, uneject):
    detection = {"consecutive_5xx": 1, "max_ejection_percent": 100, "base_ejection_time": "3600s", "interval": "3600s"}
    if uneject is not None:
        detection["successful_active_health_check_uneject_host"] = uneject
    host.answers["/hc"] = None
    one = started(rig, checked(host.port, {}, health_checks=[http("hc", timeout="0.05s", unhealthy_threshold=1)],
                               common_lb_config={"healthy_panic_threshold": {"value": 100}}, outlier_detection=detection))
    assert flags(one) == "/failed_active_hc/active_hc_timeout"
    host.answers["/"] = status(503)
    one.get("/")
    one.proxy.wait_stat("cluster.c.outlier_detection.ejections_active", 1)
    assert "/failed_outlier_check" in flags(one)
    host.answers["/hc"] = OK
    if uneject is False:
        becomes(one, "/failed_outlier_check")
    else:
        becomes(one, "healthy")
        assert value(one, "cluster.c.outlier_detection.ejections_active") == 0


# ---- hosts that are new, and hosts that are gone ----

def discovered(endpoints, **more):
    return {"clusters": {"up": {}, "c": {
        "type": "EDS", "endpoints": [], "load_assignment": None,
        "eds_cluster_config": {"eds_config": {"path_config_source": {"path": str(endpoints.path)}, "resource_api_version": "V3"}},
        **more}}, "listeners": {"main": {"routes": ["/ -> c"]}}}


def members(one):
    """The flags of each host, by port."""
    lines = [line.split("::") for line in one.proxy.admin("/clusters")[1].decode().splitlines()]
    return {int(line[1].rsplit(":", 1)[1]): line[3] for line in lines
            if line[0] == "c" and line[-2] == "health_flags"}


@pytest.mark.parametrize("ignore", [False, True])
def test_new_hosts(rig, tmp_path, host, other, ignore):
    endpoints = Endpoints(tmp_path)
    endpoints.write((0, [host.port]))
    one = rig(discovered(endpoints, health_checks=[http("hc", unhealthy_threshold=1)],
                         common_lb_config={"ignore_new_hosts_until_first_hc": ignore}))
    wait_until(lambda: members(one) == {host.port: "healthy"}, "the first host")
    other.answers["/hc"] = None
    endpoints.write((0, [host.port, other.port]))
    pending = "/failed_active_hc/pending_active_hc" if ignore else "/failed_active_hc"
    wait_until(lambda: members(one) == {host.port: "healthy", other.port: pending}, "the second host")
    assert value(one, "cluster.c.membership_excluded") == (1 if ignore else 0)
    assert value(one, "cluster.c.membership_healthy") == 1
    other.answers["/hc"] = OK


@pytest.mark.parametrize("ignore", [False, True])
def test_hosts_that_are_gone(rig, tmp_path, host, other, ignore):
    endpoints = Endpoints(tmp_path)
    endpoints.write((0, [host.port, other.port]))
    one = rig(discovered(endpoints, health_checks=[http("hc")], ignore_health_on_host_removal=ignore))
    wait_until(lambda: members(one) == {host.port: "healthy", other.port: "healthy"}, "both")
    endpoints.write((0, [host.port]))
    if ignore:
        wait_until(lambda: members(one) == {host.port: "healthy"}, "the removal")
        return
    wait_until(lambda: members(one) == {host.port: "healthy", other.port: "/pending_dynamic_removal"}, "the wait")
    assert value(one, "cluster.c.membership_total") == 2
    assert value(one, "cluster.c.update_no_rebuild") == 1
    endpoints.write((0, [host.port, other.port]))
    wait_until(lambda: members(one) == {host.port: "healthy", other.port: "healthy"}, "its return")
    endpoints.write((1, [host.port]))
    wait_until(lambda: "/pending" in members(one).get(other.port, ""), "the wait")
    other.answers["/hc"] = status(503)
    wait_until(lambda: members(one) == {host.port: "healthy"}, "the removal")
    assert value(one, "cluster.c.membership_total") == 1


@pytest.mark.parametrize("state,after", [("UNHEALTHY", None), ("DRAINING", "/pending_dynamic_removal/eds_status_draining"),
                                         ("DEGRADED", "/degraded_eds_health/pending_dynamic_removal")])
def test_gone_while_discovery_says_that_it_is_not_well(rig, tmp_path, host, other, state, after):
    endpoints = Endpoints(tmp_path)
    endpoints.write((0, [host.port, (other.port, {"health_status": state})]))
    one = rig(discovered(endpoints, health_checks=[http("hc")]))
    one.proxy.wait_stat("cluster.c.health_check.healthy", 2)
    endpoints.write((0, [host.port]))
    wait_until(lambda: members(one).get(other.port) == after, "what becomes of it")


def test_gone_from_dns(rig, host):
    dns = Dns("127.0.0.1")
    try:
        cluster = {**resolved_by(dns), "health_checks": [
            http("hc", interval="3600s", no_traffic_interval="3600s", reuse_connection=False)]}
        one = rig({"clusters": {"up": cluster}, "listeners": {"main": {"routes": ["/ -> up"]}}})
        one.proxy.wait_stat("cluster.up.membership_healthy", 1)
        dns.address = "127.0.0.2"
        one.proxy.wait_stat("cluster.up.membership_total", 2)
        assert b"health_flags::/pending_dynamic_removal" in one.proxy.admin("/clusters")[1]
    finally:
        dns.close()


def test_new_locality_of_a_host(rig, tmp_path, host):
    """It is another host, with the health of the one before."""
    endpoints = Endpoints(tmp_path)
    endpoints.write((0, [host.port]))
    one = rig(discovered(endpoints, health_checks=[http("hc", interval="3600s", no_traffic_interval="3600s")]))
    one.proxy.wait_stat("cluster.c.membership_healthy", 1)
    host.answers["/hc"] = None
    endpoints.write((0, [host.port]), locality={"zone": "z"})
    wait_until(lambda: b"::zone::z" in one.proxy.admin("/clusters")[1], "the change")
    assert members(one) == {host.port: "healthy"}
    assert value(one, "cluster.c.health_check.healthy") == 1
