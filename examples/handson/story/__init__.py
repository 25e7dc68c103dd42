# SPDX-License-Identifier: Apache-2.0
"""The ten steps of the hands-on, and what runs them."""

from . import mesh_steps, metrics_steps, policy_steps, traffic_steps
from .teller import Step

STEPS = [
    Step(1, "pods come up", "An app and a sidecar in each, under Istio's rules; handson-blue shows 2/2.", mesh_steps.pods_come_up),
    Step(2, "the way in", "The gateway takes the Host that a Gateway names, and no other.", mesh_steps.through_the_gateway),
    Step(3, "the way between pods", "The apps speak plain HTTP; the sidecars make it mutual TLS, and know who calls.",
         mesh_steps.mutual_tls),
    Step(4, "STRICT and PERMISSIVE", "Plain text from outside the mesh is refused, or taken, as a PeerAuthentication says.",
         mesh_steps.strict_and_permissive),
    Step(5, "routing that changes live", "Weights, a header match and a rewrite take effect under load; no request fails.",
         traffic_steps.weights_follow),
    Step(6, "faults, timeouts, retries, breakers", "What the mesh does about failures, and failures made on purpose.",
         traffic_steps.failures),
    Step(7, "who may do what", "An AuthorizationPolicy denies by SPIFFE identity and path.", policy_steps.authorization),
    Step(8, "certificates rotate", "New certificates in every proxy under load; no request fails.", policy_steps.rotation),
    Step(9, "a control plane in trouble", "It is told nonsense, then killed: traffic does not notice.",
         policy_steps.nonsense_and_death),
    Step(10, "what is counted", "Istio's metrics by workload, code and mTLS; Prometheus, Kiali's and the dashboards' queries.",
         metrics_steps.counted),
]
