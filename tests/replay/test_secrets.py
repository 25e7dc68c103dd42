# SPDX-License-Identifier: Apache-2.0
"""Secrets from an agent's Unix socket: they are changed under traffic, and shown nowhere. Each test
passes with the real Envoy too."""

import re
import socket
import ssl
import threading

import pytest

from tests.harness import Proxy
from tests.harness.certs import Authority
from tests.harness.ports import Port
from tests.harness.patience import DEADLINE_S
from tests.harness.sds_agent import SdsAgent, authorities, certificate
from tests.replay.control_plane import PREFIX, bootstrap, listener
from tests.replay.test_listeners import direct

PAGES = ("/config_dump?include_eds", "/certs", "/clusters", "/listeners", "/stats", "/init_dump",
         "/server_info", "/runtime")
ROTATIONS = 12


class Identities:
    """Two roots, and certificates of one server by each."""

    def __init__(self, folder):
        self.roots = [Authority(folder, f"root{i}", f"Root {i}") for i in range(2)]
        self.pairs = []
        for i in range(3):
            cert, key = self.roots[i % 2].issue(f"server{i}", [f"DNS:server{i}.test"])
            self.pairs.append((cert.read_text(), key.read_text()))
        cert, key = self.roots[0].issue("peer", ["DNS:peer.test"])
        self.peer = (cert, key)
        self.root_texts = [root.path.read_text() for root in self.roots]

    def certificate(self, number):
        return certificate("default", *self.pairs[number])

    def keys(self):
        """The lines of every private key."""
        return [line for _, key in self.pairs for line in key.splitlines()
                if len(line) > 30 and "-----" not in line]


@pytest.fixture(scope="module")
def identities(tmp_path_factory):
    return Identities(tmp_path_factory.mktemp("identities"))


@pytest.fixture
def agent(tmp_path):
    with SdsAgent(tmp_path / "sds") as server:
        yield server


def source(name):
    return {"name": name, "sds_config": {"resource_api_version": "V3", "api_config_source": {
        "api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}]}}}


def configuration(path, port):
    """A TLS listener that wants certificates, all of it with secrets of the agent."""
    out = bootstrap(1, False)
    del out["dynamic_resources"]
    cluster = out["static_resources"]["clusters"][0]
    cluster["name"] = "sds-grpc"
    cluster["load_assignment"] = {"cluster_name": "sds-grpc", "endpoints": [{"lb_endpoints": [
        {"endpoint": {"address": {"pipe": {"path": str(path)}}}}]}]}
    one = listener("l1", port, inline=direct("hello"))
    one["filter_chains"][0]["transport_socket"] = {"name": "tls", "typed_config": {
        "@type": PREFIX + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [source("default")],
            "validation_context_sds_secret_config": source("ROOTCA")}}}
    out["static_resources"]["listeners"] = [one]
    return out


@pytest.fixture
def port():
    held = Port()
    yield held.number
    held.release()


@pytest.fixture
def proxy(binary, agent, port, tmp_path):
    proxy = Proxy(binary, lambda _: configuration(tmp_path / "sds", port), start=False)
    proxy.start()
    proxy.wait_admin()
    yield proxy
    proxy.stop()


class Connection:
    """A TLS connection that says which certificate it was shown."""

    def __init__(self, port, identities):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(*identities.peer)
        self.sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S))
        der = self.sock.getpeercert(True)
        self.shown = next(i for i, (chain, _) in enumerate(identities.pairs)
                          if ssl.PEM_cert_to_DER_cert(chain) == der)

    def get(self):
        self.sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        answer = b""
        while not answer.endswith(b"hello"):
            more = self.sock.recv(4096)
            assert more, f"the connection ended after {answer!r}"
            answer += more
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")

    def close(self):
        self.sock.close()


