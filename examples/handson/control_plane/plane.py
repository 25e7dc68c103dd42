# SPDX-License-Identifier: Apache-2.0
"""The control plane as a whole: reads what changed, makes the pods' resources, serves each pod at its own sockets."""

import asyncio
import contextlib
import json
import os
import sys
import traceback
from pathlib import Path

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.secret.v3 import sds_pb2_grpc

from . import sds, watch
from .ads import Ads
from .certificates import Authority
from .model import Mesh, Pod
from .resources import snapshot
from .store import Store, write_atomically

NACKS_KEPT = 100
LONGEST_PATH = 107  # of a Unix socket
HALF_A_DAY = 12 * 3600.0


def say(text):
    print(f"control plane: {text}", file=sys.stderr, flush=True)


class PodServer:
    """The two sockets of a pod. The socket is the identity: who can open it is this pod."""

    def __init__(self, plane, folder):
        self.plane, self.folder, self.pod, self.certificate = plane, folder, None, None
        self.ads = Ads(self._refused, plane.note)
        self.sds = sds.Sds(self._refused)
        self.servers = []

    async def open(self):
        for name, service, add in (
                ("SDS", self.sds, sds_pb2_grpc.add_SecretDiscoveryServiceServicer_to_server),
                ("XDS", self.ads, ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server)):
            path = self.folder / name
            if len(os.fsencode(path)) > LONGEST_PATH:
                raise ValueError(f"the path of the socket {path} is longer than {LONGEST_PATH} bytes")
            path.unlink(missing_ok=True)  # of a control plane that was killed
            server = grpc.aio.server()
            add(service, server)
            server.add_insecure_port(f"unix:{path}")
            await server.start()
            path.chmod(0o666)  # the proxy has another user
            self.servers.append(server)

    async def close(self):
        for server in self.servers:
            await server.stop(None)
        for name in ("XDS", "SDS"):
            (self.folder / name).unlink(missing_ok=True)

    async def renew(self):
        """A new certificate, told at once."""
        self.certificate = await self.plane.authority.issue(self.pod.identity)
        self.sds.update(sds.snapshot(self.certificate, self.plane.authority.root), self.plane.generation)

    def _refused(self, kind, message):
        self.plane.nacks.append({"pod": self.folder.name, "type": kind, "message": message})
        del self.plane.nacks[:-NACKS_KEPT]
        say(f"{self.folder.name} refuses {kind}: {message}")
        self.plane.note()


class ControlPlane:
    """`run` serves until it is cancelled; `rotate` are the seconds between certificates."""

    def __init__(self, config, run, rotate=HALF_A_DAY, plain=False):
        self.run_folder, self.rotate, self.plain = Path(run), rotate, plain
        self.store = Store(config, self.run_folder / "control_plane" / "accepted.json")
        self.authority = Authority(self.run_folder / "control_plane" / "ca")
        self.pods, self.nacks, self.pod_errors = {}, [], []
        self.generation = 0
        self.mesh = Mesh([], [])
        self._said, self._noted, self._rotate_now = set(), asyncio.Event(), asyncio.Event()

    async def run(self):
        await self.authority.open()
        tasks = [asyncio.create_task(work()) for work in (self._follow, self._rotate, self._write_status)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*(server.close() for server in self.pods.values()))

    def note(self):
        """The status is to be written again."""
        self._noted.set()

    def _files(self):
        return [*self.store.files(), *sorted(self.run_folder.glob("pods/*/pod.json"))]

    async def _follow(self):
        async for _ in watch.changes(self._files):
            self.store.load()
            await self._follow_pods()
            self.generation += 1
            self.mesh = Mesh(self.store.objects.values(), [server.pod for server in self.pods.values()])
            for server in self.pods.values():
                self._tell(server)
            self._say_errors()
            self.note()

    async def _follow_pods(self):
        found, self.pod_errors = {}, []
        for path in sorted(self.run_folder.glob("pods/*/pod.json")):
            try:
                found[path.parent] = Pod.read(json.loads(path.read_text("utf-8")))
            except (OSError, ValueError, AttributeError) as error:
                line = getattr(error, "lineno", 1)
                self.pod_errors.append({"file": str(path), "line": line, "kind": "Pod", "name": path.parent.name,
                                        "message": str(error)})
                if path.parent in self.pods:
                    found[path.parent] = self.pods[path.parent].pod
        for folder in [folder for folder in self.pods if folder not in found]:
            await self.pods.pop(folder).close()
            say(f"{folder.name} is gone")
        for folder, pod in found.items():
            await self._meet(folder, pod)

    async def _meet(self, folder, pod):
        server = self.pods.get(folder)
        if server is None:
            server = PodServer(self, folder)
            server.pod = pod
            try:
                if pod.kind != "none":
                    await server.renew()
                    await server.open()
            except (ValueError, RuntimeError, OSError) as error:
                await server.close()
                self.pod_errors.append({"file": str(folder / "pod.json"), "line": 1, "kind": "Pod",
                                        "name": folder.name, "message": str(error)})
                return
            self.pods[folder] = server
            say(f"{folder.name} is there: {pod.kind}, {pod.ip}, {pod.identity}")
            return
        renamed = pod.identity != server.pod.identity
        server.pod = pod
        if renamed and pod.kind != "none":
            await server.renew()

    def _tell(self, server):
        if server.pod.kind == "none":
            return
        try:
            server.ads.update(snapshot(self.mesh, server.pod, self.plain), self.generation)
        except Exception:  # one pod's trouble is not another's; it keeps what it has
            say(f"{server.folder.name}: no resources could be made\n{traceback.format_exc()}")

    def rotate_now(self):
        """New certificates for all pods, without waiting for their time."""
        self._rotate_now.set()

    async def _rotate(self):
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._rotate_now.wait(), self.rotate)
            self._rotate_now.clear()
            for server in list(self.pods.values()):
                if server.pod.kind != "none":
                    await server.renew()
            self.note()

    # --- what is said ---

    def _errors(self):
        return [{"file": e.file, "line": e.line, "kind": e.kind, "name": e.name, "message": e.message}
                for e in self.store.errors] + self.pod_errors

    def _say_errors(self):
        errors = {f"{e['file']}:{e['line']}: {e['kind']} {e['name']}: {e['message']}" for e in self._errors()}
        for text in sorted(errors - self._said):
            say(f"{text} (what was accepted before is still served)")
        self._said = errors

    def status(self):
        return {
            "generation": self.generation,
            "errors": self._errors(),
            "pods": [{"name": folder.name, "namespace": server.pod.namespace, "kind": server.pod.kind,
                      "ip": server.pod.ip, "ready": server.pod.ready, "workload": self.mesh.workload(server.pod),
                      "connected": bool(server.ads.streams), "generation": server.ads.told()}
                     for folder, server in sorted(self.pods.items())],
            "services": [{"host": service.host, "address": service.address,
                          "ports": [port.number for port in service.ports]} for service in self.mesh.services],
            "nacks": self.nacks,
            "certificates": {folder.name: server.certificate.serial for folder, server in sorted(self.pods.items())
                             if server.certificate}}

    async def _write_status(self):
        path = self.run_folder / "control_plane.json"
        while True:
            await self._noted.wait()
            self._noted.clear()
            write_atomically(path, json.dumps(self.status(), indent=1) + "\n")
