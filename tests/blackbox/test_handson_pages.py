# SPDX-License-Identifier: Apache-2.0
"""The pages of the hands-on as a browser shows them: the app's, whose colour follows who answers, and the report.
Skipped where there is no Chromium (`./dev setup browser`)."""

import http.server
import subprocess
import sys
import threading
import types
import urllib.request

import pytest

from examples.handson import metrics, report
from tests.harness.browser import Browser, browser_path
from tests.harness.ports import Port
from tests.harness.proxy import ROOT
from tests.harness.upstream import wait_until

pytestmark = pytest.mark.skipif(
    browser_path() is None, reason="no chromium here: ./dev setup browser installs it")
HOSTILE = "<script>document.title = 'owned'</script>"


@pytest.fixture(scope="module")
def browser():
    with Browser() as one:
        yield one


class App:
    """The hands-on's app in this colour."""

    def __init__(self, colour):
        self.port = Port().number
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "examples" / "handson" / "app.py"), "--colour", colour, "--name",
             f"handson-{colour}", "--port", str(self.port)], stdin=subprocess.DEVNULL)
        wait_until(self.answers, f"the {colour} app")

    def answers(self):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/colour", timeout=5).status == 200
        except OSError:
            return False

    def stop(self):
        self.process.terminate()
        self.process.wait()


def in_between(apps):
    """A gateway that sends what comes to apps["now"]; `apps["now"] = None` answers 503."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if apps["now"] is None:
                self.send_error(503)
                return
            with urllib.request.urlopen(f"http://127.0.0.1:{apps['now'].port}{self.path}") as answer:
                body = answer.read()
                self.send_response(200)
                for name in ("content-type",):
                    self.send_header(name, answer.headers[name])
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_app_page_follows_who_answers(browser):
    blue, green = App("blue"), App("green")
    apps = {"now": blue}
    server = in_between(apps)
    try:
        page = browser.page(f"http://127.0.0.1:{server.server_port}/")
        page.wait("document.querySelector('#shares [data-kind=blue]')?.innerText.includes('100 %')")
        assert (page.text("#colour"), page.text("#pod")) == ("blue", "handson-blue")
        apps["now"] = green
        page.wait("document.querySelector('#colour').textContent === 'green'")
        assert page.text("#pod") == "handson-green"
        page.wait("document.querySelectorAll('#shares tr').length === 2")
        page.wait("(([r, g, b]) => g > r && g > b)(getComputedStyle(document.body).backgroundColor"
                  ".match(/\\d+/g).map(Number))")
        assert page.problems == []
        apps["now"] = None
        page.wait("[...document.querySelectorAll('#shares tr')].some((r) => r.dataset.kind === 'status 503')")
        assert page.text("#colour") == "green", "it stays with the last answer"
    finally:
        server.shutdown()
        server.server_close()
        blue.stop()
        green.stop()


class Pod:
    kind, namespace, ip = "sidecar", "default", "10.0.0.1"

    def __init__(self, name):
        self.name = name

    @staticmethod
    def containers():
        return 2, 2


def test_report_page_shows_what_went_as_described(browser, tmp_path, monkeypatch):
    edge = metrics.Edge("client", "handson-blue", {"200": 90, "503": 10}, {5.0: 80, 10.0: 99, float("inf"): 100}, True)
    monkeypatch.setattr(metrics, "edges", lambda place: {("client", "handson-blue"): edge})
    names = ["client", "handson-blue", "handson-green", "istio-ingressgateway", "outside", "prometheus"]
    demo = types.SimpleNamespace(began=0.0, place=types.SimpleNamespace(pods={name: Pod(name) for name in names}))
    teller = types.SimpleNamespace(results=[], facts={
        "rules": [f"-A ISTIO {HOSTILE}"], "queries": [("graph", HOSTILE, True, "3 series"), ("other", "up", False, "no data")]})
    file = tmp_path / "report.html"
    file.write_text(report.page(demo, teller))
    page = browser.page(file.as_uri())
    assert page.text("#verdict") == "0 of 0 steps went as described"
    row = page.text("#edges").splitlines()[-1].split("\t")
    assert [word.strip() for word in row[:3]] == ["client", "handson-blue", "100"], row
    assert page.evaluate("document.querySelectorAll('svg[role=img] text').length") >= len(names)
    assert page.evaluate("document.querySelector('#queries').textContent.includes(\"<script>document.title\")")
    assert page.evaluate("document.querySelectorAll('body script').length") == 0
    assert page.evaluate("document.title") == "Kobune: the hands-on's report"
    assert page.problems == []
