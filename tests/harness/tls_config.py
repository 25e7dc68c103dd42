# SPDX-License-Identifier: Apache-2.0
"""The short form of TLS in configurations, made into transport sockets:

cert        a name of tests/harness/certs.py, or a list of them; null for none
ca          whose certificates are taken; null for no validation
require     whether clients have to show one (listeners)
sni         the name to ask for (clusters)
alpn        protocols
params      tls_params
validation  merged into the validation context
common      merged into the common TLS context
Everything else is a field of DownstreamTlsContext or UpstreamTlsContext.
"""

TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."


def own(name):
    """A TlsCertificate with a certificate of certs.py and its key."""
    return {"certificate_chain": {"filename": f"{{certs}}/{name}.pem"},
            "private_key": {"filename": f"{{certs}}/{name}.key"}}


def common(spec, cert):
    names = spec.pop("cert", cert) or []
    out = {}
    if names:
        out["tls_certificates"] = [own(n) for n in ([names] if isinstance(names, str) else names)]
    if "params" in spec:
        out["tls_params"] = spec.pop("params")
    if "alpn" in spec:
        out["alpn_protocols"] = spec.pop("alpn")
    ca = spec.pop("ca", None)
    validation = spec.pop("validation", {})
    if ca:
        validation = {"trusted_ca": {"filename": f"{{certs}}/{ca}.pem"}, **validation}
    if validation:
        out["validation_context"] = validation
    return {**out, **spec.pop("common", {})}


def downstream(spec):
    """The transport socket of a filter chain."""
    spec = dict(spec or {})
    context = common(spec, "server")
    if "require" in spec:
        spec["require_client_certificate"] = spec.pop("require")
    return {"name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": TYPE + "DownstreamTlsContext",
                             "common_tls_context": context, **spec}}


def upstream(spec):
    """The transport socket of a cluster."""
    spec = dict(spec or {})
    return {"name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": TYPE + "UpstreamTlsContext",
                             "common_tls_context": common(spec, None), **spec}}
