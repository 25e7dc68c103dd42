# SPDX-License-Identifier: Apache-2.0
"""Connections that are looked at before they have a filter chain: what is read early is lost nowhere,
and chains and listeners are chosen by what was found."""

import socket
import ssl

import pytest

from tests.harness import certs
from tests.harness.config import http_filter_chain
from tests.harness.patience import DEADLINE_S

FILTERS = "type.googleapis.com/envoy.extensions.filters.listener."
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def listener_filter(name, message, **more):
    disabled = {"filter_disabled": more.pop("disabled")} if "disabled" in more else {}
    return {"name": f"envoy.filters.listener.{name}", **disabled,
            "typed_config": {"@type": f"{FILTERS}{name}.v3.{message}", **more}}


TLS_INSPECTOR = listener_filter("tls_inspector", "TlsInspector")
HTTP_INSPECTOR = listener_filter("http_inspector", "HttpInspector")
PROXY_PROTOCOL = listener_filter("proxy_protocol", "ProxyProtocol", allow_requests_without_proxy_protocol=True)


def answering(text):
    return [{"match": "/", "direct": [200, text]}]


def chain_of(text, match, tls=False):
    """A filter chain that answers with a text."""
    chain = http_filter_chain(text, {"routes": answering(text), "log": "none"}, "up")
    chain.update(name=text, filter_chain_match=match)
    if tls:
        folder = certs.usual()
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": TLS, "common_tls_context": {
                "alpn_protocols": ["http/1.1"],
                "tls_certificates": [{"certificate_chain": {"filename": f"{folder}/server.pem"},
                                      "private_key": {"filename": f"{folder}/server.key"}}]}}}
    return chain


@pytest.fixture
def mixed(rig):
    """TLS by server name, plain HTTP by version, all else to the default."""
    chains = [chain_of("exact", {"server_names": ["a.test"]}, tls=True),
              chain_of("suffix", {"server_names": ["*.test"], "transport_protocol": "tls"}, tls=True),
              chain_of("plain", {"transport_protocol": "raw_buffer",
                                     "application_protocols": ["http/1.1", "h2c"]})]
    return rig({"listeners": {"main": {"listener": {
        "filter_chains": chains, "default_filter_chain": chain_of("other", None),
        "listener_filters": [PROXY_PROTOCOL, TLS_INSPECTOR, HTTP_INSPECTOR]}}}})


def body(received):
    return received.split(b"\r\n\r\n", 1)[1]


def plain(port, *pieces):
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            sock.sendall(piece)
        return answer(sock.recv)


def answer(recv):
    data = b""
    while b"\r\n\r\n" not in data or len(body(data)) < int(
            data.lower().split(b"content-length: ")[1].split(b"\r\n")[0]):
        more = recv(65536)
        if not more:
            break
        data += more
    return data


def tls(port, name, before=b"", pieces=1):
    """A request in TLS; its handshake is sent in so small pieces."""
    context = ssl.create_default_context(cafile=f"{certs.usual()}/ca.pem")
    context.check_hostname = False
    came, gone = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(came, gone, server_hostname=name)
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pending = [before]

        def talk(step):
            while True:
                try:
                    result = step()
                except ssl.SSLWantReadError:
                    result = None
                out = pending.pop() + gone.read() if pending else gone.read()
                for at in range(0, len(out), pieces):
                    sock.sendall(out[at:at + pieces])
                if result is not None:
                    return result
                got = sock.recv(65536)
                if not got:
                    raise ConnectionError("closed")
                came.write(got)
        talk(lambda: session.do_handshake() or True)
        talk(lambda: session.write(REQUEST))
        return answer(lambda n: talk(lambda: session.read(n)))


@pytest.mark.parametrize("pieces", [1, 3, 65536])
def test_tls_by_server_name(mixed, pieces):
    port = mixed.port()
    assert body(tls(port, "A.test", pieces=pieces)) == b"exact"
    assert body(tls(port, "b.a.test", pieces=pieces)) == b"suffix"
    mixed.proxy.wait_stat("tls_inspector.sni_found", 2)
    mixed.proxy.wait_stat("tls_inspector.tls_found", 2)


def test_http_by_version(mixed):
    port = mixed.port()
    assert body(plain(port, REQUEST)) == b"plain"
    assert body(plain(port, *[bytes([byte]) for byte in REQUEST])) == b"plain"
    assert b" 426 " in plain(port, b"GET / HTTP/1.0\r\n\r\n")
    mixed.proxy.wait_stat("http_inspector.http11_found", 2)
    mixed.proxy.wait_stat("http_inspector.http10_found", 1)
    mixed.proxy.wait_stat("http.plain.downstream_cx_rx_bytes_total", 2 * len(REQUEST))


