# SPDX-License-Identifier: Apache-2.0
"""The streams of the control plane, as a proxy hears them: what is told when, and what is not."""

import asyncio
import signal
import subprocess

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2

from examples.handson.control_plane import ads, resources
from examples.handson.control_plane.resources import Resource
from tests.handson.client import Delta, Sotw, unpacked
from tests.handson.conftest import SERVICES
from tests.harness.patience import DEADLINE_S

WEB, STORE = "outbound|80||web.shop.svc.cluster.local", "outbound|9000||store.default.svc.cluster.local"
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec:
  host: web
  subsets: [{name: blue, labels: {color: blue}}]
"""
ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: web%s}}]}]
"""


def xds(place, pod="client"):
    return place.run / "pods" / pod / "XDS"


def sds(place, pod="client"):
    return place.run / "pods" / pod / "SDS"


def addresses(assignment):
    return sorted(f"{host.endpoint.address.socket_address.address}:{host.endpoint.address.socket_address.port_value}"
                  for group in assignment.endpoints for host in group.lb_endpoints)


def opened(stream, endpoints=(WEB, STORE), routes=("80",)):
    """Asks for everything as a proxy does, and accepts it; what was told, by type."""
    told = {}
    for short, names in (("CDS", ()), ("EDS", endpoints), ("LDS", ()), ("RDS", routes)):
        stream.subscribe(short, *names)
        answer = stream.take(short)
        told[short] = answer[0] if isinstance(answer, tuple) else answer
    return told


def settled(place, pod="client"):
    place.wait(lambda s: place.pod_status(pod)["generation"] == s["generation"], f"that {pod} has all")


@pytest.mark.parametrize("kind", [Delta, Sotw])
def test_all_of_it(served, kind):
    with kind(xds(served)) as stream:
        told = opened(stream)
        assert set(told["CDS"]) == {"BlackHoleCluster", "PassthroughCluster", "InboundPassthroughCluster", WEB, STORE}
        assert addresses(told["EDS"][WEB]) == ["10.10.0.11:8080", "10.10.0.12:8080"]
        assert addresses(told["EDS"][STORE]) == []
        assert set(told["LDS"]) == {"virtualInbound", "virtualOutbound", "0.0.0.0_80", "10.96.0.20_9000"}
        assert [host.name for host in told["RDS"]["80"].virtual_hosts] == [
            "web.shop.svc.cluster.local:80", "allow_any"]
        settled(served)


@pytest.mark.parametrize("kind", [Delta, Sotw])
def test_pods_come_and_go(served, kind):
    with kind(xds(served)) as stream:
        opened(stream)
        settled(served)
        served.pod("web-2", "shop", "10.10.0.12", labels={"app": "web"}, serviceAccount="web", ready=False)
        told = stream.take("EDS")
        assert addresses((told[0] if kind is Delta else told)[WEB]) == ["10.10.0.11:8080"]
        served.remove_pod("web-1")
        told = stream.take("EDS")
        assert addresses((told[0] if kind is Delta else told)[WEB]) == []
        served.wait(lambda status: [pod["name"] for pod in status["pods"]] == ["client", "web-2"])
        assert not xds(served, "web-1").exists() and not sds(served, "web-1").exists()
        served.pod("web-3", "shop", "10.10.0.13", labels={"app": "web"}, serviceAccount="web")
        told = stream.take("EDS")
        assert addresses((told[0] if kind is Delta else told)[WEB]) == ["10.10.0.13:8080"]


def test_only_what_changed(served):
    with Delta(xds(served)) as stream:
        opened(stream)
        settled(served)
        served.write("store.yaml", "")  # a change of files that changes nothing that is told
        settled(served)
        served.pod("store", "default", "10.10.0.21")
        told, gone = stream.take("CDS")  # it is known now who may answer
        assert set(told) == {STORE} and not gone
        told, gone = stream.take("EDS")
        assert set(told) == {STORE} and addresses(told[STORE]) == ["10.10.0.21:9000"] and not gone


def test_a_removed_service(served):
    with Delta(xds(served)) as stream:
        opened(stream)
        settled(served)
        served.write("services.yaml", SERVICES.partition("---")[0])
        told, gone = stream.take("LDS")  # first nobody leads there any more, then it is gone
        assert not told and gone == ["10.96.0.20_9000"]
        told, gone = stream.take("CDS")
        assert not told and gone == [STORE]
        settled(served)


def test_a_removed_service_in_state_of_the_world(served):
    with Sotw(xds(served)) as stream:
        opened(stream)
        settled(served)
        served.write("services.yaml", SERVICES.partition("---")[0])
        assert "10.96.0.20_9000" not in stream.take("LDS")
        assert STORE not in stream.take("CDS")


