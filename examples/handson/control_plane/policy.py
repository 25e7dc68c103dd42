# SPDX-License-Identifier: Apache-2.0
"""AuthorizationPolicies as filters: one for each action, in the order in which Istio asks them.

On a chain of plain TCP nothing is known of requests: a rule that allows by them is left out there (less is allowed), in
one that denies or audits the condition alone is left out (more is denied)."""

import ipaddress

from .certificates import TRUST_DOMAIN
from .shapes import EXTENSIONS, filter_of, http_filter

ACTIONS = (("AUDIT", "LOG"), ("DENY", "DENY"), ("ALLOW", "ALLOW"))
DRY_RUN = "istio.io/dry-run"
OF_REQUESTS = {"hosts", "methods", "paths"}


def http_filters(mesh, pod):
    return [http_filter("rbac", "RBAC", **rules) for rules in _rule_sets(mesh.policies(pod), http=True)]


def network_filters(mesh, pod):
    return [filter_of("envoy.filters.network.rbac", EXTENSIONS + "filters.network.rbac.v3.RBAC",
                      stat_prefix="tcp.", **rules) for rules in _rule_sets(mesh.policies(pod), http=False)]


def _rule_sets(policies, http):
    made = []
    for said, action in ACTIONS:
        of_action = [p for p in policies if p.spec.get("action", "ALLOW") == said]
        if not of_action:
            continue
        enforced, tried = {}, {}
        for policy in of_action:
            dry = policy.annotations.get(DRY_RUN, "").lower() == "true"
            (tried if dry else enforced).update(_policy(policy, said, http))
        rules = {"shadow_rules_stat_prefix": "istio_dry_run_allow_"}
        if enforced or any(p.annotations.get(DRY_RUN, "").lower() != "true" for p in of_action):
            rules["rules"] = {"action": action, **({"policies": enforced} if enforced else {})}
        if tried:
            rules["shadow_rules"] = {"action": action, "policies": tried}
            rules["shadow_rules_stat_prefix"] = f"istio_dry_run_{'deny' if said == 'DENY' else 'allow'}_"
        made.append(rules)
    return made


def _policy(policy, action, http):
    """{name: Envoy's policy} of each rule that can be said on this kind of chain."""
    name = f"ns[{policy.namespace}]-policy[{policy.name}]-rule"
    rules = policy.spec.get("rules", [])
    if not rules:  # a policy that never matches: an ALLOW that allows nobody
        return {f"{name}[0]": {"permissions": [{"any": True}], "principals": [{"not_id": {"any": True}}]}}
    made = {}
    for i, rule in enumerate(rules):
        try:
            made[f"{name}[{i}]"] = _rule(rule, http, wider=action != "ALLOW")
        except _AboutRequests:
            pass
    return made


class _AboutRequests(Exception):
    """An ALLOW rule that wants to know of a request what a TCP chain cannot know."""


def _rule(rule, http, wider):
    def known(conditions, about_requests):
        if http or not about_requests:
            return conditions
        if wider:
            return []
        raise _AboutRequests

    of_peer, of_target = [], []
    for when in rule.get("when", []):
        target, requests, make = condition(when["key"])
        made = known(_both(when.get("values"), when.get("notValues"), make, target), requests)
        (of_target if target else of_peer).extend(made)
    permissions = []
    for one in rule.get("to", [{"operation": {}}]):
        parts = []
        for field, make in (("hosts", _host), ("methods", _method), ("paths", _path), ("ports", _port)):
            said, denied = one["operation"].get(field), one["operation"].get("not" + field.capitalize())
            parts += known(_both(said, denied, make, True), field in OF_REQUESTS and (said or denied))
        permissions.append({"and_rules": {"rules": parts + of_target or [{"any": True}]}})
    principals = []
    for one in rule.get("from", [{"source": {}}]):
        parts = []
        for field, make in (("principals", _principal), ("namespaces", _namespace), ("ipBlocks", _peer_address),
                            ("remoteIpBlocks", _client_address)):
            said, denied = one["source"].get(field), one["source"].get("not" + field[0].upper() + field[1:])
            parts += known(_both(said, denied, make, False), False)
        principals.append({"and_ids": {"ids": parts + of_peer or [{"any": True}]}})
    return {"permissions": permissions, "principals": principals}


def _both(values, not_values, make, permission):
    """The conditions "one of these" and "none of those", as permissions or as principals."""
    either, items, no = ("or_rules", "rules", "not_rule") if permission else ("or_ids", "ids", "not_id")
    made = []
    if values:
        made.append({either: {items: [make(value) for value in values]}})
    if not_values:
        made.append({no: {either: {items: [make(value) for value in not_values]}}})
    return made


# --- single conditions ---

def pattern(value, prefix="", **more):
    """Istio's "*", "abc*", "*abc" and "abc" as a string matcher; `prefix` belongs before whole names and beginnings."""
    if value == "*":
        return {"safe_regex": {"regex": ".+"}}
    if value.endswith("*"):
        return {"prefix": prefix + value[:-1], **more}
    if value.startswith("*"):
        return {"suffix": value[1:], **more}
    return {"exact": prefix + value, **more}


def _header(name, value, **more):
    return {"header": {"name": name, "string_match": pattern(value, **more)}}


def _host(value):
    return _header(":authority", value, ignore_case=True) if value != "*" else {
        "header": {"name": ":authority", "present_match": True}}


def _method(value):
    return _header(":method", value)


def _path(value):
    return {"url_path": {"path": pattern(value)}}


def _port(value):
    return {"destination_port": int(value)}


def _principal(value):
    return {"authenticated": {"principal_name": pattern(value, "spiffe://")}}


def _namespace(value):
    inner = ".*".join(part.replace(".", "\\.") for part in value.split("*"))
    return {"authenticated": {"principal_name": {"safe_regex": {"regex": f".*/ns/{inner}/.*"}}}}


def address_range(value):
    """"10.0.0.0/8" or "10.1.2.3" as a CidrRange; ValueError where it is neither."""
    network = ipaddress.ip_network(value, strict=False)
    return {"address_prefix": value.partition("/")[0], "prefix_len": network.prefixlen}


def _peer_address(value):
    return {"direct_remote_ip": address_range(value)}


def _client_address(value):
    return {"remote_ip": address_range(value)}


def _target_address(value):
    return {"destination_ip": address_range(value)}


def _server_name(value):
    return {"requested_server_name": pattern(value)}


CONDITIONS = {  # key: (about the target, about the request, maker)
    "source.ip": (False, False, _peer_address), "remote.ip": (False, False, _client_address),
    "source.namespace": (False, False, _namespace), "source.principal": (False, False, _principal),
    "destination.ip": (True, False, _target_address), "destination.port": (True, False, _port),
    "connection.sni": (True, False, _server_name)}


def condition(key):
    """How the key of a `when` is matched; KeyError where it is not known."""
    if key.startswith("request.headers[") and key.endswith("]"):
        name = key[len("request.headers["):-1]
        return False, True, lambda value: _header(name, value)
    return CONDITIONS[key]


def trusted(principal):
    """Whether a principal can be one of this mesh at all."""
    return principal.startswith("*") or principal.split("/")[0] in (TRUST_DOMAIN, "*")
