# SPDX-License-Identifier: Apache-2.0
"""Hosts that are made of the address that a request names."""


def dst(**options):
    """A cluster without endpoints, whose hosts the requests name."""
    return {"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "endpoints": [], "load_assignment": None, **options}


def get(one, path, header=None):
    """The status line of a request, on a connection of its own."""
    return one.get(path, headers=[header] if header else []).received.split(b"\r\n")[0]


def test_header_names_the_host(rig):
    one = rig({"clusters": {
                   "hdr": dst(original_dst_lb_config={"use_http_header": True}, cleanup_interval="0.2s",
                              upstream_bind_config={"source_address": {"address": "127.0.0.6", "port_value": 0}}),
                   "none": dst(), "up": {}},
               "listeners": {"main": {"routes": ["/hdr -> hdr", "/none -> none"]}}})
    there = f"x-envoy-original-dst-host: 127.0.0.1:{one.up.number}"
    assert b" 503 " in get(one, "/none", there)
    assert b" 503 " in get(one, "/hdr")
    for wrong in ("foo", "127.0.0.1", "127.0.0.1:99999", "localhost:80", "[::1:80", ":80"):
        assert b" 503 " in get(one, "/hdr", f"x-envoy-original-dst-host: {wrong}")
    assert b" 200 " in get(one, "/hdr", there)
    assert b" 200 " in get(one, "/hdr", there)
    one.proxy.wait_stat("cluster.hdr.membership_total", 1)
    one.proxy.wait_stat("cluster.hdr.original_dst_host_invalid", 6)
    one.proxy.wait_stat("cluster.hdr.upstream_cx_none_healthy", 7)
    assert f"hdr::127.0.0.1:{one.up.number}::hostname::hdr127.0.0.1:{one.up.number}" in \
        one.proxy.admin("/clusters")[1].decode()
    # a host goes when its last connection is gone and nobody has asked for it again
    assert b" 503 " in get(one, "/hdr", "x-envoy-original-dst-host: 127.0.0.1:0")
    one.proxy.wait_stat("cluster.hdr.default.total_match_count", 2)
    one.proxy.wait_stat("cluster.hdr.membership_change", 3)
    one.proxy.wait_stat("cluster.hdr.membership_total", 1)
