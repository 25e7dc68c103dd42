# SPDX-License-Identifier: Apache-2.0
"""Pieces that several makers of resources need, as the JSON form of the xDS messages.

Istio's own messages (istio.stats, istio.alpn) are not part of the public xDS API: the few fields that are used here are
described by hand, so that they can stand in an Any like the rest."""

from google.protobuf import descriptor_pb2, descriptor_pool

from .certificates import TRUST_DOMAIN
from .model import CLUSTER_ID, canonical_name

PREFIX = "type.googleapis.com/"
EXTENSIONS = "envoy.extensions."
ADS = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
ISTIO_ALPN = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"]
HTTP_OVER_ISTIO = ["istio-http/1.0", "istio-http/1.1", "istio-h2"]
BYTES_OVER_ISTIO = ["istio-peer-exchange", "istio"]
PLAIN_HTTP = ["http/1.1", "h2c"]
CIPHERS = [f"ECDHE-{kind}-{suite}" for suite in ("AES256-GCM-SHA384", "AES128-GCM-SHA256")
           for kind in ("ECDSA", "RSA")] + ["AES256-GCM-SHA384", "AES128-GCM-SHA256"]
ACCESS_LOG_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" '
    '%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" '
    '"%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% '
    '%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% '
    '%ROUTE_NAME%\n')


def _describe():
    kind = descriptor_pb2.FieldDescriptorProto
    stats = descriptor_pb2.FileDescriptorProto(name="handson/stats.proto", package="stats", syntax="proto3")
    stats.message_type.add(name="PluginConfig").field.add(
        name="disable_host_header_fallback", number=6, type=kind.TYPE_BOOL, label=kind.LABEL_OPTIONAL)
    package = "istio.envoy.config.filter.http.alpn.v2alpha1"
    alpn = descriptor_pb2.FileDescriptorProto(name="handson/alpn.proto", package=package, syntax="proto3")
    config = alpn.message_type.add(name="FilterConfig")
    protocol = config.enum_type.add(name="Protocol")
    for number, name in enumerate(("HTTP10", "HTTP11", "HTTP2")):
        protocol.value.add(name=name, number=number)
    override = config.nested_type.add(name="AlpnOverride")
    override.field.add(name="upstream_protocol", number=1, type=kind.TYPE_ENUM, label=kind.LABEL_OPTIONAL,
                       type_name=f".{package}.FilterConfig.Protocol")
    override.field.add(name="alpn_override", number=2, type=kind.TYPE_STRING, label=kind.LABEL_REPEATED)
    config.field.add(name="alpn_override", number=1, type=kind.TYPE_MESSAGE, label=kind.LABEL_REPEATED,
                     type_name=f".{package}.FilterConfig.AlpnOverride")
    for file in (stats, alpn):
        descriptor_pool.Default().Add(file)


_describe()


def any_of(kind, **fields):
    """A message of the type `kind` for a field that takes any."""
    return {"@type": PREFIX + kind, **fields}


def filter_of(name, kind, **fields):
    return {"name": name, "typed_config": any_of(kind, **fields)}


def typed_struct(name, kind, value):
    return filter_of(name, "udpa.type.v1.TypedStruct", type_url=PREFIX + kind, value=value)


def socket_address(address, port):
    return {"socket_address": {"address": address, "port_value": port}}


