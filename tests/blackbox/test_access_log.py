# SPDX-License-Identifier: Apache-2.0
"""Lines of the access log that are written while a stream or a connection lasts."""

ENTRY = {"name": "kinds", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "path": "{dir}/kinds.log", "log_format": {"text_format_source": {
        "inline_string": "%ACCESS_LOG_TYPE% %BYTES_RECEIVED% %UPSTREAM_CLUSTER%\n"}}}}
OPTIONS = {"access_log_options": {"access_log_flush_interval": "0.02s"}, "access_log": [ENTRY]}


def kinds(one):
    path = one.proxy.dir / "kinds.log"
    return path.read_text(encoding="ascii").splitlines() if path.exists() else []


def check(one, conn, periodic, end):
    """Lines come while the connection lasts, one at its end, and none after it."""
    one.proxy.wait_for("periodic lines", lambda: kinds(one).count(periodic) >= 3)
    one.up.release()
    conn.close()
    one.proxy.wait_for("the last line", lambda: end in kinds(one))
    assert kinds(one)[-1] == end
    assert set(kinds(one)) <= {periodic, end, periodic.replace("4", "0")}


def test_periodic_lines_of_a_stream(rig):
    one = rig({"listeners": {"main": {"hcm": OPTIONS}}})
    one.up.expect(["hold"])
    conn = one.connect()
    conn.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody", ["POST"])
    check(one, conn, "DownstreamPeriodic 4 up", "DownstreamEnd 4 up")


def test_periodic_lines_of_a_connection(rig):
    one = rig({"listeners": {"main": {"tcp": {"cluster": "up", **OPTIONS}, "log": "none"}},
               "upstreams": {"up": {"mode": "tcp"}}})
    conn = one.connect()
    conn.send(b"body", [])
    check(one, conn, "TcpPeriodic 4 up", "TcpConnectionEnd 4 up")
