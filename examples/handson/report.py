# SPDX-License-Identifier: Apache-2.0
"""The report at the end of the demo: one page without anything from elsewhere."""

import html
import time

from . import metrics

STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; --good: #187640; --bad: #c0392b; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; } small, .why { opacity: .75; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
code, pre { font: 12.5px/1.45 ui-monospace, monospace; } pre { overflow-x: auto; background: var(--soft); padding: .7rem; }
details { border: 1px solid var(--line); border-radius: 6px; padding: .5rem .9rem; margin: .6rem 0; }
summary { cursor: pointer; font-weight: 600; } li { overflow-wrap: anywhere; }
svg { width: 100%; height: auto; } svg text { font: 13px system-ui, sans-serif; fill: currentColor; }
svg .small { font-size: 11.5px; }
svg .rate { font-size: 11.5px; paint-order: stroke; stroke: Canvas; stroke-width: 5px; stroke-linejoin: round; } svg .box { fill: var(--soft); stroke: var(--line); }
svg .edge { fill: none; stroke: currentColor; } svg .told { stroke: currentColor; opacity: .35; stroke-dasharray: 4 4; }
"""

# where each workload's box stands: left, top
PLACES = {"outside": (10, 70), "istio-ingressgateway": (270, 70), "client": (270, 250),
          "handson-blue": (640, 70), "handson-green": (640, 250), "prometheus": (10, 250)}
WIDTH, HEIGHT = 190, 84
SHADES = {"handson-blue": "#1f5fbf", "handson-green": "#187640"}


def text(value):
    return html.escape(str(value))


def box(pod):
    x, y = PLACES[pod["name"]]
    inside = {"sidecar": "app + sidecar", "router": "gateway", "plain": "app, no sidecar"}[pod["kind"]]
    if pod["name"] == "prometheus":
        inside = "scrapes :15090"
    mark = SHADES.get(pod["name"])
    stripe = f'<rect x="{x}" y="{y}" width="7" height="{HEIGHT}" rx="3" fill="{mark}"/>' if mark else ""
    return (f'<g class="pod" data-pod="{text(pod["name"])}"><rect class="box" x="{x}" y="{y}" width="{WIDTH}" '
            f'height="{HEIGHT}" rx="8"/>{stripe}<text x="{x + 16}" y="{y + 25}" font-weight="600">{text(pod["name"])}</text>'
            f'<text class="small" x="{x + 16}" y="{y + 45}">{inside}</text>'
            f'<text class="small" x="{x + 16}" y="{y + 64}">{text(pod["ip"])} · {text(pod["ready"])} ready</text></g>')


def line(a, b, label="", width=1.5, at=0.5):
    """An edge and its label, which are drawn apart: no line is over a label."""
    ax, ay = PLACES[a][0] + WIDTH, PLACES[a][1] + HEIGHT / 2
    bx, by = PLACES[b][0], PLACES[b][1] + HEIGHT / 2
    lx, ly = ax + (bx - ax) * at, ay + (by - ay) * at - (6 if ay == by else -4)
    return (f'<path class="edge" data-edge="{a} {b}" d="M{ax} {ay} L{bx - 3} {by}" stroke-width="{width:.1f}" '
            'marker-end="url(#end)"/>',
            f'<text class="rate" x="{lx}" y="{ly}" text-anchor="middle">{text(label)}</text>' if label else "")


def topology(pods, edges, seconds):
    parts = ['<svg viewBox="0 0 840 350" role="img" aria-label="topology"><defs><marker id="end" viewBox="0 0 8 8" refX="6" '
             'refY="4" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="currentColor"/>'
             '</marker></defs>']
    parts.append('<text class="small" x="460" y="20" text-anchor="middle">control plane: configuration and certificates '
                 'for every proxy</text>')
    for pod in pods:
        if pod["kind"] != "plain" and pod["name"] in PLACES:
            x, y = PLACES[pod["name"]]
            parts.append(f'<line class="told" x1="460" y1="26" x2="{x + WIDTH / 2}" y2="{y}"/>')
    parts += [box(pod) for pod in pods if pod["name"] in PLACES]
    drawn = [line("outside", "istio-ingressgateway", "plain")]
    for (source, destination), edge in sorted(edges.items()):
        if source in PLACES and destination in PLACES:
            level = PLACES[source][1] == PLACES[destination][1]
            mark = " · mTLS" if edge.mutual else ""
            drawn.append(line(source, destination, f"{edge.requests / seconds:.1f}/s{mark}",
                              1.2 + min(edge.requests / 1200, 2.5), at=0.5 if level else 0.3))
    parts += [path for path, _ in drawn] + [label for _, label in drawn]
    return "".join(parts) + "</svg>"


PICTURE_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #222; } .small { font-size: 11.5px; } .title { font-weight: 600; }
.rate { font-size: 11.5px; paint-order: stroke; stroke: #fff; stroke-width: 5px; stroke-linejoin: round; }
.box { fill: #f2f2f2; stroke: #bbb; } .edge { fill: none; stroke: #222; } .good { fill: #187640; } .bad { fill: #c0392b; }
.told { stroke: #999; stroke-dasharray: 4 4; }
"""


