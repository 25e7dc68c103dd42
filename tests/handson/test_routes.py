# SPDX-License-Identifier: Apache-2.0
"""Each form of a VirtualService as the route that comes of it."""

import pytest

from tests.handson.test_shapes import CLIENT, made, object_of

RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
PREVIOUS = [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}]
RETRY = {"retry_on": RETRY_ON, "num_retries": 2, "host_selection_retry_max_attempts": "5",
         "retry_host_predicate": PREVIOUS}
CLUSTER = "outbound|80||web.shop.svc.cluster.local"
BLUE, GREEN = (f"outbound|80|{name}|web.shop.svc.cluster.local" for name in ("blue", "green"))
RULE = object_of("DestinationRule", "web", "shop", {"host": "web", "subsets": [
    {"name": "blue", "labels": {"c": "blue"}}, {"name": "green", "labels": {"c": "green"}}]})


def to(subset=None, **more):
    return [{"destination": {"host": "web", "port": {"number": 80}, **({"subset": subset} if subset else {})}, **more}]


def routes(*rules, client=CLIENT, **more):
    virtual = object_of("VirtualService", "v", "shop", {"hosts": ["web"], "http": list(rules), **more})
    return made(client, RULE, virtual)["RDS"]["80"]["virtual_hosts"][0]["routes"]


def matched(match):
    return routes({"match": [match], "route": to()})[0]["match"]


MATCHES = {
    "exact": ({"uri": {"exact": "/a"}}, {"path": "/a", "case_sensitive": True}),
    "prefix": ({"uri": {"prefix": "/a"}, "ignoreUriCase": True}, {"prefix": "/a", "case_sensitive": False}),
    "regex": ({"uri": {"regex": "/a.*"}}, {"safe_regex": {"regex": "/a.*"}, "case_sensitive": True}),
    "headers": ({"headers": {"x-b": {"regex": "b+"}, "x-a": {"exact": "1"}, "x-c": {}}, "withoutHeaders": {
        "x-d": {}, "x-e": {"prefix": "e"}}}, {"prefix": "/", "case_sensitive": True, "headers": [
            {"name": "x-a", "string_match": {"exact": "1"}}, {"name": "x-b", "string_match": {"safe_regex": {
                "regex": "b+"}}}, {"name": "x-c", "present_match": True},
            {"name": "x-d", "present_match": True, "invert_match": True},
            {"name": "x-e", "string_match": {"prefix": "e"}, "invert_match": True,
             "treat_missing_header_as_empty": True}]}),
    "request": ({"method": {"exact": "GET"}, "authority": {"prefix": "w"}, "scheme": {"exact": "http"}},
                {"prefix": "/", "case_sensitive": True, "headers": [
                    {"name": ":method", "string_match": {"exact": "GET"}},
                    {"name": ":authority", "string_match": {"prefix": "w"}},
                    {"name": ":scheme", "string_match": {"exact": "http"}}]}),
    "query": ({"queryParams": {"a": {"exact": "1"}, "b": {}}}, {
        "prefix": "/", "case_sensitive": True, "query_parameters": [
            {"name": "a", "string_match": {"exact": "1"}}, {"name": "b", "present_match": True}]}),
}


@pytest.mark.parametrize("form", MATCHES)
def test_matches(form):
    said, expected = MATCHES[form]
    assert matched(said) == expected


ACTIONS = {
    "plain": ({}, {"retry_policy": RETRY}),
    "timeout": ({"timeout": "1m1.5s"}, {"timeout": "61.500s", "max_grpc_timeout": "61.500s", "retry_policy": RETRY}),
    "no retries": ({"retries": {"attempts": 0}}, {}),
    "retries": ({"retries": {"attempts": 3, "perTryTimeout": "1s", "retryOn": "5xx, 503", "backoff": "25ms"}},
                {"retry_policy": {**RETRY, "retry_on": "5xx,retriable-status-codes", "num_retries": 3,
                                  "retriable_status_codes": [503], "per_try_timeout": "1s",
                                  "retry_back_off": {"base_interval": "0.025s"}}}),
    "rewrite": ({"rewrite": {"uri": "/x", "authority": "h"}},
                {"prefix_rewrite": "/x", "host_rewrite_literal": "h", "retry_policy": RETRY}),
    "regex rewrite": ({"rewrite": {"uriRegexRewrite": {"match": "/(a)", "rewrite": "/b\\1"}}},
                      {"regex_rewrite": {"pattern": {"regex": "/(a)"}, "substitution": "/b\\1"},
                       "retry_policy": RETRY}),
    "mirror": ({"mirror": {"host": "web", "subset": "blue", "port": {"number": 80}}, "mirrorPercentage": {"value": 12.5}},
               {"retry_policy": RETRY, "request_mirror_policies": [{
                   "cluster": BLUE, "trace_sampled": False, "disable_shadow_host_suffix_append": True,
                   "runtime_fraction": {"default_value": {"numerator": 125000, "denominator": "MILLION"}}}]}),
}


@pytest.mark.parametrize("form", ACTIONS)
def test_actions(form):
    said, expected = ACTIONS[form]
    [route] = routes({"route": to(), **said})
    assert route["route"] == {"cluster": CLUSTER, "timeout": "0s", "max_grpc_timeout": "0s", **expected}
    assert route["decorator"] == {"operation": "web.shop.svc.cluster.local:80/*"}
    assert route["metadata"]["filter_metadata"]["istio"]["config"] == (
        "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/v")


