# SPDX-License-Identifier: Apache-2.0
"""Cases with a control plane: its bootstrap, and the short forms of what it serves.

CDS    as in `clusters:`; `eds: true` makes it an EDS cluster (a dict: more of its eds_config)
EDS    endpoints as in `clusters:`, or the whole message
LDS    as in `listeners:`; `rds: NAME` (or {name:, ...}: more of its config source), `tls: NAME` of
       a secret, `ecds: [{NAME: expected type}]` before the router
RDS    routes as in `listeners:`, or {virtual_hosts: ...} and other fields
SDS    the name of a certificate of harness/certs.py, or {cert:, key:, ca:, name:}, or the message
ECDS   {short name of an HTTP filter: its fields}
All sources are ADS unless they say otherwise.
"""

from tests.harness import config
from tests.harness.config import TYPE, merged

PROTOCOLS = ("sotw", "delta")
KEYS = {"protocols", "ads", "source", "up", "ports", "bootstrap"}
ADS = {"resource_api_version": "V3", "ads": {}}
TLS = TYPE + "extensions.transport_sockets.tls.v3.DownstreamTlsContext"
HTTP2 = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}}}}


def protocols(spec):
    unknown = set(spec) - KEYS
    if unknown:
        raise ValueError(f"control_plane: unknown keys {sorted(unknown)}; known: {sorted(KEYS)}")
    return spec.get("protocols") or list(PROTOCOLS)


def bootstrap(spec, protocol):
    """The bootstrap of a case whose resources come over ADS; {xds} is the control plane's port."""
    plane = spec["control_plane"]
    source = {**ADS, **(plane.get("source") or {})}
    base = {
        "node": {"id": "node", "cluster": "cluster"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "ads_config": merged(
                {"api_type": "DELTA_GRPC" if protocol == "delta" else "GRPC",
                 "transport_api_version": "V3", "set_node_on_first_message_only": True,
                 "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]}, plane.get("ads")),
            "cds_config": source, "lds_config": source},
        "static_resources": {
            "listeners": [config.listener(n, s or {}, "up")
                          for n, s in (spec.get("listeners") or {}).items()],
            "clusters": [config.cluster("xds", {"typed_extension_protocol_options": HTTP2})] +
                        [config.cluster(n, s) for n, s in (spec.get("clusters") or {}).items()]}}
    return merged(base, spec.get("bootstrap"))


def source_of(more):
    return {**ADS, **(more if isinstance(more, dict) else {})}


def cluster(name, form):
    form = dict(form or {})
    eds = form.pop("eds", None)
    if eds is None:
        return config.cluster(name, form)
    return config.cluster(name, {"type": "EDS", "load_assignment": None,
                                 "eds_cluster_config": {"eds_config": source_of(eds)}, **form})


def endpoints(name, form):
    if isinstance(form, dict):
        return {"cluster_name": name, **form}
    return {"cluster_name": name,
            "endpoints": [{"lb_endpoints": [config.endpoint(p) for p in form]}]}


def listener(name, form):
    form = dict(form)
    rds, tls, ecds = (form.pop(key, None) for key in ("rds", "tls", "ecds"))
    out = config.listener(name, form, "up")
    chains = out["filter_chains"]
    for chain in chains:
        manager = chain["filters"][-1]["typed_config"] if rds or ecds else None
        if rds:
            rds_name, more = (rds, {}) if isinstance(rds, str) else (rds["name"], dict(rds))
            more.pop("name", None)
            del manager["route_config"]
            manager["rds"] = {"route_config_name": rds_name, "config_source": source_of(more)}
        if tls:
            chain["transport_socket"] = {"name": "tls", "typed_config": {
                "@type": TLS, "common_tls_context": {"tls_certificate_sds_secret_configs": [
                    {"name": tls, "sds_config": ADS}]}}}
        for one in ecds or []:
            manager["http_filters"].insert(-1, discovered(one))
    return out


def discovered(one):
    """{NAME: expected type, more of its discovery} as an HTTP filter."""
    (name, short), *more = one.items()
    return {"name": name, "config_discovery": {
        "config_source": ADS,
        "type_urls": [f"{TYPE}extensions.filters.http.{config.HTTP_FILTERS[short]}"], **dict(more)}}


def routes(name, form):
    if isinstance(form, dict):
        hosts = form.get("virtual_hosts", [{"routes": form.get("routes", [])}])
        more = {k: v for k, v in form.items() if k not in ("virtual_hosts", "routes")}
    else:
        hosts, more = [{"routes": form}], {}
    return {"name": name, "virtual_hosts": [config.virtual_host(h) for h in hosts], **more}


def secret(name, form):
    form = {"cert": form} if isinstance(form, str) else dict(form)
    out = {"name": name}
    if "cert" in form:
        cert = form.pop("cert")
        out["tls_certificate"] = {
            "certificate_chain": {"inline_string": f"{{certificate {cert}.pem}}"},
            "private_key": {"inline_string": f"{{certificate {form.pop('key', cert)}.key}}"}}
    if "ca" in form:
        out["validation_context"] = {
            "trusted_ca": {"inline_string": f"{{certificate {form.pop('ca')}.pem}}"}}
    return {**out, **form}


def extension(name, form):
    if "typed_config" in form:
        return {"name": name, **form}
    (short, fields), = form.items()
    types = {**config.HTTP_FILTERS, "router": "router.v3.Router"}
    return {"name": name, "typed_config": {
        "@type": f"{TYPE}extensions.filters.http.{types[short]}", **(fields or {})}}


FORMS = {"CDS": cluster, "EDS": endpoints, "LDS": listener, "RDS": routes, "SDS": secret,
         "ECDS": extension}


def resource(kind, name, form):
    """A short form as the JSON form of its message; "{name}" stands for port numbers."""
    if kind not in FORMS:
        raise ValueError(f"unknown type {kind!r}; known: {sorted(FORMS)}")
    return FORMS[kind](name, form)


def said(entry, kind):
    """(name, form, options) of an entry of `say:`: {NAME: form, as:, version:, ttl:, body:}."""
    options = {k: entry[k] for k in ("as", "version", "ttl", "wrapped", "bytes") if k in entry}
    (name, form), = ((k, v) for k, v in entry.items() if k not in options)
    return name, form, {"as": kind, **options}


def later(exchanges):
    """Everything that the control plane will serve, for finding the names of ports in it."""
    out = []
    for exchange in exchanges:
        for verb, arg in exchange.steps:
            if verb == "put":
                out += [resource(kind, name, form) for kind, forms in arg.items()
                        for name, form in forms.items() if form is not None]
            elif verb == "say":
                kind = next(k for k in arg if k in FORMS)
                for entry in arg[kind]:
                    name, form, options = said(entry, kind)
                    if form is not None:
                        out.append(resource(options["as"], name, form))
    return out


def listeners(resources):
    """The names that are ports of the subject."""
    return {one["name"] for one in resources if "filter_chains" in one}
