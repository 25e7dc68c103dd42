# SPDX-License-Identifier: Apache-2.0
"""Reads a case file: a configuration fragment and the exchanges to run against it.

The format is described in tests/README.md.  Here it is checked and brought to one shape: every
exchange becomes a list of steps.
"""

import hashlib
import json
import re
from pathlib import Path

import yaml

from tests.harness import config as harness_config

from . import matrix, xds_case

HERE = Path(__file__).resolve().parent
CASES = HERE / "cases"
GOLDEN = HERE / "golden"
FORMAT = 2  # raise it when recorded results get another shape

CASE_KEYS = {"about", "listeners", "clusters", "bootstrap", "upstreams", "args", "concurrency",
             "exchanges", "stats", "stats_drop", "allow_stats", "framing", "files", "cli",
             "numbered", "refused", "control_plane", "turn", "collectors", "matrix"}
EXCHANGE_KEYS = {"name", "to", "send", "get", "request", "host", "headers", "raw", "body", "chunks",
                 "steps", "upstream", "responses", "half_close", "allow", "view", "framing",
                 "each", "repeat", "drop_log", "only", "tls", "from", "at", "h2"}


class CaseError(ValueError):
    """A case file that cannot be understood; the text says where."""


def allowed(case):
    """What `allowed.yaml` says of this case: exchange name to difference names, and for
    "(counters)" difference name to a pattern of counter names."""
    table = yaml.safe_load((CASES.parent / "allowed.yaml").read_text()) or {}
    return table.get(case.name) or {}


def unsupported(case):
    """The paths that `unsupported.yaml` names for this case."""
    table = yaml.safe_load((CASES.parent / "unsupported.yaml").read_text()) or {}
    return sorted(table.get(case.name) or [])


class Exchange:
    """One exchange in its final shape."""

    def __init__(self, name, spec, steps):
        self.name = name
        self.protocol = None  # of the control plane
        self.to = spec.get("to")
        self.steps = steps
        self.upstream = spec.get("upstream")
        self.only = spec.get("only")
        self.allow = spec.get("allow", [])
        self.view = spec.get("view")
        self.framing = spec.get("framing")
        self.drop_log = spec.get("drop_log", [])
        self.tls = spec.get("tls")
        self.where = {}
        if "from" in spec:
            self.where["source"] = spec["from"]
        if "at" in spec:
            self.where["address"] = spec["at"]


