# SPDX-License-Identifier: Apache-2.0
"""What a schema cannot see: names that must exist elsewhere, sums, patterns. One error an object, the first."""

import re

from .model import full_name, matches_host
from .policy import address_range, condition, trusted
from .rules import REDIRECTS


def check(one, mesh):
    """Raises Invalid for an object that cannot be served together with the others of the mesh."""
    _CHECKS.get(one.kind, lambda *_: None)(one, mesh)


def _service(one, _mesh):
    if one.spec.get("clusterIP") == "None":
        raise one.invalid(one.spec.line_of("clusterIP"), "clusterIP None (a headless Service) is not served here")
    ports, names = set(), set()
    for i, port in enumerate(one.spec["ports"]):
        if port["port"] in ports:
            raise one.invalid(one.spec["ports"].lines[i], f"spec.ports[{i}]: port {port['port']} is there twice")
        if len(one.spec["ports"]) > 1 and (not port.get("name") or port["name"] in names):
            raise one.invalid(one.spec["ports"].lines[i], f"spec.ports[{i}]: of several ports each wants its own name")
        ports.add(port["port"])
        names.add(port.get("name"))


def _virtual_service(one, mesh):
    if not one.spec.get("http") and not one.spec.get("tcp"):
        raise one.invalid(one.spec.line, "spec wants http or tcp")
    for i, name in enumerate(one.spec.get("gateways", [])):
        if name != "mesh" and not _gateway_known(mesh, name, one.namespace):
            raise one.invalid(one.spec["gateways"].lines[i], f"spec.gateways[{i}]: there is no Gateway {name!r}")
    for i, rule in enumerate(one.spec.get("http", [])):
        at = f"spec.http[{i}]"
        _destinations(one, mesh, rule, at)
        if "mirror" in rule:
            _destination(one, mesh, rule["mirror"], f"{at}.mirror")
        if "redirect" in rule:
            code = rule["redirect"].get("redirectCode", 301)
            if code not in REDIRECTS:
                raise one.invalid(rule["redirect"].line_of("redirectCode"),
                                  f"{at}.redirect.redirectCode: {code} is not one of "
                                  + ", ".join(map(str, REDIRECTS)))
        if "fault" in rule and not rule["fault"]:
            raise one.invalid(rule.line_of("fault"), f"{at}.fault wants delay or abort")
        if "fault" in rule or "rewrite" in rule or "mirror" in rule or "retries" in rule:
            _wants_route(one, rule, at)
        for j, match in enumerate(rule.get("match", [])):
            _match(one, match, f"{at}.match[{j}]")
        if "rewrite" in rule and "uriRegexRewrite" in rule["rewrite"]:
            _regex(one, rule["rewrite"]["uriRegexRewrite"], "match", f"{at}.rewrite.uriRegexRewrite")
    for i, rule in enumerate(one.spec.get("tcp", [])):
        _destinations(one, mesh, rule, f"spec.tcp[{i}]")


def _wants_route(one, rule, at):
    if "route" not in rule:
        name = next(name for name in ("fault", "rewrite", "mirror", "retries") if name in rule)
        raise one.invalid(rule.line_of(name), f"{at}.{name} goes with route only")


def _gateway_known(mesh, name, namespace):
    place, _, name = name.rpartition("/")
    return any(g.name == name and g.namespace == (place or namespace) for g in mesh.of_kind("Gateway"))


def _destinations(one, mesh, rule, at):
    routes = rule.get("route", [])
    for i, route in enumerate(routes):
        _destination(one, mesh, route["destination"], f"{at}.route[{i}].destination")
    if len(routes) > 1:
        total = sum(route.get("weight", 0) for route in routes)
        if total != 100:
            shown = " + ".join(str(route.get("weight", 0)) for route in routes)
            raise one.invalid(rule.line_of("route"), f"{at}.route: the weights are {shown} = {total}, not 100")


