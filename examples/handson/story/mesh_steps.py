# SPDX-License-Identifier: Apache-2.0
"""Steps 1 to 4: pods, the way in, the way between pods, and mutual TLS."""

import json

from ..pods import APP_PORT, SIDECAR_UID, wait_until
from .teller import GATEWAY_PORT, PUBLIC_HOST

IDENTITY = "spiffe://cluster.local/ns/{}/sa/{}"


def pods_come_up(teller):
    place = teller.place
    for pod in place.pods.values():
        wait_until(lambda pod=pod: (lambda ready, of: ready == of)(*pod.containers()),
                   f"{pod.name} ready", 30)
    rows = []
    for pod in place.pods.values():
        ready, of = pod.containers()
        rows.append((pod, f"{ready}/{of}"))
        teller.note(f"{pod.namespace:<13} {pod.name:<21} {ready}/{of}  {pod.ip:<11} {pod.kind}")
    teller.facts["pods"] = [{"name": pod.name, "namespace": pod.namespace, "ready": ready, "ip": pod.ip, "kind": pod.kind}
                            for pod, ready in rows]
    teller.check(dict((pod.name, ready) for pod, ready in rows)["handson-blue"] == "2/2",
                 "handson-blue shows 2/2: its app answers, its sidecar says ready at :15021")
    blue = teller.pod("handson-blue")
    with open(f"/proc/{blue.proxy.pid}/status", encoding="utf-8") as status:
        uids = next(line for line in status if line.startswith("Uid:")).split()[1:]
    teller.check(set(uids) == {str(SIDECAR_UID)}, f"the sidecar runs under uid {SIDECAR_UID}")
    rules = [line for line in blue.net.run("iptables", "-t", "nat", "-S").splitlines() if "ISTIO_" in line]
    teller.check(any("15006" in line for line in rules) and any("15001" in line for line in rules),
                 "the pod's own rules send what comes to 15006 and what goes to 15001", f"{len(rules)} lines")
    teller.facts["rules"] = rules


def through_the_gateway(teller):
    gateway = teller.pod("istio-ingressgateway")
    teller.note(f"from outside the mesh: GET http://{gateway.ip}:{GATEWAY_PORT}/ with Host {PUBLIC_HOST}")
    answer = wait_until(lambda: (lambda got: got if got.status == 200 else None)(teller.gateway_get("/")),
                        f"200 for Host {PUBLIC_HOST}", 20)
    teller.check("<html" in answer.body and "blue" in answer.body, "200, and the page is the app's",
                 f"{len(answer.body)} bytes of {answer.headers.get('content-type')}, x-pod: {answer.headers.get('x-pod')}")
    other = teller.gateway_get("/", host="other.example.com")
    teller.check(other.status == 404, "404 for Host other.example.com, which no Gateway names", other.status)


def mutual_tls(teller):
    answer = wait_until(lambda: (lambda got: got if got.status == 200 else None)(teller.client_get("/headers")),
                        "200 from handson:8080", 20)
    seen = json.loads(answer.body)["headers"]
    teller.check(answer.status == 200, "client → http://handson:8080/headers", answer.status)
    certificate = seen.get("x-forwarded-client-cert", "")
    teller.note(f"x-forwarded-client-cert: {certificate}")
    for key, who, identity in (("By", "the app's", IDENTITY.format("default", "handson")),
                               ("URI", "the caller's", IDENTITY.format("default", "client"))):
        teller.check(f"{key}={identity}" in certificate.replace('"', ""), f"{who} identity is in it", f"{key}={identity}")
    for pod in teller.place.mesh():
        said = pod.admin("/kobune/unsupported").strip()
        teller.check(said == "every field of the configuration is implemented", f"{pod.name}: {said}")
    teller.check(answer.headers.get("server") == "envoy", "the client's own sidecar answered its app", "server: envoy")


def strict_and_permissive(teller):
    outside, target = teller.pod("outside"), teller.pod("handson-blue")

    def plain():
        return outside.request(target.ip, APP_PORT, "/colour", "handson:8080", timeout=3)
    load = teller.load()
    teller.counted(load, "under STRICT", 60)
    got = plain()
    teller.check(got.status == 0, "STRICT: plain text from outside the mesh is refused", got)
    teller.plane.apply("mtls-permissive.yaml", "mtls.yaml")
    got = wait_until(lambda: (lambda one: one if one.status == 200 else None)(plain()), "plain text accepted", 30)
    teller.check(got.status == 200, "PERMISSIVE is written: the same request is accepted", got)
    during = teller.counted(load, "PERMISSIVE", 60)
    teller.undisturbed(during, "while it was written")
    teller.plane.restore()
    got = wait_until(lambda: (lambda one: one if one.status == 0 else None)(plain()), "plain text refused again", 30)
    teller.check(got.status == 0, "back to STRICT: refused again", got)
    teller.undisturbed(teller.counted(load, "STRICT again", 60), "while it was taken back")
