# SPDX-License-Identifier: Apache-2.0
"""Sidecars in pods: what the application sends and gets is redirected to them, and nobody configured
the application. Needs root, ip and iptables; skipped with what is missing."""

import functools
import json
import re

import pytest

from tests.harness import namespaces
from tests.harness.client import Connection
from tests.harness.mesh import (BYTES_SERVICE, ELSEWHERE, IDENTITY, PERMISSIVE, SERVES, SERVICE, SNIFFED, STRICT,
                                TCP_PORT, Mesh, filter_of, http, listener, socket_address)
from tests.harness.proxy import Proxy, envoy_path
from tests.harness.upstream import wait_until

pytestmark = pytest.mark.skipif(namespaces.missing() is not None, reason=f"pods: {namespaces.missing()}")
CALLER = IDENTITY.format("near", "client")
SERVER = IDENTITY.format("far", "server")


@pytest.fixture
def mesh(binary, tmp_path, request):
    """mesh(**options of Mesh.start): everything runs; its end is checked after a good test."""
    made = []

    def start(**options):
        made.append(Mesh(tmp_path))
        made[-1].start(binary, **options)
        return made[-1]
    yield start
    for one in made:
        one.close(getattr(request.node, "went_well", False))


def connect(pod, address, port):
    with pod:
        return Connection(port, source="0.0.0.0", address=address)


def get(pod, address, port, path="/", host="h.test"):
    """One GET from a pod; gives the connection with the answer, or with how it ended."""
    conn = connect(pod, address, port)
    conn.send(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode(), ["GET"])
    conn.wait_responses(1)
    conn.close()
    return conn


def status(conn):
    return int(conn.received.split()[1]) if conn.received else conn.state


def header(raw, name):
    for line in raw.decode("latin-1").split("\r\n"):
        if line.lower().startswith(name + ":"):
            return line.split(":", 1)[1].strip()
    return None


def log_lines(sidecar, count):
    def lines():
        text = sidecar.log.read_text() if sidecar.log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]
    wait_until(lambda: len(lines()) >= count, f"{count} lines of {sidecar.name}'s log")
    return lines()


def test_request_over_mutual_tls(mesh):
    one = mesh()
    assert status(get(one.calls.pod, SERVICE, STRICT)) == 200
    app = one.apps[STRICT]
    assert app.callers == {"127.0.0.6"}
    assert header(app.take_seen()[0].raw, "x-forwarded-client-cert").endswith(f"URI={CALLER}")
    there, here = log_lines(one.calls, 1)[0], log_lines(one.serves, 1)[0]
    assert (there["cluster"], there["host"]) == ("strict", f"{SERVES}:{STRICT}")
    assert (here["cluster"], here["host"], here["remote"]) == ("local", f"{SERVES}:{STRICT}", "10.11.0.31")


def test_listeners_by_original_destination(mesh):
    """The exact address first, then any address with that port, then who accepted."""
    one = mesh()
    one.apps["http"] = one.app(one.elsewhere, STRICT)
    one.apps["tcp"] = one.app(one.elsewhere, 7777, "tcp")
    assert status(get(one.calls.pod, SERVICE, STRICT)) == 200
    assert status(get(one.calls.pod, ELSEWHERE, STRICT)) == 200
    conn = connect(one.calls.pod, ELSEWHERE, 7777)
    conn.send(b"hello")
    assert conn.wait_bytes(5) and conn.received == b"hello"
    conn.close()
    lines = log_lines(one.calls, 3)
    assert [line["cluster"] for line in lines] == ["strict", "passthrough", "passthrough"]
    assert [line["host"] for line in lines[1:]] == [f"{ELSEWHERE}:{STRICT}", f"{ELSEWHERE}:7777"]
    assert one.apps["tcp"].callers == one.apps["http"].callers == {"10.11.0.31"}


def test_plain_text(mesh):
    """Refused where a certificate is required, accepted where it is not."""
    one = mesh()
    assert status(get(one.elsewhere, SERVES, STRICT)) in ("eof", "rst")
    assert status(get(one.elsewhere, SERVES, PERMISSIVE)) == 200
    assert status(get(one.calls.pod, SERVICE, PERMISSIVE)) == 200
    plain, secure = one.apps[PERMISSIVE].take_seen()
    assert header(plain.raw, "x-forwarded-client-cert") is None
    assert CALLER in header(secure.raw, "x-forwarded-client-cert")
    refused = [line for line in log_lines(one.serves, 3) if line["flags"] == "NR"]
    assert len(refused) == 1 and refused[0]["details"] == "filter_chain_not_found"
    assert not one.apps[STRICT].seen and not one.apps[STRICT].accepted


def test_other_identity_is_not_asked(mesh):
    """The certificate of the server has not the name that the cluster asks for."""
    one = mesh()
    assert status(get(one.calls.pod, SERVICE, 8009)) == 503
    assert "CERTIFICATE_VERIFY_FAILED" in log_lines(one.calls, 1)[0]["upstream_failure"]
    assert not one.apps[STRICT].accepted


