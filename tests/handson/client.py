# SPDX-License-Identifier: Apache-2.0
"""An xDS client whose every request is said by hand: what a proxy does, in any order, also wrong ones."""

import queue
import threading
import time

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from envoy.service.secret.v3 import sds_pb2_grpc
from google.rpc import status_pb2

from tests.harness.patience import DEADLINE_S

TYPES = {"CDS": cluster_pb2.Cluster, "EDS": endpoint_pb2.ClusterLoadAssignment, "LDS": listener_pb2.Listener,
         "RDS": route_pb2.RouteConfiguration, "SDS": secret_pb2.Secret}
URLS = {short: "type.googleapis.com/" + message.DESCRIPTOR.full_name for short, message in TYPES.items()}
SHORT = {url: short for short, url in URLS.items()}


class Stream:
    """One stream at a socket. `responses` come in the order in which they were sent; `next` takes one."""

    def __init__(self, path, method, request_type):
        self.request_type = request_type
        self.channel = grpc.insecure_channel(f"unix:{path}", options=[("grpc.use_local_subchannel_pool", 1)])
        self.requests, self.responses = queue.Queue(), queue.Queue()
        self.call = method(self.channel)(iter(self.requests.get, None))
        self.first = True
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for response in self.call:
                self.responses.put(response)
        except grpc.RpcError as error:
            self.responses.put(error)
        self.responses.put(None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.requests.put(None)
        self.call.cancel()
        self.channel.close()

    def say(self, short, **fields):
        node = {"node": {"id": "sidecar~10.0.0.1~test.default~default.svc.cluster.local"}} if self.first else {}
        self.first = False
        self.requests.put(self.request_type(type_url=URLS[short], **node, **fields))

    def next(self, short, deadline=DEADLINE_S):
        """The next response, which has to be of this type."""
        try:
            response = self.responses.get(timeout=deadline)
        except queue.Empty:
            raise AssertionError(f"no {short} response within {deadline} s") from None
        assert response is not None and not isinstance(response, Exception), f"the stream ended: {response}"
        assert SHORT[response.type_url] == short, f"{SHORT[response.type_url]} came, not {short}"
        return response

    def refuse(self, response, message, **fields):
        self.say(SHORT[response.type_url], response_nonce=response.nonce,
                 error_detail=status_pb2.Status(code=3, message=message), **fields)

    def ended(self, deadline=DEADLINE_S):
        """Waits for the end of the stream."""
        end = time.monotonic() + deadline
        while self.responses.get(timeout=max(0.001, end - time.monotonic())) is not None:
            pass


class Delta(Stream):
    def __init__(self, path):
        super().__init__(path, lambda channel: ads_pb2_grpc.AggregatedDiscoveryServiceStub(
            channel).DeltaAggregatedResources, discovery_pb2.DeltaDiscoveryRequest)

    def subscribe(self, short, *names, **fields):
        self.say(short, resource_names_subscribe=names, **fields)

    def unsubscribe(self, short, *names):
        self.say(short, resource_names_unsubscribe=names)

    def accept(self, response):
        self.say(SHORT[response.type_url], response_nonce=response.nonce)

    def take(self, short):
        """The next response, accepted: (resources by name, names that are gone)."""
        response = self.next(short)
        self.accept(response)
        return unpacked(response), list(response.removed_resources)


class Sotw(Stream):
    def __init__(self, path, secrets=False):
        super().__init__(path, lambda channel: (
            sds_pb2_grpc.SecretDiscoveryServiceStub(channel).StreamSecrets if secrets else
            ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).StreamAggregatedResources),
            discovery_pb2.DiscoveryRequest)
        self.names, self.nonces = {}, {}

    def subscribe(self, short, *names, nonce=None, **fields):
        """Names all that is wanted; after a response with its nonce, or another one."""
        self.names[short] = names
        nonce = self.nonces.get(short, "") if nonce is None else nonce
        self.say(short, resource_names=names, response_nonce=nonce, **fields)

    def accept(self, response):
        short = SHORT[response.type_url]
        self.nonces[short] = response.nonce
        self.say(short, resource_names=self.names[short], version_info=response.version_info,
                 response_nonce=response.nonce)

    def take(self, short):
        response = self.next(short)
        self.accept(response)
        return unpacked(response)


def unpacked(response):
    """{name: message} of a response of either kind."""
    found = {}
    for one in response.resources:
        body = getattr(one, "resource", one)
        message = TYPES[SHORT[body.type_url]]()
        assert body.Unpack(message)
        found[getattr(message, "cluster_name", "") or message.name] = message
    return found
