# SPDX-License-Identifier: Apache-2.0
"""Makes socket calls of a subject fail, every n-th of a kind, from when the test says so: faults.c,
compiled when it is needed and preloaded."""

import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")
KINDS = ["accept ECONNABORTED", "accept EMFILE", "accept EINTR", "socket EMFILE",
         "connect ECONNREFUSED", "connect EADDRNOTAVAIL",
         "recv EAGAIN", "recv EINTR", "recv ECONNRESET", "recv one byte",
         "send EAGAIN", "send EINTR", "send EPIPE", "send one byte"]


def compiled(directory, source=SOURCE):
    """The library, or None where there is no compiler."""
    cc = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if cc is None:
        return None
    library = Path(directory) / f"{source.stem}.so"
    subprocess.run([*cc.split(), "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"],
                   check=True)
    return library


class Faults:
    def __init__(self, directory):
        self.file = Path(directory) / "faults"
        self.file.write_bytes(bytes(4096))
        with open(self.file, "r+b") as file:
            self.shared = mmap.mmap(file.fileno(), 4096)

    def set(self, **every):
        """recv_EAGAIN=3: every third recv() fails so. What is not named does not fail."""
        every = {kind.replace("_", " "): n for kind, n in every.items()}
        assert set(every) <= set(KINDS), set(every) - set(KINDS)
        for at, kind in enumerate(KINDS):
            struct.pack_into("=I", self.shared, 4 * at, every.get(kind, 0))

    def made(self):
        """How many there were so far, by kind."""
        counts = struct.unpack_from(f"={len(KINDS)}I", self.shared, 4 * len(KINDS))
        return dict(zip(KINDS, counts))
