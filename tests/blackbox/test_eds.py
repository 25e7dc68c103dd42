# SPDX-License-Identifier: Apache-2.0
"""Endpoints from a watched file: what a change of them does to connections and statistics."""

import json
import os

ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


class Endpoints:
    """The file of one cluster's assignment, replaced as a whole."""

    def __init__(self, folder):
        self.path = folder / "eds.json"
        self.version = 0

    def write(self, *groups, policy=None, name="c", locality=None):
        """Each group is (priority, endpoints); an endpoint is a port, or (port, more fields)."""
        self.version += 1
        localities = []
        for priority, endpoints in groups:
            points = []
            for point in endpoints:
                port, more = point if isinstance(point, tuple) else (point, {})
                address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
                points.append({"endpoint": {"address": address}, **more})
            localities.append({"priority": priority, "lb_endpoints": points, **({"locality": locality} if locality else {})})
        resource = {"@type": ASSIGNMENT, "cluster_name": name, "endpoints": localities, **({"policy": policy} if policy else {})}
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps({"version_info": str(self.version), "resources": [resource]}))
        os.replace(fresh, self.path)


def spec(endpoints):
    return {"clusters": {"c": {"type": "EDS", "endpoints": [], "load_assignment": None,
                               "eds_cluster_config": {"eds_config": {
                                   "path_config_source": {"path": str(endpoints.path)}, "resource_api_version": "V3"}}},
                         "up": {}, "two": {}},
            "listeners": {"main": {"routes": ["/ -> c"]}}}


def test_changes_keep_what_they_do_not_touch(rig, tmp_path):
    endpoints = Endpoints(tmp_path)
    endpoints.write((0, [1]))
    one = rig(spec(endpoints))
    proxy, up, two = one.proxy, one.up.number, one.upstreams["two"].number
    proxy.wait_stat("cluster.c.membership_total", 1)
    endpoints.write((0, [up]))
    proxy.wait_stat("cluster.c.membership_change", 2)
    conn = one.get("/")
    assert conn.received.startswith(b"HTTP/1.1 200")

    # order, weight, health and priority: the connection stays
    endpoints.write((0, [(up, {"load_balancing_weight": 3})]))
    proxy.wait_stat("cluster.c.max_host_weight", 3)
    endpoints.write((0, [(up, {"health_status": "DEGRADED"})]))
    proxy.wait_stat("cluster.c.membership_degraded", 1)
    endpoints.write((1, [up]))
    proxy.wait_stat("cluster.c.membership_change", 4)
    one.get("/", conn=conn)
    assert proxy.stats("^cluster.c.upstream_cx_total$")["cluster.c.upstream_cx_total"] == 1

    # a mistake leaves everything as it was
    endpoints.write((0, [two]), name="another")
    proxy.wait_stat("cluster.c.update_rejected", 1)
    one.get("/", conn=conn)

    # the same endpoints again are no change
    before = proxy.stats("^cluster_manager.cluster_updated$")["cluster_manager.cluster_updated"]
    endpoints.write((1, [up]))
    proxy.wait_stat("cluster.c.update_no_rebuild", 1)
    assert proxy.stats("^cluster_manager.cluster_updated$")["cluster_manager.cluster_updated"] == before

    # one that goes takes its idle connection with it
    endpoints.write((0, [two]))
    proxy.wait_stat("cluster.c.upstream_cx_destroy", 1)
    one.get("/", conn=conn)
    assert f"c::127.0.0.1:{two}::cx_active::1".encode() in proxy.admin("/clusters")[1]
    assert b"c::eds_service_name" not in proxy.admin("/clusters")[1]


def test_stale_endpoints_are_dropped(rig, tmp_path):
    endpoints = Endpoints(tmp_path)
    endpoints.write((0, [1]))
    one = rig(spec(endpoints))
    endpoints.write((0, [1]), policy={"endpoint_stale_after": "0.1s"})
    one.proxy.wait_stat("cluster.c.assignment_stale", 1)
    one.proxy.wait_stat("cluster.c.membership_total", 0)
    assert one.get("/").received.startswith(b"HTTP/1.1 503")
