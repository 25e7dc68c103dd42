# SPDX-License-Identifier: Apache-2.0
"""What recorded configuration of istiod is for: pods between which requests go, are routed, changed and
refused as the YAML beside the recordings says. KB_RECORDINGS names their folder (README.md); needs root,
ip and iptables. Pods have the addresses that the recordings name."""

import contextlib
import os
from pathlib import Path

import pytest

from tests.harness import namespaces
from tests.harness.certs import Authority
from tests.harness.client import Connection
from tests.harness.upstream import Behaviour, Upstream, reply, wait_until
from tests.replay.recorded import Told

FOLDER = os.environ.get("KB_RECORDINGS")
MISSING = ("no recordings of istiod: set KB_RECORDINGS to their folder" if not FOLDER
           else f"pods: {namespaces.missing()}" if namespaces.missing() else None)
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

# address, node whose recording it is told, identity (namespace, service account), ports of its application
PODS = {
    "client": ("10.10.0.31", "client", ("default", "default"), ()),
    "handson-blue": ("10.10.0.11", "handson-blue", ("handson", "handson"), (8080,)),
    "handson-green": ("10.10.0.12", "handson-blue", ("handson", "handson"), (8080,)),
    "sample-app": ("10.10.0.21", "sample-app", ("default", "sample-app"), (8080, 9090)),
    "ingressgateway": ("10.10.0.2", "ingressgateway", ("istio-system", "istio-ingressgateway"), ()),
}
OUTSIDE = "10.10.0.99"  # no sidecar
HANDSON, SAMPLE = "10.96.0.10", "10.96.0.20"  # addresses of the services
HANDSON_HOST = "handson.handson.svc.cluster.local"
SAMPLE_HOST = "sample-app.default.svc.cluster.local"
CLIENT_ID = "spiffe://cluster.local/ns/default/sa/default"
SERVER_ID = "spiffe://cluster.local/ns/handson/sa/handson"
DRAWS = 400  # of something that falls with 1 of 4 at least once: 1 - 10^-49


class Answer:
    def __init__(self, conn):
        conn.close()
        self.state, self.raw = conn.state, conn.received
        head, _, self.body = self.raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1]) if first else 0
        self.headers = {}
        for line in lines:
            name, _, value = line.partition(": ")
            self.headers.setdefault(name, []).append(value)

    def header(self, name):
        """Its value; several of them in a list."""
        found = self.headers.get(name, [])
        return found[0] if len(found) == 1 else found or None

    @property
    def app(self):
        return self.header("x-app")


class Mesh:
    """The pods of one scenario, each told its recording."""

    def __init__(self, binary, folder, scenario, names):
        self.network = namespaces.Network()
        self.pods, self.apps, self.told = {}, {}, {}
        authority = Authority(folder)
        try:
            for name in names:
                self._add(binary, scenario, name, authority)
            self.outside = self.network.pod(OUTSIDE, captured=False)
            for name, told in self.told.items():
                told.wait_settled()
                assert told.refused() == [], name
                told.proxy.wait_ready()
        except BaseException:
            self.close(False)
            raise

    def _add(self, binary, scenario, name, authority):
        address, node, (namespace, account), ports = PODS[name]
        pod = self.pods[name] = self.network.pod(address, captured=name != "ingressgateway")
        for port in ports:
            with pod:
                app = Upstream(f"{name}:{port}", "tcp" if port == 9090 else "http", address=address, port=port)
            if app.mode == "http":
                app.default = lambda _head: Behaviour(reply(headers=[f"x-app: {name}", "server: its own"]))
            self.apps[name, port] = app
        identity = authority.issue(name, [f"URI:spiffe://cluster.local/ns/{namespace}/sa/{account}"])
        self.told[name] = Told(binary, Path(FOLDER), f"{scenario}/{node}", True, authority.path, identity, pod)

    def connect(self, pod, address, port):
        with pod:
            return Connection(port, source="0.0.0.0", address=address)

    def ask(self, path="/", *headers, host=HANDSON_HOST, method="GET", source="client", to=(HANDSON, 8080)):
        conn = self.connect(self.pods[source] if source else self.outside, *to)
        lines = [f"{method} {path} HTTP/1.1", f"host: {host}", *headers]
        conn.send(("\r\n".join(lines) + "\r\n\r\n").encode(), [method])
        conn.wait_responses(1)
        return Answer(conn)

    def seen(self, name, port=8080):
        """Heads that the application got since."""
        return [one.raw.decode("latin-1") for one in self.apps[name, port].take_seen()]

    def close(self, good=True):
        for app in self.apps.values():
            app.close_idle()
        with contextlib.ExitStack() as stack:
            stack.callback(self.network.close)
            for app in self.apps.values():
                stack.callback(app.stop)
            for told in self.told.values():
                stack.callback(told.close, good)


def scenario(name, pods):
    @pytest.fixture(scope="module")
    def mesh(binary, tmp_path_factory):
        made = Mesh(binary, tmp_path_factory.mktemp(name), name, pods)
        yield made
        made.close()
    return mesh


