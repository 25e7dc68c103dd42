# SPDX-License-Identifier: Apache-2.0
"""Clusters and their endpoints, with what DestinationRules say about them."""

from .shapes import ADS, EXTENSIONS, any_of, duration, metadata_exchange, raw_buffer, socket_address, upstream_tls

UNLIMITED = 2**32 - 1
PROTOCOL_OPTIONS = EXTENSIONS + "upstreams.http.v3.HttpProtocolOptions"
WHAT_CAME = {"use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}}}


def outbound_name(port, host, subset=""):
    return f"outbound|{port}|{subset}|{host}"


def inbound_name(port):
    return f"inbound|{port}||"


def rule_path(rule):
    kind = {"DestinationRule": "destination-rule", "VirtualService": "virtual-service"}[rule.kind]
    return f"/apis/networking.istio.io/v1/namespaces/{rule.namespace}/{kind}/{rule.name}"


def clusters(mesh, pod):
    """All of a pod's clusters."""
    made = [{"name": "BlackHoleCluster", "type": "STATIC", "connect_timeout": "10s",
             "alt_stat_name": "BlackHoleCluster;"}]
    if pod.kind == "sidecar":
        made += [_passthrough("InboundPassthroughCluster", **_own_address()),
                 _passthrough("PassthroughCluster", filters=[metadata_exchange()])]
        made += [_inbound(target, service, port, mesh.destination_rule(service.host, pod.namespace))
                 for target, service, port in mesh.inbound(pod)]
    for service in mesh.services:
        rule = mesh.destination_rule(service.host, pod.namespace)
        for port in service.ports:
            made.append(_outbound(mesh, service, port, rule))
            for subset in (rule.spec.get("subsets", []) if rule else []):
                made.append(_outbound(mesh, service, port, rule, subset))
    return made


def load_assignments(mesh, pod):
    """The endpoints of all outbound clusters."""
    made = []
    for service in mesh.services:
        rule = mesh.destination_rule(service.host, pod.namespace)
        for port in service.ports:
            for subset in [None, *(rule.spec.get("subsets", []) if rule else [])]:
                name = outbound_name(port.number, service.host, subset["name"] if subset else "")
                found = mesh.endpoints(service, port, subset.get("labels", {}) if subset else None)
                made.append({"cluster_name": name, **_endpoints(found)})
    return made


def _endpoints(found):
    if not found:
        return {}
    hosts = []
    for endpoint in found:
        metadata = {"istio": {"workload": endpoint.workload}}
        if endpoint.mutual_tls:
            metadata["envoy.transport_socket_match"] = {"tlsMode": "istio"}
        hosts.append({"endpoint": {"address": socket_address(endpoint.pod.ip, endpoint.port)},
                      "load_balancing_weight": 1, "metadata": {"filter_metadata": metadata}})
    return {"endpoints": [{"locality": {}, "lb_endpoints": hosts, "load_balancing_weight": len(hosts)}]}


def _thresholds(**limits):
    return {"thresholds": [{**dict.fromkeys(
        ("max_connections", "max_pending_requests", "max_requests", "max_retries"), UNLIMITED),
        "track_remaining": True, **limits}]}


def _options(**fields):
    return {"typed_extension_protocol_options": {PROTOCOL_OPTIONS: any_of(PROTOCOL_OPTIONS, **fields)}}


def _own_address():
    """What comes from here is not captured again on its way to the application."""
    return {"upstream_bind_config": {"source_address": {"address": "127.0.0.6", "port_value": 0}}}


def _passthrough(name, **more):
    return {"name": name, "type": "ORIGINAL_DST", "connect_timeout": "10s", "lb_policy": "CLUSTER_PROVIDED",
            "circuit_breakers": _thresholds(), "alt_stat_name": "PassthroughCluster;",
            **_options(common_http_protocol_options={"idle_timeout": "300s"}, **WHAT_CAME), **more}


def _service_metadata(service, rule=None, subset=None):
    istio = {"services": [{"host": service.host, "name": service.name, "namespace": service.namespace}]}
    if rule:
        istio["config"] = rule_path(rule)
    if subset:
        istio["subset"] = subset["name"]
    return {"filter_metadata": {"istio": istio}}


def _inbound(target, service, port, rule):
    """To the application of the pod itself; the limits of a DestinationRule hold here too."""
    cluster = {"name": inbound_name(target), "type": "ORIGINAL_DST", "connect_timeout": "10s",
               "lb_policy": "CLUSTER_PROVIDED", "cleanup_interval": "9223372035s", **_own_address(),
               "metadata": _service_metadata(service, rule if rule and "trafficPolicy" in rule.spec else None),
               "common_lb_config": {}, "alt_stat_name": inbound_name(target) + ";"}
    options = _connection_pool(cluster, _settings(rule, port, None).get("connectionPool", {}), port, inbound=True)
    if options:
        cluster.update(_options(**options))
    return cluster


def _outbound(mesh, service, port, rule, subset=None):
    name = outbound_name(port.number, service.host, subset["name"] if subset else "")
    settings = _settings(rule, port, subset)
    cluster = {
        "name": name, "type": "EDS", "eds_cluster_config": {"eds_config": ADS, "service_name": name},
        "connect_timeout": "10s", "metadata": _service_metadata(service, rule, subset), "common_lb_config": {},
        "alt_stat_name": name + ";", "filters": [metadata_exchange()], **_load_balancer(settings)}
    options = _connection_pool(cluster, settings.get("connectionPool", {}), port)
    if options:
        cluster.update(_options(**options))
    if "outlierDetection" in settings:
        _outlier_detection(cluster, settings["outlierDetection"])
    server_name = f"outbound_.{port.number}_.{subset['name'] if subset else ''}_.{service.host}"
    secure = upstream_tls(server_name, mesh.identities(service), "explicit_http_config" in options)
    mode = settings.get("tls", {}).get("mode")
    if mode == "ISTIO_MUTUAL":
        cluster["transport_socket"] = secure
    elif mode is None:
        cluster["transport_socket_matches"] = [
            {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": secure},
            {"name": "tlsMode-disabled", "match": {}, "transport_socket": raw_buffer()}]
    return cluster


def _settings(rule, port, subset):
    """Of the rule, then of the subset; the settings of a port stand instead of the others there."""
    merged = {}
    for policy in ((rule.spec if rule else {}).get("trafficPolicy", {}), (subset or {}).get("trafficPolicy", {})):
        merged.update({key: value for key, value in policy.items() if key != "portLevelSettings"})
        for level in policy.get("portLevelSettings", []):
            if level["port"]["number"] == port.number:
                merged = {key: value for key, value in level.items() if key != "port"}
    return merged


def load_balancer_of(mesh, host, port, subset_name, namespace):
    """The consistentHash that routes to a destination need as well, or None."""
    rule = mesh.destination_rule(host, namespace)
    subset = mesh.subset(rule, subset_name)
    return _settings(rule, port, subset).get("loadBalancer", {}).get("consistentHash") if rule else None


def _load_balancer(settings):
    said = settings.get("loadBalancer", {})
    hashing = said.get("consistentHash")
    if hashing is not None:
        if "maglev" in hashing:
            size = hashing["maglev"].get("tableSize")
            return {"lb_policy": "MAGLEV", **({"maglev_lb_config": {"table_size": size}} if size else {})}
        size = hashing.get("ringHash", {}).get("minimumRingSize", 1024)
        return {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": size}}
    policy = said.get("simple", "LEAST_REQUEST")
    policy = {"UNSPECIFIED": "LEAST_REQUEST", "LEAST_CONN": "LEAST_REQUEST"}.get(policy, policy)
    config = {}
    if "warmup" in said and policy in ("LEAST_REQUEST", "ROUND_ROBIN"):
        warmup = said["warmup"]
        config = {f"{policy.lower()}_lb_config": {"slow_start_config": {
            "slow_start_window": duration(warmup["duration"]),
            "aggression": {"default_value": warmup.get("aggression", 1.0), "runtime_key": "("},
            "min_weight_percent": {"value": warmup.get("minimumPercent", 10)}}}}
    return {"lb_policy": policy, **config}


def _connection_pool(cluster, pool, port, inbound=False):
    """Puts the limits into the cluster; what is left are options of HTTP."""
    tcp, http = pool.get("tcp", {}), pool.get("http", {})
    limits = {name: source[key] for source, key, name in (
        (tcp, "maxConnections", "max_connections"), (http, "http1MaxPendingRequests", "max_pending_requests"),
        (http, "http2MaxRequests", "max_requests"), (http, "maxRetries", "max_retries")) if key in source}
    cluster["circuit_breakers"] = _thresholds(**limits)
    if "connectTimeout" in tcp:
        cluster["connect_timeout"] = duration(tcp["connectTimeout"])
    if "tcpKeepalive" in tcp:
        alive = tcp["tcpKeepalive"]
        cluster["upstream_connection_options"] = {"tcp_keepalive": {
            **({"keepalive_probes": alive["probes"]} if "probes" in alive else {}),
            **({"keepalive_time": round(alive["time"])} if "time" in alive else {}),
            **({"keepalive_interval": round(alive["interval"])} if "interval" in alive else {})}}
    common = {}
    if "idleTimeout" in http or "idleTimeout" in tcp:
        common["idle_timeout"] = duration(http.get("idleTimeout", tcp.get("idleTimeout")))
    if "maxConnectionDuration" in tcp:
        common["max_connection_duration"] = duration(tcp["maxConnectionDuration"])
    if "maxRequestsPerConnection" in http:
        common["max_requests_per_connection"] = http["maxRequestsPerConnection"]
    options = {"common_http_protocol_options": common} if common else {}
    upgraded = http.get("h2UpgradePolicy") == "UPGRADE" and port.http == 1 and not inbound
    if port.http == 2 or upgraded:
        streams = {"max_concurrent_streams": http["maxConcurrentStreams"]} if "maxConcurrentStreams" in http else {}
        options["explicit_http_config"] = {"http2_protocol_options": streams}
    elif http.get("useClientProtocol") or port.sniffed:
        options.update(WHAT_CAME)
    elif common:
        options["explicit_http_config"] = {"http_protocol_options": {}}
    return options


def _outlier_detection(cluster, said):
    made = {"enforcing_success_rate": 0}
    for key, name in (("consecutive5xxErrors", "consecutive_5xx"),
                      ("consecutiveGatewayErrors", "consecutive_gateway_failure"),
                      ("consecutiveLocalOriginFailures", "consecutive_local_origin_failure")):
        if key in said:
            made[name] = said[key]
            made[f"enforcing_{name}"] = 100 if said[key] else 0
    for key, name in (("interval", "interval"), ("baseEjectionTime", "base_ejection_time")):
        if key in said:
            made[name] = duration(said[key])
    if "maxEjectionPercent" in said:
        made["max_ejection_percent"] = said["maxEjectionPercent"]
    if said.get("splitExternalLocalOriginErrors"):
        made["split_external_local_origin_errors"] = True
        made["enforcing_local_origin_success_rate"] = 0
    cluster["outlier_detection"] = made
    if "minHealthPercent" in said:
        cluster["common_lb_config"] = {"healthy_panic_threshold": {"value": said["minHealthPercent"]}}
