# SPDX-License-Identifier: Apache-2.0
"""A control plane with folders of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.harness.patience import DEADLINE_S

ROOT = Path(__file__).resolve().parents[2]
SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.10, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: store, namespace: default}
spec: {clusterIP: 10.96.0.20, selector: {app: store}, ports: [{name: tcp, port: 9000}]}
"""


class Place:
    """The folders of a control plane, its process, and what it says of itself."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="kb-cp-"))
        self.config, self.run = self.folder / "config", self.folder / "run"
        self.config.mkdir()
        self.log = self.folder / "log"
        self.process = None
        self.args = ()

    def write(self, name, text):
        """As an editor would: another file put in its place."""
        beside = self.folder / f".{name}"
        beside.write_text(text)
        os.replace(beside, self.config / name)

    def pod(self, name, namespace="default", ip="10.10.0.1", **fields):
        folder = self.run / "pods" / name
        folder.mkdir(parents=True, exist_ok=True)
        said = {"name": name, "namespace": namespace, "ip": ip, "labels": {"app": name}, "serviceAccount": name,
                "node": "here", "ports": [], "ready": True, "kind": "sidecar", **fields}
        beside = folder / ".pod.json"
        beside.write_text(json.dumps(said))
        os.replace(beside, folder / "pod.json")
        return folder

    def remove_pod(self, name):
        (self.run / "pods" / name / "pod.json").unlink()

    def start(self, *args):
        self.args = args or self.args
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "examples.handson.control_plane", "--config", str(self.config),
                 "--run", str(self.run), *self.args], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self.wait(lambda status: status["generation"] > 0)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)
        (self.run / "control_plane.json").unlink(missing_ok=True)

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        code = self.process.wait(DEADLINE_S)
        assert code == 0, f"exit code {code}: {self.said()}"

    def said(self):
        return self.log.read_text()

    def status(self):
        try:
            return json.loads((self.run / "control_plane.json").read_text())
        except FileNotFoundError:
            return {"generation": 0}

    def wait(self, test, what="the status"):
        """The status for which `test` is true."""
        end = time.monotonic() + DEADLINE_S
        while True:
            status = self.status()
            if status["generation"] and test(status):
                return status
            assert self.process.poll() is None, f"the control plane ended: {self.said()}"
            assert time.monotonic() < end, f"{what} did not come; it is {status}; said was:\n{self.said()}"
            time.sleep(0.01)

    def pod_status(self, name):
        return next(pod for pod in self.status()["pods"] if pod["name"] == name)

    def change(self, name, text):
        """Writes a file and waits until it was read."""
        before = self.status()["generation"]
        self.write(name, text)
        return self.wait(lambda status: status["generation"] > before)

    def close(self):
        try:
            self.stop()
        finally:
            if self.process is not None and self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            shutil.rmtree(self.folder)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A fixture may ask whether its test went well."""
    report = (yield).get_result()
    if report.when == "call":
        item.went_well = report.passed


@pytest.fixture
def place():
    made = Place()
    yield made
    made.close()


@pytest.fixture
def served(place):
    """Two services, a client, two pods of one of them; the control plane runs."""
    place.write("services.yaml", SERVICES)
    place.pod("client")
    place.pod("web-1", "shop", "10.10.0.11", labels={"app": "web", "color": "blue"}, serviceAccount="web")
    place.pod("web-2", "shop", "10.10.0.12", labels={"app": "web", "color": "green"}, serviceAccount="web")
    place.start()
    place.wait(lambda status: len(status["pods"]) == 3)
    return place
