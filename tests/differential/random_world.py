# SPDX-License-Identifier: Apache-2.0
"""A configuration drawn from a seed, for random_pairs: listeners with options of the connection manager, filters,
virtual hosts and routes, and clusters of HTTP/1 and HTTP/2. What is drawn is valid for the real Envoy.

Clients of HTTP/1 and HTTP/2 speak to the same listeners.
"""

OPTIONS = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": "type.googleapis.com/"
           "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"}
PROPER = {"header_key_format": {"proper_case_words": {}}}
ACTIONS = ["APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS"]
NEVER_TIMED = {"base_interval": "0.001s", "max_interval": "0.002s"}
RETRY_ON = ["5xx", "gateway-error", "reset", "connect-failure", "retriable-4xx", "refused-stream", "retriable-status-codes",
            "retriable-headers", "envoy-ratelimited", "reset-before-request", "cancelled", "unavailable", "internal"]
FORMATS = ["%REQ(:PATH)%", "%REQ(X-A?X-B):5%", "%PROTOCOL%|%REQ(:METHOD)%", "%ROUTE_NAME%", "%REQ(:AUTHORITY)%%%",
           "%DYNAMIC_METADATA(n:a)%", "%REQ(X-MISSING)%", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "%VIRTUAL_CLUSTER_NAME%",
           "%QUERY_PARAM(a)%", "%PATH(NQ)%", "%REQUEST_HEADERS_BYTES%", "fixed", ""]
ANSWER_FORMATS = ["%RESPONSE_CODE%/%RESPONSE_FLAGS%", "%RESPONSE_CODE_DETAILS%", "%RESP(X-U)%", "%UPSTREAM_CLUSTER%",
                  "%REQ(:PATH)%", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "%GRPC_STATUS%", "%TRAILER(X-T)%", "%BYTES_RECEIVED%",
                  "%RESP(SERVER?DATE):2%", "x"]


def some(draw, table, chance):
    """A part of a table of makers: each key with that chance."""
    return {key: make(draw) for key, make in table.items() if draw.random() < chance}


def one_of(*values):
    return lambda draw: draw.choice(values)


HTTP1 = {
    "enable_trailers": one_of(True), "accept_http_10": one_of(True), "default_host_for_http_10": one_of("old.test"),
    "allow_absolute_url": one_of(True, False), "allow_chunked_length": one_of(True),
    "header_key_format": one_of(PROPER["header_key_format"]), "allow_custom_methods": one_of(True),
    "send_fully_qualified_url": one_of(False), "override_stream_error_on_invalid_http_message": one_of(True, False),
}
COMMON = {
    "headers_with_underscores_action": one_of("ALLOW", "DROP_HEADER", "REJECT_REQUEST"),
    "max_headers_count": one_of(5, 12, 200), "max_requests_per_connection": one_of(1, 2),
}
HCM = {
    "use_remote_address": one_of(True, False), "xff_num_trusted_hops": one_of(1, 2), "skip_xff_append": one_of(True),
    "via": one_of("kob", "a b"), "server_name": one_of("srv"),
    "server_header_transformation": one_of("OVERWRITE", "APPEND_IF_ABSENT", "PASS_THROUGH"),
    "preserve_external_request_id": one_of(True), "always_set_request_id_in_response": one_of(True),
    "generate_request_id": one_of(False, True), "append_x_forwarded_port": one_of(True), "normalize_path": one_of(True, False),
    "merge_slashes": one_of(True), "path_with_escaped_slashes_action":
    one_of("KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"),
    "strip_trailing_host_dot": one_of(True), "proxy_100_continue": one_of(True),
    "stream_error_on_invalid_http_message": one_of(True, False), "add_user_agent": one_of(True),
    "max_request_headers_kb": one_of(1, 8, 96),
    "http_protocol_options": lambda draw: some(draw, HTTP1, 0.3),
    "common_http_protocol_options": lambda draw: some(draw, COMMON, 0.4),
    "http2_protocol_options": lambda draw: some(draw, {"hpack_table_size": one_of(0, 128), "max_concurrent_streams": one_of(1, 9),
                                                       "initial_stream_window_size": one_of(65535, 200000)}, 0.5),
    "upgrade_configs": one_of([{"upgrade_type": "websocket"}], [{"upgrade_type": "CONNECT"}]),
    "scheme_header_transformation": one_of({"scheme_to_overwrite": "https"}, {"match_upstream": True}),
    "local_reply_config": lambda draw: {"mappers": [{
        "filter": {"status_code_filter": {"comparison": {"op": draw.choice(["EQ", "GE", "LE"]), "value": {
            "default_value": draw.choice([400, 404, 500, 503]), "runtime_key": "x"}}}},
        "headers_to_add": headers_to_add(draw, ANSWER_FORMATS),
        **draw.choice([{"status_code": 418}, {"body": {"inline_string": "mapped\n"}}, {"body_format_override": {
            "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%|%RESPONSE_CODE%|%REQ(:PATH)%\n"}}}, {"body_format_override": {
                "json_format": {"c": "%RESPONSE_CODE%", "p": "%REQ(:PATH)%"}}}])}]},
}
ROUTER = {"suppress_envoy_headers": one_of(True), "dynamic_stats": one_of(False), "respect_expected_rq_timeout": one_of(True),
          "strict_check_headers": lambda draw: draw.sample(["x-envoy-upstream-rq-timeout-ms", "x-envoy-max-retries",
                                                            "x-envoy-retry-on"], 2)}


