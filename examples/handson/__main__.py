# SPDX-License-Identifier: Apache-2.0
"""`./dev demo`: the ten steps of the hands-on, each shown and checked."""

import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import sys
import time

from . import doors, prometheus, report, rundir, sandbox
from .plane import CHECKOUT, ControlPlane, PlaneFailed
from .namespaces import CommandFailed
from .pods import ADMIN_PORT, Place, Pod, PodFailed, wait_until
from .story import STEPS
from .story.teller import GATEWAY_PORT, PUBLIC_HOST, Teller, table

PROMETHEUS_PORT, METRICS_STEP = 9090, 10
ROTATE_SECONDS = 60
SERVICES = [("10.96.0.10", "handson"), ("10.96.0.2", "istio-ingressgateway")]


def arguments_of(argv):
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__)
    parser.add_argument("--proxy", help="the kobune binary (default: build/release/kobune)")
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C, and say what to try")
    parser.add_argument("--step", metavar="N[,N...]", help="run only these steps, with what they need")
    parser.add_argument("--report", metavar="FILE", help="where the report goes (default: build/demo/report.html)")
    parser.add_argument("--clean", action="store_true", help="only remove what a killed demo left")
    parser.add_argument("--list", action="store_true", help="only say what the steps are")
    parser.add_argument("--in", dest="inside", nargs=argparse.REMAINDER, metavar="POD COMMAND",
                        help="run a command in a pod of the demo that is kept running")
    chosen = parser.parse_args(argv)
    try:
        chosen.steps = [int(one) for one in chosen.step.split(",")] if chosen.step else [one.number for one in STEPS]
    except ValueError:
        parser.error(f"--step takes numbers, not '{chosen.step}'")
    unknown = [one for one in chosen.steps if one not in {step.number for step in STEPS}]
    if unknown:
        parser.error(f"there is no step {unknown[0]}; the steps are 1 to {STEPS[-1].number}")
    if chosen.inside == []:
        parser.error("--in wants a pod and a command: --in client curl -si http://handson:8080/")
    return chosen


def complain(text):
    print("demo: " + text.replace("\n", "\n      "), file=sys.stderr)
    return 2


def iptables_beside(binary):
    """The program that makes a pod's rules: of the proxy's build, or of any; None without one."""
    folders = [binary.parent, CHECKOUT / "build" / "release", CHECKOUT / "build" / "asan"]
    return next((one / "kobune-iptables" for one in folders if (one / "kobune-iptables").exists()), None)


def missing(binary):
    """What this machine lacks, as text for its user; None when there is all of it."""
    if not binary.exists():
        return f"there is no {binary}: build it with ./dev build, or name another with --proxy"
    if iptables_beside(binary) is None:
        return f"there is no kobune-iptables beside {binary} or in build/: build it with ./dev build"
    packages = {"ip": "iproute2", "iptables": "iptables", "iptables-restore": "iptables"}
    absent = sorted({package for tool, package in packages.items() if shutil.which(tool) is None})
    if absent:
        return (f"not installed: {', '.join(absent)}. The pods are network namespaces with rules of their own.\n"
                f"As root: apt-get install {' '.join(absent)}")
    return None


def hosts_file(folder):
    """What a cluster's name server would say: the services' names, as pods of `default` call them."""
    lines = ["127.0.0.1 localhost"]
    for address, name in SERVICES:
        lines.append(f"{address} {name} {name}.default {name}.default.svc {name}.default.svc.cluster.local")
    path = folder / "hosts"
    path.write_text("\n".join(lines) + "\n")
    return path


