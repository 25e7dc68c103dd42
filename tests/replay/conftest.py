# SPDX-License-Identifier: Apache-2.0
"""A proxy under a scripted control plane."""

import pytest

from tests.harness import Proxy, subject_path
from tests.replay.control_plane import ControlPlane, bootstrap


@pytest.fixture(scope="session")
def binary():
    path = subject_path()
    if path is None:
        pytest.fail("no kobune binary: ./dev build, or set KOBUNE_BIN")
    return path


@pytest.fixture(params=["sotw", "delta"])
def delta(request):
    return request.param == "delta"


@pytest.fixture
def plane():
    with ControlPlane() as server:
        yield server


@pytest.fixture
def under(binary, plane):
    """under(delta, **source): starts the proxy; it is ended cleanly at the end of the test."""
    proxies = []

    def start(is_delta, **source):
        proxy = Proxy(binary, lambda scratch: bootstrap(plane.port, is_delta, **source), start=False)
        proxies.append(proxy)
        proxy.start()
        proxy.wait_admin()
        return proxy

    yield start
    for proxy in proxies:
        proxy.stop()
