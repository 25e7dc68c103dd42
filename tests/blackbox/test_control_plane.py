# SPDX-License-Identifier: Apache-2.0
"""Listeners and routes from a control plane: what it pushes, how it fails, what stays without it."""

import json
import socket
import time
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format

from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401 (known to Any)
from envoy.extensions.filters.network.http_connection_manager.v3 import (  # noqa: F401
    http_connection_manager_pb2)
from tests.harness import Proxy
from tests.harness.certs import Authority
from tests.harness.control_plane import LISTENER, ROUTE, ControlPlane
from tests.harness.patience import DEADLINE_S
from tests.harness.ports import Port

ANY = "type.googleapis.com/envoy.extensions."
HTTP2 = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": ANY + "upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}}}}


def bootstrap(port, api="DELTA_GRPC", **cluster):
    ads = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {"id": "nid", "cluster": "ncl"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": api, "transport_api_version": "V3",
                "grpc_services": [{
                    "envoy_grpc": {"cluster_name": "xds", "retry_policy": {"retry_back_off": {
                        "base_interval": "0.1s", "max_interval": "0.5s"}}},
                    "initial_metadata": [{"key": "token", "value": "t0"}]}]},
            "cds_config": ads, "lds_config": ads},
        "static_resources": {"clusters": [{
            "name": "xds", "type": "STATIC", "connect_timeout": "5s",
            "typed_extension_protocol_options": HTTP2,
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{
                "endpoint": {"address": {"socket_address": {
                    "address": "127.0.0.1", "port_value": port}}}}]}]}, **cluster}]}}


def listener(port, route="rc"):
    return json_format.ParseDict({
        "name": "main",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
            "@type": ANY + "filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "ing",
            "rds": {"route_config_name": route, "config_source": {
                "ads": {}, "resource_api_version": "V3"}},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                "@type": ANY + "filters.http.router.v3.Router"}}]}}]}]},
        listener_pb2.Listener())


def routes(body, name="rc", hosts=("*",), padding=0):
    message = {"name": name, "virtual_hosts": [
        {"name": f"v{i}", "domains": [host], "routes": [
            {"match": {"prefix": "/"}, "direct_response": {
                "status": 200, "body": {"inline_string": body}}}]}
        for i, host in enumerate(hosts)]}
    if padding:
        message["virtual_hosts"][0]["metadata"] = {"filter_metadata": {"a": {"b": "x" * padding}}}
    return json_format.ParseDict(message, route_pb2.RouteConfiguration())


class Mesh:
    """A control plane with one listener and its routes, and a proxy that was told where it is."""

    def __init__(self, binary):
        self.binary = binary
        self.port = Port()
        self.proxies = []
        self.use(ControlPlane())

    def use(self, plane):
        self.plane = plane
        self.plane.put(LISTENER, listener(self.port.number))
        self.plane.put(ROUTE, routes("one"))

    def proxy(self, *args, api="DELTA_GRPC", cluster=None, **options):
        self.proxies.append(Proxy(self.binary, bootstrap(self.plane.port, api, **(cluster or {})),
                                  args=args, concurrency=2, **options))
        return self.proxies[-1]

    def get(self, conn=None, host="h.test"):
        """Status and body of one GET."""
        with conn or socket.create_connection(("127.0.0.1", self.port.number), DEADLINE_S) as sock:
            return self.ask(sock, host)

    @staticmethod
    def ask(sock, host="h.test"):
        sock.settimeout(DEADLINE_S)
        sock.sendall(f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += sock.recv(65536) or pytest.fail(f"closed after {data!r}")
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += sock.recv(65536)
        return int(head.split()[1]), body.decode()

    def wait(self, what, test, deadline=DEADLINE_S):
        end = time.monotonic() + deadline
        while not test():
            assert time.monotonic() < end, f"never: {what}; nacks: {self.plane.nacks}"
            time.sleep(0.01)

    def end(self):
        for proxy in self.proxies:
            proxy.kill()
        self.plane.stop()
        self.port.release()


@pytest.fixture
def mesh(binary):
    made = Mesh(binary)
    try:
        yield made
    finally:
        made.end()


@pytest.mark.parametrize("api", ["DELTA_GRPC", "GRPC"])
def test_routes_change_under_a_connection(mesh, api):
    proxy = mesh.proxy(api=api)
    mesh.wait("first routes", lambda: mesh.plane.acks.count(ROUTE) >= 1)
    with socket.create_connection(("127.0.0.1", mesh.port.number), DEADLINE_S) as sock:
        assert mesh.ask(sock) == (200, "one")
        mesh.plane.put(ROUTE, routes("two"))
        mesh.wait("second routes", lambda: mesh.plane.acks.count(ROUTE) >= 2)
        mesh.wait("they serve", lambda: mesh.ask(sock) == (200, "two"))
        mesh.plane.put(ROUTE, routes("bad", hosts=("*", "*")))
        mesh.wait("the refusal", lambda: mesh.plane.nacks)
        assert mesh.plane.nacks[0][0] == ROUTE
        assert "Only a single wildcard domain is permitted in route rc" in mesh.plane.nacks[0][1]
        assert mesh.ask(sock) == (200, "two")
    stats = proxy.stats("rds.rc|downstream_cx_total|cluster.xds")
    assert stats["http.ing.rds.rc.config_reload"] == 2
    assert stats["http.ing.rds.rc.update_rejected"] == 1
    assert stats["cluster.xds.upstream_cx_http2_total"] == 1
    assert stats["cluster.xds.upstream_rq_active"] == 1
    said = mesh.plane.metadata[0]
    assert said["token"] == "t0" and said["x-envoy-internal"] == "true"
    proxy.stop()


@pytest.mark.parametrize("args", [(), ("--skip-deprecated-logs",), ("--component-log-level", "misc:error")])
def test_deprecated_fields_are_said_unless_told_not_to(mesh, args):
    old = routes("one")
    old.virtual_hosts[0].routes[0].ClearField("direct_response")
    old.virtual_hosts[0].routes[0].route.cluster = "xds"
    old.virtual_hosts[0].routes[0].route.max_grpc_timeout.FromSeconds(1)
    mesh.plane.put(ROUTE, old)
    proxy = mesh.proxy(*args)
    mesh.wait("routes", lambda: mesh.plane.acks.count(ROUTE) == 1)
    assert ("RouteAction.max_grpc_timeout" in proxy.stderr()) == (not args)
    proxy.stop()


def test_messages_of_many_megabytes(mesh):
    mesh.plane.put(ROUTE, routes("large", padding=10_000_000))
    proxy = mesh.proxy()
    mesh.wait("large routes", lambda: mesh.plane.acks.count(ROUTE) == 1)
    assert mesh.get() == (200, "large")
    mesh.plane.put(ROUTE, routes("larger", padding=30_000_000))
    mesh.wait("larger ones", lambda: mesh.get() == (200, "larger"))
    assert not mesh.plane.nacks
    proxy.stop()


def test_a_control_plane_over_tls(mesh, tmp_path):
    root = Authority(tmp_path, "root")
    chain, key = root.issue("plane", ["DNS:plane.test"])
    mesh.plane.stop()
    mesh.use(ControlPlane(credentials=grpc.ssl_server_credentials(
        [(Path(key).read_bytes(), Path(chain).read_bytes())])))

    def socket_for(authority, san):
        return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": ANY + "transport_sockets.tls.v3.UpstreamTlsContext", "sni": "plane.test",
            "common_tls_context": {"validation_context": {
                "trusted_ca": {"filename": str(authority.path)},
                "match_typed_subject_alt_names": [
                    {"san_type": "DNS", "matcher": {"exact": san}}]}}}}}
    proxy = mesh.proxy(cluster=socket_for(root, "plane.test"))
    assert mesh.get() == (200, "one")
    assert proxy.stats("cluster.xds.ssl.handshake")["cluster.xds.ssl.handshake"] == 1
    proxy.stop()
    proxy = mesh.proxy("-l", "debug", cluster=socket_for(root, "other.test"), wait_ready=False)
    proxy.wait_admin()
    proxy.wait_stat("cluster.xds.ssl.fail_verify_san", lambda count: count >= 1)
    proxy.wait_for("its reason", lambda: "remote_connection_failure|TLS_error" in proxy.stderr())
    proxy.stop()