def test_what_a_proxy_says_is_consumed(mixed):
    port = mixed.port()
    header = b"PROXY TCP4 1.2.3.4 5.6.7.8 111 222\r\n"
    assert body(plain(port, header + REQUEST)) == b"plain"
    assert body(plain(port, header[:20], header[20:] + REQUEST[:5], REQUEST[5:])) == b"plain"
    assert body(tls(port, "a.test", before=header)) == b"exact"
    assert body(tls(port, "a.test", before=header, pieces=1)) == b"exact"
    second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x11\1\2\3\4\5\6\7\10\0\x6f\0\xde\2\0\2ab"
    assert body(tls(port, "a.test", before=second, pieces=2)) == b"exact"
    mixed.proxy.wait_stat("proxy_proto.versions.v1.found", 4)
    mixed.proxy.wait_stat("proxy_proto.versions.v2.found", 1)


def test_who_says_nothing_is_closed_in_time(rig):
    one = rig({"listeners": {"main": {"routes": answering("x"), "listener": {
        "listener_filters": [TLS_INSPECTOR], "listener_filters_timeout": "1s"}}}})
    with socket.create_connection(("127.0.0.1", one.port()), timeout=DEADLINE_S) as sock:
        assert sock.recv(1) == b""
    with socket.create_connection(("127.0.0.1", one.port()), timeout=DEADLINE_S) as sock:
        sock.sendall(b"\x16\x03")
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    one.proxy.wait_stat("listener.main.downstream_pre_cx_timeout", 2)
    one.proxy.wait_stat("listener.main.downstream_pre_cx_active", 0)


def test_who_says_nothing_may_go_on(rig):
    one = rig({"listeners": {"main": {"routes": answering("x"), "listener": {
        "listener_filters": [TLS_INSPECTOR], "listener_filters_timeout": "0.1s",
        "continue_on_listener_filters_timeout": True}}}})
    with socket.create_connection(("127.0.0.1", one.port()), timeout=DEADLINE_S) as sock:
        sock.sendall(REQUEST[:3])
        one.proxy.wait_stat("listener.main.downstream_pre_cx_timeout", 1)
        sock.sendall(REQUEST[3:])
        assert body(answer(sock.recv)) == b"x"


def test_filters_out_of_use_by_port(rig):
    here = {"destination_port_range": {"start": 1024, "end": 65536}}
    never = {"not_match": {"any_match": True}}
    one = rig({"listeners": {"main": {"routes": answering("x"), "listener": {"listener_filters": [
        listener_filter("tls_inspector", "TlsInspector", disabled={"or_match": {"rules": [never, here]}}),
        listener_filter("http_inspector", "HttpInspector", disabled={"and_match": {"rules": [never, here]}})]}}}})
    assert body(plain(one.port(), REQUEST)) == b"x"
    one.proxy.wait_stat("http_inspector.http11_found", 1)
    assert one.proxy.stats("tls_inspector").get("tls_inspector.tls_not_found", 0) == 0


def test_listeners_of_the_original_destination(rig):
    """By the exact address, then by the port, then the one that has the socket."""
    def at(address, port, **more):
        return {"routes": answering(f"{address}:{port}"), "listener": {
            "address": {"socket_address": {"address": address, "port_value": port}},
            "bind_to_port": False, **more}}
    one = rig({"listeners": {
        "main": {"routes": answering("main"), "listener": {
            "use_original_dst": True, "listener_filters": [PROXY_PROTOCOL]}},
        "exact": at("10.1.1.1", 80), "any": at("0.0.0.0", 80, listener_filters=[HTTP_INSPECTOR]),
        "six": at("::", 81)}})

    def to(destination, port, kind="TCP4", source="9.9.9.9"):
        return body(plain(one.port(), f"PROXY {kind} {source} {destination} 1 {port}\r\n".encode() + REQUEST))
    assert to("10.1.1.1", 80) == b"10.1.1.1:80"
    assert to("10.1.1.2", 80) == b"0.0.0.0:80"
    assert to("10.1.1.1", 82) == b"main"
    assert to("1::2", 81, "TCP6", "1::1") == b":::81"
    assert body(plain(one.port(), REQUEST)) == b"main"
    one.proxy.wait_stat("listener.exact.downstream_cx_total", 1)
    one.proxy.wait_stat("listener.main.downstream_cx_total", 2)
    one.proxy.wait_stat("listener.any.downstream_cx_active", 0)


def test_no_chain_is_logged(rig):
    one = rig({"listeners": {"main": {"listener": {
        "filter_chains": [chain_of("tls", {"transport_protocol": "tls"})],
        "access_log": [{"name": "file", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "{dir}/listener.log", "log_format": {"text_format_source": {
                "inline_string": "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"}}}}]}}}})
    with socket.create_connection(("127.0.0.1", one.port()), timeout=DEADLINE_S) as sock:
        assert sock.recv(1) == b""
    one.proxy.wait_stat("listener.main.no_filter_chain_match", 1)
    log = one.proxy.dir / "listener.log"
    one.proxy.wait_for("a line", lambda: log.exists() and log.read_text() == "NR filter_chain_not_found\n")
