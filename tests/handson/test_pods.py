# SPDX-License-Identifier: Apache-2.0
"""Real proxies told by the control plane: everything is accepted, and requests go where the YAML says."""

import json
import signal
import threading

import pytest

from tests.handson.conftest import SERVICES
from tests.handson.pods import Pods
from tests.harness import namespaces
from tests.harness.proxy import envoy_path, subject_path
from tests.harness.upstream import wait_until

pytestmark = pytest.mark.skipif(namespaces.missing() is not None, reason=f"pods: {namespaces.missing()}")
WEB, GATEWAY = "10.96.0.10", "10.11.0.2"
HOST = "web.shop.svc.cluster.local"
FRONT = """
apiVersion: v1
kind: Service
metadata: {name: gateway, namespace: istio-system}
spec: {selector: {istio: ingressgateway}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [app.example.com]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: shop}
spec:
  hosts: [app.example.com]
  gateways: [front]
  http: [{route: [{destination: {host: web}}]}]
"""
MODE = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: %s}}
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec:
  host: web
  trafficPolicy: %s
  subsets: [{name: blue, labels: {color: blue}}, {name: green, labels: {color: green}}]
"""


def virtual_service(rules):
    return ("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\n"
            "spec: {hosts: [web], http: %s}\n" % json.dumps(rules))


def to(subset=None, **more):
    return {"destination": {"host": "web", **({"subset": subset} if subset else {})}, **more}


@pytest.fixture(params=["delta", "sotw"])
def mesh(place, request):
    """A client, a blue and a green pod, a gateway, and one outside."""
    binary = subject_path()
    if binary is None:
        pytest.fail("no kobune binary: ./dev build, or set KOBUNE_BIN")
    with_istio = binary != envoy_path()
    place.write("services.yaml", SERVICES + "---" + FRONT)
    place.write("mode.yaml", MODE % "STRICT")
    place.start(*([] if with_istio else ["--plain"]))
    made = Pods(place, binary)
    delta = request.param == "delta"
    try:
        made.add("client", "default", "10.11.0.31", delta=delta)
        for color, ip in (("blue", "10.11.0.11"), ("green", "10.11.0.12")):
            made.add(f"web-{color}", "shop", ip, 8080, labels={"app": "web", "color": color}, serviceAccount="web",
                     delta=delta)
        made.add("gateway", "istio-system", GATEWAY, kind="router", labels={"istio": "ingressgateway"}, delta=delta)
        made.add("outside", "", "10.11.0.99", kind="outside")
        made.ready()
        yield made
        assert place.status()["nacks"] == [] and place.status()["errors"] == []
    finally:
        made.close(getattr(request.node, "went_well", False))


def change(mesh, name, text):
    """Written, read, told, answered."""
    mesh.place.change(name, text)
    assert mesh.place.status()["errors"] == []
    mesh.settled()


def served_by(mesh, n, path="/", **headers):
    """The applications that served n requests from the client."""
    seen = []
    for _ in range(n):
        status, body = mesh.ask("client", WEB, 80, path, host=HOST, **headers)
        assert status == 200, (status, body)
        seen.append(body["app"])
    return seen


def test_who_speaks_with_whom(mesh):
    status, body = mesh.ask("client", WEB, 80, host=HOST)
    assert status == 200
    xfcc = body["headers"]["x-forwarded-client-cert"]
    assert "By=spiffe://cluster.local/ns/shop/sa/web" in xfcc
    assert xfcc.endswith("URI=spiffe://cluster.local/ns/default/sa/client")
    assert mesh.ask("outside", GATEWAY, 8080, host="app.example.com")[0] == 200
    assert mesh.ask("outside", GATEWAY, 8080, host="other.example.com")[0] == 404
    for mode, expected in (("PERMISSIVE", 200), ("STRICT", None), ("DISABLE", 200), ("STRICT", None)):
        change(mesh, "mode.yaml", MODE % mode)
        status, _ = mesh.ask("outside", "10.11.0.11", 8080)
        assert status == expected or (expected is None and isinstance(status, str)), (mode, status)
        assert mesh.ask("client", WEB, 80, host=HOST)[0] == 200, mode


def test_routes(mesh):
    change(mesh, "rule.yaml", RULE % "{}")
    for weights, expected in (((100, 0), {"web-blue"}), ((0, 100), {"web-green"})):
        change(mesh, "routes.yaml", virtual_service([
            {"route": [to("blue", weight=weights[0]), to("green", weight=weights[1])]}]))
        assert set(served_by(mesh, 5)) == expected
    change(mesh, "routes.yaml", virtual_service([
        {"match": [{"headers": {"x-color": {"exact": "blue"}}}], "route": [to("blue")]},
        {"match": [{"uri": {"prefix": "/api/"}}], "rewrite": {"uri": "/"}, "route": [to("green")]},
        {"match": [{"uri": {"exact": "/old"}}], "redirect": {"uri": "/new", "redirectCode": 308}},
        {"match": [{"uri": {"regex": "/fault.*"}}], "fault": {"abort": {"httpStatus": 418}}, "route": [to()]},
        {"match": [{"queryParams": {"q": {"exact": "1"}}, "method": {"exact": "GET"}}], "route": [to("blue")],
         "headers": {"request": {"set": {"x-set": "yes"}}}},
        {"route": [to("green")]}]))
    assert set(served_by(mesh, 3, **{"x-color": "blue"})) == {"web-blue"}
    assert mesh.ask("client", WEB, 80, "/api/x", host=HOST)[1]["path"] == "/x"
    assert mesh.ask("client", WEB, 80, "/old", host=HOST)[0] == 308
    assert mesh.ask("client", WEB, 80, "/fault", host=HOST) == (418, "fault filter abort")
    body = mesh.ask("client", WEB, 80, "/?q=1", host=HOST)[1]
    assert (body["app"], body["headers"]["x-set"]) == ("web-blue", "yes")
    assert set(served_by(mesh, 3)) == {"web-green"}


def test_destination_rules(mesh):
    change(mesh, "rule.yaml", RULE % json.dumps({
        "loadBalancer": {"consistentHash": {"httpHeaderName": "x-user"}},
        "connectionPool": {"tcp": {"maxConnections": 10, "connectTimeout": "2s"}, "http": {
            "http1MaxPendingRequests": 5, "h2UpgradePolicy": "UPGRADE", "idleTimeout": "30s"}},
        "outlierDetection": {"consecutive5xxErrors": 3, "interval": "1s", "baseEjectionTime": "3s"}}))
    for user in ("a", "b"):
        assert len(set(served_by(mesh, 5, **{"x-user": user}))) == 1
    change(mesh, "rule.yaml", RULE % json.dumps({"tls": {"mode": "ISTIO_MUTUAL"},
                                                 "loadBalancer": {"simple": "ROUND_ROBIN"}}))
    assert set(served_by(mesh, 6)) == {"web-blue", "web-green"}
    change(mesh, "rule.yaml", RULE % json.dumps({"tls": {"mode": "DISABLE"}}))
    status, _ = mesh.ask("client", WEB, 80, host=HOST)
    assert status == 503  # plain where only the mesh's TLS is let in


class Load:
    """Requests of the client, one after the other, until the end; `failed` are those that were not answered with 200."""

    def __init__(self, mesh):
        self.count, self.failed, self.over = 0, [], threading.Event()

        def run():
            while not self.over.is_set():
                answer = mesh.ask("client", WEB, 80, host=HOST)
                self.count += 1
                if answer[0] != 200:
                    self.failed.append(answer)
        self.thread = threading.Thread(target=run)

    def some_more(self, n=20):
        start = self.count
        wait_until(lambda: self.count >= start + n, f"{n} requests")

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def test_no_request_fails_while_things_change(mesh):
    both = RULE % "{}" + "---\n" + virtual_service([{"route": [to("blue", weight=50), to("green", weight=50)]}])
    with Load(mesh) as load:
        for name, text in (
                ("mode.yaml", MODE % "PERMISSIVE"), ("mode.yaml", MODE % "STRICT"),
                ("routes.yaml", both),  # subsets, and routes to them, at once
                ("routes.yaml", RULE % json.dumps({"loadBalancer": {"simple": "RANDOM"}}) + "---\n" + virtual_service(
                    [{"route": [to("blue")]}])),
                ("routes.yaml", ""), ("policy.yaml", policy(action="DENY", rules=[
                    {"to": [{"operation": {"paths": ["/no"]}}]}])), ("policy.yaml", "")):
            load.some_more()
            change(mesh, name, text)
        mesh.place.process.send_signal(signal.SIGUSR1)
        load.some_more()
        mesh.place.kill()
        load.some_more()
        mesh.place.start()
        mesh.settled()
        load.some_more()
    assert load.failed == []


def test_what_the_proxies_show(mesh):
    for name, proxy in mesh.proxies.items():
        dump = json.loads(proxy.admin("/config_dump?include_eds")[1])
        found = {one["@type"].rpartition(".")[2]: one for one in dump["configs"]}
        listeners = found["ListenersConfigDump"].get("dynamic_listeners", [])
        names = {one["name"] for one in listeners if "active_state" in one}
        assert not any("error_state" in one or "warming_state" in one for one in listeners), listeners
        assert names == ({"0.0.0.0_8080"} if name == "gateway" else {
            "virtualInbound", "virtualOutbound", "0.0.0.0_80", "10.96.0.20_9000"}), name
        clusters = found["ClustersConfigDump"]
        assert not clusters.get("dynamic_warming_clusters")
        assert "outbound|80||" + HOST in {one["cluster"]["name"] for one in clusters["dynamic_active_clusters"]}
        routes = {one["route_config"]["name"] for one in found["RoutesConfigDump"]["dynamic_route_configs"]}
        assert routes == ({"http.8080"} if name == "gateway" else {"80"})
        secrets = {one["name"] for one in found["SecretsConfigDump"].get("dynamic_active_secrets", [])}
        assert secrets == {"default", "ROOTCA"}
        assert proxy.stats("update_rejected") == {} or not any(proxy.stats("update_rejected").values())


def policy(**spec):
    return ("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
            "metadata: {name: web, namespace: shop}\nspec: %s\n" % json.dumps(
                {"selector": {"matchLabels": {"app": "web"}}, **spec}))


def test_policies(mesh):
    def asks(path="/", method="GET", **headers):
        return mesh.ask("client", WEB, 80, path, method, HOST, **headers)

    def becomes(expected, *args, **headers):
        """A connection that came before the change is asked to go with its next answer only, and the service has two
        pods, which take turns."""
        def said():
            answer = asks(*args, **headers)
            return (answer[0] if expected == 200 else answer) == expected
        wait_until(lambda: all(said() for _ in range(4)), f"{expected} for {args} {headers}")
    refused = (403, "RBAC: access denied")
    client = "cluster.local/ns/default/sa/client"
    change(mesh, "policy.yaml", policy(action="DENY", rules=[{
        "from": [{"source": {"principals": [client]}}], "to": [{"operation": {"paths": ["/admin*"]}}]}]))
    becomes(refused, "/admin/x")
    assert asks("/")[0] == 200
    assert mesh.ask("outside", GATEWAY, 8080, "/admin", host="app.example.com")[0] == 200
    change(mesh, "policy.yaml", policy(action="ALLOW", rules=[
        {"from": [{"source": {"namespaces": ["default"]}}], "to": [{"operation": {"methods": ["GET"]}}],
         "when": [{"key": "request.headers[x-token]", "values": ["dev-*"]}]}]))
    becomes(refused)
    becomes(200, **{"x-token": "dev-1"})
    becomes(refused, "/", "DELETE", **{"x-token": "dev-1"})
    wait_until(lambda: mesh.ask("outside", GATEWAY, 8080, host="app.example.com") == refused, "403 by the gateway")
    change(mesh, "policy.yaml", policy(rules=[{"from": [{"source": {"ipBlocks": ["10.11.0.0/24"]}}],
                                                "to": [{"operation": {"ports": ["8080"], "notPaths": ["/no"]}}]}]))
    becomes(200)
    becomes(refused, "/no")
    change(mesh, "policy.yaml", policy())
    becomes(refused)
    change(mesh, "policy.yaml", policy(action="AUDIT", rules=[{"to": [{"operation": {"hosts": ["*"]}}]}]))
    becomes(200)


def test_rotation_and_restart(mesh):
    mesh.place.stop()
    assert mesh.ask("client", WEB, 80, host=HOST)[0] == 200
    mesh.place.start("--rotate", "0.5", *mesh.place.args)
    first = mesh.place.status()["certificates"]["web-blue"]
    mesh.settled()
    mesh.place.wait(lambda status: status["certificates"]["web-blue"] != first)
    served_by(mesh, 10)
    mesh.place.kill()
    assert mesh.ask("client", WEB, 80, host=HOST)[0] == 200
    mesh.place.start()
    mesh.settled()
    assert mesh.ask("client", WEB, 80, host=HOST)[0] == 200
