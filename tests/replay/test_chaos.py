# SPDX-License-Identifier: Apache-2.0
"""A control plane that does anything, against a model of what must serve: always the last good
configuration. KB_CHAOS_STEPS and KB_CHAOS_SEED make it longer and another."""

import os
import random
import threading

import grpc
import pytest
from google.protobuf import any_pb2

from tests.harness.ports import Port
from tests.replay.control_plane import endpoints, listener, resource, static_cluster
from tests.replay.test_listeners import Listeners, direct, get
from tests.replay.test_subscriptions import names

STEPS = int(os.environ.get("KB_CHAOS_STEPS", "150"))
SEED = int(os.environ.get("KB_CHAOS_SEED", "1"))
POOL = [f"c{i}" for i in range(12)]


class Chaos:
    """Draws what to do, does it, and says what has to serve afterwards."""

    def __init__(self, plane, delta, seed):
        self.plane, self.delta = plane, delta
        self.random = random.Random(seed)
        self.model = {}  # name -> port: what serves
        self.version = 0

    def send(self, added, removed=()):
        """Clusters as (name, port or None for a bad one); returns the nonce."""
        self.version += 1
        built = [static_cluster(name, port or 1, address="127.0.0.1" if port else "nowhere")
                 for name, port in added]
        if self.delta:
            return self.plane.send_delta(
                "CDS", [(c["name"], f"v{self.version}", c) for c in built], removed,
                version=str(self.version))
        kept = [static_cluster(name, port) for name, port in self.model.items()
                if name not in removed and name not in {a[0] for a in added}]
        return self.plane.send("CDS", str(self.version), *kept, *built)

    def good(self):
        added = [(name, self.random.randrange(1, 60000)) for name in self.some(4)]
        removed = [name for name in self.some(3) if name not in dict(added)]
        nonce = self.send(added, removed)
        for name in removed:
            self.model.pop(name, None)
        self.model.update(added)
        return nonce, False

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

    def some(self, most):
        return self.random.sample(POOL, self.random.randrange(0, most + 1))

    def step(self):
        return self.random.choices([self.good, self.partly_bad, self.foreign, self.malformed,
                                    self.unasked, self.cut], [8, 4, 2, 2, 1, 1])[0]()


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
        assert ports(proxy) == chaos.model, (SEED, step)
        assert names(proxy) == set(chaos.model), (SEED, step)
    assert proxy.admin("/ready") == (200, b"LIVE\n")


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
            if answer in ((200, "a"), (200, "b")):
                self.answers += 1
            else:
                self.wrong.append(answer)


def test_no_request_is_lost_while_everything_changes(plane, under, delta):
    proxy = under(delta)
    draw = random.Random(SEED)
    held = Port()
    script = Listeners(plane, delta)
    script.begin(listener("l1", held.number, rds="r1"))
    plane.wait(lambda r: r.type == "RDS")
    plane.answer(script.routes({**direct("a"), "name": "r1"}))
    proxy.wait_ready()
    proxy.wait_for("the port", lambda: get(held.number) == (200, "a"))
    client = Client(held.number)
    client.start()
    for _ in range(STEPS // 3):
        step = draw.choice(["routes", "listener", "bad routes", "bad listener", "cut"])
        if step == "routes":
            assert not plane.answer(script.routes({**direct(draw.choice("ab")), "name": "r1"})).error
        elif step == "listener":
            limit = draw.randrange(1000, 100000)
            assert not plane.answer(script.send(listener(
                "l1", held.number, rds="r1", per_connection_buffer_limit_bytes=limit))).error
        elif step == "bad routes":
            assert plane.answer(script.routes({"name": "r1", "virtual_hosts": [
                {"name": "v", "domains": ["*", "*"]}]})).error
        elif step == "bad listener":
            kept = dict(script.there)
            assert plane.answer(script.send({**listener("l1", held.number), "filter_chains": [
                {"filters": [{"name": "nope"}]}]})).error
            script.there = kept
        else:
            streams = plane.streams
            plane.cut()
            plane.wait_streams(streams + 1)
            plane.wait(lambda r: r.stream == streams + 1 and r.type == "RDS")
    client.over.set()
    client.join()
    held.release()
    assert client.wrong == []
    assert client.answers > 0