def headers_to_add(draw, formats):
    return [{"header": {"key": draw.choice(["x-a", "x-b", "x-new", "x-u", "x-v", "cookie", "user-agent", "server", "Via"]),
                        "value": draw.choice(formats)}, "append_action": draw.choice(ACTIONS),
             **({"keep_empty_value": True} if draw.random() < 0.3 else {})} for _ in range(draw.randrange(1, 4))]


MUTATIONS = {
    "request_headers_to_add": lambda draw: headers_to_add(draw, FORMATS),
    "response_headers_to_add": lambda draw: headers_to_add(draw, ANSWER_FORMATS),
    "request_headers_to_remove": lambda draw: draw.sample(["x-a", "x-b", "accept", "user-agent", "cookie", "x-request-id"], 2),
    "response_headers_to_remove": lambda draw: draw.sample(["x-u", "x-v", "etag", "server", "set-cookie"], 2),
}


def cors(draw):
    return {"allow_origin_string_match": [draw.choice([{"exact": "http://o.test"}, {"prefix": "http"}, {"safe_regex": {"regex": ".*"}}])],
            **some(draw, {"allow_methods": one_of("GET,PUT"), "allow_headers": one_of("x-a, x-b"), "expose_headers": one_of("x-u"),
                          "max_age": one_of("10"), "allow_credentials": one_of(True, False),
                          "forward_not_matching_preflights": one_of(True, False)}, 0.5)}


def fault(draw):
    whole = {"numerator": 100}
    return some(draw, {
        "abort": one_of({"http_status": 429, "percentage": whole}, {"grpc_status": 5, "percentage": whole},
                        {"header_abort": {}, "percentage": whole}),
        "headers": one_of([{"name": "x-a", "present_match": True}], [{"name": ":method", "string_match": {"exact": "PUT"}}]),
    }, 0.7)


def header_mutation(draw):
    steps = lambda formats: [draw.choice([
        {"append": headers_to_add(draw, formats)[0]}, {"remove": draw.choice(["x-a", "x-u", "etag", "accept"])},
        {"remove_on_match": {"key_matcher": {"prefix": "x-"}}}]) for _ in range(draw.randrange(1, 3))]
    return {"mutations": some(draw, {"request_mutations": lambda _: steps(FORMATS), "response_mutations": lambda _: steps(ANSWER_FORMATS)}, 0.7)}


def rbac(draw):
    return {"rules": {"action": draw.choice(["DENY", "ALLOW"]), "policies": {"p": {
        "permissions": [draw.choice([{"header": {"name": "x-b", "present_match": True}}, {"url_path": {"path": {"prefix": "/a"}}},
                                     {"not_rule": {"header": {"name": "accept", "string_match": {"exact": "text/html"}}}}])],
        "principals": [{"any": True}]}}}}


