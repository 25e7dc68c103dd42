# SPDX-License-Identifier: Apache-2.0
"""Load balancing by its outcome: shares and sequences that do not depend on where it starts."""

import collections

HOSTS = ["h0", "h1", "h2", "h3", "h4"]


def hits(one, n, path="/", headers=()):
    """The upstreams that the next n sequential requests reach, in order."""
    for upstream in one.upstreams.values():
        upstream.take_seen()
    order = []
    conn = one.connect()
    for _ in range(n):
        one.get(path, headers=headers, conn=conn)
        for name, upstream in one.upstreams.items():
            order += [name] * len(upstream.take_seen())
    conn.close()
    return order


def cluster_rig(rig, cluster, **more):
    return rig({"clusters": {"c": cluster}, **more})


def test_round_robin_visits_everyone_in_turn(rig):
    one = cluster_rig(rig, {"endpoints": HOSTS})
    order = hits(one, 15)
    start = HOSTS.index(order[0])
    assert order == [HOSTS[(start + n) % 5] for n in range(15)]


def test_round_robin_keeps_weights_in_every_period(rig):
    points = [{"upstream": name, "load_balancing_weight": n + 1} for n, name in enumerate(HOSTS)]
    one = cluster_rig(rig, {"endpoints": points})
    order = hits(one, 45)
    for at in range(0, 45, 15):
        counts = collections.Counter(order[at:at + 15])
        assert counts == {name: n + 1 for n, name in enumerate(HOSTS)}
    assert order[:15] == order[15:30]


def test_random_reaches_everyone(rig):
    one = cluster_rig(rig, {"endpoints": HOSTS, "lb_policy": "RANDOM"})
    counts = collections.Counter(hits(one, 250))
    assert set(counts) == set(HOSTS)
    assert all(20 <= n <= 85 for n in counts.values()), counts


def test_least_request_avoids_the_busy_host(rig):
    one = cluster_rig(rig, {"endpoints": HOSTS[:2], "lb_policy": "LEAST_REQUEST",
                            "least_request_lb_config": {"choice_count": 10}})
    for upstream in one.upstreams.values():
        upstream.default = lambda head: "hold" if b"/hold" in head else "ok"
    held = one.connect()
    held.send(b"GET /hold HTTP/1.1\r\nhost: a\r\n\r\n", ["GET"])
    one.proxy.wait_stat("cluster.c.upstream_rq_active", 1)
    order = hits(one, 20)
    counts = collections.Counter(order[1:])
    assert max(counts.values()) >= 18, counts
    for upstream in one.upstreams.values():
        upstream.release()
    assert held.wait_responses(1)


def test_weighted_clusters_share(rig):
    one = rig({"clusters": {"h0": {}, "h1": {}}, "listeners": {"main": {"routes": [
        {"match": "/", "route": {"weighted_clusters": {"clusters": [
            {"name": "h0", "weight": 25}, {"name": "h1", "weight": 75}]}}}]}}})
    counts = collections.Counter(hits(one, 400))
    assert 60 <= counts["h0"] <= 145, counts


def test_unhealthy_hosts_are_left_out(rig):
    points = ["h0", {"upstream": "h1", "health_status": "UNHEALTHY"}, "h2"]
    one = cluster_rig(rig, {"endpoints": points})
    assert set(hits(one, 12)) == {"h0", "h2"}


def test_strict_dns_uses_every_address(rig):
    one = rig({"clusters": {"c": {"type": "STRICT_DNS", "dns_lookup_family": "V4_ONLY",
                                  "endpoints": [{"upstream": "up", "address": "localhost"}]}}})
    assert set(hits(one, 3)) == {"up"}
    assert one.proxy.stats("^cluster.c.membership_total$")["cluster.c.membership_total"] == 1
