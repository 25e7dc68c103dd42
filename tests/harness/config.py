# SPDX-License-Identifier: Apache-2.0
"""Builds a bootstrap from the short form that cases use.

Everything of Envoy's configuration can be written in full; the short forms only save typing:

routes      a string `/prefix -> cluster`, or a dict whose `match` may be a string (a prefix),
            whose `route` may be a string (a cluster), and whose `direct` is [status, body].
clusters    {} means STATIC with one endpoint: the scripted upstream of the same name. `http2: {}` has
            fields of Http2ProtocolOptions, `http:` those of HttpProtocolOptions.
filters     HTTP filters before the router, each {short name: its fields} and further members of the
            filter (`disabled: true`); `per_filter` of routes and hosts likewise, by short name.
network     network filters before the last one, likewise.
says        the text that a listener or chain answers to everything, instead of routes.
tls         of a listener, chain or cluster: see tls_config.py.
chains      filter chains of a listener: its own short form with `match` and `name`; `default_chain`.
inspect     listener filters, each a short name or {short name: its fields}.
endpoints   names of upstreams, `refused` (nobody listens), `blackhole` (connecting never ends),
            or a dict with `upstream:` plus fields of LbEndpoint.
localities  instead of endpoints: LocalityLbEndpoints whose `endpoints` are as above.
Numbers of ports are written as "{name}" and replaced by a Layout when a subject is started.
"""

import copy
import re

from . import certs, tls_config
from .ports import Blackhole, Port
from .upstream import Upstream

TYPE = "type.googleapis.com/envoy."
HCM = TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = TYPE + "extensions.filters.http.router.v3.Router"
HTTP_OPTIONS = "extensions.upstreams.http.v3.HttpProtocolOptions"
TCP = TYPE + "extensions.filters.network.tcp_proxy.v3.TcpProxy"
FILE_LOG = TYPE + "extensions.access_loggers.file.v3.FileAccessLog"

HTTP_FILTERS = {"buffer": "buffer.v3.Buffer", "header_mutation": "header_mutation.v3.HeaderMutation",
                "set_metadata": "set_metadata.v3.Config", "set_filter_state": "set_filter_state.v3.Config",
                "local_ratelimit": "local_ratelimit.v3.LocalRateLimit", "grpc_web": "grpc_web.v3.GrpcWeb",
                "compressor": "compressor.v3.Compressor", "decompressor": "decompressor.v3.Decompressor",
                "rbac": "rbac.v3.RBAC", "fault": "fault.v3.HTTPFault", "cors": "cors.v3.Cors", "csrf": "csrf.v3.CsrfPolicy",
                "jwt_authn": "jwt_authn.v3.JwtAuthentication", "health_check": "health_check.v3.HealthCheck"}
ROUTE_FILTERS = {**HTTP_FILTERS, "buffer": "buffer.v3.BufferPerRoute",
                 "header_mutation": "header_mutation.v3.HeaderMutationPerRoute",
                 "compressor": "compressor.v3.CompressorPerRoute",
                 "rbac": "rbac.v3.RBACPerRoute", "cors": "cors.v3.CorsPolicy",
                 "jwt_authn": "jwt_authn.v3.PerRouteConfig"}
NETWORK_FILTERS = {"rbac": "rbac.v3.RBAC", "local_ratelimit": "local_ratelimit.v3.LocalRateLimit"}
LISTENER_FILTERS = {"tls_inspector": "tls_inspector.v3.TlsInspector",
                    "http_inspector": "http_inspector.v3.HttpInspector",
                    "proxy_protocol": "proxy_protocol.v3.ProxyProtocol",
                    "local_ratelimit": "local_ratelimit.v3.LocalRateLimit",
                    "original_dst": "original_dst.v3.OriginalDst"}