FILTERS = {
    "cors": lambda draw: {"cors": {}}, "fault": lambda draw: {"fault": fault(draw)},
    "header_mutation": lambda draw: {"header_mutation": header_mutation(draw)}, "rbac": lambda draw: {"rbac": rbac(draw)},
    "buffer": lambda draw: {"buffer": {"max_request_bytes": 100000}},
    "grpc_web": lambda draw: {"grpc_web": {}},
    "set_metadata": lambda draw: {"set_metadata": {"metadata": [{"metadata_namespace": "n", "value": {"a": draw.choice(["t", 1, True])}}]}},
    "health_check": lambda draw: {"health_check": {"pass_through_mode": draw.random() < 0.5, "headers": [
        {"name": ":path", "string_match": {"exact": "/a"}}]}},
    "local_ratelimit": lambda draw: {"local_ratelimit": {
        "stat_prefix": "l", "token_bucket": {"max_tokens": draw.choice([1, 1000]), "fill_interval": "3600s"},
        "filter_enabled": {"default_value": {"numerator": draw.choice([0, 100])}},
        "filter_enforced": {"default_value": {"numerator": draw.choice([0, 100])}},
        "response_headers_to_add": headers_to_add(draw, ANSWER_FORMATS)}},
    "compressor": lambda draw: {"compressor": {
        "compressor_library": {"name": "z", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip"}},
        "response_direction_config": some(draw, {
            "disable_on_etag_header": one_of(True), "remove_accept_encoding_header": one_of(True),
            "common_config": one_of({"min_content_length": 100}, {"content_type": ["text/plain"]},
                                    {"enabled": {"default_value": False, "runtime_key": "c"}})}, 0.6)}},
}


def retry(draw):
    return {"retry_on": ",".join(draw.sample(RETRY_ON, draw.randrange(1, 5))), "retry_back_off": NEVER_TIMED,
            **some(draw, {"num_retries": one_of(0, 1, 1), "retriable_status_codes": one_of([200], [418, 404]),
                          "retriable_headers": one_of([{"name": "x-v", "present_match": True}]),
                          "retriable_request_headers": one_of([{"name": "x-a", "present_match": True}])}, 0.5)}


def hops(draw):
    return {"max_internal_redirects": draw.choice([1, 2]), "redirect_response_codes": [302, 303],
            **({"allow_cross_scheme_redirect": True} if draw.random() < 0.5 else {}),
            **({"response_headers_to_copy": ["x-u"]} if draw.random() < 0.3 else {})}


REWRITES = [
    {"prefix_rewrite": "/after"}, {"prefix_rewrite": "/"}, {"regex_rewrite": {"pattern": {"regex": "^/([^/?]*)"}, "substitution": r"/<\1>"}},
    {"host_rewrite_literal": "new.test"}, {"host_rewrite_header": "x-a"}, {"append_x_forwarded_host": True, "host_rewrite_literal": "n.test"},
    {"host_rewrite_path_regex": {"pattern": {"regex": "^/([a-z]+).*"}, "substitution": r"\1.test"}},
    {"path_rewrite": "/f/%REQ(X-A)%"}, {"host_rewrite": "h-%REQ(X-B)%.test"},
]
ROUTE_OPTIONS = {
    "retry_policy": retry, "timeout": one_of("0s", "30s"), "internal_redirect_policy": hops, "priority": one_of("HIGH"),
    "max_stream_duration": one_of({"grpc_timeout_header_max": "30s"}, {"max_stream_duration": "60s"}),
    "max_grpc_timeout": one_of("20s", "0s"), "grpc_timeout_offset": one_of("0.5s"), "idle_timeout": one_of("30s"),
    "upgrade_configs": one_of([{"upgrade_type": "websocket", "enabled": False}]),
    "hash_policy": one_of([{"header": {"header_name": "x-a"}}]),
}
REDIRECTS = [
    {"path_redirect": "/new", "strip_query": True}, {"host_redirect": "r.test", "https_redirect": True}, {"port_redirect": 8443},
    {"prefix_rewrite": "/x", "response_code": "TEMPORARY_REDIRECT"}, {"scheme_redirect": "ftp", "response_code": "SEE_OTHER"},
    {"regex_rewrite": {"pattern": {"regex": "/"}, "substitution": "//"}, "response_code": "PERMANENT_REDIRECT"},
]
CONDITIONS = [
    {}, {}, {}, {"headers": [{"name": "x-a", "string_match": {"prefix": "v"}}]}, {"headers": [{"name": "x-b", "present_match": True,
                                                                                           "invert_match": True}]},
    {"query_parameters": [{"name": "a", "string_match": {"exact": "1"}}]}, {"grpc": {}}, {"case_sensitive": False},
    {"headers": [{"name": "content-length", "range_match": {"start": 1, "end": 500}}]},
    {"headers": [{"name": ":method", "string_match": {"safe_regex": {"regex": "P.*"}}}]},
    {"cookies": [{"name": "a", "string_match": {"exact": "1"}}]},
]
PATHS = [{"prefix": "/a"}, {"prefix": "/pre"}, {"path": "/direct"}, {"prefix": "/changed"}, {"prefix": "/re/"}, {"prefix": "/q"},
         {"safe_regex": {"regex": "/[ag].*"}}, {"path_separated_prefix": "/a"}, {"path": "/a/b"}, {"prefix": "/"}]


def route(draw, number, last):
    """One route; the last of a host takes everything to a cluster."""
    out = {"name": f"r{number}", "match": {"prefix": "/"} if last else {**draw.choice(PATHS), **draw.choice(CONDITIONS)}}
    kind = draw.random()
    if last or kind < 0.7:
        out["route"] = {"cluster": draw.choice(["up", "two"]), **some(draw, ROUTE_OPTIONS, 0.2),
                        **(draw.choice(REWRITES) if draw.random() < 0.4 else {})}
        if "safe_regex" in out["match"]:
            out["route"].pop("prefix_rewrite", None)
    elif kind < 0.85:
        out["redirect"] = dict(draw.choice(REDIRECTS))
        if "safe_regex" in out["match"]:
            out["redirect"].pop("prefix_rewrite", None)
    else:
        out["direct"] = draw.choice([[200, "direct\n"], [404], [503, "no\n"], [204]])
    out.update(some(draw, MUTATIONS, 0.2))
    return out


def per_filter(draw, filters):
    """What routes say of the filters that are there."""
    made = {"cors": cors, "fault": fault, "buffer": one_of({"disabled": True}, {"buffer": {"max_request_bytes": 200000}}),
            "rbac": one_of({}), "header_mutation": header_mutation, "compressor": one_of({"disabled": True})}
    here = [next(iter(one)) for one in filters]
    return {name: make(draw) for name, make in made.items() if name in here and draw.random() < 0.4}


def listener(draw):
    hcm = some(draw, HCM, 0.2)
    if draw.random() < 0.2:
        hcm[draw.choice(["strip_any_host_port", "strip_matching_host_port"])] = True
    filters = [FILTERS[name](draw) for name in draw.sample(sorted(FILTERS), draw.choice([0, 0, 1, 1, 2, 3]))]
    count = draw.randrange(2, 8)
    routes = [route(draw, n, n == count - 1) for n in range(count)]
    for one in routes:
        said = per_filter(draw, filters)
        if said:
            one["per_filter"] = said
    host = {"routes": routes, **some(draw, MUTATIONS, 0.15), **some(draw, {
        "include_request_attempt_count": one_of(True), "include_attempt_count_in_response": one_of(True), "retry_policy": retry}, 0.2)}
    out = {"virtual_hosts": [host], "hcm": hcm, "filters": filters, "router": some(draw, ROUTER, 0.1)}
    config = some(draw, {"most_specific_header_mutations_wins": one_of(True), "internal_only_headers": one_of(["x-b"]),
                         "ignore_port_in_host_matching": one_of(True)}, 0.1)
    return {**out, "route_config": config} if config else out


def clusters(draw):
    def options(name, explicit):
        more = some(draw, {"common_http_protocol_options": one_of({"max_requests_per_connection": 2}, {"max_headers_count": 6}),
                           }, 0.15)
        return {name: {"typed_extension_protocol_options": {key: {"@type": value, **more, "explicit_http_config": explicit}
                                                            for key, value in OPTIONS.items()}}}
    h1 = some(draw, {"enable_trailers": one_of(True, True, True, False), "header_key_format": one_of(PROPER["header_key_format"]),
                     "allow_chunked_length": one_of(True)}, 0.5)
    return {**options("up", {"http_protocol_options": h1}), **options("two", {"http2_protocol_options": {}})}


def world(draw, count=6):
    """{"listeners":, "clusters":, "upstreams":} of a case."""
    return {"listeners": {f"l{n}": listener(draw) for n in range(count)}, "clusters": clusters(draw),
            "upstreams": {"two": {"mode": "h2", "sorted": True}}}
