# SPDX-License-Identifier: Apache-2.0
"""gRPC of grpcio's client and server through the proxy, HTTP/2 on both sides."""

import concurrent.futures
import threading

import grpc
import pytest

from tests.harness.patience import DEADLINE_S

OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


class Service(grpc.GenericRpcHandler):
    """Methods by name; messages are bytes."""

    def __init__(self):
        self.begun = threading.Event()
        self.cancelled = threading.Event()

    def service(self, call):
        one, many = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        return {"/s/Echo": one(self.echo), "/s/Fail": one(self.fail), "/s/Wait": one(self.wait),
                "/s/Big": grpc.unary_stream_rpc_method_handler(self.big),
                "/s/Sum": grpc.stream_unary_rpc_method_handler(self.sum),
                "/s/Chat": many(self.chat)}.get(call.method)

    def echo(self, request, context):
        context.set_trailing_metadata([("x-said", str(len(request)))])
        return request

    def fail(self, request, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now, later: ü")

    def wait(self, request, context):
        context.add_callback(self.cancelled.set)
        self.begun.set()
        self.cancelled.wait(DEADLINE_S)
        return b""

    def big(self, request, context):
        for i in range(int(request)):
            yield bytes([i % 256]) * 100_000

    def sum(self, requests, context):
        return str(sum(len(r) for r in requests)).encode()

    def chat(self, requests, context):
        for request in requests:
            yield request[::-1]


@pytest.fixture
def grpc_rig(rig):
    service = Service()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16), handlers=[service],
                         options=OPTIONS)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    where = {"cluster_name": "g", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
        "socket_address": {"address": "127.0.0.1", "port_value": port}}}}]}]}
    one = rig({"clusters": {"g": {"http2": {}, "load_assignment": where}},
               "listeners": {"main": {"routes": [{"match": "/", "route": {"cluster": "g",
                                                                          "timeout": "0s"}}]}}})
    one.at_rest = lambda: not [k for k in one.proxy.active() if not k.endswith("upstream_cx_active")]
    channel = grpc.insecure_channel(f"127.0.0.1:{one.port()}", options=OPTIONS)
    one.service, one.channel = service, channel
    yield one
    channel.close()
    service.cancelled.set()
    server.stop(None)


def test_unary(grpc_rig):
    call = grpc_rig.channel.unary_unary("/s/Echo")
    for size in (0, 1, 1000, 70_000, 3_000_000):
        answer, context = call.with_call(b"x" * size, timeout=DEADLINE_S)
        assert answer == b"x" * size
        assert ("x-said", str(size)) in [tuple(m) for m in context.trailing_metadata()]


def test_many_at_once(grpc_rig):
    call = grpc_rig.channel.unary_unary("/s/Echo")
    futures = [call.future(str(i).encode() * 500, timeout=DEADLINE_S) for i in range(300)]
    assert [f.result() for f in futures] == [str(i).encode() * 500 for i in range(300)]
    assert grpc_rig.proxy.stats("^cluster.g.upstream_cx_total$")["cluster.g.upstream_cx_total"] == 1


def test_statuses(grpc_rig):
    for method, code, text in (("/s/Fail", grpc.StatusCode.FAILED_PRECONDITION, "not now, later: ü"),
                               ("/s/Nobody", grpc.StatusCode.UNIMPLEMENTED, None)):
        with pytest.raises(grpc.RpcError) as error:
            grpc_rig.channel.unary_unary(method)(b"", timeout=DEADLINE_S)
        assert error.value.code() == code
        assert text is None or error.value.details() == text


def test_streams(grpc_rig):
    chunks = list(grpc_rig.channel.unary_stream("/s/Big")(b"50", timeout=DEADLINE_S))
    assert [len(c) for c in chunks] == [100_000] * 50
    assert chunks[7] == b"\x07" * 100_000
    parts = (b"y" * 50_000 for _ in range(60))
    assert grpc_rig.channel.stream_unary("/s/Sum")(parts, timeout=DEADLINE_S) == b"3000000"
    words = [f"word {i}".encode() for i in range(200)]
    said = list(grpc_rig.channel.stream_stream("/s/Chat")(iter(words), timeout=DEADLINE_S))
    assert said == [w[::-1] for w in words]


def test_a_client_that_gives_up_is_heard_of(grpc_rig):
    call = grpc_rig.channel.unary_unary("/s/Wait").future(b"", timeout=60)
    assert grpc_rig.service.begun.wait(DEADLINE_S)
    call.cancel()
    assert grpc_rig.service.cancelled.wait(DEADLINE_S)
