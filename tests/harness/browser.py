# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, driven over its DevTools protocol through a pair of pipes: no port, no driver
program. Debian's package is `chromium`; `./dev setup browser` brings it."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

from .patience import DEADLINE_S

BINARIES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--no-proxy-server", "--disable-background-networking", "--disable-component-update",
         "--disable-extensions", "--mute-audio", "--remote-debugging-pipe")


class BrowserError(AssertionError):
    """The browser ended, refused a command, or a page did not come to the state that was waited for."""


def browser_path():
    """The browser: KB_BROWSER, or the first of BINARIES; None where there is none."""
    return os.environ.get("KB_BROWSER") or next(filter(None, map(shutil.which, BINARIES)), None)


class Browser:
    """One process with one profile that is thrown away; `page` opens a page of it."""

    def __init__(self, path=None):
        self.scratch = tempfile.TemporaryDirectory(prefix="kb-browser-", ignore_cleanup_errors=True)
        to_child, self.write_end = os.pipe()
        self.read_end, from_child = os.pipe()
        self.stderr = open(os.path.join(self.scratch.name, "stderr"), "w+b")
        # The protocol is spoken over the descriptors 3 and 4.
        command = f'exec "$@" 3<&{to_child} 4>&{from_child}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, "bash", path or browser_path(), *FLAGS,
             f"--user-data-dir={self.scratch.name}/profile", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=self.stderr, stderr=self.stderr,
            pass_fds=(to_child, from_child), start_new_session=True,
            env={**os.environ, "HOME": self.scratch.name})
        os.close(to_child)
        os.close(from_child)
        self.buffer = b""
        self.ids = 0
        self.pages = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.process.poll() is None:
            try:
                self.call("Browser.close")
                self.process.wait(10)
            except (BrowserError, subprocess.TimeoutExpired):
                self.process.kill()
        self.process.wait()
        os.close(self.write_end)
        os.close(self.read_end)
        self.stderr.close()
        self.scratch.cleanup()

    def _message(self, deadline):
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read_end], [], [], max(0, deadline - time.monotonic()))
            data = os.read(self.read_end, 1 << 20) if ready else b""
            if not data:
                self.stderr.seek(0)
                tail = self.stderr.read().decode(errors="replace")[-2000:]
                raise BrowserError(("the browser ended" if ready else "no answer of the browser") + "\n" + tail)
            self.buffer += data
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, params=None, session=None, timeout=60):
        """One command and its result; events that come before it go to their pages."""
        self.ids += 1
        command = {"id": self.ids, "method": method, "params": params or {}}
        if session:
            command["sessionId"] = session
        os.write(self.write_end, json.dumps(command).encode() + b"\0")
        deadline = time.monotonic() + timeout
        while True:
            message = self._message(deadline)
            if message.get("id") == command["id"]:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error']}")
                return message["result"]
            if message.get("sessionId") in self.pages:
                self.pages[message["sessionId"]].event(message["method"], message["params"])

    def page(self, url, dark=False, width=1300, height=900):
        return Page(self, url, dark, width, height)


class Page:
    """`problems` grows by what the console reports: exceptions, refused scripts and styles, failed requests."""

    def __init__(self, browser, url, dark, width, height):
        self.browser = browser
        self.problems = []
        target = browser.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self.session = browser.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        browser.pages[self.session] = self
        for domain in ("Page", "Runtime", "Log"):
            self.call(domain + ".enable")
        self.call("Emulation.setEmulatedMedia", {"features": [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})
        self.call("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
        self.call("Page.bringToFront")
        self.call("Page.navigate", {"url": url})
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def call(self, method, params=None):
        return self.browser.call(method, params, self.session)

    def event(self, method, params):
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.problems.append(json.dumps(params["args"]))

    def evaluate(self, expression):
        """The value of a JavaScript expression, as JSON can hold it; promises are awaited."""
        result = self.call("Runtime.evaluate", {
            "expression": expression, "returnByValue": True, "awaitPromise": True})
        if "exceptionDetails" in result:
            raise BrowserError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, expression, deadline=DEADLINE_S):
        """Looks until the expression is true, and returns its value."""
        end = time.monotonic() + deadline
        while True:
            value = self.evaluate(expression)
            if value:
                return value
            if time.monotonic() > end:
                text = self.evaluate("document.body ? document.body.innerText.slice(0, 4000) : ''")
                raise BrowserError(f"never true: {expression}\n{self.problems}\n{text}")
            self.evaluate("new Promise((done) => setTimeout(done, 30))")

    def text(self, selector):
        """The text of the first element that matches; None where there is none."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")

    def click(self, selector):
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def screenshot(self, path, whole=True):
        data = self.call("Page.captureScreenshot", {"captureBeyondViewport": whole})["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
