# SPDX-License-Identifier: Apache-2.0
"""The parts of the resources that decide who gets in and where requests go, in the shapes that istiod sends."""

import json

import pytest
import yaml
from google.protobuf import json_format

from examples.handson.control_plane.model import Mesh, Pod
from examples.handson.control_plane.objects import parse
from examples.handson.control_plane.resources import CDS, EDS, LDS, RDS, snapshot
from examples.handson.control_plane.schemas import KINDS
from tests.handson.client import TYPES

ISTIO_HTTP = ["istio-http/1.0", "istio-http/1.1", "istio-h2"]
ISTIO_BYTES = ["istio-peer-exchange", "istio"]
ALL = ["istio", "istio-peer-exchange", *ISTIO_HTTP]
PLAIN_HTTP = ["http/1.1", "h2c"]
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.10
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp-x, port: 9000}, {name: grpc, port: 9001}, {name: what, port: 9002}]
"""
WEB = Pod("web-1", "shop", "10.0.0.1", {"app": "web", "v": "1"}, "web")
CLIENT = Pod("client", "default", "10.0.0.2", {"app": "client"}, "client")
GATEWAY = Pod("gateway", "istio-system", "10.0.0.3", {"istio": "gateway"}, "gateway", kind="router")


def object_of(kind, name, namespace, spec):
    group = {"PeerAuthentication": "security", "AuthorizationPolicy": "security"}.get(kind, "networking")
    return yaml.safe_dump({"apiVersion": f"{group}.istio.io/v1", "kind": kind,
                           "metadata": {"name": name, "namespace": namespace}, "spec": spec})


def made(pod, *texts, plain=False):
    """{type: {name: the resource in JSON form}} for a pod."""
    objects, errors, _ = parse("\n---\n".join([SERVICE, *texts]), "f", KINDS)
    assert not errors, errors
    found = {}
    for short, url in (("CDS", CDS), ("EDS", EDS), ("LDS", LDS), ("RDS", RDS)):
        found[short] = {}
        for name, row in snapshot(Mesh(objects, [WEB, CLIENT, GATEWAY]), pod, plain)[url].items():
            message = TYPES[short]()
            assert row.body.Unpack(message)
            found[short][name] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return found


def chains(listener):
    """(name, match, whether it ends TLS) of each chain."""
    return [(chain["name"], chain.get("filter_chain_match", {}), "transport_socket" in chain)
            for chain in listener["filter_chains"]]


def match(transport, *protocols, port=None):
    return {**({"destination_port": port} if port else {}), "transport_protocol": transport,
            **({"application_protocols": list(protocols)} if protocols else {})}


def mode(name, namespace="istio-system", **more):
    return object_of("PeerAuthentication", "m" + namespace, namespace, {"mtls": {"mode": name}, **more})


FIRST = ("virtualInbound-blackhole", {"destination_port": 15006}, False)


def sniffed(kind, http, tcp, port=None):
    """The chains where it is not known what comes."""
    def row(name, *arguments, tls=False):
        return (name, match(*arguments, port=port), tls)
    return {
        "STRICT": [row(http, "tls", *ISTIO_HTTP, tls=True), row(tcp, "tls", tls=True)],
        "DISABLE": [row(http, "raw_buffer", *PLAIN_HTTP), row(tcp, "raw_buffer")],
        "PERMISSIVE": [row(http, "tls", *ISTIO_HTTP, tls=True), row(http, "raw_buffer", *PLAIN_HTTP),
                       row(tcp, "tls", *ISTIO_BYTES, tls=True), row(tcp, "raw_buffer"), row(tcp, "tls")]}[kind]


@pytest.mark.parametrize("kind", ["STRICT", "PERMISSIVE", "DISABLE"])
def test_chains_of_virtual_inbound(kind):
    listener = made(WEB, mode(kind))["LDS"]["virtualInbound"]

    def known(port, http):
        name = f"0.0.0.0_{port}"
        if kind == "STRICT":
            return [(name, match("tls", port=port), True)]
        plain = (name, match("raw_buffer", port=port), False)
        if kind == "DISABLE":
            return [plain]
        foreign = [] if http else [(name, match("tls", port=port), False)]
        return [(name, match("tls", *ALL, port=port), True), *foreign, plain]
    assert chains(listener) == [
        FIRST, *sniffed(kind, "virtualInbound-catchall-http", "virtualInbound"), *known(8080, True),
        *known(9000, False), *known(9001, True), *sniffed(kind, "0.0.0.0_9002", "0.0.0.0_9002", 9002)]
    for chain in listener["filter_chains"]:
        if "transport_socket" in chain:
            assert chain["transport_socket"]["typed_config"]["require_client_certificate"] is True
    names = [one["name"].rpartition(".")[2] for one in listener["listener_filters"]]
    assert names == ["original_dst", "tls_inspector"] + (["http_inspector"] if kind != "STRICT" else [])


def disabled(listener, name):
    """The ports at which a listener filter does not look."""
    found = next(one for one in listener["listener_filters"] if one["name"].endswith(name))["filter_disabled"]
    return [one["destination_port_range"]["start"] for one in found.get("or_match", {"rules": [found]})["rules"]]


def test_modes_by_port_and_by_level():
    of_pod = object_of("PeerAuthentication", "own", "shop", {
        "selector": {"matchLabels": {"app": "web"}}, "mtls": {"mode": "STRICT"},
        "portLevelMtls": {8080: {"mode": "DISABLE"}, 9000: {"mode": "PERMISSIVE"}}})
    everything = made(WEB, mode("DISABLE"), mode("PERMISSIVE", "shop"), of_pod)
    listener = everything["LDS"]["virtualInbound"]
    assert chains(listener)[1:] == [
        *sniffed("STRICT", "virtualInbound-catchall-http", "virtualInbound"),
        ("0.0.0.0_8080", match("raw_buffer", port=8080), False),
        ("0.0.0.0_9000", match("tls", *ALL, port=9000), True), ("0.0.0.0_9000", match("tls", port=9000), False),
        ("0.0.0.0_9000", match("raw_buffer", port=9000), False), ("0.0.0.0_9001", match("tls", port=9001), True),
        *sniffed("STRICT", "0.0.0.0_9002", "0.0.0.0_9002", 9002)]
    assert disabled(listener, "tls_inspector") == [8080, 15006]
    # Callers know of a port without TLS by its endpoints.
    secure = {name: "envoy.transport_socket_match" in one["endpoints"][0]["lb_endpoints"][0]["metadata"][
        "filter_metadata"] for name, one in everything["EDS"].items()}
    assert {name.split("|")[1]: value for name, value in secure.items()} == {
        "80": False, "9000": True, "9001": True, "9002": True}
    # Nearer speaks first; without anything both are let in.
    assert len(chains(made(WEB, mode("DISABLE"), mode("STRICT", "shop"))["LDS"]["virtualInbound"])) == 3 + 3 + 2
    assert chains(made(WEB)["LDS"]["virtualInbound"])[1:6] == sniffed(
        "PERMISSIVE", "virtualInbound-catchall-http", "virtualInbound")
    assert disabled(made(WEB)["LDS"]["virtualInbound"], "http_inspector") == [8080, 9000, 9001, 15006]


def test_names_of_everything():
    rule = object_of("DestinationRule", "web", "shop", {"host": "web", "subsets": [{"name": "v1", "labels": {"v": "1"}}]})
    found = made(CLIENT, rule)
    assert set(found["CDS"]) == {"BlackHoleCluster", "PassthroughCluster", "InboundPassthroughCluster"} | {
        f"outbound|{port}|{subset}|web.shop.svc.cluster.local" for port in (80, 9000, 9001, 9002) for subset in ("", "v1")}
    assert set(found["EDS"]) == {name for name in found["CDS"] if "|" in name}
    assert set(found["LDS"]) == {"0.0.0.0_80", "10.96.0.10_9000", "0.0.0.0_9001", "10.96.0.10_9002", "virtualInbound",
                                 "virtualOutbound"}
    assert set(found["RDS"]) == {"80", "9001", "web.shop.svc.cluster.local:9002"}
    assert {name for name in made(WEB)["CDS"] if name.startswith("inbound")} == {
        f"inbound|{port}||" for port in (8080, 9000, 9001, 9002)}


def http_filters(chain):
    return [one["name"] for one in chain["filters"][-1]["typed_config"]["http_filters"]]


def test_filters_in_order():
    found = made(WEB)["LDS"]
    tail = ["envoy.filters.http.fault", "envoy.filters.http.cors", "istio.stats", "envoy.filters.http.router"]
    inbound = next(one for one in found["virtualInbound"]["filter_chains"] if one["name"] == "0.0.0.0_8080")
    assert [one["name"] for one in inbound["filters"]] == [
        "istio.metadata_exchange", "envoy.filters.network.http_connection_manager"]
    assert http_filters(inbound) == ["istio.metadata_exchange", "envoy.filters.http.grpc_stats", *tail]
    outbound = found["0.0.0.0_80"]
    assert http_filters(outbound["filter_chains"][0]) == [
        "istio.metadata_exchange", "envoy.filters.http.grpc_stats", "istio.alpn", *tail]
    assert outbound["bind_to_port"] is False and outbound["default_filter_chain"]["name"] == "PassthroughFilterChain"
    assert found["virtualOutbound"]["use_original_dst"] is True
    assert chains(found["virtualOutbound"]) == [
        ("virtualOutbound-blackhole", {"destination_port": 15001}, False), ("virtualOutbound-catchall-tcp", {}, False)]
    text = json.dumps(made(WEB, plain=True))
    assert "metadata_exchange" not in text and "istio.stats" not in text and "istio.alpn" not in text


def test_cluster_of_a_service():
    cluster = made(CLIENT)["CDS"]["outbound|80||web.shop.svc.cluster.local"]
    first, second = cluster["transport_socket_matches"]
    assert (first["name"], first["match"], second["name"], second["match"]) == (
        "tlsMode-istio", {"tlsMode": "istio"}, "tlsMode-disabled", {})
    tls = first["transport_socket"]["typed_config"]
    assert tls["sni"] == "outbound_.80_._.web.shop.svc.cluster.local"
    assert tls["common_tls_context"]["alpn_protocols"] == ISTIO_BYTES
    assert tls["common_tls_context"]["combined_validation_context"]["default_validation_context"] == {
        "match_subject_alt_names": [{"exact": "spiffe://cluster.local/ns/shop/sa/web"}]}
    assert cluster["metadata"]["filter_metadata"]["istio"] == {
        "services": [{"host": "web.shop.svc.cluster.local", "name": "web", "namespace": "shop"}]}


def test_destination_rule():
    rule = object_of("DestinationRule", "web", "shop", {"host": "web", "trafficPolicy": {
        "connectionPool": {"tcp": {"maxConnections": 7, "connectTimeout": "2s", "maxConnectionDuration": "1m"},
                           "http": {"http1MaxPendingRequests": 1, "http2MaxRequests": 2, "maxRetries": 3,
                                    "maxRequestsPerConnection": 4, "idleTimeout": "30s"}},
        "outlierDetection": {"consecutive5xxErrors": 5, "consecutiveGatewayErrors": 0, "interval": "1s",
                             "baseEjectionTime": "3s", "maxEjectionPercent": 50, "minHealthPercent": 20},
        "loadBalancer": {"simple": "ROUND_ROBIN", "warmup": {"duration": "10s"}},
        "portLevelSettings": [{"port": {"number": 9000}, "tls": {"mode": "ISTIO_MUTUAL"}}]},
        "subsets": [{"name": "v1", "labels": {"v": "1"}, "trafficPolicy": {
            "tls": {"mode": "DISABLE"}, "loadBalancer": {"consistentHash": {
                "httpCookie": {"name": "s", "ttl": "60s"}, "maglev": {"tableSize": 101}}}}}]})
    found = made(CLIENT, rule)
    cluster = found["CDS"]["outbound|80||web.shop.svc.cluster.local"]
    assert cluster["circuit_breakers"] == {"thresholds": [{
        "max_connections": 7, "max_pending_requests": 1, "max_requests": 2, "max_retries": 3, "track_remaining": True}]}
    assert cluster["outlier_detection"] == {
        "consecutive_5xx": 5, "enforcing_consecutive_5xx": 100, "consecutive_gateway_failure": 0, "interval": "1s",
        "enforcing_consecutive_gateway_failure": 0, "base_ejection_time": "3s", "max_ejection_percent": 50,
        "enforcing_success_rate": 0}
    assert cluster["common_lb_config"] == {"healthy_panic_threshold": {"value": 20.0}}
    assert cluster["round_robin_lb_config"]["slow_start_config"]["slow_start_window"] == "10s"
    options = next(iter(cluster["typed_extension_protocol_options"].values()))
    assert options["common_http_protocol_options"] == {
        "idle_timeout": "30s", "max_connection_duration": "60s", "max_requests_per_connection": 4}
    assert cluster["metadata"]["filter_metadata"]["istio"]["config"].endswith("/shop/destination-rule/web")
    subset = found["CDS"]["outbound|80|v1|web.shop.svc.cluster.local"]
    assert (subset["lb_policy"], subset["maglev_lb_config"]) == ("MAGLEV", {"table_size": "101"})
    assert "transport_socket" not in subset and "transport_socket_matches" not in subset
    of_port = found["CDS"]["outbound|9000||web.shop.svc.cluster.local"]
    assert "transport_socket_matches" not in of_port and "outlier_detection" not in of_port
    inbound = made(WEB, rule)["CDS"]["inbound|8080||"]
    assert inbound["circuit_breakers"] == cluster["circuit_breakers"]  # they hold on both sides


def test_gateway():
    front = """
