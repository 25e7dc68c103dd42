# SPDX-License-Identifier: Apache-2.0
"""The resources of one pod: the makers' JSON form turned into messages, each with a version of its own.

A version is a digest of the content: the same content has the same version after a restart too, so that a proxy which
comes back is sent only what changed meanwhile."""

import json
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
# The rest is known to Any by being imported.
from envoy.extensions.access_loggers.file.v3 import file_pb2  # noqa: F401
from envoy.extensions.filters.http.cors.v3 import cors_pb2  # noqa: F401
from envoy.extensions.filters.http.fault.v3 import fault_pb2  # noqa: F401
from envoy.extensions.filters.http.grpc_stats.v3 import config_pb2  # noqa: F401
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2  # noqa: F401
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2  # noqa: F401
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2  # noqa: F401
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2  # noqa: F401
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2  # noqa: F401
from envoy.extensions.request_id.uuid.v3 import uuid_pb2  # noqa: F401
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2  # noqa: F401
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2  # noqa: F401
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2  # noqa: F401
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2  # noqa: F401
from google.protobuf import any_pb2, descriptor_pool, json_format, message_factory
from udpa.type.v1 import typed_struct_pb2  # noqa: F401

from .clusters import clusters, load_assignments
from .listeners import listeners
from .routes import route_configurations
from .shapes import PREFIX

CDS, EDS, LDS, RDS = (PREFIX + message.DESCRIPTOR.full_name for message in (
    cluster_pb2.Cluster, endpoint_pb2.ClusterLoadAssignment, listener_pb2.Listener, route_pb2.RouteConfiguration))
ORDER = (CDS, EDS, LDS, RDS)
SHORT = {CDS: "CDS", EDS: "EDS", LDS: "LDS", RDS: "RDS"}
_MAKERS = {CDS: (clusters, "name", cluster_pb2.Cluster),
           EDS: (load_assignments, "cluster_name", endpoint_pb2.ClusterLoadAssignment),
           LDS: (listeners, "name", listener_pb2.Listener),
           RDS: (route_configurations, "name", route_pb2.RouteConfiguration)}


@dataclass(frozen=True)
class Resource:
    name: str
    version: str
    body: any_pb2.Any = field(compare=False, repr=False)


@lru_cache(maxsize=4096)
def _resource(kind, text):
    """Pods have most of their clusters and routes in common."""
    _, name, message = _MAKERS[kind]
    fields = json.loads(text)
    body = any_pb2.Any()
    body.Pack(_settle(json_format.ParseDict(fields, message())), deterministic=True)
    return Resource(fields[name], sha256(body.value).hexdigest()[:16], body)


def _settle(message):
    """The order of maps inside of an Any differs from process to process; a proxy would take that for a change."""
    if isinstance(message, any_pb2.Any):
        described = descriptor_pool.Default().FindMessageTypeByName(message.TypeName())
        inner = message_factory.GetMessageClass(described).FromString(message.value)
        message.value = _settle(inner).SerializeToString(deterministic=True)
        return message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            of_messages = field.message_type.fields_by_name["value"].message_type is not None
            rows = value.values() if of_messages else ()
        else:
            rows = value if field.is_repeated else [value]
        for row in rows:
            _settle(row)
    return message


def without_istio(value):
    """The same without Istio's own filters, for a proxy that does not have them."""
    if isinstance(value, dict):
        return {key: without_istio(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_istio(one) for one in value
                if not (isinstance(one, dict) and str(one.get("name", "")).startswith("istio.")
                        and "typed_config" in one)]
    return value


def snapshot(mesh, pod, plain=False):
    """{type URL: {name: Resource}} for one pod; `plain`: without Istio's own filters."""
    made = {}
    for kind in ORDER:
        found = [without_istio(fields) if plain else fields for fields in _MAKERS[kind][0](mesh, pod)]
        rows = [_resource(kind, json.dumps(fields, sort_keys=True)) for fields in found]
        made[kind] = {row.name: row for row in rows}
    return made
