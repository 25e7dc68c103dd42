# SPDX-License-Identifier: Apache-2.0
"""The start waits for the first answer of DNS, as Envoy's does."""

import json
import socket
import threading

import pytest

from tests.harness import Layout, Proxy, bootstrap
from tests.harness.patience import DEADLINE_S

RESOLVER = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3."


class SlowDns:
    """Answers every query with NXDOMAIN, once it is let."""

    def __init__(self):
        self.asked = threading.Event()
        self.let = threading.Event()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            query, peer = self.sock.recvfrom(4096)
            self.asked.set()
            self.let.wait()
            self.sock.sendto(query[:2] + b"\x81\x83" + query[4:6] + bytes(6) + query[12:], peer)


def config(dns_port):
    resolver = {"name": "envoy.network.dns_resolver.cares", "typed_config": {
        "@type": RESOLVER + "CaresDnsResolverConfig",
        "resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": dns_port}}],
        "dns_resolver_options": {"no_default_search_domain": True}}}
    return bootstrap({
        "clusters": {"named": {"type": "STRICT_DNS", "dns_lookup_family": "V4_ONLY",
                               "typed_dns_resolver_config": resolver,
                               "endpoints": [{"upstream": "up", "address": "wait.test"}]}},
        "listeners": {"main": {"routes": [{"match": "/", "direct": [200, "d"]}]}}})


def test_nobody_is_served_before_dns_has_answered(binary):
    dns = SlowDns()
    layout = Layout(config(dns.port))
    proxy = Proxy(binary, lambda scratch: layout.resolved(log=str(scratch / "access.log"),
                                                          dir=str(scratch)), start=False)
    try:
        proxy.start()
        proxy.wait_admin()
        assert dns.asked.wait(DEADLINE_S)
        assert proxy.admin("/ready") == (503, b"PRE_INITIALIZING\n")
        assert json.loads(proxy.admin("/server_info")[1])["state"] == "PRE_INITIALIZING"
        assert proxy.stats("listeners_active|workers_started") == {
            "listener_manager.total_listeners_active": 1, "listener_manager.workers_started": 0}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", layout.numbers["main"]), 10)
        dns.let.set()
        proxy.wait_ready()
        socket.create_connection(("127.0.0.1", layout.numbers["main"]), 10).close()
        proxy.stop()
    finally:
        proxy.kill()
        layout.stop()
