# SPDX-License-Identifier: Apache-2.0
"""What collectors got (tests/harness/collectors.py), as it may be compared."""

import re

from google.protobuf import json_format

from . import normal

TIME_KEYS = {"start_time", "time_unix_nano", "observed_time_unix_nano"}
DURATION_KEY = re.compile(r"^(time_to_.*|duration)$")
UNSHOWN = {"tls_session_id"}  # the library's own: see tls-log-commands in docs/differences.md
STATSD = re.compile(r"^(?P<name>.*?):(?P<value>-?[0-9.e+-]+)\|(?P<kind>c|g|ms|h)"
                    r"(\|@[0-9.]+)?(\|#(?P<tags>.*))?$")


def view(collector, names, own_address=None):
    """The messages of one collector: for logs in their order, for statistics by name."""
    with collector.lock:
        got = list(collector.got)
    if collector.mode in ("als", "http"):
        return [message(one, names, own_address) for one in got]
    return statistics(got, names)


def message(one, names, own_address):
    return walk(json_format.MessageToDict(one, preserving_proto_field_name=True), "", names,
                own_address)


def walk(node, key, names, own_address):
    if key == "node":
        return {k: v for k, v in node.items() if k in ("id", "cluster")}
    if key in TIME_KEYS:
        return "<time>"
    if DURATION_KEY.match(key):
        return "<duration>"
    if isinstance(node, dict):
        return {k: walk(v, k, names, own_address) for k, v in sorted(node.items())
                if k not in UNSHOWN}
    if key == "attributes":  # in no order: tags come out of a table
        node = sorted(node, key=lambda one: one["key"])
    if isinstance(node, list):
        return [walk(v, key, names, own_address) for v in node]
    if isinstance(node, str):
        return normal.shorten(normal.text_of(node, names, own_address))
    if key == "port_value":
        return names.put(str(node))
    return node


def statistics(datagrams, names):
    """Counters as their sums, gauges and timers by name alone: when they are sent, and how often,
    is another matter each time. A line that is none of these stays as it is."""
    out = {}
    for line in b"\n".join(datagrams).decode("latin-1").split("\n"):
        found = STATSD.match(line)
        if not found:
            out[line] = "?"
            continue
        if found["name"].partition(";")[0].endswith("_bytes_buffered"):
            continue  # a matter of how writes fall together
        kind, value = found["kind"], float(found["value"])
        name = names.put(" ".join(filter(None, [found["name"], found["tags"], kind])))
        out[name] = out.get(name, 0) + value if kind == "c" else "there"
    return dict(sorted(out.items()))
