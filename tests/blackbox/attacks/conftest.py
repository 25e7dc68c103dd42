# SPDX-License-Identifier: Apache-2.0
"""What the attacks share."""

import pytest

from tests.harness import envoy_path


@pytest.fixture(scope="session")
def stricter(binary):
    """stricter("an entry of docs/differences.md, or why"): from here on the test is of Kobune alone."""
    def check(_why):
        if str(binary) == str(envoy_path()):
            pytest.skip("Envoy does not")
    return check
