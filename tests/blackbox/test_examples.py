# SPDX-License-Identifier: Apache-2.0
"""The examples do what their READMEs say; each checks its own steps and ends with 0 if all went as described."""

import subprocess
import sys

from tests.harness.proxy import ROOT, sanitizer_env, subject_path


def test_front_proxy_goes_as_described():
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "front_proxy" / "run.py"), "--proxy", str(subject_path())],
        capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, env=sanitizer_env(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every step went as described" in done.stdout
