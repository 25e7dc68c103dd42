# SPDX-License-Identifier: Apache-2.0
"""The rules of a VirtualService as Envoy's routes."""

import re

from .clusters import load_balancer_of, outbound_name, rule_path
from .model import full_name, matches
from .shapes import EXTENSIONS, any_of, duration

RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
REDIRECTS = {301: "MOVED_PERMANENTLY", 302: "FOUND", 303: "SEE_OTHER", 307: "TEMPORARY_REDIRECT",
             308: "PERMANENT_REDIRECT"}


def routes(mesh, pod, virtual, gateway, port):
    made = []
    for rule in virtual.spec.get("http", []):
        wanted = rule.get("match") or [None]
        for match in wanted:
            if match is None or _applies(match, virtual, pod, gateway, port):
                made.append(_route(mesh, pod, virtual, rule, match, port))
    return catch_all_last(made)


def _applies(match, virtual, pod, gateway, port):
    """The conditions that are about the client, not about its request."""
    names = [name if name == "mesh" or "/" in name else f"{virtual.namespace}/{name}"
             for name in match.get("gateways", [])]
    return (match.get("port", port) == port and (not names or gateway in names)
            and match.get("sourceNamespace", pod.namespace) == pod.namespace
            and (gateway != "mesh" or matches(match.get("sourceLabels", {}), pod.labels)))


def catch_all_last(routes):
    def catches_all(route):
        match = route["match"]
        return match.get("prefix") == "/" and not match.get("headers") and not match.get("query_parameters")
    return [r for r in routes if not catches_all(r)] + [r for r in routes if catches_all(r)][:1]


def _route(mesh, pod, virtual, rule, match, port):
    made = {"match": _match(match), "metadata": {"filter_metadata": {"istio": {"config": rule_path(virtual)}}}}
    names = [name for name in (rule.get("name"), (match or {}).get("name")) if name]
    if names:
        made["name"] = ".".join(names)
    where = f"{virtual.name}:{port}"
    if "redirect" in rule:
        made["redirect"] = _redirect(rule["redirect"])
    elif "directResponse" in rule:
        said = rule["directResponse"]
        body = {"body": {"inline_string": said["body"]["string"]}} if "body" in said else {}
        made["direct_response"] = {"status": said["status"], **body}
    else:
        targets = [(*_target(mesh, virtual, one["destination"], port), one) for one in rule["route"]]
        if len(targets) == 1:
            where = f"{targets[0][0]}:{targets[0][2]}"
        made["route"] = forward(mesh, pod.namespace, [target[:3] for target in targets], rule,
                                 [target[3] for target in targets])
        if "mirror" in rule:
            made["route"]["request_mirror_policies"] = [_mirror(mesh, virtual, rule, port)]
        if len(targets) == 1:
            _headers(made, rule["route"][0].get("headers", {}))
    _headers(made, rule.get("headers", {}))
    path = made["match"]
    made["decorator"] = {"operation": where + (
        path["prefix"] + "*" if "prefix" in path else path.get("path") or path["safe_regex"]["regex"])}
    filters = _filters(rule)
    if filters:
        made["typed_per_filter_config"] = filters
    return made


def destination_port(mesh, virtual, destination, port):
    """What is said, or the only port of the Service, or that of the listener."""
    service = mesh.service(full_name(destination["host"], virtual.namespace))
    if "port" in destination:
        return destination["port"]["number"]
    return service.ports[0].number if service and len(service.ports) == 1 else port


def _target(mesh, virtual, destination, port):
    return (full_name(destination["host"], virtual.namespace), destination.get("subset", ""),
            destination_port(mesh, virtual, destination, port))


def forward(mesh, namespace, targets, rule, said=()):
    """A RouteAction; `targets` are (host, subset, port), `said` what a rule has for each of them."""
    timeout = duration(rule.get("timeout", 0))
    action = {"timeout": timeout, "max_grpc_timeout": timeout}
    if len(targets) == 1:
        host, subset, port = targets[0]
        action["cluster"] = outbound_name(port, host, subset)
    else:
        weighted = []
        for (host, subset, port), one in zip(targets, said):
            cluster = {"name": outbound_name(port, host, subset), "weight": one.get("weight", 0)}
            _headers(cluster, one.get("headers", {}))
            weighted.append(cluster)
        action["weighted_clusters"] = {"clusters": weighted}
    hashes = []
    for host, subset, port in targets:
        service = mesh.service(host)
        hashing = service and service.port(port) and load_balancer_of(mesh, host, service.port(port), subset, namespace)
        if hashing:
            hashes.append(_hash_policy(hashing))
    if hashes:
        action["hash_policy"] = hashes
    retry = _retry(rule.get("retries"), consistent=bool(hashes))
    if retry:
        action["retry_policy"] = retry
    rewrite = rule.get("rewrite", {})
    if "uri" in rewrite:
        action["prefix_rewrite"] = rewrite["uri"]
    if "uriRegexRewrite" in rewrite:
        action["regex_rewrite"] = {"pattern": {"regex": rewrite["uriRegexRewrite"]["match"]},
                                   "substitution": rewrite["uriRegexRewrite"]["rewrite"]}
    if "authority" in rewrite:
        action["host_rewrite_literal"] = rewrite["authority"]
    return action


