# SPDX-License-Identifier: Apache-2.0
"""Route configurations: of the sidecars' outbound ports, of gateways, and the one inside an inbound chain."""

from .model import full_name, matches_host
from .rules import catch_all_last, forward, routes


def route_configurations(mesh, pod):
    """All that listeners of this pod ask for by name."""
    if pod.kind == "router":
        return _gateway_configurations(mesh, pod)
    ports = sorted({port.number for service in mesh.services for port in service.ports if port.http})
    made = [_configuration(str(port), _outbound_hosts(mesh, pod, port)) for port in ports]
    for service in mesh.services:  # what is looked at has a configuration of its own
        for port in service.ports:
            if port.sniffed:
                hosts = [_virtual_host(f"{service.host}:{port.number}", ["*"],
                                       _service_routes(mesh, pod, service, port))]
                made.append(_configuration(sniffed_name(service, port), hosts))
    return made


def sniffed_name(service, port):
    return f"{service.host}:{port.number}"


def inbound_configuration(cluster, port, operation, retries=True):
    """The route of an inbound chain to the application."""
    action = {"cluster": cluster, "timeout": "0s",
              "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"}}
    if retries:
        action["retry_policy"] = {"retry_on": "reset-before-request", "num_retries": 2}
    return {"name": cluster, "validate_clusters": False, "virtual_hosts": [{
        "name": f"inbound|http|{port}", "domains": ["*"], "routes": [{
            "name": "default", "match": {"prefix": "/"}, "route": action,
            "decorator": {"operation": operation}}]}]}


def _configuration(name, hosts):
    return {"name": name, "virtual_hosts": hosts, "validate_clusters": False,
            "max_direct_response_body_size_bytes": 1048576, "ignore_port_in_host_matching": True}


def _virtual_host(name, domains, rows, **more):
    return {"name": name, "domains": domains, "routes": rows, "include_request_attempt_count": True, **more}


# --- sidecars ---

def _domains(service, namespace):
    """All names by which a client in a namespace may call a Service."""
    near, far = f"{service.name}.{service.namespace}", f"{service.name}.{service.namespace}.svc"
    short = [service.name, far, near] if namespace == service.namespace else [near, far]
    return [service.host, f"{service.host}.", *short, service.address]


def _outbound_hosts(mesh, pod, number):
    hosts, known = [], {service.host for service in mesh.services}
    for service in mesh.services:
        port = service.port(number)
        if port is not None and port.http:
            hosts.append(_virtual_host(f"{service.host}:{number}", _domains(service, pod.namespace),
                                       _service_routes(mesh, pod, service, port)))
    taken = set()
    for virtual in mesh.virtual_services():  # names that are no Service: routes alone make them
        for host in virtual.spec["hosts"]:
            name = full_name(host, virtual.namespace)
            if name in known or name in taken or not virtual.spec.get("http"):
                continue
            taken.add(name)
            hosts.append(_virtual_host(f"{name}:{number}", [name],
                                       routes(mesh, pod, virtual, "mesh", number)))
    if "*" not in taken:
        hosts.append(_virtual_host("allow_any", ["*"], [{
            "name": "allow_any", "match": {"prefix": "/"},
            "route": {"cluster": "PassthroughCluster", "timeout": "0s", "max_grpc_timeout": "0s"}}]))
    return hosts


def virtual_service_of(mesh, service, kind="http"):
    """The first one of the sidecars that speaks about a Service."""
    for virtual in mesh.virtual_services():
        if virtual.spec.get(kind) and any(matches_host(full_name(host, virtual.namespace), service.host)
                                          for host in virtual.spec["hosts"]):
            return virtual
    return None


def _service_routes(mesh, pod, service, port):
    virtual = virtual_service_of(mesh, service)
    if virtual is not None:
        return routes(mesh, pod, virtual, "mesh", port.number)
    return [{"name": "default", "match": {"prefix": "/"},
             "route": forward(mesh, pod.namespace, [(service.host, "", port.number)], {}),
             "decorator": {"operation": f"{service.host}:{port.number}/*"}}]


# --- gateways ---

def gateway_route_name(port):
    return f"http.{port}"


def gateway_ports(mesh, pod):
    """{port where the router listens: (port that the Gateway says, [(Gateway, server), ...])}: a Service in front of
    the router may lead the one to the other."""
    found = {}
    for gateway in mesh.gateways(pod):
        for server in gateway.spec["servers"]:
            said = server["port"]["number"]
            listens = said
            for service in mesh.services:
                port = service.port(said)
                if port is not None and service.selects(pod.namespace, pod.labels):
                    listens = mesh.target(port, pod) or said
                    break
            found.setdefault(listens, (said, []))[1].append((gateway, server))
    return found


def _gateway_configurations(mesh, pod):
    made = []
    for listens, (said, servers) in sorted(gateway_ports(mesh, pod).items()):
        if servers[0][1]["port"]["protocol"] == "TCP":
            continue
        hosts = {}
        for gateway, server in servers:
            for virtual in mesh.virtual_services(f"{gateway.namespace}/{gateway.name}"):
                for name in _common_hosts(server["hosts"], gateway.namespace, virtual):
                    found = routes(mesh, pod, virtual, f"{gateway.namespace}/{gateway.name}", said)
                    if name in hosts:
                        hosts[name]["routes"] = catch_all_last(hosts[name]["routes"] + found)
                    elif found:
                        redirect = {"require_tls": "ALL"} if server.get("tls", {}).get("httpsRedirect") else {}
                        hosts[name] = _virtual_host(f"{name}:{said}", [name], found, **redirect)
        if not hosts:
            hosts["*"] = {"name": f"blackhole:{said}", "domains": ["*"]}
        made.append(_configuration(gateway_route_name(listens), list(hosts.values())))
    return made


def _common_hosts(served, namespace, virtual):
    """What a server and a VirtualService have in common: the narrower name of each pair."""
    common = []
    for entry in served:
        place, _, pattern = entry.rpartition("/")
        if place not in ("", "*") and virtual.namespace != (namespace if place == "." else place):
            continue
        for host in (full_name(name, virtual.namespace) for name in virtual.spec["hosts"]):
            name = host if matches_host(pattern, host) else pattern if matches_host(host, pattern) else None
            if name is not None and name not in common:
                common.append(name)
    return common
