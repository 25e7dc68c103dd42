# SPDX-License-Identifier: Apache-2.0
"""Steps 7 to 9: who may do what, certificates that change, and a control plane that is told
nonsense or dies."""

import json

from ..pods import wait_until


def authorization(teller):
    teller.check(teller.client_get("/headers").status == 200, "before: the client reads /headers", 200)
    teller.plane.write("authorization-deny.yaml",
                       (teller.changes / "authorization-deny.yaml").read_text(encoding="utf-8"))
    teller.plane.wait_synced()
    denied = wait_until(lambda: (lambda one: one if one.status == 403 else None)(teller.client_get("/headers")),
                        "403 for the client", 30)
    teller.check(denied.body == "RBAC: access denied", "spiffe://cluster.local/ns/default/sa/client at /headers", denied)
    other = teller.client_get("/colour")
    teller.check(other.status == 200, "the same identity at another path", other)
    gateway = teller.gateway_get("/headers")
    teller.check(gateway.status == 200, "another identity, the gateway's, at the same path", gateway.status)
    teller.plane.restore()
    # the connection between the sidecars is drained: its last answer is still by the old policy
    back = wait_until(lambda: (lambda one: one if one.status == 200 else None)(teller.client_get("/headers")),
                      "200 for the client again", 30)
    teller.check(back.status == 200, "the policy is gone: the client reads /headers again", back.status)


def serials(teller):
    """The serial number of the certificate that each proxy holds, as its own admin says."""
    found = {}
    for pod in teller.place.mesh():
        for one in json.loads(pod.admin("/certs") or "{}").get("certificates", []):
            for chain in one.get("cert_chain", []):
                found[pod.name] = chain["serial_number"]
                break
    return found


def shown_to_the_app(teller):
    """The hash of the certificate with which the client's sidecar has just introduced itself."""
    answer = teller.client_get("/headers")
    if answer.status != 200:
        return None
    certificate = json.loads(answer.body)["headers"].get("x-forwarded-client-cert", "")
    return next((part[5:] for part in certificate.split(";") if part.startswith("Hash=")), None)


def rotation(teller):
    teller.plane.apply("subsets-fresh.yaml", "subsets.yaml")
    teller.note("connections between the sidecars carry ten requests each: handshakes all the time")
    load = teller.load()
    old = wait_until(lambda: (lambda all_of: all_of if len(all_of) == len(teller.place.mesh()) else None)(serials(teller)),
                     "a certificate in every proxy")
    shown = shown_to_the_app(teller)
    for turn in (1, 2):
        teller.plane.rotate()
        wait_until(lambda: all(serials(teller).get(name) != serial for name, serial in old.items()),
                   "every proxy holds a new certificate", 20)
        new = serials(teller)
        teller.note(f"rotation {turn}: " + ", ".join(f"{name} {old[name][-6:]} → {new[name][-6:]}" for name in sorted(new)))
        now = wait_until(lambda: (lambda one: one if one not in (None, shown) else None)(shown_to_the_app(teller)),
                         "a connection with the new certificate", 30)
        teller.check(now != shown, "the app is shown the client's new certificate", f"Hash={shown[:12]}… → {now[:12]}…")
        teller.undisturbed(teller.counted(load, f"rotation {turn}", 150),
                           "while every certificate of the mesh was replaced")
        old, shown = new, now


def nonsense_and_death(teller):
    load = teller.load()
    load.count()
    before = teller.plane.status()["generation"]
    teller.plane.write("routing.yaml", (teller.changes / "bad-routing.yaml").read_text(encoding="utf-8"))
    status = teller.plane.wait(lambda one: one["errors"], "the mistake is named")
    error = status["errors"][0]
    teller.check(error["file"].endswith("routing.yaml") and error["line"] and error["name"].split("/")[-1] == "handson",
                 "a bad VirtualService is rejected and named",
                 f"{error['file'].rsplit('/', 1)[-1]}:{error['line']}: {error['kind']} {error['name']}: {error['message']}")
    teller.check(not status["nacks"], "no proxy was told of it", f"generation {before} → {status['generation']}")
    counts = teller.counted(load, "with the bad VirtualService", 100)
    teller.undisturbed(counts, "meanwhile")
    teller.check(set(counts["colours"]) == {"blue"}, "what served before serves on", counts["colours"])
    teller.plane.restore()
    teller.check(not teller.plane.status()["errors"], "the mistake is mended: no error is left", "")
    teller.plane.kill()
    teller.note(f"control plane: process {teller.plane.process.pid} killed")
    counts = teller.counted(load, "without a control plane", 150)
    teller.undisturbed(counts, "without a control plane")
    teller.plane.start()
    teller.plane.wait(lambda one: one["generation"] > 0 and one.get("pid") in (None, teller.plane.process.pid),
                      "the control plane again")
    teller.plane.wait_synced()
    teller.note("control plane: started again, every proxy has found it")
    teller.undisturbed(teller.counted(load, "with the control plane again", 100), "while the proxies came back to it")
    teller.plane.apply("routing-green.yaml", "routing.yaml")
    load.count()
    counts = teller.counted(load, "and told to go to green", 60)
    teller.check(set(counts["colours"]) == {"green"}, "it rules again: all green", counts["colours"])
