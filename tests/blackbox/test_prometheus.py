# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus reads what two sidecars count, and has data for the questions of Kiali and of Istio's dashboards.
Skipped where there is none (`./dev demo` unpacks Debian's)."""

import http.client
import json
import re
import subprocess
import threading

import pytest

from examples.handson import prometheus
from tests.blackbox.test_istio import EXCHANGE, INBOUND, ISTIO, OUTBOUND, filters, stats
from tests.blackbox.test_tls import downstream, roots, upstream
from tests.harness.client import Connection
from tests.harness.config import TCP
from tests.harness.patience import DEADLINE_S
from tests.harness.ports import Port

pytestmark = pytest.mark.skipif(
    prometheus.find() is None, reason="no prometheus here: Debian's package prometheus, or ./dev demo, brings it")
SERVICE = "up.ns.svc"


def node(workload, namespace):
    return {"id": f"sidecar~{workload}", "cluster": f"{workload}.{namespace}", "metadata": {
        "NAME": f"{workload}-1", "NAMESPACE": namespace, "WORKLOAD_NAME": workload, "CLUSTER_ID": "K8S",
        "ISTIO_VERSION": "1.28.0", "OWNER": f"kubernetes://apis/apps/v1/namespaces/{namespace}/deployments/{workload}",
        "LABELS": {"app": workload, "version": "v1", "service.istio.io/canonical-name": workload,
                   "service.istio.io/canonical-revision": "v1"}}}


OFFERS = {"alpn_protocols": ["istio-peer-exchange", "istio"]}


def stream(cluster, *network):
    return [*network, stats(tcp_reporting_duration="1s"),
            {"name": "tcp", "typed_config": {"@type": TCP, "stat_prefix": cluster, "cluster": cluster}}]


def served():
    """The sidecar of the workload `blue`: HTTP and bytes over mutual TLS."""
    secure = {"transport_socket": downstream("server", roots(), OFFERS, require_client_certificate=True)}
    inbound = {"traffic_direction": "INBOUND"}
    return {"bootstrap": {"node": node("blue", "x")}, "clusters": {"up": ISTIO, "bytes": ISTIO},
            "upstreams": {"bytes": {"mode": "tcp"}},
            "listeners": {"inbound": {"routes": [{"match": "/bad", "direct": [503, "no"]}, "/ -> up"],
                                      "hcm": filters(INBOUND, stats()), "listener": inbound,
                                      "tls": {"cert": "server", "ca": "ca", "require": True}},
                          "bytes_in": {"tcp": {"cluster": "bytes"}, "listener": {**inbound, "filter_chains": [
                              {"filters": stream("bytes", EXCHANGE), **secure}]}}}}


def calling(http_port, tcp_port):
    """The sidecar of the workload `client`."""
    def there(port, offers, **more):
        return {"load_assignment": {"endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {
            "address": "127.0.0.1", "port_value": port}}}}]}]}, **ISTIO,
            "transport_socket": upstream("client", roots(), offers), **more}
    outbound = {"traffic_direction": "OUTBOUND"}
    return {"bootstrap": {"node": node("client", "x")},
            "clusters": {"blue": there(http_port, {}), "bytes": there(tcp_port, OFFERS, filters=[EXCHANGE])},
            "listeners": {"main": {"routes": ["/ -> blue"], "hcm": filters(OUTBOUND, stats()), "listener": outbound},
                          "bytes_out": {"tcp": {"cluster": "bytes"}, "listener": {
                              **outbound, "filter_chains": [{"filters": stream("bytes")}]}}}}


class Load:
    """Requests, good and bad, and bytes there and back, until it is ended."""

    def __init__(self, http_port, tcp_port):
        self.ended = threading.Event()
        self.failed = []
        self.threads = [threading.Thread(target=self._run, args=one) for one in (
            (self._requests, http_port), (self._bytes, tcp_port))]
        for thread in self.threads:
            thread.start()

    def _run(self, work, port):
        try:
            while not self.ended.is_set():
                work(port)
        except Exception as error:  # noqa: BLE001 (reported by the test)
            self.failed.append(error)

    @staticmethod
    def _requests(port):
        conn = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        for path in ("/a", "/a", "/bad", "/a"):
            conn.request("GET", path)
            conn.getresponse().read()
        conn.close()

    @staticmethod
    def _bytes(port):
        conn = Connection(port)
        conn.send(b"x" * 1000)
        conn.wait_bytes(1000)
        conn.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()


def test_kiali_and_dashboards_have_data(rig, tmp_path):
    server = rig(served())
    client = rig(calling(server.port("inbound"), server.port("bytes_in")))
    targets = {"blue-1": f"127.0.0.1:{server.proxy.admin_port}", "client-1": f"127.0.0.1:{client.proxy.admin_port}"}
    one = prometheus.Prometheus(prometheus.find(), tmp_path, targets, f"127.0.0.1:{Port().number}")
    one.start()
    try:
        one.wait_ready()
        with Load(client.port(), client.port("bytes_out")) as load:
            subject = prometheus.Subject("x", "client", "blue", SERVICE, tcp=True)
            without = [f"{title}: {query}: {found}" for title, query, good, found in one.check(subject) if not good]
        assert load.failed == []
        assert without == []
        edges = one.query('sum(istio_requests_total{reporter="destination"}) by (source_workload, destination_workload, '
                          'response_code, connection_security_policy, source_principal)')
        assert {tuple(sorted(labels.items())) for labels, _ in edges} == {
            tuple(sorted({"source_workload": "client", "destination_workload": "blue", "response_code": code,
                          "connection_security_policy": "mutual_tls",
                          "source_principal": "spiffe://td/ns/x/sa/cli"}.items())) for code in ("200", "503")}
        metadata = json.loads(one.get("/api/v1/metadata")[1])["data"]
        assert metadata["istio_requests_total"][0]["type"] == "counter"
        assert metadata["istio_request_duration_milliseconds"][0]["type"] == "histogram"
        assert one.query("istio_requests_of_nobody") == []
        assert re.search("level=(warn|error)", one.said()) is None, one.said()
    finally:
        one.stop()
    client.proxy.stop()  # it keeps connections to the other


@pytest.mark.skipif(prometheus.find("promtool") is None, reason="no promtool here")
def test_promtool_reads_every_line(rig):
    """What promtool says about names is about Envoy's names; what it cannot read, it says with a line number."""
    one = rig(served())
    for query in ("", "?usedonly", "?text_readouts", "?histogram_buckets=summary"):
        text = one.proxy.admin("/stats/prometheus" + query)[1]
        done = subprocess.run([prometheus.find("promtool"), "check", "metrics"], capture_output=True,
                              input=text if isinstance(text, bytes) else text.encode(), timeout=60)
        said = (done.stdout + done.stderr).decode()
        assert done.returncode in (0, 3), said
        assert "while linting" not in said, said
