# SPDX-License-Identifier: Apache-2.0
"""The cases of gRPC's interoperability test descriptions, by grpcio's client and server, through one
proxy and through two with mutual TLS between them. Messages are bytes: what they hold is nobody's
business on the way."""

import concurrent.futures
import threading

import grpc
import pytest

from tests.harness.patience import DEADLINE_S

SIZES_ASKED = [31415, 9, 2653, 58979]
SIZES_SENT = [27182, 8, 1828, 45904]
LARGE_ANSWER, LARGE_REQUEST = 314159, 271828
INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
NO_TIME = {"timeout": "0s"}


def sizes(request):
    """A message of the test: the sizes of the answers that it asks for, then its own bytes."""
    head, _, body = request.partition(b"|")
    return [int(n) for n in head.split(b",") if n], body


def message(asked, size=0):
    return ",".join(map(str, asked)).encode() + b"|" + bytes(size)


class TestService(grpc.GenericRpcHandler):
    """grpc.testing.TestService."""

    __test__ = False

    def __init__(self):
        self.begun = threading.Event()
        self.cancelled = threading.Event()

    def service(self, call):
        if not call.method.startswith("/grpc.testing.TestService/"):
            return None
        return {"EmptyCall": grpc.unary_unary_rpc_method_handler(lambda request, context: b""),
                "UnaryCall": grpc.unary_unary_rpc_method_handler(self.unary),
                "StreamingInputCall": grpc.stream_unary_rpc_method_handler(self.streaming_input),
                "StreamingOutputCall": grpc.unary_stream_rpc_method_handler(self.streaming_output),
                "FullDuplexCall": grpc.stream_stream_rpc_method_handler(self.full_duplex),
                }.get(call.method.rpartition("/")[2])

    @staticmethod
    def echo(context):
        told = dict(context.invocation_metadata())
        if INITIAL in told:
            context.send_initial_metadata([(INITIAL, told[INITIAL])])
        if TRAILING in told:
            context.set_trailing_metadata([(TRAILING, told[TRAILING])])
        if "x-status" in told:
            code, text = told["x-status"], told["x-message-bin"].decode()
            context.abort(next(c for c in grpc.StatusCode if c.value[0] == int(code)), text)

    def unary(self, request, context):
        self.echo(context)
        if "x-compressed" in dict(context.invocation_metadata()):
            context.set_compression(grpc.Compression.Gzip)
        (asked,), _ = sizes(request)
        return bytes(asked)

    def streaming_input(self, requests, context):
        context.add_callback(self.cancelled.set)
        self.begun.set()
        return str(sum(len(sizes(r)[1]) for r in requests)).encode()

    def streaming_output(self, request, context):
        if "x-compressed" in dict(context.invocation_metadata()):
            context.set_compression(grpc.Compression.Gzip)
        for asked in sizes(request)[0]:
            yield bytes(asked)

    def full_duplex(self, requests, context):
        context.add_callback(self.cancelled.set)
        self.echo(context)
        for request in requests:
            for asked in sizes(request)[0]:
                yield bytes(asked)


class Stub:
    def __init__(self, channel):
        path = "/grpc.testing.TestService/"
        self.empty = channel.unary_unary(path + "EmptyCall")
        self.unary = channel.unary_unary(path + "UnaryCall")
        self.streaming_input = channel.stream_unary(path + "StreamingInputCall")
        self.streaming_output = channel.unary_stream(path + "StreamingOutputCall")
        self.full_duplex = channel.stream_stream(path + "FullDuplexCall")
        self.unimplemented_method = channel.unary_unary(path + "UnimplementedCall")
        self.unimplemented_service = channel.unary_unary(
            "/grpc.testing.UnimplementedService/UnimplementedCall")


def spec(way, port):
    app = {"http2": {}, "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [{
        "endpoint": {"address": {"socket_address": {"address": "127.0.0.1",
                                                    "port_value": port}}}}]}]}}
    last = {"routes": [{"match": "/", "route": {"cluster": "app", **NO_TIME}}]}
    if way == "one proxy":
        return {"clusters": {"app": app}, "listeners": {"main": last}}
    first = {"routes": [{"match": "/", "route": {"cluster": "next", **NO_TIME}}]}
    second = {**last, "tls": {"ca": "ca", "require": True, "alpn": ["h2"]}}
    to_second = {"endpoints": ["second"], "http2": {},
                 "tls": {"cert": "client", "ca": "ca", "alpn": ["h2"]}}
    return {"clusters": {"app": app, "next": to_second},
            "listeners": {"main": first, "second": second}}


@pytest.fixture(params=["one proxy", "two, mutual TLS between them"])
def interop(rig, request):
    service = TestService()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(64), handlers=[service])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    one = rig(spec(request.param, port))
    # connections between the listeners stay
    one.at_rest = lambda: not [k for k in one.proxy.active() if not k.endswith("cx_active")]
    one.service = service
    one.channel = grpc.insecure_channel(f"127.0.0.1:{one.port()}")
    one.stub = Stub(one.channel)
    yield one
    one.channel.close()
    server.stop(None)


def test_empty_unary(interop):
    assert interop.stub.empty(b"", timeout=DEADLINE_S) == b""


def test_large_unary(interop):
    answer = interop.stub.unary(message([LARGE_ANSWER], LARGE_REQUEST), timeout=DEADLINE_S)
    assert answer == bytes(LARGE_ANSWER)


