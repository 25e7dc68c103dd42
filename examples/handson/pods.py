# SPDX-License-Identifier: Apache-2.0
"""Pods from Deployments: what a kubelet, a network plugin and Istio's injection do, for one machine.

A pod is a network namespace with an address, an app in it, and, where its namespace asks for
sidecars, Istio's rules and a proxy under uid 1337. What the pod is stands in pod.json, for the
control plane."""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import yaml

from .bootstrap import ADMIN_PORT, METRICS_PORT, READY_PORT, bootstrap
from .namespaces import Network

HERE = pathlib.Path(__file__).resolve().parent
SIDECAR_UID = 1337
HUB_ADDRESS = "10.10.0.1"
FIRST_HOST = 2
APP_PORT = 8080

# as Istio's init container is called
INTERCEPTION = ["-p", "15001", "-z", "15006", "-u", str(SIDECAR_UID), "-m", "REDIRECT", "-i", "*", "-x", "",
                "-b", "*", "-d", "15090,15021,15020", "--log_output_level", "warn"]
PROXY_ARGUMENTS = ["--drain-time-s", "45", "--drain-strategy", "immediate", "--local-address-ip-version", "v4",
                   "--file-flush-interval-msec", "200", "--disable-hot-restart", "--allow-unknown-static-fields",
                   "-l", "warning", "--component-log-level", "misc:error", "--skip-deprecated-logs",
                   "--concurrency", "1"]


def write_atomically(path, text):
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def documents(folder):
    """Every object of the YAML files of a folder, in the files' order."""
    for path in sorted(pathlib.Path(folder).glob("*.yaml")):
        for one in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if one:
                yield one


def last_lines(path, lines=8):
    """The end of a log, as far as there is one."""
    with contextlib.suppress(OSError):
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    return ""


class PodFailed(Exception):
    """A program of a pod ended by itself; the text says which, and its last words."""


class Answer:
    """What an HTTP request brought: status, headers (lower case), body; `error` where no answer came."""

    def __init__(self, status=0, headers=(), body="", error=""):
        self.status, self.headers, self.body, self.error = status, dict(headers), body, error

    def __str__(self):
        return self.error or f"{self.status} {self.body.strip()[:120]}"


