# SPDX-License-Identifier: Apache-2.0
"""Sees that files changed: a cheap look at all of them ten times a second, on every file system."""

import asyncio

INTERVAL = 0.05


def signature(paths):
    """What changes when a file is written, replaced, made or removed."""
    seen = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            continue
        seen.append((str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return seen


async def changes(paths):
    """Yields at once, then whenever the files that `paths()` names have changed and have come to rest."""
    last, before = None, signature(paths())
    while True:
        now = signature(paths())
        if now == before and now != last:  # twice the same: nobody is in the middle of writing
            last = now
            yield
        before = now
        await asyncio.sleep(INTERVAL)
