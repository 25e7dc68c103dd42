# SPDX-License-Identifier: Apache-2.0
"""Istio's own filters: a sidecar's outbound listener that goes to another's inbound one, in one proxy."""

import base64
import json
import struct

import pytest
from google.protobuf import any_pb2, struct_pb2

from tests.blackbox.test_tls import Client, client_context, downstream, roots, upstream
from tests.harness.config import ROUTER, TCP, log_entry

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


def stats(**config):
    return {"name": "istio.stats",
            "typed_config": {"@type": "type.googleapis.com/stats.PluginConfig", **config}}


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


SERVICE = {"metadata": {"filter_metadata": {"istio": {"services": [
    {"host": "next.ns.svc.cluster.local", "name": "next", "namespace": "nsx"}]}}}, "max_requests_per_connection": 1}


def prometheus(one, name):
    """Lines of the metric as {labels: value}, when there are any."""
    def lines():
        page = one.proxy.admin("/stats/prometheus")[1]
        page = page.decode() if isinstance(page, bytes) else page
        return {line.rsplit(" ", 1)[0]: line.rsplit(" ", 1)[1] for line in page.splitlines()
                if line.startswith(name + "{")}
    one.proxy.wait_for(f"metric {name}", lines)
    return lines()


def reported(one, name):
    """By reporter: the labels and the value of a metric that has one line for each."""
    out = {}
    for line, value in prometheus(one, name).items():
        labels = dict(part.split("=", 1) for part in line[line.index("{") + 1:-1].split('",'))
        labels = {key: text.strip('"') for key, text in labels.items()}
        assert labels["reporter"] not in out, f"more than one line: {line}"
        out[labels["reporter"]] = (labels, value)
    return out


ORDER = ("reporter source_workload source_canonical_service source_canonical_revision source_workload_namespace "
         "source_principal source_app source_version source_cluster destination_workload "
         "destination_workload_namespace destination_principal destination_app destination_version "
         "destination_service destination_canonical_service destination_canonical_revision "
         "destination_service_name destination_service_namespace destination_cluster request_protocol "
         "response_code grpc_response_status response_flags connection_security_policy").split()
OWN = {"workload": "blue", "canonical_service": "bluesvc", "canonical_revision": "r3", "workload_namespace": "ns",
       "principal": "unknown", "app": "blueapp", "version": "v7", "cluster": "K8S"}


def both_stats(outbound=None, inbound=None):
    spec = mesh(cluster=SERVICE)
    spec["listeners"]["main"]["hcm"] = filters(OUTBOUND, stats(**(outbound or {})))
    spec["listeners"]["inbound"]["hcm"] = filters(INBOUND, stats(disable_host_header_fallback=True, **(inbound or {})))
    return spec


def test_requests_are_counted_by_both_sides(rig):
    one = rig(both_stats())
    for _ in range(3):
        one.get("/a")
    one.proxy.wait_for("all requests", lambda: all(
        v == "3" for _, v in reported(one, "istio_requests_total").values()))
    out = reported(one, "istio_requests_total")
    assert set(out) == {"source", "destination"}
    for labels, _ in out.values():
        assert list(labels) == ORDER
        for side in ("source", "destination"):
            assert {key: labels[f"{side}_{key}"] for key in OWN} == OWN
        assert (labels["request_protocol"], labels["response_code"], labels["grpc_response_status"],
                labels["response_flags"]) == ("http", "200", "", "-")
    source, destination = out["source"][0], out["destination"][0]
    names = ("destination_service", "destination_service_name", "destination_service_namespace",
             "connection_security_policy")
    assert [source[n] for n in names] == ["next.ns.svc.cluster.local", "next", "nsx", "unknown"]
    assert [destination[n] for n in names] == ["up.ns.svc", "up", "ns", "none"]
    text = one.proxy.admin("/stats")[1]
    text = text.decode() if isinstance(text, bytes) else text
    assert "istiocustom.istio_requests_total.reporter.source.source_workload.blue." in text
    build = prometheus(one, "istio_build")
    assert build == {'istio_build{component="proxy",tag="1.28.0"}': "1"}


