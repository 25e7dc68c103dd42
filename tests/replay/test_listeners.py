# SPDX-License-Identifier: Apache-2.0
"""Listeners and routes over ADS: when ports open, what is refused, and traffic that goes on. Each
test passes with the real Envoy too."""

import http.client
import json
import socket

import pytest

from tests.harness.ports import Port
from tests.harness.patience import DEADLINE_S
from tests.replay.control_plane import cluster, listener, routes, static_cluster
from tests.replay.test_subscriptions import Script


@pytest.fixture
def port():
    held = Port()
    yield held.number
    held.release()


def direct(body):
    return {"name": "direct", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": body}}}]}]}


def get(port):
    """(status, body), or None where nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        connection.request("GET", "/")
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    except ConnectionError:
        return None
    finally:
        connection.close()


class Listeners(Script):
    """Sends listeners and routes in both protocols."""

    def __init__(self, plane, delta):
        super().__init__(plane, delta)
        self.there = {}

    def send(self, *changed, removed=()):
        self.version += 1
        self.there.update({one["name"]: one for one in changed})
        for name in removed:
            self.there.pop(name)
        if self.delta:
            return self.plane.send_delta("LDS", [(c["name"], f"v{self.version}", c) for c in changed],
                                         removed, version=str(self.version))
        return self.plane.send("LDS", str(self.version), *self.there.values())

    def routes(self, fields):
        self.version += 1
        if self.delta:
            return self.plane.send_delta("RDS", [(fields["name"], f"v{self.version}", fields)])
        return self.plane.send("RDS", str(self.version), fields)

    def begin(self, *listeners):
        """The first clusters and listeners are sent."""
        self.plane.wait(lambda r: r.type == "CDS")
        self.clusters(static_cluster("c2", 1))
        self.plane.wait(lambda r: r.type == "LDS")
        return self.send(*listeners)


def test_a_port_opens_when_its_routes_came(plane, under, delta, port):
    proxy = under(delta)
    script = Listeners(plane, delta)
    nonce = script.begin(listener("l1", port, rds="r1"))
    asked = plane.wait(lambda r: r.type == "RDS")
    assert "r1" in (asked.names or asked.added)
    plane.answer(nonce)
    assert get(port) is None
    assert proxy.admin("/ready") == (503, b"INITIALIZING\n")
    plane.answer(script.routes({**direct("hello"), "name": "r1"}))
    proxy.wait_ready()
    proxy.wait_for("the port", lambda: get(port) == (200, "hello"))
    plane.answer(script.routes({**direct("other"), "name": "r1"}))
    proxy.wait_for("the new routes", lambda: get(port) == (200, "other"))
    bad = {"name": "r1", "virtual_hosts": [{"name": "a", "domains": ["*"]}, {"name": "b", "domains": ["*"]}]}
    assert "Only a single wildcard domain is permitted in route r1" in plane.answer(script.routes(bad)).error
    assert get(port) == (200, "other")
    shown = json.loads(proxy.admin("/config_dump?resource=dynamic_route_configs")[1])["configs"]
    assert [c["route_config"]["name"] for c in shown] == ["r1"]


@pytest.fixture
def second():
    held = Port()
    yield held.number
    held.release()


def test_good_listeners_of_a_bad_response_are_taken(plane, under, delta, port, second):
    proxy = under(delta)
    script = Listeners(plane, delta)
    plane.answer(script.begin(listener("l1", port, inline=direct("one"))))
    proxy.wait_ready()
    bad = {**listener("lbad", 1), "filter_chains": [{"filters": [{"name": "nope"}]}]}
    answer = plane.answer(script.send(listener("l2", second, inline=direct("two")), bad))
    assert answer.error.startswith("Error adding/updating listener(s) lbad: Didn't find a registered "
                                   "implementation for 'nope' with type URL: ''")
    proxy.wait_for("the good one", lambda: get(second) == (200, "two"))
    assert get(port) == (200, "one")
    assert proxy.stats(r"lds\.update_rejected") == {"listener_manager.lds.update_rejected": 1}


def test_a_removed_listener_accepts_no_more(plane, under, delta, port):
    proxy = under(delta)
    script = Listeners(plane, delta)
    plane.answer(script.begin(listener("l1", port, inline=direct("one"))))
    proxy.wait_ready()
    proxy.wait_for("the port", lambda: get(port) == (200, "one"))
    plane.answer(script.send(removed=["l1"]))
    proxy.wait_for("its end", lambda: get(port) is None)


def test_a_changed_listener_takes_over(plane, under, delta, port):
    proxy = under(delta)
    script = Listeners(plane, delta)
    plane.answer(script.begin(listener("l1", port, inline=direct("one"))))
    proxy.wait_ready()
    proxy.wait_for("the port", lambda: get(port) == (200, "one"))
    plane.answer(script.send(listener("l1", port, inline=direct("two"))))
    proxy.wait_for("the change", lambda: get(port) == (200, "two"))
    shown = json.loads(proxy.admin("/config_dump?resource=dynamic_listeners")[1])["configs"]
    assert [c["name"] for c in shown] == ["l1"]
    assert "two" in json.dumps(shown[0]["active_state"]["listener"])


def test_a_route_may_name_a_cluster_that_comes_later(plane, under, delta, port):
    proxy = under(delta)
    script = Listeners(plane, delta)
    script.begin(listener("l1", port, rds="r1"))
    plane.wait(lambda r: r.type == "RDS")
    plane.answer(script.routes(routes("r1", "later")))
    proxy.wait_ready()
    proxy.wait_for("503", lambda: (get(port) or [0])[0] == 503)


def test_the_pages_show_what_is_awaited_and_what_was_refused(plane, under, delta, port,
                                                                second):
    proxy = under(delta)
    script = Listeners(plane, delta)
    plane.answer(script.begin(listener("l1", port, inline=direct("one"))))
    proxy.wait_ready()
    bad = {**listener("l1", port), "filter_chains": [{"filters": [{"name": "nope"}]}]}
    answer = plane.answer(script.send(bad, listener("l2", second, rds="r2")))
    assert "l2" not in answer.error
    proxy.wait_for("l2 to wait", lambda: b" l2 " in proxy.admin("/init_dump")[1])
    waiting = json.loads(proxy.admin("/init_dump")[1])["unready_targets_dumps"]
    assert [" l2 " in one["name"] for one in waiting] == [True]
    assert waiting[0]["target_names"][0].endswith("r2")
    shown = {c.get("name"): c for c in json.loads(
        proxy.admin("/config_dump?resource=dynamic_listeners")[1])["configs"]}
    assert "active_state" in shown["l1"] and "warming_state" in shown["l2"]
    assert shown["l1"]["error_state"]["details"].startswith("Didn't find a registered implementation")
    script.clusters(cluster("late"))
    script.wanted("late")
    shown = json.loads(proxy.admin("/config_dump?resource=dynamic_warming_clusters")[1])["configs"]
    assert [c["cluster"]["name"] for c in shown] == ["late"]


def test_a_listener_that_shares_its_socket_goes_and_comes(plane, under, delta):
    held = Port(socket.SO_REUSEADDR)
    one = listener("l1", held.number, inline=direct("one"), enable_reuse_port=False)
    proxy = under(delta)
    script = Listeners(plane, delta)
    assert plane.answer(script.begin(one)).error == ""
    proxy.wait_ready()
    for turn in range(20):
        gone = script.send(removed=["l1"])
        again = script.send({**one, "stat_prefix": f"turn{turn}"})
        assert plane.answer(gone).error == ""
        assert plane.answer(again).error == ""
        proxy.wait_for("the port", lambda: get(held.number) == (200, "one"))
    plane.answer(script.send(removed=["l1"]))
    proxy.wait_for("its end", lambda: get(held.number) is None)
    held.release()
