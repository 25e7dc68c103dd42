# SPDX-License-Identifier: Apache-2.0
"""Reads what a process used: CPU time, memory, heap calls, system calls."""

import json
import mmap
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import time

import subjects

PROC = pathlib.Path("/proc")


def family(pid):
    """The process and its descendants."""
    parents = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def cpu_ns(pid):
    """CPU time of all threads of the family, in nanoseconds, as the scheduler counted it."""
    total = 0
    for one in family(pid):
        for task in (PROC / str(one) / "task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except OSError:
                continue
    return total


def thread_cpu_ns(pid):
    """{thread id: CPU time in nanoseconds} of one process."""
    return {int(t.name): int((t / "schedstat").read_text().split()[0]) for t in (PROC / str(pid) / "task").iterdir()}


def memory_kib(pid):
    """RSS, its anonymous part and PSS of the family, in KiB."""
    total = {"rss": 0, "anonymous": 0, "pss": 0}
    for one in family(pid):
        text = (PROC / str(one) / "smaps_rollup").read_text()
        for key in total:
            total[key] += int(re.search(rf"^{key}:\s+(\d+) kB", text, re.M | re.I).group(1))
    return total


class Load:
    """The load generator, stopped before and after the measured part so that counters can be read."""

    def __init__(self, binary, port, flags=(), **options):
        argv = [str(binary), "--port", str(port), "--sync", *flags]
        for name, value in options.items():
            argv += ["--" + name, str(value)]
        self.popen = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=subjects.pin(subjects.LOAD_CORE),
        )

    def wait(self, word):
        line = self.popen.stdout.readline().strip()
        if line != word:
            self.popen.kill()
            raise RuntimeError(f"load generator: {self.popen.communicate()[1].strip() or line or 'ended early'}")

    def go(self):
        self.popen.stdin.write("go\n")
        self.popen.stdin.flush()

    def result(self):
        out, err = self.popen.communicate("go\n")
        if self.popen.returncode != 0:
            raise RuntimeError(f"load generator: {err.strip()}")
        result = json.loads(out.strip().split("\n")[-1])
        if result.get("errors") or result.get("reconnects"):
            raise RuntimeError(f"not every request was answered with 200 on a kept connection: {result}")
        return result


def under_load(load, process, before, after):
    """The load's result, with before() and after() called around the measured part."""
    load.wait("warm")
    before()
    load.go()
    load.wait("done")
    after()
    return load.result()


def cpu_per_request(binary, process, **options):
    """Of all the processes behind the port; of two, each as well."""
    marks = []

    def mark():
        marks.append([cpu_ns(pid) for pid in process.pids])

    result = under_load(Load(binary, process.listen, **options), process, mark, mark)
    each = [(after - before) / 1000 / result["requests"] for before, after in zip(*marks)]
    result["cpu_us"] = sum(each)
    if len(each) == 2:
        result["cpu_a_us"], result["cpu_b_us"] = each
    result["pss_kib"] = sum(memory_kib(pid)["pss"] for pid in process.pids)
    return result


def cpu_per_h2_request(process, requests, path="/", more=()):
    """h2load's requests on 8 connections, 16 at a time on each, over all processes behind the port; opening the
    connections is part of the figure. `more` are more arguments of h2load."""
    argv = [
        subjects.need("h2load"), "-n", str(requests), "-c", "8", "-m", "16", *more, f"http://127.0.0.1:{process.listen}{path}",
    ]
    before = [cpu_ns(pid) for pid in process.pids]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, preexec_fn=subjects.pin(subjects.LOAD_CORE))
    each = [(cpu_ns(pid) - start) / 1000 / requests for pid, start in zip(process.pids, before)]
    if f" {requests} 2xx" not in done.stdout:
        raise RuntimeError(f"h2load: not every request was answered with 200: {(done.stdout + done.stderr).strip()[-400:]}")
    sample = {
        "cpu_us": sum(each), "rps": float(re.search(r"([\d.]+) req/s", done.stdout).group(1)),
        "pss_kib": sum(memory_kib(pid)["pss"] for pid in process.pids),
    }
    if len(each) == 2:
        sample["cpu_a_us"], sample["cpu_b_us"] = each
    return sample


def cpu_per_grpc_call(process, work, calls):
    """Unary calls of h2load, as cpu_per_h2_request."""
    request = work / "grpc-request"
    request.write_bytes(subjects.grpc_frame(64))
    return cpu_per_h2_request(
        process, calls, "/bench.Echo/Call", ["-d", str(request), "-H", "content-type: application/grpc", "-H", "te: trailers"])