HTTP_LOG = {
    "method": "%REQ(:METHOD)%", "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "authority": "%REQ(:AUTHORITY)%", "protocol": "%PROTOCOL%", "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%", "details": "%RESPONSE_CODE_DETAILS%",
    "termination": "%CONNECTION_TERMINATION_DETAILS%",
    "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "received": "%BYTES_RECEIVED%", "sent": "%BYTES_SENT%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "host": "%UPSTREAM_HOST%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%", "route": "%ROUTE_NAME%", "grpc": "%GRPC_STATUS%",
    "remote": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    # which exchange the line belongs to; taken out before comparing
    "_peer": "%DOWNSTREAM_DIRECT_REMOTE_PORT%", "_port": "%DOWNSTREAM_LOCAL_PORT%",
}
TCP_LOG = {
    "flags": "%RESPONSE_FLAGS%", "details": "%RESPONSE_CODE_DETAILS%", "code": "%RESPONSE_CODE%",
    "termination": "%CONNECTION_TERMINATION_DETAILS%",
    "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "received": "%BYTES_RECEIVED%", "sent": "%BYTES_SENT%", "host": "%UPSTREAM_HOST%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%", "protocol": "%PROTOCOL%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "_peer": "%DOWNSTREAM_DIRECT_REMOTE_PORT%", "_port": "%DOWNSTREAM_LOCAL_PORT%",
}
LISTENER_LOG = {
    "log": "listener", "chain": "%FILTER_CHAIN_NAME%",
    "details": "%CONNECTION_TERMINATION_DETAILS%",
    "failure": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    "sni": "%REQUESTED_SERVER_NAME%",
    "_peer": "%DOWNSTREAM_DIRECT_REMOTE_PORT%", "_port": "%DOWNSTREAM_LOCAL_PORT%",
}


def log_entry(fields, path="{log}", **more):
    """A file access log that writes these fields as JSON."""
    return {"name": "envoy.access_loggers.file",
            "typed_config": {"@type": FILE_LOG, "path": path,
                             "log_format": {"json_format": fields}}, **more}


def merged(base, extra):
    """Deep merge of dicts; lists and scalars of `extra` win; null removes the key."""
    out = copy.deepcopy(base)
    for key, value in (extra or {}).items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        else:
            out[key] = copy.deepcopy(value)
    return out


def typed(spec, kind, types):
    """{short: fields, ...more} as a filter: {name, typed_config, ...more}."""
    short = next(key for key in spec if key in types)
    more = {key: value for key, value in spec.items() if key != short}
    return {"name": f"envoy.filters.{kind}.{short}",
            "typed_config": {"@type": f"{TYPE}extensions.filters.{kind}.{types[short]}",
                             **(spec[short] or {})}, **more}


def per_filter(out):
    """Replaces `per_filter` by typed_per_filter_config; `{disabled: true}` alone switches off."""
    configs = {}
    for short, fields in (out.pop("per_filter", None) or {}).items():
        if fields == {"disabled": True}:
            config = {"@type": TYPE + "config.route.v3.FilterConfig", **fields}
        else:
            config = typed({short: fields}, "http", ROUTE_FILTERS)["typed_config"]
        configs[f"envoy.filters.http.{short}"] = config
    if configs:
        out["typed_per_filter_config"] = {**out.get("typed_per_filter_config", {}), **configs}
    return out


def route(spec):
    if isinstance(spec, str):
        prefix, _, cluster = spec.partition("->")
        return {"match": {"prefix": prefix.strip()}, "route": {"cluster": cluster.strip()}}
    out = dict(spec)
    if isinstance(out.get("match"), str):
        out["match"] = {"prefix": out["match"]}
    if isinstance(out.get("route"), str):
        out["route"] = {"cluster": out["route"]}
    if "direct" in out:
        status, *body = out.pop("direct")
        out["direct_response"] = {"status": status}
        if body:
            out["direct_response"]["body"] = {"inline_string": body[0]}
    return per_filter(out)


def virtual_host(spec):
    out = {"name": "v", "domains": ["*"], **spec}
    out["routes"] = [route(r) for r in spec.get("routes", [])]
    if not out["routes"]:
        del out["routes"]
    return per_filter(out)


