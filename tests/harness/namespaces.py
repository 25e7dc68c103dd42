# SPDX-License-Identifier: Apache-2.0
"""Pods: network namespaces in which what the application sends and gets goes through a sidecar.

A namespace here has no name: it lives as long as a descriptor of it is open or a process runs in
it. So whatever a test does, nothing of it is left when the test's process is gone.

Threads choose their namespace, and a socket stays in that in which it was made: `with pod:` moves
the calling thread there, and what is connected, bound or started meanwhile belongs to the pod."""

import ctypes
import functools
import os
import shutil
import subprocess
import threading

CLONE_NEWNET = 0x40000000
SIDECAR_GROUP = 1337  # what it sends is not captured; a group, since the binary may be anyone's
OUTBOUND_PORT = 15001
INBOUND_PORT = 15006
LEAVES_FROM = "127.0.0.6"

libc = ctypes.CDLL(None, use_errno=True)


def _checked(result, what):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def _own_namespace():
    return os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


class Namespace:
    """An empty network namespace with its loopback up."""

    def __init__(self):
        before = _own_namespace()
        try:
            _checked(libc.unshare(CLONE_NEWNET), "unshare")
            self.fd = _own_namespace()
        finally:
            _checked(libc.setns(before, CLONE_NEWNET), "setns")
            os.close(before)
        self.stack = []
        self.run("ip", "link", "set", "lo", "up")

    @property
    def path(self):
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def __enter__(self):
        self.stack.append(_own_namespace())
        _checked(libc.setns(self.fd, CLONE_NEWNET), "setns")
        return self

    def __exit__(self, *_):
        before = self.stack.pop()
        _checked(libc.setns(before, CLONE_NEWNET), "setns")
        os.close(before)

    def run(self, *command):
        with self:
            return run(*command)

    def close(self):
        os.close(self.fd)


# Each line is one rule of the table nat. Connections to a pod come by PREROUTING, those of its own
# by OUTPUT; the last line of each chain captures what no line before let pass.
RULES = f"""
-N INBOUND
-N OUTBOUND
-A PREROUTING -p tcp -j INBOUND
-A OUTPUT -p tcp -j OUTBOUND
-A INBOUND -p tcp -j REDIRECT --to-ports {INBOUND_PORT}
-A OUTBOUND -o lo -s {LEAVES_FROM}/32 -j RETURN
-A OUTBOUND -o lo ! -d 127.0.0.1/32 -m owner --gid-owner {SIDECAR_GROUP} -p tcp -j REDIRECT --to-ports {INBOUND_PORT}
-A OUTBOUND -m owner --gid-owner {SIDECAR_GROUP} -j RETURN
-A OUTBOUND -o lo -j RETURN
-A OUTBOUND -p tcp -j REDIRECT --to-ports {OUTBOUND_PORT}
"""


class Network:
    """Pods on one bridge, each with its address."""

    def __init__(self):
        self.members = []
        self.hub = self._namespace()
        self.hub.run("ip", "link", "add", "bridge", "type", "bridge")
        self.hub.run("ip", "link", "set", "bridge", "up")

    def _namespace(self):
        self.members.append(Namespace())
        return self.members[-1]

    def pod(self, address, captured=True):
        """A namespace with this address; `captured`: its traffic goes to the sidecar's ports."""
        pod = self._namespace()
        pod.address = address
        port = f"port{len(self.members)}"
        self.hub.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", pod.path)
        self.hub.run("ip", "link", "set", port, "master", "bridge", "up")
        pod.run("ip", "address", "add", f"{address}/16", "dev", "eth0")
        pod.run("ip", "link", "set", "eth0", "up")
        # what is routed nowhere else goes somewhere, as the addresses of services do
        pod.run("ip", "route", "add", "default", "dev", "eth0")
        for rule in RULES.strip().splitlines() if captured else ():
            pod.run("iptables", "-t", "nat", *rule.split())
        return pod

    def close(self):
        for member in self.members:
            member.close()


@functools.cache
def missing():
    """What this machine lacks for pods, as text; None when there is all of it."""
    for tool in ("ip", "iptables"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
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
