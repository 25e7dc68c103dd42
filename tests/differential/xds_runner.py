# SPDX-License-Identifier: Apache-2.0
"""Runs a case whose resources come from a control plane, and keeps what the control plane heard."""

import json
import re
import ssl
import time

from google.protobuf import any_pb2, json_format
from envoy.service.discovery.v3 import discovery_pb2

from tests.harness import certs
from tests.harness.client import Connection
from tests.harness.config import Layout
from tests.harness.patience import DEADLINE_S
from tests.replay.control_plane import SHORT, URLS, ControlPlane, resource

from . import normal, runner, views, xds_case

COUNTED = (r"^(cluster_manager|listener_manager|control_plane|sds|extension_config_discovery"
           r"|http\.[^.]+\.(rds|extension_config_discovery)|cluster\.[^.]+\.(update_|init_fetch"
           r"|membership_|assignment_|version)|server\.dynamic_unknown_fields"
           r"|listener\.[^.]+\.server_ssl_socket_factory)")
UNCOUNTED = re.compile(r"_time(_ms)?$|\.worker_\d+\.|^cluster\.xds\.|\.warming_state$"
                       r"|config_reload_time_ms$|update_duration")
TEXT_MAX = 240  # of a refusal
DUMPED = re.compile(r"\s*goo\.gle/debug\w+.*", re.S)
CONSTRAINT = re.compile(r"ValidationError\.\w+: ((?:(?!ValidationError).)*?)\)?\n?$", re.S)
FIELD = re.compile(r" \([a-z_]+(\[\d+\])?(\.[a-z_@]+(\[\d+\])?)*\)")


class XdsRun(runner.Run):
    """A case running against a subject, over one protocol."""

    counted, uncounted = COUNTED, UNCOUNTED

    def __init__(self, case, binary, hints=None, protocol="delta"):
        super().__init__(case, binary, recorded_over(protocol, hints))
        self.protocol = protocol
        self.delta = protocol == "delta"
        self.spec = case.spec["control_plane"]
        self.layout.stop()
        later = xds_case.later(case.exchanges)
        self.layout = Layout(xds_case.bootstrap(case.spec, protocol), case.spec.get("upstreams"),
                             later, {"xds", *xds_case.listeners(later), *self.spec.get("ports", ())})
        self.names = normal.Names(self.layout.numbers)
        self.proxy.config_file.write_text(runner.harness_proxy.to_yaml(self.config(self.proxy.dir)))
        self.exchanges = [e for e in case.exchanges if e.protocol == protocol]
        self.first = next((n for n in self.layout.numbers if n in xds_case.listeners(later)), None)
        self.steps_class = XdsSteps
        self.present = {kind: {} for kind in URLS}
        self.version = 0
        self.last = {}    # type: nonce of the last response
        self.cursor = {}  # type: the first request that no step waited for
        self.heard = 0
        self.plane = ControlPlane(f"127.0.0.1:{self.layout.numbers['xds']}", False)
        if self.spec.get("up", True):
            self.plane.start()

    def run(self):
        try:
            return super().run()
        finally:
            self.plane.stop()

    def begin(self):
        self.proxy.start()
        self.proxy.wait_admin()

    def target(self, exchange):
        if exchange.to == "admin":
            return self.proxy.admin_port
        return self.layout.numbers[exchange.to or self.first]

    def active(self):
        return {k: v for k, v in self.proxy.active().items() if not k.startswith("cluster.xds.")}

    def finish_exchange(self, result, exchange):
        """What the control plane heard during the exchange, when no more comes."""
        due = self.heard + self.due.count(exchange, "heard")
        plane = self.plane
        with plane.changed:
            plane.changed.wait_for(lambda: len(plane.requests) >= due, self.due.patience(exchange))
            while True:
                count = len(plane.requests)
                if not plane.changed.wait_for(lambda: len(plane.requests) > count, self.quiet):
                    break
            fresh, self.heard = plane.requests[self.heard:count], count
        result["heard"] = [self.line(r) for r in fresh]

    def line(self, r):
        """A request in one line: stream, type, node, version, ACK or NACK of which response, names."""
        words = [str(r.stream), r.type]
        words += [f"node={r.node}"] if r.node else []
        words += [f"version={r.version}"] if r.version else []
        words += ([f"NACK {r.nonce}"] if r.error or r.code else [f"nonce {r.nonce}"] if r.nonce else [])
        words += [f"[{' '.join(r.names)}]"] if r.names else []
        words += [f"+{name}" for name in r.added] + [f"-{name}" for name in r.removed]
        words += [f"has {name}={version}" for name, version in sorted(r.initial.items())]
        if r.error or r.code:
            words.append(f"({r.code}) " + self.text(reason(r.error))[:TEXT_MAX])
        return " ".join(words)

    def text(self, text):
        return normal.text_of(text, self.names, self.address)


