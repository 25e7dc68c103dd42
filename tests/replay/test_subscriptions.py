# SPDX-License-Identifier: Apache-2.0
"""What a control plane hears, request by request, and what becomes of what it sends. Each test
passes with the real Envoy too (KOBUNE_BIN=envoy): that is where the orders come from."""

import json

from tests.replay.control_plane import cluster, endpoints, resource, static_cluster

MALFORMED = ("Error adding/updating cluster(s) bad: malformed IP address: not-an-ip. Consider setting "
             "resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'")


def names(proxy):
    """Clusters that serve."""
    return {line.split("::")[0] for line in proxy.admin("/clusters")[1].decode().splitlines()} - {"xds"}


def heard(plane, stream=None):
    """(type, nonce) of everything that was said so far."""
    return [(r.type, r.nonce) for r in plane.requests if stream in (None, r.stream)]


class Script:
    """The same story in both protocols."""

    def __init__(self, plane, delta):
        self.plane, self.delta = plane, delta
        self.present = {}
        self.version = 0

    def clusters(self, *changed, removed=()):
        """Sends changes; state of the world sends all that is there then."""
        self.version += 1
        for one in changed:
            self.present[one["name"]] = one
        for name in removed:
            self.present.pop(name, None)
        if self.delta:
            return self.plane.send_delta("CDS", [(c["name"], f"v{self.version}", c) for c in changed],
                                         removed, version=str(self.version))
        return self.plane.send("CDS", str(self.version), *self.present.values())

    def endpoints(self, name, *ports):
        self.version += 1
        fields = endpoints(name, *ports)
        if self.delta:
            return self.plane.send_delta("EDS", [(name, f"v{self.version}", fields)])
        return self.plane.send("EDS", str(self.version), fields)

    def listeners(self):
        self.version += 1
        return self.plane.send_delta("LDS") if self.delta else self.plane.send("LDS", str(self.version))

    def wanted(self, name):
        """The request that asks for endpoints of a cluster."""
        return self.plane.wait(lambda r: r.type == "EDS" and name in (r.names or r.added),
                               f"the request for {name}")

    def start(self, proxy):
        """Live, with clusters c1 (EDS) and c2 (STATIC)."""
        self.plane.wait(lambda r: r.type == "CDS")
        self.clusters(cluster("c1"), static_cluster("c2", 1))
        self.wanted("c1")
        self.endpoints("c1", 1)
        self.plane.wait(lambda r: r.type == "LDS")
        self.plane.answer(self.listeners())
        proxy.wait_ready()


def test_start_asks_in_order_and_answers_in_order(plane, under, delta):
    proxy = under(delta)
    script = Script(plane, delta)
    first = plane.wait(lambda r: True)
    assert (first.type, first.node, first.names, first.added) == ("CDS", "node-1", (), ())
    assert plane.metadata["x-envoy-internal"] == "true"
    assert proxy.admin("/ready") == (503, b"PRE_INITIALIZING\n")
    clusters = script.clusters(cluster("c1"), static_cluster("c2", 1))
    plane.answer(clusters)
    assert heard(plane) == [("CDS", ""), ("EDS", ""), ("CDS", clusters)]
    assignment = script.endpoints("c1", 1)
    plane.answer(assignment)
    assert heard(plane)[3:] == [("LDS", ""), ("EDS", assignment)]
    assert proxy.admin("/ready") == (503, b"INITIALIZING\n")
    listeners = script.listeners()
    plane.answer(listeners)
    proxy.wait_ready()
    assert not any(r.error for r in plane.requests)
    assert not any(r.node for r in plane.requests[1:])
    assert proxy.stats("^control_plane.connected_state") == {"control_plane.connected_state": 1}


def test_good_clusters_of_a_bad_response_are_taken(plane, under, delta):
    proxy = under(delta)
    script = Script(plane, delta)
    script.start(proxy)
    refused = script.clusters(cluster("c3"), static_cluster("bad", 1, address="not-an-ip"))
    script.wanted("c3")
    assert names(proxy) == {"c1", "c2"}
    assert (refused not in [r.nonce for r in plane.requests])  # held back while c3 is warming
    assignment = script.endpoints("c3", 1)
    answer = plane.answer(refused)
    assert answer.error.startswith(MALFORMED)
    assert answer.version == ("" if delta else "1")
    plane.answer(assignment)
    assert heard(plane)[-2:] == [("CDS", refused), ("EDS", assignment)]
    proxy.wait_for("c3", lambda: names(proxy) == {"c1", "c2", "c3"})
    assert proxy.stats(r"cds\.update_(rejected|success)") == {
        "cluster_manager.cds.update_rejected": 1, "cluster_manager.cds.update_success": 1}


def test_a_changed_cluster_serves_when_it_is_warm(plane, under, delta):
    proxy = under(delta, initial_fetch_timeout="0s")
    script = Script(plane, delta)
    script.start(proxy)
    changed = script.clusters(cluster("c4", connect_timeout="2s"))
    script.wanted("c4")
    assert proxy.stats("warming_clusters") == {"cluster_manager.warming_clusters": 1}
    assert changed not in [r.nonce for r in plane.requests]
    script.endpoints("c4", 1)
    plane.answer(changed)
    proxy.wait_for("c4", lambda: "c4" in names(proxy))
    assert proxy.stats("warming_clusters") == {"cluster_manager.warming_clusters": 0}