def duration(seconds):
    """1.5 as "1.5s", in the form of protobuf's JSON."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


# --- TLS: certificate and root come from the agent's socket ---

def _secret(name):
    return {"name": name, "sds_config": {"initial_fetch_timeout": "0s", "resource_api_version": "V3",
                                         "api_config_source": {
                                             "api_type": "GRPC", "transport_api_version": "V3",
                                             "set_node_on_first_message_only": True,
                                             "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}]}}}


def _common_tls(protocols, names, **parameters):
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3",
                       **parameters},
        "alpn_protocols": protocols,
        "tls_certificate_sds_secret_configs": [_secret("default")],
        "combined_validation_context": {
            "default_validation_context": {"match_subject_alt_names": names},
            "validation_context_sds_secret_config": _secret("ROOTCA")}}


def downstream_tls(http):
    """For chains that want a certificate of the mesh."""
    protocols = ["h2", "http/1.1"] if http else ["istio-peer-exchange", "h2", "http/1.1"]
    return filter_of("envoy.transport_sockets.tls", EXTENSIONS + "transport_sockets.tls.v3.DownstreamTlsContext",
                     common_tls_context=_common_tls(protocols, [{"prefix": f"spiffe://{TRUST_DOMAIN}/"}],
                                                    cipher_suites=CIPHERS),
                     require_client_certificate=True)


def upstream_tls(server_name, identities, http2):
    protocols = BYTES_OVER_ISTIO + (["h2"] if http2 else [])
    return filter_of("envoy.transport_sockets.tls", EXTENSIONS + "transport_sockets.tls.v3.UpstreamTlsContext",
                     common_tls_context=_common_tls(protocols, [{"exact": name} for name in identities]),
                     sni=server_name)


def raw_buffer():
    return filter_of("envoy.transport_sockets.raw_buffer", EXTENSIONS + "transport_sockets.raw_buffer.v3.RawBuffer")


# --- filters ---

def metadata_exchange():
    """Of connections: at a listener, and as a filter of clusters."""
    return typed_struct("istio.metadata_exchange", "envoy.tcp.metadataexchange.config.MetadataExchange",
                        {"protocol": "istio-peer-exchange", "enable_discovery": True})


def peer_metadata(side):
    """Of requests; `side` is downstream or upstream."""
    return typed_struct("istio.metadata_exchange", "io.istio.http.peer_metadata.Config", {
        f"{side}_discovery": [{"istio_headers": {}}, {"workload_discovery": {}}],
        f"{side}_propagation": [{"istio_headers": {}}]})


def stats(outbound):
    """A server does not take the name of a destination from a Host header."""
    return filter_of("istio.stats", "stats.PluginConfig",
                     **({} if outbound else {"disable_host_header_fallback": True}))


def alpn():
    return filter_of("istio.alpn", "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig", alpn_override=[
        {"upstream_protocol": protocol, "alpn_override": [mesh, "istio", plain]}
        for protocol, mesh, plain in (("HTTP10", "istio-http/1.0", "http/1.0"),
                                      ("HTTP11", "istio-http/1.1", "http/1.1"), ("HTTP2", "istio-h2", "h2"))])


def http_filter(name, kind, **fields):
    return filter_of(f"envoy.filters.http.{name}", f"{EXTENSIONS}filters.http.{name}.v3.{kind}", **fields)


def access_log(only=None):
    """To standard output, in Istio's default form; `only` is a response flag."""
    entry = filter_of("envoy.access_loggers.file", EXTENSIONS + "access_loggers.file.v3.FileAccessLog",
                      path="/dev/stdout",
                      log_format={"text_format_source": {"inline_string": ACCESS_LOG_FORMAT}})
    if only:
        entry["filter"] = {"response_flag_filter": {"flags": [only]}}
    return [entry]


def tracing(mesh, pod):
    """What a span would say; no collector is named."""
    def dry_run(tag, key):
        return {"tag": f"istio.authorization.dry_run.{tag}", "metadata": {
            "kind": {"request": {}}, "metadata_key": {"key": "envoy.filters.http.rbac", "path": [{"key": key}]}}}
    literals = {"istio.canonical_revision": pod.labels.get("version", "latest"),
                "istio.canonical_service": canonical_name(pod.labels, mesh.workload(pod)),
                "istio.cluster_id": CLUSTER_ID, "istio.mesh_id": TRUST_DOMAIN, "istio.namespace": pod.namespace}
    tags = []
    for action in ("allow", "deny"):
        tags.append(dry_run(f"{action}_policy.name", f"istio_dry_run_{action}_shadow_effective_policy_id"))
        tags.append(dry_run(f"{action}_policy.result", f"istio_dry_run_{action}_shadow_engine_result"))
    tags += [{"tag": tag, "literal": {"value": value}} for tag, value in literals.items()]
    return {"client_sampling": {"value": 100}, "random_sampling": {"value": 1}, "overall_sampling": {"value": 100},
            "custom_tags": tags}


def tcp_proxy(cluster, **more):
    return filter_of("envoy.filters.network.tcp_proxy", EXTENSIONS + "filters.network.tcp_proxy.v3.TcpProxy",
                     stat_prefix=cluster, cluster=cluster, **more)


def connection_manager(prefix, filters, routes, mesh, pod, **more):
    """`routes` is the name of a route configuration, or one."""
    where = {"rds": {"config_source": ADS, "route_config_name": routes}} if isinstance(routes, str) else {
        "route_config": routes}
    return filter_of(
        "envoy.filters.network.http_connection_manager",
        EXTENSIONS + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=prefix + ";", http_filters=filters, tracing=tracing(mesh, pod), access_log=access_log(),
        proxy_100_continue=True, stream_idle_timeout="0s", normalize_path=True,
        path_with_escaped_slashes_action="KEEP_UNCHANGED", upgrade_configs=[{"upgrade_type": "websocket"}],
        request_id_extension={"typed_config": any_of(EXTENSIONS + "request_id.uuid.v3.UuidRequestIdConfig",
                                                     use_request_id_for_trace_sampling=True)},
        **where, **{"use_remote_address": False, **more})
