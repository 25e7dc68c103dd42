# SPDX-License-Identifier: Apache-2.0
"""The process: start, version, broken configuration, signals, bind failure, the end by the admin."""

import re
import signal
import socket

import pytest

from tests.harness import Layout, Proxy, bootstrap
from tests.harness.proxy import run_once, to_yaml
from tests.harness.upstream import wait_until


def test_version_names_the_program_and_ends_with_0(binary):
    done = run_once(binary, ["--version"])
    assert done.returncode == 0
    assert re.search(r"version: \S+", done.stdout + done.stderr)


def test_help_lists_the_flags(binary):
    done = run_once(binary, ["--help"])
    assert done.returncode == 0
    for flag in ("--config-path", "--config-yaml", "--mode", "--concurrency", "--drain-time-s"):
        assert flag in done.stdout + done.stderr


def test_serves_and_ends(rig):
    one = rig()
    conn = one.get("/x")
    assert conn.received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert conn.received.endswith(b"\r\n\r\nok\n")
    assert one.up.take_seen()[0].raw.startswith(b"GET /x HTTP/1.1\r\nhost: h.test\r\n")


def test_serves_with_several_workers(rig):
    one = rig(concurrency=3)
    for _ in range(30):
        assert b"200 OK" in one.get("/").received
    assert one.proxy.stats("^server.concurrency$") == {"server.concurrency": 3}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_ends_at_once_with_0(rig, name):
    one = rig()
    one.up.expect("hold")
    conn = one.connect()
    conn.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    one.proxy.wait_stat("cluster.up.upstream_rq_active", 1)
    one.proxy.signal(getattr(signal, name))
    assert one.proxy.wait_exit() == 0
    one.proxy.check_reports()
    assert conn.wait_end() in ("eof", "rst")


def test_sighup_is_survived(rig):
    one = rig()
    one.proxy.signal(signal.SIGHUP)
    assert b"200 OK" in one.get("/").received
    assert one.proxy.admin("/ready")[0] == 200


def test_sigpipe_is_survived(rig):
    one = rig()
    one.proxy.signal(signal.SIGPIPE)
    assert b"200 OK" in one.get("/").received


def test_sigusr1_opens_the_access_log_again(rig):
    one = rig()
    log = one.proxy.dir / "access.log"
    one.get("/before")
    wait_until(lambda: "/before" in log.read_text(), "first line in the access log")
    moved = one.proxy.dir / "moved.log"
    log.rename(moved)
    one.proxy.signal(signal.SIGUSR1)
    wait_until(log.exists, "new access log")
    one.get("/after")
    wait_until(lambda: "/after" in log.read_text(), "line in the new access log")
    assert "/after" not in moved.read_text()


def test_reopen_logs_by_the_admin(rig):
    one = rig()
    log = one.proxy.dir / "access.log"
    one.get("/before")
    wait_until(lambda: "/before" in log.read_text(), "first line in the access log")
    log.rename(one.proxy.dir / "moved.log")
    assert one.proxy.admin("/reopen_logs", "POST") == (200, b"OK\n")
    one.get("/after")
    wait_until(lambda: log.exists() and "/after" in log.read_text(), "line in the new access log")


def test_quitquitquit_ends_with_0(rig):
    one = rig()
    assert one.proxy.admin("/quitquitquit", "POST") == (200, b"OK\n")
    assert one.proxy.wait_exit() == 0
    one.proxy.check_reports()


def test_port_in_use_ends_with_1(binary):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        config = bootstrap({"clusters": {"up": {"endpoints": []}}, "listeners": {"main": {
            "log": "none", "listener": {"address": {"socket_address": {"port_value": number}}}}}})
        proxy = Proxy(binary, config, start=False)
        proxy.start()
        try:
            assert proxy.wait_exit() == 1
            said = proxy.stderr()
            assert f"127.0.0.1:{number}" in said and "in use" in said
        finally:
            proxy.kill()


def test_admin_port_in_use_ends_with_1(binary):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        config = bootstrap({"clusters": {"up": {"endpoints": []}}, "listeners": {"main": {"log": "none"}}})
        config["admin"]["address"]["socket_address"]["port_value"] = number
        del config["static_resources"]["listeners"]
        proxy = Proxy(binary, config, start=False)
        proxy.start()
        try:
            assert proxy.wait_exit() == 1
            assert "in use" in proxy.stderr()
        finally:
            proxy.kill()


def test_broken_configuration_starts_nothing(binary, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("static_resources: {clusters: [{name: c, nosuch_field: 1}]}\n")
    done = run_once(binary, ["-c", str(config), "--disable-hot-restart"])
    assert done.returncode == 1
    assert "nosuch_field" in done.stderr


def test_validate_opens_no_port(binary, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = bootstrap({"clusters": {"up": {"endpoints": []}}, "listeners": {"main": {
            "log": "none",
            "listener": {"address": {"socket_address": {"port_value": taken.getsockname()[1]}}}}}})
        path = tmp_path / "c.yaml"
        path.write_text(to_yaml(config))
        done = run_once(binary, ["-c", str(path), "--mode", "validate"])
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.strip() == f"configuration '{path}' OK"


def test_config_yaml_is_merged_over_the_file(binary):
    layout = Layout(bootstrap({}))
    proxy = Proxy(binary, lambda d: layout.resolved(log=str(d / "log")), args=[
        "--config-yaml", "node: {id: from-the-flag}"])
    with proxy:
        body = proxy.admin("/config_dump?resource=bootstrap&mask=bootstrap.node")[1]
        info = proxy.admin("/server_info")[1]
        assert b'"from-the-flag"' in body + info
    layout.stop()


def test_service_flags_fill_the_node(binary):
    layout = Layout(bootstrap({"bootstrap": {"node": None}}))
    proxy = Proxy(binary, lambda d: layout.resolved(log=str(d / "log")), args=[
        "--service-node", "my-node", "--service-cluster", "my-cluster", "--service-zone", "my-zone"])
    with proxy:
        info = proxy.admin("/server_info")[1]
        for word in (b'"my-node"', b'"my-cluster"', b'"my-zone"'):
            assert word in info
    layout.stop()


def test_port_0_is_shown_by_the_admin(binary):
    config = bootstrap({"clusters": {"up": {"endpoints": []}}, "listeners": {"main": {
        "log": "none", "routes": [{"match": "/", "direct": [200, "hello"]}],
        "listener": {"address": {"socket_address": {"port_value": 0}}}}}})
    with Proxy(binary, config) as proxy:
        shown = proxy.admin("/listeners")[1].decode()
        number = int(re.fullmatch(r"main::127\.0\.0\.1:(\d+)\n", shown).group(1))
        assert number > 0
        with socket.create_connection(("127.0.0.1", number)) as conn:
            conn.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            got = b""
            while data := conn.recv(4096):
                got += data
        assert got.endswith(b"hello")


def test_log_level_and_format(binary, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("node: {id: a, cluster: b}\n")
    proxy = Proxy(binary, {"admin": {"address": {"socket_address": {
        "address": "127.0.0.1", "port_value": 0}}}}, args=["-l", "info", "--log-format", "FORMAT %l %v"])
    with proxy:
        pass
    lines = [line for line in proxy.stderr().splitlines() if line]
    assert lines and any(line.startswith("FORMAT info ") for line in lines)
