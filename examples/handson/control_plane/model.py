# SPDX-License-Identifier: Apache-2.0
"""The mesh at one moment: the accepted objects and the pods, and the questions that the makers of resources ask."""

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

from .certificates import identity

ROOT_NAMESPACE = "istio-system"
DOMAIN = "svc.cluster.local"
CLUSTER_ID = "Kubernetes"
HTTP_PROTOCOLS = {"http": 1, "http2": 2, "grpc": 2, "grpc-web": 2, "gRPC": 2, "kubernetes.io/h2c": 2}
TCP_PROTOCOLS = {"tcp", "tls", "https", "mongo", "mysql", "redis", "postgres"}


@dataclass(frozen=True)
class Port:
    number: int
    name: str
    http: int | None  # 1, 2: the version of HTTP that it speaks; 0: bytes; None: it is looked at
    target: int | str

    @property
    def sniffed(self):
        return self.http is None


@dataclass(frozen=True)
class Service:
    name: str
    namespace: str
    address: str
    ports: tuple
    selector: tuple  # of (label, value)
    object: object = field(repr=False, compare=False)

    @property
    def host(self):
        return f"{self.name}.{self.namespace}.{DOMAIN}"

    def port(self, number):
        return next((port for port in self.ports if port.number == number), None)

    def selects(self, namespace, labels):
        return bool(self.selector) and namespace == self.namespace and matches(dict(self.selector), labels)


@dataclass(frozen=True)
class Pod:
    name: str
    namespace: str
    ip: str
    labels: dict
    service_account: str
    ready: bool = True
    kind: str = "sidecar"  # or "router", or "none": no proxy
    node: str = ""

    @property
    def identity(self):
        return identity(self.namespace, self.service_account)

    @classmethod
    def read(cls, said):
        """From the content of its pod.json; ValueError says what is wrong."""
        for name, kind in (("name", str), ("namespace", str), ("ip", str)):
            if not isinstance(said.get(name), kind) or not said[name]:
                raise ValueError(f"{name!r} wants a text")
        if said.get("kind", "sidecar") not in ("sidecar", "router", "none"):
            raise ValueError("'kind' wants sidecar, router or none")
        labels = said.get("labels") or {}
        if not isinstance(labels, dict):
            raise ValueError("'labels' wants a mapping")
        return cls(said["name"], said["namespace"], said["ip"], {str(k): str(v) for k, v in labels.items()},
                   said.get("serviceAccount") or "default", bool(said.get("ready", True)),
                   said.get("kind", "sidecar"), said.get("node", ""))


@dataclass(frozen=True)
class Endpoint:
    pod: Pod
    port: int
    workload: str
    mutual_tls: bool


