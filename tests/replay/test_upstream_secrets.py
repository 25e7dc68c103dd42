# SPDX-License-Identifier: Apache-2.0
"""A cluster's certificate and roots from an agent's Unix socket: they are changed under traffic, and
connections that stand go on. Each test passes with the real Envoy too."""

import hashlib
import ssl
import threading

import pytest

from tests.harness import Connection, Proxy, Upstream
from tests.harness.ports import Port
from tests.harness.sds_agent import SdsAgent, authorities, certificate
from tests.replay.control_plane import PREFIX, listener, static_cluster
from tests.replay.test_secrets import Identities, ROTATIONS, configuration, secrets_shown, source

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@pytest.fixture(scope="module")
def identities(tmp_path_factory):
    made = Identities(tmp_path_factory.mktemp("identities"))
    made.server = made.roots[0].issue("upstream", ["DNS:upstream.test"])
    made.digests = [hashlib.sha256(ssl.PEM_cert_to_DER_cert(chain)).hexdigest() for chain, _ in made.pairs]
    return made


@pytest.fixture
def agent(tmp_path):
    with SdsAgent(tmp_path / "sds") as server:
        yield server


class Host(Upstream):
    """An upstream of one cluster that wants certificates by either root, and knows which one it was shown."""

    def __init__(self, name, identities):
        super().__init__(name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*identities.server)
        context.load_verify_locations(cadata="".join(identities.root_texts))
        context.verify_mode = ssl.CERT_REQUIRED
        self.context, self.digests = context, identities.digests

    def shown(self, connection):
        """The number of the certificate that came with a connection."""
        return self.digests.index(self.tls[connection]["cert"])

    def used(self):
        """The connections on which requests came, each once."""
        return sorted({seen.conn for seen in self.seen})


@pytest.fixture
def hosts(identities):
    """`kept`: its cluster keeps connections; `fresh`: a new connection for each request."""
    made = {name: Host(name, identities) for name in ("kept", "fresh")}
    yield made
    for host in made.values():
        host.stop()


def cluster(host, **options):
    return static_cluster(host.name, host.number, transport_socket={"name": "tls", "typed_config": {
        "@type": PREFIX + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "upstream.test", "common_tls_context": {
            "tls_certificate_sds_secret_configs": [source("default")],
            "validation_context_sds_secret_config": source("ROOTCA")}}},
        typed_extension_protocol_options={OPTIONS: {
            "@type": PREFIX + OPTIONS, "explicit_http_config": {"http_protocol_options": {}},
            "common_http_protocol_options": options}})


@pytest.fixture
def port():
    held = Port()
    yield held.number
    held.release()


@pytest.fixture
def proxy(binary, agent, identities, hosts, port, tmp_path):
    """A plain listener in front of both clusters; /kept goes to the one, all else to the other."""
    def config(_):
        out = configuration(tmp_path / "sds", port)
        routes = {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
            {"match": {"prefix": "/kept"}, "route": {"cluster": "kept", "timeout": "0s"}},
            {"match": {"prefix": "/"}, "route": {"cluster": "fresh", "timeout": "0s"}}]}]}
        out["static_resources"]["listeners"] = [listener("l1", port, inline=routes)]
        out["static_resources"]["clusters"] += [
            cluster(hosts["kept"]), cluster(hosts["fresh"], max_requests_per_connection=1)]
        return out

    agent.put(identities.certificate(0), authorities("ROOTCA", identities.root_texts[0]))
    with Proxy(binary, config) as one:
        yield one


class Client(Connection):
    def ask(self, path):
        self.send(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode(), ["GET"])
        return self

    def status(self, answers=1):
        """Of the last of so many answers."""
        assert self.wait_responses(answers), self.received
        return int(self.received[self.received.rindex(b"HTTP/1.1 "):].split()[1])


def get(port, path):
    client = Client(port)
    status = client.ask(path).status()
    client.close()
    return status


