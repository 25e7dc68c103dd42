# SPDX-License-Identifier: Apache-2.0
"""Runs the steps, says what they saw, and keeps it for the table and the report."""

import dataclasses
import json
import subprocess
import sys
import time
import traceback

from .. import namespaces, plane, pods

SERVICE, SERVICE_PORT, SERVICE_NAME = "10.96.0.10", 8080, "handson:8080"
GATEWAY_PORT, PUBLIC_HOST = 8080, "app.example.com"


class Failed(Exception):
    """Something was not as the step says."""


@dataclasses.dataclass
class Step:
    number: int
    title: str
    why: str
    run: object


@dataclasses.dataclass
class Result:
    step: Step
    good: bool
    seconds: float
    evidence: list  # (good, text)
    loads: list  # (title, counts)


def colour(code, text):
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() else text


class Load:
    """The load client in a pod. `count` gives what came since the last count."""

    def __init__(self, pod, address=SERVICE, port=SERVICE_PORT, host=SERVICE_NAME, **options):
        argv = [sys.executable, "-S", "-E", str(pods.HERE / "load.py"), address, str(port), "--host", host]
        for name, value in options.items():
            argv += [f"--{name}", str(value)]
        with pod.net:
            self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                            start_new_session=True)

    def count(self):
        self.process.stdin.write("count\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"the load client ended with {self.process.wait()}")
        return json.loads(line)

    def stop(self):
        """End it, with every request answered where that is soon."""
        try:
            self.process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


class Teller:
    """What the steps use: the pods, the control plane, and the record of what was seen."""

    def __init__(self, place, control_plane, facts):
        self.place, self.plane, self.facts = place, control_plane, facts
        self.changes = plane.CHANGES
        self.results = []
        self.evidence, self.loads, self.running = [], [], []
        self.broken = None  # why no further step can go well

    def pod(self, name):
        return self.place.pods[name]

    # what a step says

    def note(self, text):
        self.evidence.append((True, text))
        print("   " + text, flush=True)

    def check(self, good, text, found=""):
        """One thing that the step promises; ends the step when it is not so."""
        found = str(found)
        line = text + (f": {found}" if found else "")
        self.evidence.append((bool(good), line))
        print(f"   {colour('32', 'ok') if good else colour('31', 'NOT SO')}  {line}", flush=True)
        if not good:
            raise Failed(line)

    # what a step does

    def client_get(self, path, headers=(), timeout=8):
        """What the client's app gets from the service, through its sidecar."""
        return self.pod("client").request(SERVICE, SERVICE_PORT, path, SERVICE_NAME, headers, timeout)

    def gateway_get(self, path, host=PUBLIC_HOST, headers=()):
        """What somebody outside the mesh gets from the gateway."""
        return self.pod("outside").request(self.pod("istio-ingressgateway").ip, GATEWAY_PORT, path, host, headers)

    def load(self, **options):
        """A load from the client's pod; it ends with the step at the latest."""
        one = Load(self.pod("client"), **options)
        self.running.append(one)
        return one

    def gateway_load(self, **options):
        """A load from outside the mesh, through the gateway; it ends with the step at the latest."""
        one = Load(self.pod("outside"), self.pod("istio-ingressgateway").ip, GATEWAY_PORT, PUBLIC_HOST, **options)
        self.running.append(one)
        return one

    def counted(self, load, title, at_least=150, seconds=15):
        """Wait for so many more answers, then say and keep what came."""
        total = None
        limit = time.monotonic() + seconds
        while total is None or total["sent"] < at_least:
            if time.monotonic() > limit:
                raise Failed(f"{title}: only {total['sent']} of {at_least} requests ended within {seconds} s; {shown(total)}")
            time.sleep(0.1)
            total = merged(total, load.count())
        self.keep(title, total)
        return total

    def keep(self, title, counts):
        self.loads.append((title, counts))
        self.note(f"load, {title}: {shown(counts)}")

    def undisturbed(self, counts, what):
        bad = {status: n for status, n in counts["statuses"].items() if status != "200"}
        bad.update(counts["failures"])
        self.check(not bad, f"no request failed {what}", f"{counts['sent']} requests" + (f", but {bad}" if bad else ""))

    def tell(self, step):
        """Run one step, whatever comes of it."""
        print("\n" + colour("1", f"{step.number}. {step.title}"), flush=True)
        self.evidence, self.loads = [], []
        began, good = time.monotonic(), True
        if self.broken:
            self.results.append(Result(step, False, 0, [(False, "not run, since " + self.broken.splitlines()[0])], []))
            print("   not run", flush=True)
            return False
        try:
            step.run(self)
        except (Failed, plane.PlaneFailed, pods.PodFailed, TimeoutError, namespaces.CommandFailed) as error:
            good = False
            if not self.evidence or self.evidence[-1][0]:
                self.evidence.append((False, str(error)))
                print(f"   {colour('31', 'NOT SO')}  {error}", flush=True)
        except Exception as error:  # a mistake of the step itself is a failed step, and the others still run
            good = False
            self.evidence.append((False, f"{type(error).__name__}: {error}"))
            traceback.print_exc(file=sys.stdout)
        self.end_step(good)
        self.results.append(Result(step, good and all(one[0] for one in self.evidence),
                                   time.monotonic() - began, self.evidence, self.loads))
        return self.results[-1].good

    def end_step(self, good):
        """The next step finds everything as this one did."""
        for one in self.running:
            if one.process.poll() is None:
                one.stop()
        self.running = []
        try:
            for pod in self.place.pods.values():
                pod.alive()
                if pod.kind != "router" and pod.app is None:
                    pod.start_app()
                if not good:
                    pod.tell()
            if self.plane.process.poll() is not None:
                self.plane.start()
            self.plane.restore()
        except pods.PodFailed as error:
            self.broken = str(error)
        except (plane.PlaneFailed, TimeoutError) as error:
            if good:
                self.evidence.append((False, f"afterwards: {error}"))
            print(f"   {colour('31', 'NOT SO')}  afterwards: {error}", flush=True)


def merged(a, b):
    """Two counts as one."""
    if a is None:
        return b
    sums = {}
    for name in ("statuses", "colours", "failures"):
        sums[name] = dict(a[name])
        for key, value in b[name].items():
            sums[name][key] = sums[name].get(key, 0) + value
    whole = a["sent"] + b["sent"]
    times = [(x * a["sent"] + y * b["sent"]) / max(whole, 1) for x, y in zip(a["milliseconds"], b["milliseconds"])]
    return {**sums, "sent": whole, "again": a["again"] + b["again"], "seconds": a["seconds"] + b["seconds"],
            "milliseconds": [times[0], max(a["milliseconds"][1], b["milliseconds"][1]),
                             max(a["milliseconds"][2], b["milliseconds"][2])]}


def shown(counts):
    parts = [f"{counts['sent']} requests in {counts['seconds']:.1f} s"]
    parts += [f"{n} × {status}" for status, n in sorted(counts["statuses"].items())]
    if counts["colours"]:
        parts.append(", ".join(f"{n} {name}" for name, n in sorted(counts["colours"].items())))
    parts += [f"{n} × {text}" for text, n in counts["failures"].items()]
    if counts["again"]:
        parts.append(f"{counts['again']} sent again on a new connection")
    parts.append("p50 {:.1f} ms, p99 {:.1f} ms, max {:.1f} ms".format(*counts["milliseconds"]))
    return "; ".join(parts)


def table(results):
    """The end's table, as lines."""
    width = max(len(one.step.title) for one in results)
    lines = [f"{'step':>4}  {'what':<{width}}  {'checks':>6}  {'seconds':>7}  result"]
    for one in results:
        checks = len(one.evidence)
        result = colour("32", "ok") if one.good else colour("31", "FAILED")
        lines.append(f"{one.step.number:>4}  {one.step.title:<{width}}  {checks:>6}  {one.seconds:>7.1f}  {result}")
        if not one.good:
            lines += [f"      {text}" for good, text in one.evidence if not good]
    return lines
