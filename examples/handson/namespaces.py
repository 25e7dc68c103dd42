# SPDX-License-Identifier: Apache-2.0
"""Network namespaces on one bridge, as pods are on a node's.

A namespace here has no name: it lives as long as a descriptor of it is open or a process runs in
it. So whatever happens, nothing of it is left when the process that made it is gone.

Threads choose their namespace, and a socket stays in that in which it was made: `with pod:` moves
the calling thread there, and what is connected, bound or started meanwhile belongs to the pod."""

import ctypes
import os
import subprocess
import threading

CLONE_NEWNET = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)


def checked(result, what):
    """A system call's result through ctypes: an OSError with the call's name when it failed."""
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def _own_namespace():
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class CommandFailed(AssertionError):
    """A program that sets up the network ended with an error; the text is what it said."""


def run(*command, pass_fds=()):
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, pass_fds=pass_fds)
    if done.returncode != 0:
        raise CommandFailed(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


class Namespace:
    """An empty network namespace with its loopback up."""

    def __init__(self):
        before = _own_namespace()
        try:
            checked(libc.unshare(CLONE_NEWNET), "unshare")
            self.fd = _own_namespace()
        finally:
            checked(libc.setns(before, CLONE_NEWNET), "setns")
            os.close(before)
        self.stack = threading.local()
        self.run("ip", "link", "set", "lo", "up")

    def __enter__(self):
        if not hasattr(self.stack, "before"):
            self.stack.before = []
        self.stack.before.append(_own_namespace())
        checked(libc.setns(self.fd, CLONE_NEWNET), "setns")
        return self

    def __exit__(self, *_):
        before = self.stack.before.pop()
        checked(libc.setns(before, CLONE_NEWNET), "setns")
        os.close(before)

    def run(self, *command, pass_fds=()):
        with self:
            return run(*command, pass_fds=pass_fds)

    def close(self):
        os.close(self.fd)


class Network:
    """Members on one bridge, each with its address. The bridge is in a namespace of its own, the
    hub, which has the address `hub_address` on it if one is given."""

    def __init__(self, hub_address=None):
        self.members = []
        self.hub = self._namespace()
        self.hub.run("ip", "link", "add", "bridge", "type", "bridge")
        if hub_address:
            self.hub.run("ip", "address", "add", f"{hub_address}/16", "dev", "bridge")
        self.hub.run("ip", "link", "set", "bridge", "up")

    def _namespace(self):
        self.members.append(Namespace())
        return self.members[-1]

    def member(self, address):
        """A namespace with this address on its eth0."""
        member = self._namespace()
        member.address = address
        port = f"port{len(self.members)}"
        self.hub.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0",
                     "netns", f"/proc/self/fd/{member.fd}", pass_fds=(member.fd,))
        self.hub.run("ip", "link", "set", port, "master", "bridge", "up")
        family = ["-6"] if ":" in address else []
        whole = [f"{address}/64", "nodad"] if family else [f"{address}/16"]
        member.run("ip", "address", "add", whole[0], "dev", "eth0", *whole[1:])
        member.run("ip", "link", "set", "eth0", "up")
        # what is routed nowhere else goes somewhere, as the addresses of services do
        member.run("ip", *family, "route", "add", "default", "dev", "eth0")
        return member

    def close(self):
        for member in self.members:
            member.close()
