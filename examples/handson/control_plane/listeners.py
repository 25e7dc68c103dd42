# SPDX-License-Identifier: Apache-2.0
"""Listeners: what leaves a pod, what enters it, and where a gateway listens."""

from . import policy
from .clusters import inbound_name, outbound_name, rule_path
from .model import full_name, matches
from .routes import (gateway_ports, gateway_route_name, inbound_configuration, sniffed_name,
                     virtual_service_of)
from .rules import destination_port
from .shapes import (BYTES_OVER_ISTIO, EXTENSIONS, HTTP_OVER_ISTIO, ISTIO_ALPN, PLAIN_HTTP, access_log, alpn,
                     connection_manager, downstream_tls, filter_of, http_filter, metadata_exchange, peer_metadata,
                     socket_address, stats, tcp_proxy)

OUTBOUND_PORT, INBOUND_PORT = 15001, 15006


def listeners(mesh, pod):
    if pod.kind == "router":
        return _gateway(mesh, pod)
    return [*_outbound(mesh, pod), _virtual_inbound(mesh, pod), _virtual_outbound()]


def _chain(filters, name="", match=None, **more):
    return {**({"filter_chain_match": match} if match else {}), "filters": filters,
            **({"name": name} if name else {}), **more}


def _http_tail(outbound):
    """The filters that every connection manager has behind its own."""
    return [http_filter("grpc_stats", "FilterConfig", emit_filter_state=True, stats_for_all_methods=False),
            *([alpn()] if outbound == "upstream" else []),
            http_filter("fault", "HTTPFault"), http_filter("cors", "Cors")]


def _router(for_client):
    return [stats(for_client), http_filter("router", "Router")]


# --- what leaves ---

def _outbound(mesh, pod):
    made, seen = [], set()
    for service in mesh.services:
        for port in service.ports:
            if not port.http:
                made.append(_service_listener(mesh, pod, service, port))
            elif port.number not in seen:
                seen.add(port.number)
                made.append(_port_listener(mesh, pod, port.number))
    return sorted(made, key=lambda listener: listener["name"])


def _handed_over(name, address, port, chains, **more):
    """A listener that has no socket: virtualOutbound hands its connections over to it."""
    return {"name": name, "address": socket_address(address, port), "filter_chains": chains, "bind_to_port": False,
            "traffic_direction": "OUTBOUND", "listener_filters_timeout": "0s",
            "continue_on_listener_filters_timeout": True, **more}


def _outbound_http(mesh, pod, address, port, routes):
    filters = [peer_metadata("upstream"), *_http_tail("upstream"), *_router(True)]
    return _chain([connection_manager(f"outbound_{address}_{port}", filters, routes, mesh, pod)],
                  match={"transport_protocol": "raw_buffer", "application_protocols": PLAIN_HTTP},
                  transport_socket_connect_timeout="15s")


def _http_inspector(**more):
    return {**filter_of("envoy.filters.listener.http_inspector",
                        EXTENSIONS + "filters.listener.http_inspector.v3.HttpInspector"), **more}


def _port_listener(mesh, pod, port):
    """All services that speak HTTP at a port; what is no HTTP goes where it wanted to."""
    return _handed_over(
        f"0.0.0.0_{port}", "0.0.0.0", port, [_outbound_http(mesh, pod, "0.0.0.0", port, str(port))],
        listener_filters=[_http_inspector()],
        default_filter_chain={**_chain(_passthrough_filters(), "PassthroughFilterChain"), "filter_chain_match": {}})


def _passthrough_filters():
    return [stats(True), tcp_proxy("PassthroughCluster", access_log=access_log())]


def _service_listener(mesh, pod, service, port):
    """One service's own: bytes, or what is looked at first."""
    name = f"{service.address}_{port.number}"
    target, more = _tcp_target(mesh, pod, service, port)
    bytes_chain = _chain([stats(True), target], transport_socket_connect_timeout="15s", **more)
    if not port.sniffed:
        return _handed_over(name, service.address, port.number, [bytes_chain])
    return _handed_over(
        name, service.address, port.number,
        [_outbound_http(mesh, pod, service.address, port.number, sniffed_name(service, port))],
        listener_filters=[_http_inspector()], default_filter_chain={**bytes_chain, "filter_chain_match": {}})


