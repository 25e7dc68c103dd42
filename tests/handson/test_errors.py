# SPDX-License-Identifier: Apache-2.0
"""What is wrong in the YAML: said with file and line, and what was accepted before is served on."""

import pytest

from examples.handson.control_plane.checks import check
from examples.handson.control_plane.model import Mesh
from examples.handson.control_plane.objects import Invalid, parse
from examples.handson.control_plane.schemas import KINDS
from tests.handson.client import Delta
from tests.handson.conftest import SERVICES
from tests.handson.test_streams import ROUTE, RULE, opened, settled, xds

VIRTUAL = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: shop}
spec:
  hosts: [web]
  http:
"""
GATEWAY = """apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g, namespace: shop}
spec:
  selector: {istio: gateway}
  servers:
"""
POLICY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec:
"""
DESTINATION = """apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d, namespace: shop}
spec:
"""
MODE = """apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: a, namespace: shop}
spec:
"""
SERVICE = """apiVersion: v1
kind: Service
metadata: {name: s, namespace: shop}
spec:
"""
TO_WEB = "  - route: [{destination: {host: web}}]\n"
BAD = [  # text, line, words of the message
    ("a: [1, 2\nb: 3\n", 2, "YAML: "),
    ("a: b: c\n", 1, "mapping values are not allowed"),
    ("a: \x01\n", 1, "special characters are not allowed"),
    ("- a\n- b\n", 1, "kind '' is not known here"),
    ("apiVersion: v1\nkind: ConfigMap\n", 1, "kind 'ConfigMap' is not known here; known are AuthorizationPolicy"),
    ("kind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 1}]}\n", 1, "Service.apiVersion is missing"),
    ("apiVersion: v2\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 1}]}\n", 1,
     "apiVersion 'v2' is not one of v1"),
    ("apiVersion: v1\nkind: Service\nspec: {ports: [{port: 1}]}\n", 1, "Service.metadata is missing"),
    ("apiVersion: v1\nkind: Service\nmetadata:\n  name: 7\n", 4, "metadata.name wants a string, not '7' (put it in"),
    (SERVICE + "  ports:\n  - {port: 80}\n  portz: []\n", 7, "spec has no field 'portz' here; known are"),
    (SERVICE + "  ports: []\n", 5, "spec.ports wants at least one item"),
    (SERVICE + "  ports: {port: 80}\n", 5, "spec.ports wants a list, not a mapping"),
    (SERVICE + "  ports:\n  - port: 70000\n", 6, "spec.ports[0].port wants a port from 1 to 65535, not '70000'"),
    (SERVICE + "  ports: [{port: 80}]\n  ports: [{port: 81}]\n", 6, "spec has 'ports' twice"),
    (SERVICE + "  ports:\n  - {port: 80, name: a}\n  - {port: 81, name: a}\n", 7, "each wants its own name"),
    (SERVICE + "  clusterIP: None\n  ports: [{port: 80}]\n", 5, "a headless Service"),
    (VIRTUAL + "  - route:\n    - destination: {host: nowhere}\n", 8,
     "spec.http[0].route[0].destination.host: there is no Service 'nowhere.shop.svc.cluster.local'; known are"),
    (VIRTUAL + "  - route:\n    - destination:\n        host: web\n        subset: red\n", 10,
     "no DestinationRule for web.shop.svc.cluster.local has a subset 'red'; known are blue"),
    (VIRTUAL + "  - route:\n    - destination:\n        host: web\n        port: {number: 81}\n", 10,
     "Service web.shop.svc.cluster.local has no port 81, it has 80"),
    (VIRTUAL + TO_WEB + "  - route:\n    - {destination: {host: web}, weight: 30}\n"
     "    - {destination: {host: web, subset: blue}, weight: 60}\n", 8, "the weights are 30 + 60 = 90, not 100"),
    (VIRTUAL + "  - route:\n    - {destination: {host: web}, weight: 101}\n", 8, "from 0 to 100, not '101'"),
    (VIRTUAL + "  - match: [{uri: {prefix: /}}]\n", 7, "spec.http[0] wants one of route, redirect, directResponse"),
    (VIRTUAL + "  - route: [{destination: {host: web}}]\n    redirect: {uri: /}\n", 8,
     "has route and redirect: only one of them can be"),
    (VIRTUAL + TO_WEB + "    timeout: 3\n", 8, 'timeout wants a duration such as "1.5s" or "200ms", not'),
    (VIRTUAL + TO_WEB + "    timeout: 3 s\n", 8, "timeout wants a duration"),
    (VIRTUAL + TO_WEB + "    match:\n    - uri: {exact: /a, prefix: /b}\n", 9, "has exact and prefix"),
    (VIRTUAL + TO_WEB + "    match:\n    - uri: {exact: a}\n", 9, "'a' does not begin with /"),
    (VIRTUAL + TO_WEB + "    match:\n    - headers:\n        x-a: {regex: '('}\n", 10, "is no regular expression"),
    (VIRTUAL + "  - redirect:\n      uri: /\n      redirectCode: 306\n", 9, "306 is not one of 301, 302, 303"),
    (VIRTUAL + "  - directResponse: {status: 200}\n    fault: {abort: {httpStatus: 500}}\n", 8, "goes with route only"),
    (VIRTUAL + TO_WEB + "    fault: {}\n", 8, "fault wants delay or abort"),
    (VIRTUAL + TO_WEB + "  gateways: [mesh, other]\n", 8, "spec.gateways[1]: there is no Gateway 'other'"),
    (VIRTUAL + TO_WEB + "    mirror: {host: nobody}\n", 8, "spec.http[0].mirror.host: there is no Service"),
    (VIRTUAL.replace("  http:\n", ""), 5, "spec wants http or tcp"),
    (GATEWAY + "  - port: {number: 80, name: a, protocol: HTTPS}\n    hosts: [a]\n", 7,
     "protocol wants one of HTTP, HTTP2, GRPC, TCP, not 'HTTPS'"),
    (GATEWAY + "  - {port: {number: 80, name: a, protocol: HTTP}, hosts: [a]}\n"
     "  - {port: {number: 80, name: b, protocol: TCP}, hosts: [b]}\n", 8, "port 80 is HTTP already, it cannot be TCP"),
    (DESTINATION + "  host: nowhere\n", 5, "spec.host: there is no Service"),
    (DESTINATION + "  host: store.default.svc.cluster.local\n  subsets:\n  - {name: a, labels: {v: 1}}\n", 7,
     "spec.subsets[0].labels.v wants a string, not '1' (put it in quotes)"),
    (DESTINATION + "  host: store.default.svc.cluster.local\n  subsets:\n  - name: a\n  - name: a\n", 8,
     "'a' is there twice"),
    (DESTINATION + "  host: store.default.svc.cluster.local\n  subsets: [{name: A_b}]\n", 6, "'A_b' is no label"),
    (DESTINATION + "  host: store.default.svc.cluster.local\n  trafficPolicy: {tls: {mode: SIMPLE}}\n", 6,
     "tls.mode wants one of DISABLE, ISTIO_MUTUAL, not 'SIMPLE'"),
    (DESTINATION + "  host: store.default.svc.cluster.local\n  trafficPolicy:\n    loadBalancer:\n"
     "      consistentHash: {maglev: {}}\n", 8, "consistentHash wants one of httpHeaderName"),
    (DESTINATION.replace("name: d", "name: zzz") + "  host: web\n", 5, "shop/web (rule.yaml:2) speaks about"),
    (MODE + "  mtls: {mode: HARD}\n", 5, "mtls.mode wants one of UNSET, DISABLE, PERMISSIVE, STRICT, not 'HARD'"),
    (MODE + "  portLevelMtls: {http: {mode: STRICT}}\n", 5, "portLevelMtls wants ports as keys, not 'http'"),
    (MODE + "  portLevelMtls: {80: {mode: STRICT}}\n", 5, "goes with a selector only"),
    (POLICY + "  action: CUSTOM\n", 5, "action wants one of ALLOW, DENY, AUDIT, not 'CUSTOM'"),
    (POLICY + "  action: DENY\n", 5, "DENY without rules does nothing"),
    (POLICY + "  rules:\n  - from:\n    - source: {principals: [spiffe://x/ns/a]}\n", 7, "is not a principal of"),
    (POLICY + "  rules:\n  - from:\n    - source:\n        ipBlocks:\n        - 10.0.0.0/33\n", 9,
     "ipBlocks[0]: '10.0.0.0/33' is not an address or a range of them"),
    (POLICY + "  rules:\n  - from:\n    - source: {requestPrincipals: [a]}\n", 7, "no field 'requestPrincipals' here"),
    (POLICY + "  rules:\n  - from:\n    - source: {}\n", 7, "source is empty"),
    (POLICY + "  rules:\n  - to:\n    - operation: {ports: [8080]}\n", 7, "ports[0] wants a string, not '8080' (put"),
    (POLICY + "  rules:\n  - to:\n    - operation: {ports: [http]}\n", 7, "ports[0]: 'http' is not a port"),
    (POLICY + "  rules:\n  - to:\n    - operation: {paths: ['/a/{b}']}\n", 7, "is not a path without a template"),
    (POLICY + "  rules:\n  - when:\n    - {key: 'request.auth.claims[a]', values: [b]}\n", 7, "is not known here"),
    (POLICY + "  rules:\n  - when:\n    - {key: source.ip, values: [b]}\n", 7, "'b' is not a value for source.ip"),
    (POLICY + "  rules:\n  - when:\n    - {key: source.ip}\n", 7, "wants values or notValues"),
]


