# SPDX-License-Identifier: Apache-2.0
"""What the kinds that this control plane serves look like: the fields of Kubernetes and Istio that it knows.

A field that is not here is an error, never ignored: a route or a policy that silently means less than its author
thinks is worse than none. What belongs to the pods' maker (containers, replicas) is taken as it is."""

from dataclasses import dataclass

from .objects import (ANY, BOOL, DURATION, NUMBER, PORT, STRING, ListOf, MapOf, Record, Scalar, integer, one_of)

STRINGS = ListOf(STRING)
LABELS = MapOf(STRING)
COUNT = integer(0, 2**31 - 1)
PERCENT = integer(0, 100)
STATUS = integer(200, 599, "an HTTP status from 200 to 599")
SELECTOR = Record({"matchLabels": LABELS})
PORT_NUMBER = Record({"number": PORT}, required=["number"])
METADATA = Record({"name": STRING, "namespace": STRING, "labels": LABELS, "annotations": LABELS,
                   "creationTimestamp": ANY, "uid": ANY, "resourceVersion": ANY, "generation": ANY},
                  required=["name"])


def _port_or_name(text):
    if text.isdigit() and not 1 <= int(text) <= 65535:
        raise ValueError
    return int(text) if text.isdigit() else text


TARGET_PORT = Scalar("a port or the name of one", ("int", "str"), _port_or_name)

SERVICE = Record({
    "selector": LABELS, "clusterIP": STRING, "clusterIPs": ANY, "type": one_of("ClusterIP", "LoadBalancer", "NodePort"),
    "sessionAffinity": ANY, "ipFamilies": ANY, "ipFamilyPolicy": ANY,
    "ports": ListOf(Record({"name": STRING, "port": PORT, "targetPort": TARGET_PORT, "nodePort": ANY,
                            "protocol": one_of("TCP"), "appProtocol": STRING}, required=["port"]), filled=True),
}, required=["ports"])

DEPLOYMENT = Record({
    "replicas": COUNT, "selector": SELECTOR, "strategy": ANY, "revisionHistoryLimit": ANY, "minReadySeconds": ANY,
    "template": Record({"metadata": Record({"labels": LABELS, "annotations": LABELS}), "spec": ANY}),
}, required=["selector", "template"])

MTLS = Record({"mode": one_of("UNSET", "DISABLE", "PERMISSIVE", "STRICT")})
PEER_AUTHENTICATION = Record({"selector": SELECTOR, "mtls": MTLS,
                              "portLevelMtls": MapOf(MTLS, key=int, keys="ports")})

GATEWAY = Record({
    "selector": LABELS,
    "servers": ListOf(Record({
        "port": Record({"number": PORT, "name": STRING, "protocol": one_of("HTTP", "HTTP2", "GRPC", "TCP")},
                       required=["number", "name", "protocol"]),
        "hosts": ListOf(STRING, filled=True), "name": STRING, "bind": ANY,
        "tls": Record({"httpsRedirect": BOOL}),
    }, required=["port", "hosts"]), filled=True),
}, required=["selector", "servers"])

# --- VirtualService ---

STRING_MATCH = Record({"exact": STRING, "prefix": STRING, "regex": STRING},
                      exactly_one=["exact", "prefix", "regex"])
HEADER_MATCH = Record({"exact": STRING, "prefix": STRING, "regex": STRING},
                      at_most_one=["exact", "prefix", "regex"])
DESTINATION = Record({"host": STRING, "subset": STRING, "port": PORT_NUMBER}, required=["host"])
HEADER_CHANGES = Record({"set": LABELS, "add": LABELS, "remove": STRINGS})
HEADERS = Record({"request": HEADER_CHANGES, "response": HEADER_CHANGES})
PERCENTAGE = Record({"value": NUMBER}, required=["value"])

HTTP_MATCH = Record({
    "name": STRING, "uri": STRING_MATCH, "scheme": STRING_MATCH, "method": STRING_MATCH, "authority": STRING_MATCH,
    "headers": MapOf(HEADER_MATCH), "withoutHeaders": MapOf(HEADER_MATCH), "queryParams": MapOf(HEADER_MATCH),
    "port": PORT, "ignoreUriCase": BOOL, "gateways": STRINGS, "sourceLabels": LABELS, "sourceNamespace": STRING})
HTTP_ROUTE = Record({
    "name": STRING, "match": ListOf(HTTP_MATCH),
    "route": ListOf(Record({"destination": DESTINATION, "weight": PERCENT, "headers": HEADERS},
                           required=["destination"]), filled=True),
    "redirect": Record({"uri": STRING, "authority": STRING, "scheme": STRING, "port": PORT,
                        "redirectCode": integer(301, 308)}),
    "directResponse": Record({"status": STATUS, "body": Record({"string": STRING}, required=["string"])},
                             required=["status"]),
    "rewrite": Record({"uri": STRING, "authority": STRING,
                       "uriRegexRewrite": Record({"match": STRING, "rewrite": STRING}, required=["match", "rewrite"])},
                      at_most_one=["uri", "uriRegexRewrite"]),
    "timeout": DURATION,
    "retries": Record({"attempts": COUNT, "perTryTimeout": DURATION, "retryOn": STRING, "backoff": DURATION},
                      required=["attempts"]),
    "fault": Record({
        "delay": Record({"fixedDelay": DURATION, "percentage": PERCENTAGE}, required=["fixedDelay"]),
        "abort": Record({"httpStatus": STATUS, "percentage": PERCENTAGE}, required=["httpStatus"])}),
    "mirror": DESTINATION, "mirrorPercentage": PERCENTAGE, "headers": HEADERS,
    "corsPolicy": Record({"allowOrigins": ListOf(STRING_MATCH), "allowMethods": STRINGS, "allowHeaders": STRINGS,
                          "exposeHeaders": STRINGS, "maxAge": DURATION, "allowCredentials": BOOL}),
}, exactly_one=["route", "redirect", "directResponse"])
TCP_ROUTE = Record({
    "match": ListOf(Record({"port": PORT, "gateways": STRINGS, "sourceLabels": LABELS})),
    "route": ListOf(Record({"destination": DESTINATION, "weight": PERCENT}, required=["destination"]), filled=True),
}, required=["route"])
VIRTUAL_SERVICE = Record({"hosts": ListOf(STRING, filled=True), "gateways": STRINGS, "exportTo": STRINGS,
                          "http": ListOf(HTTP_ROUTE), "tcp": ListOf(TCP_ROUTE)}, required=["hosts"])