def _tcp_target(mesh, pod, service, port):
    """The filter, and what the chain has more because of a VirtualService."""
    virtual = virtual_service_of(mesh, service, "tcp")
    for rule in virtual.spec["tcp"] if virtual else []:
        wanted = rule.get("match") or [{}]
        if any(match.get("port", port.number) == port.number and "mesh" in (match.get("gateways") or ["mesh"])
               and matches(match.get("sourceLabels", {}), pod.labels) for match in wanted):
            metadata = {"filter_metadata": {"istio": {"config": rule_path(virtual)}}}
            return _tcp_rule(mesh, virtual, rule, port.number), {"metadata": metadata}
    return tcp_proxy(outbound_name(port.number, service.host), access_log=access_log()), {}


def _tcp_rule(mesh, virtual, rule, port):
    targets = []
    for one in rule["route"]:
        destination = one["destination"]
        targets.append({"name": outbound_name(destination_port(mesh, virtual, destination, port),
                                              full_name(destination["host"], virtual.namespace),
                                              destination.get("subset", "")), "weight": one.get("weight", 0)})
    if len(targets) == 1:
        return tcp_proxy(targets[0]["name"], access_log=access_log())
    made = tcp_proxy(f"{virtual.name}.{virtual.namespace}", access_log=access_log())
    made["typed_config"].pop("cluster")
    made["typed_config"]["weighted_clusters"] = {"clusters": [t for t in targets if t["weight"]]}
    return made


def _virtual_outbound():
    return {"name": "virtualOutbound", "address": socket_address("0.0.0.0", OUTBOUND_PORT), "use_original_dst": True,
            "traffic_direction": "OUTBOUND", "access_log": access_log("NR"),
            "max_connections_to_accept_per_socket_event": 1,
            "filter_chains": [
                _chain([stats(True), tcp_proxy("BlackHoleCluster")], "virtualOutbound-blackhole",
                       {"destination_port": OUTBOUND_PORT}),
                _chain(_passthrough_filters(), "virtualOutbound-catchall-tcp")]}


# --- what enters ---

def _virtual_inbound(mesh, pod):
    mode = mesh.tls_mode(pod)
    makers = _InboundChains(mesh, pod)
    chains = [_chain([metadata_exchange(), stats(False), tcp_proxy("BlackHoleCluster")], "virtualInbound-blackhole",
                     {"destination_port": INBOUND_PORT}),
              *makers.catch_all(mode)]
    no_tls, no_http = [INBOUND_PORT], [INBOUND_PORT]
    looks_at_http = mode != "STRICT"
    for target, service, port in mesh.inbound(pod):
        of_port = mesh.tls_mode(pod, target)
        chains += makers.of_port(of_port, target, service, port)
        if of_port == "DISABLE":
            no_tls.append(target)
        if port.sniffed and of_port != "STRICT":
            looks_at_http = True
        else:
            no_http.append(target)
    inspectors = [filter_of("envoy.filters.listener.original_dst",
                            EXTENSIONS + "filters.listener.original_dst.v3.OriginalDst"),
                  {**filter_of("envoy.filters.listener.tls_inspector",
                               EXTENSIONS + "filters.listener.tls_inspector.v3.TlsInspector",
                               initial_read_buffer_size=512), "filter_disabled": _ports(no_tls)}]
    if looks_at_http:
        inspectors.append(_http_inspector(filter_disabled=_ports(no_http)))
    return {"name": "virtualInbound", "address": socket_address("0.0.0.0", INBOUND_PORT), "filter_chains": chains,
            "listener_filters": inspectors, "listener_filters_timeout": "0s",
            "continue_on_listener_filters_timeout": True, "traffic_direction": "INBOUND",
            "access_log": access_log("NR"), "max_connections_to_accept_per_socket_event": 1}


def _ports(numbers):
    """The condition of a listener filter that it does not look at these ports."""
    ranges = [{"destination_port_range": {"start": port, "end": port + 1}} for port in sorted(numbers)]
    return ranges[0] if len(ranges) == 1 else {"or_match": {"rules": ranges}}


