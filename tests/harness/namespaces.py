# SPDX-License-Identifier: Apache-2.0
"""Pods for tests: network namespaces in which what the application sends and gets goes through a
sidecar. The namespaces themselves are those of the hands-on (examples/handson/namespaces.py)."""

import functools
import os
import shutil
import subprocess
from pathlib import Path

from examples.handson import namespaces
from examples.handson.namespaces import Namespace, run  # noqa: F401 (for the tests)

SIDECAR_GROUP = 1337  # what it sends is not captured; a group, since the binary may be anyone's
OUTBOUND_PORT = 15001
INBOUND_PORT = 15006
LEAVES_FROM = "127.0.0.6"  # the sidecar's connections to its own application

# As Istio's init container has it, but that the sidecar is told by its group alone: its binary may be
# anyone's, and as user 1337 could not be read.
CAPTURE = ["-p", str(OUTBOUND_PORT), "-z", str(INBOUND_PORT), "-u", ",", "-g", str(SIDECAR_GROUP), "-m", "REDIRECT",
           "-i", "*", "-x", "", "-b", "*", "--log_output_level", "warn"]


def iptables_path():
    """kobune-iptables: that beside KOBUNE_BIN, or the one just built; None if there is none."""
    given = os.environ.get("KOBUNE_BIN", "")
    folders = [Path(given).parent] if "/" in given else []
    root = Path(__file__).resolve().parents[2] / "build"
    for folder in folders + [root / "asan", root / "release"]:
        if (folder / "kobune-iptables").exists():
            return folder / "kobune-iptables"
    return None


class Network(namespaces.Network):
    """Pods on one bridge, each with its address."""

    def pod(self, address, captured=True):
        """A namespace with this address; `captured`: its traffic goes to the sidecar's ports."""
        pod = self.member(address)
        if captured:
            pod.run(str(iptables_path()), *CAPTURE)
        return pod


@functools.cache
def missing():
    """What this machine lacks for pods, as text; None when there is all of it."""
    for tool in ("ip", "iptables"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if iptables_path() is None:
        return "no kobune-iptables: ./dev build"
    try:
        network = Network()
    except OSError as error:
        return f"no network namespaces: {error} (they need root)"
    except AssertionError as error:
        return str(error)
    try:
        network.pod("10.11.0.1")
    except AssertionError as error:
        return str(error)
    finally:
        network.close()
    return None


@functools.cache
def mounts_missing():
    """Why there are no mount namespaces here, as text; None when there are."""
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"no mount namespaces: {done.stderr.strip()}"
