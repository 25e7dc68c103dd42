# SPDX-License-Identifier: Apache-2.0
"""Hosts that are checked for health: what answers the checks, clusters that have them, and what the subject
says of their hosts."""

import json
import queue
import socket
import threading

from tests.harness.h2_upstream import H2Connection
from tests.harness.proxy import run_once
from tests.harness.upstream import server_context, wait_until

SOON = {"timeout": "30s", "interval": "0.01s", "no_traffic_interval": "0.01s",
        "unhealthy_threshold": 3, "healthy_threshold": 2}


class Host:
    """Answers each request as `answer` says at that time; None: not at all."""

    methods = b"GET"

    def __init__(self, answer=b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"):
        self.answer = answer
        self.asked = []
        self.connections = 0
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        try:
            while True:
                conn, _ = self.sock.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(conn,), daemon=True).start()
        except OSError:
            pass

    def _serve(self, conn):
        received = b""
        try:
            while data := conn.recv(4096):
                received += data
                if not received.startswith(self.methods):
                    conn.sendall(self.answer or b"")
                    continue
                while b"\r\n\r\n" in received:
                    head, received = received.split(b"\r\n\r\n", 1)
                    self.asked.append(head.decode())
                    if self.methods != b"GET":
                        received = b""  # its body
                    if self.answer is not None:
                        conn.sendall(self.answer)
        except OSError:
            pass
        finally:
            conn.close()

    def close(self):
        if self.sock.fileno() >= 0:  # not closed yet
            self.sock.shutdown(socket.SHUT_RDWR)  # close() alone leaves accept() at work
        self.sock.close()


class H2Host(Host):
    """The same over HTTP/2: `answer` is steps of harness/h2_upstream.py."""

    gate = None
    h2 = {"resets": True}

    def _serve(self, conn):
        try:
            H2Connection(self, conn, self.connections).serve()
        except (EOFError, OSError):
            pass
        finally:
            conn.close()

    def next_h2(self):
        return self.answer

    def _record(self, _, received):
        self.asked.append(received.decode("latin-1"))


class TlsHost(Host):
    """The same over TLS; notes the protocols that were agreed upon."""

    protocols = []

    def _serve(self, conn):
        try:
            conn = server_context(alpn=["hc", "h2"]).wrap_socket(conn, server_side=True)
            self.protocols.append(conn.selected_alpn_protocol())
            super()._serve(conn)
        except OSError:
            conn.close()


class Gate:
    """Answers wait until they are let through; None: the connection is closed instead."""

    def __init__(self):
        self.answers = queue.Queue()

    def take(self):
        return self.answers.get(timeout=60)


class GatedHost(Gate, Host):
    def __init__(self):
        Gate.__init__(self)
        Host.__init__(self)

    def _serve(self, conn):
        with conn:
            while conn.recv(4096):
                answer = self.take()
                if answer is None:
                    return
                conn.sendall(answer)


class GatedH2Host(Gate, H2Host):
    def __init__(self):
        Gate.__init__(self)
        H2Host.__init__(self)

    def next_h2(self):
        return self.take()


def status(code, *headers):
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"HTTP/1.1 {code} X\r\n{lines}content-length: 0\r\n\r\n".encode()


def checked(port, check, endpoint=None, **more):
    return {"name": "c", "type": "STATIC", "connect_timeout": "5s", "health_checks": [{**SOON, **check}],
            "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": {
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}, **(endpoint or {})}}]}]},
            **more}


def grpc_checked(port, check=None, endpoint=None, **more):
    return checked(port, {"grpc_health_check": check or {}, **more}, endpoint, typed_extension_protocol_options={
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}})


def started(rig, cluster):
    return rig({"clusters": {"up": {}}, "listeners": {"main": {"routes": ["/ -> c"]}},
                "bootstrap": {"static_resources": {"clusters": [cluster]}}})


def flags(one):
    return next(line.rsplit("::", 1)[1] for line in one.proxy.admin("/clusters")[1].decode().splitlines()
                if line.startswith("c::") and "health_flags" in line)


def becomes(one, text):
    wait_until(lambda: flags(one) == text, f"health flags {text}")


def count(one, name):
    return one.proxy.stats("^cluster\\.c\\.health_check")[f"cluster.c.health_check.{name}"]


def refused(binary, tmp_path, cluster):
    """What the subject says when it refuses the cluster."""
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"static_resources": {"clusters": [cluster]}}))
    ran = run_once(binary, ["--mode", "validate", "-c", str(file)])
    assert ran.returncode == 1
    return ran.stderr + ran.stdout
