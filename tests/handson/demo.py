# SPDX-License-Identifier: Apache-2.0
"""Runs the demo, in a folder for temporary files of its own, so that what it leaves can be seen."""

import contextlib
import pathlib
import shutil
import subprocess
import sys
import tempfile

from tests.harness.patience import DEADLINE_S
from tests.harness.proxy import ROOT, as_in_a_terminal, sanitizer_env, subject_path


@contextlib.contextmanager
def place():
    """A folder for temporary files that other users may pass through, as the sidecars' one does."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kobune-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def command(place, *arguments):
    return [sys.executable, "-m", "examples.handson", "--proxy", str(subject_path()),
            "--report", str(place / "report.html"), *arguments]


def environment(place):
    return {**sanitizer_env(), "TMPDIR": str(place), "PYTHONPATH": str(ROOT)}


def demo(place, *arguments, timeout=10 * DEADLINE_S):
    return subprocess.run(command(place, *arguments), capture_output=True, text=True, timeout=timeout, cwd=ROOT,
                          stdin=subprocess.DEVNULL, env=environment(place))


def left(place):
    """What is there of demos in `place`: run directories, and processes that were told of them."""
    found = [str(path) for path in place.glob("kobune-demo-*")]
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TMPDIR={place}".encode() in path.read_bytes().split(b"\0"):
                found.append(path.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            pass
    return found


def started(place, *arguments):
    """A demo that is kept running, once it says so."""
    log = place / "log"
    with open(log, "wb") as out:
        process = subprocess.Popen(command(place, "--keep", *arguments), stdout=out, stderr=subprocess.STDOUT,
                                   stdin=subprocess.DEVNULL, cwd=ROOT, env=environment(place), start_new_session=True,
                                   preexec_fn=as_in_a_terminal)
    return process, log