class Demo:
    """All of it, in the sandbox."""

    def __init__(self, chosen, folder, binary, listeners):
        self.chosen, self.folder, self.binary, self.listeners = chosen, folder, binary, listeners
        self.place = self.plane = self.prometheus = None
        self.began = time.monotonic()

    def build(self):
        print("== pods: network namespaces on one bridge, apps, Istio's rules, sidecars", flush=True)
        self.place = Place(self.folder, self.binary, iptables_beside(self.binary))
        self.plane = ControlPlane(self.place, ROTATE_SECONDS)
        self.place.deploy(self.plane.config)
        self.place.add(Pod(self.place, "prometheus", "outside", "plain"))
        self.place.start()
        self.plane.start()
        for pod in self.place.mesh():
            wait_until(lambda pod=pod: self.alive() and (pod.folder / "XDS").exists() and (pod.folder / "SDS").exists(),
                       f"the control plane's sockets for {pod.name}")
            pod.start_proxy()
        self.watch()

    def watch(self):
        """A Prometheus in a pod of its own, where there is a program for it."""
        binary = prometheus.find()
        if binary is None or not (self.chosen.keep or METRICS_STEP in self.chosen.steps):
            return
        pod = self.place.pods["prometheus"]
        self.prometheus = prometheus.Prometheus(binary, pod.folder, self.place.metrics_targets(),
                                                f"{pod.ip}:{PROMETHEUS_PORT}", spawn=pod.spawn, namespace=pod.net)
        self.prometheus.start()

    def alive(self):
        if self.plane.process.poll() is not None:
            raise PlaneFailed(f"the control plane ended with {self.plane.process.returncode}:\n{self.plane.last_words()}")
        return True

    def tell(self):
        """Every step that was asked for; gives the teller."""
        teller = Teller(self.place, self.plane, {})
        teller.demo = self
        for step in STEPS:
            if step.number in self.chosen.steps:
                if not teller.results and step.number != 1:
                    self.wait_ready()
                teller.tell(step)
        return teller

    def wait_ready(self):
        for pod in self.place.pods.values():
            wait_until(lambda pod=pod: (lambda ready, of: ready == of)(*pod.containers()), f"{pod.name} ready", 30)
        self.plane.wait_synced()

    def open_doors(self):
        relays = doors.Relays()
        gateway = self.place.pods["istio-ingressgateway"]
        relays.add(self.listeners["app"], gateway.net, gateway.ip, GATEWAY_PORT, PUBLIC_HOST)
        for name in ("client", "handson-blue", "istio-ingressgateway"):
            relays.add(self.listeners[name], self.place.pods[name].net, "127.0.0.1", ADMIN_PORT)
        lines = [f"the app, through the gateway   {url(self.listeners['app'])}"]
        lines += [f"admin of {name:<21} {url(self.listeners[name])}" for name in ("client", "handson-blue", "istio-ingressgateway")]
        if self.prometheus:
            pod = self.place.pods["prometheus"]
            relays.add(self.listeners["prometheus"], pod.net, pod.ip, PROMETHEUS_PORT)
            lines.append(f"Prometheus                     {url(self.listeners['prometheus'])}")
        doors.Entrance(self.folder, self.place)
        print("\nIt is kept running. To look at, in a browser:")
        print("\n".join("   " + line for line in lines))
        changes, config = "examples/handson/changes", self.plane.config
        print("To try, in another terminal:\n"
              "   ./dev demo --in client curl -si http://handson:8080/headers\n"
              f"   cp {changes}/routing-half.yaml {config}/routing.yaml    # watch the page change its colours\n"
              f"   cp {changes}/authorization-deny.yaml {config}/           # then the first command again: 403\n"
              f"   rm {config}/authorization-deny.yaml\n"
              "   ./dev demo --in handson-blue iptables -t nat -S\n"
              f"   tail -f {self.folder}/pods/client/proxy.log              # its access log\n"
              "Ctrl-C ends everything.", flush=True)

    def finish(self, teller):
        """The table, the report, the doors; gives the exit status."""
        good = all(one.good for one in teller.results)
        print("\n" + "\n".join(table(teller.results)))
        report = write_report(self, teller)
        print(f"\n{'every step went as described' if good else 'NOT every step went as described'}, "
              f"{time.monotonic() - self.began:.0f} s; the report: {report}", flush=True)
        if self.chosen.keep:
            self.open_doors()
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
        return 0 if good else 1

    def end(self):
        """Ends every program in order; gives False when one did not end as it should."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self.prometheus:
            self.prometheus.stop()
        if self.plane:
            self.plane.stop()
        odd = self.place.stop() if self.place else []
        for line in odd:
            print(f"demo: {line}", file=sys.stderr)
        return not odd

    def run(self):
        """In the sandbox, as its first process."""
        def terminated(*_):
            raise KeyboardInterrupt
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, terminated)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ["XTABLES_LOCKFILE"] = str(self.folder / "xtables.lock")
        try:
            self.build()
            status = self.finish(self.tell())
        except KeyboardInterrupt:
            print("\n== ended by a signal: everything is taken down", flush=True)
            status = 130
        except (CommandFailed, PlaneFailed, PodFailed, TimeoutError) as error:
            print(f"demo: {error}", file=sys.stderr)
            status = 1
        return status if self.end() else status or 1


def url(listener):
    return f"http://127.0.0.1:{listener.getsockname()[1]}/"


def write_report(demo, teller):
    path = pathlib.Path(demo.chosen.report or CHECKOUT / "build" / "demo" / "report.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.page(demo, teller), encoding="utf-8")
    path.with_suffix(".svg").write_text(report.picture(demo, teller), encoding="utf-8")
    return path


def main(argv):
    # where ip and iptables are; not on the path of an ordinary user of Debian
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    chosen = arguments_of(argv)
    if chosen.list:
        print("\n".join(f"{step.number:>2}  {step.title}\n    {step.why}" for step in STEPS))
        return 0
    if chosen.inside:
        folder = rundir.running()
        if folder is None or not (folder / "enter").exists():
            return complain("no demo is kept running here: ./dev demo --keep, in another terminal")
        return doors.enter(folder, chosen.inside[0], chosen.inside[1:] or ["sh"])
    removed, running = rundir.clean()
    for folder in removed:
        print(f"== removed what a killed demo left: {folder}")
    if chosen.clean:
        for folder in running:
            print(f"== {folder} belongs to a demo that runs: Ctrl-C ends it there")
        return 0
    binary = pathlib.Path(chosen.proxy or CHECKOUT / "build" / "release" / "kobune").absolute()
    lacking = missing(binary)
    if lacking:
        return complain(lacking)
    wanted = {"app": 8080, "prometheus": 9090, "client": 15000, "handson-blue": 15001, "istio-ingressgateway": 15002}
    listeners = {name: doors.listen(port) for name, port in wanted.items()} if chosen.keep else {}
    with rundir.made() as folder:
        demo = Demo(chosen, folder, binary, listeners)
        try:
            return sandbox.run(demo.run, str(hosts_file(folder)))
        except sandbox.Unable as error:
            return complain(str(error))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
