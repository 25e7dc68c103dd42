# SPDX-License-Identifier: Apache-2.0
"""Active health checks: what hosts are asked, what their answers make of them, and when. All of it
holds for the real Envoy too."""

import json
import re
import socket

import pytest

from tests.harness.upstream import wait_until

from .health import (GatedH2Host, GatedHost, H2Host, Host, TlsHost, becomes, checked, count, flags, grpc_checked, refused,
                     started, status)


@pytest.fixture
def host():
    one = Host()
    yield one
    one.close()


@pytest.fixture
def h2_host():
    one = H2Host("headend 200")
    yield one
    one.close()


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
    one = started(rig, checked(host.port, {**check, "timeout": "1s"}))
    assert flags(one) == "healthy"
    wait_until(lambda: count(one, "success") > 5, "successes")
    assert host.connections == 1
    host.answer = b"ng.."
    becomes(one, "/failed_active_hc/active_hc_timeout")


def test_added_headers_and_body(rig, host):
    host.methods = b"POST"
    check = {"http_health_check": {
        "path": "/hc", "method": "POST", "send": {"text": "616263"}, "request_headers_to_remove": ["user-agent"],
        "request_headers_to_add": [{"header": {"key": "x-a", "value": "%PROTOCOL%"}},
                                   {"header": {"key": "x-b", "value": "b"}}]}}
    one = started(rig, checked(host.port, check))
    assert host.asked[0] == "POST /hc HTTP/1.1\r\nhost: c\r\nx-a: HTTP/1.1\r\nx-b: b\r\ncontent-length: 3"
    wait_until(lambda: count(one, "success") > 5, "successes")
    assert host.connections == 1


@pytest.mark.parametrize("body,fine", [("xxabcdyyef", True), ("xxabcdyy", False), ("efab", False), ("abef", True),
                                       ("", False), ("x" * 20 + "abef", False)])
def test_body_of_the_answer(rig, host, body, fine):
    check = {"http_health_check": {"path": "/", "receive": [{"text": "6162"}, {"binary": "ZWY="}],
                                   "response_buffer_size": 10}}
    host.answer = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    one = started(rig, checked(host.port, check))
    assert flags(one) == ("healthy" if fine else "/failed_active_hc")
    assert count(one, "network_failure") == 0


HTTP2 = {"http_health_check": {"path": "/hc", "codec_client_type": "HTTP2"}}


def test_http2(rig, h2_host):
    h2_host.answer = "head 200; data abc; trailers a=b"
    one = started(rig, checked(h2_host.port, HTTP2))
    assert flags(one) == "healthy"
    assert h2_host.asked[0] == \
        ":method: GET\r\n:authority: c\r\n:path: /hc\r\n:scheme: http\r\nuser-agent: Envoy/HC\r\n\r\n"
    wait_until(lambda: len(h2_host.asked) > 20, "many checks")
    assert h2_host.connections == 1
    assert one.proxy.stats("^cluster\\.c\\.http2")["cluster.c.http2.nghttp2_upstream_connections"] == 1
    h2_host.answer = "headend 503"
    becomes(one, "/failed_active_hc")
    assert count(one, "network_failure") == 0
    h2_host.answer = "headend 200 x-envoy-degraded=1"
    becomes(one, "/degraded_active_hc")


@pytest.mark.parametrize("answer,kept", [("rst 2", True), ("close", False), ("goaway this 2; headend 200", False),
                                         ("raw 00000000ff00000000; raw 000001060000000000ff", False)])
def test_http2_failures(rig, h2_host, answer, kept):
    h2_host.answer = answer
    one = started(rig, checked(h2_host.port, HTTP2))
    wait_until(lambda: count(one, "network_failure") > 5, "failures")
    assert flags(one) == "/failed_active_hc"
    assert (h2_host.connections == 1) == kept
    h2_host.answer = "headend 200"
    becomes(one, "healthy")


@pytest.mark.parametrize("answer", ["headend 200; goaway this 0", "goaway this 0; headend 200"])
def test_http2_goes_away(rig, h2_host, answer):
    h2_host.answer = answer
    one = started(rig, checked(h2_host.port, HTTP2))
    wait_until(lambda: h2_host.connections > 3, "connections")
    assert flags(one) == "healthy"
    if answer.startswith("goaway"):  # else the next question may have left already
        assert count(one, "failure") == 0


