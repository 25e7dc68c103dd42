# SPDX-License-Identifier: Apache-2.0
"""The programs under test: how each is configured, started, found ready, and ended."""

import http.client
import os
import pathlib
import re
import shutil
import socket
import string
import struct
import subprocess
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
LOAD_CORE, PROXY_CORE = 0, 1
NOT_HTTP1 = ("tls-in", "mesh-in", "h2", "grpc-in", "grpc-out")  # no HTTP/1.1 request in clear text is answered there
NGINX_MODULES = "/usr/lib/nginx/modules"
READY_SECONDS_MAX = 60

CLUSTER = """\
  - name: service-{n}
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: service-{n}
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}
"""


class Skip(Exception):
    """This subject cannot run here, and why."""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def pin(core):
    """What a child does before exec: sit on one core, where the machine has more than one."""

    def apply():
        if core is not None and (os.cpu_count() or 1) > 1:
            os.sched_setaffinity(0, {core})

    return apply


def render(name, target, istio=True, **values):
    """Without `istio`, what stands between the lines `# istio {` and `# istio }` is left out."""
    text = (HERE / "conf" / name).read_text()
    if not istio:
        text = re.sub(r"^ *# istio \{\n.*?^ *# istio \}\n", "", text, flags=re.M | re.S)
    target.write_text(string.Template(text).substitute(**values))
    return target


def get(port, path, timeout=2.0):
    """(status, body) of one GET on loopback."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"connection": "close"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class Process:
    """A started program; ends with end(), by its own process id."""

    def __init__(self, name, argv, work, core=None, env=None, log=None):
        self.name = name
        self.log = work / f"{log or name}.out"
        self.started_ns = time.monotonic_ns()
        with open(self.log, "wb") as out:
            self.popen = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=pin(core),
                env={**os.environ, **(env or {})},
            )

    @property
    def pid(self):
        return self.popen.pid

    @property
    def pids(self):
        return [self.pid]

    def wait_ready(self, port, path="/", status=200):
        """Milliseconds from the start to the first answer with this status."""
        limit = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < limit:
            if self.popen.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.popen.returncode}: {self.tail()}")
            try:
                if get(port, path)[0] == status:
                    return (time.monotonic_ns() - self.started_ns) / 1e6
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.0005)
        raise RuntimeError(f"{self.name} is not ready after {READY_SECONDS_MAX} s: {self.tail()}")

    def wait_listening(self, port):
        """Until something takes connections there, whatever it speaks."""
        limit = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < limit and self.popen.poll() is None:
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.005)
        raise RuntimeError(f"{self.name} does not listen on {port}: {self.tail()}")

    def tail(self):
        return self.log.read_text(errors="replace")[-600:].strip() or "(it printed nothing)"

    def end(self):
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(10)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


class Chain:
    """Two sidecars of one subject: plain text -> A -> mutual TLS -> B -> plain text. Looks like one process. Their files are
    `kind`-in and `kind`-out."""

    def __init__(self, subject, kind, work, upstream, answers=True):
        self.b = subject.start(f"{kind}-in", work, upstream)
        try:
            self.a = subject.start(f"{kind}-out", work, self.b.listen, answers=answers)
        except Exception:
            self.b.end()
            raise
        self.name, self.listen, self.pid = subject.name, self.a.listen, self.a.pid

    @property
    def pids(self):
        return [self.a.pid, self.b.pid]

    def end(self):
        self.a.end()
        self.b.end()


def grpc_frame(size):
    """A message of gRPC with its five bytes in front."""
    return struct.pack(">BI", 0, size) + b"m" * size


class Endless:
    """An upstream whose answers never end: chunks for as long as somebody takes them."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.open = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        try:
            while True:
                client, _ = self.listener.accept()
                self.open.append(client)
                threading.Thread(target=self.answer, args=(client,), daemon=True).start()
        except OSError:
            return  # end()

    @staticmethod
    def answer(client):
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        try:
            if client.recv(65536):
                client.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            while True:
                client.sendall(chunk)
        except OSError:
            return  # the proxy or end() closed it

    def end(self):
        for one in [self.listener, *self.open]:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()


class Backend:
    def __init__(self, work):
        self.port, self.port_h2 = free_port(), free_port()
        work.chmod(0o711)  # nginx reads what it serves as another user
        (work / "large").write_bytes(b"x" * 1048576)
        (work / "message").write_bytes(grpc_frame(64))
        conf = render(
            "backend.conf", work / "backend.conf", dir=work, upstream=self.port, upstream_h2=self.port_h2, body="x" * 1024
        )
        self.process = Process("backend", [need("nginx"), "-c", str(conf), "-e", str(work / "backend.log")], work, LOAD_CORE)
        self.process.wait_ready(self.port)

    def move(self, core):
        """Master and worker sit there from now on, where the machine has more than one core."""
        if (os.cpu_count() or 1) > 1:
            children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            for pid in [self.process.pid, *map(int, children)]:
                os.sched_setaffinity(pid, {core})

    def end(self):
        self.process.end()


