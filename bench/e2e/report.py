# SPDX-License-Identifier: Apache-2.0
"""Makes the tables and the chart of one run, and holds its figures against the goals."""

import html
import statistics

import attacks

ORDER = ["floor", "kobune", "haproxy", "nginx", "nghttpx", "envoy"]
TITLES = {
    "plain": "HTTP/1.1 keep-alive, 32 connections, closed loop",
    "bursts": "HTTP/1.1 keep-alive, 2,000 requests/s, 16 connections at a time",
    "rate": "HTTP/1.1 keep-alive, 2,000 requests/s, evenly spaced over 16 connections",
    "tcp": "TCP proxy (the same requests), 32 connections, closed loop",
    "chain": "two sidecars, mutual TLS between them, 32 connections, closed loop",
    "mesh": "the same with a mesh's filters and access logs",
    "h2": "HTTP/2 in clear text, 8 connections with 16 streams, closed loop",
    "h2_chain": "HTTP/2 over two sidecars with mutual TLS, 8 connections with 16 streams",
    "grpc": "unary gRPC calls over two sidecars, HTTP/2 over mutual TLS, 8 connections with 16 streams",
    "bulk": "bodies of 1 MiB over two sidecars with mutual TLS, 8 connections, closed loop",
    "start": "at start: one listener, one cluster, two workers",
    "clusters_1000": "with 1,000 static clusters",
    "clusters_5000": "with 5,000 static clusters",
}
LOADS = ["plain", "bursts", "rate", "tcp", "chain", "mesh", "h2", "h2_chain", "grpc", "bulk"]
MIB = 1024
ZERO_HEAP_CALLS = 0.001  # a request; what a timer does once a second is not a request's


def samples(results, scenario, name, key):
    return [s[key] for s in results["scenarios"].get(scenario, {}).get(name, []) if key in s]


def median(results, scenario, name, key):
    found = samples(results, scenario, name, key)
    return statistics.median(found) if found else None


def spread(results, scenario, name, key):
    """Half the range over the median, in percent: how far the rounds lie apart."""
    found = samples(results, scenario, name, key)
    return (max(found) - min(found)) / 2 / statistics.median(found) * 100 if len(found) > 1 else None


def ratio(results, scenario, name, other, key):
    """The median of the rounds' ratios: the two were measured right after each other in each, so what the machine did
    meanwhile weighs on both."""
    mine, theirs = samples(results, scenario, name, key), samples(results, scenario, other, key)
    return statistics.median(a / b for a, b in zip(mine, theirs)) if mine and len(mine) == len(theirs) else None


def growth_kib(results, count, name):
    """RSS growth for each of `count` clusters over the start with one."""
    big, small = median(results, f"clusters_{count}", name, "rss_kib"), median(results, "start", name, "rss_kib")
    return (big - small) / count if big is not None and small is not None else None


