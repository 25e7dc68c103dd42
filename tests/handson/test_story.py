# SPDX-License-Identifier: Apache-2.0
"""The hands-on's steps, and that nothing of it is left, whatever ends it. Needs root, ip and
iptables; skipped with what is missing."""

import os
import shutil
import signal
import subprocess

import pytest

from tests.handson import demo as demo_of
from tests.handson.demo import command, demo, environment, left, started
from tests.harness import namespaces
from tests.harness.patience import DEADLINE_S
from tests.harness.proxy import ROOT
from tests.harness.upstream import wait_until

MISSING = namespaces.missing() or namespaces.mounts_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"pods: {MISSING}")


@pytest.fixture
def place():
    with demo_of.place() as folder:
        yield folder


def links():
    return set(os.listdir("/sys/class/net"))


def test_steps_go_as_described(place):
    before = links()
    done = demo(place, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every step went as described" in done.stdout
    assert not done.stderr, done.stderr
    report = (place / "report.html").read_text(encoding="utf-8")
    assert "10 of 10 steps went as described" in report
    assert left(place) == []
    assert links() <= before


def test_proxy_that_ends_is_named(place):
    """A program that is no proxy takes its place: no step after the first is tried, and it is said."""
    done = subprocess.run([*command(place), "--proxy", shutil.which("false")], capture_output=True, text=True, timeout=60,
                          cwd=ROOT, env=environment(place))
    assert done.returncode == 1
    assert "client: its proxy ended with 1" in done.stdout
    assert done.stdout.count("not run, since") == 9
    assert left(place) == []


def test_unknown_step_is_named(place):
    done = demo(place, "--step", "99")
    assert done.returncode == 2
    assert "there is no step 99" in done.stderr


def test_killed_in_the_middle_and_nothing_is_left(place):
    before = links()
    process, log = started(place, "--step", "1,5")
    wait_until(lambda: "weights 50/50" in log.read_text() or process.poll() is not None, "the middle of step 5", 60)
    assert process.poll() is None, log.read_text()
    process.send_signal(signal.SIGKILL)
    process.wait()
    directories = [str(path) for path in place.glob("kobune-demo-*")]
    assert len(directories) == 1
    wait_until(lambda: left(place) == directories, "the end of every process")
    done = demo(place, "--clean")
    assert "removed what a killed demo left" in done.stdout
    assert left(place) == []
    assert links() <= before


def test_ctrl_c_in_the_middle_and_nothing_is_left(place):
    process, log = started(place, "--step", "1,5")
    wait_until(lambda: "weights 50/50" in log.read_text() or process.poll() is not None, "the middle of step 5", 60)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(DEADLINE_S) == 130, log.read_text()
    assert "everything is taken down" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert left(place) == []


def test_kept_demo_ends_by_a_signal(place):
    process, log = started(place, "--step", "3")
    wait_until(lambda: "Ctrl-C ends everything" in log.read_text() or process.poll() is not None, "a demo that is kept", 60)
    assert process.poll() is None, log.read_text()
    got = subprocess.run(command(place, "--in", "client", "curl", "-s", "http://handson:8080/colour"), cwd=ROOT,
                         capture_output=True, text=True, timeout=DEADLINE_S, env=environment(place))
    if shutil.which("curl"):
        assert '"colour": "blue"' in got.stdout, got
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 0, log.read_text()
    assert left(place) == []
