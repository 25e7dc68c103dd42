# SPDX-License-Identifier: Apache-2.0
"""Collectors of access logs that do not read, do not answer, or answer rubbish: requests go on, memory stays bounded, and
entries come again once the collector is well. The real Envoy survives all of it, but bounds less."""

import socket
import threading

import pytest

from tests.harness.upstream import wait_until

ALS = {"name": "envoy.access_loggers.http_grpc", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
    "common_config": {"log_name": "l", "transport_api_version": "V3", "buffer_size_bytes": 16384, "buffer_flush_interval": "0.02s",
                      "grpc_service": {"envoy_grpc": {"cluster_name": "collector"}}}}}
OTEL = {"name": "envoy.access_loggers.open_telemetry", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
    "grpc_service": {"envoy_grpc": {"cluster_name": "collector"}}, "buffer_size_bytes": 16384, "buffer_flush_interval": "0.02s",
    "log_name": "l", "body": {"string_value": "%REQ(:PATH)%"}}}
COUNTER = {"als": "access_logs.grpc_access_log.logs_dropped",
           "otel": "access_logs.open_telemetry_access_log.grpc_entries_flush_failed"}
LOGS = {"als": ALS, "otel": OTEL}
BYTES_MAX = 6 << 20
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


class Broken:
    """Says `words` to each connection, and then reads or does not."""

    def __init__(self, words, reads):
        self.words, self.reads = words, reads
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.number = self.sock.getsockname()[1]
        self.conns = []
        self.got = b""
        self.accepting = threading.Thread(target=self._accept, daemon=True)
        self.accepting.start()

    def _accept(self):
        try:
            while True:
                conn, _ = self.sock.accept()
                self.conns.append(conn)
                threading.Thread(target=self._serve, args=(conn,), daemon=True).start()
        except OSError:
            pass

    def _serve(self, conn):
        try:
            conn.sendall(self.words)
            while self.reads and (data := conn.recv(65536)):
                self.got += data
        except OSError:
            pass

    def stop(self):
        self.sock.shutdown(socket.SHUT_RDWR)  # close() alone leaves accept() at work, which takes one more
        self.accepting.join()
        self.sock.close()
        for conn in self.conns:
            try:
                conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side was first
            conn.close()


def started(rig, number, log):
    return rig({
        "clusters": {"up": {}, "collector": {"http2": {}, "connect_timeout": "5s", "load_assignment": {
            "cluster_name": "collector", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {
                "address": "127.0.0.1", "port_value": number}}}}]}]}}},
        "listeners": {"main": {"routes": [{"match": "/", "direct": [200, "hello"]}], "hcm": {"access_log": [log]}}}})


def ask(one, count, path="/" + 8000 * "x"):
    """Requests one after the other on one connection, each answered."""
    conn = one.connect()
    for n in range(count):
        one.get(path, conn=conn)
    return conn


def in_use(one):
    return sum(v for k, v in one.proxy.stats("^kobune\\.bytes_in_use$").items())


def bounded(one):
    """Whether the subject says what its memory holds, and gives up what is too much."""
    return "kobune.bytes_in_use" in one.proxy.stats("^kobune\\.bytes_in_use$")


@pytest.mark.parametrize("log", sorted(LOGS))
@pytest.mark.parametrize("words,reads", [(b"", False), (SETTINGS, False), (SETTINGS, True)],
                         ids=["silent", "does_not_read", "does_not_answer"])
def test_collector_does_not_take_or_answer(rig, log, words, reads):
    collector = Broken(words, reads)
    try:
        one = started(rig, collector.number, LOGS[log])
        most = 0
        for _ in range(12):
            ask(one, 60)
            most = max(most, in_use(one))
        assert most < BYTES_MAX
        if not reads and bounded(one):
            wait_until(lambda: one.proxy.stats("^access_logs").get(COUNTER[log], 0) > 0, "entries that are given up")
    finally:
        collector.stop()


@pytest.mark.parametrize("log", sorted(LOGS))
@pytest.mark.parametrize("words", [
    b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 100, SETTINGS + b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    SETTINGS + b"\0\0\x08\7\0\0\0\0\0" + b"\0" * 8,  # GOAWAY
    SETTINGS + b"\0\0\4\3\0\0\0\0\1\0\0\0\x0b",  # the first stream is reset
    SETTINGS + b"\0\0\1\1\4\0\0\0\1\x88\0\0\5\0\0\0\0\0\1\0\0\0\0\0",  # HTTP alone, no gRPC
], ids=["http1", "bytes", "frame", "goaway", "reset", "no_grpc"])
def test_collector_answers_rubbish(rig, log, words):
    collector = Broken(words, True)
    try:
        one = started(rig, collector.number, LOGS[log])
        ask(one, 30)
        wait_until(lambda: collector.conns, "a connection")
        ask(one, 30)
    finally:
        collector.stop()
    assert in_use(one) < BYTES_MAX


def test_calls_that_were_never_answered_do_not_stop_later_ones(rig):
    collector = Broken(SETTINGS, True)
    try:
        one = started(rig, collector.number, OTEL)
        if not bounded(one):
            pytest.skip("calls wait without a bound")
        for n in range(70):
            ask(one, 1, f"/early{n}.")
            wait_until(lambda: f"/early{n}.".encode() in collector.got, "the entry")
        assert one.proxy.stats("^access_logs")[COUNTER["otel"]] >= 6
        assert one.proxy.active()["cluster.collector.upstream_rq_active"] == 64
    finally:
        collector.stop()
