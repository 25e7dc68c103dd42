# SPDX-License-Identifier: Apache-2.0
"""What old and new connections see while a listener changes, moves or goes, from one state to the next.
Each test passes with the real Envoy too."""

import pytest

from tests.harness import Connection, Proxy
from tests.harness.h2_client import H2
from tests.harness.ports import Port
from tests.replay.control_plane import bootstrap, listener
from tests.replay.test_listeners import Listeners, direct

HERE, THERE = "127.0.0.1", "127.0.0.2"  # whom the two chains are for, by their own addresses
FIRST_GOAWAY = (2**31 - 1, 0)
LONGER = 20  # as many more answers that have to be the same


def two_chains(port, text, drain_timeout, **more):
    """A listener whose first chain answers with the text, the second with "B"; who was told that the
    connection will be closed has so long to go."""
    chains = []
    for name, body, source in (("a", text, HERE), ("b", "B", THERE)):
        chain = listener("l1", port, inline=direct(body))["filter_chains"][0]
        chain["filters"][0]["typed_config"]["drain_timeout"] = drain_timeout
        chains.append({**chain, "name": name, "filter_chain_match": {
            "source_prefix_ranges": [{"address_prefix": source, "prefix_len": 32}]}})
    return {**listener("l1", port), "filter_chains": chains, **more}


class Change:
    """A kind of change of the listener, and what it has to lead to."""

    def __init__(self, gauge, after, moves=False, spares=False, **more):
        self.gauge = "listener_manager." + gauge  # 1 while something drains
        self.after = after    # what new connections to the old port come to
        self.moves = moves
        self.spares = spares  # the chain that did not change
        self.more = more

    def send(self, story):
        if self.after == "refused" and not self.moves:
            return story.script.send(removed=["l1"])
        port = story.moved if self.moves else story.port
        return story.script.send(two_chains(port, "A2", story.drain_timeout, **self.more))


CHANGES = {
    "a chain": Change("total_filter_chains_draining", "A2", spares=True),
    "the listener": Change("total_listeners_draining", "A2", per_connection_buffer_limit_bytes=40000),
    "its address": Change("total_listeners_draining", "refused", moves=True),
    "all of it": Change("total_listeners_draining", "refused"),
}


def ask(conn):
    """What a connection gets for a request: the text, with " close" where that is announced, or how it ended."""
    at = len(conn.received)
    conn.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    if not conn.wait_responses(conn.done + 1):
        assert conn.state != "open", "no answer"
        return "ended"
    head, _, body = conn.received[at:].partition(b"\r\n\r\n")
    return body.decode() + (" close" if b"\r\nconnection: close" in head else "")


def once(port):
    """What a new connection comes to."""
    conn = Connection(port)
    got = conn.state if conn.state == "refused" else ask(conn)
    conn.close()
    return got


class Story:
    """A proxy with the listener, a connection to each chain, and what they saw: each state once in a row."""

    def __init__(self, proxy, script, drain_timeout, port, moved):
        self.proxy, self.script, self.port, self.moved = proxy, script, port, moved
        self.drain_timeout = drain_timeout
        self.old, self.other = Connection(port), Connection(port, source=THERE)
        self.seen = {"old": [], "other": [], "new": []}

    def look(self):
        """One more request of each; true, so that it can be part of a condition."""
        for who, got in (("old", ask(self.old)), ("other", ask(self.other)), ("new", once(self.port))):
            if self.seen[who][-1:] != [got] and not (who == "new" and got == "ended"):
                self.seen[who].append(got)  # a new one may have been in the queue of a socket that went
        return True

    def until(self, what, test):
        self.proxy.wait_for(what, lambda: self.look() and test(self.seen))

    def change(self, change):
        self.look()
        self.script.plane.answer(change.send(self))
        self.until("the change", lambda seen: seen["new"][-1] == change.after)


