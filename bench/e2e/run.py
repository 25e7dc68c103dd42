#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kobune beside a floor relay, nginx, HAProxy, nghttpx and Envoy, interleaved in one run.

Every figure is taken in this run, on this machine, with one worker pinned to one core; only the
relations between the rows of one run mean something. See bench/README.md.
"""

import argparse
import concurrent.futures
import datetime
import itertools
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import tempfile
import time

import ads
import attacks
import certificates
import measure
import report
import subjects

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILT = ROOT / "build" / "bench"
WARMUP_SECONDS = 0.3
ROUNDS_A_START = 5
STARTS_MAX = 5
IDLE_CONNECTIONS = 10000
SLOW_READERS = 64
SCENARIOS = ["plain", "bursts", "rate", "tcp", "chain", "mesh", "h2", "h2_chain", "grpc", "bulk", "handshake", "idle", "idle_tls", "slow", "attacks", "start", "clusters", "eds", "calls", "size"]


def options():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round, about a minute: a smoke test, no figures to quote")
    parser.add_argument("--rounds", type=int, default=15, help="times each subject is measured in each scenario (default 15)")
    parser.add_argument("--seconds", type=float, default=1, help="measured time of one load (default 1)")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help=f"some of {','.join(SCENARIOS)}")
    parser.add_argument("--subjects", default="floor,nginx,haproxy,nghttpx,envoy,kobune", help="some of the default")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results", help="folder for the results")
    parser.add_argument("--baseline", action="store_true", help="also keep the results as baseline.*")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed or was not measured")
    parser.add_argument("--kobune", default="", help=argparse.SUPPRESS)
    parser.add_argument("--envoy", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    chosen.scenarios = chosen.scenarios.split(",")
    chosen.subjects = chosen.subjects.split(",")
    for name in chosen.scenarios:
        if name not in SCENARIOS:
            parser.error(f"no scenario '{name}'; there are {', '.join(SCENARIOS)}")
    if chosen.quick:
        chosen.rounds = 1
    return chosen


def say(text):
    print(f"   {text}", flush=True)


def compile_tools():
    """The floor relay, the load generator and the heap counter."""
    BUILT.mkdir(parents=True, exist_ok=True)
    here = pathlib.Path(__file__).resolve().parent
    made = {}
    for name, out, flags in (
        ("floor.c", "floor", []), ("load.c", "load", []), ("handshake.c", "handshake", ["-lssl", "-lcrypto"]),
        ("attack.c", "attack", []),
        ("malloc_count.c", "malloc_count.so", ["-shared", "-fPIC"]),
    ):
        target = BUILT / out
        made[target.stem] = target
        if not target.exists() or target.stat().st_mtime < (here / name).stat().st_mtime:
            subprocess.run(
                ["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-o", target, here / name, *flags],
                check=True,
            )
    return made


class Bench:
    def __init__(self, chosen, tools, work):
        self.chosen, self.tools, self.work = chosen, tools, work
        self.results = {"scenarios": {}, "skipped": {}}
        known = [
            subjects.Floor(tools["floor"]), subjects.Nginx(), subjects.Haproxy(), subjects.Nghttpx(),
            subjects.Envoy("envoy", chosen.envoy, ["--disable-hot-restart"]), subjects.Envoy("kobune", chosen.kobune, istio=True),
        ]
        unknown = set(chosen.subjects) - {s.name for s in known}
        if unknown:
            sys.exit(f"bench: no subject named {', '.join(sorted(unknown))}")
        self.subjects = []
        for subject in known:
            if subject.name not in chosen.subjects:
                continue
            try:
                subject.check()
                self.subjects.append(subject)
            except subjects.Skip as reason:
                self.skip(subject.name, "all", str(reason))
        self.results["versions"] = {s.name: s.version() for s in self.subjects}

    def skip(self, name, scenario, reason):
        reason = reason.replace(f"{self.work}/", "")
        self.results["skipped"].setdefault(name, {})[scenario] = reason
        say(f"skipped: {name} in {scenario}: {reason}")

    def keep(self, scenario, name, sample):
        self.results["scenarios"].setdefault(scenario, {}).setdefault(name, []).append(sample)

    def run(self):
        self.backend = subjects.Backend(self.work)
        try:
            for scenario in self.chosen.scenarios:
                print(f"== bench: {scenario}", flush=True)
                getattr(self, "run_" + scenario)()
        finally:
            self.backend.end()
        return self.results

    def each_round(self, scenario, who, one, rounds=None, out=None):
        """one(subject) for A, B, C, A, B, C...; a subject that fails is named and left out from then on."""
        out = set() if out is None else out
        for _ in range(rounds or self.chosen.rounds):
            for subject in who:
                if subject.name in out:
                    continue
                try:
                    sample = one(subject)
                except (subjects.Skip, RuntimeError) as reason:
                    out.add(subject.name)
                    self.skip(subject.name, scenario, " ".join(str(reason).split()))
                    continue
                self.keep(scenario, subject.name, sample)
                number = len(self.results["scenarios"][scenario][subject.name])
                say(f"round {number}: {subject.name}: {brief(sample)}")

    def load_scenario(self, scenario, kind, who=None, **load):
        """All subjects stand there at once, and short loads go round them: what else the machine does in a second weighs on
        all alike. Now and then all are started anew, because no two starts place their memory alike."""
        warmup = min(WARMUP_SECONDS, self.chosen.seconds)
        def measured(process):
            return measure.cpu_per_request(self.tools["load"], process, warmup=warmup, seconds=self.chosen.seconds, **load)

        self.standing(scenario, kind, who or self.who_is_plain(), measured)

    def standing(self, scenario, kind, who, measured, rounds=None):
        """measured(process) of each subject in turn, while all of them run."""
        running = {}

        def one(subject):
            if subject.name not in running:
                running[subject.name] = self.start(subject, kind)
            return measured(running[subject.name])

        left = rounds or self.chosen.rounds
        out = set()
        while left > 0:
            try:
                self.each_round(scenario, who, one, min(left, ROUNDS_A_START), out)
            finally:
                for process in running.values():
                    process.end()
                running.clear()
            left -= ROUNDS_A_START

    def start(self, subject, kind):
        if kind in ("tls", "mesh"):
            return subjects.Chain(subject, kind, self.work, self.backend.port)
        if kind == "grpc":
            return subjects.Chain(subject, kind, self.work, self.backend.port_h2)
        if kind == "attacks":
            tls = subjects.free_port()
            process = subject.start(kind, self.work, self.backend.port, listen_tls=tls)
            process.listen_tls = tls
            return process
        return subject.start(kind, self.work, self.backend.port_h2 if kind == "h2" else self.backend.port)

    def who_is_plain(self):
        return [s for s in self.subjects if s.name != "nghttpx"]

    def who_speaks_tls(self):
        """All but the floor relay; their certificates are made when they are first wanted."""
        if not (self.work / "certificates").exists():
            certificates.make(self.work / "certificates")
        return [s for s in self.who_is_plain() if s.name != "floor"]

    def run_plain(self):
        self.load_scenario("plain", "http", connections=32)

    def run_bursts(self):
        self.load_scenario("bursts", "http", connections=16, rate=2000, burst=16)

    def run_rate(self):
        self.load_scenario("rate", "http", connections=16, rate=2000)

    def run_tcp(self):
        self.load_scenario("tcp", "tcp", connections=32)

    def run_chain(self):
        self.load_scenario("chain", "tls", self.who_speaks_tls(), connections=32)

    def run_mesh(self):
        self.load_scenario("mesh", "mesh", [s for s in self.who_speaks_tls() if s.has_admin], connections=32)

    def run_h2(self):
        """h2load comes for the requests, not for a time: so many as take about the time of the other loads. The backend
        shares the proxy's core: see README.md."""
        requests = int(20000 * self.chosen.seconds)
        who = [s for s in self.subjects if s.name not in ("floor", "nginx")]
        self.backend.move(subjects.PROXY_CORE)
        try:
            self.standing("h2", "h2", who, lambda process: measure.cpu_per_h2_request(process, requests))
        finally:
            self.backend.move(subjects.LOAD_CORE)

    def who_speaks_h2_over_tls(self):
        return [s for s in self.who_speaks_tls() if s.name in ("haproxy", "envoy", "kobune")]

    def run_h2_chain(self):
        requests = int(10000 * self.chosen.seconds)
        self.standing(
            "h2_chain", "grpc", self.who_speaks_h2_over_tls(), lambda process: measure.cpu_per_h2_request(process, requests))

    def run_grpc(self):
        calls = int(10000 * self.chosen.seconds)
        self.standing("grpc", "grpc", self.who_speaks_h2_over_tls(), lambda process: measure.cpu_per_grpc_call(process, self.work, calls))

    def run_bulk(self):
        """The figure is for a body of 1 MiB."""
        self.load_scenario("bulk", "tls", self.who_speaks_tls(), connections=8, path="/large")

    def run_handshake(self):
        count = 200 if self.chosen.quick else 1000

        def one(subject):
            process = self.start(subject, "tls-in")
            try:
                full, resumed = (
                    measure.cpu_per_handshake(self.tools["handshake"], process, self.work / "certificates", count, resume)
                    for resume in (False, True)
                )
                return {"full_us": full, "resumed_us": resumed}
            finally:
                process.end()

        self.each_round("handshake", self.who_speaks_tls(), one, min(self.chosen.rounds, STARTS_MAX))

    def run_idle(self):
        count = 1000 if self.chosen.quick else IDLE_CONNECTIONS

        def one(subject):
            process = subject.start("http", self.work, self.backend.port, connections=2 * count)
            try:
                return {"idle_plain_kib": measure.kept_kib(process, count)[0]}
            finally:
                process.end()

        self.each_round("idle", [s for s in self.who_is_plain() if s.name != "floor"], one, rounds=1)

    def run_slow(self):
        """Clients that take the first bytes of an answer without end, and no more."""

        def one(subject):
            endless = subjects.Endless()
            try:
                process = subjects.Chain(subject, "tls", self.work, endless.port, answers=False)
                try:
                    a, b = measure.kept_kib(process, SLOW_READERS)
                    return {"slow_a_kib": a, "slow_b_kib": b}
                finally:
                    process.end()
            finally:
                endless.end()

        self.each_round("slow", self.who_speaks_tls(), one, rounds=1)

    def run_attacks(self):
        """Honest clients with and without an attacker, the one window right behind the other. The backend shares the proxy's
        core, so that this core is what bounds them."""
        who = [s for s in self.who_speaks_tls() if s.name in ("haproxy", "envoy", "kobune")]
        self.backend.move(subjects.PROXY_CORE)
        try:
            for name, attack in attacks.ATTACKS.items():
                rounds = itertools.count()

                def one(process, attack=attack, rounds=rounds):
                    return self.attacked(process, attack, next(rounds) // len(who) % 2 == 0)

                self.standing(f"attacks: {name}", "attacks", who, one, min(self.chosen.rounds, STARTS_MAX))
        finally:
            self.backend.move(subjects.LOAD_CORE)

    def attacked(self, process, attack, calm_first):
        """Rate and p99 of honest clients under attack, over those without."""
        seconds = self.chosen.seconds / 2
        found = {}
        for calm in (calm_first, not calm_first):
            attacker = None if calm else attack.begin(self.tools, process, self.work)
            try:
                found[calm] = measure.cpu_per_request(self.tools["load"], process, warmup=seconds / 2, seconds=seconds, connections=32)
            finally:
                told = attacker.end() if attacker else None
            if told:
                sent = attack.rate_of(told)
        return {
            "rate_kept": found[False]["rps"] / found[True]["rps"], "p99_times": found[False]["p99_us"] / found[True]["p99_us"],
            "attack_rate": sent, "rps": found[True]["rps"], "p99_us": found[True]["p99_us"], "p99_attacked_us": found[False]["p99_us"],
        }

    def run_idle_tls(self):
        def one(subject):
            process = self.start(subject, "tls-in")
            try:
                each = measure.idle_connections_kib(self.tools["handshake"], process, self.work / "certificates", 1000)
                return {"idle_kib": each}
            finally:
                process.end()

        self.each_round("idle_tls", self.who_speaks_tls(), one, rounds=1)

    def started(self, subject, **how):
        process = subject.start("http", self.work, self.backend.port, workers=2, core=None, probe=False, **how)
        try:
            time.sleep(0.5)  # what start-up has deferred is done; nothing is asserted on this
            return {"ready_ms": process.ready_ms, **{k + "_kib": v for k, v in measure.memory_kib(process.pid).items()}}
        finally:
            process.end()

    def run_start(self):
        self.each_round("start", self.who_is_plain(), self.started, min(self.chosen.rounds, STARTS_MAX))

    def run_clusters(self):
        who = [s for s in self.subjects if s.has_admin]
        for count in (1000, 5000):
            many = subjects.many_clusters(count, self.backend.port)
            self.each_round(f"clusters_{count}", who, lambda s, many=many: self.started(s, more_clusters=many), rounds=1)

    def run_eds(self):
        """Clusters and endpoints over ADS: memory with none, with many, with fewer endpoints; then one change at a time."""
        most = 500 if self.chosen.quick else 5000
        who = [s for s in self.subjects if s.has_admin]

        def one(subject):
            sample = {}
            for count, endpoints in ((0, 0), (most // 5, 10), (most, 1), (most, 10)):
                control = ads.Control()
                try:
                    process = subject.start("ads", self.work, self.backend.port, workers=2, core=None, xds=control.port)
                    try:
                        control.tell("fill", count, endpoints)
                        time.sleep(1)  # what is done behind the answer is over; nothing is asserted on this
                        sample[f"rss_{count}_{endpoints}_kib"] = measure.memory_kib(process.pid)["rss"]
                        if (count, endpoints) == (most, 10):
                            sample.update(self.eds_changes(subject, control, process, most))
                    finally:
                        process.end()
                finally:
                    control.end()
            base, few, many = (sample[f"rss_{n}_kib"] for n in ("0_0", f"{most}_1", f"{most}_10"))
            sample["eds_cluster_kib"] = (many - base) / most - (many - few) / (9 * most) * 10
            sample["endpoint_bytes"] = (many - few) / (9 * most) * 1024
            return sample

        self.each_round("eds", who, one, rounds=1)

    def eds_changes(self, subject, control, process, count):
        """One cluster and its endpoints change: CPU time of the main thread and of the busiest worker for each, and latency
        under load with ten changes a second."""

        changes = 20
        before = measure.thread_cpu_ns(process.pid)
        for n in range(changes):
            control.tell("change", n * count // changes, 7)
        time.sleep(0.2)
        spent = {tid: ns - before.get(tid, 0) for tid, ns in measure.thread_cpu_ns(process.pid).items()}
        main = spent.pop(process.pid)
        quiet = measure.cpu_per_request(self.tools["load"], process, warmup=0.3, seconds=5, connections=16, rate=2000)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            under = pool.submit(
                measure.cpu_per_request, self.tools["load"], process, warmup=0.3, seconds=5, connections=16, rate=2000
            )
            timeout_s = 8
            while not under.done():
                control.tell("change", timeout_s * 31 % count, timeout_s)
                timeout_s += 1
                time.sleep(0.1)
        return {
            "change_main_us": main / 1000 / changes, "change_worker_us": max(spent.values()) / 1000 / changes,
            "p99_us": quiet["p99_us"], "p99_changing_us": under.result()["p99_us"],
        }

    def run_calls(self):
        who = [s for s in self.subjects if s.name in ("kobune", "envoy")]
        requests = 5000 if self.chosen.quick else 50000

        def heap(subject):
            counters = measure.HeapCounters(self.tools["malloc_count"], self.work / "heap")
            process = subject.start("http", self.work, self.backend.port, env=counters.env)
            try:
                return measure.heap_calls_per_request(self.tools["load"], process, counters, requests, 32)
            finally:
                process.end()

        def calls(subject):
            sample = {}
            for connections in (32, 1):
                process = subject.start("http", self.work, self.backend.port)
                try:
                    total, names = measure.syscalls_per_request(
                        self.tools["load"], process, self.work, 2000 if self.chosen.quick else 10000, connections
                    )
                finally:
                    process.end()
                sample[f"connections_{connections}"] = total
                sample[f"names_{connections}"] = names
            return sample

        # Envoy carries its own allocator, which a preloaded counter does not see.
        self.each_round("heap", [s for s in who if s.name == "kobune"], heap, rounds=1)
        self.each_round("syscalls", who, calls, rounds=1)

    def run_size(self):
        for subject in self.subjects:
            if subject.name in ("kobune", "envoy"):
                self.each_round(
                    "size", [subject], lambda s: {"stripped_bytes": measure.stripped_size(s.binary, self.work)}, rounds=1
                )


def brief(sample):
    words = {
        "cpu_us": "{:.2f} us CPU a request", "rps": "{:.0f} requests/s", "p50_us": "p50 {} us", "p99_us": "p99 {} us",
        "ready_ms": "ready {:.0f} ms", "rss_kib": "RSS {} KiB", "anonymous_kib": "anonymous {} KiB", "pss_kib": "PSS {} KiB",
        "malloc": "malloc {:.4f}", "calloc": "calloc {:.4f}", "realloc": "realloc {:.4f}", "free": "free {:.4f} a request",
        "connections_32": "{:.2f} system calls a request at 32 connections", "connections_1": "{:.2f} at one",
        "stripped_bytes": "{} bytes", "full_us": "{:.0f} us a full handshake", "resumed_us": "{:.0f} us a resumed one",
        "idle_kib": "{:.1f} KiB an idle connection", "idle_plain_kib": "{:.2f} KiB an idle connection",
        "slow_a_kib": "{:.0f} KiB a slow reader", "slow_b_kib": "{:.0f} at the hop behind", "eds_cluster_kib": "{:.2f} KiB an EDS cluster",
        "endpoint_bytes": "{:.0f} bytes an endpoint", "change_main_us": "a change: {:.0f} us of the main thread",
        "rate_kept": "{:.2f} of the rate kept", "p99_times": "p99 {:.2f} times", "attack_rate": "attacker at {:.0f}",
        "change_worker_us": "{:.0f} us of a worker", "p99_changing_us": "p99 {} us with changes",
    }
    return ", ".join(form.format(sample[key]) for key, form in words.items() if key in sample)


def git(*arguments):
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def machine():
    model = ""
    for line in pathlib.Path("/proc/cpuinfo").read_text().split("\n"):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cpu": model or platform.machine(), "cores": os.cpu_count(), "kernel": platform.release()}


def main():
    chosen = options()
    print("== bench: " + ("quick, " if chosen.quick else "") + f"{chosen.rounds} rounds of {chosen.seconds:g} s", flush=True)
    tools = compile_tools()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory(prefix="kobune-bench-") as folder:
        results = Bench(chosen, tools, pathlib.Path(folder)).run()
    now = datetime.datetime.now(datetime.timezone.utc)
    results.update(
        date=now.strftime("%Y-%m-%dT%H:%MZ"), commit=git("rev-parse", "--short", "HEAD") or "none",
        changed=bool(git("status", "--porcelain", "-uno")), machine=machine(), rounds=chosen.rounds, seconds=chosen.seconds,
        quick=chosen.quick,
    )
    chosen.out.mkdir(parents=True, exist_ok=True)
    stems = [f"{now:%Y%m%d-%H%M}-{results['commit']}"] + (["baseline"] if chosen.baseline else [])
    for stem in stems:
        (chosen.out / f"{stem}.json").write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        (chosen.out / f"{stem}.md").write_text(report.markdown(results))
        (chosen.out / f"{stem}.svg").write_text(report.svg(results))
    print(report.markdown(results))
    print(f"kept: {chosen.out / stems[0]}.json, .md, .svg")
    missed = [g for g in report.goals(results) if g["verdict"] != "reached"]
    return 1 if chosen.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