def need(program):
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Skip(f"{program} is not installed (./dev setup bench)")
    return found


def suffix(kind):
    """Of the files of a kind of proxy in conf/: "http" is the plain one."""
    return "" if kind == "http" else f"-{kind}"


class Subject:
    """One program under test. start() returns a Process with .listen, .admin and .ready_ms."""

    has_admin = False

    def __init__(self, name):
        self.name = name

    def check(self):
        """Raises Skip where it cannot run."""

    def version(self):
        return ""

    def argv(self, kind, work, values):
        raise NotImplementedError

    def start(self, kind, work, upstream, workers=1, core=PROXY_CORE, env=None, more_clusters="", probe=True, answers=True, **more):
        """Ready means: /ready of its admin, else its first proxied answer. Without `probe`, a subject that has an
        admin is left with no request proxied yet. Without `answers` (the upstream's never end) it listens, no more."""
        values = {
            "dir": work, "listen": free_port(), "admin": free_port(), "upstream": upstream, "workers": workers,
            "nginx_modules": NGINX_MODULES, "more_clusters": more_clusters, "connections": 8000, **more,
        }
        argv = self.argv(kind, work, values)
        process = Process(self.name, argv, work, core, env, self.name + suffix(kind))
        process.listen, process.admin = values["listen"], values["admin"]
        try:
            if self.has_admin:
                process.ready_ms = process.wait_ready(process.admin, "/ready")
                if probe and answers and kind not in NOT_HTTP1:
                    process.wait_ready(process.listen)
            elif kind in NOT_HTTP1 or not answers:
                process.wait_listening(process.listen)
            else:
                process.ready_ms = process.wait_ready(process.listen)
        except Exception:
            process.end()
            raise
        return process


class Floor(Subject):
    def __init__(self, binary):
        super().__init__("floor")
        self.binary = binary

    def version(self):
        return "bytes copied, nothing parsed"

    def argv(self, kind, work, values):
        return [str(self.binary), str(values["listen"]), str(values["upstream"])]


def first_line(argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().split("\n")[0]


class Nginx(Subject):
    def __init__(self):
        super().__init__("nginx")

    def check(self):
        need("nginx")

    def version(self):
        return first_line([need("nginx"), "-v"]).rpartition("/")[2]

    def argv(self, kind, work, values):
        if kind == "tcp" and not pathlib.Path(NGINX_MODULES, "ngx_stream_module.so").exists():
            raise Skip("nginx has no stream module (Debian: libnginx-mod-stream)")
        conf = render(f"nginx{suffix(kind)}.conf", work / f"nginx{suffix(kind)}.conf", **values)
        return [need("nginx"), "-c", str(conf), "-e", str(work / "nginx.log")]


class Haproxy(Subject):
    def __init__(self):
        super().__init__("haproxy")

    def check(self):
        need("haproxy")

    def version(self):
        return re.sub(r"^HAProxy version (\S+?)-.*", r"\1", first_line([need("haproxy"), "-v"]))

    def argv(self, kind, work, values):
        conf = render(f"haproxy{suffix(kind)}.cfg", work / f"haproxy{suffix(kind)}.cfg", **values)
        return [need("haproxy"), "-db", "-f", str(conf)]


class Nghttpx(Subject):
    """The proxy of nghttp2, for HTTP/2 alone."""

    def __init__(self):
        super().__init__("nghttpx")

    def check(self):
        need("nghttpx")

    def version(self):
        return first_line([need("nghttpx"), "--version"]).rpartition("/")[2]

    def argv(self, kind, work, values):
        return [
            need("nghttpx"), "--conf=/dev/null", f"--frontend=127.0.0.1,{values['listen']};no-tls",
            f"--backend=127.0.0.1,{values['upstream']};;proto=h2", f"--workers={values['workers']}", "--accesslog-file=",
            "--errorlog-file=/dev/stderr",
        ]


class Envoy(Subject):
    """Envoy, and Kobune, which takes the same file and the same flags."""

    has_admin = True

    def __init__(self, name, binary, flags=(), istio=False):
        super().__init__(name)
        self.binary, self.flags, self.istio = binary, list(flags), istio

    def check(self):
        if not self.binary or not os.access(self.binary, os.X_OK):
            raise Skip(f"no binary of {self.name} here")

    def version(self):
        found = re.search(r"/(\d+\.\d+\.\d+[^/]*)/", first_line([self.binary, "--version"]))
        return found.group(1) if found else first_line([self.binary, "--version"])[:40]

    def argv(self, kind, work, values):
        conf = render(f"envoy{suffix(kind)}.yaml", work / f"{self.name}{suffix(kind)}.yaml", istio=self.istio, **values)
        return [str(self.binary), "-c", str(conf), "--concurrency", str(values["workers"]), "-l", "warning", *self.flags]


def many_clusters(count, port):
    return "".join(CLUSTER.format(n=n, port=port) for n in range(count))
