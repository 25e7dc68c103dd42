# SPDX-License-Identifier: Apache-2.0
"""Two sidecars in pods, told everything by a control plane each: what the client's application
sends goes by the outbound listeners, over mutual TLS, to the inbound listener of the other pod.

    calls      10.11.0.31   calls from its application are captured
    serves     10.11.0.11   applications at the ports below
    elsewhere  10.11.0.99   no sidecar, and nothing captured

`serves` has the applications STRICT (HTTP, callers need a certificate), PERMISSIVE (HTTP, also
plain), TCP (bytes, certificate), and SNIFFED (plain HTTP or bytes, whatever comes)."""

from google.protobuf import json_format

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2  # noqa: F401 (known to Any)
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2  # noqa: F401
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2  # noqa: F401
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2  # noqa: F401
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import (  # noqa: F401
    http_connection_manager_pb2)
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2  # noqa: F401
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2  # noqa: F401
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2  # noqa: F401

from udpa.type.v1 import typed_struct_pb2  # noqa: F401

from .certs import Authority
from .config import HCM, HTTP_LOG, ROUTER, TCP, TCP_LOG, TYPE, log_entry
from .control_plane import CLUSTER, LISTENER, SECRET, ControlPlane
from .namespaces import INBOUND_PORT, LEAVES_FROM, OUTBOUND_PORT, Network
from .proxy import Proxy
from .upstream import Upstream

STRICT, PERMISSIVE, TCP_PORT, SNIFFED = 8000, 8001, 9000, 8002
SERVICE, BYTES_SERVICE = "10.96.0.10", "10.96.0.20"  # addresses that no pod has
CALLS, SERVES, ELSEWHERE = "10.11.0.31", "10.11.0.11", "10.11.0.99"
IDENTITY = "spiffe://cluster.test/ns/{}/sa/{}"
ADS = {"ads": {}, "resource_api_version": "V3"}
EXTENSIONS = TYPE + "extensions."
HTTP2 = {EXTENSIONS.removeprefix("type.googleapis.com/") + "upstreams.http.v3.HttpProtocolOptions": {
    "@type": EXTENSIONS + "upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}}}}


def bootstrap(name, socket_path, metadata):
    return {
        "node": {"id": f"sidecar~{name}", "cluster": name, "metadata": metadata},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3",
                           "grpc_services": [{"envoy_grpc": {"cluster_name": "plane"}}]},
            "cds_config": ADS, "lds_config": ADS},
        "static_resources": {"clusters": [{
            "name": "plane", "type": "STATIC", "typed_extension_protocol_options": HTTP2,
            "load_assignment": {"cluster_name": "plane", "endpoints": [{"lb_endpoints": [{
                "endpoint": {"address": {"pipe": {"path": str(socket_path)}}}}]}]}}]}}


def socket_address(address, port):
    return {"socket_address": {"address": address, "port_value": port}}


def certificate_and_root(protocols=()):
    return {"tls_certificate_sds_secret_configs": [{"name": "own", "sds_config": ADS}],
            "validation_context_sds_secret_config": {"name": "root", "sds_config": ADS},
            "alpn_protocols": list(protocols)}


def tls_upstream(identity, protocols):
    common = certificate_and_root(protocols)
    root = common.pop("validation_context_sds_secret_config")
    common["combined_validation_context"] = {
        "validation_context_sds_secret_config": root, "default_validation_context": {
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": identity}}]}}
    return {"name": "tls", "typed_config": {
        "@type": EXTENSIONS + "transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": common, "sni": "service.test"}}


def tls_downstream(protocols):
    return {"name": "tls", "typed_config": {
        "@type": EXTENSIONS + "transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": certificate_and_root(protocols), "require_client_certificate": True}}


def filter_of(kind, name, message="", **fields):
    return {"name": f"{kind}.{name}", "typed_config": {
        "@type": f"{EXTENSIONS}filters.{kind}.{name}.v3.{message}", **fields}}


def http(cluster, log, filters=(), direct=None, **more):
    """A connection manager with one route to the cluster, or to an answer."""
    action = {"direct_response": {"status": 200, "body": {"inline_string": direct}}} if direct else {
        "route": {"cluster": cluster}}
    return [{"name": "hcm", "typed_config": {
        "@type": HCM, "stat_prefix": cluster or direct, "access_log": [log_entry(HTTP_LOG, log)],
        "http_filters": [*filters, {"name": "router", "typed_config": {"@type": ROUTER}}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, **action}]}]}, **more}}]


