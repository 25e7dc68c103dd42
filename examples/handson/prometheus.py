# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus that scrapes the proxies, and the questions that Kiali and Istio's dashboards ask it."""

import contextlib
import dataclasses
import http.client
import json
import math
import shutil
import subprocess
import time
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNPACKED = ROOT / "build" / "tools" / "prometheus" / "usr"  # by ./dev demo: Debian's package, not installed
INTERVAL = "1s"
PATIENCE_S = 40

# What Kiali groups its graph by; a series without one of them is no edge.
EDGE = ("source_cluster, source_workload_namespace, source_workload, source_canonical_service, "
        "source_canonical_revision, destination_cluster, destination_service_namespace, destination_service, "
        "destination_service_name, destination_workload_namespace, destination_workload, "
        "destination_canonical_service, destination_canonical_revision")


def find(program="prometheus"):
    """The program's path: installed, or unpacked by ./dev demo; None where there is none."""
    own = UNPACKED / "bin" / program
    return shutil.which(program) or (str(own) if own.exists() else None)


@dataclasses.dataclass
class Subject:
    """Whom the questions are about: one caller, one workload, its service; `tcp`: bytes are carried, too."""
    namespace: str = "default"
    source: str = "client"
    workload: str = "handson-blue"
    service: str = "handson.default.svc.cluster.local"
    tcp: bool = False


def kiali(s):
    """The queries of Kiali's graph: edges by protocol and code, response times, mTLS, bytes."""
    incoming = f'reporter="destination", destination_workload_namespace="{s.namespace}"'
    outgoing = f'reporter=~"source|waypoint", source_workload_namespace="{s.namespace}"'
    codes = f"{EDGE}, request_protocol, response_code, grpc_response_status, response_flags"
    yield "graph: requests into the namespace", f"sum(rate(istio_requests_total{{{incoming}}}[60s])) by ({codes}) > 0"
    yield "graph: requests out of its workloads", f"sum(rate(istio_requests_total{{{outgoing}}}[60s])) by ({codes}) > 0"
    yield ("graph: 95th percentile of response times",
           "histogram_quantile(0.95, sum(rate(istio_request_duration_milliseconds_bucket"
           f"{{{outgoing}}}[60s])) by (le, {EDGE})) > 0")
    yield ("graph: average response time",
           f"sum(rate(istio_request_duration_milliseconds_sum{{{outgoing}}}[60s])) by ({EDGE}) / "
           f"sum(rate(istio_request_duration_milliseconds_count{{{outgoing}}}[60s])) by ({EDGE}) > 0")
    yield ("graph: padlocks of mutual TLS, with both identities",
           f'sum(rate(istio_requests_total{{{incoming}, connection_security_policy="mutual_tls", '
           'source_principal=~"spiffe://.+", destination_principal=~"spiffe://.+"}[60s])) by '
           f"({EDGE}, source_principal, destination_principal, connection_security_policy) > 0")
    for name in ("request", "response"):
        yield f"graph: throughput of {name}s", f"sum(rate(istio_{name}_bytes_sum{{{outgoing}}}[60s])) by ({EDGE}) > 0"
    for name in ("sent_bytes", "received_bytes", "connections_opened") if s.tcp else ():
        yield f"graph: TCP, {name}", f"sum(rate(istio_tcp_{name}_total{{{outgoing}}}[60s])) by ({EDGE}, response_flags) > 0"
    yield ("health: requests of a workload by code",
           f'sum(rate(istio_requests_total{{reporter="destination", destination_workload="{s.workload}"}}[60s])) by '
           "(request_protocol, response_code, grpc_response_status)")


def volume(labels):
    return f"round(sum(irate(istio_requests_total{{{labels}}}[5m])), 0.001)"


def success(labels):
    return (f'sum(irate(istio_requests_total{{{labels}, response_code!~"5.*"}}[5m])) / '
            f"sum(irate(istio_requests_total{{{labels}}}[5m]))")


def quantile(part, metric, labels, by="le"):
    return f"histogram_quantile({part}, sum(irate({metric}_bucket{{{labels}}}[1m])) by ({by}))"


def workload_dashboard(s):
    incoming = (f'reporter=~"destination", destination_workload_namespace=~"{s.namespace}", '
                f'destination_workload=~"{s.workload}"')
    outgoing = f'reporter=~"source", source_workload_namespace=~"{s.namespace}", source_workload=~"{s.source}"'
    by = "source_workload, source_workload_namespace"
    yield "incoming request volume", volume(incoming)
    yield "incoming success rate", success(incoming)
    for part in (0.5, 0.9, 0.99):
        yield (f"request duration, {part:.0%}",
               f"({quantile(part, 'istio_request_duration_milliseconds', incoming)} / 1000) or "
               f"{quantile(part, 'istio_request_duration_seconds', incoming)}")
    yield ("incoming requests by source and response code",
           f'round(sum(irate(istio_requests_total{{connection_security_policy="mutual_tls", {incoming}, '
           f'source_workload=~"{s.source}"}}[5m])) by ({by}, response_code), 0.001)')
    yield "incoming request size by source", quantile(0.5, "istio_request_bytes", incoming, f"{by}, le")
    yield "response size by source", quantile(0.5, "istio_response_bytes", incoming, f"{by}, le")
    yield ("outgoing requests by destination and response code",
           f'round(sum(irate(istio_requests_total{{destination_principal=~"spiffe.*", {outgoing}}}[5m])) by '
           "(destination_service, response_code), 0.001)")
    if s.tcp:
        yield ("bytes received from incoming TCP connections",
               f"round(sum(irate(istio_tcp_received_bytes_total{{{incoming}}}[1m])) by ({by}), 0.001)")
        yield ("bytes sent to outgoing TCP connections",
               f"round(sum(irate(istio_tcp_sent_bytes_total{{{outgoing}}}[1m])) by (destination_service), 0.001)")


