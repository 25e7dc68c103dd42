# SPDX-License-Identifier: Apache-2.0
"""Steps 5 and 6: routing that changes under load, faults, timeouts, a backend that dies, a circuit
breaker."""

import concurrent.futures
import json
import signal

from ..pods import wait_until

SHARE_REQUESTS = 400
# half of 400 by chance: farther off than this happens once in a million runs
SHARE_SLACK = 0.12


def share(counts, name):
    return counts["colours"].get(name, 0) / max(sum(counts["colours"].values()), 1)


def weights_follow(teller):
    load, outside = teller.load(rate=220), teller.gateway_load(rate=40)
    for title, change, green, slack in (("100/0", None, 0, 0), ("50/50", "routing-half.yaml", 0.5, SHARE_SLACK),
                                        ("0/100", "routing-green.yaml", 1, 0)):
        if change:
            teller.plane.apply(change, "routing.yaml")
            between = load.count()  # some of these began before the new weights were known
            teller.undisturbed(between, f"while the weights became {title}")
        counts = teller.counted(load, f"weights {title}", SHARE_REQUESTS if slack else 150)
        teller.check(abs(share(counts, "green") - green) <= slack, f"weights {title}: the share of green is {green:.0%}",
                     f"{share(counts, 'green'):.1%}")
        teller.undisturbed(counts, f"with {title}")
        entered = outside.count()
        teller.keep(f"through the gateway, until {title}", entered)
        teller.undisturbed(entered, "that came through the gateway")
    entered = teller.counted(outside, "through the gateway, 0/100", 20)
    teller.check(set(entered["colours"]) == {"green"}, "the gateway follows the same VirtualService", entered["colours"])
    match_and_rewrite(teller)


def match_and_rewrite(teller):
    teller.plane.apply("routing-match.yaml", "routing.yaml")
    plain, tester = teller.client_get("/colour"), teller.client_get("/colour", {"x-tester": "yes"})
    teller.check(plain.headers.get("x-colour") == "blue", "without the header x-tester: blue", plain)
    teller.check(tester.headers.get("x-colour") == "green", "with x-tester: yes: green", tester)
    old = teller.client_get("/old/headers")
    path = json.loads(old.body)["path"] if old.status == 200 else old
    teller.check(path == "/headers", "GET /old/headers reaches the app as", path)
    seen = json.loads(old.body)["headers"].get("x-envoy-original-path")
    teller.check(seen == "/old/headers", "the app is told the path that was asked for", f"x-envoy-original-path: {seen}")


def failures(teller):
    fault_and_timeout(teller)
    backend_killed(teller)
    circuit_breaker(teller)


def fault_and_timeout(teller):
    teller.plane.apply("routing-fault.yaml", "routing.yaml")
    load = teller.load()
    load.count()
    counts = teller.counted(load, "a fault in half of the requests", 200)
    part = counts["statuses"].get("418", 0) / counts["sent"]
    teller.check(abs(part - 0.5) < 0.18 and set(counts["statuses"]) == {"200", "418"}, "about half are answered with 418",
                 f"{part:.0%}")
    teller.plane.apply("routing-timeout.yaml", "routing.yaml")
    load.count()
    slow = teller.client_get("/delay/2")
    teller.check(slow.status == 504, "the fault is gone, a timeout of 1 s is there: /delay/2 answers 504", slow)
    teller.undisturbed(teller.counted(load, "with a timeout of 1 s", 60), "that is quick enough")
    teller.plane.restore()
    slow = teller.client_get("/delay/1.3")
    teller.check(slow.status == 200, "the timeout is gone: /delay/1.3 answers 200", slow)
    load.stop()


def retries_of(teller):
    """How often the client's sidecar tried again, by its own statistics."""
    total = 0
    for line in teller.pod("client").admin("/stats?filter=handson.*upstream_rq_retry$").splitlines():
        name, _, value = line.rpartition(": ")
        if name.startswith("cluster.outbound|8080|") and value.isdigit():
            total += int(value)
    return total


def pod_of(status, pod):
    return next(one for one in status["pods"] if one["name"] == pod.name)


def backend_killed(teller):
    teller.plane.apply("routing-retries.yaml", "routing.yaml")
    load, green = teller.load(), teller.pod("handson-green")
    load.count()
    both = teller.counted(load, "both backends", 150)
    teller.check(set(both["colours"]) == {"blue", "green"}, "both versions answer", both["colours"])
    before = retries_of(teller)
    green.stop("app", signal.SIGKILL)
    counts = teller.counted(load, "green's app is killed", 250)
    retried = retries_of(teller) - before
    # an answer of which the head had been passed on cannot be saved by anybody
    cut = sum(n for text, n in counts["failures"].items() if text.startswith("IncompleteReadError"))
    lost = sum(counts["failures"].values()) - cut
    teller.check(set(counts["statuses"]) == {"200"} and lost == 0, "every request that could be saved was",
                 f"{counts['statuses'].get('200', 0)} × 200" + (f", {cut} cut in the middle of an answer" if cut else ""))
    teller.check(retried > 0, "the client's sidecar tried these again at the other pod", f"{retried} retries")
    green.tell(ready=False)
    teller.plane.wait(lambda status: not pod_of(status, green)["ready"], "green is known as not ready")
    teller.plane.wait_synced()
    load.count()
    before = retries_of(teller)
    teller.undisturbed(teller.counted(load, "green's pod is told as not ready", 60), "of those")
    teller.check(retries_of(teller) == before, "nobody tries it any more", f"{retries_of(teller) - before} retries")
    green.start_app()
    wait_until(lambda: green.containers() == (2, 2), "green's app again")
    green.tell()
    wait_until(lambda: load.count()["colours"].get("green"), "green answers again", 30)
    teller.note("green's app is started again, and answers")
    load.stop()


def at_once(teller, number, path):
    """So many requests of the client's app at the same time."""
    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        return list(pool.map(lambda _: teller.client_get(path), range(number)))


def circuit_breaker(teller):
    teller.plane.apply("subsets-breaker.yaml", "subsets.yaml")
    answers = at_once(teller, 8, "/delay/0.4")
    statuses = sorted(one.status for one in answers)
    refused = [one for one in answers if one.status == 503]
    teller.check(refused and 200 in statuses, "8 requests at once, where one and one that waits are allowed",
                 f"{statuses.count(200)} × 200, {len(refused)} × 503")
    teller.check("overflow" in refused[0].body or refused[0].headers.get("x-envoy-overloaded") == "true",
                 "the circuit breaker says so", refused[0])
    teller.plane.restore()
    answers = at_once(teller, 8, "/delay/0.4")
    statuses = [one.status for one in answers]
    teller.check(statuses == [200] * 8, "the breaker is gone: the same 8", f"{statuses.count(200)} × 200")