class XdsSteps(runner.Steps):
    """The steps of a case with a control plane, beside those of every case."""

    def __init__(self, run, exchange):
        super().__init__(run, exchange)
        self.plane = run.plane
        self.seen = []

    def play(self):
        try:
            return super().play()
        finally:
            self.shown = {"seen": self.seen}

    # what the control plane says

    def packed(self, kind, name, form):
        fields = filled(self.run.layout.put(xds_case.resource(kind, name, form),
                                            log=str(self.run.proxy.dir / "access.log"),
                                            dir=str(self.run.proxy.dir)))
        return resource(kind, fields)

    def do_put(self, arg):
        """Changes what there is and says it: {TYPE: {NAME: form, or null: it is gone}}."""
        for kind, forms in arg.items():
            run, there = self.run, self.run.present[kind]
            run.version += 1
            changed = [n for n, form in forms.items() if form is not None]
            gone = [n for n, form in forms.items() if form is None]
            there.update({n: self.packed(kind, n, forms[n]) for n in changed})
            for name in gone:
                there.pop(name, None)
            if run.delta:
                run.last[kind] = self.plane.send_delta(
                    kind, [(n, f"v{run.version}", there[n]) for n in changed], gone,
                    version=str(run.version))
            else:
                run.last[kind] = self.plane.send(kind, str(run.version), *there.values())

    def do_say(self, arg):
        """One response by hand: {TYPE: [{NAME: form, ...}], version:, nonce:, removed:}."""
        kind = next(k for k in arg if k in URLS)
        self.run.version += 1
        version = str(arg.get("version", self.run.version))
        nonce = arg.get("nonce") or self.plane.nonce()
        reply = discovery_pb2.DeltaDiscoveryResponse if self.run.delta else \
            discovery_pb2.DiscoveryResponse
        message = reply(type_url=URLS[kind], nonce=nonce)
        if self.run.delta:
            message.system_version_info = version
            message.removed_resources.extend(arg.get("removed", ()))
        else:
            message.version_info = version
        for entry in arg[kind]:
            self.add(message, kind, entry, version)
        self.plane.out.put(message)
        self.run.last[kind] = nonce

    def add(self, message, kind, entry, version):
        name, form, options = xds_case.said(entry, kind)
        body = any_pb2.Any(type_url=options["bytes"][0], value=bytes.fromhex(options["bytes"][1])) \
            if "bytes" in options else None
        if form is not None:
            body = self.packed(options["as"], name, form)
        if not self.run.delta and not options.get("wrapped") and "ttl" not in options:
            message.resources.append(body)
            return
        one = discovery_pb2.Resource(name=name, version=str(options.get("version", f"v{version}")))
        if body is not None:
            one.resource.CopyFrom(body)
        if "ttl" in options:
            json_format.Parse(json.dumps(options["ttl"]), one.ttl)
        if self.run.delta:
            message.resources.append(one)
        else:
            message.resources.add().Pack(one)

    def do_cut(self, _):
        """Ends the stream and waits for the next."""
        streams = self.plane.streams
        self.plane.cut()
        self.plane.wait_streams(streams + 1)

    def do_down(self, _):
        self.plane.stop()

    def do_up(self, _):
        streams = self.plane.streams
        self.plane.start()
        self.plane.wait_streams(streams + 1)

    # what is waited for

    def do_asked(self, arg):
        """A request of TYPE that no step waited for yet, or {TYPE: [names that it adds]}."""
        kind, names = (arg, []) if isinstance(arg, str) else next(iter(arg.items()))
        at = self.plane.find(
            lambda r: r.type == kind and set(names) <= {*r.names, *r.added},
            f"a request for {arg}", self.run.cursor.get(kind, 0), DEADLINE_S)
        self.run.cursor[kind] = at + 1

    def do_answered(self, kind):
        """The ACK or NACK of the last response of TYPE."""
        nonce = self.run.last[kind]
        at = self.plane.find(lambda r: r.type == kind and r.nonce == nonce,
                             f"the answer to {nonce} ({kind})", 0, DEADLINE_S)
        self.run.cursor[kind] = max(self.run.cursor.get(kind, 0), at + 1)

    def do_ready(self, word):
        """Waits until /ready says the word, and notes what it said before."""
        def look():
            status, body = self.run.proxy.admin("/ready")
            line = f"/ready: {status} {body.decode().strip()}"
            if self.seen[-1:] != [line]:
                self.seen.append(line)
            return body.decode().strip() == word
        self.run.proxy.wait_for(f"{word} at /ready", look)

    def do_port(self, arg):
        """NAME: notes whether it is open; {NAME: open or refused}: waits for that."""
        name, want = (arg, None) if isinstance(arg, str) else next(iter(arg.items()))
        def state():
            conn = Connection(self.run.layout.numbers[name])
            conn.close()
            return conn.state
        if want:
            self.run.proxy.wait_for(f"port {name} {want}", lambda: state() == want, DEADLINE_S)
        self.seen.append(f"port {name}: {state()}")

    def do_certificate(self, arg):
        """{PORT: certificate}: handshakes until it is shown, and notes which one was."""
        (port, want), = arg.items()
        end = time.monotonic() + DEADLINE_S
        while True:
            got = shown_certificate(self.run.layout.numbers[port])
            if got == want or time.monotonic() > end:
                break
        self.seen.append(f"{port} shows {got}")

    # what is noted

    def do_show(self, arg):
        """An admin page, without what no two runs share: its path, or {page:, lines: regex}."""
        arg = {"page": arg} if isinstance(arg, str) else arg
        status, body = self.run.proxy.admin(arg["page"])
        self.seen.append(f"GET {arg['page']}: {status}")
        text = unfilled(body.decode()).replace(str(self.run.proxy.dir), "{dir}")
        text = re.sub(r"(init manager \S+ \S+) \d+", r"\1 <hash>", text)
        try:
            lines = json.dumps(dump(json.loads(text)), indent=1, sort_keys=True).split("\n")
            lines = [self.run.text(line) for line in lines]
        except ValueError:
            lines = sorted(self.run.text(line) for line in text.splitlines())
        self.seen += [normal.shorten(line) for line in lines if re.search(arg.get("lines", ""), line)]

    def do_counters(self, pattern):
        """Counters and gauges of that pattern, as they are now."""
        for name, value in sorted(self.run.proxy.stats(pattern).items()):
            if not UNCOUNTED.search(name):
                self.seen.append(f"{self.run.names.put(name)}: {value}")