def test_http2_silence(rig, h2_host):
    h2_host.answer = ""
    one = started(rig, checked(h2_host.port, {**HTTP2, "timeout": "0.05s"}))
    becomes(one, "/failed_active_hc/active_hc_timeout")
    wait_until(lambda: h2_host.connections > 2, "connections")
    h2_host.answer = "headend 200"
    becomes(one, "healthy")


def test_http2_body(rig, h2_host):
    check = {"http_health_check": {"path": "/hc", "codec_client_type": "HTTP2", "method": "POST",
                                   "send": {"text": "616263"}, "receive": [{"text": "6566"}]}}
    h2_host.answer = "head 200; data ab; dataend efg"
    one = started(rig, checked(h2_host.port, check))
    assert flags(one) == "healthy"
    assert h2_host.asked[0].endswith("user-agent: Envoy/HC\r\ncontent-length: 3\r\n\r\nabc")
    h2_host.answer = "head 200; dataend e"
    becomes(one, "/failed_active_hc")


SERVING = "head 200 content-type=application/grpc; raw 0000070000SSSSSSSS00000000020801; trailers grpc-status=0"


def test_grpc(rig, h2_host):
    h2_host.answer = SERVING
    one = started(rig, grpc_checked(h2_host.port, timeout="12s"))
    assert flags(one) == "healthy"
    assert h2_host.asked[0] == (
        ":method: POST\r\n:path: /grpc.health.v1.Health/Check\r\n:authority: c\r\n:scheme: http\r\nte: trailers\r\n"
        "content-type: application/grpc\r\nuser-agent: Envoy/HC\r\ngrpc-timeout: 12000m\r\n\r\n" + "\0" * 5)
    wait_until(lambda: len(h2_host.asked) > 20, "many checks")
    assert h2_host.connections == 1
    h2_host.answer = SERVING.replace("0801", "0802")
    becomes(one, "/failed_active_hc")  # at once
    assert count(one, "network_failure") == 0
    h2_host.answer = SERVING
    becomes(one, "healthy")


def test_grpc_names(rig, h2_host):
    h2_host.answer = SERVING
    one = started(rig, grpc_checked(h2_host.port, {
        "service_name": "svc", "authority": "a.test", "initial_metadata": [
            {"header": {"key": "x-a", "value": "1"}}, {"header": {"key": "x-b", "value": "%UPSTREAM_HOST%"}}]}))
    assert flags(one) == "healthy"
    assert ":authority: a.test" in h2_host.asked[0]
    assert h2_host.asked[0].endswith(f"user-agent: Envoy/HC\r\nx-a: 1\r\nx-b: 127.0.0.1:{h2_host.port}\r\n"
                                     "grpc-timeout: 30000m\r\n\r\n\0\0\0\0\5\n\3svc")


@pytest.mark.parametrize("answer,resets", [
    (SERVING.replace("0801", "0800"), False), (SERVING.replace("0801", "0803"), False),
    ("head 200 content-type=application/grpc; raw 0000050000SSSSSSSS0000000000; trailers grpc-status=0", False),
    ("head 200 content-type=application/grpc; trailers grpc-status=0", False),
    ("headend 200 content-type=application/grpc grpc-status=12", False),
    ("headend 200 content-type=application/grpc grpc-status=0", False),
    (SERVING.replace("grpc-status=0", "grpc-status=5"), False),
    ("headend 503", False), ("head 503; end", True),
    (SERVING.replace("application/grpc", "text/plain"), True),
    (SERVING.replace("trailers grpc-status=0", "trailers x=y"), False),
    (SERVING.replace("trailers grpc-status=0", "end"), False),
    (SERVING.replace("; trailers", "; raw 0000070000SSSSSSSS00000000020801; trailers"), True),
    (SERVING.replace("020801", "02ffff"), True),
    (SERVING.replace("00000000020801", "01000000020801"), True),
])
def test_grpc_is_not_served(rig, h2_host, answer, resets):
    h2_host.answer = answer
    one = started(rig, grpc_checked(h2_host.port))
    assert flags(one) == "/failed_active_hc"
    wait_until(lambda: count(one, "failure") > 5, "failures")
    assert count(one, "network_failure") == 0
    assert h2_host.connections == 1
    assert ("<rst 2>" in h2_host.asked) == resets
    h2_host.answer = SERVING
    becomes(one, "healthy")