class Load(threading.Thread):
    """Asks without end on one connection, and opens another for each request beside it."""

    def __init__(self, port, identities):
        super().__init__(daemon=True)
        self.port, self.identities = port, identities
        self.over = threading.Event()
        self.shown = []
        self.wrong = []

    def run(self):
        try:
            kept = Connection(self.port, self.identities)
            while not self.over.is_set():
                kept.get()
                one = Connection(self.port, self.identities)
                one.get()
                one.close()
                self.shown.append(one.shown)
            kept.get()
            kept.close()
        except (OSError, AssertionError, StopIteration) as error:
            self.wrong.append(repr(error))


def begin(agent, identities, proxy, port):
    agent.put(identities.certificate(0), authorities("ROOTCA", identities.root_texts[0]))
    proxy.wait_ready()

    def opened():
        try:
            Connection(port, identities).close()
            return True
        except ConnectionRefusedError:
            return False

    proxy.wait_for("the port", opened)


def secrets_shown(proxy, identities):
    """Lines of private keys that pages or log show."""
    texts = [proxy.admin(page)[1].decode("latin-1") for page in PAGES] + [proxy.stderr()]
    return [line for text in texts for line in identities.keys() if line in text]


def test_a_listener_waits_for_its_secrets(agent, identities, proxy, port):
    agent.wait(lambda: {("default",), ("ROOTCA",)} <= set(agent.asked), "a request for each secret")
    assert proxy.admin("/ready")[0] == 503
    with pytest.raises(ConnectionRefusedError):
        Connection(port, identities)
    agent.put(identities.certificate(0))
    agent.wait_taken("default", "1")
    assert proxy.admin("/ready")[0] == 503
    agent.put(authorities("ROOTCA", identities.root_texts[0]))
    proxy.wait_ready()
    assert set(agent.nodes) == {"node-1"}


def test_secrets_change_under_traffic(agent, identities, proxy, port):
    begin(agent, identities, proxy, port)
    loads = [Load(port, identities) for _ in range(3)]
    for load in loads:
        load.start()
    both = "".join(identities.root_texts)
    for turn in range(1, ROTATIONS):
        number = turn % len(identities.pairs)
        version = agent.put(identities.certificate(number))
        agent.wait_taken("default", version)
        proxy.wait_for("the new certificate",
                       lambda: Connection(port, identities).shown == number)
        version = agent.put(authorities(
            "ROOTCA", both if turn % 2 else identities.root_texts[0]))
        agent.wait_taken("ROOTCA", version)
    for load in loads:
        load.over.set()
    for load in loads:
        load.join()
    assert [load.wrong for load in loads] == [[], [], []]
    assert {shown for load in loads for shown in load.shown} == {0, 1, 2}
    assert secrets_shown(proxy, identities) == []
    text = proxy.admin("/config_dump")[1].decode()
    assert re.search(r'"private_key": \{\s*"inline_bytes": "W3JlZGFjdGVkXQ=="', text), text[-3000:]


def test_a_bad_secret_changes_nothing(agent, identities, proxy, port):
    begin(agent, identities, proxy, port)
    kept = Connection(port, identities)
    agent.put(certificate("default", identities.pairs[1][0], identities.pairs[2][1]))
    assert agent.wait_refused("default").startswith("Failed to load private key from <inline>")
    kept.get()
    fresh = Connection(port, identities)
    assert fresh.shown == 0
    fresh.get()
    kept.close()
    fresh.close()
    assert secrets_shown(proxy, identities) == []


def test_an_agent_that_is_away_is_not_missed(agent, identities, proxy, port):
    begin(agent, identities, proxy, port)
    kept = Connection(port, identities)
    agent.stop()
    kept.get()
    Connection(port, identities).close()
    agent.start()
    asked = len(agent.asked)
    agent.wait(lambda: len(agent.asked) >= asked + 2, "both streams again")
    version = agent.put(identities.certificate(2))
    agent.wait_taken("default", version)
    proxy.wait_for("the new certificate", lambda: Connection(port, identities).shown == 2)
    kept.get()
    kept.close()