def service_dashboard(s):
    client, server = (f'reporter=~"{side}", destination_service=~"{s.service}"' for side in ("source", "destination"))
    yield "client request volume", volume(client)
    yield "client success rate", success(client)
    yield "client request duration, 99%", quantile(0.99, "istio_request_duration_milliseconds", client)
    yield "server request volume", volume(server)
    yield "server success rate", success(server)
    yield "server request duration, 99%", quantile(0.99, "istio_request_duration_milliseconds", server)
    yield ("incoming requests by destination workload and response code",
           f'round(sum(irate(istio_requests_total{{connection_security_policy="mutual_tls", {server}}}[5m])) by '
           "(destination_workload, destination_workload_namespace, response_code), 0.001)")
    yield ("incoming request duration by source",
           quantile(0.95, "istio_request_duration_milliseconds", server,
                    "source_workload, source_workload_namespace, le"))


def proxy_dashboard(_):
    yield "proxies by version", "sum(istio_build{component=\"proxy\"}) by (tag)"
    yield "uptime of each proxy", "envoy_server_uptime"
    yield "memory of each proxy", "envoy_server_memory_allocated"


QUERIES = {"Kiali": kiali, "Workload dashboard": workload_dashboard, "Service dashboard": service_dashboard,
           "Proxies": proxy_dashboard}


class Prometheus:
    """One server. `targets` are addresses by pod, `address` is its own; `spawn(argv, log)` starts the
    program where the pods can be reached, and `namespace` is entered to ask it."""

    def __init__(self, binary, folder, targets, address, spawn=None, namespace=None):
        self.binary, self.folder, self.targets, self.address = binary, Path(folder), targets, address
        self.spawn, self.namespace = spawn or self._spawn, namespace
        self.process = None

    def _spawn(self, argv, log):
        with open(self.folder / log, "ab") as out:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                    cwd=self.folder, start_new_session=True)

    def start(self):
        config = {"global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL}, "scrape_configs": [{
            "job_name": "pods", "metrics_path": "/stats/prometheus", "static_configs": [
                {"targets": [target], "labels": {"pod": name, "app": name}}
                for name, target in sorted(self.targets.items())]}]}
        file = self.folder / "prometheus.yml"
        file.write_text(json.dumps(config, indent=1))  # JSON is YAML
        self.process = self.spawn(
            [self.binary, f"--config.file={file}", f"--storage.tsdb.path={self.folder / 'data'}",
             f"--web.listen-address={self.address}", "--log.level=warn"], "prometheus.log")

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)

    def said(self):
        """Its log: warnings and errors only."""
        return (self.folder / "prometheus.log").read_text(errors="replace")

    def get(self, path, **parameters):
        with self.namespace or contextlib.nullcontext():
            connection = http.client.HTTPConnection(self.address, timeout=10)
            connection.connect()
        with contextlib.closing(connection):
            connection.request("GET", path + ("?" + urllib.parse.urlencode(parameters) if parameters else ""))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def _until(self, what, test):
        end = time.monotonic() + PATIENCE_S
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"prometheus ended: {self.said()[-2000:]}")
            try:
                found = test()
            except OSError:
                found = None
            if found or time.monotonic() > end:
                if not found and what:
                    raise TimeoutError(f"{what}: not so after {PATIENCE_S} s; it said: {self.said()[-2000:]}")
                return found
            time.sleep(0.1)

    def wait_ready(self):
        self._until("Prometheus is ready", lambda: self.get("/-/ready")[0] == 200)

    def query(self, text):
        """[(labels, value)] of an instant query, without those that are no number."""
        answer = json.loads(self.get("/api/v1/query", query=text)[1])
        if answer["status"] != "success":
            raise ValueError(f"{text}: {answer.get('error')}")
        found = [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]
        return [(labels, value) for labels, value in found if not math.isnan(value)]

    def scraped(self):
        """{pod: what was wrong with its last scrape, or an empty text}; without those not scraped yet."""
        targets = json.loads(self.get("/api/v1/targets")[1])["data"]["activeTargets"]
        return {one["labels"]["pod"]: one["lastError"] for one in targets if one["health"] != "unknown"}

    def check(self, subject=None):
        """[(title, query, whether there was data, evidence)]. There has to be traffic meanwhile."""
        return list(self._answers(subject or Subject()))

    def _answers(self, subject):
        self._until(None, lambda: list(self.scraped().values()) == [""] * len(self.targets))
        scraped = self.scraped()
        yield ("every proxy is scraped", "up", scraped == dict.fromkeys(self.targets, ""),
               ", ".join(f"{pod}: {error or 'fine'}" for pod, error in sorted(scraped.items())))
        for group, queries in QUERIES.items():
            for title, query in queries(subject):
                found = self._until(None, lambda query=query: self.query(query))
                yield f"{group}: {title}", query, bool(found), evidence(found or [])


def evidence(found):
    """What an answer has, in a line."""
    if not found:
        return "no data"
    labels, value = max(found, key=lambda one: one[1])
    keys = ("source_workload", "destination_workload", "destination_service", "response_code", "pod", "tag")
    told = " ".join(labels[key] for key in keys if labels.get(key))
    return f"{len(found)} series; {told + ': ' if told else ''}{value:.6g}"
