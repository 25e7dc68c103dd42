# SPDX-License-Identifier: Apache-2.0
"""A control plane for the benchmark: delta ADS over one connection, resources in memory."""

import concurrent.futures
import queue
import subprocess
import sys
import threading

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format

URL = "type.googleapis.com/"
CLUSTER = URL + "envoy.config.cluster.v3.Cluster"
ENDPOINTS = URL + "envoy.config.endpoint.v3.ClusterLoadAssignment"
ACK_SECONDS_MAX = 120


def cluster(number, connect_timeout_s=5):
    return json_format.ParseDict(
        {
            "name": f"outbound|80||service-{number}.bench.svc.cluster.local", "type": "EDS", "connect_timeout": f"{connect_timeout_s}s",
            "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}}, "lb_policy": "LEAST_REQUEST",
        },
        cluster_pb2.Cluster(),
    )


def endpoints(number, count):
    """Addresses differ from cluster to cluster, as pods' do."""
    first = number * count
    return json_format.ParseDict(
        {
            "cluster_name": f"outbound|80||service-{number}.bench.svc.cluster.local",
            "endpoints": [{
                "lb_endpoints": [
                    {"endpoint": {"address": {"socket_address": {
                        "address": f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", "port_value": 8080}}}}
                    for n in range(first, first + count)
                ],
            }],
        },
        endpoint_pb2.ClusterLoadAssignment(),
    )


class Stream:
    """One stream of a proxy: what waits to be sent, and what it subscribed to."""

    def __init__(self):
        self.out = queue.Queue()
        self.names = {}  # type -> names

    def wants(self, type_url, name):
        names = self.names.get(type_url, ())
        return name in names or "*" in names


class Ads:
    """The control plane itself: set() changes what is served and pushes it; wait() returns when the proxy has taken it."""

    def __init__(self):
        self.lock = threading.Condition()
        self.resources = {CLUSTER: {}, ENDPOINTS: {}}  # type -> name -> (version, packed)
        self.sent = {CLUSTER: set(), ENDPOINTS: set()}
        self.version = self.pushes = 0
        self.open = []
        self.pending = set()  # nonces without an answer
        self.rejected = []
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        handler = grpc.stream_stream_rpc_method_handler(
            self.stream, discovery_pb2.DeltaDiscoveryRequest.FromString, discovery_pb2.DeltaDiscoveryResponse.SerializeToString
        )
        name = "envoy.service.discovery.v3.AggregatedDiscoveryService"
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"DeltaAggregatedResources": handler}),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def set(self, type_url, messages):
        """messages: name -> message, added to what is there."""
        with self.lock:
            self.version += 1
            for name, message in messages.items():
                self.resources[type_url][name] = (str(self.version), message.SerializeToString(deterministic=True))
            for stream in self.open:
                if names := [n for n in messages if stream.wants(type_url, n)]:
                    self.push(stream, type_url, names)

    def endpoints_of(self, name):
        return endpoint_pb2.ClusterLoadAssignment.FromString(self.resources[ENDPOINTS][name][1])

    def push(self, stream, type_url, names):
        names = [n for n in names if n in self.resources[type_url]]
        self.pushes += 1
        nonce = str(self.pushes)
        response = discovery_pb2.DeltaDiscoveryResponse(type_url=type_url, nonce=nonce, system_version_info=str(self.version))
        for name in names:
            version, packed = self.resources[type_url][name]
            resource = response.resources.add(name=name, version=version)
            resource.resource.type_url, resource.resource.value = type_url, packed
        self.sent[type_url].update(names)
        self.pending.add(nonce)
        stream.out.put(response)

    def read(self, requests, stream):
        try:
            for request in requests:
                with self.lock:
                    self.pending.discard(request.response_nonce)
                    if request.HasField("error_detail"):
                        self.rejected.append(request.error_detail.message)
                    self.answer(stream, request)
                    self.lock.notify_all()
        except grpc.RpcError:
            pass  # the proxy is gone
        stream.out.put(None)

    def stream(self, requests, _):
        stream = Stream()
        with self.lock:
            self.open.append(stream)
        threading.Thread(target=self.read, args=(requests, stream), daemon=True).start()
        while (response := stream.out.get()) is not None:
            yield response
        with self.lock:
            self.open.remove(stream)

    def answer(self, stream, request):
        first = request.type_url not in stream.names
        wanted = list(request.resource_names_subscribe) or (["*"] if first else [])
        stream.names.setdefault(request.type_url, set()).update(wanted)
        if request.type_url not in self.resources:
            if first:
                stream.out.put(discovery_pb2.DeltaDiscoveryResponse(type_url=request.type_url, nonce="none"))
        elif wanted:
            self.push(stream, request.type_url, list(self.resources[request.type_url]) if "*" in wanted else wanted)

    def taken(self):
        return bool(self.open) and not self.pending and all(len(self.sent[t]) == len(self.resources[t]) for t in self.sent)

    def wait(self):
        with self.lock:
            if not self.lock.wait_for(self.taken, ACK_SECONDS_MAX):
                raise RuntimeError(f"not taken: {len(self.pending)} pushes without an answer")
            if self.rejected:
                raise RuntimeError(f"rejected: {self.rejected[0]}")


def main():
    """A line in, a line out: "fill CLUSTERS ENDPOINTS" and "change NUMBER TIMEOUT" end when the proxy has taken it."""
    ads = Ads()
    print(ads.port, flush=True)
    for line in sys.stdin:
        command, first, second = line.split()[0], *map(int, line.split()[1:])
        try:
            if command == "fill":
                ads.set(ENDPOINTS, {(m := endpoints(n, second)).cluster_name: m for n in range(first)})
                ads.set(CLUSTER, {(m := cluster(n)).name: m for n in range(first)})
            else:
                ads.set(CLUSTER, {(m := cluster(first, second)).name: m})
                ads.set(ENDPOINTS, {m.name: ads.endpoints_of(m.name)})  # a changed cluster waits for its endpoints
            ads.wait()
            print("taken", flush=True)
        except RuntimeError as reason:
            print(reason, flush=True)


class Control:
    """The same in a process of its own, for the benchmark."""

    def __init__(self):
        self.popen = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.port = int(self.popen.stdout.readline())

    def tell(self, *words):
        self.popen.stdin.write(" ".join(map(str, words)) + "\n")
        self.popen.stdin.flush()
        answer = self.popen.stdout.readline().strip()
        if answer != "taken":
            raise RuntimeError(f"control plane: {answer or 'ended'}")

    def end(self):
        self.popen.kill()
        self.popen.wait()


if __name__ == "__main__":
    main()
