# SPDX-License-Identifier: Apache-2.0
"""Where logs and statistics go: collectors on a port of 127.0.0.1 that keep what they got.

mode als      AccessLogService and OpenTelemetry's LogsService over gRPC; a message each
mode udp      datagrams
mode tcp      one connection after the other, its lines
mode http     OpenTelemetry's logs over HTTP; a message each

`away: true` has nobody listen until come() is called.
"""

import http.server
import socket
import threading
from concurrent import futures

import grpc
from envoy.service.accesslog.v3 import als_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2

from .ports import Port


class Collector:
    """`got` are the messages, datagrams (bytes) or lines, in the order in which they came."""

    def __init__(self, mode="als", away=False):
        self.mode = mode
        self.lock = threading.Condition()
        self.got = []
        self.streams = 0
        self.metadata = []
        self.stops = []
        self.reserved = Port() if mode == "als" else None
        self.number = self.reserved.number if self.reserved else 0
        if not away:
            self.come()

    def come(self):
        {"als": self._serve_grpc, "udp": self._serve_udp, "tcp": self._serve_tcp,
         "http": self._serve_http}[self.mode]()

    def keep(self, what):
        with self.lock:
            self.got.append(what)
            self.lock.notify_all()

    def count(self):
        with self.lock:
            return len(self.got)

    def stop(self):
        for stop in self.stops:
            stop()
        if self.reserved:
            self.reserved.release()

    # ---- gRPC ----

    def _serve_grpc(self):
        self.server = grpc.server(futures.ThreadPoolExecutor(16),
                                  options=[("grpc.so_reuseport", 1)])
        self.server.add_generic_rpc_handlers((
            grpc.method_handlers_generic_handler("envoy.service.accesslog.v3.AccessLogService", {
                "StreamAccessLogs": grpc.stream_unary_rpc_method_handler(
                    self._stream, als_pb2.StreamAccessLogsMessage.FromString,
                    lambda message: message.SerializeToString())}),
            grpc.method_handlers_generic_handler(
                "opentelemetry.proto.collector.logs.v1.LogsService", {
                    "Export": grpc.unary_unary_rpc_method_handler(
                        self._export, logs_service_pb2.ExportLogsServiceRequest.FromString,
                        lambda message: message.SerializeToString())})))
        self.server.add_insecure_port(f"127.0.0.1:{self.number}")
        self.server.start()
        self.stops.append(lambda: self.server.stop(0))

    def _begin(self, context):
        with self.lock:
            self.streams += 1
            self.metadata.append([(k, v) for k, v in context.invocation_metadata()])

    def _stream(self, messages, context):
        self._begin(context)
        try:
            for message in messages:
                self.keep(message)
        except grpc.RpcError:
            pass
        return als_pb2.StreamAccessLogsResponse()

    def _export(self, message, context):
        self._begin(context)
        self.keep(message)
        return logs_service_pb2.ExportLogsServiceResponse()

    # ---- sockets ----

    def _bound(self, kind):
        while True:
            sock = socket.socket(socket.AF_INET, kind)
            sock.bind(("127.0.0.1", 0))
            if sock.getsockname()[1] > 9999:
                break
            sock.close()
        self.number = sock.getsockname()[1]
        return sock

    def _serve_udp(self):
        sock = self._bound(socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)

        def serve():
            while True:
                data = sock.recv(1 << 16)
                if data == b"stop":
                    sock.close()
                    return
                self.keep(data)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()

        def stop():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
                own.sendto(b"stop", ("127.0.0.1", self.number))
            thread.join()
        self.stops.append(stop)

    def _serve_tcp(self):
        sock = self._bound(socket.SOCK_STREAM)
        sock.listen(16)

        def serve_one(conn):
            with conn, conn.makefile("rb") as lines:
                try:
                    for line in lines:
                        self.keep(line.rstrip(b"\n"))
                except OSError:
                    pass

        def serve():
            while True:
                try:
                    conn, _ = sock.accept()
                except OSError:
                    return
                self.streams += 1
                threading.Thread(target=serve_one, args=(conn,), daemon=True).start()
        threading.Thread(target=serve, daemon=True).start()

        def stop():
            sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self.stops.append(stop)

    def _serve_http(self):
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                with collector.lock:
                    collector.metadata.append([(k.lower(), v) for k, v in self.headers.items()] +
                                              [(":path", self.path)])
                collector.keep(logs_service_pb2.ExportLogsServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.number = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def stop():
            server.shutdown()
            server.server_close()
        self.stops.append(stop)
