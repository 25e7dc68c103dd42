# SPDX-License-Identifier: Apache-2.0
"""The admin home page as a browser shows it: live traffic, certificates, pushes, unsupported fields, buttons.
Skipped where there is no Chromium (`./dev setup browser`)."""

import http.client
import json
import os
import re
import threading
import urllib.request

import pytest

from tests.harness import Proxy
from tests.harness.browser import Browser, browser_path
from tests.harness.patience import DEADLINE_S
from tests.blackbox.test_control_plane import bootstrap
from tests.replay.control_plane import ControlPlane

pytestmark = [
    pytest.mark.skipif(browser_path() is None, reason="no chromium here: ./dev setup browser installs it"),
    pytest.mark.skipif(os.environ.get("KOBUNE_BIN") == "envoy", reason="the page is Kobune's own")]

HOSTILE = '<img src=x onerror="document.title=1">'
SCRIPT = "</script><script>document.title='owned'</script>"

# Text of an element whose colour and background are less than 4.5 to 1 apart (WCAG 2.1, 1.4.3).
LOW_CONTRAST = """(() => {
  const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const back = (e) => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) { return c; } } return [255, 255, 255]; };
  const low = [];
  for (const e of document.querySelectorAll('body *')) {
    if (!e.checkVisibility() || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) { continue; }
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(back(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) { low.push(e.tagName + ' ' + e.textContent.slice(0, 40)); }
  }
  return low; })()"""
UNNAMED = """[...document.querySelectorAll('button, input, select, a')].filter((e) => e.checkVisibility() &&
  !(e.textContent.trim() && e.matches('button, a')) && !(e.labels && e.labels.length)).map((e) => e.outerHTML)"""


@pytest.fixture(scope="module")
def browser():
    with Browser() as one:
        yield one


def home(browser, proxy, **options):
    page = browser.page(f"http://127.0.0.1:{proxy.admin_port}/", **options)
    page.wait("+document.body.dataset.polls >= 1")
    return page


def cell(table, name, column):
    """JavaScript for the text of a cell of a traffic table."""
    return (f"[...document.querySelectorAll('#{table} tr')].find((r) => r.dataset.name === '{name}')"
            f"?.querySelector('[data-column={column}]').textContent")


class Traffic:
    """Requests one after the other, until it is ended."""

    def __init__(self, port, paths):
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(port, paths))
        self.thread.start()

    def _run(self, port, paths):
        conn = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        while not self.ended.is_set():
            for path in paths:
                conn.request("GET", path)
                conn.getresponse().read()
        conn.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def test_rates_errors_and_durations_are_live(rig, browser):
    one = rig({"listeners": {"main": {"routes": ["/ -> up", {"match": "/bad", "direct": [503, "no"]}][::-1]},
                             "idle": {"routes": ["/ -> up"]}},
               "clusters": {"up": {}, "unused": {"endpoints": ["refused"]}}})
    page = home(browser, one.proxy)
    assert page.text("#listeners tbody") == "nothing yet"
    with Traffic(one.port(), ["/a", "/a", "/bad"]):
        page.wait(f"parseFloat({cell('listeners', 'main', 'rate')}) > 1")
        page.wait(f"parseFloat({cell('listeners', 'main', 'error-rate')}) > 0.3")
        page.wait(f"/^[\\d.]+ m?s$/.test({cell('listeners', 'main', 'p99')})")
        page.wait(f"parseFloat({cell('clusters', 'up', 'rate')}) > 1")
        page.wait(f"/^[\\d.]+ m?s$/.test({cell('clusters', 'up', 'p99')})")
        assert page.evaluate(cell("clusters", "up", "errors")) == "0", "the 503 came from no cluster"
        page.wait("parseFloat(document.querySelector('[data-card=rate] b').textContent) > 1")
        assert page.evaluate(cell("listeners", "main", "active")) == "1"
        assert page.evaluate("document.querySelectorAll('#listeners polyline').length") == 1
        first = page.evaluate(cell("listeners", "main", "requests"))
        page.wait(f"{cell('listeners', 'main', 'requests')} !== '{first}'")
    page.wait(f"{cell('listeners', 'main', 'rate')} === '0'")
    page.wait(f"{cell('listeners', 'main', 'active')} === '0'")
    assert page.evaluate(cell("listeners", "idle", "rate")) is None, "listeners without work are left out"
    assert page.evaluate(cell("clusters", "unused", "rate")) is None
    page.evaluate("(document.querySelector('#filter').value = 'zzz', "
                  "document.querySelector('#filter').dispatchEvent(new Event('input')))")
    page.wait("document.querySelector('#clusters tbody').innerText === 'nothing yet'")
    assert page.problems == []


def test_what_stats_matcher_leaves_out_is_shown(rig, browser):
    """Istio's bootstrap leaves almost all statistics out."""
    one = rig({"bootstrap": {"stats_config": {"stats_matcher": {"exclusion_list": {
        "patterns": [{"safe_regex": {"regex": "(.*_rq_.*)|(http.*)"}}]}}}}})
    one.get("/a")
    page = home(browser, one.proxy)
    page.wait(f"{cell('clusters', 'up', 'requests')} === '1'")
    assert page.evaluate(cell("listeners", "main", "requests")) == "1"