apiVersion: v1
kind: Service
metadata: {name: front, namespace: istio-system}
spec: {selector: {istio: gateway}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 9000}]}
"""
    gateway = object_of("Gateway", "g", "shop", {"selector": {"istio": "gateway"}, "servers": [
        {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*.example.com"]},
        {"port": {"number": 9000, "name": "tcp", "protocol": "TCP"}, "hosts": ["*"]}]})
    virtual = object_of("VirtualService", "v", "shop", {
        "hosts": ["app.example.com", "app.other.com"], "gateways": ["g"],
        "http": [{"route": [{"destination": {"host": "web", "port": {"number": 80}}}]}],
        "tcp": [{"match": [{"port": 9000}], "route": [{"destination": {"host": "web", "port": {"number": 9000}}}]}]})
    found = made(GATEWAY, front, gateway, virtual)
    assert set(found["LDS"]) == {"0.0.0.0_8080", "0.0.0.0_9000"} and set(found["RDS"]) == {"http.8080"}
    assert found["LDS"]["0.0.0.0_8080"]["address"]["socket_address"]["port_value"] == 8080
    manager = found["LDS"]["0.0.0.0_8080"]["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["use_remote_address"] is True and manager["forward_client_cert_details"] == "SANITIZE_SET"
    assert [(host["name"], host["domains"]) for host in found["RDS"]["http.8080"]["virtual_hosts"]] == [
        ("app.example.com:80", ["app.example.com"])]
    assert [one["name"] for one in found["LDS"]["0.0.0.0_9000"]["filter_chains"][0]["filters"]] == [
        "istio.stats", "envoy.filters.network.tcp_proxy"]
    assert not any(name.startswith("inbound") for name in found["CDS"])
    nothing = made(GATEWAY, front, gateway)
    assert nothing["RDS"]["http.8080"]["virtual_hosts"] == [{"name": "blackhole:80", "domains": ["*"]}]
    assert made(CLIENT, front, gateway, virtual)["RDS"]["80"]["virtual_hosts"][1]["routes"][0]["name"] == "default"


# --- policies: (spec, what an HTTP chain asks, what a chain of bytes asks); None: no filter ---

def rows(key, *values):
    either, items = {"permissions": ("or_rules", "rules"), "principals": ("or_ids", "ids")}[key]
    return {either: {items: list(values)}}


def one_policy(permissions, principals):
    return {"permissions": [{"and_rules": {"rules": permissions}}], "principals": [{"and_ids": {"ids": principals}}]}


def name_of(*values):
    return rows("principals", *({"authenticated": {"principal_name": value}} for value in values))


ANY = [{"any": True}]
METHOD = {"header": {"name": ":method", "string_match": {"exact": "GET"}}}
SPIFFE = "spiffe://cluster.local/ns/shop/sa/a"
FORMS = {
    "principals": ({"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/a", "*", "*/sa/b", "cluster.local/*"],
                                         "notPrincipals": ["cluster.local/ns/x/sa/y"]}}]},
                   one_policy(ANY, [
                       name_of({"exact": SPIFFE}, {"safe_regex": {"regex": ".+"}}, {"suffix": "/sa/b"},
                               {"prefix": "spiffe://cluster.local/"}),
                       {"not_id": name_of({"exact": "spiffe://cluster.local/ns/x/sa/y"})}]), "same"),
    "namespaces": ({"from": [{"source": {"namespaces": ["shop", "dev-*"], "notNamespaces": ["evil"]}}]},
                   one_policy(ANY, [
                       name_of({"safe_regex": {"regex": ".*/ns/shop/.*"}}, {"safe_regex": {"regex": ".*/ns/dev-.*/.*"}}),
                       {"not_id": name_of({"safe_regex": {"regex": ".*/ns/evil/.*"}})}]), "same"),
    "addresses": ({"from": [{"source": {"ipBlocks": ["10.0.0.0/8"], "notRemoteIpBlocks": ["10.1.2.3"]}}]},
                  one_policy(ANY, [
                      rows("principals", {"direct_remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}}),
                      {"not_id": rows("principals", {"remote_ip": {"address_prefix": "10.1.2.3", "prefix_len": 32}})}]),
                  "same"),
    "ports": ({"to": [{"operation": {"ports": ["8080"], "notPorts": ["1"]}}]},
              one_policy([rows("permissions", {"destination_port": 8080}),
                          {"not_rule": rows("permissions", {"destination_port": 1})}], ANY), "same"),
    "requests": ({"to": [{"operation": {"methods": ["GET"], "paths": ["/a", "/b*", "*.c"], "notHosts": ["*.com"]}}]},
                 one_policy([
                     {"not_rule": rows("permissions", {"header": {
                         "name": ":authority", "string_match": {"suffix": ".com", "ignore_case": True}}})},
                     rows("permissions", METHOD),
                     rows("permissions", *({"url_path": {"path": path}} for path in (
                         {"exact": "/a"}, {"prefix": "/b"}, {"suffix": ".c"})))], ANY), "http only"),
    "when": ({"when": [{"key": "request.headers[x-a]", "values": ["1"], "notValues": ["2*"]}]},
             one_policy(ANY, [
                 rows("principals", {"header": {"name": "x-a", "string_match": {"exact": "1"}}}),
                 {"not_id": rows("principals", {"header": {"name": "x-a", "string_match": {"prefix": "2"}}})}]),
             "http only"),
    "when at a port": ({"when": [{"key": "destination.port", "values": ["9000"]},
                                 {"key": "source.namespace", "values": ["shop"]}]},
                       one_policy([rows("permissions", {"destination_port": 9000})],
                                  [name_of({"safe_regex": {"regex": ".*/ns/shop/.*"}})]), "same"),
    "anybody": ({}, one_policy(ANY, ANY), "same"),
}


def rbac(pod, *texts):
    """(rules of the HTTP filters, rules of the network filters) of a pod's inbound chains."""
    listener = made(pod, *texts)["LDS"]["virtualInbound"]
    by_name = {chain["name"]: chain["filters"] for chain in listener["filter_chains"]}
    http = by_name["0.0.0.0_8080"][-1]["typed_config"]["http_filters"]
    return tuple([one["typed_config"] for one in filters if one["name"].endswith(".rbac")]
                 for filters in (http, by_name["0.0.0.0_9000"]))


