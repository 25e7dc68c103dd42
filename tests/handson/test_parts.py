# SPDX-License-Identifier: Apache-2.0
"""Parts of the hands-on by themselves: what its load counts, what it reads of metrics, its run directory."""

import json
import pathlib
import socket
import subprocess
import sys
import threading

import pytest

from examples.handson import __main__ as handson
from examples.handson import metrics, rundir, sandbox
from tests.harness.patience import DEADLINE_S
from tests.harness.proxy import ROOT

ANSWER = b"HTTP/1.1 200 OK\r\nx-colour: blue\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """Each connection is given to `serve(connection, number)`."""

    def __init__(self, serve):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(serve,), daemon=True).start()

    def _accept(self, serve):
        number = 0
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(serve, connection, number), daemon=True).start()
            number += 1

    @staticmethod
    def _one(serve, connection, number):
        with connection:
            try:
                serve(connection, number)
            except OSError:
                pass


@pytest.fixture
def load():
    """load(serve): the load client against such a server; gives a function that counts."""
    ended = []

    def start(serve, *options):
        server = Server(serve)
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "examples" / "handson" / "load.py"), "127.0.0.1", str(server.port),
             "--rate", "400", "--connections", "2", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        ended.append((process, server))

        def until(condition):
            whole = {"sent": 0, "again": 0, "statuses": {}, "colours": {}, "failures": {}}
            while not condition(whole):
                process.stdin.write("count\n")
                process.stdin.flush()
                one = json.loads(process.stdout.readline())
                for key in ("sent", "again"):
                    whole[key] += one[key]
                for key in ("statuses", "colours", "failures"):
                    for name, number in one[key].items():
                        whole[key][name] = whole[key].get(name, 0) + number
            return whole
        return until
    yield start
    for process, server in ended:
        process.communicate(timeout=DEADLINE_S)
        server.listener.shutdown(socket.SHUT_RDWR)  # close() alone leaves accept() at work
        server.listener.close()
        assert process.returncode == 0


def test_load_counts_answers(load):
    def serve(connection, _):
        while connection.recv(4096):
            connection.sendall(ANSWER)
    counts = load(serve)(lambda so_far: so_far["sent"] >= 50)
    assert counts["statuses"] == {"200": counts["sent"]}
    assert counts["colours"] == {"blue": counts["sent"]}
    assert counts["again"] == 0


def test_load_sends_again_what_a_closing_connection_lost(load):
    def serve(connection, _):
        for _ in range(3):
            if connection.recv(4096):
                connection.sendall(ANSWER)
        connection.recv(4096)  # a fourth request, and no answer to it
    counts = load(serve)(lambda so_far: so_far["again"] >= 3)
    assert not counts["failures"] and set(counts["statuses"]) == {"200"}


def test_load_names_what_failed(load):
    def serve(connection, number):
        connection.recv(4096)
        if number % 2:
            connection.sendall(ANSWER[:-1])  # cut in the middle of an answer
    counts = load(serve)(lambda so_far: len(so_far["failures"]) == 2)
    assert not counts["statuses"]
    assert sorted(name.split(":")[0] for name in counts["failures"]) == ["IncompleteReadError", "closed before an answer"]


def test_quantile_of_a_histogram():
    edge = metrics.Edge("a", "b", {"200": 100}, {1.0: 50, 5.0: 90, 10.0: 100, float("inf"): 100})
    assert edge.quantile(0.5) == 1.0
    assert edge.quantile(0.7) == 3.0
    assert edge.quantile(0.99) == pytest.approx(9.5)
    assert metrics.Edge("a", "b", {}, {}).quantile(0.5) == 0.0


def test_lines_of_a_metrics_page():
    page = '# TYPE a counter\na{b="c",d="e \\"f\\", g"} 4\nplain 1.5\n\n'
    assert list(metrics.series(page)) == [("a", {"b": "c", "d": 'e \\"f\\", g'}, 4.0), ("plain", {}, 1.5)]


def test_run_directory_of_the_living_and_the_dead(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = tmp_path / (rundir.PREFIX + "dead")
    dead.mkdir()
    with rundir.made() as alive:
        assert rundir.running() == alive
        assert rundir.clean() == ([dead], [alive])
        assert alive.exists() and not dead.exists()
    assert rundir.running() is None and not alive.exists()


def test_what_an_ordinary_user_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(sandbox.Unable, match="uidmap"):
        sandbox.rootless_maps()
    for tool in ("newuidmap", "newgidmap"):
        (tmp_path / tool).touch(mode=0o755)
    monkeypatch.setattr(sandbox, "_subordinate", lambda *_: None)
    with pytest.raises(sandbox.Unable, match="usermod --add-subuids"):
        sandbox.rootless_maps()


def test_missing_programs_are_named(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda tool: None)
    assert "apt-get install iproute2 iptables" in handson.missing(pathlib.Path(sys.executable))
    assert "build it with ./dev build" in handson.missing(pathlib.Path("/nowhere/kobune"))
