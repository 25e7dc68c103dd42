# SPDX-License-Identifier: Apache-2.0
"""The control plane as a process of the demo: started, told of changes, killed and started again."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from .pods import last_lines, write_atomically

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
BASE = CHECKOUT / "examples" / "handson" / "config"
CHANGES = CHECKOUT / "examples" / "handson" / "changes"
SYNC_SECONDS = 30


class PlaneFailed(Exception):
    """The control plane did not do what it was told; the text says what it said."""


class ControlPlane:
    """Serves the YAML of `config`, a copy of the hands-on's own in the run directory."""

    def __init__(self, place, rotate_seconds):
        self.place, self.rotate_seconds = place, rotate_seconds
        self.config = place.folder / "config"
        shutil.copytree(BASE, self.config)
        self.log = place.folder / "control_plane.log"
        self.process = None

    def start(self):
        (self.place.folder / "control_plane.json").unlink(missing_ok=True)  # of one that was killed
        with open(self.log, "ab") as out, self.place.network.hub:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "examples.handson.control_plane", "--config", str(self.config),
                 "--run", str(self.place.folder), "--rotate", str(self.rotate_seconds)],
                cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)

    def status(self):
        """Its status file; before there is one, with nothing in it."""
        empty = {"generation": 0, "errors": [], "pods": [], "nacks": [], "certificates": {}}
        try:
            return {**empty, **json.loads((self.place.folder / "control_plane.json").read_text(encoding="utf-8"))}
        except (OSError, ValueError):
            return empty

    def wait(self, condition, what, seconds=SYNC_SECONDS):
        """Until condition(status); its last lines stand in the error when it does not come to that."""
        limit = time.monotonic() + seconds
        while True:
            status = self.status()
            if condition(status):
                return status
            if self.process.poll() is not None:
                raise PlaneFailed(f"the control plane ended with {self.process.returncode}:\n{self.last_words()}")
            if time.monotonic() > limit:
                raise PlaneFailed(f"{what}: not so after {seconds} s; the control plane said last:\n{self.last_words()}")
            time.sleep(0.03)

    def last_words(self):
        return last_lines(self.log)

    def wait_synced(self, generation=0):
        """Until every pod with a proxy has acknowledged what belongs to this generation."""
        names = [pod.name for pod in self.place.mesh()]

        def synced(status):
            at_least = max(generation, status["generation"])
            told = {pod["name"]: pod["generation"] or 0 for pod in status["pods"]}
            return at_least > 0 and all(told.get(name, 0) >= at_least for name in names)
        return self.wait(synced, f"generation {generation or 'now'} acknowledged by {', '.join(names)}")

    def write(self, name, text):
        """Put this file into the configuration, or take it out with None; gives the status after it was read."""
        before = self.status()["generation"]
        path = self.config / name
        if text is None:
            path.unlink()
        elif path.exists() and path.read_text(encoding="utf-8") == text:
            return self.status()
        else:
            write_atomically(path, text)
        return self.wait(lambda status: status["generation"] > before, f"{name} read")

    def apply(self, change, name):
        """A file of changes/ in the place of `name`; back when every proxy has acknowledged it."""
        status = self.write(name, (CHANGES / change).read_text(encoding="utf-8"))
        if status["errors"]:
            raise PlaneFailed(f"{change}: {status['errors'][0]}")
        return self.wait_synced(status["generation"])

    def restore(self):
        """The configuration as it was at the start."""
        for path in self.config.glob("*.yaml"):
            if not (BASE / path.name).exists():
                self.write(path.name, None)
        for path in BASE.glob("*.yaml"):
            self.write(path.name, path.read_text(encoding="utf-8"))
        self.wait_synced()

    def rotate(self):
        """New certificates for every pod, now."""
        self.process.send_signal(signal.SIGUSR1)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
