# SPDX-License-Identifier: Apache-2.0
"""Secrets over a Unix socket, state of the world, as the agent of a sidecar serves them: one stream for
each secret, an answer to each new request, a push when a secret changes."""

import queue
import threading
from concurrent import futures

import grpc
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.secret.v3 import sds_pb2_grpc
from google.protobuf import any_pb2

from .patience import DEADLINE_S

TYPE_URL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


def certificate(name, chain, key):
    """A Secret message of two PEM texts."""
    return secret_pb2.Secret(name=name, tls_certificate={
        "certificate_chain": {"inline_bytes": chain.encode()},
        "private_key": {"inline_bytes": key.encode()}})


def authorities(name, text):
    return secret_pb2.Secret(name=name, validation_context={
        "trusted_ca": {"inline_bytes": text.encode()}})


class SdsAgent(sds_pb2_grpc.SecretDiscoveryServiceServicer):
    """Serves `secrets[name]`; `put` changes one. `answers` are (name, version, nonce, error)."""

    def __init__(self, path):
        self.path = path
        self.changed = threading.Condition()
        self.secrets = {}
        self.version = 0
        self.streams = []
        self.asked = []
        self.nodes = []
        self.answers = []
        self.server = None
        self.start()

    def start(self):
        self.server = grpc.server(futures.ThreadPoolExecutor(32))
        sds_pb2_grpc.add_SecretDiscoveryServiceServicer_to_server(self, self.server)
        self.server.add_insecure_port(f"unix:{self.path}")
        self.server.start()

    def stop(self):
        self.server.stop(0).wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def put(self, *secrets):
        """Serves these from now on; returns the version by which they will be answered."""
        with self.changed:
            self.version += 1
            self.secrets.update({s.name: s for s in secrets})
            for events in self.streams:
                events.put([s.name for s in secrets])
            return str(self.version)

    def StreamSecrets(self, requests, context):
        events = queue.Queue()

        def read():
            try:
                for request in requests:
                    events.put(request)
            except grpc.RpcError:
                pass
            events.put(None)

        threading.Thread(target=read, daemon=True).start()
        names, nonce = [], ""
        with self.changed:
            self.streams.append(events)
        while (event := events.get()) is not None:
            if isinstance(event, list):
                wanted = set(event) & set(names)
            else:
                wanted = self._note(event, names, nonce)
                names = list(event.resource_names)
            with self.changed:
                there = [self.secrets[n] for n in names if n in self.secrets]
                if not wanted or not there:
                    continue
                nonce = f"{len(self.answers)}-{self.version}-{names[0]}"
                reply = discovery_pb2.DiscoveryResponse(
                    type_url=TYPE_URL, version_info=str(self.version), nonce=nonce)
            for secret in there:
                packed = any_pb2.Any()
                packed.Pack(secret)
                reply.resources.append(packed)
            yield reply
        with self.changed:
            self.streams.remove(events)

    def _note(self, request, names, nonce):
        """Keeps what was asked; the names that are new in it."""
        with self.changed:
            if request.node.id:
                self.nodes.append(request.node.id)
            if request.response_nonce and request.response_nonce == nonce:
                self.answers.append((names[0], request.version_info, nonce,
                                     request.error_detail.message))
            else:
                self.asked.append(tuple(request.resource_names))
            self.changed.notify_all()
        return set(request.resource_names) - set(names)

    def wait(self, test, what, deadline=DEADLINE_S):
        with self.changed:
            assert self.changed.wait_for(test, deadline), \
                f"{what} did not come; asked {self.asked}, answered {self.answers}"

    def wait_taken(self, name, version):
        """Every stream of that secret acknowledged the version."""
        self.wait(lambda: any(a[0] == name and a[1] == version for a in self.answers),
                  f"version {version} of {name}")

    def wait_refused(self, name):
        self.wait(lambda: any(a[0] == name and a[3] for a in self.answers), f"a refusal of {name}")
        return next(a[3] for a in self.answers if a[0] == name and a[3])