@pytest.mark.parametrize("answer,kept", [("rst 2", True), ("rst 7", True), ("close", False),
                                         ("goaway this 2", False)])
def test_grpc_failures(rig, h2_host, answer, kept):
    h2_host.answer = answer
    one = started(rig, grpc_checked(h2_host.port))
    wait_until(lambda: count(one, "network_failure") > 5, "failures")
    assert flags(one) == "/failed_active_hc"
    assert (h2_host.connections == 1) == kept


def test_grpc_silence(rig, h2_host):
    h2_host.answer = ""
    one = started(rig, grpc_checked(h2_host.port, timeout="0.05s"))
    becomes(one, "/failed_active_hc/active_hc_timeout")
    wait_until(lambda: count(one, "network_failure") > 5, "failures")
    assert h2_host.connections == 1
    wait_until(lambda: "<rst 2>" in h2_host.asked, "a reset")
    h2_host.answer = SERVING
    becomes(one, "healthy")


@pytest.mark.parametrize("check,text", [
    ({"event_log_path": "/nowhere/at/all"}, "unable to open file '/nowhere/at/all': No such file or directory"),
    ({"event_logger": [{"name": "foo", "typed_config": {
        "@type": "type.googleapis.com/google.protobuf.StringValue", "value": "a"}}]},
     "Didn't find a registered implementation for 'foo' with type URL: 'google.protobuf.StringValue'"),
])
def test_event_files_are_checked(binary, tmp_path, check, text):
    assert text in refused(binary, tmp_path, checked(1, {**HTTP, **check}))


def test_grpc_needs_http2(binary, tmp_path):
    assert "c cluster must support HTTP/2 for gRPC healthchecking" in \
        refused(binary, tmp_path, checked(1, {"grpc_health_check": {}}))


def test_names_of_one_endpoint(rig, host):
    one = started(rig, checked(1, HTTP, {"hostname": "ep.test", "health_check_config": {
        "port_value": host.port, "hostname": "hc.test"}}))
    assert flags(one) == "healthy"
    assert host.asked[0] == "GET /hc HTTP/1.1\r\nhost: hc.test\r\nuser-agent: Envoy/HC"
    dump = json.loads(one.proxy.admin("/config_dump?include_eds")[1])
    endpoints = next(c for c in dump["configs"] if "Endpoints" in c["@type"])["static_endpoint_configs"]
    shown = [e["endpoint"]["health_check_config"] for c in endpoints for locality in c["endpoint_config"]["endpoints"]
             for e in locality["lb_endpoints"] if e["endpoint"]["hostname"] == "ep.test"]
    assert shown == [{"port_value": host.port, "hostname": "hc.test"}]


@pytest.mark.parametrize("port", [0, 1])
def test_address_of_one_endpoint(rig, host, port):
    one = started(rig, checked(1, HTTP, {"health_check_config": {"port_value": host.port if port else 0, "address": {
        "socket_address": {"address": "127.0.0.1", "port_value": 9 if port else host.port}}}}))
    assert flags(one) == "healthy"
    assert host.asked[0] == "GET /hc HTTP/1.1\r\nhost: h.test\r\nuser-agent: Envoy/HC"


def test_grpc_name_of_one_endpoint(rig, h2_host):
    h2_host.answer = SERVING
    started(rig, grpc_checked(h2_host.port, {"authority": "a.test"}, {"health_check_config": {"hostname": "hc.test"}}))
    assert ":authority: hc.test" in h2_host.asked[0]


def test_one_endpoint_is_not_checked(rig, host):
    one = started(rig, checked(host.port, HTTP, {"health_check_config": {"disable_active_health_check": True}}))
    assert flags(one) == "healthy"
    assert host.connections == 0
    assert count(one, "healthy") == count(one, "attempt") == 0


