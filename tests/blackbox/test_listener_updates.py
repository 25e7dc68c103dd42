# SPDX-License-Identifier: Apache-2.0
"""Listeners that change while they serve: which connections stay, which drain, what a mistake does."""

import json
import os
import re
import socket

import pytest

from tests.harness import Proxy
from tests.harness.patience import DEADLINE_S

TYPE = "type.googleapis.com/envoy."
HCM = TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = TYPE + "extensions.filters.http.router.v3.Router"
HERE, THERE = "127.0.0.1", "127.0.0.2"  # whom the two chains are for, by their own addresses


def chain(name, text, source):
    """A filter chain for clients of one address, which answers with a text."""
    routes = [{"match": {"prefix": "/"},
               "direct_response": {"status": 200, "body": {"inline_string": text}}}]
    hcm = {"@type": HCM, "stat_prefix": name,
           "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
           "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]}}
    return {"name": name,
            "filter_chain_match": {"source_prefix_ranges": [{"address_prefix": source, "prefix_len": 32}]},
            "filters": [{"name": "hcm", "typed_config": hcm}]}


def listener(a="A1", b="B1", name="l", port=0, **more):
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "address": address,
            "filter_chains": [chain("a", a, HERE), chain("b", b, THERE)], **more}


class Client:
    """A connection that is kept."""

    def __init__(self, port, source=HERE):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S, source_address=(source, 0))

    def ask(self):
        """The body of an answer; empty: the connection has ended."""
        try:
            self.sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            got = b""
            while b"\r\n\r\n" not in got:
                more = self.sock.recv(4096)
                if not more:
                    return ""
                got += more
        except OSError:
            return ""
        head, body = got.split(b"\r\n\r\n", 1)
        length = int(re.search(rb"content-length: (\d+)", head).group(1))
        while len(body) < length:
            body += self.sock.recv(4096)
        return body.decode()

    def ended(self):
        try:
            return self.sock.recv(4096) == b""
        except ConnectionResetError:
            return True


class Rig:
    def __init__(self, binary, drain_s, concurrency=2):
        self.version = 0
        self.proxy = Proxy(binary, self.bootstrap, start=False, concurrency=concurrency,
                           args=["--drain-time-s", str(drain_s)])

    def bootstrap(self, directory):
        self.file = directory / "lds.json"
        self.push(listener())
        return {"node": {"id": "n", "cluster": "c"},
                "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
                "dynamic_resources": {"lds_config": {"resource_api_version": "V3", "path_config_source": {
                    "path": str(self.file)}}}}

    def push(self, *listeners):
        """What the control plane has now, put in place as files have to be."""
        self.version += 1
        resources = [{"@type": TYPE + "config.listener.v3.Listener", **one} for one in listeners]
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps({"version_info": str(self.version), "resources": resources}))
        os.rename(new, self.file)

    def port(self, name="l"):
        lines = self.proxy.admin("/listeners")[1].decode().splitlines()
        return next(int(line.rsplit(":", 1)[1]) for line in lines if line.startswith(name + "::"))

    def wait_answer(self, text, port):
        """The workers have taken what the main thread counts as done."""
        self.proxy.wait_for(text, lambda: Client(port).ask() == text)

    def wait(self, **stats):
        for name, value in stats.items():
            self.proxy.wait_stat("listener_manager." + name, value)


@pytest.fixture
def start(binary):
    made = []

    def go(drain_s):
        rig = Rig(binary, drain_s)
        made.append(rig)
        rig.proxy.start()
        rig.proxy.wait_ready()
        return rig
    yield go
    for rig in made:
        rig.proxy.stop()


def test_unchanged_chains_keep_their_connections(start):
    rig = start(1)
    port = rig.port()
    old, kept = Client(port), Client(port, THERE)
    assert (old.ask(), kept.ask()) == ("A1", "B1")
    rig.push(listener(a="A2"))
    rig.wait(listener_in_place_updated=1, listener_modified=1)
    assert rig.port() == port
    rig.wait_answer("A2", port)
    new = Client(port)
    assert new.ask() == "A2"
    assert old.ended()
    rig.wait(total_filter_chains_draining=0)
    assert (new.ask(), kept.ask()) == ("A2", "B1")
    rig.wait(total_listeners_active=1, total_listeners_draining=0, total_listeners_warming=0)


def test_changed_chains_serve_while_they_drain(start):
    rig = start(600)
    port = rig.port()
    old = Client(port)
    assert old.ask() == "A1"
    rig.push(listener(a="A2"))
    rig.wait(listener_in_place_updated=1, total_filter_chains_draining=1)
    assert old.ask() == "A1"
    rig.push(listener(a="A3", b="B3"))
    rig.wait(listener_in_place_updated=2, total_filter_chains_draining=3)
    rig.wait_answer("A3", port)
    assert (old.ask(), Client(port).ask(), Client(port, THERE).ask()) == ("A1", "A3", "B3")


def test_another_listener_takes_over_the_sockets(start):
    rig = start(1)
    port = rig.port()
    old = Client(port)
    assert old.ask() == "A1"
    rig.push(listener(a="A2", per_connection_buffer_limit_bytes=4096))
    rig.wait(listener_modified=1, listener_in_place_updated=0)
    assert rig.port() == port
    rig.wait_answer("A2", port)
    assert Client(port).ask() == "A2"
    assert old.ended()
    rig.wait(total_listeners_draining=0)


def test_a_listener_goes(start):
    rig = start(1)
    port = rig.port()
    old = Client(port)
    assert old.ask() == "A1"
    rig.push()
    rig.wait(listener_removed=1, total_listeners_active=0)
    with pytest.raises(ConnectionRefusedError):
        for _ in range(1000):
            Client(port)
    assert old.ended()
    rig.wait(total_listeners_draining=0)
    rig.push(listener(a="A4"))
    rig.wait(listener_added=2)
    assert Client(rig.port()).ask() == "A4"


def test_what_is_wrong_changes_nothing(start):
    rig = start(600)
    port = rig.port()
    old = Client(port)
    wrong = listener(a="A2")
    wrong["filter_chains"].append(chain("c", "C", HERE))
    rig.push(wrong, listener(name="other", port=port, enable_reuse_port=False),
             listener(name="fine", b="B9"))
    rig.wait(listener_added=2)
    assert (old.ask(), Client(port).ask(), Client(rig.port("fine"), THERE).ask()) == ("A1", "A1", "B9")
    dump = rig.proxy.admin("/config_dump?resource=dynamic_listeners")[1].decode()
    assert "filter chain 'c' has the same matching rules defined as 'a'" in dump
    assert f"cannot bind '127.0.0.1:{port}': Address already in use" in dump


def test_what_is_there_is_left_alone(start):
    rig = start(600)
    rig.push(listener())
    rig.push(listener(), listener(name="m"))
    rig.wait(listener_added=2, listener_modified=0)
