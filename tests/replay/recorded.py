# SPDX-License-Identifier: Apache-2.0
"""Serves a recording of istiod to a proxy, over Unix sockets as pilot-agent does, and says what the
proxy made of it:

    unshare -rn python -m tests.replay.recorded BINARY RECORDINGS SCENARIO/NODE sotw|delta

RECORDINGS holds bootstrap/{sidecar,router}.json and SCENARIO/NODE/raw.json (see README.md).
Prints one JSON object. Run in a network namespace of its own: the ports are those of a pod."""

import base64
import fcntl
import json
import socket
import struct
import sys
import tempfile
import threading
from concurrent import futures
from pathlib import Path

import grpc
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.secret.v3 import sds_pb2_grpc
from google.protobuf import any_pb2

from tests.harness import Proxy
from tests.harness.certs import Authority
from tests.replay.control_plane import SHORT, URLS, ControlPlane

WILD = ("CDS", "LDS")


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS


class Secrets(sds_pb2_grpc.SecretDiscoveryServiceServicer):
    """The agent's socket: whatever is asked for, a certificate or a root. Both are paths."""

    def __init__(self, root, identity):
        self.root, self.identity = root, identity
        self.refused = []

    def secret(self, name):
        secret = secret_pb2.Secret(name=name)
        if name.startswith(("ROOTCA", "file-root")) or name.endswith("cacert"):
            secret.validation_context.trusted_ca.inline_bytes = self.root.read_bytes()
        else:
            certificate, key = self.identity
            one = secret.tls_certificate
            one.certificate_chain.inline_bytes = certificate.read_bytes()
            one.private_key.inline_bytes = key.read_bytes()
        packed = any_pb2.Any()
        packed.Pack(secret)
        return packed

    def StreamSecrets(self, requests, context):
        for number, request in enumerate(requests):
            if request.HasField("error_detail"):
                self.refused.append(["SDS", request.error_detail.message])
            if not request.response_nonce:
                yield discovery_pb2.DiscoveryResponse(
                    type_url=URLS["SDS"], version_info=str(number), nonce=f"s{number}",
                    resources=[self.secret(name) for name in request.resource_names])


class Recording:
    """Answers each request with what istiod had said of it."""

    def __init__(self, raw, plane, delta):
        self.resources = {SHORT[url]: {r["name"]: any_pb2.Any(
            type_url=url, value=base64.b64decode(r["base64"])) for r in listed}
            for url, listed in raw["resources"].items() if url in SHORT}
        self.plane, self.delta = plane, delta
        self.asked = {}
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                request = self.plane.wait(lambda r: True, deadline=3600)
            except AssertionError:
                return
            if self.delta:
                self._answer_delta(request)
            else:
                self._answer(request)

    def _answer(self, request):
        have = self.resources.get(request.type, {})
        if request.nonce and self.asked.get(request.type) == request.names:
            return
        self.asked[request.type] = request.names
        names = sorted(have) if request.type in WILD else [n for n in request.names if n in have]
        self.plane.send(request.type, "1", *(have[n] for n in names))

    def _answer_delta(self, request):
        have = self.resources.get(request.type, {})
        names = set(request.added) - {"*"}
        if request.type in WILD and not request.nonce:
            names = set(have)
        elif not names:
            return
        self.plane.send_delta(request.type, [(n, "", have[n]) for n in sorted(names) if n in have],
                              sorted(names - set(have)))

    def accepted(self):
        """Every type is answered, and nothing is open."""
        answered = {r.type for r in self.plane.requests if r.nonce and not r.error}
        return set(self.resources) <= answered


def bootstrap_of(recordings, raw, delta):
    kind = "router" if raw["node"]["id"].startswith("router") else "sidecar"
    config = json.loads((recordings / "bootstrap" / f"{kind}.json").read_text())
    config["dynamic_resources"]["ads_config"]["api_type"] = "DELTA_GRPC" if delta else "GRPC"
    config["node"] = {**config["node"], **raw["node"]}
    config["admin"]["address"]["socket_address"]["port_value"] = 0
    return config