def matches(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


def matches_host(pattern, host):
    """As Istio compares hosts: "*" and "*.example.com" stand for many."""
    return pattern == "*" or pattern == host or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def full_name(host, namespace):
    """A short name of a Service is meant in the namespace of the object that says it."""
    return host if "." in host or host == "*" else f"{host}.{namespace}.{DOMAIN}"


def _protocol(port):
    said = port.get("appProtocol") or port.get("name", "")
    word = said if said in HTTP_PROTOCOLS or said in TCP_PROTOCOLS else said.partition("-")[0]
    if word in HTTP_PROTOCOLS:
        return HTTP_PROTOCOLS[word]
    return 0 if word in TCP_PROTOCOLS else None


def _address(service):
    """What clusterIP says; without it one that stays the same, as a cluster would choose one."""
    said = service.spec.get("clusterIP", "")
    if said:
        return said
    digest = sha256(f"{service.namespace}/{service.name}".encode()).digest()
    return f"10.96.{digest[0]}.{digest[1] % 254 + 1}"


class Mesh:
    """`objects` are the accepted ones; nothing here changes after it was made."""

    def __init__(self, objects, pods):
        self.objects, self.pods = tuple(objects), tuple(sorted(pods, key=lambda pod: (pod.namespace, pod.name)))

    def of_kind(self, kind):
        return sorted((o for o in self.objects if o.kind == kind), key=lambda o: (o.namespace, o.name))

    @cached_property
    def services(self):
        made = []
        for one in self.of_kind("Service"):
            ports = tuple(Port(port["port"], port.get("name", ""), _protocol(port),
                               port.get("targetPort", port["port"])) for port in one.spec["ports"])
            made.append(Service(one.name, one.namespace, _address(one), ports,
                                tuple(one.spec.get("selector", {}).items()), one))
        return sorted(made, key=lambda service: service.host)

    def service(self, host):
        return next((service for service in self.services if service.host == host), None)

    def deployment(self, namespace, labels):
        return next((d for d in self.of_kind("Deployment") if d.namespace == namespace
                     and matches(d.spec["selector"].get("matchLabels", {}), labels)), None)

    def workload(self, pod):
        """The name that metrics show: that of the Deployment, or of a lonely pod."""
        deployment = self.deployment(pod.namespace, pod.labels)
        return deployment.name if deployment else pod.name

    def target(self, service_port, pod):
        """The pod's port behind a Service's; None where the name is not known."""
        if isinstance(service_port.target, int):
            return service_port.target
        deployment = self.deployment(pod.namespace, pod.labels)
        spec = deployment.spec["template"].get("spec", {}) if deployment else {}
        for container in spec.get("containers", []):
            for port in container.get("ports", []):
                if port.get("name") == service_port.target:
                    return int(port["containerPort"])
        return None

    def endpoints(self, service, port, labels=None):
        """Where ready pods serve this port of a Service, of a subset when `labels` are given."""
        found = []
        for pod in self.pods:
            if not (pod.ready and service.selects(pod.namespace, pod.labels) and matches(labels or {}, pod.labels)):
                continue
            target = self.target(port, pod)
            if target is not None:
                mutual = pod.kind == "sidecar" and self.tls_mode(pod, target) != "DISABLE"
                found.append(Endpoint(pod, target, ";".join((
                    self.workload(pod), pod.namespace, canonical_name(pod.labels, self.workload(pod)),
                    pod.labels.get("service.istio.io/canonical-revision", pod.labels.get("version", "")),
                    CLUSTER_ID)), mutual))
        return found

    def identities(self, service):
        """Who may answer for a Service: also of pods that are still to come, so that it changes seldom."""
        found = {pod.identity for pod in self.pods if service.selects(pod.namespace, pod.labels)}
        for deployment in self.of_kind("Deployment"):
            template = deployment.spec["template"]
            if service.selects(deployment.namespace, template.get("metadata", {}).get("labels", {})):
                spec = template.get("spec") or {}
                found.add(identity(deployment.namespace, spec.get("serviceAccountName", "default")))
        return sorted(found)

    def inbound(self, pod):
        """(target port, Service, its port) of each port that a pod serves; the first Service of a port counts."""
        found = {}
        for service in self.services:
            if service.selects(pod.namespace, pod.labels):
                for port in service.ports:
                    target = self.target(port, pod)
                    if target is not None:
                        found.setdefault(target, (target, service, port))
        return [found[target] for target in sorted(found)]

    def tls_mode(self, pod, port=None):
        """STRICT, PERMISSIVE or DISABLE: that of the port, the workload, its namespace, the mesh: who speaks first."""
        levels = [[], [], []]
        for policy in self.of_kind("PeerAuthentication"):
            labels = policy.spec.get("selector", {}).get("matchLabels", {})
            if labels:
                if policy.namespace == pod.namespace and matches(labels, pod.labels):
                    levels[0].append(policy)
            elif policy.namespace == pod.namespace:
                levels[1].append(policy)
            elif policy.namespace == ROOT_NAMESPACE:
                levels[2].append(policy)
        for policy in levels[0] + levels[1] + levels[2]:
            mode = "UNSET"
            if port is not None and policy in levels[0]:
                mode = policy.spec.get("portLevelMtls", {}).get(port, {}).get("mode", "UNSET")
            if mode == "UNSET":
                mode = policy.spec.get("mtls", {}).get("mode", "UNSET")
            if mode != "UNSET":
                return mode
        return "PERMISSIVE"

    def destination_rule(self, host, namespace):
        """The one that holds for clients of a namespace: theirs, then that of the Service, then that of the mesh."""
        service = self.service(host)
        for place in (namespace, service.namespace if service else "", ROOT_NAMESPACE):
            for rule in self.of_kind("DestinationRule"):
                if rule.namespace == place and matches_host(full_name(rule.spec["host"], rule.namespace), host):
                    return rule
        return None

    def subset(self, rule, name):
        return next((s for s in rule.spec.get("subsets", []) if s["name"] == name), None) if rule else None

    def gateways(self, pod):
        """Those whose selector means this router."""
        return [g for g in self.of_kind("Gateway") if matches(g.spec["selector"], pod.labels)]

    def virtual_services(self, gateway="mesh"):
        """Those that are bound to a gateway, NAMESPACE/NAME, or to the sidecars."""
        found = []
        for service in self.of_kind("VirtualService"):
            names = service.spec.get("gateways") or ["mesh"]
            if gateway in (name if name == "mesh" or "/" in name else f"{service.namespace}/{name}"
                           for name in names):
                found.append(service)
        return found

    def policies(self, pod):
        """The AuthorizationPolicies of a pod: of the mesh, of its namespace, its own."""
        return [p for p in self.of_kind("AuthorizationPolicy") if p.namespace in (ROOT_NAMESPACE, pod.namespace)
                and matches(p.spec.get("selector", {}).get("matchLabels", {}), pod.labels)]


def canonical_name(labels, workload):
    for key in ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app"):
        if labels.get(key):
            return labels[key]
    return workload
