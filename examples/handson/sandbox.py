# SPDX-License-Identifier: Apache-2.0
"""A place for the demo of which nothing can be left: its own process, mount and network namespaces,
and a user namespace where the caller is not root.

The demo runs as the first process of the process namespace. When it ends, for whatever reason, the
kernel ends everything that was started in it; with the last process the network namespaces go, and
with them the bridge, the addresses and the rules. The host's network is never touched."""

import ctypes
import errno
import os
import pwd
import shutil
import signal
import subprocess
import sys

from .namespaces import checked, libc

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_PRIVATE_REC = (1 << 18) | (1 << 14)
MS_BIND = 1 << 12
PR_SET_PDEATHSIG = 1
SIDECAR_UID = 1337
IDS = 65536  # as many user ids as a container commonly has


class Unable(Exception):
    """This machine cannot hold the demo; the text names what is missing and what to do."""


def _mount(source, target, kind, flags):
    names = [name and os.fsencode(name) for name in (source, target, kind)]
    checked(libc.mount(*names, ctypes.c_ulong(flags), None), f"mount {target}")


def _die_with_parent():
    checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def _subordinate(path, user, uid):
    """The first range of at least IDS ids that `path` (/etc/subuid, /etc/subgid) gives this user."""
    try:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                name, first, count = line.strip().split(":")
                if name in (user, str(uid)) and int(count) > SIDECAR_UID:
                    return int(first), min(int(count), IDS - 1)
    except (OSError, ValueError):
        pass
    return None


def rootless_maps():
    """How ids of the user namespace map to this user's; Unable when the machine does not allow it."""
    uid, gid = os.getuid(), os.getgid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    for tool in ("newuidmap", "newgidmap"):
        if shutil.which(tool) is None:
            raise Unable(f"not root, and {tool} is missing: the sidecars run under uid {SIDECAR_UID}, which an "
                         "ordinary user can have in a user namespace only through it.\n"
                         "Install the package uidmap, or run the demo as root.")
    maps = []
    for path, own in (("/etc/subuid", uid), ("/etc/subgid", gid)):
        found = _subordinate(path, user, uid)
        if found is None:
            raise Unable(f"not root, and {path} gives {user} no range of ids that holds {SIDECAR_UID}.\n"
                         f"As root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}\n"
                         "or run the demo as root.")
        maps.append(["0", str(own), "1", "1", str(found[0]), str(found[1])])
    return maps


def _enter_user_namespace(ready, mapped):
    checked(libc.unshare(CLONE_NEWUSER), "user namespace")
    os.write(ready, b"u")
    os.close(ready)
    if os.read(mapped, 1) != b"m":
        os._exit(2)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _first_process(main, hosts):
    """What runs as the first process of the namespaces; gives the exit status."""
    _mount(None, "/", None, MS_PRIVATE_REC)
    try:
        _mount("proc", "/proc", "proc", 0)
    except OSError:
        pass  # in some containers it is not allowed; only `ps` in a pod shows more than it should
    if hosts:
        _mount(hosts, "/etc/hosts", None, MS_BIND)
    return main()


def _said(error):
    hint = ""
    if os.getuid() != 0:
        hint = ("\nThis kernel does not let an ordinary user make namespaces "
                "(kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns,\n"
                "user.max_user_namespaces). Allow it there, or run the demo as root.")
    elif getattr(error, "errno", 0) == errno.EPERM:
        hint = ("\nBeing root is not enough here: the capability CAP_SYS_ADMIN is missing, as in most containers.\n"
                "Run it on the machine itself, or in a container with --privileged.")
    elif getattr(error, "errno", 0) == errno.EINVAL:
        hint = ("\nIn a chroot, / has to be a mount point: mount --bind FOLDER FOLDER before the chroot into it.")
    print(f"demo: no namespaces on this machine: {error}{hint}", file=sys.stderr)


def _child(main, hosts, rootless, ready, mapped):
    try:
        if rootless:
            _enter_user_namespace(ready, mapped)
        checked(libc.unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC), "unshare")
        _die_with_parent()
    except OSError as error:
        _said(error)
        os._exit(2)
    first = os.fork()
    if first == 0:
        status = 1
        try:
            _die_with_parent()
            status = _first_process(main, hosts)
        except OSError as error:
            _said(error)
            status = 2
        except KeyboardInterrupt:
            status = 130
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _forward_signals(first)
    os._exit(_wait(first))


def _forward_signals(pid):
    """The terminal's Ctrl-C reaches every process of the group by itself; SIGTERM is handed on."""
    def hand_on(number, _frame):
        os.kill(pid, number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, hand_on)
    signal.signal(signal.SIGHUP, hand_on)


def _wait(pid):
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def run(main, hosts=None):
    """main() in new namespaces, as root of them; gives its exit status when nothing of it runs any
    more. `hosts` is a file that stands in for /etc/hosts there. Raises Unable before anything was
    made. The caller has one thread."""
    rootless = os.geteuid() != 0
    maps = rootless_maps() if rootless else None
    ready_read, ready_write = os.pipe()
    mapped_read, mapped_write = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(ready_read)
        os.close(mapped_write)
        try:
            _child(main, hosts, rootless, ready_write, mapped_read)
        finally:
            os._exit(1)
    os.close(ready_write)
    os.close(mapped_read)
    _forward_signals(child)
    if rootless and os.read(ready_read, 1) == b"u":
        for tool, numbers in zip(("newuidmap", "newgidmap"), maps):
            done = subprocess.run([tool, str(child), *numbers], capture_output=True, text=True)
            if done.returncode != 0:
                os.close(mapped_write)
                _wait(child)
                raise Unable(f"{tool} refused: {done.stderr.strip()}\nRun the demo as root, or mend what it names.")
        os.write(mapped_write, b"m")
    os.close(ready_read)
    os.close(mapped_write)
    return _wait(child)