class Load(threading.Thread):
    """Asks without end: on one connection for the cluster that keeps its own, and for the other."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port
        self.over = threading.Event()
        self.statuses = []
        self.wrong = []

    def run(self):
        try:
            kept, answers = Client(self.port), 0
            while not self.over.is_set():
                answers += 1
                self.statuses += [kept.ask("/kept").status(answers), get(self.port, "/")]
            kept.close()
        except (OSError, AssertionError, ValueError) as error:
            self.wrong.append(repr(error))


def changed_to(hosts, port, number):
    """A new connection is made with this certificate."""
    assert get(port, "/") == 200
    return hosts["fresh"].shown(hosts["fresh"].used()[-1]) == number


def test_certificates_change_under_traffic(agent, identities, hosts, proxy, port):
    kept = hosts["kept"]
    kept.expect(["hold"])
    waits = Client(port).ask("/kept/waits")
    kept.wait_seen(1)
    load = Load(port)
    load.start()
    kept.wait_seen(2)
    both = "".join(identities.root_texts)
    for turn in range(1, ROTATIONS):
        number = turn % len(identities.pairs)
        agent.wait_taken("default", agent.put(identities.certificate(number)))
        proxy.wait_for("the new certificate", lambda: changed_to(hosts, port, number))
        agent.wait_taken("ROOTCA", agent.put(
            authorities("ROOTCA", both if turn % 2 else identities.root_texts[0])))
    load.over.set()
    load.join()
    kept.release()
    assert waits.status() == 200
    assert load.wrong == [] and set(load.statuses) == {200}
    assert [kept.shown(number) for number in kept.used()] == [0, 0], "nothing that stood was dropped"
    assert {hosts["fresh"].shown(number) for number in hosts["fresh"].used()} == {0, 1, 2}
    stats = proxy.stats(r"cluster\.\w+\.(upstream_cx_connect_fail|ssl\.(connection_error|fail_verify_\w+))$")
    assert set(stats.values()) == {0}, stats
    assert secrets_shown(proxy, identities) == []
    waits.close()


def test_roots_change_and_only_new_connections_mind(agent, identities, hosts, proxy, port):
    client = Client(port)
    assert client.ask("/kept").status() == 200
    agent.wait_taken("ROOTCA", agent.put(authorities("ROOTCA", identities.root_texts[1])))
    proxy.wait_for("distrust", lambda: get(port, "/") == 503)
    assert client.ask("/kept").status(2) == 200
    agent.wait_taken("ROOTCA", agent.put(authorities("ROOTCA", "".join(identities.root_texts))))
    proxy.wait_for("trust", lambda: get(port, "/") == 200)
    assert client.ask("/kept").status(3) == 200
    assert hosts["kept"].used() == [1]
    client.close()


def test_a_bad_certificate_changes_nothing(agent, identities, hosts, proxy, port):
    client = Client(port)
    assert client.ask("/kept").status() == 200
    agent.put(certificate("default", identities.pairs[1][0], identities.pairs[2][1]))
    assert agent.wait_refused("default").startswith("Failed to load private key from <inline>")
    assert changed_to(hosts, port, 0)
    assert client.ask("/kept").status(2) == 200
    assert hosts["kept"].used() == [1]
    client.close()
    assert secrets_shown(proxy, identities) == []


def test_an_agent_that_is_away_is_not_missed(agent, identities, hosts, proxy, port):
    client = Client(port)
    assert client.ask("/kept").status() == 200
    agent.stop()
    assert changed_to(hosts, port, 0)
    assert client.ask("/kept").status(2) == 200
    asked = len(agent.asked)
    agent.start()
    agent.wait(lambda: len(agent.asked) >= asked + 2, "both streams again")
    agent.wait_taken("default", agent.put(identities.certificate(2)))
    proxy.wait_for("the new certificate", lambda: changed_to(hosts, port, 2))
    assert client.ask("/kept").status(3) == 200
    assert hosts["kept"].used() == [1]
    client.close()
