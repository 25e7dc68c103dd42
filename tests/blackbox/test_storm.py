# SPDX-License-Identifier: Apache-2.0
"""Hostile clients and upstreams all at once; afterwards nothing is left over.

KB_STORM_SECONDS lengthens it (10), KB_STORM_SEED chooses another storm (1): the seed draws what
each peer does; the order in which their bytes arrive is left to the machine.
"""

import os
import threading
import time

from tests.harness import storm

KIB = 1024
CLIENTS = 24
LIMIT = {"per_connection_buffer_limit_bytes": 16 * KIB}
IDLE = {"typed_extension_protocol_options": {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {"idle_timeout": "0.2s"},
        "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}}}}}
RETRY = {"retry_on": "5xx,reset,connect-failure,retriable-4xx", "num_retries": 3, "per_try_timeout": "0.05s",
         "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.01s"}}
BREAKERS = {"thresholds": [{"max_connections": 2, "max_pending_requests": 3, "max_requests": 4, "max_retries": 1,
                            "track_remaining": True}]}


def to(cluster, **fields):
    return {"cluster": cluster, "timeout": "0.5s", **fields}


ROUTES = [
    {"match": "/retry", "route": to("up", retry_policy=RETRY)},
    {"match": "/mirror", "route": to("up", request_mirror_policies=[{"cluster": "up"}, {"cluster": "dead"}])},
    {"match": "/redirect", "route": to("up", internal_redirect_policy={"max_internal_redirects": 3})},
    {"match": "/tight", "route": to("tight", retry_policy=RETRY)},
    {"match": "/quick", "route": to("up", timeout="0.02s", idle_timeout="0.1s")},
    {"match": "/refused", "route": to("dead", retry_policy=RETRY)},
    {"match": "/hole", "route": to("hole")},
    {"match": "/direct", "direct": [200, "d" * 3000]},
    {"match": "/nowhere", "route": to("unknown")},
    {"match": "/", "route": to("up", upgrade_configs=[{"upgrade_type": "websocket"}])},
]
SPEC = {
    "listeners": {
        "main": {"listener": LIMIT,
                 "virtual_hosts": [{"routes": ROUTES, "include_request_attempt_count": True}],
                 "route_config": {"validate_clusters": False},
                 "hcm": {"upgrade_configs": [{"upgrade_type": "websocket"}], "stream_idle_timeout": "1s",
                         "request_headers_timeout": "0.5s", "request_timeout": "1s",
                         "common_http_protocol_options": {"idle_timeout": "1s"},
                         "http_protocol_options": {"accept_http_10": True, "enable_trailers": True}}},
        "raw": {"tcp": {"cluster": "bytes", "idle_timeout": "1s"}, "listener": LIMIT}},
    "clusters": {
        "up": {**LIMIT, **IDLE},
        "tight": {**LIMIT, **IDLE, "circuit_breakers": BREAKERS, "endpoints": ["up", "other"]},
        "dead": {"endpoints": ["refused"]},
        "hole": {"endpoints": ["blackhole"], "connect_timeout": "0.1s"},
        "bytes": {**LIMIT, "endpoints": ["bytes"]}},
    "upstreams": {"up": {"mode": storm.http_serve}, "other": {"mode": storm.http_serve},
                  "bytes": {"mode": storm.tcp_serve}},
}
GAUGES = r"^(cluster|http|listener|tcp)\..*(_active|_buffered|_open|remaining_.*)$"


def descriptors(proxy):
    return len(os.listdir(f"/proc/{proxy.process.pid}/fd"))


def gauges(proxy):
    return {name: value for name, value in proxy.stats(GAUGES).items() if not name.startswith("listener.admin.")}


def clients_run(one, seed, seconds):
    until = time.monotonic() + seconds
    done = []

    def run(number):
        count = 0
        while time.monotonic() < until and one.proxy.process.poll() is None:
            storm.client_act(f"{seed}/{number}/{count}", one.port(), one.port("raw"))
            count += 1
        done.append(count)
    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60)
    assert len(done) == CLIENTS, "a client hangs"
    return sum(done)


def test_storm(rig):
    seed = os.environ.get("KB_STORM_SEED", "1")
    one = rig(SPEC, concurrency=2)
    one.proxy.wait_stat("listener_manager.workers_started", 1)
    before, open_before = gauges(one.proxy), descriptors(one.proxy)
    count = clients_run(one, seed, float(os.environ.get("KB_STORM_SECONDS", "10")))
    one.proxy.check_alive(f"in storm {seed}")
    assert count > CLIENTS

    def rest():
        now = gauges(one.proxy)
        return all(now.get(name, 0) == before.get(name, 0) for name in now.keys() | before.keys())
    try:
        one.proxy.wait_for("the gauges of before", rest)
        one.proxy.wait_for("the descriptors of before", lambda: descriptors(one.proxy) <= open_before)
    except AssertionError as error:
        now = gauges(one.proxy)
        left = {name: value for name, value in now.items() if value != before.get(name, 0)}
        raise AssertionError(f"{error}, after {count} connections of storm {seed}: {left}, "
                             f"{descriptors(one.proxy)} descriptors, {open_before} before") from error
    assert one.proxy.stats("^http.main.downstream_rq_total$")["http.main.downstream_rq_total"] > count / 4
