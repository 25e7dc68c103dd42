# SPDX-License-Identifier: Apache-2.0
"""Finds the exchange whose counters differ: python -m tests.differential.counters CASE ...

Runs the case live on the real Envoy and on the subject, and prints for every exchange the counters
that it moved differently.
"""

import concurrent.futures
import sys

from tests.harness.proxy import envoy_path, subject_path

from . import casefile, runner


def trace(case, binary):
    run = runner.Run(case, binary, {})
    run.trace = []
    result = run.run()
    return run.trace, result.get("exit")


def moves(steps):
    """Per exchange, how much each counter moved."""
    before = {}
    out = {}
    for name, stats in steps:
        out[name] = {k: stats.get(k, 0) - before.get(k, 0) for k in {*stats, *before}
                     if stats.get(k, 0) != before.get(k, 0)}
        before = stats
    return out


def main():
    for name in sys.argv[1:]:
        case = casefile.load(casefile.CASES / f"{name}.yaml")
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            (theirs, _), (ours, ended) = pool.map(lambda b: trace(case, b),
                                                  (envoy_path(), subject_path()))
        theirs, ours = moves(theirs), moves(ours)
        for exchange, moved in theirs.items():
            got = ours.get(exchange, {})
            lines = [f"    {k}: Envoy {moved.get(k, 0):+d}, subject {got.get(k, 0):+d}"
                     for k in sorted({*moved, *got}) if moved.get(k, 0) != got.get(k, 0)]
            if lines:
                print(f"{name}: {exchange}", *lines, sep="\n")
        if ended:
            print(ended[:500])


if __name__ == "__main__":
    main()