def _destination(one, mesh, said, at):
    host = full_name(said["host"], one.namespace)
    service = mesh.service(host)
    if service is None:
        known = ", ".join(s.host for s in mesh.services) or "none"
        raise one.invalid(said.line_of("host"), f"{at}.host: there is no Service {host!r}; known are {known}")
    if "port" in said:
        number = said["port"]["number"]
        if service.port(number) is None:
            raise one.invalid(said.line_of("port"), f"{at}.port: Service {host} has no port {number}, it has "
                              + ", ".join(str(port.number) for port in service.ports))
    elif len(service.ports) > 1 and one.spec.get("gateways", ["mesh"]) != ["mesh"]:
        raise one.invalid(said.line, f"{at}.port is missing: Service {host} has several")
    if "subset" in said:
        rules = [rule for rule in mesh.of_kind("DestinationRule")
                 if matches_host(full_name(rule.spec["host"], rule.namespace), host)]
        if not any(mesh.subset(rule, said["subset"]) for rule in rules):
            names = sorted({s["name"] for rule in rules for s in rule.spec.get("subsets", [])})
            raise one.invalid(said.line_of("subset"), f"{at}.subset: no DestinationRule for {host} has a subset "
                              f"{said['subset']!r}; known are {', '.join(names) or 'none'}")


def _match(one, match, at):
    for field in ("uri", "method", "authority", "scheme"):
        if field in match:
            _regex(one, match[field], "regex", f"{at}.{field}")
    for field in ("headers", "withoutHeaders", "queryParams"):
        for name, said in match.get(field, {}).items():
            _regex(one, said, "regex", f"{at}.{field}.{name}")
    path = match.get("uri", {})
    for field in ("exact", "prefix"):
        if field in path and not path[field].startswith("/"):
            raise one.invalid(path.line_of(field), f"{at}.uri.{field}: {path[field]!r} does not begin with /")


def _regex(one, said, field, at):
    """RE2 itself is the proxies'; what Python refuses as well is found here."""
    if field in said:
        try:
            re.compile(said[field])
        except re.error as error:
            raise one.invalid(said.line_of(field), f"{at}.{field}: {said[field]!r} is no regular expression: "
                              f"{error}") from None


def _destination_rule(one, mesh):
    host = full_name(one.spec["host"], one.namespace)
    if not any(matches_host(host, service.host) for service in mesh.services):
        known = ", ".join(s.host for s in mesh.services) or "none"
        raise one.invalid(one.spec.line_of("host"), f"spec.host: there is no Service {host!r}; known are {known}")
    for other in mesh.of_kind("DestinationRule"):
        if other.key < one.key and other.namespace == one.namespace \
                and full_name(other.spec["host"], other.namespace) == host:
            raise one.invalid(one.spec.line_of("host"),
                              f"spec.host: {other.title} ({other.file}:{other.line}) speaks about {host} already")
    seen, subsets = set(), one.spec.get("subsets", [])
    for i, subset in enumerate(subsets):
        if subset["name"] in seen:
            raise one.invalid(subsets.lines[i], f"spec.subsets[{i}]: {subset['name']!r} is there twice")
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", subset["name"]):
            raise one.invalid(subset.line_of("name"), f"spec.subsets[{i}].name: {subset['name']!r} is no label")
        seen.add(subset["name"])
    for policy in [one.spec.get("trafficPolicy", {}), *(s.get("trafficPolicy", {}) for s in subsets)]:
        for settings in [policy, *policy.get("portLevelSettings", [])]:
            hashing = settings.get("loadBalancer", {}).get("consistentHash")
            if hashing is not None:
                keys = [key for key in hashing if key not in ("ringHash", "maglev")]
                if len(keys) != 1 or ("ringHash" in hashing and "maglev" in hashing):
                    raise one.invalid(hashing.line, "consistentHash wants one of httpHeaderName, httpCookie, "
                                      "useSourceIp, httpQueryParameterName, and ringHash or maglev at most")


