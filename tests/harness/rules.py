# SPDX-License-Identifier: Apache-2.0
"""iptables rules as tests read and write them.

A table of rules is written as one would read it to somebody, each chain with its rules in the order
in which they are asked:

    nat OUTPUT
        -j ISTIO_OUTPUT
    nat ISTIO_OUTPUT
        -o lo -s 127.0.0.6/32 -j RETURN
"""

import os
import subprocess

import pytest

from .namespaces import iptables_path, mounts_missing
from .proxy import sanitizer_env


def written(text):
    """{(table, chain): [rule, ...]} of such a text."""
    chains, rules = {}, None
    for line in text.splitlines():
        if line.startswith(" "):
            rules.append(line.strip())
        elif line.strip():
            table, chain = line.split()
            rules = chains.setdefault((table, chain), [])
    return chains


def restored(lines):
    """The same of lines for iptables-restore: what a chain has when all of them are done."""
    chains, table = {}, None
    for line in lines:
        words = line.split()
        if line.startswith("*"):
            table = line[1:]
        elif words[0] == "-N":
            assert (table, words[1]) not in chains, f"{words[1]} is made twice"
            chains[table, words[1]] = []
        elif words[0] == "-A":
            chains.setdefault((table, words[1]), []).append(" ".join(words[2:]))
        elif words[0] == "-I":
            chains.setdefault((table, words[1]), []).insert(int(words[2]) - 1, " ".join(words[3:]))
        else:
            assert line == "COMMIT", line
    return chains


def families(output):
    """What a dry run printed: {"iptables-restore": lines, "ip6tables-restore": lines, "ip": commands}."""
    found, lines = {"ip": []}, None
    for line in output.splitlines():
        if line.startswith("# ip "):
            found["ip"].append(line[2:])
        elif line.startswith("# "):
            lines = found.setdefault(line.split()[1], [])
        else:
            lines.append(line)
    return found


def run_tool(pod, *flags, resolv=None, before=(), **variables):
    """kobune-iptables in a pod to its end. `resolv`: a file that stands in for /etc/resolv.conf;
    `before`: a command that runs it."""
    command = [*before, str(iptables_path()), *flags]
    if (resolv or "unshare" in before) and mounts_missing():
        pytest.skip(mounts_missing())
    if resolv:
        command = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(resolv), *command]
    environment = {name: value for name, value in sanitizer_env().items() if not name.startswith("ISTIO_")}
    with pod:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
                              env={**environment, **variables})


def dry_run(pod, *flags, **more):
    """The rules that it would make, by family."""
    done = run_tool(pod, "--dry-run", "--log_output_level", "warn", *flags, **more)
    assert done.returncode == 0, done.stderr
    return families(done.stdout)


def saved(pod, six=False):
    """iptables-save without its comments and counters, and without tables that have nothing."""
    text = pod.run("ip6tables-save" if six else "iptables-save")
    tables, table = [], []
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        table.append(line.split(" [")[0])
        if line == "COMMIT":
            if any(part.startswith(("-A", ":ISTIO")) for part in table):
                tables.append("\n".join(table))
            table = []
    return "\n".join(sorted(tables))


def restore(pod, lines, six=False):
    """Hands the lines to iptables-restore as one would by hand."""
    with pod:
        subprocess.run(["ip6tables-restore" if six else "iptables-restore", "--noflush"], input="\n".join(lines) + "\n",
                       text=True, check=True, env=dict(os.environ))
