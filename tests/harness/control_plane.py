# SPDX-License-Identifier: Apache-2.0
"""A control plane: ADS, incremental or state of the world, over grpcio, with what was asked kept."""

import queue
import threading
from concurrent import futures

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2

from .ports import Port

TYPE = "type.googleapis.com/envoy."
CLUSTER = TYPE + "config.cluster.v3.Cluster"
LISTENER = TYPE + "config.listener.v3.Listener"
ROUTE = TYPE + "config.route.v3.RouteConfiguration"
EXTENSION = TYPE + "config.core.v3.TypedExtensionConfig"
SECRET = TYPE + "extensions.transport_sockets.tls.v3.Secret"
WILDCARD = (CLUSTER, LISTENER)
BYTES_MAX = 512 * 1024 * 1024


class ControlPlane:
    """Serves `resources[type_url][name] = message`; `put` changes them and tells every stream.
    At a port of 127.0.0.1 that stays ours while the server is away, or at a Unix socket, which is in
    reach of every network namespace."""

    def __init__(self, credentials=None, path=None):
        self.credentials = credentials
        self.path = path
        self.lock = threading.Lock()
        self.version = 0
        self.resources = {}
        self.versions = {}
        self.streams = []
        self.nacks = []
        self.acks = []
        self.metadata = []
        self.nodes = []
        self.reserved = None if path else Port()
        self.port = self._start(0 if path else self.reserved.number)

    def _start(self, port):
        self.server = grpc.server(futures.ThreadPoolExecutor(16), options=[
            ("grpc.max_send_message_length", BYTES_MAX), ("grpc.so_reuseport", 1)])
        service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
        methods = {
            "DeltaAggregatedResources": (self._delta, discovery_pb2.DeltaDiscoveryRequest),
            "StreamAggregatedResources": (self._sotw, discovery_pb2.DiscoveryRequest),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {
            name: grpc.stream_stream_rpc_method_handler(
                call, request.FromString, lambda message: message.SerializeToString())
            for name, (call, request) in methods.items()}),))
        address = f"unix:{self.path}" if self.path else f"127.0.0.1:{port}"
        port = (self.server.add_secure_port(address, self.credentials) if self.credentials
                else self.server.add_insecure_port(address))
        self.server.start()
        return port

    def put(self, type_url, *messages, gone=()):
        with self.lock:
            self.version += 1
            held = self.resources.setdefault(type_url, {})
            for message in messages:
                name = message.name
                held[name] = message
                self.versions[type_url, name] = str(self.version)
            for name in gone:
                del held[name]
            streams = list(self.streams)
        for stream in streams:
            stream.put(("changed", type_url))

    def _note(self, request):
        if request.HasField("error_detail"):
            self.nacks.append((request.type_url, request.error_detail.message))
        elif request.response_nonce:
            self.acks.append(request.type_url)

    def _events(self, requests, context):
        events = queue.Queue()
        with self.lock:
            self.streams.append(events)
            self.metadata.append(dict(context.invocation_metadata()))

        def read():
            try:
                for request in requests:
                    events.put(("request", request))
            except grpc.RpcError:
                pass
            events.put(("end", None))
        threading.Thread(target=read, daemon=True).start()
        context.add_callback(lambda: events.put(("end", None)))
        while True:
            what, value = events.get()
            if what == "end":
                with self.lock:
                    self.streams.remove(events)
                return
            yield what, value

    def _packed(self, type_url, name):
        packed = any_pb2.Any()
        packed.Pack(self.resources[type_url][name])
        return packed

    def _delta(self, requests, context):
        wanted, sent, nonce = {}, {}, 0
        for what, value in self._events(requests, context):
            if what == "request":
                self._note(value)
                if value.HasField("node"):
                    self.nodes.append(value.node.id)
                type_url = value.type_url
                names = wanted.setdefault(type_url, set())
                first = type_url not in sent
                known = sent.setdefault(type_url, dict(value.initial_resource_versions))
                names.update(value.resource_names_subscribe)
                names.difference_update(value.resource_names_unsubscribe)
                for name in value.resource_names_subscribe:
                    known.pop(name, None)
                if not first and not value.resource_names_subscribe:
                    continue
            else:
                type_url, first = value, False
                if type_url not in sent:
                    continue
            with self.lock:
                held = self.resources.get(type_url, {})
                names = set(held) if type_url in WILDCARD else wanted[type_url] & set(held)
                known = sent[type_url]
                new = [n for n in sorted(names) if known.get(n) != self.versions[type_url, n]]
                removed = [n for n in known if n not in held]
                if not new and not removed and not (first and type_url in WILDCARD):
                    continue
                nonce += 1
                reply = discovery_pb2.DeltaDiscoveryResponse(
                    type_url=type_url, nonce=str(nonce), system_version_info=str(self.version),
                    removed_resources=removed)
                for name in new:
                    known[name] = self.versions[type_url, name]
                    reply.resources.add(name=name, version=known[name]).resource.CopyFrom(
                        self._packed(type_url, name))
                for name in removed:
                    del known[name]
            yield reply

    def _sotw(self, requests, context):
        wanted, nonce = {}, 0
        for what, value in self._events(requests, context):
            if what == "request":
                self._note(value)
                if value.HasField("node"):
                    self.nodes.append(value.node.id)
                type_url, names = value.type_url, sorted(value.resource_names)
                if wanted.get(type_url) == names:
                    continue
                wanted[type_url] = names
            else:
                type_url = value
                if type_url not in wanted:
                    continue
            with self.lock:
                held = self.resources.get(type_url, {})
                names = list(held) if type_url in WILDCARD else [
                    n for n in wanted[type_url] if n in held]
                if not names and type_url not in WILDCARD:
                    continue
                nonce += 1
                reply = discovery_pb2.DiscoveryResponse(
                    type_url=type_url, nonce=str(nonce), version_info=str(self.version),
                    resources=[self._packed(type_url, n) for n in names])
            yield reply

    def stop(self):
        """Cuts every stream."""
        self.server.stop(0).wait()

    def restart(self):
        self.port = self._start(self.port)
