# SPDX-License-Identifier: Apache-2.0
"""The fixtures of the black box tests."""

from tests.blackbox.conftest import binary, pytest_runtest_makereport, rig  # noqa: F401