class _InboundChains:
    """The chains of virtualInbound: for each port of the pod, and for all others."""

    def __init__(self, mesh, pod):
        self.mesh, self.pod = mesh, pod
        self.http_policies, self.policies = policy.http_filters(mesh, pod), policy.network_filters(mesh, pod)

    def catch_all(self, mode):
        routes = inbound_configuration("InboundPassthroughCluster", 0, ":0/*")
        return self._sniffed(mode, {}, ("virtualInbound-catchall-http", "virtualInbound"),
                             self._http("InboundPassthroughCluster", routes), self._tcp("InboundPassthroughCluster"))

    def of_port(self, mode, target, service, port):
        cluster, name = inbound_name(target), f"0.0.0.0_{target}"
        to_port = {"destination_port": target}
        http2 = {"http2_protocol_options": {}} if port.http == 2 else {}
        routes = inbound_configuration(cluster, port.number, f"{service.host}:{port.number}/*", port.http != 2)
        http, tcp = self._http(f"inbound_0.0.0.0_{target}", routes, **http2), self._tcp(cluster)
        if port.sniffed:
            return self._sniffed(mode, to_port, (name, name), http, tcp)
        filters, secure = (http, downstream_tls(True)) if port.http else (tcp, downstream_tls(False))
        plain = _chain(filters, name, {**to_port, "transport_protocol": "raw_buffer"})
        if mode == "STRICT":
            return [_chain(filters, name, {**to_port, "transport_protocol": "tls"}, transport_socket=secure)]
        if mode == "DISABLE":
            return [plain]
        mutual = _chain(filters, name, {**to_port, "transport_protocol": "tls", "application_protocols": ISTIO_ALPN},
                        transport_socket=secure)
        if port.http:
            return [mutual, plain]
        return [mutual, _chain(filters, name, {**to_port, "transport_protocol": "tls"}), plain]

    def _sniffed(self, mode, match, names, http, tcp):
        """Where it is not known what comes. TLS that is not the mesh's own goes through as it is, if that is allowed."""
        http_name, tcp_name = names
        over_tls, plain = {**match, "transport_protocol": "tls"}, {**match, "transport_protocol": "raw_buffer"}
        plain_chains = [_chain(http, http_name, {**plain, "application_protocols": PLAIN_HTTP}),
                        _chain(tcp, tcp_name, plain)]
        if mode == "DISABLE":
            return plain_chains
        http_tls = _chain(http, http_name, {**over_tls, "application_protocols": HTTP_OVER_ISTIO},
                          transport_socket=downstream_tls(True))
        if mode == "STRICT":
            return [http_tls, _chain(tcp, tcp_name, over_tls, transport_socket=downstream_tls(False))]
        return [http_tls, plain_chains[0],
                _chain(tcp, tcp_name, {**over_tls, "application_protocols": BYTES_OVER_ISTIO},
                       transport_socket=downstream_tls(False)),
                plain_chains[1], _chain(tcp, tcp_name, over_tls)]

    def _http(self, prefix, routes, **more):
        filters = [peer_metadata("downstream"), *self.http_policies, *_http_tail("downstream"), *_router(False)]
        return [metadata_exchange(), connection_manager(
            prefix, filters, routes, self.mesh, self.pod, server_name="istio-envoy",
            forward_client_cert_details="APPEND_FORWARD",
            set_current_client_cert_details={"subject": True, "dns": True, "uri": True}, **more)]

    def _tcp(self, cluster):
        return [metadata_exchange(), *self.policies, stats(False), tcp_proxy(cluster, access_log=access_log())]


# --- a gateway ---

def _gateway(mesh, pod):
    made = []
    for listens, (said, servers) in sorted(gateway_ports(mesh, pod).items()):
        if servers[0][1]["port"]["protocol"] == "TCP":
            filters = _gateway_tcp(mesh, said, servers)
            if filters is None:
                continue
        else:
            filters = [_gateway_http(mesh, pod, listens)]
        made.append({"name": f"0.0.0.0_{listens}", "address": socket_address("0.0.0.0", listens),
                     "traffic_direction": "OUTBOUND", "max_connections_to_accept_per_socket_event": 1,
                     "access_log": access_log("NR"),
                     "filter_chains": [_chain(filters, transport_socket_connect_timeout="15s")]})
    return made


def _gateway_http(mesh, pod, port):
    filters = [peer_metadata("upstream"), *policy.http_filters(mesh, pod), *_http_tail("upstream"), *_router(False)]
    return connection_manager(
        f"outbound_0.0.0.0_{port}", filters, gateway_route_name(port), mesh, pod, server_name="istio-envoy",
        use_remote_address=True, forward_client_cert_details="SANITIZE_SET", http_protocol_options={},
        set_current_client_cert_details={"subject": True, "cert": True, "dns": True, "uri": True})


def _gateway_tcp(mesh, port, servers):
    """The first tcp rule that is bound to one of the gateways there; None where there is none."""
    for gateway, _ in servers:
        for virtual in mesh.virtual_services(f"{gateway.namespace}/{gateway.name}"):
            for rule in virtual.spec.get("tcp", []):
                if any(match.get("port", port) == port for match in rule.get("match") or [{}]):
                    return [stats(False), _tcp_rule(mesh, virtual, rule, port)]
    return None