def test_weights_and_headers():
    [route] = routes({"name": "n", "headers": {"request": {"set": {"s": "1"}, "remove": ["r"]}}, "route": [
        *to("blue", weight=90, headers={"response": {"add": {"a": "2"}}}), *to("green", weight=10)]})
    assert route["route"]["weighted_clusters"]["clusters"] == [
        {"name": BLUE, "weight": 90, "response_headers_to_add": [{"header": {"key": "a", "value": "2"}}]},
        {"name": GREEN, "weight": 10}]
    assert route["request_headers_to_add"] == [
        {"header": {"key": "s", "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
    assert route["request_headers_to_remove"] == ["r"]
    assert (route["name"], route["decorator"]) == ("n", {"operation": "v:80/*"})


def test_redirects_and_answers():
    said = [{"uri": "/n", "authority": "h", "redirectCode": 307}, {"scheme": "https", "port": 8443},
            {"uri": "%PREFIX()%/n"}]
    assert [route["redirect"] for route in routes(*(
        {"match": [{"uri": {"exact": f"/{i}"}}], "redirect": one} for i, one in enumerate(said)))] == [
        {"host_redirect": "h", "path_redirect": "/n", "response_code": "TEMPORARY_REDIRECT"},
        {"scheme_redirect": "https", "port_redirect": 8443}, {"prefix_rewrite": "/n"}]
    [route] = routes({"directResponse": {"status": 418, "body": {"string": "tea"}}})
    assert route["direct_response"] == {"status": 418, "body": {"inline_string": "tea"}}


def test_filters_of_a_route():
    [route] = routes({"route": to(), "fault": {"delay": {"fixedDelay": "0.2s", "percentage": {"value": 50}},
                                               "abort": {"httpStatus": 503}},
                      "corsPolicy": {"allowOrigins": [{"exact": "https://a"}], "allowMethods": ["GET", "PUT"],
                                     "maxAge": "24h", "allowCredentials": True}})
    filters = {name: {key: value for key, value in one.items() if key != "@type"}
               for name, one in route["typed_per_filter_config"].items()}
    assert filters == {
        "envoy.filters.http.fault": {
            "delay": {"fixed_delay": "0.200s", "percentage": {"numerator": 500000, "denominator": "MILLION"}},
            "abort": {"http_status": 503, "percentage": {"numerator": 1000000, "denominator": "MILLION"}}},
        "envoy.filters.http.cors": {
            "allow_origin_string_match": [{"exact": "https://a"}], "allow_methods": "GET,PUT", "max_age": "86400",
            "allow_credentials": True, "filter_enabled": {"default_value": {"numerator": 100}},
            "forward_not_matching_preflights": True}}


def test_order_and_who_asks():
    found = routes({"route": to("green")}, {"match": [{"uri": {"exact": "/a"}}], "route": to()},
                   {"match": [{"sourceLabels": {"app": "other"}}, {"port": 81}, {"sourceNamespace": "shop"},
                              {"gateways": ["g"]}], "route": to("blue")})
    assert [route["route"]["cluster"] for route in found] == [CLUSTER, GREEN]  # what catches all is last
    found = routes({"match": [{"sourceLabels": {"app": "client"}}], "route": to("blue")}, {"route": to()})
    assert [route["route"]["cluster"] for route in found] == [BLUE]


def test_hashing():
    rule = object_of("DestinationRule", "web", "shop", {"host": "web", "trafficPolicy": {
        "loadBalancer": {"consistentHash": {"httpCookie": {"name": "c", "path": "/", "ttl": "1s"}}}}})
    route = made(CLIENT, rule)["RDS"]["80"]["virtual_hosts"][0]["routes"][0]["route"]
    assert route["hash_policy"] == [{"cookie": {"name": "c", "path": "/", "ttl": "1s"}}]
    assert "retry_host_predicate" not in route["retry_policy"]


def test_bytes():
    virtual = object_of("VirtualService", "v", "shop", {"hosts": ["web"], "tcp": [{"match": [{"port": 9000}], "route": [
        {"destination": {"host": "web", "subset": "blue", "port": {"number": 9000}}, "weight": 30},
        {"destination": {"host": "web", "port": {"number": 9000}}, "weight": 70}]}]})
    [chain] = made(CLIENT, RULE, virtual)["LDS"]["10.96.0.10_9000"]["filter_chains"]
    assert chain["filters"][-1]["typed_config"]["weighted_clusters"] == {"clusters": [
        {"name": "outbound|9000|blue|web.shop.svc.cluster.local", "weight": 30},
        {"name": "outbound|9000||web.shop.svc.cluster.local", "weight": 70}]}


def test_names_of_hosts():
    def domains(client):
        return made(client)["RDS"]["80"]["virtual_hosts"][0]["domains"]
    assert domains(CLIENT) == ["web.shop.svc.cluster.local", "web.shop.svc.cluster.local.", "web.shop", "web.shop.svc",
                               "10.96.0.10"]
    other = object_of("VirtualService", "o", "shop", {"hosts": ["other.example.com"], "http": [{"route": to()}]})
    hosts = made(CLIENT, other)["RDS"]["80"]["virtual_hosts"]
    assert [host["name"] for host in hosts] == ["web.shop.svc.cluster.local:80", "other.example.com:80", "allow_any"]