@pytest.fixture
def story(binary, plane, delta):
    """story(drain_s, strategy): the proxy serves two_chains with the text A1. Nobody has to go before the
    time for draining is over unless drain_timeout says so."""
    ports, proxies = [Port(), Port()], []

    def begin(drain_s, strategy, drain_timeout="600s"):
        proxy = Proxy(binary, lambda _: bootstrap(plane.port, delta), start=False,
                      args=["--drain-time-s", str(drain_s), "--drain-strategy", strategy])
        proxies.append(proxy)
        proxy.start()
        proxy.wait_admin()
        script = Listeners(plane, delta)
        plane.answer(script.begin(two_chains(ports[0].number, "A1", drain_timeout)))
        proxy.wait_ready()
        proxy.wait_for("the port", lambda: once(ports[0].number) == "A1")
        return Story(proxy, script, drain_timeout, *(port.number for port in ports))

    yield begin
    for proxy in proxies:
        proxy.stop()
    for port in ports:
        port.release()


@pytest.mark.parametrize("name", CHANGES)
def test_who_is_drained_at_once_is_told_so_by_each_answer(story, name):
    one, change = story(600, "immediate"), CHANGES[name]
    one.change(change)
    one.until("the announcement", lambda seen: seen["old"][-1] == "A1 close")
    for _ in range(LONGER):
        one.look()
    assert one.seen == {"old": ["A1", "A1 close"], "other": ["B"] if change.spares else ["B", "B close"],
                        "new": ["A1", change.after]}
    one.proxy.wait_stat(change.gauge, 1)
    if change.moves:
        assert once(one.moved) == "A2"


@pytest.mark.parametrize("name", CHANGES)
def test_who_is_drained_by_and_by_is_told_so_ever_more_often(story, name):
    one, change = story(60, "gradual"), CHANGES[name]
    one.change(change)
    one.until("an announcement", lambda seen: "A1 close" in seen["old"] and (
        change.spares or "B close" in seen["other"]))
    assert one.seen["old"][:2] == ["A1", "A1 close"], "not at once"
    assert set(one.seen["old"]) == {"A1", "A1 close"}
    assert set(one.seen["other"]) == ({"B"} if change.spares else {"B", "B close"})
    assert one.seen["new"] == ["A1", change.after]
    one.proxy.wait_stat(change.gauge, 1)


@pytest.mark.parametrize("strategy", ["immediate", "gradual"])
@pytest.mark.parametrize("name", CHANGES)
def test_who_is_drained_is_ended_when_the_time_is_over(story, name, strategy):
    one, change = story(1, strategy), CHANGES[name]
    one.change(change)
    one.until("the end", lambda seen: seen["old"][-1] == "ended" and (
        change.spares or seen["other"][-1] == "ended"))
    one.proxy.wait_stat(change.gauge, 0)
    one.look()
    assert one.seen["old"][0] == "A1" and set(one.seen["old"][1:-1]) <= {"A1", "A1 close"}
    if change.spares:
        assert one.seen["other"] == ["B"]
    if strategy == "immediate":
        assert one.seen["old"] in (["A1", "A1 close", "ended"], ["A1", "ended"])
    assert one.seen["new"] == ["A1", change.after]


def test_who_was_told_and_stays_is_ended_by_the_drain_timeout(story):
    one = story(600, "immediate", "0.2s")
    one.change(CHANGES["a chain"])
    one.until("the end", lambda seen: seen["old"][-1] == "ended")
    assert one.seen["old"] in (["A1", "A1 close", "ended"], ["A1", "ended"])
    assert one.seen["other"] == ["B"]
    one.proxy.wait_stat(CHANGES["a chain"].gauge, 1)


def test_http2_is_told_by_goaway(story):
    """The first keeps the connection open for what is under way, the second says where it ends."""
    one = story(600, "immediate", "2s")
    client = H2(Connection(one.port))
    client.get(1)
    assert client.wait_done(1)
    one.change(CHANGES["a chain"])
    asked = [1]

    def told():
        asked.append(asked[-1] + 2)
        client.get(asked[-1])
        return client.wait(lambda: client.streams[asked[-1]].done if asked[-1] in client.streams else False) \
            and client.goaways
    one.proxy.wait_for("the first GOAWAY", told)
    assert client.wait(lambda: len(client.goaways) == 2)
    assert client.goaways == [FIRST_GOAWAY, (asked[-1], 0)]
    assert {stream: (s.status, s.body, s.ended) for stream, s in client.streams.items()} == {
        stream: ("200", b"A1", True) for stream in asked}
    assert client.conn.wait_end() == "eof"