def _gateway(one, mesh):
    protocols = {}
    for gateway in mesh.of_kind("Gateway"):
        if gateway.key > one.key or gateway.spec["selector"] != one.spec["selector"]:
            continue
        for i, server in enumerate(gateway.spec["servers"]):
            port = server["port"]
            kind = "TCP" if port["protocol"] == "TCP" else "HTTP"
            if protocols.setdefault(port["number"], kind) != kind and gateway is one:
                raise one.invalid(one.spec["servers"].lines[i], f"spec.servers[{i}]: port {port['number']} is "
                                  f"{protocols[port['number']]} already, it cannot be {port['protocol']} too")


def _peer_authentication(one, mesh):
    if one.spec.get("portLevelMtls") and not one.spec.get("selector", {}).get("matchLabels"):
        raise one.invalid(one.spec.line_of("portLevelMtls"), "spec.portLevelMtls goes with a selector only")
    for other in mesh.of_kind("PeerAuthentication"):
        if other.key < one.key and other.namespace == one.namespace \
                and other.spec.get("selector", {}).get("matchLabels", {}) \
                == one.spec.get("selector", {}).get("matchLabels", {}):
            raise one.invalid(one.line, f"{other.title} ({other.file}:{other.line}) is for the same workloads")


def _authorization_policy(one, _mesh):
    action = one.spec.get("action", "ALLOW")
    if action != "ALLOW" and not one.spec.get("rules"):
        raise one.invalid(one.spec.line, f"spec.rules is missing: {action} without rules does nothing")
    for i, rule in enumerate(one.spec.get("rules", [])):
        for j, source in enumerate(rule.get("from", [])):
            _source(one, source["source"], f"spec.rules[{i}].from[{j}].source")
        for j, target in enumerate(rule.get("to", [])):
            at, said = f"spec.rules[{i}].to[{j}].operation", target["operation"]
            if not said:
                raise one.invalid(target.line, f"{at} is empty")
            for field in ("ports", "notPorts"):
                _each(one, said, field, at, lambda value: 1 <= int(value) <= 65535, "a port")
            for field in ("paths", "notPaths"):
                _each(one, said, field, at, lambda value: "{" not in value, "a path without a template")
        for j, when in enumerate(rule.get("when", [])):
            _when(one, when, f"spec.rules[{i}].when[{j}]")


def _source(one, said, at):
    if not said:
        raise one.invalid(said.line, f"{at} is empty")
    for field in ("ipBlocks", "notIpBlocks", "remoteIpBlocks", "notRemoteIpBlocks"):
        _each(one, said, field, at, address_range, "an address or a range of them")
    for field in ("principals", "notPrincipals"):
        _each(one, said, field, at, trusted, "a principal of cluster.local (cluster.local/ns/NAMESPACE/sa/NAME)")


def _each(one, said, field, at, good, what):
    for i, value in enumerate(said.get(field, [])):
        try:
            fine = good(value)
        except ValueError:
            fine = False
        if not fine:
            raise one.invalid(said[field].lines[i], f"{at}.{field}[{i}]: {value!r} is not {what}")


def _when(one, when, at):
    try:
        _, _, make = condition(when["key"])
    except KeyError:
        raise one.invalid(when.line_of("key"), f"{at}.key: {when['key']!r} is not known here") from None
    if not when.get("values") and not when.get("notValues"):
        raise one.invalid(when.line, f"{at} wants values or notValues")

    def makes(value):
        make(value)
        return True
    for field in ("values", "notValues"):
        _each(one, when, field, at, makes, f"a value for {when['key']}")


_CHECKS = {"Service": _service, "VirtualService": _virtual_service, "DestinationRule": _destination_rule,
           "Gateway": _gateway, "PeerAuthentication": _peer_authentication,
           "AuthorizationPolicy": _authorization_policy}
