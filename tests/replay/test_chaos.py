# SPDX-License-Identifier: Apache-2.0
"""A control plane that does anything, against a model of what must serve: always the last good
configuration, and no request that is lost. KB_CHAOS_STEPS and KB_CHAOS_SEED make it longer and another."""

import os
import random
import threading

import grpc
import pytest
from google.protobuf import any_pb2

from tests.harness.ports import Port
from tests.harness.upstream import Upstream
from tests.replay.control_plane import (cluster, endpoints, listener, resource, routes,
                                        static_cluster)
from tests.replay.test_listeners import Listeners, direct, get
from tests.replay.test_subscriptions import names

STEPS = int(os.environ.get("KB_CHAOS_STEPS", "150"))
SEED = int(os.environ.get("KB_CHAOS_SEED", "1"))
POOL = [f"c{i}" for i in range(12)]
EDS_POOL = [f"e{i}" for i in range(4)]  # those that have their endpoints apart
HUGE = 700  # clusters of a huge push
HUGE_BYTES = 3 << 20  # of one resource in it


class Chaos:
    """Draws what to do, does it, and says what has to serve afterwards."""

    def __init__(self, plane, delta, seed):
        self.plane, self.delta = plane, delta
        self.random = random.Random(seed)
        self.model = {}  # name -> port: what serves
        self.limits = {}  # of those with endpoints apart: what makes a changed cluster another
        self.version = 0

    def built(self, name, port):
        if name in self.limits:
            return cluster(name, per_connection_buffer_limit_bytes=self.limits[name])
        return static_cluster(name, port or 1, address="127.0.0.1" if port else "nowhere")

    def send(self, added, removed=(), nonce=None, more=()):
        """Clusters as (name, port or None for a bad one); returns the nonce."""
        self.version += 1
        built = [self.built(name, port) for name, port in added] + list(more)
        if self.delta:
            return self.plane.send_delta(
                "CDS", [(c["name"], f"v{self.version}", c) for c in built], removed,
                version=str(self.version), nonce=nonce)
        kept = [self.built(name, port) for name, port in self.model.items()
                if name not in removed and name not in {c["name"] for c in built}]
        return self.plane.send("CDS", str(self.version), *kept, *built, nonce=nonce)

    def send_endpoints(self, changed, bad=None):
        """Endpoints as {name: port}; state of the world: all."""
        self.version += 1
        told = [endpoints(name, port) for name, port in changed.items()]
        if bad:
            told.append(endpoints(bad, 1, address="nowhere"))
        if self.delta:
            return self.plane.send_delta(
                "EDS", [(e["cluster_name"], f"v{self.version}", e) for e in told])
        there = {e["cluster_name"] for e in told}
        told += [endpoints(name, port) for name, port in self.model.items()
                 if name in self.limits and name not in there]
        return self.plane.send("EDS", str(self.version), *told)

    def some_ports(self, names):
        return {name: self.random.randrange(1, 60000) for name in names}

    def good(self):
        added = self.some_ports(self.some(4))
        removed = [name for name in self.some(3) if name not in added]
        nonce = self.send(added.items(), removed)
        self.took(added, removed)
        return nonce, False

    def took(self, added, removed):
        for name in removed:
            self.model.pop(name, None)
            self.limits.pop(name, None)
        self.model.update(added)

    def apart(self):
        """Clusters that come, change or go, whose endpoints come behind them."""
        added = self.some_ports(self.some(3, EDS_POOL))
        removed = [name for name in self.some(2, EDS_POOL) if name not in added]
        for name in added:
            self.limits[name] = self.random.randrange(1000, 100000)
        nonce = self.send(added.items(), removed)
        self.took(added, removed)
        if added:
            self.send_endpoints(added)
        return nonce, False

    def other_endpoints(self):
        names = [name for name in self.limits if self.random.random() < 0.5]
        if not names:
            return None, False
        changed = self.some_ports(names)
        nonce = self.send_endpoints(changed)
        self.model.update(changed)
        return nonce, False

    def bad_endpoints(self):
        if not self.limits:
            return None, False
        return self.send_endpoints({}, bad=self.random.choice(sorted(self.limits))), True

    def wrong_nonce(self):
        """A nonce that was there before, or none: it is taken and answered all the same."""
        added = self.some_ports(self.some(2))
        nonce = self.random.choice(["", "n1", "again"])
        start = len(self.plane.requests)
        self.send(added.items(), nonce=nonce)
        self.took(added, ())
        at = self.plane.find(lambda r: r.type == "CDS" and r.nonce == nonce, "the answer", start)
        assert self.plane.requests[at].error == ""
        return None, False

    def huge(self):
        """Hundreds of clusters and one of megabytes come, and go again."""
        many = [static_cluster(f"huge{i}", 1) for i in range(HUGE)]
        many[0]["metadata"] = {"filter_metadata": {"x": {"text": "x" * HUGE_BYTES}}}
        answer = self.plane.answer(self.send((), more=many))
        assert answer.error == ""
        return self.send((), [c["name"] for c in many]), False

    def partly_bad(self):
        """The good ones are taken, the bad one stays as it was."""
        good = [(name, self.random.randrange(1, 60000)) for name in self.some(3)]
        bad = self.random.choice(POOL)
        good = [(name, port) for name, port in good if name != bad]
        nonce = self.send([*good, (bad, None)])
        self.model.update(good)
        return nonce, True

    def foreign(self):
        """A resource of another type: the whole response is refused."""
        fields = endpoints("x", 1)
        packed = resource("EDS", fields)
        self.version += 1
        if self.delta:
            return self.plane.send_delta("CDS", [("x", "v", packed)]), True
        return self.plane.send("CDS", str(self.version), packed), True

    def malformed(self):
        """Bytes that are no cluster."""
        packed = any_pb2.Any(type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster",
                             value=self.random.randbytes(self.random.randrange(1, 200)) + b"\xff")
        self.version += 1
        if self.delta:
            return self.plane.send_delta("CDS", [("x", "v", packed)]), True
        return self.plane.send("CDS", str(self.version), packed), True

    def unasked(self):
        """Types that nobody asked for: no answer, no harm."""
        if self.delta:
            self.plane.send_delta("RDS")
        else:
            self.plane.send("RDS", "1")
        return None, False

    def cut(self):
        streams = self.plane.streams
        self.plane.cut()
        self.plane.wait_streams(streams + 1)
        first = self.plane.wait(lambda r: r.stream == streams + 1 and r.type == "CDS")
        assert first.node == "node-1"
        return None, False

    def some(self, most, pool=POOL):
        return self.random.sample(pool, self.random.randrange(0, most + 1))

    def step(self):
        return self.random.choices(
            [self.good, self.apart, self.other_endpoints, self.bad_endpoints, self.partly_bad,
             self.foreign, self.malformed, self.unasked, self.wrong_nonce, self.cut, self.huge],
            [60, 40, 20, 10, 40, 20, 20, 10, 15, 10, 1])[0]()