TLS = {"name": "tls", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}}
RAW = {"name": "raw", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}


@pytest.mark.parametrize("plain", [True, False])
def test_transport_socket_of_checks(rig, h2_host, plain):
    one = started(rig, checked(h2_host.port, {**HTTP2, "transport_socket_match_criteria": {"plain": plain}},
                               transport_socket=TLS, transport_socket_matches=[
        {"name": "p", "match": {"plain": True}, "transport_socket": RAW}]))
    assert flags(one) == ("healthy" if plain else "/failed_active_hc")
    if plain:
        assert ":scheme: https" in h2_host.asked[0]  # that of requests
        assert one.proxy.stats("match_count")["cluster.c.p.total_match_count"] == 1


def test_alpn_of_checks(rig):
    host = TlsHost()
    one = started(rig, checked(host.port, {**HTTP, "tls_options": {"alpn_protocols": ["hc"]}}, transport_socket=TLS))
    assert flags(one) == "healthy"
    assert host.protocols[0] == "hc"
    host.close()


EVENT_FILE = {"event_log_path": "{dir}/events"}
EVENT_SINK = {"event_logger": [{"name": "file", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink",
    "event_log_path": "{dir}/events"}}]}


def with_events(rig, port, check, **more):
    """The subject, and a function that says what happened."""
    cluster = checked(port, check, **more)
    cluster["load_assignment"]["endpoints"][0]["locality"] = {"region": "r", "zone": "z"}
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["metadata"] = {"filter_metadata": {"a": {"b": 1}}}
    one = started(rig, cluster)
    lines = one.proxy.dir / "events"

    def events():
        found = []
        for line in lines.read_text().splitlines():
            event = json.loads(line)
            assert event.pop("host") == {"socket_address": {
                "protocol": "TCP", "address": "127.0.0.1", "port_value": port, "resolver_name": "",
                "ipv4_compat": False, "network_namespace_filepath": ""}}
            assert event.pop("cluster_name") == "c"
            assert event.pop("metadata") == {"filter_metadata": {"a": {"b": 1}}, "typed_filter_metadata": {}}
            assert event.pop("locality") == {"region": "r", "zone": "z", "sub_zone": ""}
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", event.pop("timestamp"))
            found.append(event)
        return found
    return one, events


@pytest.mark.parametrize("to", [EVENT_FILE, EVENT_SINK], ids=["path", "sink"])
def test_events(rig, host, to):
    one, events = with_events(rig, host.port, {**HTTP, **to})
    host.answer = status(200, "x-envoy-degraded: 1")
    becomes(one, "/degraded_active_hc")
    host.answer = status(200)
    becomes(one, "healthy")
    host.answer = status(503)
    becomes(one, "/failed_active_hc")
    host.answer = status(200)
    becomes(one, "healthy")
    host.answer = b"x"
    becomes(one, "/failed_active_hc")
    wait_until(lambda: len(events()) == 6, "events")
    assert events() == [{"health_checker_type": "HTTP", **event} for event in [
        {"add_healthy_event": {"first_check": True}}, {"degraded_healthy_host": {}}, {"no_longer_degraded_host": {}},
        {"eject_unhealthy_event": {"failure_type": "ACTIVE", "http_status_code": 503}},
        {"add_healthy_event": {"first_check": False}},
        {"eject_unhealthy_event": {"failure_type": "NETWORK", "http_status_code": 0}}]]


def test_events_of_failures(rig, host):
    host.answer = None
    one, events = with_events(rig, host.port, {"tcp_health_check": {"send": {"text": "61"}, "receive": [{"text": "62"}]},
                                               **EVENT_FILE, "timeout": "1s"})
    wait_until(lambda: count(one, "failure") > 2, "failures")
    host.answer = b"b"
    becomes(one, "healthy")
    wait_until(lambda: len(events()) == 2, "events")
    assert events() == [{"health_checker_type": "TCP", **event} for event in [
        {"health_check_failure_event": {"failure_type": "NETWORK_TIMEOUT", "first_check": True, "http_status_code": 0}},
        {"add_healthy_event": {"first_check": False}}]]