def goals(results):
    """What must be reached, what was, and the verdict."""

    def goal(what, most, value, form="{:.2f}"):
        verdict = "not measured" if value is None else "reached" if value <= most else "MISSED"
        return {"what": what, "most": form.format(most), "value": "-" if value is None else form.format(value), "verdict": verdict}

    def goal_least(what, least, value):
        verdict = "not measured" if value is None else "reached" if value >= least else "MISSED"
        return {"what": what, "most": f">= {least:.2f}", "value": "-" if value is None else f"{value:.2f}", "verdict": verdict}

    def mib(value):
        return None if value is None else value / MIB

    rows = []
    for scenario, words, haproxy, envoy in (
        ("plain", "32 connections", 0.92, 0.36), ("bursts", "2,000 requests/s", 0.92, 0.36),
        ("chain", "two sidecars with mutual TLS", 0.88, 0.32),
    ):
        rows.append(goal(f"CPU a request, {words}, x HAProxy", haproxy, ratio(results, scenario, "kobune", "haproxy", "cpu_us")))
        rows.append(goal(f"CPU a request, {words}, x Envoy", envoy, ratio(results, scenario, "kobune", "envoy", "cpu_us")))
    rows.append(goal("CPU a request, the same with a mesh's filters and log, x Envoy", 0.33, ratio(results, "mesh", "kobune", "envoy", "cpu_us")))
    peers = [found for peer in ("nghttpx", "haproxy") if (found := ratio(results, "h2", "kobune", peer, "cpu_us")) is not None]
    rows.append(goal("CPU a request, HTTP/2, x nghttpx or HAProxy, whichever is better", 1, max(peers, default=None)))
    rows.append(goal("CPU a request, HTTP/2, x Envoy", 0.24, ratio(results, "h2", "kobune", "envoy", "cpu_us")))
    rows.append(goal("CPU a gRPC call, two sidecars with mutual TLS, x Envoy", 0.4, ratio(results, "grpc", "kobune", "envoy", "cpu_us")))
    rows.append(goal("CPU a body of 1 MiB, two sidecars with mutual TLS, x HAProxy", 0.9, ratio(results, "bulk", "kobune", "haproxy", "cpu_us")))
    slow = [median(results, "slow", "kobune", key) for key in ("slow_a_kib", "slow_b_kib")]
    rows.append(goal("memory of a slow reader at a hop, KiB", 256, None if None in slow else max(slow), "{:.0f}"))
    kept = [median(results, scenario, "kobune", "rate_kept") for scenario in attack_scenarios(results)]
    missing = len(kept) < len(attacks.ATTACKS) or None in kept
    rows.append(goal_least("rate that others keep under each attack, the least", 0.8, None if missing else min(kept)))
    rows.append(goal("CPU a full mTLS handshake, x nginx", 0.9, ratio(results, "handshake", "kobune", "nginx", "full_us")))
    full, resumed = (median(results, "handshake", "kobune", key) for key in ("full_us", "resumed_us"))
    rows.append(goal("CPU a resumed handshake, x full", 0.35, resumed / full if full else None))
    rows.append(goal("memory of an idle TLS connection, KiB", 24, median(results, "idle_tls", "kobune", "idle_kib"), "{:.1f}"))
    rows.append(goal("RSS at start, MiB", 9, mib(median(results, "start", "kobune", "rss_kib"))))
    rows.append(goal("its anonymous part, MiB", 2.5, mib(median(results, "start", "kobune", "anonymous_kib"))))
    rows.append(goal("start to ready, ms", 50, median(results, "start", "kobune", "ready_ms"), "{:.0f}"))
    rows.append(goal("RSS growth a static cluster (5,000), KiB", 6, growth_kib(results, 5000, "kobune")))
    rows.append(goal("memory of an EDS cluster, KiB", 4, median(results, "eds", "kobune", "eds_cluster_kib")))
    rows.append(goal("memory of an endpoint, bytes", 200, median(results, "eds", "kobune", "endpoint_bytes"), "{:.0f}"))
    rows.append(goal("one cluster of 5,000 changes, main thread, us", 5000, median(results, "eds", "kobune", "change_main_us"), "{:.0f}"))
    rows.append(goal("the same, busiest worker, us", 1000, median(results, "eds", "kobune", "change_worker_us"), "{:.0f}"))
    heap = [median(results, "heap", "kobune", key) for key in ("malloc", "calloc", "realloc")]
    rows.append(goal("heap calls a request", ZERO_HEAP_CALLS, None if None in heap else sum(heap), "{:.4f}"))
    rows.append(goal("system calls a request, 32 connections", 5, median(results, "syscalls", "kobune", "connections_32")))
    rows.append(goal("binary, stripped, MiB", 6, mib(mib(median(results, "size", "kobune", "stripped_bytes")))))
    return rows


def attack_scenarios(results):
    return [scenario for scenario in (f"attacks: {name}" for name in attacks.ATTACKS) if results["scenarios"].get(scenario)]


def attacks_table(results):
    """Of each subject what the others keep of their rate, and how much longer their slowest hundredth takes."""
    who = [name for name in ORDER if any(name in results["scenarios"][scenario] for scenario in attack_scenarios(results))]
    rows = []
    for scenario in attack_scenarios(results):
        name = scenario.partition(": ")[2]
        attack = attacks.ATTACKS[name]
        rows.append([name, f"{attack.asked:,.0f} {attack.unit}"])
        for one in who:
            rows[-1] += [
                cell(median(results, scenario, one, "rate_kept"), "{:.2f}"), cell(median(results, scenario, one, "p99_times"), "{:.1f}"),
                cell(median(results, scenario, one, "attack_rate"), "{:,.0f}"),
            ]
    head = ["others under attack", "the attacker may send"]
    for one in who:
        head += [f"{title(results, one)}: of their rate", "× p99", "the attacker sent"]
    return table(head, rows) if rows else ""


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def cell(value, form):
    return "-" if value is None else form.format(value)


