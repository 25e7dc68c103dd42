# SPDX-License-Identifier: Apache-2.0
"""Configuration from files that are replaced. Each test passes with the real Envoy too."""

import json
import os

import pytest

from tests.harness import Proxy
from tests.replay.control_plane import PREFIX, endpoints, static_cluster
from tests.replay.test_subscriptions import names


def written(path, version, *resources):
    """Writes a DiscoveryResponse beside the file and moves it there."""
    fresh = path.with_suffix(".fresh")
    fresh.write_text(json.dumps({"version_info": version, "resources": resources}))
    os.replace(fresh, path)


def typed(fields, name="envoy.config.cluster.v3.Cluster"):
    return {"@type": PREFIX + name, **fields}


@pytest.fixture
def proxy(binary):
    def config(scratch):
        written(scratch / "cds.json", "1", typed(static_cluster("a", 1)))
        written(scratch / "lds.json", "1")
        written(scratch / "eds.json", "1", typed(endpoints("e", 7),
                                                 "envoy.config.endpoint.v3.ClusterLoadAssignment"))
        return {
            "node": {"id": "node-1", "cluster": "tests"},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "dynamic_resources": {
                kind + "_config": {"resource_api_version": "V3", "path_config_source": {
                    "path": str(scratch / f"{kind}.json")}} for kind in ("cds", "lds")}}

    with Proxy(binary, config) as one:
        yield one


def test_a_file_that_is_moved_there_is_taken(proxy):
    cds = proxy.dir / "cds.json"
    assert names(proxy) | {"a"} == {"a"}
    written(cds, "2", typed(static_cluster("a", 1)), typed(static_cluster("b", 1)))
    proxy.wait_for("b", lambda: "b" in names(proxy))
    written(cds, "3", typed(static_cluster("b", 1)))
    proxy.wait_for("the end of a", lambda: names(proxy) == {"b"})
    assert json.loads(proxy.admin("/config_dump")[1])["configs"][1]["version_info"] == "3"


def test_a_bad_file_changes_nothing(proxy):
    cds = proxy.dir / "cds.json"
    for text in ("{ not json", '{"resources": [{"@type": "x/no.such.Type"}]}',
                 '{"resources": [{"@type": "%senvoy.config.cluster.v3.Cluster"}]}' % PREFIX):
        fresh = cds.with_suffix(".fresh")
        before = proxy.stats(r"cds\.update_(rejected|failure)")
        fresh.write_text(text)
        os.replace(fresh, cds)
        proxy.wait_for("its refusal", lambda: proxy.stats(r"cds\.update_(rejected|failure)") != before)
        assert names(proxy) == {"a"}
    written(cds, "2", typed(static_cluster("b", 1)))
    proxy.wait_for("a good one", lambda: names(proxy) == {"b"})


def test_endpoints_come_from_a_file(proxy):
    eds = proxy.dir / "eds.json"
    cluster = {"name": "e", "type": "EDS", "connect_timeout": "1s", "eds_cluster_config": {"eds_config": {
        "resource_api_version": "V3", "path_config_source": {"path": str(eds)}}}}
    written(proxy.dir / "cds.json", "2", typed(cluster))
    proxy.wait_for("its host", lambda: b"e::127.0.0.1:7::" in proxy.admin("/clusters")[1])
    written(eds, "2", typed(endpoints("e", 8), "envoy.config.endpoint.v3.ClusterLoadAssignment"))
    proxy.wait_for("its new host", lambda: b"e::127.0.0.1:8::" in proxy.admin("/clusters")[1])


def assignment(name, port):
    return typed(endpoints(name, port), "envoy.config.endpoint.v3.ClusterLoadAssignment")


@pytest.mark.parametrize("text, moved", [
    ("{}", {"update_empty": 1, "update_success": 1}),
    ('{"version_info": "9", "resources": []}', {"update_empty": 1, "update_success": 1}),
    ("", {"update_failure": 1}),
    ("{ not json", {"update_failure": 1}),
    (json.dumps({"resources": [assignment("other", 1)]}), {"update_rejected": 1}),
    (json.dumps({"resources": [assignment("e", 1), assignment("other", 1)]}), {"update_rejected": 1}),
])
def test_a_file_of_endpoints_that_has_none(proxy, text, moved):
    test_endpoints_come_from_a_file(proxy)
    def counts():
        found = proxy.stats(r"^cluster\.e\.update_(empty|success|failure|rejected)$")
        return {name.rsplit(".", 1)[1]: value for name, value in found.items()}
    before = counts()
    fresh = proxy.dir / "fresh"
    fresh.write_text(text)
    os.replace(fresh, proxy.dir / "eds.json")
    expected = {name: value + moved.get(name, 0) for name, value in before.items()}
    proxy.wait_for(f"{expected}", lambda: counts() == expected)
    assert b"e::127.0.0.1:8::" in proxy.admin("/clusters")[1]


def test_a_file_of_secrets_that_has_none_is_not_waited_for(binary, tmp_path):
    (tmp_path / "secret.json").write_text('{"resources": []}')
    context = {"tls_certificate_sds_secret_configs": [{"name": "none", "sds_config": {
        "resource_api_version": "V3", "path_config_source": {"path": str(tmp_path / "secret.json")}}}]}
    admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
    with Proxy(binary, lambda _: {"node": {"id": "a", "cluster": "a"}, "admin": admin, "static_resources": {"listeners": [{
            "name": "a", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": [{"filters": [{"name": "tcp", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "a", "cluster": "c"}}],
                "transport_socket": {"name": "tls", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "common_tls_context": context}}}]}],
            "clusters": [{"name": "c", "load_assignment": {"cluster_name": "c"}}]}}) as proxy:
        proxy.wait_for("to be live", lambda: proxy.admin("/ready")[0] == 200)
        assert proxy.stats(r"^sds\.none\.update_rejected$") == {"sds.none.update_rejected": 1}
