# SPDX-License-Identifier: Apache-2.0
"""Configurations of HTTP filters from a control plane (config_discovery)."""

import pytest
from google.protobuf import json_format

from envoy.config.core.v3 import extension_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2  # noqa: F401 (known to Any)
from tests.blackbox.test_control_plane import ANY, listener, mesh  # noqa: F401 (a fixture)
from tests.harness.control_plane import EXTENSION, LISTENER, ROUTE

RBAC = ANY + "filters.http.rbac.v3.RBAC"
EVERYBODY = {"all": {"permissions": [{"any": True}], "principals": [{"any": True}]}}
DENIED = (403, "RBAC: access denied")


def gate(deny, type_url=RBAC):
    config = {"@type": type_url}
    if deny:
        config["rules"] = {"action": "DENY", "policies": EVERYBODY}
    return json_format.ParseDict({"name": "gate", "typed_config": config},
                                 extension_pb2.TypedExtensionConfig())


def with_gate(port, **more):
    """The listener with a filter "gate" before its router."""
    message = json_format.MessageToDict(listener(port), preserving_proto_field_name=True)
    manager = message["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"].insert(0, {"name": "gate", "config_discovery": {
        "config_source": {"ads": {}, "resource_api_version": "V3", **more.pop("source", {})},
        "type_urls": [RBAC], **more}})
    return json_format.ParseDict(message, type(listener(port))())


def test_a_filter_changes_and_goes(mesh):  # noqa: F811
    mesh.plane.put(LISTENER, with_gate(mesh.port.number))
    mesh.plane.put(EXTENSION, gate(deny=True))
    proxy = mesh.proxy()
    assert mesh.get() == DENIED
    mesh.plane.put(EXTENSION, gate(deny=False))
    mesh.wait("the open gate", lambda: mesh.get() == (200, "one"))
    mesh.plane.put(EXTENSION, gate(False, ANY + "filters.http.router.v3.Router"))
    mesh.wait("the refusal", lambda: mesh.plane.nacks)
    assert mesh.plane.nacks == [(EXTENSION, (
        "Error: filter config has type URL envoy.extensions.filters.http.router.v3.Router but "
        "expect envoy.extensions.filters.http.rbac.v3.RBAC."))]
    assert mesh.get() == (200, "one")
    mesh.plane.put(EXTENSION, gone=["gate"])
    mesh.wait("no configuration", lambda: mesh.get() == (500, ""))
    mesh.plane.put(EXTENSION, gate(deny=True))
    mesh.wait("the closed gate", lambda: mesh.get() == DENIED)
    prefix = "extension_config_discovery.http_filter.gate."
    proxy.wait_stat(prefix + "config_reload", 4)
    stats = proxy.stats("^extension_config_discovery")
    assert stats[prefix + "config_fail"] == 1
    assert stats[prefix + "update_rejected"] == 1
    proxy.stop()


def test_a_listener_waits_for_its_filter(mesh):  # noqa: F811
    mesh.plane.put(LISTENER, with_gate(mesh.port.number))
    proxy = mesh.proxy(wait_ready=False)
    proxy.wait_admin()
    mesh.wait("its routes", lambda: mesh.plane.acks.count(ROUTE) == 1)
    with pytest.raises(ConnectionRefusedError):
        mesh.get()
    mesh.plane.put(EXTENSION, gate(deny=True))
    proxy.wait_ready()
    assert mesh.get() == DENIED
    proxy.stop()


def test_defaults(mesh):  # noqa: F811
    default = {"default_config": {
        "@type": RBAC, "rules": {"action": "DENY", "policies": EVERYBODY}}}
    mesh.plane.put(LISTENER, with_gate(
        mesh.port.number, apply_default_config_without_warming=True, **default))
    proxy = mesh.proxy()
    assert mesh.get() == DENIED
    mesh.plane.put(EXTENSION, gate(deny=False))
    mesh.wait("the open gate", lambda: mesh.get() == (200, "one"))
    mesh.plane.put(EXTENSION, gone=["gate"])
    mesh.wait("the default again", lambda: mesh.get() == DENIED)
    proxy.stop()
    mesh.plane.put(LISTENER, with_gate(
        mesh.port.number, source={"initial_fetch_timeout": "0.2s"}, **default))
    proxy = mesh.proxy()
    assert mesh.get() == DENIED
    proxy.stop()
