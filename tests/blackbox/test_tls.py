# SPDX-License-Identifier: Apache-2.0
"""TLS on both sides: who gets in, what is resumed, and that bytes come through whole and in pieces."""

import datetime
import hashlib
import json
import socket
import ssl

import pytest
import yaml

from tests.harness import certs
from tests.harness.patience import DEADLINE_S
from tests.harness.upstream import wait_until

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."


def own(name):
    folder = certs.usual()
    return {"certificate_chain": {"filename": f"{folder}/{name}.pem"},
            "private_key": {"filename": f"{folder}/{name}.key"}}


def roots(name="ca", **more):
    return {"trusted_ca": {"filename": f"{certs.usual()}/{name}.pem"}, **more}


def downstream(cert="server", validation=None, common=None, **more):
    context = {"tls_certificates": [own(cert)], **(common or {})}
    if validation:
        context["validation_context"] = validation
    return {"name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": TLS + "DownstreamTlsContext",
                             "common_tls_context": context, **more}}


def upstream(cert="client", validation=None, common=None, **more):
    context = {"tls_certificates": [own(cert)] if cert else [], **(common or {})}
    if validation:
        context["validation_context"] = validation
    return {"name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": TLS + "UpstreamTlsContext",
                             "common_tls_context": context, **more}}


def listener(socket_config, **chain):
    return {"chain": {"transport_socket": socket_config, **chain}}


def client_context(cert="client", version=None):
    context = ssl.create_default_context(cafile=f"{certs.usual()}/ca.pem")
    context.check_hostname = False
    if cert:
        context.load_cert_chain(f"{certs.usual()}/{cert}.pem", f"{certs.usual()}/{cert}.key")
    if version:
        context.maximum_version = context.minimum_version = version
    return context


class Client:
    """A TLS client on blocking sockets."""

    def __init__(self, port, context=None, name="server.test", session=None):
        raw = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self.sock = (context or client_context()).wrap_socket(raw, server_hostname=name,
                                                              session=session)

    def get(self, path="/", headers=""):
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\n{headers}\r\n".encode())
        return self.answer()

    def answer(self):
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.more()
        head, _, body = data.partition(b"\r\n\r\n")
        length = int([line for line in head.split(b"\r\n")
                      if line.lower().startswith(b"content-length:")][0].split(b":")[1])
        while len(body) < length:
            body += self.more()
        return head, body

    def more(self):
        piece = self.sock.recv(65536)
        assert piece, "the connection ended early"
        return piece

    def close(self):
        self.sock.close()


@pytest.fixture
def mutual(rig):
    return rig({"listeners": {"main": listener(
        downstream(validation=roots(), require_client_certificate=True))}})


def refused(port, context):
    """The connection comes to nothing: in the handshake, or (TLS 1.3) at the first read after it."""
    with pytest.raises((ssl.SSLError, ConnectionError)):
        client = Client(port, context)
        client.sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        if client.sock.recv(1) == b"":
            raise ConnectionError("closed")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_mutual_tls(mutual, version):
    client = Client(mutual.port(), client_context(version=version))
    for _ in range(3):
        head, body = client.get()
        assert head.startswith(b"HTTP/1.1 200") and body == b"ok\n"
    assert b"x-forwarded-proto: https" in mutual.up.take_seen()[0].raw
    client.close()
    stats = mutual.proxy.stats(r"\.ssl\.")
    assert [v for k, v in stats.items() if k.endswith("ssl.handshake")] == [1]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("cert", [None, "stranger", "expired", "server_only"])
def test_who_is_not_let_in(mutual, cert, version):
    refused(mutual.port(), client_context(cert, version))
    fault = "fail_verify_no_cert" if cert is None else "fail_verify_error"
    mutual.proxy.wait_stat(f"listener.main.ssl.{fault}", 1)
    stats = mutual.proxy.stats(r"\.ssl\.(fail|handshake|connection_error)")
    assert {k.rsplit(".", 1)[1]: v for k, v in stats.items() if v} == {fault: 1}
    assert not mutual.up.take_seen()