def exchange(port, path="/"):
    """A connection on which the first bytes of an answer have come."""
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nhost: app.bench.local\r\n\r\n".encode())
    if not client.recv(4096).startswith(b"HTTP/1.1 200"):
        raise RuntimeError("a connection was not answered with 200")
    return client


def settled_kib(pids):
    """Their RSS, when it does not grow any more."""
    before, now = None, [memory_kib(pid)["rss"] for pid in pids]
    limit = time.monotonic() + 30
    while now != before and time.monotonic() < limit:
        time.sleep(0.5)
        before, now = now, [memory_kib(pid)["rss"] for pid in pids]
    return now


def kept_kib(process, count):
    """Memory for each of `count` connections that had an answer (or the beginning of one) and are kept open, of each
    process behind the port."""
    clients = [exchange(process.listen)]
    try:
        before = settled_kib(process.pids)
        clients += [exchange(process.listen) for _ in range(count)]
        after = settled_kib(process.pids)
    finally:
        for client in clients:
            client.close()
    return [(b - a) / count for a, b in zip(before, after)]


def cpu_per_handshake(binary, process, certificates, count, resume):
    marks = []
    load = Load(binary, process.listen, **client_of(certificates), count=count, flags=["--resume"] if resume else [])
    under_load(load, process, lambda: marks.append(cpu_ns(process.pid)), lambda: marks.append(cpu_ns(process.pid)))
    return (marks[1] - marks[0]) / 1000 / count


def idle_connections_kib(binary, process, certificates, count):
    """Memory that each of `count` open and idle TLS connections takes."""
    marks = []
    load = Load(binary, process.listen, **client_of(certificates), hold=count)

    def mark():
        time.sleep(0.5)  # what is done behind the handshake is over; nothing is asserted on this
        marks.append(memory_kib(process.pid)["rss"])

    under_load(load, process, mark, mark)
    return (marks[1] - marks[0]) / count


def client_of(certificates):
    return {"certificate": certificates / "client.pem", "key": certificates / "client.key", "ca": certificates / "ca.pem"}


class HeapCounters:
    """Counters shared with a process that runs with malloc_count.so preloaded."""

    NAMES = ("malloc", "calloc", "realloc", "free")

    def __init__(self, library, path):
        path.write_bytes(b"\0" * 4096)
        self.env = {"LD_PRELOAD": str(library), "MALLOC_COUNT_FILE": str(path)}
        with open(path, "r+b") as file:
            self.shared = mmap.mmap(file.fileno(), 4096)

    def read(self):
        return dict(zip(self.NAMES, struct.unpack("4Q", self.shared[:32])))


def heap_calls_per_request(binary, process, counters, requests, connections):
    marks = []
    load = Load(binary, process.listen, connections=connections, warmup=1, requests=requests)
    under_load(load, process, lambda: marks.append(counters.read()), lambda: marks.append(counters.read()))
    return {name: (marks[1][name] - marks[0][name]) / requests for name in HeapCounters.NAMES}


def syscalls_per_request(binary, process, work, requests, connections):
    """(calls a request, {name: calls a request}), by strace -c over all threads."""
    table = work / "strace.txt"
    load = Load(binary, process.listen, connections=connections, warmup=0.5, requests=requests)
    load.wait("warm")
    threads = len(list((PROC / str(process.pid) / "task").iterdir()))
    strace = subprocess.Popen(
        [subjects.need("strace"), "-f", "-c", "-o", str(table), "-p", str(process.pid)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )
    wait_traced(process.pid, threads, strace)
    load.go()
    load.wait("done")
    strace.send_signal(signal.SIGINT)
    strace.communicate()
    load.result()
    calls = {}
    for line in table.read_text().split("\n"):
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] = int(fields[3]) / requests
    return sum(calls.values()), calls


def wait_traced(pid, threads, strace):
    """Until strace has hold of every thread."""
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        if strace.poll() is not None:
            raise RuntimeError(f"strace: {strace.stderr.read().strip()}")
        tasks = list((PROC / str(pid) / "task").iterdir())
        traced = [t for t in tasks if not re.search(r"^TracerPid:\s+0$", (t / "status").read_text(), re.M)]
        if len(tasks) >= threads and len(traced) == len(tasks):
            return
        time.sleep(0.01)
    strace.kill()
    raise RuntimeError("strace did not get hold of every thread within 10 s")


def stripped_size(binary, work):
    out = work / "stripped"
    subprocess.run([subjects.need("strip"), "-o", str(out), os.path.realpath(binary)], check=True)
    return out.stat().st_size
