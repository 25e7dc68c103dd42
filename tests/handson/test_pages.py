# SPDX-License-Identifier: Apache-2.0
"""The pages of the hands-on as a browser shows them: the app's, whose colours follow the weights, and the
report. Needs what pods need, and a Chromium."""

import json
import re
import shutil
import signal

import pytest

from tests.handson import demo
from tests.harness import namespaces
from tests.harness.browser import Browser, browser_path
from tests.harness.patience import DEADLINE_S
from tests.harness.proxy import ROOT
from tests.harness.upstream import wait_until

pytestmark = [
    pytest.mark.skipif((namespaces.missing() or namespaces.mounts_missing()) is not None,
                       reason=f"pods: {namespaces.missing() or namespaces.mounts_missing()}"),
    pytest.mark.skipif(browser_path() is None, reason="no chromium here: ./dev setup browser installs it")]

CHANGES = ROOT / "examples" / "handson" / "changes"


@pytest.fixture(scope="module")
def kept():
    """A demo that ran two steps and is kept: (its folder, what it said)."""
    with demo.place() as folder:
        process, log = demo.started(folder, "--step", "1,3")
        wait_until(lambda: "Ctrl-C ends everything" in log.read_text() or process.poll() is not None, "a demo that is kept", 60)
        assert process.poll() is None, log.read_text()
        yield folder, log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0, log.read_text()


@pytest.fixture(scope="module")
def browser():
    with Browser() as one:
        yield one


def test_colours_of_the_app_follow_the_weights(kept, browser):
    folder, said = kept
    config = next(folder.glob("kobune-demo-*")) / "config"
    page = browser.page(re.search(r"through the gateway\s+(http://\S+)", said)[1])
    page.wait("document.querySelectorAll('#last i').length > 3")
    assert page.text("#colour") == "blue"
    assert page.text("#pod") == "handson-blue"
    assert page.evaluate("[...document.querySelectorAll('#last i')].every(one => one.title === 'blue')")
    shutil.copy(CHANGES / "routing-green.yaml", config / "routing.yaml")
    page.wait("document.querySelector('#colour').textContent === 'green'")
    assert page.text("#pod") == "handson-green"
    page.wait("document.querySelectorAll('#shares tr').length === 2")
    kinds = page.evaluate("[...document.querySelectorAll('#shares tr')].map(one => one.dataset.kind)")
    assert kinds == ["blue", "green"]
    assert page.problems == []


def test_report_shows_what_was_seen(kept, browser):
    folder, said = kept
    page = browser.page((folder / "report.html").as_uri())
    assert page.text("#verdict") == "2 of 2 steps went as described"
    steps = page.evaluate("[...document.querySelectorAll('[data-step]')].map(one => [one.dataset.step, one.dataset.result])")
    assert steps == [["1", "ok"], ["3", "ok"]]
    page.click("[data-step='3'] summary")
    assert "URI=spiffe://cluster.local/ns/default/sa/client" in page.text("[data-step='3'] ul")
    pods = page.evaluate("[...document.querySelectorAll('svg g.pod')].map(one => one.dataset.pod)")
    assert sorted(pods) == ["client", "handson-blue", "handson-green", "istio-ingressgateway", "outside", "prometheus"]
    assert "client handson-blue" in page.evaluate("[...document.querySelectorAll('path[data-edge]')].map(one => one.dataset.edge)")
    row = page.text("#edges tr:nth-child(2)").split()
    assert row[:2] == ["client", "handson-blue"] and row[-1] == "yes"
    outside = page.evaluate("[...document.querySelectorAll('[src], link[href]')].map(one => one.src || one.href)")
    assert all(one.startswith("data:") for one in outside), json.dumps(outside)
    assert page.problems == []
