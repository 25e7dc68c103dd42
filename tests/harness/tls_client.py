# SPDX-License-Identifier: Apache-2.0
"""A TLS client above the raw one: it says what it is told, in pieces as it is told, and tells what
became of the handshake.

    sni         the name to ask for (default server.test; null: none)
    alpn        protocols to offer
    version     "1.3", or [lowest, highest]
    ciphers     for TLS 1.2 and below, in OpenSSL's words
    curve       the only group to offer
    cert        a name of certs.py (default client; null: none)
    resume      the name under which an earlier connection kept its session
    keep        keep the session under this name
    tickets     false: ask for sessions without tickets
    before      bytes in front of the ClientHello
    pieces      how many bytes to send at a time while the handshake lasts
    cut         send only so many bytes of the ClientHello, and nothing more
"""

import json
import re
import ssl
import time

from . import certs
from .client import Connection
from .patience import DEADLINE_S

KEYS = {"sni", "alpn", "version", "ciphers", "curve", "cert", "resume", "keep", "tickets", "before",
        "pieces", "cut"}
VERSIONS = {"1.0": ssl.TLSVersion.TLSv1, "1.1": ssl.TLSVersion.TLSv1_1,
            "1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Contexts:
    """The contexts and sessions of one run: sessions can be resumed in the context that made them."""

    def __init__(self):
        self.made = {}
        self.sessions = {}

    def get(self, spec):
        parts = {k: spec.get(k) for k in ("alpn", "version", "ciphers", "curve", "tickets")}
        parts["cert"] = spec.get("cert", "client")
        key = json.dumps(parts, sort_keys=True)
        if key not in self.made:
            self.made[key] = context(**parts)
        return self.made[key]


def context(alpn, version, ciphers, curve, tickets, cert):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    lowest, highest = version if isinstance(version, list) else (version or "1.2", version or "1.3")
    if ciphers or lowest < "1.2":
        made.set_ciphers(ciphers or "DEFAULT:@SECLEVEL=0")
    made.minimum_version, made.maximum_version = VERSIONS[lowest], VERSIONS[highest]
    if alpn:
        made.set_alpn_protocols(alpn)
    if curve:
        made.set_ecdh_curve(curve)
    if tickets is False:
        made.options |= ssl.OP_NO_TICKET
    if cert:
        made.load_cert_chain(f"{certs.usual()}/{cert}.pem", f"{certs.usual()}/{cert}.key")
    return made


def alert_of(error):
    """The name of the alert that the peer sent, or None when the error is ours."""
    match = re.match(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?(\w+)$", error.reason or "")
    return match.group(1).lower() if match else None


class TlsConnection(Connection):
    """`received` is what came decrypted; `tls` tells of the handshake and of the end."""

    def __init__(self, port, spec, contexts, **where):
        super().__init__(port, **where)
        unknown = set(spec) - KEYS
        assert not unknown, f"unknown keys of tls: {sorted(unknown)}; known: {sorted(KEYS)}"
        self.spec = spec
        self.contexts = contexts
        self.tls = {}
        self.begun = False
        self.established = False
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = contexts.get(spec).wrap_bio(
            self.incoming, self.outgoing, server_hostname=spec.get("sni", "server.test"),
            session=contexts.sessions[spec["resume"]] if "resume" in spec else None)

    def handshake(self, deadline=DEADLINE_S):
        """To its end, or to the peer's. TLS 1.3: ours; the server may still refuse us."""
        if self.begun:
            return
        self.begun = True
        end = time.monotonic() + deadline
        first = self.spec.get("before", "").encode("latin-1")
        while self.state == "open" and "error" not in self.tls and "alert" not in self.tls:
            done = self._try(self.object.do_handshake)
            data = first + self.outgoing.read()
            first = b""
            self._send_pieces(data)
            if done or "cut" in self.spec:
                self.established = done
                break
            if not self._raw(end - time.monotonic()) and time.monotonic() >= end:
                break
        if self.established:
            self._note()

    def _try(self, action):
        try:
            action()
            return True
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            name = alert_of(error)
            self.tls["alert" if name else "error"] = name or error.reason or str(error)
            return False

    def _note(self):
        alpn, cert = self.object.selected_alpn_protocol(), self.object.getpeercert(True)
        self.tls.update(version=self.object.version(), cipher=self.object.cipher()[0])
        if alpn:
            self.tls["alpn"] = alpn
        if cert:
            self.tls["cert"] = certs.name_of(cert)
        if self.object.session_reused:
            self.tls["reused"] = True

    def _send_pieces(self, data):
        if "cut" in self.spec:
            data = data[:self.spec["cut"]]
        size = self.spec.get("pieces") or len(data) or 1
        for at in range(0, len(data), size):
            self._send_raw(data[at:at + size])

    def _send_raw(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            self._collect(0)
            if self.state == "open":
                self.state = "rst"

    def send(self, data, methods=()):
        self.handshake()
        if not self.established or self.state != "open":
            return
        self.methods += methods
        self.object.write(data)
        self._send_raw(self.outgoing.read())

    def _raw(self, timeout):
        """Take what comes from the wire; False when nothing did."""
        got = Connection._collect(self, timeout)
        if self.arrived:
            self.incoming.write(self.arrived)
            self.arrived = b""
        if self.state != "open":
            self.incoming.write_eof()
        return got

    def _take(self, data):
        self.arrived += data

    arrived = b""

    def _collect(self, timeout):
        self.handshake()
        got = self._raw(timeout)
        if self.established:
            self._decrypt()
        return got

    def _decrypt(self):
        while True:
            try:
                data = self.object.read(262144)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                self.tls["end"] = "close_notify"
                return
            except ssl.SSLError as error:
                if alert_of(error):
                    self.tls["alert"] = alert_of(error)
                elif not isinstance(error, ssl.SSLEOFError):
                    self.tls["error"] = error.reason or str(error)
                return
            if not data:
                return
            self.received += data

    def half_close(self):
        """The end of our TLS, a close_notify; before there is TLS, that of the connection."""
        if not self.established:
            super().half_close()
            return
        self._try(self.object.unwrap)
        self._send_raw(self.outgoing.read())

    def keep(self):
        """What a later connection may resume."""
        if "keep" in self.spec and self.established:
            self.contexts.sessions[self.spec["keep"]] = self.object.session

    def close(self):
        self.keep()
        super().close()