@pytest.mark.parametrize("text, line, words", BAD, ids=[f"{i}-{row[2][:30]}" for i, row in enumerate(BAD)])
def test_line_and_words(text, line, words):
    good, errors, _ = parse(SERVICES, "services.yaml", KINDS)
    rule, more, _ = parse(RULE, "rule.yaml", KINDS)
    assert not errors and not more
    objects, errors, _ = parse(text, "bad.yaml", KINDS)
    mesh = Mesh(good + rule + objects, [])
    for one in objects:
        try:
            check(one, mesh)
        except Invalid as error:
            errors.append(error)
    assert len(errors) == 1, errors
    assert (errors[0].file, errors[0].line) == ("bad.yaml", line) and words in errors[0].message, str(errors[0])


def test_the_example_of_a_good_one():
    """The pieces above are right where nothing is put wrong into them."""
    good, errors, complete = parse(SERVICES + "---" + RULE + "---\n" + VIRTUAL + TO_WEB, "f", KINDS)
    assert not errors and complete and len(good) == 4
    for one in good:
        check(one, Mesh(good, []))


def routed_to(stream):
    told, _ = stream.take("RDS")
    return told["80"].virtual_hosts[0].routes[0].route.cluster


def errors_of(place):
    return [(error["file"].rpartition("/")[2], error["line"], error["kind"], error["name"])
            for error in place.status()["errors"]]


