# SPDX-License-Identifier: Apache-2.0
"""Step 10: what the proxies count, and what a Prometheus, Kiali and the dashboards make of it."""

from .. import metrics
from ..pods import wait_until

WANTED = {  # labels of istio_requests_total as the app's own sidecar must have them
    "reporter": "destination", "source_workload": "client", "source_workload_namespace": "default",
    "source_principal": "spiffe://cluster.local/ns/default/sa/client", "source_app": "client",
    "destination_workload": "handson-blue", "destination_workload_namespace": "default",
    "destination_principal": "spiffe://cluster.local/ns/default/sa/handson", "destination_app": "handson",
    "destination_version": "v1", "destination_service": "handson.default.svc.cluster.local",
    "destination_service_name": "handson", "request_protocol": "http", "response_code": "200",
    "connection_security_policy": "mutual_tls"}


def matching(text, name, wanted):
    return [(labels, value) for found, labels, value in metrics.series(text)
            if found == name and value and all(labels.get(key) == one for key, one in wanted.items())]


def own_metrics(teller):
    """istio_requests_total as both sides of a request count it."""
    load = teller.load()
    teller.counted(load, "something to count", 60)
    load.stop()
    teller.client_get("/status/404")
    teller.client_get("/status/503")
    teller.gateway_get("/colour")
    blue, client = teller.pod("handson-blue"), teller.pod("client")
    found = wait_until(lambda: matching(metrics.of_pod(teller.place, blue), "istio_requests_total", WANTED),
                       f"istio_requests_total of handson-blue with {WANTED}", 30)
    labels, value = found[0]
    teller.note("istio_requests_total{" + ", ".join(f'{key}="{labels[key]}"' for key in WANTED) + f"}} {value:.0f}")
    teller.check(len(found) == 1, "handson-blue counts the client's requests: workloads, identities, code, mTLS",
                 f"{value:.0f} requests")
    text = metrics.of_pod(teller.place, client)
    for code in ("200", "404", "503"):
        rows = matching(text, "istio_requests_total", {"reporter": "source", "destination_workload": "handson-blue",
                                                       "response_code": code})
        teller.check(rows, f"the client's sidecar counts its own side, code {code}",
                     f"{sum(value for _, value in rows):.0f} requests")
    edges = metrics.edges(teller.place)
    teller.check(("istio-ingressgateway", "handson-blue") in edges, "the gateway's edge is there",
                 ", ".join(f"{a} → {b}: {one.requests}" for (a, b), one in sorted(edges.items())))


def counted(teller):
    own_metrics(teller)
    server = teller.demo.prometheus
    if server is None:
        teller.note("no program prometheus on this machine: Kiali's and the dashboards' queries were not asked "
                    "(./dev demo unpacks Debian's when it has network)")
        return
    server.wait_ready()
    load = teller.load(rate=60)
    queries = teller.facts["queries"] = []
    for title, query, good, evidence in server.check():
        queries.append((title, query, good, evidence))
        if not good:
            teller.note(query)
        teller.check(good, title, evidence)
    load.stop()