def test_histograms(rig):
    one = rig(both_stats())
    one.get("/a")
    for name in ("istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"):
        one.proxy.wait_for(f"both of {name}", lambda n=name: [
            v for _, v in reported(one, n + "_count").values()] == ["1", "1"])
    assert 30 < float(reported(one, "istio_request_bytes_sum")["source"][1]) < 40


def test_unknown_peers_and_no_service(rig):
    one = rig({"bootstrap": {"node": NODE}, "clusters": {"up": {}},
               "listeners": {"main": {"hcm": filters(stats())},
                             "inbound": {"hcm": filters(INBOUND, stats(disable_host_header_fallback=True)),
                                         "listener": {"traffic_direction": "INBOUND"}}}})
    one.get("/a")
    one.get("/a", name="inbound")
    one.proxy.wait_for("both", lambda: len(reported(one, "istio_requests_total")) == 2)
    out = reported(one, "istio_requests_total")
    source, destination = out["source"][0], out["destination"][0]
    assert (source["destination_workload"], source["destination_canonical_revision"]) == ("unknown", "latest")
    assert (source["destination_service"], source["destination_service_name"]) == ("h.test", "h.test")
    assert source["destination_service_namespace"] == "unknown"
    assert (destination["source_workload"], destination["source_canonical_revision"]) == ("unknown", "latest")
    assert (destination["destination_service"], destination["destination_service_name"]) == ("bluesvc", "bluesvc")
    assert destination["destination_service_namespace"] == "ns"


def test_endpoints_say_who_they_are(rig):
    """What no peer told is taken from the endpoint's metadata."""
    points = [{"upstream": "up", "metadata": {"filter_metadata": {"istio": {"workload": "red;rns;redsvc;;RK"}}}}]
    one = rig({"bootstrap": {"node": NODE}, "clusters": {"up": {"endpoints": points}},
               "listeners": {"main": {"hcm": filters(stats())}}})
    one.get("/a")
    labels = reported(one, "istio_requests_total")["source"][0]
    assert [labels["destination_" + k] for k in (
        "workload", "workload_namespace", "canonical_service", "canonical_revision", "cluster", "app")] == [
            "red", "rns", "redsvc", "latest", "RK", "unknown"]


def test_failures_have_flags(rig):
    one = rig({"bootstrap": {"node": NODE}, "clusters": {"up": {"endpoints": ["refused"]}},
               "listeners": {"main": {"hcm": filters(stats())}}})
    one.get("/a")
    labels = reported(one, "istio_requests_total")["source"][0]
    assert (labels["response_code"], labels["response_flags"]) == ("503", "UF")


@pytest.mark.parametrize("request_bytes,code,host", [
    (b"GET / HTTP/1.1\r\n\r\n", "400", "unknown"),
    (b"GET / HTTP/1.1\r\nhost: h.test\r\nbad name: 1\r\n\r\n", "400", "unknown"),
    (b"OPTIONS * HTTP/1.1\r\nhost: h.test\r\n\r\n", "404", "h.test"),
    (b"GET / HTTP/1.1\r\nhost: h.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", "403", "h.test"),
])
def test_requests_that_reach_no_filter_are_counted(rig, request_bytes, code, host):
    one = rig({"bootstrap": {"node": NODE}, "listeners": {"main": {"hcm": filters(OUTBOUND, stats())}}})
    conn = one.connect()
    conn.send(request_bytes)
    assert conn.wait_responses(1) and b" " + code.encode() + b" " in conn.received
    assert b"x-envoy-peer" not in conn.received
    labels, value = reported(one, "istio_requests_total")["source"]
    assert (labels["response_code"], labels["destination_service"], value) == (code, host, "1")


def test_metrics_and_labels_left_out(rig):
    one = rig({"bootstrap": {"node": NODE}, "listeners": {"main": {"hcm": filters(stats(metrics=[
        {"name": "request_bytes", "drop": True},
        {"tags_to_remove": ["source_app", "no_such"]},
        {"name": "requests_total", "tags_to_remove": ["response_flags"]}]))}}})
    one.get("/a")
    labels = reported(one, "istio_requests_total")["source"][0]
    assert list(labels) == [name for name in ORDER if name not in ("source_app", "response_flags")]
    assert "response_flags" in reported(one, "istio_response_bytes_count")["source"][0]
    page = one.proxy.admin("/stats/prometheus")[1]
    assert b"istio_request_bytes" not in (page if isinstance(page, bytes) else page.encode())