def tcp(cluster, log, filters=()):
    return [*filters, {"name": "tcp", "typed_config": {
        "@type": TCP, "stat_prefix": cluster, "cluster": cluster,
        "access_log": [log_entry(TCP_LOG, log)]}}]


def passthrough(name, **more):
    """The hosts are the addresses that connections were for."""
    return {"name": name, "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "5s", **more}


def fixed(name, address, port, **more):
    return {"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": {
        "cluster_name": name, "endpoints": [{"lb_endpoints": [{
            "endpoint": {"address": socket_address(address, port)}}]}]}, **more}


def listener(name, address, port, chains, **more):
    return {"name": name, "address": socket_address(address, port), "filter_chains": chains, **more}


def outbound(log, istio, service):
    """What `calls` is told. `istio(place)` gives the filters that stand there, `service` are more
    fields of the service's clusters."""
    def handed_over(name, address, port, filters, **more):
        return listener(name, address, port, [{"filters": filters}], bind_to_port=False,
                        traffic_direction="OUTBOUND", **more)
    server = IDENTITY.format("far", "server")
    exchange = {"filters": istio("cluster")}
    secure = {"transport_socket": tls_upstream(server, ["istio-peer-exchange", "istio"]), **service}
    clusters = [
        passthrough("passthrough"),
        fixed("strict", SERVES, STRICT, **secure), fixed("permissive", SERVES, PERMISSIVE, **secure),
        fixed("bytes", SERVES, TCP_PORT, **secure, **exchange),
        fixed("wrong identity", SERVES, STRICT,
              transport_socket=tls_upstream(IDENTITY.format("far", "other"), ["istio"]))]
    listeners = [
        listener("outbound", "0.0.0.0", OUTBOUND_PORT,
                 [{"filters": tcp("passthrough", log, istio("tcp"))}], use_original_dst=True,
                 traffic_direction="OUTBOUND"),
        handed_over("exact", SERVICE, STRICT, http("strict", log, istio("http"))),
        handed_over("permissive", SERVICE, PERMISSIVE, http("permissive", log, istio("http"))),
        handed_over("misled", SERVICE, 8009, http("wrong identity", log, istio("http"))),
        handed_over("bytes", BYTES_SERVICE, TCP_PORT, tcp("bytes", log, istio("tcp"))),
        handed_over("any address", "0.0.0.0", STRICT, http("passthrough", log, istio("http")))]
    return clusters, listeners


def deny(principal, kind):
    """Whoever has this identity is refused."""
    policy = {"permissions": [{"any": True}],
              "principals": [{"authenticated": {"principal_name": {"exact": principal}}}]}
    more = {"stat_prefix": "tcp."} if kind == "network" else {}
    return filter_of(kind, "rbac", "RBAC", rules={"action": "DENY", "policies": {"refused": policy}}, **more)


def inbound(log, istio, denied):
    """What `serves` is told."""
    peers = ["istio-peer-exchange", "istio"]
    secure = {"transport_socket": tls_downstream(peers)}
    xfcc = {"forward_client_cert_details": "APPEND_FORWARD", "set_current_client_cert_details": {"uri": True}}
    local = "local"

    def match(port, transport, *protocols):
        return {"filter_chain_match": {"destination_port": port, "transport_protocol": transport,
                                       "application_protocols": list(protocols)}}

    def web(**more):
        return {"filters": http(local, log, [*istio("http"), deny(denied, "http")], **more)}
    stream = {"filters": tcp(local, log, [*istio("network"), deny(denied, "network"), *istio("tcp")])}
    chains = [
        {**match(STRICT, "tls"), **secure, **web(**xfcc)},
        {**match(PERMISSIVE, "tls", *peers), **secure, **web(**xfcc)},
        {**match(PERMISSIVE, "raw_buffer"), **web()},
        {**match(TCP_PORT, "tls"), **secure, **stream},
        {**match(SNIFFED, "raw_buffer", "http/1.1"), **web()},
        {**match(SNIFFED, "raw_buffer"), **stream}]
    inspectors = [filter_of("listener", "original_dst", "OriginalDst"),
                  filter_of("listener", "tls_inspector", "TlsInspector"),
                  filter_of("listener", "http_inspector", "HttpInspector")]
    return [passthrough(local, upstream_bind_config={"source_address": {"address": LEAVES_FROM, "port_value": 0}})], [
        listener("inbound", "0.0.0.0", INBOUND_PORT, chains, listener_filters=inspectors,
                 listener_filters_timeout="0s", continue_on_listener_filters_timeout=True,
                 traffic_direction="INBOUND", access_log=[log_entry(TCP_LOG, log, filter={
                     "response_flag_filter": {"flags": ["NR"]}})])]


class Sidecar:
    """A pod, its control plane, and its proxy once `start` was called."""

    def __init__(self, pod, folder, name):
        self.pod, self.folder, self.name = pod, folder, name
        self.path = folder / f"{name}.sock"
        self.log = folder / f"{name}.log"
        self.plane = ControlPlane(path=self.path)
        self.proxy = None

    def tell(self, clusters, listeners):
        self.plane.put(CLUSTER, *(json_format.ParseDict(c, cluster_pb2.Cluster()) for c in clusters))
        self.plane.put(LISTENER, *(json_format.ParseDict(one, listener_pb2.Listener()) for one in listeners))

    def identify(self, authority, sans):
        cert, key = authority.issue(self.name, sans)
        self.plane.put(SECRET, *(json_format.ParseDict(one, secret_pb2.Secret()) for one in (
            {"name": "own", "tls_certificate": {"certificate_chain": {"inline_string": cert.read_text()},
                                                "private_key": {"inline_string": key.read_text()}}},
            {"name": "root", "validation_context": {
                "trusted_ca": {"inline_string": authority.path.read_text()}}})))

    def start(self, binary, metadata=None):
        self.proxy = Proxy(binary, bootstrap(self.name, self.path, metadata or {}), name=self.name, pod=self.pod)

    def end(self, good):
        if self.proxy and good:
            self.proxy.stop()
        elif self.proxy:
            self.proxy.kill()
        self.plane.stop()


class Mesh:
    """Both sidecars, the applications, and the pods: `close` leaves nothing of them."""

    def __init__(self, folder):
        self.network = Network()
        self.apps = {}
        self.sidecars = []
        self.calls = self._sidecar(CALLS, folder, "calls")
        self.serves = self._sidecar(SERVES, folder, "serves")
        self.elsewhere = self.network.pod(ELSEWHERE, captured=False)
        self.authority = Authority(folder)
        for port, mode in ((STRICT, "http"), (PERMISSIVE, "http"), (TCP_PORT, "tcp"), (SNIFFED, "http")):
            self.apps[port] = self.app(self.serves.pod, port, mode)

    def _sidecar(self, address, folder, name):
        self.sidecars.append(Sidecar(self.network.pod(address), folder, name))
        return self.sidecars[-1]

    @staticmethod
    def app(pod, port, mode="http"):
        with pod:
            return Upstream(f"{pod.address}:{port}", mode, address=pod.address, port=port)

    def start(self, binary, istio=lambda side: lambda place: [], denied="nobody", metadata=None, service=None,
              caller=IDENTITY.format("near", "client")):
        """`denied` is the identity that `serves` lets not in, `caller` that of `calls`."""
        self.calls.tell(*outbound(str(self.calls.log), istio("calls"), service or {}))
        self.serves.tell(*inbound(str(self.serves.log), istio("serves"), denied))
        self.calls.identify(self.authority, [f"URI:{caller}"])
        self.serves.identify(self.authority, [f"URI:{IDENTITY.format('far', 'server')}"])
        for one in self.sidecars:
            one.start(binary, metadata and metadata(one.name))

    def close(self, good=True):
        for app in self.apps.values():
            app.close_idle()
        try:
            for one in self.sidecars:
                one.end(good)
        finally:
            for one in self.sidecars:
                if one.proxy:
                    one.proxy.kill()
            for app in self.apps.values():
                app.stop()
            self.network.close()