def _match(match):
    if match is None or not any(key in match for key in ("uri", "headers", "withoutHeaders", "queryParams", "method",
                                                         "authority", "scheme")):
        return {"prefix": "/"}
    uri = match.get("uri", {"prefix": "/"})
    made = {"case_sensitive": not match.get("ignoreUriCase", False)}
    if "regex" in uri:
        made["safe_regex"] = {"regex": uri["regex"]}
    elif "exact" in uri:
        made["path"] = uri["exact"]
    else:
        made["prefix"] = uri["prefix"]
    headers = [_header(name, said) for name, said in sorted(match.get("headers", {}).items())]
    for name, said in sorted(match.get("withoutHeaders", {}).items()):
        missing = {"treat_missing_header_as_empty": True} if said else {}
        headers.append({**_header(name, said), "invert_match": True, **missing})
    for field in ("method", "authority", "scheme"):
        if field in match:
            headers.append(_header(f":{field}", match[field]))
    if headers:
        made["headers"] = headers
    if match.get("queryParams"):
        made["query_parameters"] = [_header(name, said) for name, said in sorted(match["queryParams"].items())]
    return made


def _string(said):
    if "regex" in said:
        return {"safe_regex": {"regex": said["regex"]}}
    return {key: said[key] for key in ("exact", "prefix") if key in said}


def _header(name, said):
    return {"name": name, "string_match": _string(said)} if said else {"name": name, "present_match": True}


def _headers(made, said):
    """Adds the changes of headers of a rule to a route or to one of its clusters."""
    for side in ("request", "response"):
        changes = said.get(side, {})
        added = [{"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
                 for key, value in sorted(changes.get("set", {}).items())]
        added += [{"header": {"key": key, "value": value}} for key, value in sorted(changes.get("add", {}).items())]
        if added:
            made.setdefault(f"{side}_headers_to_add", []).extend(added)
        if changes.get("remove"):
            made.setdefault(f"{side}_headers_to_remove", []).extend(changes["remove"])


def _redirect(said):
    made = {"response_code": REDIRECTS[said.get("redirectCode", 301)]}
    for key, name in (("authority", "host_redirect"), ("scheme", "scheme_redirect"), ("port", "port_redirect"),
                      ("uri", "path_redirect")):
        if key in said:
            made[name] = said[key]
    if made.get("path_redirect", "").startswith("%PREFIX()%"):
        made["prefix_rewrite"] = made.pop("path_redirect").removeprefix("%PREFIX()%")
    return made


def _percentage(said):
    return {"numerator": round(said.get("percentage", {"value": 100})["value"] * 10000), "denominator": "MILLION"}


def _mirror(mesh, virtual, rule, port):
    host, subset, number = _target(mesh, virtual, rule["mirror"], port)
    share = rule.get("mirrorPercentage", {"value": 100})
    return {"cluster": outbound_name(number, host, subset), "trace_sampled": False,
            "disable_shadow_host_suffix_append": True,
            "runtime_fraction": {"default_value": _percentage({"percentage": share})}}


def _retry(said, consistent):
    """Istio's default unless a rule says otherwise; with a consistent hash another host is not asked for."""
    if said is not None and said["attempts"] == 0:
        return None
    words = [word.strip() for word in (said or {}).get("retryOn", RETRY_ON).split(",") if word.strip()]
    codes = [int(word) for word in words if re.fullmatch(r"[1-5]\d\d", word)]
    words = [word for word in words if not re.fullmatch(r"[1-5]\d\d", word)]
    if codes and "retriable-status-codes" not in words:
        words.append("retriable-status-codes")
    made = {"retry_on": ",".join(words), "num_retries": said["attempts"] if said else 2,
            "host_selection_retry_max_attempts": 5}
    if not consistent:
        kind = EXTENSIONS + "retry.host.previous_hosts.v3.PreviousHostsPredicate"
        made["retry_host_predicate"] = [{"name": "envoy.retry_host_predicates.previous_hosts",
                                         "typed_config": any_of(kind)}]
    if codes:
        made["retriable_status_codes"] = codes
    if said and "perTryTimeout" in said:
        made["per_try_timeout"] = duration(said["perTryTimeout"])
    if said and "backoff" in said:
        made["retry_back_off"] = {"base_interval": duration(said["backoff"])}
    return made


def _hash_policy(said):
    if "httpHeaderName" in said:
        return {"header": {"header_name": said["httpHeaderName"]}}
    if "httpCookie" in said:
        cookie = said["httpCookie"]
        return {"cookie": {"name": cookie["name"], **({"path": cookie["path"]} if "path" in cookie else {}),
                           **({"ttl": duration(cookie["ttl"])} if "ttl" in cookie else {})}}
    if "httpQueryParameterName" in said:
        return {"query_parameter": {"name": said["httpQueryParameterName"]}}
    return {"connection_properties": {"source_ip": True}}


def _filters(rule):
    made = {}
    if "fault" in rule:
        delay, abort = rule["fault"].get("delay"), rule["fault"].get("abort")
        made["envoy.filters.http.fault"] = any_of(
            EXTENSIONS + "filters.http.fault.v3.HTTPFault",
            **({"delay": {"fixed_delay": duration(delay["fixedDelay"]), "percentage": _percentage(delay)}}
               if delay else {}),
            **({"abort": {"http_status": abort["httpStatus"], "percentage": _percentage(abort)}} if abort else {}))
    if "corsPolicy" in rule:
        said = rule["corsPolicy"]
        lists = {name: ",".join(said[key]) for key, name in (
            ("allowMethods", "allow_methods"), ("allowHeaders", "allow_headers"),
            ("exposeHeaders", "expose_headers")) if said.get(key)}
        made["envoy.filters.http.cors"] = any_of(
            EXTENSIONS + "filters.http.cors.v3.CorsPolicy", **lists,
            allow_origin_string_match=[_string(origin) for origin in said.get("allowOrigins", [])],
            filter_enabled={"default_value": {"numerator": 100}}, forward_not_matching_preflights=True,
            **({"max_age": str(round(said["maxAge"]))} if "maxAge" in said else {}),
            **({"allow_credentials": said["allowCredentials"]} if "allowCredentials" in said else {}))
    return made
