# SPDX-License-Identifier: Apache-2.0
"""Hosts that leave their cluster while somebody still thinks of them."""

import json
import socket
import struct
import threading


class Dns:
    """Answers every question of type A with `address`, valid for no time."""

    def __init__(self, address):
        self.address = address
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.number = self.sock.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        try:
            while True:
                question, peer = self.sock.recvfrom(4096)
                end = question.index(b"\0", 12) + 5
                answer = b"\xc0\x0c\0\1\0\1" + struct.pack("!IH", 0, 4) + socket.inet_aton(self.address)
                head = question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
                self.sock.sendto(head + question[12:end] + answer, peer)
        except OSError:
            pass

    def close(self):
        self.sock.close()


def resolved_by(dns):
    """A cluster whose one host is where `dns` says, asked again and again."""
    return {"type": "STRICT_DNS", "dns_refresh_rate": "0.01s", "dns_lookup_family": "V4_ONLY",
            "endpoints": [{"upstream": "up", "address": "host.test"}],
            "typed_dns_resolver_config": {
                "name": "envoy.network.dns_resolver.cares",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                    "resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": dns.number}}]}}}


def test_host_goes_before_its_retry(rig):
    """The log names the host of the failed attempt, which is gone from the cluster."""
    dns = Dns("127.0.0.1")
    try:
        one = rig({"clusters": {"up": resolved_by(dns)},
                   "listeners": {"main": {"routes": [{"match": "/", "route": {
                       "cluster": "up", "timeout": "60s",
                       "retry_policy": {"retry_on": "5xx", "num_retries": 1,
                                        "retry_back_off": {"base_interval": "3600s", "max_interval": "3600s"}}}}]}}})
        one.proxy.wait_stat("cluster.up.membership_total", 1)
        one.up.expect(["s503"])
        conn = one.connect()
        conn.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        one.proxy.wait_stat("cluster.up.upstream_rq_retry", 1)
        dns.address = "127.0.0.2"
        one.proxy.wait_stat("cluster.up.membership_change", 2)
        one.proxy.wait_stat("cluster.up.upstream_cx_active", 0)
        conn.reset()
        log = one.proxy.dir / "access.log"
        one.proxy.wait_for("the log line", lambda: log.exists() and log.read_text().endswith("\n"))
        assert json.loads(log.read_text())["host"] == f"127.0.0.1:{one.up.number}"
    finally:
        dns.close()