def dumped(proxy):
    """Names in /config_dump, by type."""
    sections = {c["@type"].rsplit(".", 1)[1]: c for c in
                json.loads(proxy.admin("/config_dump?include_eds")[1])["configs"]}
    return {
        "CDS": sorted(c["cluster"]["name"] for c in
                      sections["ClustersConfigDump"].get("dynamic_active_clusters", [])),
        "LDS": sorted(c["name"] for c in sections["ListenersConfigDump"].get("dynamic_listeners", [])
                      if "active_state" in c and "error_state" not in c),
        "RDS": sorted(c["route_config"]["name"] for c in
                      sections["RoutesConfigDump"].get("dynamic_route_configs", [])),
    }


def secrets_dumped(proxy):
    """Names of the secrets that came."""
    shown = json.loads(proxy.admin("/config_dump?resource=dynamic_active_secrets")[1])
    return sorted(one["name"] for one in shown.get("configs", []))


class Told:
    """A proxy that is told a recording, started as pilot-agent does. `identity`: (certificate, key)."""

    def __init__(self, binary, recordings, node, delta, root, identity, pod=None):
        raw = json.loads((recordings / node / "raw.json").read_text())
        self.proxy = Proxy(binary, bootstrap_of(recordings, raw, delta), start=False, concurrency=2, pod=pod,
                           args=["--allow-unknown-static-fields", "--drain-time-s", "45"])
        paths = [self.proxy.dir / path for path in
                 ("etc/istio/proxy/XDS", "var/run/secrets/workload-spiffe-uds/socket")]
        for path in paths:
            path.parent.mkdir(parents=True)
        self.secrets = Secrets(root, identity)
        self.agent = grpc.server(futures.ThreadPoolExecutor(32))
        sds_pb2_grpc.add_SecretDiscoveryServiceServicer_to_server(self.secrets, self.agent)
        self.agent.add_insecure_port(f"unix:{paths[1]}")
        self.agent.start()
        self.plane = ControlPlane(f"unix:{paths[0]}")
        self.recording = Recording(raw, self.plane, delta)
        self.proxy.start()
        self.proxy.wait_admin()

    def refused(self):
        return self.secrets.refused + [[r.type, r.error] for r in self.plane.requests if r.error]

    def live(self):
        return self.proxy.admin("/ready")[1] == b"LIVE\n"

    def wait_settled(self):
        """Until all of it is accepted, or something refused."""
        self.proxy.wait_for("acceptance", lambda: self.refused() or (self.live() and self.recording.accepted()), 60)

    def close(self, good=True):
        try:
            self.proxy.stop() if good else self.proxy.kill()
        finally:
            self.plane.stop()
            self.agent.stop(0)


def main(binary, recordings, node, protocol):
    loopback_up()
    with tempfile.TemporaryDirectory(prefix="kb-recorded-") as folder:
        authority = Authority(folder)
        identity = authority.issue("workload", ["URI:spiffe://cluster.local/ns/default/sa/default"])
        told = Told(binary, Path(recordings), node, protocol == "delta", authority.path, identity)
        try:
            told.wait_settled()
        except AssertionError as error:
            print(error, file=sys.stderr)
        proxy = told.proxy
        print(json.dumps({
            "live": told.live(),
            "refused": told.refused(),
            "answered": sorted({r.type for r in told.plane.requests if r.nonce}),
            "sent": {short: sorted(found) for short, found in told.recording.resources.items()},
            "dumped": dumped(proxy),
            "secrets": secrets_dumped(proxy),
            "key_shown": base64.b64encode(identity[1].read_bytes()).decode()[60:120]
            in proxy.admin("/config_dump")[1].decode(),
            "unsupported": sorted(e["path"] for e in json.loads(
                proxy.admin("/kobune/unsupported?format=json")[1])["unsupported"]),
        }))
        told.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
