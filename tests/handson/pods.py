# SPDX-License-Identifier: Apache-2.0
"""Pods with real proxies under the control plane: their bootstrap is Istio's, their applications say what they see."""

import contextlib
import http.client
import http.server
import json
import socketserver
import threading

from tests.harness.namespaces import Network
from tests.harness.patience import DEADLINE_S
from tests.harness.proxy import Proxy

HTTP2 = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}}}}

# As the agent starts its proxy: what is replaced asks its connections to go with the next answer.
AGENT_ARGS = ["--drain-time-s", "45", "--drain-strategy", "immediate", "-l", "warning"]


def bootstrap(folder, name, namespace, ip, kind="sidecar", delta=True, **metadata):
    """What the agent of a pod writes for its proxy, as far as it is needed here."""
    def at_socket(cluster, path):
        return {"name": cluster, "type": "STATIC", "connect_timeout": "1s", "typed_extension_protocol_options": HTTP2,
                "load_assignment": {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": {"pipe": {"path": str(path)}}}}]}]}}
    source = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    return {
        "node": {"id": f"{kind}~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local",
                 "cluster": f"{name}.{namespace}", "metadata": {
                     "NAME": name, "NAMESPACE": namespace, "INSTANCE_IPS": ip, "WORKLOAD_NAME": name,
                     "CLUSTER_ID": "Kubernetes", "MESH_ID": "cluster.local", **metadata}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "lds_config": source, "cds_config": source,
            "ads_config": {"api_type": "DELTA_GRPC" if delta else "GRPC", "transport_api_version": "V3",
                           "set_node_on_first_message_only": True,
                           "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]}},
        "static_resources": {"clusters": [at_socket("xds-grpc", folder / "XDS"),
                                          at_socket("sds-grpc", folder / "SDS")]}}


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self):
        """Without asking a name server who it is."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address


class App:
    """Answers every request with what it saw: {"app", "method", "path", "headers"}."""

    def __init__(self, pod, name, port):
        app = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):  # noqa: N802 (the library's name)
                body = json.dumps({"app": name, "method": self.command, "path": self.path, "headers": {
                    key.lower(): value for key, value in self.headers.items()}}).encode()
                self.send_response(app.status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_DELETE = do_GET

            def log_message(self, *_):
                pass

        self.status = 200
        with pod:
            self.server = Server((pod.address, port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Pods:
    """Makes pods on one bridge for a control plane's place; `close` leaves nothing of them."""

    def __init__(self, place, binary):
        self.place, self.binary = place, binary
        self.network = Network()
        self.proxies, self.apps, self.pods = {}, [], {}

    def add(self, name, namespace, ip, app_port=None, kind="sidecar", delta=True, **said):
        """The pod, its proxy when the control plane knows it, and its application."""
        pod = self.network.pod(ip, captured=kind == "sidecar")
        self.pods[name] = pod
        if app_port:
            self.apps.append(App(pod, name, app_port))
        if kind == "outside":
            return
        folder = self.place.pod(name, namespace, ip, kind=kind, **said)
        self.place.wait(lambda status: any(one["name"] == name for one in status["pods"]))
        self.proxies[name] = Proxy(self.binary, bootstrap(folder, name, namespace, ip, kind, delta), name=name,
                                   pod=pod, start=False, args=AGENT_ARGS)
        self.proxies[name].start()

    def ready(self):
        """Every proxy has answered for all that there is, and has what it needs to begin."""
        for proxy in self.proxies.values():
            proxy.wait_ready()
        self.settled()

    def settled(self):
        self.place.wait(lambda s: all(p["generation"] == s["generation"] for p in s["pods"]),
                        "that every proxy has all")

    def ask(self, pod, address, port, path="/", method="GET", host="h.test", **headers):
        """(status, what the application saw or the text) of one request; the error instead of a status."""
        with self.pods[pod]:
            connection = http.client.HTTPConnection(address, port, timeout=DEADLINE_S)
            try:
                connection.connect()
            except OSError as error:
                return type(error).__name__, ""
        with contextlib.closing(connection):
            try:
                connection.request(method, path, headers={"host": host, **headers})
                reply = connection.getresponse()
                body = reply.read().decode()
            except (OSError, http.client.HTTPException) as error:
                return type(error).__name__, ""
        try:
            return reply.status, json.loads(body)
        except ValueError:
            return reply.status, body

    def close(self, good):
        try:
            for proxy in self.proxies.values():
                proxy.stop() if good else proxy.kill()
        finally:
            for proxy in self.proxies.values():
                proxy.kill()
            for app in self.apps:
                app.stop()
            self.network.close()
