# SPDX-License-Identifier: Apache-2.0
"""A control plane under a test's command: it notes what the proxy asks, and says only what it is told."""

import collections
import queue
import threading
import time
from concurrent import futures

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2  # noqa: F401 (known by name, as the others)
from envoy.extensions.compression.gzip.compressor.v3 import gzip_pb2  # noqa: F401
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2  # noqa: F401
from envoy.extensions.filters.http.compressor.v3 import compressor_pb2  # noqa: F401
from envoy.extensions.filters.http.cors.v3 import cors_pb2  # noqa: F401
from envoy.extensions.filters.http.fault.v3 import fault_pb2  # noqa: F401
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2  # noqa: F401
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2  # noqa: F401
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2  # noqa: F401
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import (  # noqa: F401
    http_connection_manager_pb2)
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2  # noqa: F401
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2  # noqa: F401
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2  # noqa: F401
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from envoy.service.endpoint.v3 import eds_pb2_grpc
from envoy.service.secret.v3 import sds_pb2_grpc
from google.protobuf import any_pb2, json_format

from tests.harness.patience import DEADLINE_S

PREFIX = "type.googleapis.com/"
TYPES = {
    "CDS": cluster_pb2.Cluster,
    "EDS": endpoint_pb2.ClusterLoadAssignment,
    "LDS": listener_pb2.Listener,
    "RDS": route_pb2.RouteConfiguration,
    "SDS": secret_pb2.Secret,
    "ECDS": extension_pb2.TypedExtensionConfig,
}
URLS = {short: PREFIX + message.DESCRIPTOR.full_name for short, message in TYPES.items()}
SHORT = {url: short for short, url in URLS.items()}

Request = collections.namedtuple("Request", "stream type node version nonce names added removed initial error code",
                                 defaults=(0,))


def resource(short, fields):
    """A resource as Any: fields in JSON form, a message, or an Any as it is."""
    if isinstance(fields, any_pb2.Any):
        return fields
    packed = any_pb2.Any()
    packed.Pack(json_format.ParseDict(fields, TYPES[short]()) if isinstance(fields, dict) else fields)
    return packed