def policy(action, *rules, name="p", namespace="shop", **more):
    return object_of("AuthorizationPolicy", name, namespace, {
        **({"action": action} if action else {}), **({"rules": list(rules)} if rules else {}), **more})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("action, shown", [("DENY", {"action": "DENY"}), ("ALLOW", {}), ("AUDIT", {"action": "LOG"})])
def test_policy_forms(form, action, shown):
    rule, expected, on_bytes = FORMS[form]
    [http], [network] = rbac(WEB, policy(action, rule))
    key = "ns[shop]-policy[p]-rule[0]"
    assert http["rules"] == {**shown, "policies": {key: expected}}
    if on_bytes == "same":
        assert network["rules"] == http["rules"]
    elif action == "ALLOW":  # what cannot be known is not allowed
        assert network["rules"] == {}
    else:  # and is denied
        assert network["rules"] == {**shown, "policies": {key: one_policy(ANY, ANY)}}
    assert network["stat_prefix"] == "tcp."


def test_policies_together():
    http, network = rbac(WEB, policy("ALLOW", {}, name="a"), policy("DENY", {}, name="d"), policy("AUDIT", {}, name="l"),
                         policy("DENY", {}, name="mesh", namespace="istio-system"),
                         policy("DENY", {}, name="other", selector={"matchLabels": {"app": "other"}}),
                         policy("DENY", {}, name="elsewhere", namespace="default"))
    assert [one["rules"].get("action", "ALLOW") for one in http] == ["LOG", "DENY", "ALLOW"]
    assert set(http[1]["rules"]["policies"]) == {"ns[shop]-policy[d]-rule[0]", "ns[istio-system]-policy[mesh]-rule[0]"}
    assert len(network) == 3
    [nobody], _ = rbac(WEB, policy(None))  # an ALLOW without rules lets nobody in
    assert nobody["rules"] == {"policies": {"ns[shop]-policy[p]-rule[0]": {
        "permissions": ANY, "principals": [{"not_id": {"any": True}}]}}}
    assert rbac(WEB) == ([], [])


def test_policies_of_a_gateway():
    gateway = object_of("Gateway", "g", "shop", {"selector": {"istio": "gateway"}, "servers": [
        {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]})
    [listener] = made(GATEWAY, gateway, policy("DENY", {}, namespace="istio-system"))["LDS"].values()
    assert http_filters(listener["filter_chains"][0])[:2] == ["istio.metadata_exchange", "envoy.filters.http.rbac"]


def test_dry_run():
    text = policy("DENY", {}).replace("name: p", "name: p\n  annotations: {istio.io/dry-run: 'true'}")
    [http], _ = rbac(WEB, text)
    assert "rules" not in http and http["shadow_rules_stat_prefix"] == "istio_dry_run_deny_"
    assert http["shadow_rules"]["action"] == "DENY"