def access_log(spec, base):
    """The harness's own log (unless `log: none`) with the case's extra fields."""
    extra = spec.get("log", {})
    if extra == "none":
        return []
    return [log_entry({**base, **extra})]


def http_filter_chain(name, spec, first_cluster):
    routes = spec.get("routes", [f"/ -> {first_cluster}"])
    if "says" in spec:
        routes = [{"match": "/", "direct": [200, spec["says"]]}]
    hosts = spec.get("virtual_hosts") or [{"routes": routes}]
    hcm = {"@type": HCM, "stat_prefix": name, "delayed_close_timeout": "0.1s",
           "access_log": access_log(spec, HTTP_LOG),
           "http_filters": [typed(f, "http", HTTP_FILTERS) for f in spec.get("filters", [])] +
                           [{"name": "envoy.filters.http.router",
                             "typed_config": {"@type": ROUTER, **spec.get("router", {})}}],
           "route_config": per_filter(
               {"name": "routes", "virtual_hosts": [virtual_host(h) for h in hosts],
                **spec.get("route_config", {})})}
    hcm = merged(hcm, spec.get("hcm"))
    hcm["access_log"] = access_log(spec, HTTP_LOG) + (spec.get("hcm") or {}).get("access_log", [])
    return {"filters": [{"name": "envoy.filters.network.http_connection_manager",
                         "typed_config": hcm}]}


def tcp_filter_chain(name, spec):
    tcp = {"@type": TCP, "stat_prefix": name, "access_log": access_log(spec, TCP_LOG),
           **spec["tcp"]}
    return {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": tcp}]}


def filter_chain(name, spec, first_cluster):
    chain = tcp_filter_chain(name, spec) if "tcp" in spec else \
        http_filter_chain(name, spec, first_cluster)
    chain["filters"] = [typed(f, "network", NETWORK_FILTERS)
                        for f in spec.get("network", [])] + chain["filters"]
    if "tls" in spec:
        chain["transport_socket"] = tls_config.downstream(spec["tls"])
    return merged(chain, spec.get("chain"))


def named_chain(name, spec, first_cluster):
    """A chain of several; what it does not say is as the listener's."""
    chain = filter_chain(spec.get("name", name), spec, first_cluster)
    if "name" in spec:
        chain["name"] = spec["name"]
    if "match" in spec:
        chain["filter_chain_match"] = spec["match"]
    return chain


def listener(name, spec, first_cluster):
    own = {k: v for k, v in spec.items() if k not in ("chains", "default_chain")}
    base = {"name": name, "stat_prefix": name,
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": f"{{{name}}}"}}}
    if "inspect" in spec:
        base["listener_filters"] = [typed(f if isinstance(f, dict) else {f: {}}, "listener",
                                          LISTENER_FILTERS) for f in spec["inspect"]]
    if "chains" in spec:
        base["filter_chains"] = [named_chain(name, {**own, **c}, first_cluster)
                                 for c in spec["chains"]]
    else:
        base["filter_chains"] = [filter_chain(name, spec, first_cluster)]
    if "default_chain" in spec:
        base["default_filter_chain"] = named_chain(name, {**own, **spec["default_chain"]},
                                                   first_cluster)
    if "listener_log" in spec:
        base["access_log"] = [log_entry({**LISTENER_LOG, **(spec["listener_log"] or {})})]
    return merged(base, spec.get("listener"))


def endpoint(spec):
    if isinstance(spec, str):
        spec = {"upstream": spec}
    spec = dict(spec)
    where = {"address": "127.0.0.1", "port_value": f"{{{spec.pop('upstream')}}}"}
    where["address"] = spec.pop("address", where["address"])
    point = {"address": {"socket_address": where}}
    if "hostname" in spec:
        point["hostname"] = spec.pop("hostname")
    return {"endpoint": point, **spec}


def cluster(name, spec):
    spec = dict(spec or {})
    points = spec.pop("endpoints", [name])
    if "tls" in spec:
        spec["transport_socket"] = tls_config.upstream(spec.pop("tls"))
    groups = [dict(group) for group in spec.pop("localities", [{"endpoints": points}])]
    for group in groups:
        group["lb_endpoints"] = [endpoint(p) for p in group.pop("endpoints")]
    base = {"name": name, "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": name, "endpoints": groups}}
    http2 = spec.pop("http2", None)
    http = {"explicit_http_config": {"http2_protocol_options": http2}} if http2 is not None else {}
    http = merged(http, spec.pop("http", None))
    if http:
        base["typed_extension_protocol_options"] = {
            "envoy." + HTTP_OPTIONS: {"@type": TYPE + HTTP_OPTIONS, **http}}
    return merged(base, spec)


def bootstrap(spec):
    """The bootstrap dict of a case, with "{name}" where a port number will stand."""
    clusters = spec.get("clusters") or {"up": {}}
    listeners = spec.get("listeners") or {"main": {}}
    first = next(iter(clusters))
    base = {"node": {"id": "node", "cluster": "cluster"},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "static_resources": {
                "listeners": [listener(n, s or {}, first) for n, s in listeners.items()],
                "clusters": [cluster(n, s) for n, s in clusters.items()]}}
    return merged(base, spec.get("bootstrap"))


def names_in(config):
    """The "{name}"s that the config uses as port numbers."""
    found = []

    def walk(node):
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "port_value" and isinstance(value, str):
                    found.append(value[1:-1])
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)
    walk(config)
    return list(dict.fromkeys(found))