class Pod:
    """One pod. Its processes are `app` and `proxy`; either is None where the pod has none or it is ended."""

    def __init__(self, place, name, namespace, kind, labels=None, service_account="default", arguments=()):
        self.place, self.name, self.namespace, self.kind = place, name, namespace, kind
        self.labels, self.service_account, self.arguments = labels or {}, service_account, list(arguments)
        self.folder = place.folder / "pods" / name
        self.folder.mkdir(parents=True)
        self.net = place.member()
        self.ip = self.net.address
        self.app = self.proxy = None

    @property
    def captured(self):
        return self.kind == "sidecar"

    def tell(self, ready=True):
        """pod.json: what the control plane has to know of this pod."""
        if self.kind == "plain":
            return
        write_atomically(self.folder / "pod.json", json.dumps({
            "name": self.name, "namespace": self.namespace, "ip": self.ip, "labels": self.labels,
            "serviceAccount": self.service_account, "node": "this-machine", "ports": [APP_PORT],
            "ready": ready, "kind": self.kind}))

    def spawn(self, argv, log, **options):
        """Start a program in the pod, in a session of its own, its output in the pod's folder."""
        path = self.folder / log
        with open(path, "ab") as out, self.net:
            os.chmod(path, 0o666)  # /dev/stdout is opened anew by whoever logs there, under any uid
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                    cwd=self.folder, start_new_session=True, **options)

    def capture(self):
        """Istio's rules: what the app sends and gets goes through the proxy."""
        self.net.run(str(self.place.iptables), *INTERCEPTION)

    def start_app(self):
        self.app = self.spawn([sys.executable, "-S", "-E", str(HERE / "app.py"), "--name", self.name,
                               *self.arguments], "app.log")

    def start_proxy(self):
        (self.folder / "bootstrap.json").write_text(json.dumps(bootstrap(self), indent=1))
        self.proxy = self.spawn([str(self.place.binary), "-c", str(self.folder / "bootstrap.json"), *PROXY_ARGUMENTS],
                                "proxy.log", user=SIDECAR_UID, group=SIDECAR_UID, extra_groups=[])

    def request(self, address, port, path="/", host=None, headers=(), timeout=5, method="GET"):
        """A request by the pod's own app, as it would send one; an Answer, also when none came."""
        with self.net:
            connection = http.client.HTTPConnection(address, port, timeout=timeout)
            try:
                connection.connect()
            except OSError as error:
                return Answer(error=f"no connection: {error}")
        with contextlib.closing(connection):
            try:
                connection.request(method, path, headers={"Host": host or f"{address}:{port}", **dict(headers)})
                got = connection.getresponse()
                return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read().decode("utf-8", "replace"))
            except (OSError, http.client.HTTPException) as error:
                return Answer(error=f"no answer: {type(error).__name__} {error}".rstrip())

    def admin(self, path, method="GET"):
        return self.request("127.0.0.1", ADMIN_PORT, path, method=method).body

    def alive(self):
        """PodFailed when one of the pod's programs has ended by itself."""
        for what in ("app", "proxy"):
            process = getattr(self, what)
            if process is not None and process.poll() is not None:
                said = last_lines(self.folder / f"{what}.log")
                raise PodFailed(f"{self.name}: its {what} ended with {process.returncode}; "
                                + (f"it said last:\n{said}" if said else "it said nothing"))

    def containers(self):
        """What runs ready of what the pod consists of, as (ready, all)."""
        have = []
        self.alive()
        if self.kind != "router":
            have.append(self.app is not None and self.request("127.0.0.1", APP_PORT, "/healthz").status == 200)
        if self.kind != "plain":
            have.append(self.proxy is not None and
                        self.place.from_hub(self.ip, READY_PORT, "/healthz/ready").status == 200)
        return sum(have), len(have)

    def stop(self, process_name, number=signal.SIGTERM, wait_seconds=5):
        """End `app` or `proxy`, by this signal or, with None, one that it has got already; gives its
        exit status, None if the pod had none."""
        process = getattr(self, process_name)
        if process is None:
            return None
        setattr(self, process_name, None)
        if number is not None:
            process.send_signal(number)
        try:
            return process.wait(wait_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"no end within {wait_seconds} s of its signal"


class Place:
    """The network with all its pods, in a folder."""

    def __init__(self, folder, binary, iptables):
        self.folder, self.iptables = pathlib.Path(folder), iptables
        # uid 1337 may not reach where the binary was built; the run directory it may
        self.binary = self.folder / "kobune"
        shutil.copy2(pathlib.Path(binary).resolve(), self.binary)
        self.binary.chmod(0o755)
        self.network = Network(HUB_ADDRESS)
        self.pods = {}

    def member(self):
        return self.network.member(f"10.10.0.{FIRST_HOST + len(self.network.members) - 1}")

    def from_hub(self, address, port, path, timeout=3):
        """A request from the node itself, as a kubelet's probe is one."""
        with self.network.hub:
            connection = http.client.HTTPConnection(address, port, timeout=timeout)
            try:
                connection.connect()
                connection.request("GET", path)
                got = connection.getresponse()
                return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read().decode("utf-8", "replace"))
            except (OSError, http.client.HTTPException) as error:
                return Answer(error=str(error))
            finally:
                connection.close()

    def add(self, pod):
        self.pods[pod.name] = pod
        return pod

    def deploy(self, config):
        """Make the pods of every Deployment of the YAML in `config`; nothing is started in them yet."""
        objects = list(documents(config))
        injected = {one["metadata"]["name"] for one in objects if one["kind"] == "Namespace"
                    and one["metadata"].get("labels", {}).get("istio-injection") == "enabled"}
        for one in objects:
            if one["kind"] != "Deployment":
                continue
            namespace, template = one["metadata"].get("namespace", "default"), one["spec"]["template"]
            annotations = template["metadata"].get("annotations", {})
            kind = "plain"
            if annotations.get("inject.istio.io/templates") == "gateway":
                kind = "router"
            elif namespace in injected:
                kind = "sidecar"
            self.add(Pod(self, one["metadata"]["name"], namespace, kind, template["metadata"]["labels"],
                         template["spec"].get("serviceAccountName", "default"),
                         template["spec"]["containers"][0].get("args", ())))

    def start(self):
        """Rules, apps, and what the control plane has to know."""
        for pod in self.pods.values():
            if pod.captured:
                pod.capture()
            if pod.kind != "router":
                pod.start_app()
            pod.tell()

    def mesh(self):
        """The pods that have a proxy."""
        return [pod for pod in self.pods.values() if pod.kind != "plain"]

    def metrics_targets(self):
        return {pod.name: f"{pod.ip}:{METRICS_PORT}" for pod in self.mesh()}

    def stop(self):
        """End everything; gives what did not end as it should, as lines of text."""
        odd = []
        for pod in self.pods.values():
            for name in ("proxy", "app"):
                if getattr(pod, name) is not None:
                    getattr(pod, name).send_signal(signal.SIGTERM)
        for pod in self.pods.values():
            status = pod.stop("proxy", None, wait_seconds=10)
            if status not in (None, 0):
                odd.append(f"{pod.name}: its proxy ended with {status}")
            pod.stop("app", None)
        return odd


def wait_until(condition, what, seconds=20, every=0.05):
    """Until condition() is true, which is given back; TimeoutError with `what` after `seconds`."""
    limit = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > limit:
            raise TimeoutError(f"{what}: not so after {seconds} s")
        time.sleep(every)
