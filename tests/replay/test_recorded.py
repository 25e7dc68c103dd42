# SPDX-License-Identifier: Apache-2.0
"""Every resource of a recorded istiod is accepted, over both protocols. KB_RECORDINGS names the
folder of the recordings (README.md says how it is laid out)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = os.environ.get("KB_RECORDINGS")
NODES = sorted(str(raw.parent.relative_to(FOLDER)) for raw in Path(FOLDER).glob("*/*/raw.json")) \
    if FOLDER else []
KNOWN = Path(__file__).with_name("unsupported.txt")
ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not NODES, reason="no recordings of istiod: set KB_RECORDINGS to their folder")
@pytest.mark.parametrize("protocol", ["sotw", "delta"])
@pytest.mark.parametrize("node", NODES or ["none"])
def test_a_recording_is_accepted(binary, node, protocol):
    run = subprocess.run(["unshare", "-rn", sys.executable, "-m", "tests.replay.recorded", str(binary),
                          FOLDER, node, protocol], cwd=ROOT, capture_output=True, timeout=180)
    assert run.returncode == 0, run.stderr.decode()[-3000:]
    result = json.loads(run.stdout)
    assert result["refused"] == []
    assert result["live"]
    assert set(result["sent"]) <= set(result["answered"])
    for short, names in result["dumped"].items():
        assert names == result["sent"].get(short, []), short
    assert {"ROOTCA", "default"} <= set(result["secrets"])
    assert not result["key_shown"]
    known = {line for line in KNOWN.read_text().splitlines() if line and not line.startswith("#")}
    assert set(result["unsupported"]) <= known