def ports(proxy):
    found = {}
    for line in proxy.admin("/clusters")[1].decode().splitlines():
        parts = line.split("::")
        if parts[0] != "xds" and len(parts) == 4 and parts[2] == "rq_total":
            found[parts[0]] = int(parts[1].rsplit(":", 1)[1])
    return found


def test_the_last_good_configuration_serves(plane, under, delta):
    proxy = under(delta, initial_fetch_timeout="30s")
    plane.wait(lambda r: r.type == "CDS")
    chaos = Chaos(plane, delta, SEED)
    chaos.send([])
    plane.wait(lambda r: r.type == "LDS")
    plane.answer(plane.send_delta("LDS") if delta else plane.send("LDS", "1"))
    proxy.wait_ready()
    for step in range(STEPS):
        before = dict(chaos.model)
        nonce, refused = chaos.step()
        if nonce is not None:
            try:
                answer = plane.answer(nonce)
            except (AssertionError, grpc.RpcError) as error:
                pytest.fail(f"seed {SEED}, step {step}, from {before} to {chaos.model}: {error}")
            assert bool(answer.error) == refused, (SEED, step, answer)
        try:
            proxy.wait_for("what has to serve", lambda: ports(proxy) == chaos.model)
        except AssertionError as error:
            pytest.fail(f"seed {SEED}, step {step}: {error}: {ports(proxy)}, not {chaos.model}")
        assert names(proxy) == set(chaos.model), (SEED, step)
    assert proxy.admin("/ready") == (200, b"LIVE\n")


