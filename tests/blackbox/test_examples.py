# SPDX-License-Identifier: Apache-2.0
"""The examples do what their READMEs say: every command there is run. Their scripts check each of their
own steps and end with 0 if all went as described."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import pytest

from tests.harness import namespaces
from tests.harness.patience import DEADLINE_S
from tests.harness.proxy import ROOT, as_in_a_terminal, envoy_path, sanitizer_env, subject_path
from tests.harness.upstream import wait_until

EXAMPLES = ["front_proxy", "mtls_spiffe", "file_xds"]
KEEPS = "Everything keeps running"


def fences(text):
    """[(language, [line, ...])] of a page's blocks."""
    return [(kind, body.splitlines()) for kind, body in re.findall(r"^```(\w+)\n(.*?)^```", text, re.S | re.M)]


def console(lines):
    """[(command, pattern of what it prints)]: "..." stands for anything."""
    found = []
    for line in lines:
        if line.startswith("$ "):
            found.append([line[2:], ""])
        else:
            found[-1][1] += re.escape(line + "\n").replace(r"\.\.\.", "(?s:.*)")
    return found


@pytest.fixture
def pod():
    """A network of its own, so that the ports of the READMEs are free; this machine's where there is none."""
    if namespaces.missing() is not None:
        yield contextlib.nullcontext()
        return
    made = namespaces.Namespace()
    yield made
    made.close()


class Readme:
    """Runs the commands of one README from the top of the sources, in their order."""

    def __init__(self, name, pod, scratch):
        self.text = (ROOT / "examples" / name / "README.md").read_text()
        self.pod, self.scratch = pod, scratch
        self.kept = None

    def changed(self, command):
        """The same command with the binary under test and a folder of the test."""
        command = command.replace(".venv/bin/python", sys.executable).replace("build/release/kobune", str(subject_path()))
        return re.sub(r"\bbuild/(mtls_spiffe|file_xds)\b", str(self.scratch), command)

    def shell(self, command, **options):
        with self.pod:
            return subprocess.Popen(["sh", "-c", self.changed(command)], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT, text=True, env=sanitizer_env(), **options)

    def run(self):
        for kind, lines in fences(self.text):
            if kind == "sh":
                for line in lines:
                    self.script(line)
            elif kind == "console":
                for command, pattern in console(lines):
                    process = self.shell(command)
                    printed, _ = process.communicate(timeout=60)
                    assert re.fullmatch(pattern, printed.replace("\r", "")), f"$ {command}\n{printed}"

    def script(self, line):
        if "--keep" not in line:
            printed, _ = (process := self.shell(line)).communicate(timeout=120)
            assert process.returncode == 0 and "every step went as described" in printed, printed
            return
        output = open(self.scratch / "keep.out", "w+")
        with self.pod, output:
            self.kept = subprocess.Popen(["sh", "-c", "exec " + self.changed(line.split("#")[0])], cwd=ROOT, stdin=subprocess.DEVNULL,
                                         stdout=output, stderr=subprocess.STDOUT, env=sanitizer_env(), preexec_fn=as_in_a_terminal)
        wait_until(lambda: self.kept.poll() is not None or KEEPS in self.printed(), KEEPS, 120)
        assert self.kept.poll() is None, self.printed()

    def printed(self):
        return (self.scratch / "keep.out").read_text()

    def end(self):
        if self.kept:
            self.kept.send_signal(signal.SIGINT)
            try:
                self.kept.wait(DEADLINE_S)
            finally:
                self.kept.kill()

    def check_end(self):
        self.end()
        assert self.kept.returncode == 0 and "every step went as described" in self.printed(), self.printed()


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_command_of_the_readme(name, pod):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    if subject_path() == envoy_path():
        pytest.skip("the READMEs show Kobune's words")
    with tempfile.TemporaryDirectory(prefix="kb-example-") as scratch:
        readme = Readme(name, pod, type(ROOT)(scratch))
        try:
            readme.run()
            readme.check_end()
        finally:
            readme.end()


@pytest.mark.parametrize("name", EXAMPLES)
def test_goes_as_described_where_ports_are_taken(name, pod):
    with contextlib.ExitStack() as stack:
        with pod:
            for port in (10000, 9901, 8001):
                with contextlib.suppress(OSError):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            done = subprocess.run([sys.executable, str(ROOT / "examples" / name / "run.py"), "--proxy", str(subject_path())],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, env=sanitizer_env(), cwd=os.sep, timeout=120)
    assert done.returncode == 0 and "every step went as described" in done.stdout, done.stdout + done.stderr
    assert "http://127.0.0.1:9901/" not in done.stdout, "its usual port is taken"