@pytest.mark.parametrize("validation", [
    {"verify_certificate_hash": ["00" * 32]},
    {"verify_certificate_spki": ["A" * 43 + "="]},
    {"trusted_ca": {}, "crl": {}},
    {"trusted_ca": {}, "match_typed_subject_alt_names": [
        {"san_type": "DNS", "matcher": {"prefix": "spiffe://td/"}}]},
    {"trusted_ca": {}, "match_typed_subject_alt_names": [
        {"san_type": "DNS", "matcher": {"suffix": ".tes"}},
        {"san_type": "IP_ADDRESS", "matcher": {"exact": "10.1.2.4"}},
        {"san_type": "EMAIL", "matcher": {"safe_regex": {"regex": "a@b"}}}]},
])
def test_names_and_pins_that_do_not_fit(rig, validation):
    for field, name in (("trusted_ca", "ca"), ("crl", "crl")):
        if field in validation:
            validation[field] = {"filename": f"{certs.usual()}/{name}.pem"}
    one = rig({"listeners": {"main": listener(
        downstream(validation=validation, require_client_certificate=True))}})
    refused(one.port(), client_context())
    refused(one.port(), client_context(None))


@pytest.mark.parametrize("matcher", [
    {"san_type": "URI", "matcher": {"prefix": "SPIFFE://td/", "ignore_case": True}},
    {"san_type": "DNS", "matcher": {"exact": "CLIENT.test"}},
    {"san_type": "IP_ADDRESS", "matcher": {"exact": "10.1.2.3"}},
    {"san_type": "EMAIL", "matcher": {"contains": "@b"}},
    {"san_type": "URI", "matcher": {"safe_regex": {"regex": "spiffe://td/ns/[a-z]+/sa/cli"}}},
])
def test_names_that_fit(rig, matcher):
    one = rig({"listeners": {"main": listener(downstream(
        validation=roots(match_typed_subject_alt_names=[matcher]),
        require_client_certificate=True))}})
    client = Client(one.port())
    assert client.get()[0].startswith(b"HTTP/1.1 200")
    client.close()


def test_pins_that_fit(rig):
    """Without roots: the pin alone speaks for the client."""
    one = rig({"listeners": {"main": listener(downstream(
        validation={"verify_certificate_hash": [digest_of("client")]},
        require_client_certificate=True))}})
    client = Client(one.port())
    assert client.get()[0].startswith(b"HTTP/1.1 200")
    client.close()
    refused(one.port(), client_context("no_names"))


def test_plain_text_is_not_let_in(mutual):
    with socket.create_connection(("127.0.0.1", mutual.port()), timeout=DEADLINE_S) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert sock.recv(100)[:1] in (b"", b"\x15")
    mutual.proxy.wait_stat(f"listener.main.ssl.connection_error", 1)