BOTH = ("client", "handson-blue", "handson-green")
handson = scenario("handson", (*BOTH, "ingressgateway"))
routing = scenario("routing", (*BOTH, "sample-app"))
policy = scenario("policy", ("client", "handson-blue", "sample-app"))


@pytest.fixture(autouse=True)
def nothing_seen_yet(request):
    for name in ("handson", "routing", "policy"):
        if name in request.fixturenames:
            for app in request.getfixturevalue(name).apps.values():
                app.take_seen()


def names_in(head):
    return {line.split(":")[0]: line.split(": ", 1)[1] for line in head.split("\r\n")[1:] if ":" in line}


# handson: mutual TLS everywhere, a gateway

def test_handson_between_pods(handson):
    answer = handson.ask()
    assert answer.status == 200 and answer.app in ("handson-blue", "handson-green")
    (head,) = handson.seen(answer.app)
    xfcc = names_in(head)["x-forwarded-client-cert"]
    assert f"By={SERVER_ID};" in xfcc and f"URI={CLIENT_ID}" in xfcc


def test_handson_both_are_asked(handson):
    apps = set()
    for _ in range(DRAWS):
        apps.add(handson.ask().app)
        if len(apps) == 2:
            return
    raise AssertionError(apps)


def test_handson_plain_text_is_refused(handson):
    answer = handson.ask(source=None, to=(PODS["handson-blue"][0], 8080))
    assert (answer.raw, answer.state) in ((b"", "eof"), (b"", "rst"))
    assert handson.seen("handson-blue") == []


def test_handson_gateway(handson):
    gateway = (PODS["ingressgateway"][0], 80)
    answer = handson.ask(host="app.example.com", source=None, to=gateway)
    assert answer.status == 200 and answer.app in ("handson-blue", "handson-green")
    assert handson.ask(host="other.example.com", source=None, to=gateway).status == 404


# routing: every route of one VirtualService

@pytest.mark.parametrize("path, headers", [
    ("/", ["x-color: green", "user-agent: curl/8"]),
    ("/any", ["x-color: green", "user-agent: a wrk of art"]),
    ("/", ["cookie: a=b;color=green; c=d", "x-color: blue"]),
    ("/?color=green", []), ("/x?a=b&color=green&c", [])])
def test_routing_canary(routing, path, headers):
    assert {routing.ask(path, *headers).app for _ in range(20)} == {"handson-green"}


@pytest.mark.parametrize("path, headers", [
    ("/", ["x-color: green", "user-agent: Mozilla"]),
    ("/", ["cookie: color=green", "x-opt-out: 1"]),
    ("/?color=greener", [])])
def test_routing_no_canary(routing, path, headers):
    """Then it is the last route: blue mostly, and marked as such."""
    for _ in range(DRAWS):
        answer = routing.ask(path, *headers)
        assert answer.status == 200
        if answer.app == "handson-blue":
            assert answer.header("x-color") == "blue"
            return
    raise AssertionError("green only")


def test_routing_canary_by_query_is_for_get(routing):
    for _ in range(DRAWS):
        if routing.ask("/?color=green", "content-length: 0", method="POST").app == "handson-blue":
            return
    raise AssertionError("green only")


@pytest.mark.parametrize("path, status, location", [
    ("/old", 308, "http://new.example.com/new"),
    ("/secure/x?y=z", 301, f"https://{HANDSON_HOST}:8443/secure/x?y=z")])
def test_routing_redirects(routing, path, status, location):
    answer = routing.ask(path)
    assert (answer.status, answer.header("location")) == (status, location)


def test_routing_direct_response(routing):
    answer = routing.ask("/healthz")
    assert (answer.status, answer.body) == (200, b"ok\n")
    assert routing.seen("handson-blue") == routing.seen("handson-green") == []


def test_routing_rewrite_by_regex(routing):
    assert routing.ask("/v12/items/a/b").app == "handson-blue"
    (head,) = routing.seen("handson-blue")
    assert head.startswith("GET /items/a/b?v=12 HTTP/1.1\r\n")


def test_routing_rewrite_of_prefix_and_headers(routing):
    answer = routing.ask("/API/things?a=b", "x-set: 0", "x-add: first", "x-remove: 1")
    (head,) = routing.seen(answer.app)
    seen = names_in(head)
    assert head.startswith("GET /things?a=b HTTP/1.1\r\n")
    assert seen["host"] == "internal.example.com"
    assert seen["x-set"] == "1" and "x-remove" not in seen
    assert [line for line in head.split("\r\n") if line.startswith("x-add")] == ["x-add: first", "x-add: a"]
    assert (answer.header("x-resp"), answer.header("server")) == ("r", "envoy")  # the outer one names itself


def test_routing_fault(routing):
    answers = set()
    for _ in range(DRAWS):
        answer = routing.ask("/fault/x")
        answers.add((answer.status, answer.body))
        if len(answers) == 2:
            break
    assert answers == {(200, b"ok\n"), (503, b"fault filter abort")}


def test_routing_mirror(routing):
    answer = routing.ask("/mirror/x")
    assert answer.status == 200 and answer.app.startswith("handson")
    routing.apps["sample-app", 8080].wait_seen(1)
    (head,) = routing.seen("sample-app")
    assert head.startswith("GET /mirror/x HTTP/1.1\r\n")
    assert names_in(head)["host"] == HANDSON_HOST