def picture(demo, teller):
    """Topology and result of each step as one SVG file that stands alone."""
    seconds = max(time.monotonic() - demo.began, 1)
    inner = topology(pods_of(demo, teller), metrics.edges(demo.place), seconds).replace("currentColor", "#222")
    rows, half = [], (len(teller.results) + 1) // 2
    for number, one in enumerate(teller.results):
        x, y = (20 if number < half else 440), 385 + 24 * (number % half)
        mark, kind = ("✓", "good") if one.good else ("✗", "bad")
        rows.append(f'<text x="{x}" y="{y}"><tspan class="{kind}">{mark}</tspan> {one.step.number}. {text(one.step.title)}'
                    f'<tspan class="small" dx="8">{len(one.evidence)} checks, {one.seconds:.1f} s</tspan></text>')
    height = 385 + 24 * half
    start = inner.index(">") + 1
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 840 {height}" width="840" height="{height}">'
            f'<style>{PICTURE_STYLE}</style><rect width="840" height="{height}" fill="#fff"/>'
            + inner[start:].removesuffix("</svg>") + "".join(rows) + "</svg>\n")


def pods_of(demo, teller):
    return teller.facts.get("pods") or [
        {"name": pod.name, "namespace": pod.namespace, "ip": pod.ip, "kind": pod.kind, "ready": "{}/{}".format(*pod.containers())}
        for pod in demo.place.pods.values()]


def edge_table(edges, seconds):
    rows = ['<table id="edges"><tr><th>from</th><th>to</th><th class="n">requests</th><th class="n">a second</th>'
            '<th class="n">p50</th><th class="n">p99</th><th>answers</th><th>mTLS</th></tr>']
    for (source, destination), edge in sorted(edges.items()):
        codes = ", ".join(f"{n} × {code}" for code, n in sorted(edge.codes.items()))
        rows.append(f'<tr><td>{text(source)}</td><td>{text(destination)}</td><td class="n">{edge.requests}</td>'
                    f'<td class="n">{edge.requests / seconds:.1f}</td><td class="n">{edge.quantile(.5):.1f} ms</td>'
                    f'<td class="n">{edge.quantile(.99):.1f} ms</td><td>{text(codes)}</td>'
                    f'<td>{"yes" if edge.mutual else "-"}</td></tr>')
    return "".join(rows) + "</table>"


def load_table(loads):
    if not loads:
        return ""
    rows = ['<table><tr><th>load</th><th class="n">requests</th><th class="n">a second</th><th>answers</th><th>colours</th>'
            '<th class="n">p50</th><th class="n">p99</th><th class="n">max</th></tr>']
    for title, one in loads:
        answers = {**one["statuses"], **one["failures"]}
        said = ", ".join(f"{n} × {kind}" for kind, n in sorted(answers.items()))
        colours = ", ".join(f"{n} {kind}" for kind, n in sorted(one["colours"].items()))
        times = "".join(f'<td class="n">{ms:.1f} ms</td>' for ms in one["milliseconds"])
        rows.append(f'<tr><td>{text(title)}</td><td class="n">{one["sent"]}</td>'
                    f'<td class="n">{one["sent"] / max(one["seconds"], .001):.0f}</td><td>{text(said)}</td>'
                    f'<td>{text(colours)}</td>{times}</tr>')
    return "".join(rows) + "</table>"


def step_part(result):
    word, kind = ("ok", "good") if result.good else ("FAILED", "bad")
    lines = "".join(f'<li class="{"" if good else "bad"}">{text(said)}</li>' for good, said in result.evidence)
    return (f'<details data-step="{result.step.number}" data-result="{word}"{"" if result.good else " open"}>'
            f'<summary>{result.step.number}. {text(result.step.title)} <span class="{kind}">{word}</span> '
            f'<small>{result.seconds:.1f} s</small></summary><p class="why">{text(result.step.why)}</p>'
            f'<ul>{lines}</ul>{load_table(result.loads)}</details>')


def query_part(queries):
    if not queries:
        return ""
    rows = "".join(f'<tr><td>{text(title)}</td><td><code>{text(query)}</code></td>'
                   f'<td class="{"good" if good else "bad"}">{"ok" if good else "no data"}</td><td>{text(found)}</td></tr>'
                   for title, query, good, found in queries)
    return ("<h2>What Prometheus was asked</h2><details><summary>The queries of Kiali's graph and of Istio's dashboards"
            f'</summary><table id="queries"><tr><th>for</th><th>query</th><th></th><th>answer</th></tr>{rows}</table></details>')


def page(demo, teller):
    """The whole page. The proxies still run: they are asked what they counted."""
    seconds = max(time.monotonic() - demo.began, 1)
    edges = metrics.edges(demo.place)
    pods = pods_of(demo, teller)
    good = sum(one.good for one in teller.results)
    verdict = "good" if good == len(teller.results) else "bad"
    rules = teller.facts.get("rules")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Kobune: the hands-on's report</title><link rel="icon" href="data:,"><style>{STYLE}</style></head><body>
<h1>The hands-on</h1>
<p>{time.strftime("%Y-%m-%d %H:%M")}, {seconds:.0f} s:
<span class="{verdict}" id="verdict">{good} of {len(teller.results)} steps went as described</span></p>
<h2>Topology</h2>{topology(pods, edges, seconds)}
<p><small>Rates are those that the callers' proxies counted, over the whole time of the demo.</small></p>
<h2>Requests by edge</h2>{edge_table(edges, seconds)}
<h2>Steps</h2>{"".join(step_part(one) for one in teller.results)}
{query_part(teller.facts.get("queries"))}
{"<h2>A pod's rules</h2><pre>" + text(chr(10).join(rules)) + "</pre>" if rules else ""}
</body></html>
"""