def needs_certificates(config):
    return re.search(r"\{(certs|sha256 |sha1 |spki |pem |text |key )", str(config)) is not None


def collector(spec):
    from .collectors import Collector  # which needs grpcio
    return Collector(**(spec or {}))


class Layout:
    """The ports and upstreams that one running subject uses.

    Every "{name}" of the config is a listener port of the subject if a listener has that name,
    `refused`, `blackhole`, one of `collectors`, or else a scripted upstream. `later` is configuration that the subject
    gets from elsewhere; `ports` are names of further ports that stay ours.
    """

    def __init__(self, config, upstreams=None, later=(), ports=(), collectors=None):
        self.config = config
        self.upstreams = {}
        self.collectors = {}
        self.ports = {}
        self.numbers = {}
        modes = upstreams or {}
        listening = {one["name"] for one in config["static_resources"].get("listeners", [])}
        listening.update(ports)
        for name in names_in([config, *later]):
            if name in listening or name.startswith("refused"):
                self.ports[name] = Port()
            elif name.startswith("blackhole"):
                self.ports[name] = Blackhole()
            elif name in (collectors or {}):
                self.collectors[name] = collector(collectors[name])
            else:
                self.upstreams[name] = Upstream(name, **(modes.get(name) or {}))
        for name, owner in {**self.ports, **self.upstreams, **self.collectors}.items():
            self.numbers[name] = owner.number

    def fill(self, text):
        """Replace every known "{name}" in a string by its port number, and {log} is left."""
        return re.sub(r"\{(\w+)\}",
                      lambda m: str(self.numbers.get(m.group(1), m.group(0))), text)

    def resolved(self, **places):
        """The config with real ports, and {log} and the like replaced by `places`."""
        return self.put(self.config, **places)

    def put(self, config, **places):
        """The same for any part of a configuration."""
        def walk(node, key=None):
            if isinstance(node, dict):
                return {k: walk(v, k) for k, v in node.items()}
            if isinstance(node, list):
                return [walk(v) for v in node]
            if isinstance(node, str):
                if key == "port_value":
                    return self.numbers[node[1:-1]]
                for name, value in places.items():
                    node = node.replace("{" + name + "}", value)
            return node
        if needs_certificates(config):
            places = {**certs.places(), **places}
        return walk(config)

    def stop(self):
        for owner in self.ports.values():
            owner.release()
        for server in [*self.upstreams.values(), *self.collectors.values()]:
            server.stop()