EXCHANGE = {"name": "istio.metadata_exchange", "typed_config": {
    "@type": STRUCT, "type_url": "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange",
    "value": {"protocol": "istio-peer-exchange", "enable_discovery": True}}}


def tcp_mesh(interval="5s"):
    tcp = {"name": "tcp", "typed_config": {"@type": TCP, "stat_prefix": "t", "cluster": "up"}}
    chain = [EXCHANGE, stats(tcp_reporting_duration=interval), tcp]
    return {"bootstrap": {"node": NODE}, "upstreams": {"up": {"mode": "tcp"}},
            "clusters": {"up": {"filters": [EXCHANGE], **ISTIO}},
            "listeners": {"main": {"tcp": {"cluster": "up"}, "listener": {
                "traffic_direction": "INBOUND", "filter_chains": [{"filters": chain}]}}}}


@pytest.mark.parametrize("interval", ["0.05s", "0s"])
def test_connections_are_counted(rig, interval):
    one = rig(tcp_mesh(interval))
    conn = one.connect()
    conn.send(b"x" * 1000)
    assert conn.wait_bytes(1000), "echo"
    if interval == "0.05s":
        one.proxy.wait_for("a report before the end", lambda: reported(
            one, "istio_tcp_received_bytes_total")["destination"][1] == "1000")
        assert "istio_tcp_connections_closed_total" not in str(one.proxy.admin("/stats/prometheus?usedonly")[1])
    conn.close()
    for name, value in (("connections_closed", "1"), ("connections_opened", "1"), ("sent_bytes", "1000"),
                        ("received_bytes", "1000")):
        one.proxy.wait_for(f"{value} of {name}", lambda n=name, v=value: reported(
            one, f"istio_tcp_{n}_total")["destination"][1] == v)
    labels = reported(one, "istio_tcp_received_bytes_total")["destination"][0]
    assert list(labels) == [n for n in ORDER if n not in ("response_code", "grpc_response_status")]
    assert (labels["request_protocol"], labels["response_flags"], labels["source_workload"],
            labels["destination_service"]) == ("tcp", "-", "unknown", "up.ns.svc")
    assert one.proxy.stats("metadata_exchange")["metadata_exchange.alpn_protocol_not_found"] == 2


def test_expressions_are_refused(rig):
    """There is nothing that evaluates them: better no listener than other labels."""
    spec = {"listeners": {"main": {"hcm": filters(stats(metrics=[{"dimensions": {"a": "request.path"}}]))}}}
    with pytest.raises(AssertionError, match="no CEL evaluator"):
        rig(spec)


CLIENT, SERVER = "spiffe://td/ns/x/sa/cli", "spiffe://td/ns/x/sa/srv"


def tcp_pair(server_protocols):
    """A client's and a server's side, with mutual TLS between them."""
    def chain(cluster, *network):
        tcp = {"name": "tcp", "typed_config": {"@type": TCP, "stat_prefix": cluster, "cluster": cluster,
                                               "access_log": [log_entry(peers)]}}
        return [*network, stats(tcp_reporting_duration="0s"), tcp]
    peers = {"down": "%FILTER_STATE(downstream_peer:FIELD:workload)%", "_port": "%DOWNSTREAM_LOCAL_PORT%",
             "up": "%UPSTREAM_FILTER_STATE(upstream_peer:FIELD:workload)%"}
    offers = {"alpn_protocols": ["istio-peer-exchange", "istio"]}
    server = downstream("server", roots(), {"alpn_protocols": server_protocols}, require_client_certificate=True)
    return {"bootstrap": {"node": NODE}, "upstreams": {"up": {"mode": "tcp"}},
            "clusters": {"next": {"endpoints": ["inbound"], "filters": [EXCHANGE],
                                  "transport_socket": upstream("client", roots(), offers)}, "up": {}},
            "listeners": {
                "main": {"tcp": {"cluster": "next"}, "listener": {
                    "filter_chains": [{"filters": chain("next")}]}},
                "inbound": {"tcp": {"cluster": "up"}, "listener": {
                    "traffic_direction": "INBOUND",
                    "filter_chains": [{"filters": chain("up", EXCHANGE), "transport_socket": server}]}}}}