def test_the_last_configuration_outlives_the_control_plane(mesh):
    proxy = mesh.proxy()
    assert mesh.get() == (200, "one")
    mesh.plane.stop()
    proxy.wait_stat("control_plane.connected_state", 0)
    assert mesh.get() == (200, "one")
    mesh.plane.put(ROUTE, routes("two"))
    mesh.plane.restart()
    mesh.wait("what changed meanwhile", lambda: mesh.get() == (200, "two"))
    assert len(mesh.plane.metadata) == 2 and set(mesh.plane.nodes) == {"nid"}
    proxy.stop()


def test_a_restart_serves_from_the_cache(mesh, tmp_path):
    cache = ("--config-cache", str(tmp_path))
    mesh.plane.put(ROUTE, routes("kept"))
    first = mesh.proxy(*cache)
    assert mesh.get() == (200, "kept")
    first.stop()
    assert (tmp_path / "kobune-config-cache").stat().st_mode & 0o777 == 0o600
    mesh.plane.stop()
    second = mesh.proxy(*cache)
    assert mesh.get() == (200, "kept")
    assert json.loads(second.admin("/server_info")[1])["kobune_config_cache"] == "serving"
    assert "is served from" in second.stderr()
    mesh.plane.put(ROUTE, routes("fresh"))
    mesh.plane.restart()
    mesh.wait("the control plane again", lambda: mesh.get() == (200, "fresh"))
    assert "kobune_config_cache" not in json.loads(second.admin("/server_info")[1])
    second.stop()


def test_what_is_gone_when_the_control_plane_is_back_goes(mesh, tmp_path):
    cache = ("--config-cache", str(tmp_path))
    first = mesh.proxy(*cache)
    assert mesh.get() == (200, "one")
    first.stop()
    mesh.plane.stop()
    second = mesh.proxy(*cache)
    assert mesh.get() == (200, "one")
    mesh.plane.put(LISTENER, gone=["main"])
    mesh.plane.restart()
    second.wait_stat("listener_manager.listener_removed", 1)
    second.stop()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "folder", "other node"])
def test_a_broken_cache_is_ignored(mesh, tmp_path, damage):
    cache = ("--config-cache", str(tmp_path))
    file = tmp_path / "kobune-config-cache"
    first = mesh.proxy(*cache)
    mesh.wait("first routes", lambda: mesh.plane.acks.count(ROUTE) == 1)
    assert mesh.get() == (200, "one")
    first.stop()
    held = bytearray(file.read_bytes())
    more = ()
    if damage == "cut":
        file.write_bytes(held[:-7])
    elif damage == "flipped":
        held[len(held) // 2] ^= 4
        file.write_bytes(held)
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        more = ("--service-node", "another")
    second = mesh.proxy(*cache, *more)
    if damage != "other node":
        assert "kobune-config-cache' is ignored" in second.stderr()
    mesh.wait("fresh routes", lambda: mesh.plane.acks.count(ROUTE) == 2)
    assert mesh.get() == (200, "one")
    second.stop()