def test_handshake_in_single_bytes(mutual):
    """Records cut anywhere, in both directions, in both halves of the handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(incoming, outgoing, server_hostname="server.test")
    sock = socket.create_connection(("127.0.0.1", mutual.port()), timeout=DEADLINE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def flush():
        for byte in outgoing.read():
            sock.sendall(bytes([byte]))

    def until(action):
        while True:
            try:
                result = action()
                flush()
                return result
            except ssl.SSLWantReadError:
                flush()
                incoming.write(sock.recv(7))

    until(tls.do_handshake)
    tls.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    flush()
    assert until(lambda: tls.read(20)).startswith(b"HTTP/1.1 200")
    sock.close()


def test_first_request_in_the_same_packet_as_the_end_of_the_handshake(mutual):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(incoming, outgoing, server_hostname="server.test")
    sock = socket.create_connection(("127.0.0.1", mutual.port()), timeout=DEADLINE_S)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
            incoming.write(sock.recv(65536))
    tls.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    sock.sendall(outgoing.read())  # Finished and the request together
    data = b""
    while not data.startswith(b"HTTP/1.1 200"):
        incoming.write(sock.recv(65536))
        try:
            data += tls.read(100)
        except ssl.SSLWantReadError:
            pass
    sock.close()


def test_large_bodies_both_ways(mutual):
    size = 3 * 1024 * 1024
    mutual.up.expect([f"bytes:{size}"])
    client = Client(mutual.port())
    body = b"0123456789abcdef" * (size // 16)
    client.sock.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size)
    client.sock.sendall(body)
    head, answer = client.answer()
    assert head.startswith(b"HTTP/1.1 200") and answer == b"x" * size
    seen = mutual.up.take_seen()[0].raw
    assert hashlib.sha256(seen[-size:]).digest() == hashlib.sha256(body).digest()
    client.close()


def test_both_sides(rig):
    """front -> TLS -> back: names checked, sessions resumed."""
    name = {"match_typed_subject_alt_names": [
        {"san_type": "URI", "matcher": {"exact": "spiffe://td/ns/x/sa/srv"}}]}
    one = rig({
        "listeners": {
            "main": {"routes": ["/good -> good", "/bad -> bad", "/nocert -> nocert", "/ -> up"]},
            "back": {"routes": ["/ -> up"], **listener(
                downstream(validation=roots(), require_client_certificate=True))},
        },
        "clusters": {
            "up": {},
            "good": {"endpoints": ["back"], "max_requests_per_connection": 1, "transport_socket": upstream(validation=roots(**name))},
            "bad": {"endpoints": ["back"], "transport_socket": upstream(validation=roots("other_ca"))},
            "nocert": {"endpoints": ["back"],
                       "transport_socket": upstream(None, validation=roots())},
        }})
    assert b"HTTP/1.1 200" in one.get("/good").received
    answer = one.get("/bad").received
    assert b"HTTP/1.1 503" in answer and b"remote connection failure" in answer
    assert b"HTTP/1.1 503" in one.get("/nocert").received
    wait_until(lambda: one.proxy.stats(r"ssl\.fail_verify_error").get("cluster.bad.ssl.fail_verify_error") == 1,
               "counted")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tickets_are_good_at_every_worker(rig, version):
    one = rig({"listeners": {"main": listener(
        downstream(validation=roots(), require_client_certificate=True))}}, concurrency=2)
    context = client_context(version=version)
    first = Client(one.port(), context)
    first.get()
    session = first.sock.session
    first.close()
    for _ in range(8):
        client = Client(one.port(), context, session=session)
        client.get()
        assert client.sock.session_reused
        if version == ssl.TLSVersion.TLSv1_3:
            session = client.sock.session
        client.close()


def test_close_notify_comes_before_the_end(mutual):
    client = Client(mutual.port())
    head, _ = client.get(headers="connection: close\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert client.sock.recv(100) == b""  # an end without close_notify would raise
    client.close()


def test_handshake_that_never_comes_is_ended(rig):
    one = rig({"listeners": {"main": listener(downstream(),
                                              transport_socket_connect_timeout="0.1s")}})
    with socket.create_connection(("127.0.0.1", one.port()), timeout=DEADLINE_S) as sock:
        assert sock.recv(1) == b""
    one.proxy.wait_stat("listener.main.downstream_cx_transport_socket_connect_timeout", 1)


def test_hostile_bytes_after_the_handshake(mutual):
    """A record that does not decrypt ends its connection, and nothing else."""
    client = Client(mutual.port())
    client.get()
    raw = socket.socket(fileno=client.sock.detach())
    raw.settimeout(DEADLINE_S)
    raw.sendall(b"\x17\x03\x03\x00\x20" + b"z" * 32)
    while raw.recv(1000):
        pass
    raw.close()
    assert Client(mutual.port()).get()[0].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("context, text", [
    ({"common_tls_context": {}}, "No TLS certificates found for server context"),
    ({"common_tls_context": {"tls_certificates": [{"certificate_chain": {"filename": "/nope"},
                                                   "private_key": {"filename": "/nope"}}]}},
     "/nope"),
])
def test_configuration_refused(binary, tmp_path, context, text):
    from tests.harness import Proxy, bootstrap, Layout
    from tests.harness.proxy import run_once
    config = bootstrap({"listeners": {"main": listener(
        {"name": "tls", "typed_config": {"@type": TLS + "DownstreamTlsContext", **context}})}})
    layout = Layout(config, None)
    path = tmp_path / "c.yaml"
    from tests.harness.proxy import to_yaml
    path.write_text(to_yaml(layout.resolved(log=str(tmp_path / "l"), dir=str(tmp_path))))
    done = run_once(binary, ["--mode", "validate", "-c", str(path)])
    layout.stop()
    assert done.returncode == 1 and text in done.stderr + done.stdout


def secret_file(path, name, **what):
    """A file of one Secret, put in place by rename as control planes do."""
    new = path.with_suffix(".new")
    new.write_text(yaml.safe_dump({"resources": [{"@type": TLS + "Secret", "name": name, **what}]}))
    new.rename(path)


def sds(path, name):
    return {"name": name, "sds_config": {"path_config_source": {"path": str(path)}}}


def serial_of(client):
    return int(client.sock.getpeercert()["serialNumber"], 16)


def test_secrets_from_files_rotate_without_dropping_a_connection(rig, tmp_path):
    cert, root = tmp_path / "cert.yaml", tmp_path / "root.yaml"
    secret_file(cert, "default", tls_certificate=own("server"))
    secret_file(root, "ROOTCA", validation_context=roots())
    one = rig({"listeners": {"main": listener(
        {"name": "tls", "typed_config": {
            "@type": TLS + "DownstreamTlsContext", "require_client_certificate": True,
            "common_tls_context": {
                "tls_certificate_sds_secret_configs": [sds(cert, "default")],
                "combined_validation_context": {
                    "default_validation_context": {"match_subject_alt_names": [
                        {"prefix": "spiffe://td/"}]},
                    "validation_context_sds_secret_config": sds(root, "ROOTCA")}}}})}})
    first = Client(one.port())
    assert first.get()[0].startswith(b"HTTP/1.1 200")
    refused(one.port(), client_context("no_names"))  # the default's matcher holds
    before = serial_of(first)
    secret_file(cert, "default", tls_certificate=own("rsa"))

    def rotated():
        try:
            client = Client(one.port())
            client.get()
        except (OSError, AssertionError):
            return False
        now = serial_of(client)
        client.close()
        return now != before
    wait_until(rotated, "the new certificate")
    assert first.get()[0].startswith(b"HTTP/1.1 200")  # goes on with the old one
    first.close()
    # a new root: who came with the old one comes no more
    secret_file(root, "ROOTCA", validation_context=roots("other_ca"))

    def shut():
        try:
            refused(one.port(), client_context())
            return True
        except BaseException:
            return False
    wait_until(shut, "the new root")
    secret_file(root, "ROOTCA", validation_context=roots())
    wait_until(rotated, "the old root")
    # what cannot be used leaves what serves
    secret_file(cert, "default", tls_certificate={
        "certificate_chain": {"inline_string": "nonsense"}, "private_key": {"inline_string": "x"}})
    one.proxy.wait_stat("sds.default.update_rejected", 1)
    client = Client(one.port())
    assert client.get()[0].startswith(b"HTTP/1.1 200")
    client.close()


PREVIOUS = "By=spiffe://a;Hash=11;URI=spiffe://prev"


def digest_of(name):
    pem = (certs.usual() / f"{name}.pem").read_text()
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN"):])).hexdigest()


@pytest.mark.parametrize("mode", ["SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET",
                                  "ALWAYS_FORWARD_ONLY"])
@pytest.mark.parametrize("cert", [None, "client"])
def test_forwarded_client_cert(rig, mode, cert):
    details = {"subject": True, "dns": True, "uri": True}
    one = rig({"listeners": {"main": {
        **listener(downstream(validation=roots())),
        "hcm": {"forward_client_cert_details": mode, "set_current_client_cert_details": details}}}})
    client = Client(one.port(), client_context(cert))
    client.get(headers=f"x-forwarded-client-cert: {PREVIOUS}\r\n")
    client.close()
    lines = [line for line in one.up.take_seen()[0].raw.decode().split("\r\n")
             if line.startswith("x-forwarded-client-cert: ")]
    own_part = (f"By=spiffe://td/ns/x/sa/srv;Hash={digest_of('client')};"
                r'Subject="OU=a\"b,O=Client\, Inc,CN=client.test";URI=spiffe://td/ns/x/sa/cli;'
                "DNS=client.test;DNS=alt.test")
    wanted = {"SANITIZE": None, "FORWARD_ONLY": PREVIOUS,
              "APPEND_FORWARD": f"{PREVIOUS},{own_part}", "SANITIZE_SET": own_part,
              "ALWAYS_FORWARD_ONLY": PREVIOUS}[mode]
    if cert is None and mode != "ALWAYS_FORWARD_ONLY":
        wanted = None
    assert lines == ([f"x-forwarded-client-cert: {wanted}"] if wanted else [])


def encoded_pem(name):
    pem = (certs.usual() / f"{name}.pem").read_text()
    pem = pem[pem.index("-----BEGIN"):]
    for plain, code in (("+", "%2B"), ("/", "%2F"), ("=", "%3D"), (" ", "%20"), ("\n", "%0A")):
        pem = pem.replace(plain, code)
    return pem


def test_forwarded_client_cert_with_its_chain(rig):
    one = rig({"listeners": {"main": {
        **listener(downstream(validation=roots())),
        "hcm": {"forward_client_cert_details": "SANITIZE_SET",
                "set_current_client_cert_details": {"cert": True, "chain": True}}}}})
    client = Client(one.port())
    client.get()
    client.close()
    seen = one.up.take_seen()[0].raw.decode()
    mine = encoded_pem("client")  # Python sends the root too
    assert f';Cert="{mine}";Chain="{mine}{encoded_pem("ca")}"\r\n' in seen


def xfcc_of(one):
    return [line for line in one.up.take_seen()[0].raw.decode().split("\r\n")
            if line.startswith("x-forwarded-client-cert: ")]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("stateless", [True, False])
def test_who_resumes_is_who_was_let_in(rig, version, stateless):
    """A ticket says who the peer is, at a worker that has not met it too; clients without a certificate stay without."""
    details = {"subject": True, "dns": True, "uri": True, "cert": True, "chain": True}
    one = rig({"listeners": {"main": {
        **listener(downstream(validation=roots(), disable_stateless_session_resumption=not stateless)),
        "hcm": {"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": details}}}},
        concurrency=2 if stateless else 1)
    resumed = stateless or version == ssl.TLSVersion.TLSv1_2  # TLS 1.3 knows only tickets
    for cert in ("client", None):
        context = client_context(cert, version=version)
        first = Client(one.port(), context)
        first.get()
        session = first.sock.session
        first.close()
        [known] = xfcc_of(one) or [None]
        assert (known is None) == (cert is None)
        for _ in range(6):
            client = Client(one.port(), context, session=session)
            client.get()
            assert client.sock.session_reused == resumed
            # TLS 1.3 wants a ticket to be used once, so that each connection brings the next
            if resumed:
                assert (client.sock.session.id != session.id) == (version == ssl.TLSVersion.TLSv1_3)
                session = client.sock.session
            client.close()
            assert xfcc_of(one) == ([known] if known else [])
    stats = one.proxy.stats(r"ssl\.(handshake|session_reused|no_certificate)$")
    assert {k.rpartition(".")[2]: v for k, v in stats.items()} == {"handshake": 14, "session_reused": 12 if resumed else 0, "no_certificate": 7}


def test_a_ticket_is_renewed_at_its_first_use(mutual):
    """Who goes on with the old one is let in, and gets no more of them."""
    context = client_context(version=ssl.TLSVersion.TLSv1_3)
    first = Client(mutual.port(), context)
    first.get()
    session = first.sock.session
    first.close()
    for renewed in (True, False, False):
        client = Client(mutual.port(), context, session=session)
        client.get()
        assert client.sock.session_reused
        assert (client.sock.session.id != session.id) == renewed
        client.close()


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_upstreams_are_known_when_resumed(rig, version):
    one = rig({
        "listeners": {"main": {"routes": ["/ -> tls"], "log": {
                          "uri": "%UPSTREAM_PEER_URI_SAN%", "subject": "%UPSTREAM_PEER_SUBJECT%"}},
                      "back": {"routes": ["/ -> up"], "log": "none", **listener(
                          downstream(validation=roots(), require_client_certificate=True,
                                     common={"tls_params": {"tls_maximum_protocol_version": version}}))}},
        "clusters": {"up": {}, "tls": {"endpoints": ["back"], "max_requests_per_connection": 1,
                                       "transport_socket": upstream(validation=roots(), common={
                                           "tls_params": {"tls_maximum_protocol_version": version}})}}})
    for _ in range(4):
        assert b"HTTP/1.1 200" in one.get("/").received
    path = one.proxy.dir / "access.log"
    wait_until(lambda: path.exists() and len(path.read_text().splitlines()) == 4, "four lines")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {(line["uri"], line["subject"]) for line in lines} == {("spiffe://td/ns/x/sa/srv", "CN=server,O=Tests")}
    assert one.proxy.stats(r"cluster\.tls\.ssl\.session_reused")["cluster.tls.ssl.session_reused"] == 3


def test_names_come_from_the_request(rig):
    """auto_sni and auto_san_validation: each host is checked for itself."""
    auto = {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "upstream_http_protocol_options": {"auto_sni": True, "auto_san_validation": True},
        "common_http_protocol_options": {"idle_timeout": "0.5s"},
        "explicit_http_config": {"http_protocol_options": {}}}}}
    one = rig({
        "listeners": {"main": {"routes": ["/auto -> auto"]},
                      "back": {"routes": ["/ -> up"], **listener(downstream())}},
        "clusters": {"up": {},
                     "auto": {"endpoints": ["back"], "transport_socket": upstream(None, validation=roots()), **auto}}})

    def status(host):
        conn = one.connect()
        conn.send(f"GET /auto HTTP/1.1\r\nhost: {host}\r\n\r\n".encode(), ["GET"])
        assert conn.wait_responses(1)
        return conn.received.split()[1]

    assert status("server.test") == b"200"
    assert status("server.test:8443") == b"200"
    assert status("other.test") == b"503"
    assert status("server.test") == b"200"


def test_certs_are_shown_and_keys_are_not(rig):
    folder = certs.usual()
    key = (folder / "server.key").read_text()
    one = rig({"listeners": {"main": listener(
        {"name": "tls", "typed_config": {
            "@type": TLS + "DownstreamTlsContext",
            "common_tls_context": {"tls_certificates": [{
                "certificate_chain": {"filename": f"{folder}/server.pem"},
                "private_key": {"inline_string": key}}],
                "validation_context": roots()}}})}})
    before = datetime.datetime.utcnow()
    page = json.loads(one.proxy.admin("/certs")[1])
    after = datetime.datetime.utcnow()
    entry = page["certificates"][0]
    assert [c["path"] for c in entry["ca_cert"]] == [f"{folder}/ca.pem"]
    assert entry["cert_chain"][0]["serial_number"] == "1001"
    end = entry["cert_chain"][0]["expiration_time"]
    assert end == "2049-12-31T23:59:59Z"
    left = {str((datetime.datetime.fromisoformat(end[:-1]) - now).days) for now in (before, after)}
    assert entry["cert_chain"][0]["days_until_expiration"] in left
    assert {"uri": "spiffe://td/ns/x/sa/srv"} in entry["cert_chain"][0]["subject_alt_names"]
    dump = one.proxy.admin("/config_dump")[1].decode()
    assert "[redacted]" in dump
    assert not any(line in dump for line in key.split("\n")[1:-2])
