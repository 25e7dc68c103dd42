# SPDX-License-Identifier: Apache-2.0
"""WebSocket of an independent client and server through the proxy: messages, fragments, pings and
close codes arrive as they were sent, over HTTP/1 and over extended CONNECT between two proxies."""

import contextlib
import random
import threading

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve

from tests.harness.patience import DEADLINE_S

EXCHANGES = 500
FRAGMENTS_MAX = 7
UPGRADES = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
H2_UPGRADES = {**UPGRADES, "codec_type": "HTTP2", "http2_protocol_options": {"allow_connect": True}}
ANY_TIME = {"match": "/", "route": {"cluster": "app", "timeout": "0s"}}
CLOSE_CODES = [1000, 1001, 1003, 1007, 1008, 1009, 1011, 1013, 3000, 3999, 4000, 4999]


class Server:
    """Answers each message with itself, in other fragments; `close:CODE` closes."""

    def __init__(self):
        self.server = serve(self.talk, "127.0.0.1", 0, max_size=None, ping_interval=None,
                            compression=None, close_timeout=DEADLINE_S)
        self.port = self.server.socket.getsockname()[1]
        self.closed = []  # codes that clients gave
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def talk(self, socket):
        rng = random.Random(11)
        try:
            for message in socket:
                if isinstance(message, str) and message.startswith("close:"):
                    socket.close(int(message[6:]), "as asked")
                    return
                socket.send(pieces(rng, message))
        except ConnectionClosed:
            pass
        finally:
            self.closed.append(socket.close_code)

    def stop(self):
        self.server.shutdown()
        self.thread.join()


def pieces(rng, message):
    """The message whole, or as fragments, some of them empty."""
    if rng.randrange(2):
        return message
    cuts = sorted(rng.randrange(len(message) + 1) for _ in range(rng.randrange(FRAGMENTS_MAX)))
    return iter([message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)])])


def drawn(rng):
    """A message: none, few or many bytes; text of all kinds of characters."""
    size = rng.choice([0, 1, 125, 126, 127, 4096, rng.randrange(65530, 65540), rng.randrange(300_000)])
    if rng.randrange(2):
        return rng.randbytes(size)
    return "".join(rng.choices("aé漢🙂\n", k=size // 2))


def spec(way, port):
    app = {"load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [{
        "endpoint": {"address": {"socket_address": {"address": "127.0.0.1",
                                                    "port_value": port}}}}]}]}}
    last = {"hcm": UPGRADES, "routes": [ANY_TIME]}
    if way == "HTTP/1":
        return {"clusters": {"app": app}, "listeners": {"main": last}}
    first = {"hcm": UPGRADES, "routes": [{"match": "/", "route": {"cluster": "next", "timeout": "0s"}}]}
    second = {**last, "hcm": H2_UPGRADES}
    to_second = {"endpoints": ["second"], "http2": {"allow_connect": True}}
    if way == "HTTP/1, then HTTP/2 over mutual TLS":
        second["tls"] = {"ca": "ca", "require": True}
        to_second["tls"] = {"cert": "client", "ca": "ca"}
    return {"clusters": {"app": app, "next": to_second},
            "listeners": {"main": first, "second": second}}


WAYS = ["HTTP/1", "HTTP/1, then HTTP/2", "HTTP/1, then HTTP/2 over mutual TLS"]


@pytest.fixture
def server():
    one = Server()
    yield one
    one.stop()


@pytest.fixture
def url(rig, server, request):
    one = rig(spec(request.param, server.port))
    # connections between the listeners stay
    one.at_rest = lambda: not [k for k in one.proxy.active() if not k.endswith("cx_active")]
    return f"ws://127.0.0.1:{one.port()}/chat"


def dial(url, **options):
    return connect(url, max_size=None, ping_interval=None, compression=None, proxy=None,
                   open_timeout=DEADLINE_S, close_timeout=DEADLINE_S, **options)


@pytest.mark.parametrize("url", WAYS, indirect=True)
def test_exchanges(url, server):
    rng = random.Random(7)
    with dial(url) as socket:
        for _ in range(EXCHANGES):
            message = drawn(rng)
            socket.send(pieces(rng, message))
            assert socket.recv(DEADLINE_S) == message
            if rng.randrange(10) == 0:
                assert socket.ping(rng.randbytes(rng.randrange(126))).wait(DEADLINE_S)


@pytest.mark.parametrize("url", WAYS, indirect=True)
def test_many_at_once(url, server):
    """Messages of one connection never reach another; answers need not be waited for."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(dial(url)) for _ in range(16)]
        for number in range(20):
            for at, socket in enumerate(sockets):
                socket.send(f"{at} {number} " + "x" * 997 * at)
        for number in range(20):
            for at, socket in enumerate(sockets):
                assert socket.recv(DEADLINE_S) == f"{at} {number} " + "x" * 997 * at


@pytest.mark.parametrize("url", WAYS, indirect=True)
def test_close_codes(url, server):
    for code in CLOSE_CODES:
        with dial(url) as socket:
            socket.send(f"close:{code}")
            with pytest.raises(ConnectionClosed):
                socket.recv(DEADLINE_S)
            assert (socket.close_code, socket.close_reason) == (code, "as asked")
        with dial(url) as socket:
            socket.send("hello")
            assert socket.recv(DEADLINE_S) == "hello"
            socket.close(code, "enough")
    ours = [code for code in server.closed if code is not None]
    assert sorted(ours) == sorted(2 * CLOSE_CODES)


@pytest.mark.parametrize("url", WAYS, indirect=True)
def test_a_server_that_says_no(url, server):
    server.server.socket.close()
    with pytest.raises(InvalidStatus) as refused, dial(url):
        pass
    assert refused.value.response.status_code == 503