def test_routing_cors(routing):
    asked = ["origin: https://dev.test", "access-control-request-method: POST"]
    answer = routing.ask("/cors/x", *asked, method="OPTIONS")
    assert answer.status == 200 and routing.seen("handson-blue") == routing.seen("handson-green") == []
    assert {name: answer.header(name) for name in answer.headers if name.startswith("access-control")} == {
        "access-control-allow-origin": "https://dev.test", "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET,POST", "access-control-allow-headers": "x-a",
        "access-control-expose-headers": "x-b", "access-control-max-age": "86400"}
    answer = routing.ask("/cors/x", "origin: https://example.com")
    assert answer.header("access-control-allow-origin") == "https://example.com"
    assert answer.header("access-control-expose-headers") == "x-b"
    assert routing.ask("/cors/x", "origin: https://evil.test").header("access-control-allow-origin") is None


def test_routing_retries(routing):
    blue, green = (routing.apps[name, 8080] for name in ("handson-blue", "handson-green"))
    good = blue.default, green.default
    blue.default = green.default = lambda _head: Behaviour(reply("503 Service Unavailable"))
    try:
        assert routing.ask("/retry/x").status == 503
        assert len(blue.take_seen() + green.take_seen()) == 4
        blue.default = good[0]
        assert routing.ask("/retry/x").app == "handson-blue"  # hosts that failed are not asked again
    finally:
        blue.default, green.default = good


def test_routing_weights(routing):
    apps = {"handson-blue": 0, "handson-green": 0}
    for _ in range(DRAWS):
        answer = routing.ask()
        apps[answer.app] += 1
        assert answer.header("x-color") == ("blue" if answer.app == "handson-blue" else None)
    # nine of ten: 5 standard deviations are 30
    assert 330 <= apps["handson-blue"] <= 390


def test_routing_tcp(routing):
    conn = routing.connect(routing.pods["client"], SAMPLE, 9090)
    conn.send(b"these bytes")
    assert conn.wait_bytes(11)
    assert conn.received == b"these bytes"
    conn.close()


# policy: who may do what

@pytest.mark.parametrize("method, path, headers, status", [
    ("GET", "/", ["x-token: admin"], 200),
    ("GET", "/any", [], 200),  # from 10.10.0.0/16, for such a host
    ("GET", "/admin", [], 403),
    ("GET", "/admin/x.html", ["x-token: admin"], 200),
    ("GET", "/admin/x.html", ["x-token: dev-1"], 200),
    ("GET", "/admin/x.html", ["x-token: user"], 403),
    ("GET", "/admin/x.html", [], 403),
    ("DELETE", "/", ["x-token: admin"], 403),
    ("GET", "/audit/x", [], 200),
    ("GET", "/jwt/x", [], 403),
    ("GET", "/any", ["authorization: Bearer no.such.token"], 401)])
def test_policy_of_requests(policy, method, path, headers, status):
    answer = policy.ask(path, *headers, method=method)
    assert answer.status == status, answer.raw
    assert len(policy.seen("handson-blue")) == (status == 200)
    if status == 403:
        assert answer.body == b"RBAC: access denied"


@pytest.mark.parametrize("host, path, headers, status", [
    (HANDSON_HOST, "/", [], 200), ("handson.example.com", "/x", [], 200),
    ("other.test", "/", [], 403), (HANDSON_HOST, "/admin", [], 403),
    ("other.test", "/", ["x-token: admin"], 403)])  # no principal in plain text
def test_policy_of_plain_text(policy, host, path, headers, status):
    """PERMISSIVE: let in, and judged by what is known of it."""
    answer = policy.ask(path, *headers, host=host, source=None, to=(PODS["handson-blue"][0], 8080))
    assert answer.status == status, answer.raw


def test_policy_by_port(policy):
    assert policy.ask(host=SAMPLE_HOST, to=(SAMPLE, 8080)).app == "sample-app"
    conn = policy.connect(policy.pods["client"], SAMPLE, 9090)
    conn.send(b"these bytes")
    assert conn.wait_bytes(11)
    conn.close()
    strict = policy.ask(source=None, host=SAMPLE_HOST, to=(PODS["sample-app"][0], 8080))
    assert strict.raw == b""
    # mutual TLS is off at 9091: it gets as far as the policy, which lets nobody in there
    disabled = policy.ask(source=None, host=SAMPLE_HOST, to=(PODS["sample-app"][0], 9091))
    assert (disabled.status, disabled.body) == (403, b"RBAC: access denied")


def test_policy_unnamed_identity_is_refused_bytes(policy):
    """The network filter refuses whom the policy does not name, before a byte is passed on."""
    conn = policy.connect(policy.outside, PODS["sample-app"][0], 9090)
    conn.send(b"these bytes")
    wait_until(lambda: not conn.wait_bytes(1) and conn.state != "open", "the end of the connection")
    assert conn.received == b"" and policy.apps["sample-app", 9090].take_seen() == []
    conn.close()