def test_events_always(rig, host):
    one, events = with_events(rig, host.port, {
        **HTTP, **EVENT_FILE, "always_log_health_check_failures": True, "always_log_health_check_success": True})
    wait_until(lambda: len(events()) > 2, "successes")
    host.answer = status(503)
    becomes(one, "/failed_active_hc")
    wait_until(lambda: "health_check_failure_event" in events()[-1], "failures")
    found = [next(k for k in event if k != "health_checker_type") for event in events()]
    at = found.index("eject_unhealthy_event")
    assert found[:2] == ["add_healthy_event", "successful_health_check_event"]
    assert set(found[2:at]) == {"successful_health_check_event"}
    assert set(found[at + 1:]) == {"health_check_failure_event"}


@pytest.mark.parametrize("check,text", [
    ({"send": {"text": "61"}}, "HTTP health check cannot specify a request payload with method 'GET'."),
    ({"request_headers_to_add": [{"header": {"key": "host", "value": "x"}}]},
     ":-prefixed or host headers may not be modified"),
    ({"request_headers_to_remove": [":path"]}, ":-prefixed or host headers may not be removed"),
])
def test_requests_are_checked(binary, tmp_path, check, text):
    assert text in refused(binary, tmp_path, checked(1, {"http_health_check": {"path": "/", **check}}))


@pytest.mark.parametrize("field,value,text", [
    ("expected_statuses", [{"start": 300, "end": 200}], "expecting start < end, but found start=300 and end=200"),
    ("expected_statuses", [{"start": 99, "end": 200}], "expecting start >= 100, but found start=99"),
    ("retriable_statuses", [{"start": 500, "end": 601}], "expecting end <= 600, but found end=601"),
])
def test_ranges_are_checked(binary, tmp_path, field, value, text):
    assert text in refused(binary, tmp_path, checked(1, {"http_health_check": {"path": "/", field: value}}))


# ---- one answer after the other, each when it is asked for ----

THREE_TO_PASS = {"unhealthy_threshold": 2, "healthy_threshold": 3, "timeout": "60s"}
TCP = {"tcp_health_check": {"send": {"text": "70"}, "receive": [{"text": "71"}]}}
GATED = {
    "http": (GatedHost, {"http_health_check": {"path": "/", "retriable_statuses": [{"start": 429, "end": 430}]}}, checked,
             {"+": status(200), "-": status(503), "~": status(429), "!": None}),
    "tcp": (GatedHost, TCP, checked, {"+": b"q", "!": None}),
    "grpc": (GatedH2Host, {}, lambda port, check: grpc_checked(port, **check),
             {"+": SERVING, "-": SERVING.replace("0801", "0802"), "!": "close", "~": "rst 2"}),
}


@pytest.mark.parametrize("kind,answers,states", [
    # the first success is enough, later ones have to be three in a row; two failures in a row are too many
    ("http", "+~+~~+~+++", "++++-----+"), ("http", "+-+++-", "+---+-"), ("http", "-+++!!", "---++-"),
    ("http", "~+~++++", "-----++"),
    ("tcp", "+!+!!+!+++", "++++-----+"), ("tcp", "!!+++", "----+"),
    ("grpc", "+!+!!+!+++", "++++-----+"), ("grpc", "+-+++~~", "+---++-"), ("grpc", "-+++", "---+"),
])
def test_states_in_order(rig, kind, answers, states):
    make, check, cluster, words = GATED[kind]
    host = make()
    try:
        host.answers.put(words[answers[0]])
        one = started(rig, cluster(host.port, {**THREE_TO_PASS, **check}))
        seen = ""
        for n, answer in enumerate(answers, 1):
            if n > 1:
                host.answers.put(words[answer])
            wait_until(lambda: count(one, "attempt") == n + 1, "the next question")
            seen += "+" if flags(one) == "healthy" else "-"
            assert count(one, "healthy") == (1 if seen[-1] == "+" else 0)
        assert seen == states.replace(" ", "")
        assert count(one, "success") == answers.count("+")
        assert count(one, "network_failure") == answers.count("!") + (answers.count("~") if kind == "grpc" else 0)
        assert count(one, "failure") == len(answers) - answers.count("+")
    finally:
        host.answers.put(words["!"])
        host.close()
