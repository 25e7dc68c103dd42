# SPDX-License-Identifier: Apache-2.0
"""A sidecar that connections reach by TPROXY, as with Istio's interception mode of that name: the
application sees the address of its client. The same with the real Envoy."""

import socket
import threading

import pytest

from tests.harness import namespaces
from tests.harness.mesh import filter_of, http, passthrough, socket_address, tcp
from tests.harness.patience import DEADLINE_S
from tests.harness.proxy import Proxy
from tests.harness.rules import run_tool

pytestmark = pytest.mark.skipif(namespaces.missing() is not None, reason=f"pods: {namespaces.missing()}")
POD, ONE, OTHER = ("10.11.0.1", "fd00:11::1"), ("10.11.0.2", "fd00:11::2"), ("10.11.0.3", "fd00:11::3")
LEAVES, ANY = ("127.0.0.6", "::6"), ("0.0.0.0", "::")
FAMILY = (socket.AF_INET, socket.AF_INET6)
HTTP_PORT, TCP_PORT = 8080, 9090
ORIGINAL_DST = filter_of("listener", "original_dst", "OriginalDst")


def config(six, *listener_filters):
    """As istiod has it: connections to the app would come from LEAVES, if no filter said otherwise."""
    return {"admin": {"address": socket_address("127.0.0.1", 0)}, "static_resources": {
        "listeners": [{
            "name": "inbound", "address": socket_address(ANY[six], 15006), "transparent": True,
            "listener_filters": [ORIGINAL_DST, *listener_filters],
            "filter_chains": [{"filters": http("app", "/dev/null"), "filter_chain_match": {"destination_port": HTTP_PORT}},
                              {"filters": tcp("app", "/dev/null"), "filter_chain_match": {"destination_port": TCP_PORT}}]}],
        "clusters": [passthrough("app", upstream_bind_config={"source_address": {"address": LEAVES[six], "port_value": 0}})]}}


class App:
    """Answers everything with the address and port from which it is connected to."""

    def __init__(self, pod, six, port):
        with pod:
            self.listener = socket.socket(FAMILY[six], socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((ANY[six], port))
        self.listener.listen(16)
        self.accepted = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                sock, peer = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._answer, args=(sock, f"{peer[0]} {peer[1]}\n".encode()), daemon=True).start()

    @staticmethod
    def _answer(sock, text):
        with sock:
            while data := sock.recv(4096):
                head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(text)
                sock.sendall(head + text if data.startswith(b"GET ") else text)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Pod:
    def __init__(self, six):
        self.six = six
        self.network = namespaces.Network()
        self.pod, self.one, self.other = (self.network.pod(at[six], captured=False) for at in (POD, ONE, OTHER))
        # Istio runs the sidecar as root in this mode, with the group that -u gives too
        done = run_tool(self.pod, *namespaces.CAPTURE, "-m", "TPROXY", "-u", "1337")
        assert done.returncode == 0, done.stderr
        self.apps = {port: App(self.pod, six, port) for port in (HTTP_PORT, TCP_PORT)}

    def connect(self, client, port):
        with client:
            sock = socket.socket(FAMILY[self.six], socket.SOCK_STREAM)
        sock.settimeout(DEADLINE_S)
        sock.connect((POD[self.six], port))
        return sock

    @staticmethod
    def ask(sock, data=b"GET / HTTP/1.1\r\nhost: h.test\r\n\r\n"):
        """(status, address, port) as the application saw it."""
        sock.sendall(data)
        answer = sock.recv(4096)
        if not data.startswith(b"GET"):
            return 200, *answer.decode().split()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), *body.decode().split()[:2]

    def close(self):
        for app in self.apps.values():
            app.close()
        self.network.close()


@pytest.fixture(params=[0, 1], ids=["ipv4", "ipv6"])
def pod(request):
    made = Pod(request.param)
    yield made
    made.close()


def test_the_application_sees_its_client(binary, pod):
    """By HTTP and by TCP; connections of one client never serve another."""
    six = pod.six
    with Proxy(binary, config(six, filter_of("listener", "original_src", "OriginalSrc", mark=1337)), pod=pod.pod) as proxy:
        with pod.connect(pod.one, HTTP_PORT) as one, pod.connect(pod.other, HTTP_PORT) as other:
            for _ in range(3):
                assert pod.ask(one)[:2] == (200, ONE[six])
                assert pod.ask(other)[:2] == (200, OTHER[six])
        with pod.connect(pod.one, HTTP_PORT) as again:
            assert pod.ask(again)[:2] == (200, ONE[six])
        assert pod.apps[HTTP_PORT].accepted == 2, "each client's own connection serves it again"
        with pod.connect(pod.other, TCP_PORT) as other:
            assert pod.ask(other, b"hello")[:2] == (200, OTHER[six])
        assert proxy.stats("cluster.app.upstream_cx_total") == {"cluster.app.upstream_cx_total": 3}


def test_without_the_filter(binary, pod):
    """The application sees the sidecar; where the client wanted to go is known all the same."""
    with Proxy(binary, config(pod.six), pod=pod.pod):
        with pod.connect(pod.one, HTTP_PORT) as one:
            assert pod.ask(one)[:2] == (200, LEAVES[pod.six])


def test_the_port_of_the_client(binary, pod):
    """bind_port changes nothing: the port is another one."""
    with Proxy(binary, config(pod.six, filter_of("listener", "original_src", "OriginalSrc", mark=1337, bind_port=True)),
               pod=pod.pod):
        with pod.connect(pod.one, HTTP_PORT) as one:
            status, address, port = pod.ask(one)
            assert (status, address) == (200, ONE[pod.six]) and int(port) != one.getsockname()[1]