class ControlPlane(ads_pb2_grpc.AggregatedDiscoveryServiceServicer,
                   eds_pb2_grpc.EndpointDiscoveryServiceServicer,
                   sds_pb2_grpc.SecretDiscoveryServiceServicer):
    """Says things on the stream that was opened last. `requests` grows; `wait` looks for one and everything before it counts as seen."""

    def __init__(self, address="127.0.0.1:0", start=True):
        self.changed = threading.Condition()
        self.requests = []
        self.streams = 0
        self.out = None
        self.metadata = {}
        self.nonces = 0
        self.seen = 0
        self.server = None
        self.address = address
        self.port = 0
        if start:
            self.start()

    def start(self):
        self.server = grpc.server(futures.ThreadPoolExecutor(16))
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self, self.server)
        eds_pb2_grpc.add_EndpointDiscoveryServiceServicer_to_server(self, self.server)
        sds_pb2_grpc.add_SecretDiscoveryServiceServicer_to_server(self, self.server)
        address = f"127.0.0.1:{self.port}" if self.port else self.address
        self.port = self.server.add_insecure_port(address)
        self.server.start()

    def stop(self):
        if self.server is not None:  # first, so that nobody comes again meanwhile
            self.server.stop(0).wait()
        self.cut()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def StreamAggregatedResources(self, requests, context):
        yield from self._stream(requests, context, self._sotw)

    def DeltaAggregatedResources(self, requests, context):
        yield from self._stream(requests, context, self._delta)

    def StreamEndpoints(self, requests, context):
        yield from self._stream(requests, context, self._sotw)

    def DeltaEndpoints(self, requests, context):
        yield from self._stream(requests, context, self._delta)

    def StreamSecrets(self, requests, context):
        yield from self._stream(requests, context, self._sotw)

    def DeltaSecrets(self, requests, context):
        yield from self._stream(requests, context, self._delta)

    @staticmethod
    def _sotw(number, r):
        return Request(number, SHORT.get(r.type_url, r.type_url), r.node.id, r.version_info,
                       r.response_nonce, tuple(sorted(r.resource_names)), (), (), {},
                       r.error_detail.message, r.error_detail.code)

    @staticmethod
    def _delta(number, r):
        return Request(number, SHORT.get(r.type_url, r.type_url), r.node.id, "", r.response_nonce,
                       (), tuple(sorted(r.resource_names_subscribe)),
                       tuple(sorted(r.resource_names_unsubscribe)),
                       dict(r.initial_resource_versions), r.error_detail.message,
                       r.error_detail.code)

    def _stream(self, requests, context, note):
        out = queue.Queue()
        with self.changed:
            self.streams += 1
            number = self.streams
            self.out = out
            self.metadata = dict(context.invocation_metadata())
            self.changed.notify_all()

        def read():
            try:
                for request in requests:
                    with self.changed:
                        self.requests.append(note(number, request))
                        self.changed.notify_all()
            except grpc.RpcError:
                pass
            out.put(None)

        threading.Thread(target=read, daemon=True).start()
        while (message := out.get()) is not None:
            yield message

    def cut(self):
        """Ends the present stream, if there is one."""
        if self.out is not None:
            self.out.put(None)

    def nonce(self):
        self.nonces += 1
        return f"n{self.nonces}"

    def send(self, short, version, *resources, nonce=None):
        """State of the world; returns the nonce."""
        nonce = self.nonce() if nonce is None else nonce
        self.out.put(discovery_pb2.DiscoveryResponse(
            type_url=URLS[short], version_info=version, nonce=nonce,
            resources=[resource(short, r) for r in resources]))
        return nonce

    def send_delta(self, short, added=(), removed=(), version="s1", nonce=None):
        """Incremental; `added` are (name, version, resource or None); returns the nonce."""
        message = discovery_pb2.DeltaDiscoveryResponse(
            type_url=URLS[short], system_version_info=version,
            nonce=self.nonce() if nonce is None else nonce, removed_resources=list(removed))
        for name, resource_version, fields in added:
            one = message.resources.add(name=name, version=resource_version)
            if fields is not None:
                one.resource.CopyFrom(resource(short, fields))
        self.out.put(message)
        return message.nonce

    def wait(self, test, what="a request", deadline=DEADLINE_S):
        """The first request that was not seen yet and fits; those before it are seen from now on."""
        end = time.monotonic() + deadline
        with self.changed:
            while True:
                for i in range(self.seen, len(self.requests)):
                    if test(self.requests[i]):
                        self.seen = i + 1
                        return self.requests[i]
                left = end - time.monotonic()
                assert left > 0, f"{what} did not come; unseen: {self.requests[self.seen:]}"
                self.changed.wait(left)

    def find(self, test, what="a request", start=0, deadline=DEADLINE_S):
        """The number of the first request from `start` that fits; nothing becomes seen."""
        end = time.monotonic() + deadline
        with self.changed:
            while True:
                for i in range(start, len(self.requests)):
                    if test(self.requests[i]):
                        return i
                left = end - time.monotonic()
                assert left > 0, f"{what} did not come; from there: {self.requests[start:]}"
                self.changed.wait(left)

    def answer(self, nonce):
        """The answer to a response."""
        return self.wait(lambda r: r.nonce == nonce, f"the answer to {nonce}")

    def wait_streams(self, count, deadline=DEADLINE_S):
        with self.changed:
            assert self.changed.wait_for(lambda: self.streams >= count, deadline), "no new stream"


def cluster(name, **fields):
    """An EDS cluster, or what the fields say."""
    return {"name": name, "type": "EDS", "connect_timeout": "1s",
            "eds_cluster_config": {"eds_config": {"resource_api_version": "V3", "ads": {}}}, **fields}


def static_cluster(name, port, address="127.0.0.1", **fields):
    return {"name": name, "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": endpoints(name, port, address=address), **fields}


def endpoints(name, *ports, address="127.0.0.1"):
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [
        {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}}
        for port in ports]}]}


def routes(name, target):
    return {"name": name, "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": target}}]}]}


def listener(name, port, inline=None, rds=None, **fields):
    manager = {"@type": PREFIX + "envoy.extensions.filters.network.http_connection_manager.v3."
               "HttpConnectionManager", "stat_prefix": name,
               "http_filters": [{"name": "router", "typed_config": {
                   "@type": PREFIX + "envoy.extensions.filters.http.router.v3.Router"}}]}
    if rds:
        manager["rds"] = {"route_config_name": rds,
                          "config_source": {"resource_api_version": "V3", "ads": {}}}
    else:
        manager["route_config"] = inline
    return {"name": name, "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [{"name": "fc", "filters": [{"name": "hcm", "typed_config": manager}]}],
            **fields}


def bootstrap(port, delta, **source):
    """A proxy that has everything from the control plane at that port."""
    api = {"resource_api_version": "V3", "ads": {}, **source}
    return {
        "node": {"id": "node-1", "cluster": "tests"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "ads_config": {"api_type": "DELTA_GRPC" if delta else "GRPC",
                           "transport_api_version": "V3", "set_node_on_first_message_only": True,
                           "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
            "cds_config": api, "lds_config": api},
        "static_resources": {"clusters": [{
            "name": "xds", "type": "STATIC", "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": PREFIX + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}}}},
            "load_assignment": endpoints("xds", port)}]},
    }
