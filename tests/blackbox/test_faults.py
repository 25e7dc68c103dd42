# SPDX-License-Identifier: Apache-2.0
"""Socket calls that fail, every n-th of a kind, in two proxies in one process with HTTP/2 and
mutual TLS between them. What the kernel may do at any time must not be seen by anybody; what breaks a
connection may cost the requests on it, and nothing else."""

import http.client
import http.server
import random
import threading

import pytest

from tests.harness import tls_config
from tests.harness.faults import Faults, compiled
from tests.harness.patience import DEADLINE_S

SIZES = [0, 1, 17, 1000, 16_384, 16_385, 60_000]
UNSEEN = [("accept_EINTR", 2), ("accept_ECONNABORTED", 2), ("accept_EMFILE", 2), ("accept_EMFILE", 3)] + [
    (f"{call}_{what}", n) for call in ("recv", "send") for what in ("EAGAIN", "EINTR", "one_byte")
    for n in (3, 5, 11)]
BREAKING = [(kind, n) for kind in ("socket_EMFILE", "connect_ECONNREFUSED", "connect_EADDRNOTAVAIL",
                                   "recv_ECONNRESET", "send_EPIPE") for n in (1, 2, 3, 10, 37)]


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class EchoServer(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # a proxy may break off


def spec(port, header=False):
    """With `header` each connection between the two begins with one of the PROXY protocol."""
    tls = {"cert": "client", "ca": "ca", "alpn": ["h2"]}
    patient = {"connect_timeout": f"{DEADLINE_S}s"}  # however slow the machine is
    app = {**patient, "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [{
        "endpoint": {"address": {"socket_address": {"address": "127.0.0.1",
                                                    "port_value": port}}}}]}]}}
    to_second = {"tls": tls} if not header else {"transport_socket": {
        "name": "header", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3."
                     "ProxyProtocolUpstreamTransport",
            "config": {"version": "V2", "added_tlvs": [{"type": 224, "value": "A" * 400}]},
            "transport_socket": tls_config.upstream(tls)}}}
    return {"clusters": {"app": app,
                         "next": {"endpoints": ["second"], "http2": {}, **patient, **to_second}},
            "listeners": {"main": {"routes": [{"match": "/", "route": {"cluster": "next", "timeout": "0s"}}]},
                          "second": {"routes": [{"match": "/", "route": {"cluster": "app", "timeout": "0s"}}],
                                     "inspect": ["proxy_protocol"] if header else [],
                                     "tls": {"ca": "ca", "require": True, "alpn": ["h2"]}}}}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    library = compiled(tmp_path_factory.mktemp("faults"))
    if library is None:
        pytest.skip("no C compiler: cc, gcc or $CC")
    return library


@pytest.fixture
def header():
    return False


@pytest.fixture
def faulty(rig, library, tmp_path, monkeypatch, header):
    server = EchoServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    faults = Faults(tmp_path)
    with monkeypatch.context() as environment:
        environment.setenv("LD_PRELOAD", str(library))
        environment.setenv("KB_FAULTS_FILE", str(faults.file))
        environment.setenv("ASAN_OPTIONS", "verify_asan_link_order=0:detect_leaks=1:exitcode=99")
        one = rig(spec(server.server_address[1], header))
    one.faults = faults
    # connections between the listeners, and to the application, stay
    one.at_rest = lambda: not [k for k in one.proxy.active() if not k.endswith("cx_active")]
    yield one
    server.shutdown()
    server.server_close()


def exchange(connection, body):
    connection.request("POST", "/", body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def talk(one, requests, seed):
    """Outcomes of requests on some connections: ok, a status, or the name of an exception."""
    rng = random.Random(seed)
    outcomes, connection = [], None
    for _ in range(requests):
        if connection is None or rng.randrange(6) == 0:
            connection = http.client.HTTPConnection("127.0.0.1", one.port(), timeout=DEADLINE_S)
        body = rng.randbytes(rng.choice(SIZES))
        try:
            status, back = exchange(connection, body)
        except (http.client.HTTPException, ConnectionError) as error:
            outcomes.append(type(error).__name__)
            connection = None
            continue
        outcomes.append(status if status != 200 else "ok" if back == body else "another body")
    return outcomes


@pytest.mark.parametrize("kind,every", UNSEEN)
def test_nobody_sees(faulty, kind, every):
    faulty.faults.set(**{kind: every})
    outcomes = talk(faulty, 40, every)
    faulty.faults.set()
    assert outcomes == ["ok"] * 40
    assert faulty.faults.made()[kind.replace("_", " ")] > 0


@pytest.mark.parametrize("header", [True])
@pytest.mark.parametrize("kind,every", [("send_one_byte", 1), ("send_one_byte", 2), ("send_EAGAIN", 2),
                                        ("send_EINTR", 2), ("recv_one_byte", 1)])
def test_nobody_sees_headers_in_pieces(faulty, kind, every):
    faulty.faults.set(**{kind: every})
    outcomes = talk(faulty, 10, every)
    faulty.faults.set()
    assert outcomes == ["ok"] * 10
    assert faulty.faults.made()[kind.replace("_", " ")] > 0


@pytest.mark.parametrize("kind,every", BREAKING)
def test_costs_the_requests_on_it(faulty, kind, every):
    assert talk(faulty, 5, 1) == ["ok"] * 5
    faulty.faults.set(**{kind: every})
    outcomes = talk(faulty, 60, every)
    faulty.faults.set()
    assert set(outcomes) <= {"ok", 502, 503, "RemoteDisconnected", "IncompleteRead",
                             "ConnectionResetError", "BrokenPipeError"}
    assert talk(faulty, 20, 2) == ["ok"] * 20


def test_all_of_them(faulty):
    faulty.faults.set(accept_ECONNABORTED=5, accept_EMFILE=7, socket_EMFILE=6, connect_ECONNREFUSED=5,
                      recv_EAGAIN=7, recv_EINTR=5, recv_ECONNRESET=61, recv_one_byte=3,
                      send_EAGAIN=5, send_EINTR=7, send_EPIPE=67, send_one_byte=3)
    outcomes = talk(faulty, 200, 3)
    faulty.faults.set()
    assert "another body" not in outcomes
    assert talk(faulty, 20, 4) == ["ok"] * 20