class Case:
    """A parsed case file."""

    def __init__(self, path):
        self.path = Path(path)
        self.name = self.path.stem
        spec = yaml.safe_load(self.path.read_text())
        unknown = set(spec) - CASE_KEYS
        if unknown:
            raise CaseError(f"{path}: unknown keys {sorted(unknown)}; known: {sorted(CASE_KEYS)}")
        if not spec.get("about"):
            raise CaseError(f"{path}: `about:` is missing: say what the case is there to find")
        self.matrix = "matrix" in spec
        if self.matrix:
            spec = matrix.expanded(spec)
        self.spec = spec
        self.protocols = xds_case.protocols(spec["control_plane"]) if "control_plane" in spec else []
        self.config = (xds_case.bootstrap(spec, self.protocols[0]) if self.protocols else
                       harness_config.bootstrap(spec))
        self.first = next(iter(spec.get("listeners") or {"main": {}}))
        not_itself(self.config, spec.get("upstreams") or {})
        self.exchanges = []
        for protocol in self.protocols or [None]:
            for one in spec.get("exchanges") or []:
                self.exchanges += over(protocol, expand(one, self.path))
        names = [e.name for e in self.exchanges]
        double = {n for n in names if names.count(n) > 1}
        if double:
            raise CaseError(f"{path}: exchange names used twice: {sorted(double)}")
        self.cli = [one for entry in spec.get("cli") or [] for one in expand_each(entry)]
        for one in self.cli:
            one["name"] = title(one)

    @property
    def golden_file(self):
        return GOLDEN / f"{self.name}.json"

    def digest(self):
        """Changes when anything changes that the recorded answers depend on."""
        parts = {k: v for k, v in self.spec.items() if k not in ("about", "refused")}
        if self.matrix:
            parts["scripts"] = [e.upstream for e in self.exchanges]
        text = json.dumps([FORMAT, self.config, parts], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def not_itself(config, upstreams):
    """A name is one port: where a listener has an upstream's, the proxy would call itself until a
    timeout.  An endpoint that is written down may be a listener: a chain of two hops."""
    resources = config["static_resources"]
    listeners = {one["name"] for one in resources.get("listeners", [])}
    for name in upstreams:
        if name in listeners:
            raise CaseError(f"the listener and the upstream {name!r} have one name, so that nothing "
                            "would reach the upstream: give one of them another name")
    for cluster in resources.get("clusters", []):
        name = cluster["name"]
        if name in listeners and name in harness_config.names_in(cluster):
            raise CaseError(f"the listener and the cluster {name!r} have one name, and the cluster's "
                            "endpoint is of that name, too: the listener itself; give one of them "
                            "another name, or the cluster `endpoints:`")


def over(protocol, exchanges):
    """The exchanges over a protocol of the control plane; `only: delta` takes one out of the other."""
    if protocol is None:
        return exchanges
    out = [e for e in exchanges if e.only in (None, protocol)]
    for exchange in out:
        exchange.name = f"{protocol}: {exchange.name}"
        exchange.protocol = protocol
    return out


def expand(spec, path):
    """One entry of `exchanges:`; with `each:` one exchange per value, with `repeat:` n of them."""
    unknown = set(spec) - EXCHANGE_KEYS
    if unknown:
        raise CaseError(f"{path}: exchange {spec.get('name')!r}: unknown keys {sorted(unknown)}; "
                        f"known: {sorted(EXCHANGE_KEYS)}")
    out = expand_each(spec)
    if spec.get("repeat"):
        out = [{**one, "name": f"{title(one)} #{n + 1}"}
               for one in out for n in range(spec["repeat"])]
    out = [matrix.scripts(one) for one in out]
    return [Exchange(title(one), one, steps_of(one, path)) for one in out]


def expand_each(spec):
    out = [spec]
    for key, values in (spec.get("each") or {}).items():
        out = [put(one, f"<<{key}>>", value) for one in out for value in values]
    return out


def put(node, mark, value):
    """Replace the mark everywhere; a string that is only the mark becomes the value itself."""
    if isinstance(node, dict):
        return {k: put(v, mark, value) for k, v in node.items() if k != "each"} | \
            ({"each": node["each"]} if "each" in node else {})
    if isinstance(node, list):
        return [put(v, mark, value) for v in node]
    if isinstance(node, str):
        return value if node == mark else node.replace(mark, str(value))
    return node


def title(spec):
    """The name of an exchange, in one printable line."""
    return re.sub(r"[\r\n]+", " / ", untidy_title(spec)).encode("unicode_escape").decode()


def untidy_title(spec):
    if "name" in spec:
        return str(spec["name"])
    if "get" in spec:
        return f"GET {spec['get']}"
    if "request" in spec:
        return str(spec["request"])
    return str(spec.get("send", "?")).splitlines()[0]


def head_bytes(text):
    """A request head written with plain line ends; the empty line is added if it is not there."""
    text = text.rstrip("\n") if "\n\n" not in text else text
    raw = text.replace("\n", "\r\n")
    if "\r\n\r\n" not in raw:
        raw += "\r\n\r\n"
    return raw


def filled(text):
    """`<<a*5>>` is aaaaa; with a # in it, `<<h#: 1*3>>` is three lines h0: 1, h1: 1, h2: 1."""
    def fill(match):
        unit, n = match.group(1), int(match.group(2))
        if "#" in unit:
            return "\r\n".join(unit.replace("#", str(i)) for i in range(n))
        return unit * n
    return re.sub(r"<<([^<>]+?)\*(\d+)>>", fill, text)


def request_text(spec):
    """The raw bytes (as latin-1 text) that the short forms stand for, or None."""
    text = short_form(spec)
    return None if text is None else filled(text)


def short_form(spec):
    if "raw" in spec:
        return spec["raw"]
    if "send" in spec:
        head = head_bytes(spec["send"])
    elif "get" in spec or "request" in spec:
        line = spec.get("request") or f"GET {spec['get']}"
        host = spec.get("host", "h.test")
        lines = [f"{line} HTTP/1.1"] + ([f"host: {host}"] if host is not None else [])
        lines += spec.get("headers", [])
        if "chunks" in spec:
            lines.append("transfer-encoding: chunked")
        elif "body" in spec:
            lines.append(f"content-length: {len(filled(spec['body']))}")
        head = "\r\n".join(lines) + "\r\n\r\n"
    else:
        return None
    if "chunks" in spec:
        return head + "".join(f"{len(c):x}\r\n{c}\r\n" for c in spec["chunks"]) + "0\r\n\r\n"
    return head + spec.get("body", "")


def steps_of(spec, path):
    if "h2" in spec:
        return [("h2", step) for step in spec["h2"]]
    if "steps" in spec:
        steps = []
        for step in spec["steps"]:
            step = {step: True} if isinstance(step, str) else dict(step)
            text = request_text(step)
            if text is not None:
                step = {"raw": text}
            if len(step) != 1:
                raise CaseError(f"{path}: {title(spec)!r}: a step has one verb: {step}")
            steps += list(step.items())
        return steps
    raw = request_text(spec)
    if raw is None:
        raise CaseError(f"{path}: {title(spec)!r}: nothing to send (get, request, send, raw, steps)")
    steps = [("raw", raw)]
    if spec.get("half_close"):
        steps.append(("half_close", True))
    steps.append(("response", spec.get("responses", 1)))
    return steps


def load(path):
    try:
        return Case(path)
    except (CaseError, KeyError, TypeError, yaml.YAMLError) as error:
        raise CaseError(f"{path}: {error}") from error
