# SPDX-License-Identifier: Apache-2.0
"""The bootstrap of a pod's proxy in the shape that Istio's agent gives it: the node with its
metadata, the control plane and the secrets on Unix sockets, two listeners for whoever watches, and
all else to be discovered over one stream.

What differs from the agent's: nothing listens on 15020 here, so /healthz/ready on 15021 asks the
proxy's own /ready; and it is the proxy that is asked, not a copy of its statistics."""

ADMIN_PORT, METRICS_PORT, READY_PORT = 15000, 15090, 15021
TYPE = "type.googleapis.com/envoy."
HTTP2 = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}}}}
DISCOVERED = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}

# Istio's: names of its own statistics carry their tags; only these are kept, so that a proxy with
# thousands of clusters stays small. The last line adds what a page about this small mesh shows.
STATS_KEPT = [
    {"prefix": one} for one in ("reporter=", "cluster_manager", "listener_manager", "server", "cluster.xds-grpc",
                                "wasm", "component", "istio")] + [
    {"suffix": one} for one in ("rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied")] + [
    {"safe_regex": {"regex": r"vhost\..*\.route\..*"}}] + [
    {"prefix": one} for one in ("cluster.outbound", "cluster.inbound", "listener.", "http.")]
STATS_TAGS = [{"tag_name": name, "regex": regex} for name, regex in (
    ("cluster_name", r"^cluster(\.(.+);)"),
    ("tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
    ("response_code", r"_rq(_(\d{3}))$"),
    ("response_code_class", r"_rq(_(\dxx))$"),
    ("http_conn_manager_listener_prefix", r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"),
    ("http_conn_manager_prefix", r"^http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"),
    ("listener_address", r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"),
    ("authz_enforce_result", r"rbac(\.(allowed|denied))"),
    ("authz_dry_run_action", r"(\.istio_dry_run_(allow|deny)_)"),
    ("authz_dry_run_result", r"(\.shadow_(allowed|denied))"))]


def _address(address, port):
    return {"socket_address": {"protocol": "TCP", "address": address, "port_value": port}}


def _cluster(name, endpoint, **more):
    return {"name": name, "alt_stat_name": f"{name};", "type": "STATIC", "connect_timeout": "1s",
            "lb_policy": "ROUND_ROBIN", "load_assignment": {"cluster_name": name, "endpoints": [{
                "lb_endpoints": [{"endpoint": {"address": endpoint}}]}]}, **more}


def _listener(port, prefix, cluster, stat_prefix, **route):
    manager = {
        "@type": TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type": "AUTO", "stat_prefix": stat_prefix,
        "route_config": {"virtual_hosts": [{"name": "backend", "domains": ["*"], "routes": [
            {"match": {"prefix": prefix}, "route": {"cluster": cluster, **route}}]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
            "@type": TYPE + "extensions.filters.http.router.v3.Router"}}]}
    return {"name": f"0.0.0.0_{port}", "address": _address("0.0.0.0", port), "ignore_global_conn_limit": True,
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager",
                                            "typed_config": manager}]}]}


def node(pod):
    """The proxy's name towards the control plane, and the metadata that Istio's filters tell peers."""
    app = pod.labels.get("app", pod.name)
    labels = {**pod.labels, "security.istio.io/tlsMode": "istio", "service.istio.io/canonical-name": app,
              "service.istio.io/canonical-revision": pod.labels.get("version", "latest")}
    return {
        "id": f"{pod.kind}~{pod.ip}~{pod.name}.{pod.namespace}~{pod.namespace}.svc.cluster.local",
        "cluster": f"{app}.{pod.namespace}", "locality": {}, "metadata": {
            "CLUSTER_ID": "Kubernetes", "MESH_ID": "cluster.local", "ISTIO_VERSION": "1.28.0",
            "INSTANCE_IPS": pod.ip, "INTERCEPTION_MODE": "REDIRECT", "LABELS": labels,
            "NAME": pod.name, "NAMESPACE": pod.namespace, "WORKLOAD_NAME": pod.name,
            "OWNER": f"kubernetes://apis/apps/v1/namespaces/{pod.namespace}/deployments/{pod.name}",
            "SERVICE_ACCOUNT": pod.service_account, "NODE_NAME": "this-machine",
            "ENVOY_PROMETHEUS_PORT": METRICS_PORT, "ENVOY_STATUS_PORT": READY_PORT}}


def bootstrap(pod):
    """The whole bootstrap as a dict. `pod` has name, namespace, ip, kind, labels, service_account,
    and `folder`, where the control plane opens the sockets XDS and SDS for it."""
    many = {"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}
    admin = _address("127.0.0.1", ADMIN_PORT)
    return {
        "node": node(pod),
        "stats_config": {"use_all_default_tags": False, "stats_tags": STATS_TAGS,
                         "stats_matcher": {"inclusion_list": {"patterns": STATS_KEPT}}},
        "admin": {"address": admin},
        "dynamic_resources": {
            "lds_config": DISCOVERED, "cds_config": DISCOVERED,
            "ads_config": {"api_type": "DELTA_GRPC", "set_node_on_first_message_only": True,
                           "transport_api_version": "V3",
                           "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]}},
        "static_resources": {
            "clusters": [
                _cluster("prometheus_stats", admin),
                _cluster("agent", admin),
                _cluster("sds-grpc", {"pipe": {"path": str(pod.folder / "SDS")}}, typed_extension_protocol_options=HTTP2),
                _cluster("xds-grpc", {"pipe": {"path": str(pod.folder / "XDS")}}, typed_extension_protocol_options=HTTP2,
                         max_requests_per_connection=1, circuit_breakers={"thresholds": [
                             {"priority": one, **many} for one in ("DEFAULT", "HIGH")]})],
            "listeners": [
                _listener(METRICS_PORT, "/stats/prometheus", "prometheus_stats", "stats"),
                _listener(READY_PORT, "/healthz/ready", "agent", "agent", prefix_rewrite="/ready")]}}