def test_client_compressed_unary(interop):
    answer = interop.stub.unary(message([LARGE_ANSWER], LARGE_REQUEST), timeout=DEADLINE_S,
                                compression=grpc.Compression.Gzip)
    assert answer == bytes(LARGE_ANSWER)


def test_server_compressed_unary(interop):
    answer = interop.stub.unary(message([LARGE_ANSWER], LARGE_REQUEST), timeout=DEADLINE_S,
                                metadata=[("x-compressed", "1")])
    assert answer == bytes(LARGE_ANSWER)


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_client_streaming(interop, compression):
    answer = interop.stub.streaming_input((message([], n) for n in SIZES_SENT), timeout=DEADLINE_S,
                                          compression=compression)
    assert int(answer) == sum(SIZES_SENT)


@pytest.mark.parametrize("metadata", [(), [("x-compressed", "1")]])
def test_server_streaming(interop, metadata):
    answers = interop.stub.streaming_output(message(SIZES_ASKED), timeout=DEADLINE_S,
                                            metadata=metadata)
    assert [len(a) for a in answers] == SIZES_ASKED


def test_ping_pong(interop):
    """The next message is sent when the answer to the last one came."""
    answered = threading.Semaphore(1)

    def requests():
        for asked, size in zip(SIZES_ASKED, SIZES_SENT):
            assert answered.acquire(timeout=DEADLINE_S)
            yield message([asked], size)
    got = []
    for answer in interop.stub.full_duplex(requests(), timeout=DEADLINE_S):
        got.append(len(answer))
        answered.release()
    assert got == SIZES_ASKED


def test_empty_stream(interop):
    assert list(interop.stub.full_duplex(iter(()), timeout=DEADLINE_S)) == []


def test_custom_metadata(interop):
    told = [(INITIAL, "test_initial_metadata_value"), (TRAILING, b"\xab\xab\xab")]
    _, call = interop.stub.unary.with_call(message([LARGE_ANSWER], LARGE_REQUEST), metadata=told,
                                           timeout=DEADLINE_S)
    assert (INITIAL, told[0][1]) in call.initial_metadata()
    assert (TRAILING, told[1][1]) in call.trailing_metadata()
    stream = interop.stub.full_duplex(iter([message([LARGE_ANSWER], LARGE_REQUEST)]), metadata=told,
                                      timeout=DEADLINE_S)
    assert [len(a) for a in stream] == [LARGE_ANSWER]
    assert (INITIAL, told[0][1]) in stream.initial_metadata()
    assert (TRAILING, told[1][1]) in stream.trailing_metadata()


def failure(call):
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code(), error.value.details()


@pytest.mark.parametrize("text", ["test status message", SPECIAL], ids=["plain", "special"])
def test_status_code_and_message(interop, text):
    told = [("x-status", "2"), ("x-message-bin", text.encode())]
    want = grpc.StatusCode.UNKNOWN, text
    stub = interop.stub
    assert failure(lambda: stub.unary(message([0]), metadata=told, timeout=DEADLINE_S)) == want
    assert failure(lambda: list(stub.full_duplex(iter([message([0])]), metadata=told,
                                                 timeout=DEADLINE_S))) == want


@pytest.mark.parametrize("name", ["unimplemented_method", "unimplemented_service"])
def test_unimplemented(interop, name):
    code, _ = failure(lambda: getattr(interop.stub, name)(b"", timeout=DEADLINE_S))
    assert code == grpc.StatusCode.UNIMPLEMENTED


def test_cancel_after_begin(interop):
    never = threading.Event()

    def requests():
        yield message([], 1)
        never.wait(DEADLINE_S)
    call = interop.stub.streaming_input.future(requests())
    assert interop.service.begun.wait(DEADLINE_S)
    call.cancel()
    never.set()
    assert call.cancelled() and call.code() == grpc.StatusCode.CANCELLED
    assert interop.service.cancelled.wait(DEADLINE_S)


def test_cancel_after_first_response(interop):
    never = threading.Event()

    def requests():
        yield message([31415], 27182)
        never.wait(DEADLINE_S)
    call = interop.stub.full_duplex(requests())
    assert len(next(call)) == 31415
    call.cancel()
    never.set()
    with pytest.raises(grpc.RpcError):
        next(call)
    assert call.code() == grpc.StatusCode.CANCELLED
    assert interop.service.cancelled.wait(DEADLINE_S)


def test_timeout_on_sleeping_server(interop):
    never = threading.Event()

    def requests():
        yield message([], 27182)
        never.wait(DEADLINE_S)
    call = interop.stub.full_duplex(requests(), timeout=0.001)
    code, _ = failure(lambda: next(call))
    never.set()
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED


def test_concurrent_large_unary(interop):
    """rpc_soak, all at once on one channel."""
    calls = [interop.stub.unary.future(message([LARGE_ANSWER], LARGE_REQUEST), timeout=DEADLINE_S)
             for _ in range(64)]
    assert all(call.result() == bytes(LARGE_ANSWER) for call in calls)


def test_channel_soak(interop):
    for _ in range(20):
        with grpc.insecure_channel(f"127.0.0.1:{interop.port()}") as channel:
            answer = Stub(channel).unary(message([LARGE_ANSWER], LARGE_REQUEST), timeout=DEADLINE_S)
            assert answer == bytes(LARGE_ANSWER)
