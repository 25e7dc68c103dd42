#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Configuration from files that are replaced while requests run: no restart, and no request fails.

Every step says what it does, does it, shows what came back and checks it.
"""

import http.client
import pathlib
import subprocess
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from examples.steps import Steps, main  # noqa: E402 (found from anywhere)

class Load:
    """Requests one after the other until end(); every answer that is no 200 is kept."""

    def __init__(self, port):
        self.port, self.done, self.failed = port, 0, []
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        while not self.ends.is_set():
            try:
                connection.request("GET", "/load")
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    self.failed.append(answer.status)
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                connection.close()
            self.done += 1
        connection.close()

    def end(self):
        self.ends.set()
        self.thread.join()


class FileXds(Steps):
    name = "file_xds"
    ports = {"ingress": 10000, "second": 10001, "admin": 9901, "blue-1": 8001, "green-1": 8002, "blue-2": 8003}

    def run(self, keep):
        self.start_all()
        load = Load(self.ports["ingress"])
        try:
            self.routes()
            self.endpoints()
            self.listeners()
            self.mistake()
        finally:
            load.end()
        self.untouched(load)
        if keep:
            self.keep(f"http://127.0.0.1:{self.ports['ingress']}, its files in {self.folder}/xds", self.server)
        else:
            self.say("The end")
            self.end_proxy("proxy", "admin")

    def start_all(self):
        self.say("Three copies of a small app", "They say who they are.")
        for app in ("blue-1", "blue-2", "green-1"):
            self.start_app(app)
        self.say(f"{self.program} with files in the place of a control plane", "bootstrap.yaml names them: xds/lds.yaml and xds/cds.yaml.")
        for file in [HERE / "bootstrap.yaml", *(HERE / "xds").iterdir(), *(HERE / "more").iterdir()]:
            copy = self.folder / file.relative_to(HERE)
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(self.with_ports(file.read_text()))
        self.server = self.start_proxy("proxy", "bootstrap.yaml", "admin", cwd=self.folder)
        self.answers("ingress", "blue-1")

    def replace(self, name, made_by):
        """The new file is written beside the old one and moved there: nobody ever reads half a file."""
        command = f"{made_by} > xds/{name}.new && mv xds/{name}.new xds/{name}.yaml"
        self.command(command)
        subprocess.run(["sh", "-c", command], cwd=self.folder, check=True)

    def answers(self, listener, *wanted):
        """Until all of these apps, and no others, answer; shows one answer of each."""
        seen = {}

        def settled():
            now = [self.request(listener, "/", quiet=True) for _ in range(4)]
            if any(status != 200 for status, _, _ in now):
                return False
            seen.clear()
            seen.update({body.split(":")[0]: body.split("\n")[0] for _, _, body in now})
            return set(seen) == set(wanted)
        self.wait(f"answers of {' and '.join(wanted)} alone", settled, self.server)
        self.command(f"curl -s http://127.0.0.1:{self.ports[listener]}/")
        self.show("\n".join(seen[name] for name in sorted(seen)))

    def routes(self):
        self.say("Another cluster, then a route to it", "First what is needed, then who needs it: requests go on meanwhile.")
        self.replace("cds", "cat xds/cds.yaml more/cluster-green.yaml")
        self.wait("the cluster", lambda: "green::" in self.request("admin", "/clusters", quiet=True)[2], self.server)
        self.replace("rds", "sed 's/cluster: blue/cluster: green/' xds/rds.yaml")
        self.answers("ingress", "green-1")
        self.replace("rds", "sed 's/cluster: green/cluster: blue/' xds/rds.yaml")
        self.answers("ingress", "blue-1")

    def endpoints(self):
        self.say("A second endpoint", "eds.yaml has the addresses of a cluster.")
        self.replace("eds", "cat xds/eds.yaml more/endpoint.yaml")
        self.answers("ingress", "blue-1", "blue-2")

    def listeners(self):
        self.say("A second listener, and its end", "lds.yaml; the first one is not touched, and keeps its connections.")
        self.replace("lds", "cat xds/lds.yaml more/listener.yaml")
        self.answers("second", "blue-1", "blue-2")
        self.replace("lds", "head -n 19 xds/lds.yaml")

        def refused():
            try:
                self.request("second", "/", quiet=True)
            except ConnectionRefusedError:
                return True
            return False
        self.wait("the end of the second listener", refused, self.server)
        self.show("second: connection refused")

    def mistake(self):
        self.say("A mistake", "One letter is missing: 'cluste'. The file is refused by name, and what was there stays.")
        rejected = "http.ingress.rds.shop.update_rejected"
        before = self.stats("admin", rejected).get(rejected, 0)
        self.replace("rds", "sed 's/cluster:/cluste:/' xds/rds.yaml")

        def counted():
            now = self.stats("admin", "http.ingress.rds.shop.update_(rejected|failure)")
            return sum(now.values()) > before
        self.wait("its refusal", counted, self.server)
        self.wait("words for it in the log", lambda: "rejected" in self.server.log.read_text(), self.server)
        told = [line.split("] ")[-1] for line in self.server.log.read_text().splitlines() if "cluste'" in line or "rejected" in line]
        self.show("\n".join(line[:300] for line in told))
        self.expect("'cluste'" in told[0], f"the field's name, got {told}")
        self.answers("ingress", "blue-1", "blue-2")
        self.replace("rds", "sed 's/cluste:/cluster:/' xds/rds.yaml")

    def untouched(self, load):
        self.say("All that time", "one client asked, over and over.")
        self.show(f"{load.done} requests, {len(load.failed)} failed")
        self.expect(load.done > 0 and not load.failed, f"no failed request, got {load.failed[:3]}")


if __name__ == "__main__":
    sys.exit(main(FileXds, __doc__))
