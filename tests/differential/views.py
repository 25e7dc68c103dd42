# SPDX-License-Identifier: Apache-2.0
"""Views of an answer whose body cannot be compared byte for byte: statistics, dumps, help.

text      the body line by line; text:N only its first N lines
head      the head alone
json      the parsed body, keys sorted, values that change between runs put out of sight
shape     as json, with the type of each value in its place
clusters  the text of /clusters, its clusters in order of name (Envoy has none)
names     the names in a /stats text, without values
families  a Prometheus text: types, names and labels in order, without values and buckets
"""

import json
import re

from . import normal

# values that differ between two runs of the same binary
MOVING = re.compile(r"^(uptime_.*|last_updated|version|version_info|extensions|hot_restart_version"
                    r"|user_agent_.*|build\.type|revision\.(sha|status)|ssl\.version"
                    r"|restart_epoch|base_id|id|cpuset_threads)$")
UNORDERED = {"cluster_statuses", "static_clusters", "static_endpoint_configs"}
SHOWN_IDS = {"node", "sample"}


def apply(view, raw, names):
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = normal.lines_of(head, names)
    view, _, arg = view.partition(":")
    plain = body.decode("utf-8", "replace")
    text = normal.text_of(plain, names)
    make = {"head": lambda: [], "text": lambda: text_lines(text, arg),
            "clusters": lambda: sorted(text.splitlines(), key=lambda line: line.split("::")[0]),
            "names": lambda: stat_names(text),
            "json": lambda: json_lines(plain, names, sight),
            "shape": lambda: json_lines(plain, names, shape),
            "families": lambda: families(text)}
    if view not in make:
        raise ValueError(f"unknown view {view!r}; known: {sorted(make)}")
    return lines + [""] + make[view]()


def text_lines(text, count):
    lines = [normal.shorten(line) for line in text.split("\n")]
    return lines[:int(count)] if count else lines


def stat_names(text):
    return [line.split(": ")[0] for line in text.splitlines()]


def json_lines(text, names, look):
    try:
        body = json.loads(text)
    except ValueError as error:
        return [f"no JSON: {error}", *text.splitlines()]
    lines = json.dumps(look(body), indent=1, sort_keys=True).split("\n")
    return [normal.text_of(line, names) for line in lines]


def sight(node, key=""):
    """The same JSON with moving values replaced by <key>."""
    if isinstance(node, dict):
        return {k: sight(v, k) for k, v in node.items()}
    if isinstance(node, list) and not MOVING.match(key):
        seen = [sight(v) for v in node]
        return sorted(seen, key=json.dumps) if key in UNORDERED else seen
    if MOVING.match(key) and not (isinstance(node, str) and node in SHOWN_IDS):
        return f"<{key}>"
    if isinstance(node, str):
        return re.sub(r"/[^ \"]*/kb-[^/ \"]+", "{dir}", node)
    return node


def shape(node, key=""):
    if isinstance(node, dict):
        return {k: shape(v, k) for k, v in node.items()}
    if isinstance(node, list):
        return [shape(v) for v in node[:1]]
    return type(node).__name__


def families(text):
    out = []
    for line in text.splitlines():
        line = re.sub(r"(_bucket\{.*)le=\"[^\"]*\"", r"\1le=...", line)
        line = re.sub(r"\} [-0-9.e+naif]+$", "}", line)
        if not out or out[-1] != line:
            out.append(line)
    return out