def test_a_new_cluster_is_there_before_the_route_to_it(served):
    blue = "outbound|80|blue|web.shop.svc.cluster.local"
    with Delta(xds(served)) as stream:
        opened(stream)
        settled(served)
        served.write("rule.yaml", RULE + "---" + ROUTE % ", subset: blue")
        clusters = stream.next("CDS")
        assert set(unpacked(clusters)) == {blue, WEB}  # the other one's metadata names the rule
        told, _ = stream.take("EDS")
        assert set(told) == {WEB}  # a cluster that was changed waits for its endpoints again
        stream.subscribe("EDS", blue)
        told, _ = stream.take("EDS")
        assert addresses(told[blue]) == ["10.10.0.11:8080"]
        stream.accept(clusters)  # now they are warm
        told, _ = stream.take("RDS")
        assert told["80"].virtual_hosts[0].routes[0].route.cluster == blue
        settled(served)


class Driven:
    """A stream in this process: what it says is looked at one by one, and nothing of it is a matter of time."""

    def __init__(self):
        self.service, self.requests, self.heard = ads.Ads(), asyncio.Queue(), []
        self.update(1)
        self.responses = ads.DeltaStream(self.service).run(self.said())
        self.next = asyncio.ensure_future(anext(self.responses))

    def update(self, n):
        self.service.update({kind: {"one": Resource("one", f"{n}", any_pb2.Any(type_url=kind))}
                             for kind in resources.ORDER}, n)

    async def said(self):
        while True:
            yield await self.requests.get()

    def say(self, kind, **fields):
        self.requests.put_nowait(discovery_pb2.DeltaDiscoveryRequest(type_url=kind, **fields))

    async def rest(self):
        """Until all that can go on without the proxy has gone on."""
        for _ in range(50):
            await asyncio.sleep(0)

    def close(self):
        self.next.cancel()

    def subscribe(self, kind):
        self.say(kind, resource_names_subscribe=[] if kind in ads.WILDCARD else ["one"])

    async def listen(self, kind, version, answered=True):
        response = await asyncio.wait_for(self.next, DEADLINE_S)
        self.next = asyncio.ensure_future(anext(self.responses))
        self.heard.append((resources.SHORT[response.type_url], response.resources[0].version))
        assert self.heard[-1] == (resources.SHORT[kind], version), self.heard
        if answered:
            self.say(kind, response_nonce=response.nonce)
        return response


def test_nobody_waits_for_the_other(monkeypatch):
    """A proxy answers for a changed cluster when it has its endpoints: they have to come without that answer. Routes
    have to wait for it. Patience without end would show either."""
    monkeypatch.setattr(ads, "PATIENCE", 1e6)

    async def story():
        one = Driven()
        for kind in resources.ORDER:
            one.subscribe(kind)
            await one.listen(kind, "1")
        one.update(2)
        clusters = await one.listen(resources.CDS, "2", answered=False)
        await one.listen(resources.EDS, "2")
        assert one.service.told() == 1
        one.say(resources.CDS, response_nonce=clusters.nonce)
        await one.listen(resources.LDS, "2")
        await one.listen(resources.RDS, "2")
        one.close()
    asyncio.run(story())


def test_a_change_in_the_middle_of_the_beginning(monkeypatch):
    """Endpoints that were told before the changed cluster are none that it waits for: they are told again."""
    monkeypatch.setattr(ads, "PATIENCE", 1e6)

    async def story():
        one = Driven()
        await one.rest()
        one.subscribe(resources.CDS)
        clusters = await one.listen(resources.CDS, "1", answered=False)
        one.update(2)
        await one.rest()  # the change waits for the answer about the first clusters
        one.subscribe(resources.EDS)
        await one.listen(resources.EDS, "2")
        one.say(resources.CDS, response_nonce=clusters.nonce)
        await one.listen(resources.CDS, "2")
        await one.listen(resources.EDS, "2")
        one.close()
    asyncio.run(story())


def test_asked_again_and_no_longer(served):
    with Delta(xds(served)) as stream:
        opened(stream)
        stream.subscribe("EDS", WEB)
        told, gone = stream.take("EDS")
        assert set(told) == {WEB}
        stream.subscribe("EDS", "outbound|1||nowhere")
        told, gone = stream.take("EDS")
        assert not told and gone == ["outbound|1||nowhere"]
        stream.unsubscribe("EDS", WEB)
        settled(served)
        served.remove_pod("web-1")  # nobody asks any more
        served.pod("store", "default", "10.10.0.21")
        stream.take("CDS")
        told, _ = stream.take("EDS")
        assert set(told) == {STORE}