# --- DestinationRule ---

SETTINGS = {
    "connectionPool": Record({
        "tcp": Record({"maxConnections": COUNT, "connectTimeout": DURATION, "idleTimeout": DURATION,
                       "maxConnectionDuration": DURATION,
                       "tcpKeepalive": Record({"time": DURATION, "interval": DURATION, "probes": COUNT})}),
        "http": Record({"http1MaxPendingRequests": COUNT, "http2MaxRequests": COUNT, "maxRequestsPerConnection": COUNT,
                        "maxRetries": COUNT, "idleTimeout": DURATION, "maxConcurrentStreams": COUNT,
                        "h2UpgradePolicy": one_of("DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"),
                        "useClientProtocol": BOOL})}),
    "outlierDetection": Record({
        "consecutive5xxErrors": COUNT, "consecutiveGatewayErrors": COUNT, "interval": DURATION,
        "baseEjectionTime": DURATION, "maxEjectionPercent": PERCENT, "minHealthPercent": PERCENT,
        "splitExternalLocalOriginErrors": BOOL, "consecutiveLocalOriginFailures": COUNT}),
    "loadBalancer": Record({
        "simple": one_of("UNSPECIFIED", "LEAST_REQUEST", "LEAST_CONN", "RANDOM", "ROUND_ROBIN"),
        "consistentHash": Record({
            "httpHeaderName": STRING, "useSourceIp": BOOL, "httpQueryParameterName": STRING,
            "httpCookie": Record({"name": STRING, "path": STRING, "ttl": DURATION}, required=["name"]),
            "ringHash": Record({"minimumRingSize": COUNT}), "maglev": Record({"tableSize": COUNT})}),
        "warmup": Record({"duration": DURATION, "minimumPercent": NUMBER, "aggression": NUMBER},
                         required=["duration"])},
        at_most_one=["simple", "consistentHash"]),
    "tls": Record({"mode": one_of("DISABLE", "ISTIO_MUTUAL")}, required=["mode"]),
}
TRAFFIC_POLICY = Record({**SETTINGS, "portLevelSettings": ListOf(Record({**SETTINGS, "port": PORT_NUMBER},
                                                                        required=["port"]))})
DESTINATION_RULE = Record({
    "host": STRING, "trafficPolicy": TRAFFIC_POLICY, "exportTo": STRINGS,
    "subsets": ListOf(Record({"name": STRING, "labels": LABELS, "trafficPolicy": TRAFFIC_POLICY}, required=["name"])),
}, required=["host"])

# --- AuthorizationPolicy ---

_SOURCE = ["principals", "namespaces", "ipBlocks", "remoteIpBlocks"]
_OPERATION = ["hosts", "ports", "methods", "paths"]


def _and_not(names):
    return {name: STRINGS for plain in names for name in (plain, "not" + plain[0].upper() + plain[1:])}


AUTHORIZATION_POLICY = Record({
    "selector": SELECTOR, "action": one_of("ALLOW", "DENY", "AUDIT"),
    "rules": ListOf(Record({
        "from": ListOf(Record({"source": Record(_and_not(_SOURCE))}, required=["source"]), filled=True),
        "to": ListOf(Record({"operation": Record(_and_not(_OPERATION))}, required=["operation"]), filled=True),
        "when": ListOf(Record({"key": STRING, "values": STRINGS, "notValues": STRINGS}, required=["key"]))}))})


@dataclass
class Kind:
    versions: tuple
    record: Record
    namespaced: bool = True


def _kind(versions, spec, namespaced=True, needs_spec=True, **more):
    fields = {"apiVersion": STRING, "kind": STRING, "metadata": METADATA, "spec": spec, "status": ANY, **more}
    required = ["apiVersion", "metadata"] + (["spec"] if needs_spec else [])
    return Kind(versions, Record(fields, required), namespaced)


_NETWORKING = ("networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3")
_SECURITY = ("security.istio.io/v1", "security.istio.io/v1beta1")
KINDS = {
    "Namespace": _kind(("v1",), ANY, namespaced=False, needs_spec=False),
    "ServiceAccount": _kind(("v1",), ANY, needs_spec=False, secrets=ANY, imagePullSecrets=ANY,
                            automountServiceAccountToken=ANY),
    "Service": _kind(("v1",), SERVICE),
    "Deployment": _kind(("apps/v1",), DEPLOYMENT),
    "PeerAuthentication": _kind(_SECURITY, PEER_AUTHENTICATION, needs_spec=False),
    "AuthorizationPolicy": _kind(_SECURITY, AUTHORIZATION_POLICY, needs_spec=False),
    "Gateway": _kind(_NETWORKING, GATEWAY),
    "VirtualService": _kind(_NETWORKING, VIRTUAL_SERVICE),
    "DestinationRule": _kind(_NETWORKING, DESTINATION_RULE),
}
