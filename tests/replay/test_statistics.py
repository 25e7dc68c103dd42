# SPDX-License-Identifier: Apache-2.0
"""What is counted of the control plane, beside the real Envoy in the same story."""

import re

import pytest

from tests.harness import Proxy
from tests.harness.ports import Port
from tests.harness.proxy import envoy_path
from tests.replay.control_plane import (ControlPlane, bootstrap, cluster, listener, routes,
                                        static_cluster)
from tests.replay.test_listeners import Listeners

ABOUT = re.compile(r"control_plane|cds\.|lds\.|rds\.|listener_manager|cluster_manager"
                   r"|cluster\.c[123]\.(update|init|assign|member|warm)")
TIMES = re.compile(r"time|duration|version$")


def story(binary, delta, port):
    """Good, bad, removed and cut; then the statistics."""
    with ControlPlane() as plane, Proxy(binary, lambda _: bootstrap(plane.port, delta),
                                        wait_ready=False) as proxy:
        proxy.wait_admin()
        script = Listeners(plane, delta)
        plane.wait(lambda r: r.type == "CDS")
        script.clusters(cluster("c1"), static_cluster("c2", 1))
        script.wanted("c1")
        script.endpoints("c1", 1)
        plane.wait(lambda r: r.type == "LDS")
        script.send(listener("l1", port, rds="r1"))
        plane.wait(lambda r: r.type == "RDS")
        plane.answer(script.routes(routes("r1", "c1")))
        proxy.wait_ready()
        refused = script.clusters(cluster("c3"), static_cluster("bad", 1, address="nope"))
        script.wanted("c3")
        script.endpoints("c3", 1)
        plane.answer(refused)
        plane.answer(script.clusters(removed=["c2"]))
        plane.answer(script.routes({"name": "r1", "virtual_hosts": [
            {"name": "v", "domains": ["*", "*"]}]}))
        plane.cut()
        plane.wait_streams(2)
        plane.wait(lambda r: r.stream == 2 and r.type == "RDS")
        proxy.wait_for("workers", lambda: proxy.stats("workers_started"))
        text = proxy.admin("/stats")[1].decode()
    found = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return {name: value for name, value in found.items() if ABOUT.search(name) and not TIMES.search(name)}


def test_counts_are_those_of_envoy(binary, delta):
    envoy = envoy_path()
    if envoy is None:
        pytest.skip("the real Envoy is not here")
    held = Port()
    expected = story(envoy, delta, held.number)
    assert story(binary, delta, held.number) == expected
    held.release()