@pytest.mark.parametrize("who,let_in", [(CALLER, False), (IDENTITY.format("near", "client2"), True)])
def test_denied_by_identity(mesh, who, let_in):
    one = mesh(denied=who)
    answer = get(one.calls.pod, SERVICE, STRICT)
    assert (status(answer) == 200) == let_in
    conn = connect(one.calls.pod, BYTES_SERVICE, TCP_PORT)
    conn.send(b"hello")
    assert conn.wait_bytes(5) == let_in
    conn.close()
    assert status(get(one.elsewhere, SERVES, PERMISSIVE)) == 200, "a caller without identity"
    if not let_in:
        assert status(answer) == 403 and answer.received.endswith(b"RBAC: access denied")
        lines = log_lines(one.serves, 3)
        assert lines[0]["details"] == "rbac_access_denied_matched_policy[refused]"
        assert not one.apps[STRICT].accepted


def test_http_or_not(mesh):
    """A port of which nobody said what it carries."""
    one = mesh()
    assert status(get(one.elsewhere, SERVES, SNIFFED)) == 200
    conn = connect(one.elsewhere, SERVES, SNIFFED)
    conn.send(b"\0\1\2 is the begin of no request\r\n")
    one.apps[SNIFFED].wait("second connection", lambda: one.apps[SNIFFED].accepted >= 2)
    conn.close()
    protocols = [line["protocol"] for line in log_lines(one.serves, 2)]
    assert sorted(protocols, key=str) == ["HTTP/1.1", None]


def test_a_pod_calls_itself(mesh):
    """By the address of its own pod: what its sidecar sends comes back to it."""
    one = mesh()
    assert status(get(one.calls.pod, SERVES, PERMISSIVE)) == 200
    assert one.apps[PERMISSIVE].callers == {"127.0.0.6"}


def answering(name, address, port, **more):
    """A listener that says its name."""
    return listener(name, address, port, [{"filters": http(None, "/dev/null", direct=name)}], **more)


def redirected(binary):
    """Which listener answers for each address: (address, port) -> its name, or how that ended."""
    network = namespaces.Network()
    try:
        pod = network.pod("10.11.0.1")
        quiet = {"bind_to_port": False}
        config = {"admin": {"address": socket_address("127.0.0.1", 0)}, "static_resources": {"listeners": [
            answering("outbound", "0.0.0.0", namespaces.OUTBOUND_PORT, use_original_dst=True),
            answering("exact", "10.96.0.10", 8000, **quiet),
            answering("any address", "0.0.0.0", 8000, **quiet),
            answering("bound", "10.96.0.10", 8001, freebind=True),
            answering("another exact", "10.96.0.11", 8002, **quiet),
            answering("its own port", "10.96.0.11", namespaces.OUTBOUND_PORT, **quiet),
            answering("with filter", "0.0.0.0", 8003, **quiet, listener_filters=[
                filter_of("listener", "original_dst", "OriginalDst")]),
            answering("hands over", "0.0.0.0", 8004, **quiet, use_original_dst=True)]}}
        with Proxy(binary, config, pod=pod) as proxy:
            asked = [(f"10.96.0.{host}", port) for host in (10, 11) for port in (8000, 8001, 8002, 8003, 8004, 9000)]
            asked += [("10.96.0.11", namespaces.OUTBOUND_PORT), ("10.11.0.1", 8000), ("127.0.0.1", 8000)]
            answers = {to: get(pod, *to) for to in asked}
            stats = proxy.stats(r"^listener\..*downstream_cx_total$")
        return ({to: conn.received.partition(b"\r\n\r\n")[2].decode() or conn.state for to, conn in answers.items()},
                {name: value for name, value in stats.items() if "admin" not in name})
    finally:
        network.close()


def test_which_listener_a_redirected_connection_gets(binary):
    """The same as with the real Envoy where that is installed."""
    answers, counted = redirected(binary)
    assert answers["10.96.0.10", 8000] == "exact" and answers["10.96.0.11", 8000] == "any address"
    assert answers["10.96.0.11", 8002] == "another exact" and answers["10.96.0.10", 8002] == "outbound"
    assert answers["10.96.0.10", 9000] == "outbound"
    if envoy_path() not in (None, binary):
        assert (answers, counted) == redirected(envoy_path())


# Istio's own filters, which only Kobune has