GOOD = ((200, "a"), (200, "b"), (200, "ok\n"))


class Client(threading.Thread):
    """Asks without end, each time on a connection of its own, and keeps what is not as it should be."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port
        self.over = threading.Event()
        self.answers = 0
        self.wrong = []

    def run(self):
        while not self.over.is_set():
            try:
                answer = get(self.port)
            except OSError as error:
                answer = error
            if answer in GOOD:
                self.answers += 1
            else:
                self.wrong.append(answer)


class Everything(Listeners):
    """What is done to a proxy that serves; requests to the upstream are answered some steps later, when
    their cluster is another one or gone."""

    def __init__(self, plane, delta, port, upstream):
        super().__init__(plane, delta)
        self.port, self.upstream = port, upstream
        self.draw = random.Random(SEED)
        self.to_upstream = False

    def begin_all(self):
        self.begin(listener("l1", self.port, rds="r1"))
        self.plane.wait(lambda r: r.type == "RDS")
        self.plane.answer(self.routes({**direct("a"), "name": "r1"}))

    def good(self, nonce):
        assert self.plane.answer(nonce).error == ""

    def other_routes(self):
        self.good(self.routes({**direct(self.draw.choice("ab")), "name": "r1"}))
        self.to_upstream = False

    def routes_to_upstream(self):
        self.cluster()
        self.good(self.routes(routes("r1", "u")))
        self.to_upstream = True

    def cluster(self):
        self.good(self.clusters(static_cluster(
            "u", self.upstream.number,
            per_connection_buffer_limit_bytes=self.draw.randrange(1000, 100000))))

    def no_cluster(self):
        if not self.to_upstream and "u" in self.present:
            self.good(self.clusters(removed=["u"]))

    def other_listener(self):
        self.good(self.send(listener(
            "l1", self.port, rds="r1",
            per_connection_buffer_limit_bytes=self.draw.randrange(1000, 100000))))

    def bad_routes(self):
        assert self.plane.answer(self.routes({"name": "r1", "virtual_hosts": [
            {"name": "v", "domains": ["*", "*"]}]})).error

    def bad_listener(self):
        kept = dict(self.there)
        assert self.plane.answer(self.send({**listener("l1", self.port), "filter_chains": [
            {"filters": [{"name": "nope"}]}]})).error
        self.there = kept

    def cut(self):
        streams = self.plane.streams
        self.plane.cut()
        self.plane.wait_streams(streams + 1)
        self.plane.wait(lambda r: r.stream == streams + 1 and r.type == "RDS")

    def step(self):
        self.draw.choice([self.other_routes, self.routes_to_upstream, self.cluster, self.no_cluster,
                          self.other_listener, self.bad_routes, self.bad_listener, self.cut])()
        self.upstream.release_one()


def test_no_request_is_lost_while_everything_changes(plane, under, delta):
    proxy = under(delta)
    held, upstream = Port(), Upstream("u")
    upstream.default = lambda head: "hold"
    script = Everything(plane, delta, held.number, upstream)
    script.begin_all()
    proxy.wait_ready()
    proxy.wait_for("the port", lambda: get(held.number) == (200, "a"))
    clients = [Client(held.number) for _ in range(3)]
    for client in clients:
        client.start()
    for _ in range(STEPS // 3):
        script.step()
    upstream.release()
    for client in clients:
        client.over.set()
    for client in clients:
        client.join()
    held.release()
    upstream.stop()
    assert [client.wrong for client in clients] == [[], [], []]
    assert all(client.answers > 0 for client in clients)