def names(results, scenario):
    found = results["scenarios"].get(scenario, {})
    return [n for n in ORDER if n in found]


def title(results, name):
    version = results["versions"].get(name, "")
    words = {"floor": "floor relay", "haproxy": "HAProxy", "envoy": "Envoy", "kobune": "Kobune"}.get(name, name)
    return f"{words} {version}".strip() if name != "floor" else f"{words} ({version})"


def load_table(results, scenario):
    rows = []
    for name in names(results, scenario):
        rows.append([
            title(results, name),
            cell(median(results, scenario, name, "cpu_us"), "{:.1f}"),
            cell(spread(results, scenario, name, "cpu_us"), "± {:.0f} %"),
            cell(ratio(results, scenario, name, "haproxy", "cpu_us"), "{:.2f}"),
            cell(ratio(results, scenario, name, "envoy", "cpu_us"), "{:.2f}"),
            cell(median(results, scenario, name, "rps"), "{:,.0f}"),
            cell(median(results, scenario, name, "p50_us"), "{:,.0f}"),
            cell(median(results, scenario, name, "p99_us"), "{:,.0f}"),
            cell((median(results, scenario, name, "pss_kib") or 0) / MIB, "{:.1f}"),
        ])
    head = [TITLES[scenario], "CPU µs/request", "spread", "× HAProxy", "× Envoy", "requests/s", "p50 µs", "p99 µs", "PSS MiB"]
    return table(head, rows)


def tls_table(results):
    rows = []
    for name in names(results, "handshake"):
        rows.append([
            title(results, name),
            cell(median(results, "handshake", name, "full_us"), "{:,.0f}"),
            cell(median(results, "handshake", name, "resumed_us"), "{:,.0f}"),
            cell(ratio(results, "handshake", name, "nginx", "full_us"), "{:.2f}"),
            cell(median(results, "idle_tls", name, "idle_kib"), "{:.1f}"),
        ])
    head = ["mutual TLS 1.3, the terminating side", "CPU µs/full handshake", "resumed", "full × nginx", "KiB/idle connection"]
    return table(head, rows) if rows else ""


def kept_table(results):
    rows = [
        [title(results, name), *(cell(median(results, scenario, name, key), form) for scenario, key, form in (
            ("idle", "idle_plain_kib", "{:.2f}"), ("slow", "slow_a_kib", "{:.0f}"), ("slow", "slow_b_kib", "{:.0f}")))]
        for name in ORDER if name in {*names(results, "idle"), *names(results, "slow")}
    ]
    head = ["memory of connections", "KiB/idle connection (10,000)", "KiB/slow reader, its sidecar", "the hop behind"]
    return table(head, rows) if rows else ""


def memory_table(results):
    rows = []
    for scenario in ("start", "clusters_1000", "clusters_5000"):
        for name in names(results, scenario):
            count = scenario.partition("_")[2]
            rows.append([
                TITLES[scenario], title(results, name),
                cell(median(results, scenario, name, "ready_ms"), "{:.0f}"),
                *(cell(median(results, scenario, name, k) / MIB, "{:.1f}") for k in ("rss_kib", "anonymous_kib", "pss_kib")),
                cell(growth_kib(results, int(count), name) if count else None, "{:.1f}"),
            ])
    return table(["memory", "", "ready ms", "RSS MiB", "anonymous MiB", "PSS MiB", "KiB a cluster"], rows) if rows else ""


