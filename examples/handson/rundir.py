# SPDX-License-Identifier: Apache-2.0
"""The demo's run directory: all that it writes, in one place that is removed at the end, or by the
next start when a demo was killed."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile

PREFIX = "kobune-demo-"


def _locked(folder):
    """The open lock file of a run directory nobody uses; None when somebody does."""
    lock = open(folder / "lock", "a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def _all():
    for path in sorted(pathlib.Path(tempfile.gettempdir()).glob(PREFIX + "*")):
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.getuid():
                yield path


def clean():
    """Remove what killed demos left. Gives (removed folders, folders of demos that run)."""
    removed, running = [], []
    for path in _all():
        try:
            lock = _locked(path)
        except OSError:
            continue
        if lock is None:
            running.append(path)
            continue
        with lock:
            shutil.rmtree(path, ignore_errors=True)
        removed.append(path)
    return removed, running


def running():
    """The run directory of the demo that was started last and still runs, None without one."""
    found = []
    for path in _all():
        with contextlib.suppress(OSError):
            lock = _locked(path)
            if lock is None:
                found.append(path)
            else:
                lock.close()
    return max(found, key=lambda one: one.stat().st_mtime, default=None)


@contextlib.contextmanager
def made():
    """A new run directory, locked as long as this process or what it forked lives; removed at the end."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = _locked(folder)
    folder.chmod(0o755)  # the sidecars' uid reads its bootstraps and reaches its sockets
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()
