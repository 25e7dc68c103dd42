# SPDX-License-Identifier: Apache-2.0
"""Active health checks: what hosts are asked, what their answers make of them, and when. All of it
holds for the real Envoy too."""

import json
import socket
import threading

import pytest

from tests.harness.upstream import wait_until

SOON = {"timeout": "30s", "interval": "0.01s", "no_traffic_interval": "0.01s",
        "unhealthy_threshold": 3, "healthy_threshold": 2}


class Host:
    """Answers each request as `answer` says at that time; None: not at all."""

    def __init__(self, answer=b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"):
        self.answer = answer
        self.asked = []
        self.connections = 0
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        try:
            while True:
                conn, _ = self.sock.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(conn,), daemon=True).start()
        except OSError:
            pass

    def _serve(self, conn):
        received = b""
        try:
            while data := conn.recv(4096):
                received += data
                if not received.startswith(b"GET"):
                    conn.sendall(self.answer or b"")
                    continue
                while b"\r\n\r\n" in received:
                    head, received = received.split(b"\r\n\r\n", 1)
                    self.asked.append(head.decode())
                    if self.answer is not None:
                        conn.sendall(self.answer)
        except OSError:
            pass
        finally:
            conn.close()

    def close(self):
        self.sock.close()


@pytest.fixture
def host():
    one = Host()
    yield one
    one.close()


def status(code, *headers):
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"HTTP/1.1 {code} X\r\n{lines}content-length: 0\r\n\r\n".encode()


def checked(port, check, **more):
    return {"name": "c", "type": "STATIC", "connect_timeout": "5s", "health_checks": [{**SOON, **check}],
            "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": {
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]}]}, **more}


def started(rig, cluster):
    return rig({"clusters": {"up": {}}, "listeners": {"main": {"routes": ["/ -> c"]}},
                "bootstrap": {"static_resources": {"clusters": [cluster]}}})


def flags(one):
    return next(line.rsplit("::", 1)[1] for line in one.proxy.admin("/clusters")[1].decode().splitlines()
                if line.startswith("c::") and "health_flags" in line)


def becomes(one, text):
    wait_until(lambda: flags(one) == text, f"health flags {text}")


def count(one, name):
    return one.proxy.stats("^cluster\\.c\\.health_check")[f"cluster.c.health_check.{name}"]


HTTP = {"http_health_check": {"path": "/hc", "host": "h.test",
                              "expected_statuses": [{"start": 200, "end": 203}],
                              "retriable_statuses": [{"start": 429, "end": 430}]}}


def test_request_and_first_answer(rig, host):
    one = started(rig, checked(host.port, HTTP))
    assert flags(one) == "healthy"  # the cluster was warm only with the first answer
    assert host.asked[0] == "GET /hc HTTP/1.1\r\nhost: h.test\r\nuser-agent: Envoy/HC"
    wait_until(lambda: len(host.asked) > 20, "many checks")
    assert host.connections == 1
    assert count(one, "healthy") == 1
    host.answer = status(200, "connection: close")
    one.get("/")
    assert one.proxy.stats("^cluster\\.c\\.upstream_cx_total")["cluster.c.upstream_cx_total"] == 1


def test_connection_is_not_reused(rig, host):
    started(rig, checked(host.port, {**HTTP, "reuse_connection": False}))
    wait_until(lambda: len(host.asked) > 5, "checks")
    assert host.connections >= len(host.asked) - 1


def test_expected_status_and_failure(rig, host):
    host.answer = status(202)
    one = started(rig, checked(host.port, HTTP))
    assert flags(one) == "healthy"
    host.answer = status(503)
    becomes(one, "/failed_active_hc")
    assert count(one, "network_failure") == 0
    host.answer = status(200)
    becomes(one, "healthy")
    host.answer = status(429)  # three of them
    before = count(one, "failure")
    becomes(one, "/failed_active_hc")
    assert count(one, "failure") >= before + 3


def test_close_behind_the_answer(rig, host):
    host.answer = status(200, "connection: close")
    one = started(rig, checked(host.port, HTTP))
    wait_until(lambda: host.connections > 3, "connections")
    assert flags(one) == "healthy"
    assert count(one, "failure") == 0


def test_degraded_and_excluded(rig, host):
    host.answer = status(200, "x-envoy-degraded: true")
    one = started(rig, checked(host.port, HTTP))
    becomes(one, "/degraded_active_hc")
    stats = one.proxy.stats("^cluster\\.c\\.membership")
    assert stats["cluster.c.membership_degraded"] == 1
    assert stats["cluster.c.membership_healthy"] == 0
    host.answer = status(503, "x-envoy-immediate-health-check-fail: true")
    becomes(one, "/failed_active_hc/degraded_active_hc/excluded_via_immediate_hc_fail")
    host.answer = status(200)
    becomes(one, "healthy")


def test_name_of_the_cluster(rig, host):
    host.answer = status(200, "x-envoy-upstream-healthchecked-cluster: mine")
    check = {"http_health_check": {"path": "/", "service_name_matcher": {"prefix": "mi"}}}
    one = started(rig, checked(host.port, check))
    assert flags(one) == "healthy"
    host.answer = status(200)
    becomes(one, "/failed_active_hc")
    assert count(one, "verify_cluster") > 1


def test_silence(rig, host):
    host.answer = None
    one = started(rig, checked(host.port, {**HTTP, "timeout": "0.05s"}))
    becomes(one, "/failed_active_hc/active_hc_timeout")
    assert count(one, "network_failure") >= 1
    host.answer = status(200)
    becomes(one, "healthy")


def test_no_http(rig, host):
    host.answer = b"nonsense\r\n\r\n"
    one = started(rig, checked(host.port, HTTP))
    assert flags(one) == "/failed_active_hc"
    wait_until(lambda: count(one, "network_failure") > 5, "failures")


def test_nobody_there(rig):
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    one = started(rig, checked(port, HTTP))
    assert flags(one) == "/failed_active_hc"
    assert count(one, "healthy") == 0


def test_tcp_connects(rig, host):
    one = started(rig, checked(host.port, {"tcp_health_check": {}}))
    assert flags(one) == "healthy"
    wait_until(lambda: host.connections > 3, "connections")
    host.close()


def test_tcp_bytes(rig, host):
    check = {"tcp_health_check": {"send": {"text": "70696e67"},  # ping
                                  "receive": [{"text": "706f"}, {"text": "6e67"}]}}
    host.answer = b"--po..ng--"
    one = started(rig, checked(host.port, {**check, "timeout": "0.05s"}))
    assert flags(one) == "healthy"
    wait_until(lambda: count(one, "success") > 5, "successes")
    assert host.connections == 1
    host.answer = b"ng.."
    becomes(one, "/failed_active_hc/active_hc_timeout")


@pytest.mark.parametrize("field,value,text", [
    ("expected_statuses", [{"start": 300, "end": 200}], "expecting start < end, but found start=300 and end=200"),
    ("expected_statuses", [{"start": 99, "end": 200}], "expecting start >= 100, but found start=99"),
    ("retriable_statuses", [{"start": 500, "end": 601}], "expecting end <= 600, but found end=601"),
])
def test_ranges_are_checked(binary, tmp_path, field, value, text):
    import subprocess
    config = {"static_resources": {"clusters": [checked(1, {"http_health_check": {"path": "/", field: value}})]}}
    file = tmp_path / "c.json"
    file.write_text(json.dumps(config))
    ran = subprocess.run([binary, "--mode", "validate", "-c", str(file)], capture_output=True, text=True)
    assert ran.returncode == 1
    assert text in ran.stderr + ran.stdout
