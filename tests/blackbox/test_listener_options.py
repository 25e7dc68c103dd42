# SPDX-License-Identifier: Apache-2.0
"""How many connections a listener takes, on which workers, and what is set on its sockets."""

import socket

import pytest

from tests.harness.patience import DEADLINE_S


def runtime(**values):
    return {"layered_runtime": {"layers": [{"name": "static", "static_layer": values}]}}


def connect(port):
    sock = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
    return sock


@pytest.mark.parametrize("key,limit,counter", [
    ("envoy.resource_limits.listener.main.connection_limit", 2, "downstream_cx_overflow"),
    # the one to the admin port counts
    ("overload.global_downstream_max_connections", 3, "downstream_global_cx_overflow")])
def test_so_many_and_no_more(rig, key, limit, counter):
    one = rig({"listeners": {"main": {"routes": [{"match": "/", "direct": [200, "x"]}]}},
               "bootstrap": runtime(**{key: limit})})
    port = one.port()
    kept = [connect(port), connect(port)]
    one.proxy.wait_stat("listener.main.downstream_cx_active", 2)
    with connect(port) as third:
        assert third.recv(1) == b""
    one.proxy.wait_stat(f"listener.main.{counter}", 1)
    kept.pop().close()
    one.proxy.wait_stat("listener.main.downstream_cx_active", 1)
    kept.append(connect(port))
    one.proxy.wait_stat("listener.main.downstream_cx_active", 2)
    for sock in kept:
        sock.close()


def test_exact_balance(rig):
    """Each worker has as many as the others, whoever accepts."""
    one = rig({"listeners": {"main": {"routes": [{"match": "/", "direct": [200, "x"]}], "listener": {
        "connection_balance_config": {"exact_balance": {}}}}}}, concurrency=4)
    kept = []
    for count in range(1, 41):
        kept.append(connect(one.port()))
        if count % 8 == 0:
            one.proxy.wait_stat("listener.main.downstream_cx_active", count)
    for worker in range(4):
        one.proxy.wait_stat(f"listener.main.worker_{worker}.downstream_cx_total", 10)
    for sock in kept:
        sock.close()
    one.proxy.wait_stat("listener.main.downstream_cx_active", 0)


def test_sockets_as_configured(rig):
    one = rig({"listeners": {"main": {"routes": [{"match": "/", "direct": [200, "x"]}], "listener": {
        "additional_addresses": [{"address": {"socket_address": {"address": "127.0.0.9", "port_value": 0}}}],
        "tcp_keepalive": {"keepalive_time": 7}, "tcp_fast_open_queue_length": 3,
        "socket_options": [{"level": socket.SOL_SOCKET, "name": socket.SO_RCVBUF, "int_value": 65536,
                            "state": "STATE_PREBIND"},
                           {"level": socket.SOL_SOCKET, "name": socket.SO_PRIORITY, "int_value": 3,
                            "state": "STATE_LISTENING"}]}}}})
    lines = one.proxy.admin("/listeners")[1].decode().splitlines()
    assert lines[0] == f"main::127.0.0.1:{one.port()}" and lines[1].startswith("main::127.0.0.9:")
    with socket.create_connection(("127.0.0.9", int(lines[1].rsplit(":", 1)[1])), timeout=DEADLINE_S) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
