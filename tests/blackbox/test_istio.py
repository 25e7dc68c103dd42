# SPDX-License-Identifier: Apache-2.0
"""Istio's own filters: a sidecar's outbound listener that goes to another's inbound one, in one proxy."""

import base64
import json

import pytest
from google.protobuf import struct_pb2

from tests.harness.config import ROUTER

STRUCT = "type.googleapis.com/udpa.type.v1.TypedStruct"
PEER = "type.googleapis.com/io.istio.http.peer_metadata.Config"
NODE = {"id": "sidecar~10.0.0.1~blue-1.ns~ns.svc.cluster.local", "cluster": "blue.ns", "metadata": {
    "NAME": "blue-1", "NAMESPACE": "ns", "WORKLOAD_NAME": "blue", "CLUSTER_ID": "K8S", "ISTIO_VERSION": "1.28.0",
    "OWNER": "kubernetes://apis/apps/v1/namespaces/ns/deployments/blue",
    "LABELS": {"app": "blueapp", "version": "v7", "color": "blue", "service.istio.io/canonical-name": "bluesvc",
               "service.istio.io/canonical-revision": "r3"}}}
HEADERS = [{"istio_headers": {}}]
DISCOVERY = [{"istio_headers": {}}, {"workload_discovery": {}}]


def filters(*more):
    return {"http_filters": [*more, {"name": "router", "typed_config": {"@type": ROUTER}}]}


def peer_metadata(**config):
    return {"name": "istio.metadata_exchange",
            "typed_config": {"@type": STRUCT, "type_url": PEER, "value": config}}


OUTBOUND = peer_metadata(upstream_propagation=HEADERS, upstream_discovery=DISCOVERY)
INBOUND = peer_metadata(downstream_propagation=HEADERS, downstream_discovery=DISCOVERY)
ISTIO = {"metadata": {"filter_metadata": {"istio": {
    "services": [{"host": "up.ns.svc", "name": "up", "namespace": "ns"}]}}}}


def mesh(outbound=OUTBOUND, inbound=INBOUND, cluster=None):
    """main: what the application calls; inbound: the other side of it, before the upstream."""
    peers = {"down": "%FILTER_STATE(downstream_peer:FIELD:workload)%",
             "up": "%FILTER_STATE(upstream_peer:FIELD:workload)%", "json": "%FILTER_STATE(downstream_peer)%"}
    return {"bootstrap": {"node": NODE},
            "clusters": {"next": {"endpoints": ["inbound"], "max_requests_per_connection": 1, **(cluster or {})}, "up": ISTIO},
            "listeners": {"main": {"routes": ["/ -> next"], "hcm": filters(outbound), "log": peers},
                          "inbound": {"routes": ["/ -> up"], "hcm": filters(inbound), "log": peers,
                                      "listener": {"traffic_direction": "INBOUND"}}}}


def log_lines(one, count):
    path = one.proxy.dir / "access.log"
    one.proxy.wait_for("log lines", lambda: path.exists() and len(path.read_text().splitlines()) >= count)
    return {line["_port"]: line for line in map(json.loads, path.read_text().splitlines())}


def told(value):
    return struct_pb2.Struct.FromString(base64.b64decode(value))


def header(raw, name):
    for line in raw.decode("latin-1").split("\r\n"):
        if line.lower().startswith(name + ":"):
            return line.split(":", 1)[1].strip()
    return None


def test_peers_tell_one_another(rig):
    one = rig(mesh())
    answer = one.get("/a").received
    assert b" 200 OK" in answer and b"x-envoy-peer" not in answer, "the client is told nothing"
    seen = one.up.take_seen()[0].raw
    assert header(seen, "x-envoy-peer-metadata") is None, "nor is the application"
    lines = log_lines(one, 2)
    outbound, inbound = lines[one.port()], lines[one.port("inbound")]
    assert (outbound["up"], outbound["down"]) == ("blue", None)
    assert (inbound["down"], inbound["up"]) == ("blue", None)
    assert inbound["json"]["value"] == {"app": "blueapp", "cluster": "K8S", "name": "blue-1", "namespace": "ns",
                                        "revision": "r3", "service": "bluesvc", "type": "deployment",
                                        "version": "v7", "workload": "blue"}


def test_what_is_told(rig):
    """Directly to an upstream that is no proxy: both headers, and nothing comes back."""
    one = rig({"bootstrap": {"node": NODE}, "listeners": {"main": {"hcm": filters(
        peer_metadata(upstream_propagation=HEADERS, upstream_discovery=HEADERS, additional_labels=["color"]))}}})
    one.get("/a")
    seen = one.up.take_seen()[0].raw
    assert header(seen, "x-envoy-peer-metadata-id") == NODE["id"]
    self = told(header(seen, "x-envoy-peer-metadata"))
    want = {**NODE["metadata"]}
    del want["ISTIO_VERSION"]
    assert dict(self.items()).keys() == want.keys()
    assert dict(self["LABELS"].items()) == want["LABELS"]
    assert self["OWNER"] == want["OWNER"] and self["CLUSTER_ID"] == "K8S"


@pytest.mark.parametrize("sent,got", [
    ((), (False, False)),
    (("x-envoy-peer-metadata-id: a",), (True, False)),
    (("x-envoy-peer-metadata: !!",), (False, True)),
    (("x-envoy-peer-metadata-id: b", "x-envoy-peer-metadata: CgA="), (True, True)),
])
def test_answers_tell_who_asked(rig, sent, got):
    one = rig({"bootstrap": {"node": NODE}, "listeners": {"main": {"hcm": filters(INBOUND)}}})
    answer = one.get("/a", headers=sent).received
    assert (header(answer, "x-envoy-peer-metadata-id") is not None,
            header(answer, "x-envoy-peer-metadata") is not None) == got
    assert b"x-envoy-peer" not in one.up.take_seen()[0].raw


@pytest.mark.parametrize("istio,skips,told_it", [
    ({}, False, True), ({"disable_mx": True}, False, False), ({"external": True}, False, True),
    ({"external": True}, True, False), ({"external": False}, True, True),
])
def test_clusters_that_are_not_told(rig, istio, skips, told_it):
    metadata = {"metadata": {"filter_metadata": {"istio": istio}}}
    one = rig({"bootstrap": {"node": NODE}, "clusters": {"up": metadata}, "listeners": {"main": {"hcm": filters(
        peer_metadata(upstream_propagation=[{"istio_headers": {"skip_external_clusters": skips}}]))}}})
    one.get("/a")
    assert (header(one.up.take_seen()[0].raw, "x-envoy-peer-metadata") is not None) == told_it