def test_removed_clusters_go_and_their_endpoints_are_given_up(plane, under, delta):
    proxy = under(delta)
    script = Script(plane, delta)
    script.start(proxy)
    nonce = script.clusters(removed=["c1"])
    given_up = plane.wait(lambda r: r.type == "EDS" and not r.names)
    assert given_up.removed == (("c1",) if delta else ())
    assert plane.answer(nonce).error == ""
    proxy.wait_for("removal", lambda: names(proxy) == {"c2"})
    assert proxy.stats("cluster_removed") == {"cluster_manager.cluster_removed": 1}


def test_a_stream_that_ends_disturbs_nothing_and_comes_back(plane, under, delta):
    proxy = under(delta)
    script = Script(plane, delta)
    script.start(proxy)
    plane.cut()
    plane.wait_streams(2)
    again = [plane.wait(lambda r: r.stream == 2) for _ in range(3)]
    assert [r.type for r in again] == ["CDS", "EDS", "LDS"]
    assert [r.node for r in again] == ["node-1", "", ""]
    assert not any(r.nonce for r in again)
    if delta:
        assert [r.initial for r in again] == [{"c1": "v1", "c2": "v1"}, {"c1": "v2"}, {}]
        assert again[1].added == ("c1",)
    else:
        assert [r.version for r in again] == ["1", "2", "3"]
        assert again[1].names == ("c1",)
    assert names(proxy) == {"c1", "c2"}
    assert proxy.admin("/ready") == (200, b"LIVE\n")
    plane.stop()
    proxy.wait_for("the end of the stream",
                   lambda: proxy.stats("connected_state") == {"control_plane.connected_state": 0})
    assert names(proxy) == {"c1", "c2"}
    assert proxy.admin("/ready") == (200, b"LIVE\n")
    plane.start()
    plane.wait_streams(3)


def test_names_that_come_twice_are_refused(plane, under, delta):
    proxy = under(delta)
    script = Script(plane, delta)
    script.start(proxy)
    one, two = static_cluster("c5", 1), static_cluster("c5", 2)
    if delta:
        nonce = plane.send_delta("CDS", [("c5", "v1", one), ("c5", "v2", two)])
        text = "duplicate name c5 found among added/updated resources"
    else:
        nonce = plane.send("CDS", "9", *script.present.values(), one, two)
        text = "Error adding/updating cluster(s) c5: duplicate cluster c5 found"
    assert plane.answer(nonce).error.startswith(text)
    expected = {"c1", "c2"} if delta else {"c1", "c2", "c5"}
    proxy.wait_for("the first of them", lambda: names(proxy) == expected)


def test_another_type_inside_is_refused(plane, under, delta):
    proxy = under(delta)
    script = Script(plane, delta)
    script.start(proxy)
    packed = resource("EDS", endpoints("c1", 1))
    nonce = (plane.send_delta("CDS", [("c6", "v1", packed)]) if delta
             else plane.send("CDS", "9", packed))
    assert "does not match the message-wide type URL" in plane.answer(nonce).error
    assert names(proxy) == {"c1", "c2"}


def test_nobody_answers_and_the_proxy_lives(plane, under, delta):
    proxy = under(delta, initial_fetch_timeout="0.2s")
    plane.wait(lambda r: r.type == "CDS")
    plane.wait(lambda r: r.type == "LDS")
    proxy.wait_ready()
    assert proxy.stats("init_fetch_timeout") == {"cluster_manager.cds.init_fetch_timeout": 1,
                                                 "listener_manager.lds.init_fetch_timeout": 1}


def test_endpoints_come_over_a_stream_of_their_own(plane, under, delta):
    proxy = under(delta)
    script = Script(plane, delta)
    plane.wait(lambda r: r.type == "CDS")
    script.clusters(cluster("own", eds_cluster_config={"eds_config": {
        "resource_api_version": "V3", "api_config_source": {
            "api_type": "DELTA_GRPC" if delta else "GRPC", "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]}}}))
    plane.wait_streams(2)
    asked = script.wanted("own")
    assert (asked.stream, asked.node) == (2, "node-1")
    answer = plane.answer(script.endpoints("own", 7))
    assert (answer.stream, answer.node, answer.error) == (2, "node-1", "")
    proxy.wait_for("its host", lambda: b"own::127.0.0.1:7::" in proxy.admin("/clusters")[1])


def test_it_ends_cleanly_before_listeners_came(plane, under, delta):
    under(delta)  # the fixture ends it, and looks at its exit code
    script = Script(plane, delta)
    plane.wait(lambda r: r.type == "CDS")
    script.clusters(cluster("c1"))
    script.wanted("c1")
    script.endpoints("c1", 1)
    plane.wait(lambda r: r.type == "LDS")


def test_the_dump_shows_what_was_sent(plane, under, delta):
    proxy = under(delta)
    script = Script(plane, delta)
    script.start(proxy)
    dump = json.loads(proxy.admin("/config_dump")[1])["configs"]
    clusters = next(c for c in dump if c["@type"].endswith("ClustersConfigDump"))
    assert clusters["version_info"] == "1"
    shown = {c["cluster"]["name"]: c for c in clusters["dynamic_active_clusters"]}
    assert set(shown) == {"c1", "c2"}
    for name, one in shown.items():
        assert one["version_info"] == ("v1" if delta else "1")
        one["cluster"].pop("@type")
        sent = json.loads(json.dumps(script.present[name]))
        assert one["cluster"].items() >= {k: v for k, v in sent.items() if k != "type"}.items()