def wrapped(name, url, **value):
    return {"name": name, "typed_config": {"@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                                           "type_url": f"type.googleapis.com/{url}", "value": value}}


EXCHANGE = wrapped("exchange", "envoy.tcp.metadataexchange.config.MetadataExchange", protocol="istio-peer-exchange")
STATS = wrapped("stats", "stats.PluginConfig", tcp_reporting_duration="0s")
HEADERS = [{"istio_headers": {}}]
TELLS = {"calls": wrapped("peer", "io.istio.http.peer_metadata.Config", upstream_propagation=HEADERS,
                          upstream_discovery=HEADERS),
         "serves": wrapped("peer", "io.istio.http.peer_metadata.Config", downstream_propagation=HEADERS,
                           downstream_discovery=HEADERS)}
SERVES_AS = {"metadata": {"filter_metadata": {"istio": {"services": [
    {"host": "shop.far.svc.cluster.test", "name": "shop", "namespace": "far"}]}}}}


def istio(side):
    """The filters of Istio by their place in this sidecar."""
    places = {"http": [TELLS[side], STATS], "tcp": [STATS], "network": [EXCHANGE], "cluster": [EXCHANGE]}
    return places.get


def workload(name):
    namespace = {"calls": "near", "serves": "far"}[name]
    return {"NAME": f"{name}-1", "NAMESPACE": namespace, "WORKLOAD_NAME": name, "CLUSTER_ID": "cluster1",
            "LABELS": {"app": f"{name}-app", "version": "v1", "service.istio.io/canonical-name": f"{name}-service",
                       "service.istio.io/canonical-revision": "r1"}}


def metric(sidecar, name, **want):
    """Waits for the metric's line with these labels; gives all its labels and the value."""
    def found():
        for line in sidecar.proxy.admin("/stats/prometheus")[1].decode().splitlines():
            if line.startswith(name + "{"):
                labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
                if all(labels.get(k) == v for k, v in want.items()):
                    return labels, line.rsplit(" ", 1)[1]
        return None
    return sidecar.proxy.wait_for(f"{name} with {want}", found)


def check_both_ends(one, name, value, **want):
    """The metric as each side reports it, with who called whom."""
    source, amount = metric(one.calls, name, reporter="source", **want)
    target, other = metric(one.serves, name, reporter="destination", **want)
    assert (amount, other) == (value, value)
    for labels in (source, target):
        who = {k: v for k, v in labels.items() if k in ("source_workload", "destination_workload")}
        assert who == {"source_workload": "calls", "destination_workload": "serves"}
        assert (labels["source_principal"], labels["destination_principal"]) == (CALLER, SERVER)
        assert (labels["source_app"], labels["destination_app"]) == ("calls-app", "serves-app")
        assert (labels["source_workload_namespace"], labels["destination_workload_namespace"]) == ("near", "far")
        assert labels["destination_canonical_service"] == "serves-service"
        assert (labels["source_version"], labels["destination_canonical_revision"]) == ("v1", "r1")
        assert labels["source_cluster"] == labels["destination_cluster"] == "cluster1"
    assert source["destination_service"] == "shop.far.svc.cluster.test"
    assert target["connection_security_policy"] == "mutual_tls"
    return source, target


@pytest.fixture
def istio_mesh(mesh, binary):
    """istio_mesh(**options): a mesh with Istio's filters."""
    if binary == envoy_path():
        pytest.skip("Envoy has not Istio's filters")
    return functools.partial(mesh, istio=istio, metadata=workload, service=SERVES_AS)


def test_requests_are_counted_at_both_ends(istio_mesh):
    one = istio_mesh()
    for _ in range(3):
        assert status(get(one.calls.pod, SERVICE, STRICT)) == 200
    source, target = check_both_ends(one, "istio_requests_total", "3", response_code="200")
    assert source["request_protocol"] == target["request_protocol"] == "http"
    assert source["response_flags"] == target["response_flags"] == "-"
    seen = one.apps[STRICT].take_seen()[0].raw
    assert b"x-envoy-peer" not in seen


def test_refused_requests_are_counted(istio_mesh):
    one = istio_mesh(denied=CALLER)
    assert status(get(one.calls.pod, SERVICE, STRICT)) == 403
    check_both_ends(one, "istio_requests_total", "1", response_code="403")


def test_connections_are_counted_at_both_ends(istio_mesh):
    one = istio_mesh()
    conn = connect(one.calls.pod, BYTES_SERVICE, TCP_PORT)
    conn.send(b"x" * 1000)
    assert conn.wait_bytes(1000) and conn.received == b"x" * 1000, "nothing else reaches either end"
    conn.close()
    for name, value in (("connections_opened", "1"), ("connections_closed", "1"),
                        ("sent_bytes", "1000"), ("received_bytes", "1000")):
        check_both_ends(one, f"istio_tcp_{name}_total", value, request_protocol="tcp")
    one.apps[TCP_PORT].wait_seen(1)
    assert one.apps[TCP_PORT].take_seen()[0].raw == b"x" * 1000 + b"<eof>"


def test_unknown_services_are_counted(istio_mesh):
    """What passes through to where no sidecar is: nobody says who that was."""
    one = istio_mesh()
    one.apps["tcp"] = one.app(one.elsewhere, 7777, "tcp")
    conn = connect(one.calls.pod, ELSEWHERE, 7777)
    conn.send(b"hello")
    assert conn.wait_bytes(5)
    conn.close()
    labels, value = metric(one.calls, "istio_tcp_received_bytes_total")
    assert value == "5" and labels["destination_workload"] == labels["destination_principal"] == "unknown"
    assert (labels["source_workload"], labels["connection_security_policy"]) == ("calls", "unknown")
