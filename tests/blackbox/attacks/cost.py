# SPDX-License-Identifier: Apache-2.0
"""What peers cost: bytes that the proxy holds, by its own accounting, and CPU time of its worker, each beside
the bytes that came. An attack is compared with an honest client that has as many streams open, or sent as
many bytes: so neither the machine nor the build matters, and nothing is timed."""

import os

from tests.harness.h2_client import H2, raw_frame

# An attacker's byte costs at most four times that of an honest client whose requests are as small as they get.
CPU_RATIO = 4
MEMORY_RATIO = 4
# What a connection may hold whoever speaks on it: a read of 64 KiB, our answers of 64 KiB that wait to be sent,
# a head as large as is allowed, the tables of both directions.
CONNECTION_FLOOR = 256 * 1024
# And each stream: its state, an arena of 4 KiB, and as much again for what is sent to its upstream; fields that
# name each entry of the compression table of 4 KiB once, with 4 KiB to spare.
STREAM_FLOOR = 28 * 1024


def held(one):
    return one.proxy.stats(r"^kobune\.bytes_in_use$")["kobune.bytes_in_use"]


def received(one, name="main"):
    return one.proxy.stats(f"^http.{name}.downstream_cx_rx_bytes_total$")[f"http.{name}.downstream_cx_rx_bytes_total"]


def worker_cpu_ns(one):
    """CPU time of the worker's thread, which is the only one."""
    tasks = f"/proc/{one.proxy.process.pid}/task"
    for task in os.listdir(tasks):
        with open(f"{tasks}/{task}/comm", encoding="ascii") as name:
            if name.read().startswith("wrk:worker_0"):
                with open(f"{tasks}/{task}/schedstat", encoding="ascii") as text:
                    return int(text.read().split()[0])
    raise AssertionError("no worker")


def honest_cpu_per_byte(one, requests=200):
    """Of requests of some twenty bytes each that are answered at once."""
    client = H2(one.connect())
    client.get(1, "/direct")
    assert client.wait_done(1)
    block = client.block(client.request_fields("/direct"))
    data = b"".join(raw_frame(1, 5, 3 + 2 * n, block) for n in range(requests))
    before = worker_cpu_ns(one)
    client.send(data)
    assert client.wait_done(requests + 1)
    spent = worker_cpu_ns(one) - before
    client.conn.close()
    return spent / len(data)


class Meter:
    """Runs an attack in pieces, and looks at the proxy between them."""

    def __init__(self, one):
        self.one = one
        self.honest = honest_cpu_per_byte(one)
        one.proxy.wait_stat("http.main.downstream_cx_active", lambda n: n <= 1)  # the attacker's, perhaps
        self.before = held(one)
        self.first, self.cpu = received(one), worker_cpu_ns(one)
        self.peak = self.before

    def look(self):
        """Call it often, with what was sent understood, or not: the peak counts."""
        self.peak = max(self.peak, held(self.one))

    def check(self, connections=1, streams=0):
        self.look()
        came = received(self.one) - self.first
        memory = self.peak - self.before
        most = MEMORY_RATIO * came + connections * CONNECTION_FLOOR + streams * STREAM_FLOOR
        assert memory <= most, f"{memory} bytes are held for {came} that came, allowed are {most}"
        spent = (worker_cpu_ns(self.one) - self.cpu) / max(came, 1)
        # a few bytes are no measure: a connection costs what it costs
        assert came < 4000 or spent <= CPU_RATIO * self.honest, (
            f"{spent:.0f} ns of CPU for each of {came} bytes, {self.honest:.0f} for a byte of honest requests")