def test_certificates_and_unsupported_fields(rig, browser):
    one = rig({"listeners": {"safe": {"routes": ["/ -> up"], "tls": {"cert": "server", "ca": "ca"}}},
               "bootstrap": {"deferred_stat_options": {"enable_deferred_creation_stats": True}}})
    page = home(browser, one.proxy)
    rows = page.evaluate("[...document.querySelectorAll('#certs tbody tr')].map((r) => r.innerText)")
    assert len(rows) == 2
    own, root = sorted(rows)
    assert own.startswith("certificate") and "spiffe://td/ns/x/sa/srv" in own and "server.test" in own
    assert re.search(r"\d+ d$", own), own
    assert root.startswith("trusted root")
    unsupported = json.loads(one.proxy.admin("/kobune/unsupported?format=json")[1])["unsupported"]
    assert unsupported, "set something here that is not implemented"
    assert page.evaluate("[...document.querySelectorAll('#fields tbody tr')].map((r) => r.cells[0].innerText)") == [
        field["path"] for field in unsupported]
    assert page.problems == []


def test_actions_ask_first_and_say_what_came(rig, browser):
    one = rig()
    one.get("/a")
    page = home(browser, one.proxy)
    page.click("form[action=reset_counters] button")
    page.wait("document.querySelector('#ask').open")
    assert page.text("#ask-text") == "POST /reset_counters changes this proxy. Do it?"
    page.click("#ask button[value=no]")
    page.wait("!document.querySelector('#ask').open")
    assert page.evaluate(cell("clusters", "up", "requests")) == "1"
    page.click("form[action=reset_counters] button")
    page.click("#ask button[value=yes]")
    page.wait("document.querySelector('#result').innerText.trim() === '/reset_counters: 200 OK'")
    page.evaluate("document.querySelector('form[action=logging] select').value = 'error'")
    page.click("form[action=logging] button")
    page.click("#ask button[value=yes]")
    page.wait("document.querySelector('#result').innerText.startsWith('/logging?level=error: 200 active loggers')")
    page.evaluate("document.querySelector('form[action=stats] [name=filter]').value = '^server.live'")
    page.evaluate("document.querySelector('form[action=stats] [name=usedonly]').checked = true")
    assert page.problems == []
    page.click("form[action=stats] button")
    page.wait("location.search === '?usedonly=on&filter=%5Eserver.live'")
    page.wait("document.body?.innerText.trim() === 'server.live: 1'")  # here it may ask for /favicon.ico


def cluster(**more):
    return {"name": HOSTILE, "type": "STATIC", "connect_timeout": "1s", **more}


@pytest.mark.parametrize("api", ["DELTA_GRPC", "GRPC"])
def test_pushes_and_hostile_names(binary, browser, api):
    with ControlPlane() as plane, Proxy(binary, bootstrap(plane.port, api), wait_ready=False) as proxy:
        def push(version, *clusters, removed=()):
            if api == "GRPC":
                plane.send("CDS", version, *clusters)
            else:
                plane.send_delta("CDS", [(c["name"], version, c) for c in clusters], removed, version=version)
            return plane.wait(lambda r: r.type == "CDS" and r.nonce == f"n{plane.nonces}")

        plane.wait(lambda r: r.type == "CDS")
        proxy.wait_admin()
        assert push(SCRIPT, cluster(), {**cluster(), "name": "plain"}).error == ""
        page = home(browser, proxy)
        row = "document.querySelector('#push-table tbody tr')"
        page.wait(f"!!{row}.querySelector('details')")
        assert page.text("#push-table summary") == "2 added"
        assert SCRIPT in page.text("#push-table tbody tr")
        page.click("#push-table summary")
        assert f"added {HOSTILE}" in page.text("#push-table tbody tr")
        assert push("v2", cluster(connect_timeout="2s"), removed=["plain"]).error == ""
        page.wait(f"{row}.innerText.includes('v2')")
        assert page.text("#push-table tbody tr summary") == "1 changed, 1 removed"
        assert page.evaluate("document.querySelectorAll('#push-table details[open]').length") == 1, "stays open"
        refused = push("v3", cluster(connect_timeout="-1s")).error
        assert refused
        page.wait(f"{row}.innerText.includes('refused')")
        assert " ".join(refused.split()) in " ".join(page.text("#push-table tbody tr").split())
        assert page.evaluate("document.querySelectorAll('main img, main script, #push-table script').length") == 0
        assert page.evaluate("document.title") == "Kobune Admin"
        assert page.problems == []
        with urllib.request.urlopen(f"http://127.0.0.1:{proxy.admin_port}/kobune/pushes") as answer:
            text = answer.read().decode()
        assert f"version=v2 changed=1 removed=1 accepted\n  changed {HOSTILE}\n  removed plain\n" in text


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_is_readable_small_and_on_its_own(rig, browser, dark):
    one = rig({"listeners": {"safe": {"routes": ["/ -> up"], "tls": {"cert": "server", "ca": "ca"}},
                             "main": {"routes": [{"match": "/", "direct": [503, "no"]}]}}})
    one.get("/a")
    page = home(browser, one.proxy, dark=dark)
    page.wait("!!document.querySelector('#listeners .bad')")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(16, 22, 28)" if dark else "rgb(245, 247, 249)")
    assert page.evaluate(LOW_CONTRAST) == []
    assert page.evaluate(UNNAMED) == []
    assert page.evaluate("[...document.querySelectorAll('thead th')].every((h) => h.scope === 'col')")
    sources = page.evaluate("performance.getEntriesByType('resource').map((r) => new URL(r.name).origin)")
    assert set(sources) == {f"http://127.0.0.1:{one.proxy.admin_port}"}
    with urllib.request.urlopen(f"http://127.0.0.1:{one.proxy.admin_port}/") as answer:
        assert answer.headers["content-type"] == "text/html; charset=UTF-8"
        assert len(answer.read()) < 60_000
    assert page.problems == []
    # Another script than its own does not run.
    page.evaluate("document.head.append(Object.assign(document.createElement('script'), "
                  "{textContent: \"document.title = 'owned'\"}))")
    assert page.evaluate("document.title") == "Kobune Admin"
    assert any("Content Security Policy" in problem for problem in page.problems), page.problems