def eds_table(results):
    keys = (("eds_cluster_kib", "{:.2f}"), ("endpoint_bytes", "{:.0f}"), ("change_main_us", "{:,.0f}"),
            ("change_worker_us", "{:,.0f}"), ("p99_us", "{:,.0f}"), ("p99_changing_us", "{:,.0f}"))
    rows = [
        [title(results, name), *(cell(median(results, "eds", name, key), form) for key, form in keys)]
        for name in names(results, "eds")
    ]
    head = ["5,000 EDS clusters of 10 endpoints", "KiB/cluster", "bytes/endpoint", "CPU µs/change, main", "busiest worker",
            "p99 µs at 2,000 requests/s", "with 10 changes a second"]
    return table(head, rows) if rows else ""


def calls_table(results):
    rows = []
    for name in ORDER:
        heap = median(results, "heap", name, "malloc")
        if heap is None and median(results, "syscalls", name, "connections_32") is None:
            continue
        calls = results["scenarios"].get("syscalls", {}).get(name, [{}])[0].get("names_32", {})
        most = sorted(calls.items(), key=lambda item: -item[1])[:5]
        rows.append([
            title(results, name),
            *(cell(median(results, "heap", name, k), "{:.3f}") for k in ("malloc", "calloc", "realloc", "free")),
            cell(median(results, "syscalls", name, "connections_32"), "{:.2f}"),
            cell(median(results, "syscalls", name, "connections_1"), "{:.2f}"),
            ", ".join(f"{call} {share:.2f}" for call, share in most),
        ])
    head = ["a request", "malloc", "calloc", "realloc", "free", "system calls, 32 connections", "one connection", "of them, at 32"]
    return table(head, rows) if rows else ""


def markdown(results):
    m = results["machine"]
    out = [
        f"# Bench, {results['date']}, commit {results['commit']}{' with changes' if results['changed'] else ''}\n",
        f"{m['cpu']}, {m['cores']} cores, Linux {m['kernel']}; medians of {results['rounds']} interleaved rounds of "
        f"{results['seconds']:g} s. Compare rows of one table, never across runs.\n",
    ]
    if results["quick"]:
        out.append("**A quick run: it shows that everything works; its figures are not to be quoted.**\n")
    out.append(table(["goal (Kobune)", "at most", "measured", ""], [[g["what"], g["most"], g["value"], g["verdict"]] for g in goals(results)]))
    out += [load_table(results, s) for s in LOADS if names(results, s)]
    out += [t for t in (attacks_table(results), tls_table(results), kept_table(results), memory_table(results), eds_table(results), calls_table(results)) if t]
    for name in ("kobune", "envoy"):
        size = median(results, "size", name, "stripped_bytes")
        if size is not None:
            out.append(f"{title(results, name)}: {size / MIB / MIB:.1f} MiB stripped.\n")
    for name, reasons in results["skipped"].items():
        for scenario, reason in reasons.items():
            out.append(f"Not measured: {name} ({scenario}): {reason}\n")
    return "\n".join(out)


def svg(results):
    """Bars of CPU time a request, one group a scenario."""
    bar, gap, left, width = 20, 6, 130, 520
    body, y = [], 46
    for scenario in LOADS:
        values = [(n, median(results, scenario, n, "cpu_us")) for n in names(results, scenario)]
        values = [(n, v) for n, v in values if v is not None]
        if not values:
            continue
        top = max(v for _, v in values)
        body.append(f'<text x="12" y="{y}" class="h">{html.escape(TITLES[scenario])}</text>')
        y += 12
        for name, value in values:
            length = value / top * (width - 60)
            body.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{html.escape(name)}</text>')
            body.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar}" class="{name}"/>')
            body.append(f'<text x="{left + length + 6:.1f}" y="{y + 15}">{value:.1f}</text>')
            y += bar + gap
        y += 26
    style = (
        "text{font:13px sans-serif;fill:#222}.h{font-weight:bold}rect{fill:#9aa7b4}.kobune{fill:#c0392b}.floor{fill:#d5dbe1}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 12}" height="{y + 6}" role="img" '
        f'aria-label="CPU microseconds a request"><style>{style}</style><rect width="100%" height="100%" style="fill:#fff"/>'
        f'<text x="12" y="16">CPU microseconds a request, shorter is better; {html.escape(results["date"])}, commit '
        f'{html.escape(results["commit"])}</text>{"".join(body)}</svg>\n'
    )