@pytest.mark.parametrize("exchanged", [True, False])
def test_connections_tell_who_they_are(rig, exchanged):
    one = rig(tcp_pair(["istio-peer-exchange"] if exchanged else ["istio"]))
    conn = one.connect()
    conn.send(b"x" * 70000)
    assert conn.wait_bytes(70000) and set(conn.received) == {ord("x")}, "nothing else reaches either end"
    conn.close()
    found = one.proxy.stats("metadata_exchange")
    assert [found["metadata_exchange." + n] for n in ("alpn_protocol_found", "metadata_added",
                                                      "initial_header_not_found", "header_not_found")] == (
        [2, 2, 0, 0] if exchanged else [0, 0, 0, 0])
    lines = log_lines(one, 2)
    want = "blue" if exchanged else None
    assert lines[one.port()]["up"] == want and lines[one.port("inbound")]["down"] == want
    one.proxy.wait_for("both sides", lambda: len(reported(one, "istio_tcp_connections_closed_total")) == 2)
    out = reported(one, "istio_tcp_connections_closed_total")
    for name in ("sent", "received"):
        assert [v for _, v in reported(one, f"istio_tcp_{name}_bytes_total").values()] == ["70000", "70000"]
    source, destination = out["source"][0], out["destination"][0]
    assert source["destination_workload"] == destination["source_workload"] == (want or "unknown")
    for labels in (source, destination):
        assert (labels["source_principal"], labels["destination_principal"]) == (CLIENT, SERVER)
    assert (source["connection_security_policy"], destination["connection_security_policy"]) == (
        "unknown", "mutual_tls")


def preface(workload):
    told = struct_pb2.Struct()
    told.update({"x-envoy-peer-metadata": {"WORKLOAD_NAME": workload}, "x-envoy-peer-metadata-id": "a"})
    packed = any_pb2.Any()
    packed.Pack(told)
    return struct.pack("!II", 0x3D230467, packed.ByteSize()) + packed.SerializeToString()


@pytest.mark.parametrize("first", [400, 8, 3])
def test_preface_and_first_bytes_in_one_piece(rig, first):
    """What follows the preface is the application's, and no message."""
    one = rig(tcp_pair(["istio-peer-exchange"]))
    context = client_context()
    context.set_alpn_protocols(["istio-peer-exchange"])
    client = Client(one.port("inbound"), context)
    data = preface("red") + b"hello"
    client.sock.sendall(data[:first])
    if first < len(data):
        client.sock.sendall(data[first:])
    got = b""
    while not got.endswith(b"hello"):
        got += client.more()
    assert got.startswith(struct.pack("!I", 0x3D230467))
    client.close()
    one.up.wait_seen(1)
    assert one.up.take_seen()[0].raw.startswith(b"hello<")
    assert log_lines(one, 1)[one.port("inbound")]["down"] == "red"


def test_requests_over_mutual_tls(rig):
    spec = both_stats()
    server = downstream("server", roots(), require_client_certificate=True)
    spec["clusters"]["next"]["transport_socket"] = upstream("client", roots())
    spec["listeners"]["inbound"]["chain"] = {"transport_socket": server}
    spec["listeners"]["inbound"]["listener"] = {"traffic_direction": "INBOUND"}
    one = rig(spec)
    one.get("/a")
    one.proxy.wait_for("both sides", lambda: len(reported(one, "istio_requests_total")) == 2)
    for labels, _ in reported(one, "istio_requests_total").values():
        assert (labels["source_principal"], labels["destination_principal"]) == (CLIENT, SERVER)
        assert labels["connection_security_policy"] == (
            "unknown" if labels["reporter"] == "source" else "mutual_tls")
    inbound = reported(one, "istio_requests_total")["destination"][0]
    assert inbound["source_workload_namespace"] == "x", "what the certificate says comes before what was told"
