#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An app, the proxy in front of it, and what one sees from outside.

Every step says what it does, does it, shows what came back and checks it; the first one that is not as
described ends the demo with exit code 1. `--keep` leaves everything running to play with.
"""

import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from examples.steps import Steps, main  # noqa: E402 (found from anywhere)


class FrontProxy(Steps):
    name = "front_proxy"
    ports = {"listener": 10000, "admin": 9901, "app-1": 8001, "app-2": 8002, "nobody": 8003}

    def run(self, keep):
        self.start_all()
        self.requests()
        self.retry()
        self.failure()
        self.admin()
        self.metrics()
        self.mistake()
        if keep:
            self.keep(f"http://127.0.0.1:{self.ports['listener']}, its admin http://127.0.0.1:{self.ports['admin']}", self.server)
        else:
            self.say("The end", "POST /quitquitquit asks the proxy to go.")
            self.end_proxy("proxy", "admin")

    def start_all(self):
        self.say("Two copies of a small app", "They say who they are and what they saw (app.py).")
        for name in ("app-1", "app-2"):
            self.start_app(name)
        self.say(f"{self.program} in front of them", "The configuration is an ordinary Envoy v3 file: examples/front_proxy/proxy.yaml.")
        config = self.folder / "proxy.yaml"
        config.write_text(self.with_ports((HERE / "proxy.yaml").read_text()))
        self.server = self.start_proxy("proxy", config, "admin", shown="examples/front_proxy/proxy.yaml")

    def requests(self):
        self.say("Requests go to both copies in turn", "/app is rewritten to /; the proxy adds x-request-id, x-forwarded-proto and x-demo.")
        names = set()
        for _ in range(4):
            status, _, body = self.request("listener", "/app")
            self.show(body)
            self.expect(status == 200 and "x-demo: added for 127.0.0.1" in body, f"a 200 with x-demo, got {status} {body}")
            names.add(body.split(":")[0])
        self.expect(names == {"app-1", "app-2"}, f"answers of both copies, got {names}")
        self.say("Some answers need no app", "A direct response, a redirect, and a path that no route takes.")
        for path, expected in (("/hello", 200), ("/old/shoes", 301), ("/no-such-path", 404)):
            status, headers, body = self.request("listener", path)
            self.show("\n".join([str(status)] + [f"{k}: {v}" for k, v in headers.items() if k == "location"] + ([body] if body else [])))
            self.expect(status == expected, f"{expected} for {path}, got {status}")

    def retry(self):
        self.say(
            "A retry",
            "/flaky answers 503 to the first attempt. retry_on: 5xx makes the proxy try again, so the client\n"
            "sees a 200, and x-envoy-attempt-count says that it took two attempts.",
        )
        status, headers, body = self.request("listener", "/flaky")
        self.show(f"{status}\nx-envoy-attempt-count: {headers.get('x-envoy-attempt-count')}\n\n{body}")
        attempts = headers.get("x-envoy-attempt-count", "")
        self.expect(status == 200 and attempts == "2", f"a 200 after two attempts, got {status} after {attempts}")

    def failure(self):
        self.say("An upstream that is not there", "The client gets Envoy's words for it, with a 503 of the proxy's own.")
        status, _, body = self.request("listener", "/broken")
        self.show(f"{status}\n{body}")
        self.expect(status == 503 and "upstream connect error" in body, f"a 503 with the reason, got {status} {body}")
        wanted = "GET /broken -> 503 flags=UF"
        print("   The access log tells the two kinds of 5xx apart: UF, upstream connection failure.")
        self.wait("access log", lambda: wanted in self.server.log.read_text(), self.server)
        self.show("\n".join(line for line in self.server.log.read_text().split("\n") if line.startswith("GET ")))

    def admin(self):
        self.say("The admin", "Envoy's pages, under Envoy's paths.")
        _, _, body = self.request("admin", "/clusters")
        picked = [line for line in body.split("\n") if re.match(r"app::127.0.0.1:\d+::(rq_total|rq_error|cx_total|health_flags)", line)]
        self.show("\n".join(picked))
        self.expect(len(picked) == 8, f"two hosts in /clusters, got {body[:400]}")
        _, _, body = self.request("admin", "/listeners")
        self.show(body)
        self.expect(body.startswith("ingress::127.0.0.1:"), f"the listener, got {body}")
        _, _, body = self.request("admin", "/stats?filter=cluster.app.upstream_rq_(retry|total|2xx|503)$")
        self.show(body)
        self.expect("cluster.app.upstream_rq_retry: " in body, f"the retry counted, got {body}")

    def metrics(self):
        self.say("Metrics for Prometheus", "Names, types and labels are Envoy's, so dashboards made for it work.")
        _, _, body = self.request("admin", "/stats/prometheus")
        picked = [
            line for line in body.split("\n")
            if re.search(r"envoy_http_downstream_rq_xx\{.*ingress|envoy_cluster_upstream_rq_xx\{.*\"app\"|envoy_cluster_upstream_rq_retry\{.*\"app\"", line)
        ]
        self.show("\n".join(picked))
        self.expect(any("envoy_cluster_upstream_rq_retry{" in line for line in picked), "the retry counter among the metrics")

    def mistake(self):
        self.say("A mistake in the configuration", "One letter missing: 'prefix_rewrit'. --mode validate says so; nothing is started.")
        broken = self.folder / "broken.yaml"
        broken.write_text((self.folder / "proxy.yaml").read_text().replace("cluster: app, prefix_rewrite:", "cluster: app, prefix_rewrit:"))
        self.command(f"{self.program} --mode validate -c broken.yaml; echo $?")
        done = subprocess.run([self.proxy, "--mode", "validate", "-c", str(broken)], capture_output=True, text=True, check=False)
        output = (done.stdout + done.stderr).replace(str(broken), "broken.yaml")
        self.show("\n".join(line for line in output.split("\n") if "prefix_rewrit" in line or self.program != "envoy") + f"\n{done.returncode}", 10)
        self.expect(done.returncode == 1 and "prefix_rewrit" in output, f"exit code 1 and the field's name, got {done.returncode}")


if __name__ == "__main__":
    sys.exit(main(FrontProxy, __doc__))
