# SPDX-License-Identifier: Apache-2.0
"""h2spec, the conformance suite of HTTP/2 servers, against a listener of ours."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def h2spec():
    """The program: $H2SPEC, one in the search path, or where ./dev setup puts it."""
    for path in os.environ.get("H2SPEC"), shutil.which("h2spec"), ROOT / "build/tools/bin/h2spec":
        if path and Path(path).exists():
            return str(path)
    return None


@pytest.mark.skipif(h2spec() is None, reason="no h2spec: build github.com/summerwind/h2spec with Go "
                                             "and set H2SPEC to the program")
def test_h2spec(rig):
    # An upstream answers whole requests alone: a direct response would be there before the fault that a case makes.
    one = rig({"listeners": {"main": {"hcm": {
        "codec_type": "HTTP2", "http2_protocol_options": {"max_concurrent_streams": 100}}}}})
    one.up.default = lambda head: "bytes:100"
    done = subprocess.run([h2spec(), "-h", "127.0.0.1", "-p", str(one.port()), "-o", "3"],
                          capture_output=True, timeout=300, check=False)
    text = done.stdout.decode("utf-8", "replace")
    failures = text.partition("Failures:")[2]
    assert "145 tests, 145 passed" in text, failures or text[-2000:] + done.stderr.decode()
