# SPDX-License-Identifier: Apache-2.0
"""Recorded answers of the real Envoy, and the comparison with them."""

import difflib
import json
import re

from tests.harness.proxy import ROOT

DIFFERENCES = ROOT / "docs" / "differences.md"


def load(case):
    """The recorded result if it still belongs to the case, else None."""
    try:
        kept = json.loads(case.golden_file.read_text())
    except FileNotFoundError:
        return None
    return kept["result"] if kept.get("case") == case.digest() else None


def save(case, result):
    kept = {"case": case.digest(), "recorded_with": "Envoy 1.40.0", "result": result}
    case.golden_file.write_text(written(kept) + "\n")


def written(node, depth=0):
    """JSON with one line for each header line, and one for each small object."""
    pad = " " * (depth + 1)
    short = json.dumps(node, ensure_ascii=True)
    if not isinstance(node, (dict, list)) or not node or len(short) < 72 - depth:
        return short
    if isinstance(node, dict):
        parts = [f"{json.dumps(k)}: {written(v, depth + 1)}" for k, v in node.items()]
        if all(not isinstance(v, (dict, list)) for v in node.values()) and depth > 3:
            return wrapped(parts, pad)
        opening, closing = "{}"
    else:
        parts = [written(v, depth + 1) for v in node]
        opening, closing = "[]"
    return f"{opening}\n{pad}" + f",\n{pad}".join(parts) + f"\n{' ' * depth}{closing}"


def wrapped(parts, pad):
    """The members of a flat object, as many on a line as fit."""
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part) > 110:
            lines.append("")
        lines[-1] += (", " if lines[-1] else "") + part
    return "{" + f",\n{pad}".join(lines) + "}"


def render(node, depth=0):
    """A result as readable lines, for a diff that a person can follow."""
    pad = "  " * depth
    if isinstance(node, dict):
        out = []
        for key, value in node.items():
            if isinstance(value, (dict, list)):
                out += [f"{pad}{key}:"] + render(value, depth + 1)
            else:
                out.append(f"{pad}{key}: {shown(value)}")
        return out
    if isinstance(node, list):
        out = []
        for n, value in enumerate(node):
            if isinstance(value, (dict, list)):
                out += [f"{pad}- {n + 1}"] + render(value, depth + 1)
            else:
                out.append(f"{pad}| {shown(value)}")
        return out
    return [pad + shown(node)]


def shown(value):
    if isinstance(value, str):
        return json.dumps(value)[1:-1].replace('\\"', '"')
    return json.dumps(value)


def diff(expected, got):
    """A unified diff, or an empty string when both are the same."""
    if expected == got and json.dumps(expected, sort_keys=True) == json.dumps(got, sort_keys=True):
        return ""  # 100000 and 1e5 are equal to Python alone
    lines = difflib.unified_diff(render(expected), render(got), "Envoy", "subject", lineterm="",
                                 n=8)
    return "\n".join(lines) or f"types differ: {expected!r} / {got!r}"


def named_differences():
    """The names that docs/differences.md allows: its `### name` headings."""
    try:
        return set(re.findall(r"^### ([a-z0-9-]+)\s*$", DIFFERENCES.read_text(), re.M))
    except FileNotFoundError:
        return set()


def judge(expected, got, allow):
    """The text of a failure, or an empty string.

    `allow` are names of docs/differences.md: then a difference has to exist, and each name has
    to be an entry there. A name with `?` behind it is for what depends on how reads and writes
    fall together: the difference may be there or not.
    """
    unknown = [name for name in allow if name.rstrip("?") not in named_differences()]
    if unknown:
        return f"allow: {unknown} is no `### name` heading in docs/differences.md"
    text = diff(expected, got)
    if any(not name.endswith("?") for name in allow) and not text:
        return f"the answers are equal: the allowance {allow} is no longer needed, take it away"
    return "" if allow else text


def judge_stats(expected, got, allow_stats):
    """As judge(), for counters; allow_stats is {difference name: regex of counter names}."""
    for name, pattern in (allow_stats or {}).items():
        if name.rstrip("?") not in named_differences():
            return f"allow_stats: {name} is no `### name` heading in docs/differences.md"
        drop = re.compile(pattern)
        ours = {k: v for k, v in got.items() if drop.search(k)}
        theirs = {k: v for k, v in expected.items() if drop.search(k)}
        if ours == theirs and not name.endswith("?"):
            return f"counters {pattern!r} are equal: the allowance {name} is no longer needed"
        got = {k: v for k, v in got.items() if k not in ours}
        expected = {k: v for k, v in expected.items() if k not in theirs}
    return diff(expected, got)
