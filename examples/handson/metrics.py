# SPDX-License-Identifier: Apache-2.0
"""What the proxies of the mesh count of requests, read as Prometheus would read it."""

import dataclasses
import re

from .bootstrap import METRICS_PORT

SERIES = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def series(text):
    """(name, labels, value) of every line of a metrics page."""
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        found = SERIES.match(line)
        if found:
            yield found[1], dict(LABEL.findall(found[2] or "")), float(found[3])


def of_pod(place, pod):
    """The metrics page of a pod's proxy, asked for as a Prometheus in the cluster does."""
    return place.from_hub(pod.ip, METRICS_PORT, "/stats/prometheus", timeout=10).body


@dataclasses.dataclass
class Edge:
    """Requests from one workload to another, as the caller's proxy counted them."""
    source: str
    destination: str
    codes: dict
    buckets: dict  # upper end in milliseconds -> requests up to it
    mutual: bool = False

    @property
    def requests(self):
        return sum(self.codes.values())

    @property
    def errors(self):
        return sum(n for code, n in self.codes.items() if code[:1] in "045")

    def quantile(self, part):
        """Milliseconds under which this part of the requests was answered, by the histogram."""
        ends = sorted(self.buckets.items())
        wanted = part * (ends[-1][1] if ends else 0)
        below_end, below = 0.0, 0.0
        for end, count in ends:
            if count >= wanted and count > below:
                if end == float("inf"):
                    return below_end
                return below_end + (end - below_end) * (wanted - below) / (count - below)
            below_end, below = end, count
        return 0.0


def edges(place):
    """Every edge of the mesh, by (source, destination)."""
    found = {}

    def edge(labels):
        key = labels["source_workload"], labels["destination_workload"]
        return found.setdefault(key, Edge(*key, {}, {}))
    mutual = set()
    for pod in place.mesh():
        for name, labels, value in series(of_pod(place, pod)):
            if name == "istio_requests_total" and labels.get("reporter") == "destination" and value:
                if labels.get("connection_security_policy") == "mutual_tls":
                    mutual.add((labels["source_workload"], labels["destination_workload"]))
            if labels.get("reporter") != "source":
                continue
            if name == "istio_requests_total" and value:
                codes = edge(labels).codes
                codes[labels["response_code"]] = codes.get(labels["response_code"], 0) + int(value)
            elif name == "istio_request_duration_milliseconds_bucket":
                buckets, end = edge(labels).buckets, float(labels["le"].replace("+Inf", "inf"))
                buckets[end] = buckets.get(end, 0) + value
    for key, one in found.items():
        one.mutual = key in mutual
    return {key: one for key, one in found.items() if one.requests}