def reason(text):
    """Why a resource was refused, without the message that Envoy and the paths that Kobune shows."""
    constraint = CONSTRAINT.search(text)
    text = constraint.group(1) if constraint and DUMPED.search(text) else DUMPED.sub("", text)
    return FIELD.sub("", text)


def dump(node):
    """A /config_dump without the bootstrap, times and builds; versions stay."""
    if isinstance(node, dict):
        return {k: f"<{k}>" if k == "last_updated" else reason(v) if k == "details" else
                sorted(v) if k == "target_names" else dump(v) for k, v in node.items()}
    if isinstance(node, list):
        return [dump(v) for v in node
                if not (isinstance(v, dict) and v.get("@type", "").endswith("BootstrapConfigDump"))]
    return node


def filled(node):
    """{certificate FILE} by the text of the file."""
    if isinstance(node, dict):
        return {k: filled(v) for k, v in node.items()}
    if isinstance(node, list):
        return [filled(v) for v in node]
    if isinstance(node, str) and node.startswith("{certificate "):
        return (certs.usual() / node[len("{certificate "):-1]).read_text()
    return node


def unfilled(text):
    """The other way round, in JSON text."""
    if "BEGIN" not in text:
        return text
    for path in certs.usual().glob("*.pem"):
        text = text.replace(json.dumps(path.read_text())[1:-1], f"{{certificate {path.name}}}")
    return text


def shown_certificate(port):
    """The name of the certificate that a handshake shows, or the error."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        conn = Connection(port)
        if conn.state != "open":
            return conn.state
        with context.wrap_socket(conn.sock) as sock:
            der = sock.getpeercert(True)
    except (OSError, ssl.SSLError) as error:
        return type(error).__name__
    return certs.name_of(der)


def recorded_over(protocol, record):
    """The part of a case's record that is about one protocol."""
    prefix = protocol + ": "
    return record and {
        "exchanges": [e for e in record["exchanges"] if e["name"].startswith(prefix)],
        "stats": {k.removeprefix(prefix): v for k, v in record["stats"].items() if k.startswith(prefix)}}


def run(case, binary, hints=None):
    """Over each protocol of the case; counters get the protocol before their name."""
    result = {"exchanges": [], "stats": {}}
    for protocol in case.protocols:
        one = XdsRun(case, binary, hints, protocol).run()
        result["exchanges"] += one["exchanges"]
        result["stats"].update({f"{protocol}: {k}": v for k, v in one["stats"].items()})
        if "exit" in one:
            result["exit"] = f"{protocol}: {one['exit']}"
    return result
