# SPDX-License-Identifier: Apache-2.0
"""Headers that come several times, and headers that somebody believes: rules look at every value, and what
only the proxy may say is not taken from strangers."""

import pytest

from .recorded import ask, recorded

MATCHERS = {"exact": {"exact": "admin"}, "prefix": {"prefix": "adm"}, "suffix": {"suffix": "min"},
            "contains": {"contains": "dmi"}, "regex": {"safe_regex": {"regex": "admin"}}}
ROLES = [["admin"], ["user", "admin"], ["admin", "user"], ["user", "other", "admin"], ["", "admin"], ["admin", ""],
         ["admin", "admin"], ["user"], ["user", "other"], [""], [], ["user,admin"], ["ADMIN"]]
TESTS = {"exact": lambda v: v == "admin", "prefix": lambda v: v.startswith("adm"),
         "suffix": lambda v: v.endswith("min"), "contains": lambda v: "dmi" in v, "regex": lambda v: v == "admin"}


def policy(action, matcher, invert):
    return [{"rbac": {"rules": {"action": action, "policies": {"p": {
        "permissions": [{"header": {"name": "x-role", "string_match": MATCHERS[matcher], "invert_match": invert}}],
        "principals": [{"any": True}]}}}}}]


RULES = [(action, matcher, invert) for action in ("DENY", "ALLOW") for matcher in MATCHERS for invert in (False, True)]


@pytest.fixture(scope="module")
def roles(binary):
    listeners = {"_".join(map(str, rule)): {"log": "none", "filters": policy(*rule)} for rule in RULES}
    with recorded(binary, listeners) as one:
        yield one


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(map(str, rule)))
@pytest.mark.parametrize("protocol", ["h1", "h2"])
def test_every_value_counts(roles, protocol, rule):
    """One value that matches is enough, wherever it stands; the upstream sees what was decided about."""
    action, matcher, invert = rule
    for values in ROLES:
        roles.recorder.requests.clear()
        status = ask(roles, protocol, "/", [("x-role", v) for v in values], "_".join(map(str, rule)))
        matched = bool(values) and any(map(TESTS[matcher], values)) != invert
        assert status == (200 if matched == (action == "ALLOW") else 403), (values, matched)
        received = [v.decode() for headers, _ in roles.recorder.requests.get("/", []) for k, v in headers if k == b"x-role"]
        assert received == (values if status == 200 else [])


# What of a stranger's does not get to the upstream, or not as it was said, with Envoy 1.40.
CONSUMED = ["x-envoy-retry-on", "x-envoy-retry-grpc-on", "x-envoy-max-retries", "x-envoy-upstream-rq-timeout-ms",
            "x-envoy-upstream-rq-per-try-timeout-ms", "x-envoy-hedge-on-per-try-timeout", "x-envoy-retriable-status-codes",
            "x-envoy-retriable-header-names", "x-envoy-upstream-alt-stat-name", "x-envoy-upstream-stream-duration-ms",
            "x-envoy-expected-rq-timeout-ms", "x-forwarded-client-cert"]
STRANGERS = ["x-envoy-internal", "x-envoy-ip-tags", "x-envoy-force-trace"]
EDGE = ["x-envoy-original-path", "x-envoy-original-host", "x-envoy-decorator-operation", "x-envoy-external-address",
        "x-envoy-downstream-service-cluster", "x-envoy-downstream-service-node", "x-request-id", "x-forwarded-for",
        "x-forwarded-proto"]
HARMLESS = ["x-forwarded-host", "x-forwarded-port", "forwarded", "x-real-ip", "x-b3-traceid", "traceparent", "via",
            "x-envoy-attempt-count", "x-envoy-anything"]
LOOPBACK = {"internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]}}
PLACES = {"edge": {"use_remote_address": True}, "hop": {"use_remote_address": True, "xff_num_trusted_hops": 1},
          "mesh": {"use_remote_address": False}, "mesh_inside": {"use_remote_address": False, **LOOPBACK},
          "inside": {"use_remote_address": True, **LOOPBACK}}
VALUES = {"x-forwarded-for": "10.9.8.7", "x-forwarded-proto": "https"}


def taken_away(header, place):
    if header == "x-forwarded-proto":
        return place in ("edge", "inside")
    if header == "x-forwarded-for":
        return place in ("edge", "hop", "inside")
    return header in CONSUMED or (header in STRANGERS and place != "inside") or (
        header in EDGE and place in ("edge", "hop"))


@pytest.fixture(scope="module")
def places(binary):
    with recorded(binary, {place: {"log": "none", "hcm": hcm} for place, hcm in PLACES.items()}) as one:
        yield one


@pytest.mark.parametrize("header", CONSUMED + STRANGERS + EDGE + HARMLESS)
def test_who_may_say_it(places, header):
    """Neither a peer on a private address nor one that says so is trusted, unless the configuration does."""
    value = VALUES.get(header, "7")
    for place in PLACES:
        for protocol in ("h1", "h2"):
            for count in (1, 2):
                path = f"/{header}-{place}-{protocol}-{count}"
                ask(places, protocol, path, [(header, value)] * count, place)
                (headers, _), = places.recorder.requests[path]
                received = [v.decode() for k, v in headers if k.decode() == header]
                as_said = [value] * count in (received, ",".join(received).split(",")) or received == [",".join([value] * count)]
                if header == "x-envoy-internal" and place == "inside":
                    assert received == ["true"]
                else:
                    assert as_said != taken_away(header, place), (place, protocol, count, received)


@pytest.mark.parametrize("protocol", ["h1", "h2"])
@pytest.mark.parametrize("header", ["x-envoy-max-retries", "x-envoy-retry-on", "x-envoy-upstream-rq-timeout-ms"])
def test_strangers_do_not_command(rig, protocol, header):
    """Retries and timeouts are ours: an upstream that fails is asked once."""
    one = rig({"listeners": {"main": {"hcm": {"use_remote_address": True}}}})
    one.up.expect(["s503"] * 5)
    commands = {"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "4", "x-envoy-upstream-rq-timeout-ms": "1"}
    assert ask(one, protocol, "/", [(header, commands[header]), *commands.items()]) == 503
    one.proxy.wait_stat("cluster.up.upstream_rq_total", 1)
    assert one.proxy.stats("upstream_rq_retry$").get("cluster.up.upstream_rq_retry", 0) == 0