def test_the_old_one_is_served_on(served):
    served.change("rule.yaml", RULE)
    served.change("route.yaml", ROUTE % ", subset: blue")
    blue = "outbound|80|blue|web.shop.svc.cluster.local"
    with Delta(xds(served)) as stream:
        told = opened(stream)
        assert told["RDS"]["80"].virtual_hosts[0].routes[0].route.cluster == blue
        settled(served)
        for bad, line in ((ROUTE % ", subset: red", 7), (ROUTE % ": x", 7), ("\n" + ROUTE % "" + "  bad: 1\n", 9)):
            served.change("route.yaml", bad)
            [(file, at, _, _)] = errors_of(served)
            assert (file, at) == ("route.yaml", line)
        assert f"route.yaml:7: VirtualService shop/web: spec.http[0].route[0].destination.subset" in served.said()
        served.kill()  # who is started again remembers
        stream.ended()
    served.start()
    assert errors_of(served) == [("route.yaml", 9, "VirtualService", "shop/web")]
    with Delta(xds(served)) as stream:
        assert opened(stream)["RDS"] == told["RDS"]
        settled(served)
        served.write("route.yaml", ROUTE % "")
        assert routed_to(stream) == "outbound|80||web.shop.svc.cluster.local"
    served.wait(lambda status: not status["errors"])


def test_what_is_new_and_wrong_is_not_served(served):
    served.change("route.yaml", ROUTE % ", subset: red")
    assert errors_of(served) == [("route.yaml", 7, "VirtualService", "shop/web")]
    with Delta(xds(served)) as stream:
        assert opened(stream)["RDS"]["80"].virtual_hosts[0].routes[0].name == "default"


def test_what_it_names_goes_away(served):
    """As in a cluster: the route stays as it is, its requests fail, and it is said."""
    served.change("rule.yaml", RULE)
    served.change("route.yaml", ROUTE % ", subset: blue")
    (served.config / "rule.yaml").unlink()
    served.wait(lambda status: status["errors"])
    assert errors_of(served) == [("route.yaml", 7, "VirtualService", "shop/web")]
    with Delta(xds(served)) as stream:
        told = opened(stream)
        assert told["RDS"]["80"].virtual_hosts[0].routes[0].route.cluster.startswith("outbound|80|blue|")
        assert not any("blue" in name for name in told["CDS"])
    served.change("route.yaml", "")  # taken away, nothing is left of it
    assert errors_of(served) == []


def test_other_documents_and_files_are_read(served):
    good = ROUTE % ""
    served.change("a.yaml", RULE.replace("host: web", "host: nobody") + "---" + good)
    assert [error[:2] for error in errors_of(served)] == [("a.yaml", 6)]
    served.change("b.yaml", good)
    assert sorted(errors_of(served))[1] == ("b.yaml", 2, "VirtualService", "shop/web")
    assert "is in " in served.status()["errors"][0]["message"] + served.status()["errors"][1]["message"]
    served.change("b.yaml", "kind: [")
    assert sorted(error[0] for error in errors_of(served)) == ["a.yaml", "b.yaml"]


def test_pods_that_are_wrong(served):
    folder = served.run / "pods" / "bad"
    folder.mkdir()
    (folder / "pod.json").write_text('{"name": "bad",\n "ip"}')
    served.wait(lambda status: status["errors"])
    [error] = served.status()["errors"]
    assert (error["kind"], error["name"], error["line"]) == ("Pod", "bad", 2)
    (folder / "pod.json").write_text('{"name": "bad", "namespace": "default", "ip": "10.0.0.1", "kind": "x"}')
    served.wait(lambda status: status["errors"] and "'kind' wants" in status["errors"][0]["message"])
    (folder / "pod.json").unlink()
    served.wait(lambda status: not status["errors"])
    long = "n" * 100
    served.pod(long)
    served.wait(lambda status: status["errors"] and "longer than 107 bytes" in status["errors"][0]["message"])