def test_names_in_state_of_the_world(served):
    with Sotw(xds(served)) as stream:
        stream.subscribe("EDS", WEB)
        assert set(stream.take("EDS")) == {WEB}
        stream.subscribe("EDS", STORE, nonce="out of date")  # not heard
        stream.subscribe("EDS", WEB, STORE)
        assert set(stream.take("EDS")) == {WEB, STORE}
        stream.subscribe("EDS", STORE)  # less is no question
        served.pod("store", "default", "10.10.0.21")
        assert set(stream.take("EDS")) == {STORE}


@pytest.mark.parametrize("kind", [Delta, Sotw])
def test_a_refusal_is_noted(served, kind):
    with kind(xds(served)) as stream:
        stream.subscribe("CDS")
        response = stream.next("CDS")
        more = {} if kind is Delta else {"resource_names": ()}
        stream.refuse(response, "cannot be: no such filter", **more)
        status = served.wait(lambda status: status["nacks"])
        assert status["nacks"] == [{"pod": "client", "type": "CDS", "message": "cannot be: no such filter"}]
        assert "client refuses CDS: cannot be: no such filter" in served.said()
        stream.subscribe("LDS")
        stream.take("LDS")  # it goes on


@pytest.mark.parametrize("kind", [Delta, Sotw])
def test_cut_and_opened_again(served, kind):
    for _ in range(3):
        with kind(xds(served)) as stream:
            opened(stream)
    served.wait(lambda status: not served.pod_status("client")["connected"])


def test_who_comes_back_hears_what_changed(served):
    with Delta(xds(served)) as stream:
        stream.subscribe("CDS")
        versions = {one.name: one.version for one in stream.next("CDS").resources}
    assert len(set(versions.values())) == len(versions)
    with Delta(xds(served)) as stream:
        stream.subscribe("CDS", initial_resource_versions={**versions, WEB: "old", "gone": "1"})
        told, gone = stream.take("CDS")
        assert set(told) == {WEB} and gone == ["gone"]


def test_killed_and_started_again(served):
    with Delta(xds(served)) as stream:
        told = opened(stream)
        served.kill()
        stream.ended()
    served.start()
    with Delta(xds(served)) as stream:
        assert opened(stream) == told


def certificate(secret, folder):
    """(names, issuer verified) of what a secret holds, by openssl."""
    path = folder / "shown.pem"
    path.write_bytes(secret.tls_certificate.certificate_chain.inline_bytes)
    return subprocess.run(["openssl", "x509", "-in", path, "-noout", "-ext", "subjectAltName", "-serial"],
                          capture_output=True, text=True, check=True).stdout


def test_secrets(served):
    with Sotw(sds(served), secrets=True) as stream:
        stream.subscribe("SDS", "default")
        secret = stream.take("SDS")["default"]
        shown = certificate(secret, served.folder)
        assert "URI:spiffe://cluster.local/ns/default/sa/client" in shown
        assert f"serial={served.status()['certificates']['client'].upper()}" in shown
        assert secret.tls_certificate.private_key.inline_bytes.startswith(b"-----BEGIN PRIVATE KEY-----")
    with Sotw(sds(served), secrets=True) as stream:
        stream.subscribe("SDS", "ROOTCA")
        root = stream.take("SDS")["ROOTCA"].validation_context.trusted_ca.inline_bytes
    (served.folder / "root.pem").write_bytes(root)
    done = subprocess.run(["openssl", "verify", "-CAfile", served.folder / "root.pem", served.folder / "shown.pem"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_rotation_at_a_signal(served):
    with Sotw(sds(served), secrets=True) as stream:
        stream.subscribe("SDS", "default")
        before = stream.take("SDS")["default"]
        served.process.send_signal(signal.SIGUSR1)
        assert stream.take("SDS")["default"] != before


def test_rotation(place):
    place.write("services.yaml", SERVICES)
    place.pod("client")
    place.start("--rotate", "0.3")
    with Sotw(sds(place), secrets=True) as stream:
        stream.subscribe("SDS", "default")
        seen = {stream.take("SDS")["default"].tls_certificate.certificate_chain.inline_bytes for _ in range(3)}
        assert len(seen) == 3
    with Sotw(sds(place), secrets=True) as stream:  # the root stays, also for who starts it again
        stream.subscribe("SDS", "ROOTCA")
        root = stream.take("SDS")["ROOTCA"]
    place.kill()
    place.start()
    with Sotw(sds(place), secrets=True) as stream:
        stream.subscribe("SDS", "ROOTCA")
        assert stream.take("SDS")["ROOTCA"] == root
