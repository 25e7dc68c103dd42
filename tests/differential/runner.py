# SPDX-License-Identifier: Apache-2.0
"""Runs one case against one binary and gives back everything that is compared."""

import json
import re
import socket
import time

from tests.harness import certs, proxy_header
from tests.harness import proxy as harness_proxy
from tests.harness.client import Connection, methods_of, unchunk, unpack
from tests.harness.config import Layout, needs_certificates
from tests.harness.patience import DEADLINE_S
from tests.harness.proxy import Proxy, ProxyDied, run_once
from tests.harness.tls_client import Contexts, TlsConnection
from tests.harness.upstream import wait_until

from . import collected, golden, h2_steps, normal, views
from .casefile import allowed, filled, unsupported
from .due import SHORT_S, Due

QUIET_S = 0.12  # an open connection on which nothing comes for so long counts as open
RECORD_QUIET_S = 0.4
COLLECTED_QUIET_S = 2.0

COUNTED = r"^(http|cluster|listener|tcp)\."
UNCOUNTED = re.compile(
    r"^(http\.(admin|async-client)|listener\.admin)\.|\.worker_\d+\.|_bytes_(total|buffered)$"
    r"|lb_recalculate_zone|circuit_breakers\..*\.remaining|\.(update_|membership_|version$)"
    r"|upstream_rq_retry_backoff|\.max_host_weight$|default\.total_match_count$|\.warming_state$")


def own_address():
    """The address that Envoy writes for itself: the first that is not loopback."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0]
    except OSError:
        return None


class Run:
    """A case running against a subject."""

    counted, uncounted = COUNTED, UNCOUNTED

    def __init__(self, case, binary, hints=None):
        self.case = case
        self.binary = binary
        self.due = Due(hints, allowed(case))
        self.exchanges = case.exchanges
        self.steps_class = Steps
        self.trace = None  # a list: collects the counters after each exchange
        self.quiet = QUIET_S if hints else RECORD_QUIET_S
        self.layout = Layout(case.config, case.spec.get("upstreams"),
                             collectors=case.spec.get("collectors"))
        self.names = normal.Names(self.layout.numbers, certs.places() if needs_certificates(
            [case.config, case.spec.get("exchanges")]) else {})
        self.contexts = Contexts()
        self.address = own_address()
        self.owners = {}
        self.used = set()
        self.results = []
        self.proxy = Proxy(binary, self.config, name=case.name, start=False,
                           args=[self.layout.fill(str(a)) for a in case.spec.get("args", [])],
                           concurrency=case.spec.get("concurrency", 1))

    def config(self, scratch):
        return self.layout.resolved(log=str(scratch / "access.log"), dir=str(scratch))

    def run(self):
        """Everything that is compared; `exit` is there when the subject did not end well."""
        result = {"exchanges": self.results, "stats": {}}
        try:
            self.serve(result)
        except ProxyDied as error:
            result["exit"] = str(error)
        finally:
            self.proxy.kill()
            self.layout.stop()
        self.logs()
        if self.case.spec.get("files"):
            result["files"] = {name: self.file(name) for name in self.case.spec["files"]}
        return result

    def serve(self, result):
        self.begin()
        self.names.add(self.proxy.admin_port, "{admin}")
        for exchange in self.exchanges:
            self.results.append(self.exchange(exchange))
            if self.trace is not None:
                self.trace.append((exchange.name, self.stats()))
        result["stats"] = self.stats_at_rest()
        if self.layout.collectors:
            result["collected"] = self.collected()
        self.unsupported(result)
        self.proxy.stop()

    def unsupported(self, result):
        """A case passes by what works, so what it sets is listed as implemented."""
        status, body = self.proxy.admin("/kobune/unsupported?format=json")
        if status != 200:
            return  # the real Envoy
        told = sorted(field["path"] for field in json.loads(body)["unsupported"])
        if told != unsupported(self.case):
            result["exit"] = (f"/kobune/unsupported has {told}; this case expects {unsupported(self.case)} "
                              "(proto/supported.txt, tests/differential/unsupported.yaml)")

    def collected(self):
        """What collectors have when they have all of the record, or nothing comes any more."""
        def now():
            return {name: collected.view(one, self.names, self.address)
                    for name, one in self.layout.collectors.items()}
        last, still = now(), 0
        end = time.monotonic() + ((DEADLINE_S / 4) if self.due.collected else 6 * COLLECTED_QUIET_S)
        while last != self.due.collected and still < COLLECTED_QUIET_S and time.monotonic() < end:
            time.sleep(0.05)
            got = now()
            still = 0 if got != last or self.due.collected else still + 0.05
            last = got
        return last

    def begin(self):
        self.proxy.start()
        self.proxy.wait_ready()
        if self.case.spec.get("turn"):
            for upstream in self.layout.upstreams.values():
                upstream.before_answer = self.turn

    def turn(self):
        """Returns when the worker has gone through its loop once more: what was ready before has
        been seen. The case's listener `turn` answers by itself and logs nothing."""
        conn = Connection(self.layout.numbers[self.case.spec["turn"]])
        conn.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", ["GET"])
        if conn.wait_end(DEADLINE_S) != "eof":
            raise AssertionError("no answer from the listener of `turn`")
        conn.close()

    def target(self, exchange):
        if exchange.to == "admin":
            return self.proxy.admin_port
        return self.layout.numbers[exchange.to or self.case.first]

    def exchange(self, exchange):
        for name, upstream in self.layout.upstreams.items():
            script = exchange.upstream or []
            if isinstance(script, dict) and "raw" not in script:
                script = script.get(name, [])
            elif name != next(iter(self.layout.upstreams)):
                script = []
            upstream.expect(script)
        result = {"name": exchange.name}
        steps = self.steps_class(self, exchange)
        try:
            conns = steps.play()
        except ProxyDied:
            raise
        except (AssertionError, OSError) as error:
            result["problem"] = f"{type(error).__name__}: {error}"
            conns = {}
            self.proxy.check_alive("during " + exchange.name)
        seen_by_client = {}
        for key, conn in conns.items():
            self.owners[conn.port, self.target(exchange)] = len(self.results)
            conn.close()
            seen_by_client[key] = self.client_view(exchange, conn)
        if list(seen_by_client) == ["a"]:
            result.update(seen_by_client["a"])
        else:
            result["clients"] = seen_by_client
        result.update(steps.shown)
        self.finish_exchange(result, exchange)
        self.rest(result, exchange)
        self.wait_upstream(exchange)
        self.proxy.check_alive("during " + exchange.name)
        result["upstream"] = self.upstream_view(exchange)
        return {k: v for k, v in result.items() if v or k in ("name", "client")}

    def finish_exchange(self, result, exchange):
        """More that is compared, of those who have it."""

    def rest(self, result, exchange):
        """Wait until nothing of the exchange is left in the subject and upstreams agree."""
        try:
            wait_until(self.at_rest, "rest")
        except OSError as error:
            self.proxy.check_alive(f"during {exchange.name} ({error})", 0.5)
            result["left_over"] = str(error)
        except AssertionError as error:
            result["left_over"] = f"{error}: {self.active()}"

    def active(self):
        away = tuple(f"cluster.{name}." for name in self.layout.collectors)
        return {k: v for k, v in self.proxy.active().items() if not k.startswith(away)}

    def at_rest(self):
        active = self.active()
        pool = sum(v for k, v in active.items() if k.endswith("upstream_cx_active"))
        busy = [k for k in active if not k.endswith("upstream_cx_active")]
        return not busy and pool == sum(u.live_count() for u in self.layout.upstreams.values())

    def wait_upstream(self, exchange):
        """Wait until the upstreams have seen what they see in the record: a reset, for instance,
        may still be on its way when nothing is left in the subject."""
        due, upstreams = self.due.count(exchange, "upstream"), self.layout.upstreams.values()
        try:
            wait_until(lambda: sum(len(u.seen) for u in upstreams) >= due, "requests",
                       self.due.patience(exchange))
        except AssertionError:
            self.due.failed = True

    def client_view(self, exchange, conn):
        raw = conn.received
        if (exchange.framing or self.case.spec.get("framing")) == "decoded" or exchange.view:
            raw = unpack(unchunk(raw))
        lines = normal.lines_of(raw, self.names, self.address)
        if exchange.view:
            lines = views.apply(exchange.view, raw, self.names)
        elif getattr(conn, "h2", None) is not None:
            lines = h2_steps.view(conn.h2, self.names, self.address)
        view = {"client": lines, "after": conn.state}
        if isinstance(conn, TlsConnection):
            view["tls"] = conn.tls
        return view

    def upstream_view(self, exchange):
        out = []
        for name, upstream in self.layout.upstreams.items():
            for port in upstream.peers:
                self.names.add(port, "{upstream connection}")
            many = len(self.layout.upstreams) > 1
            got = [{**({"server": name} if many else {}), **self.conn_words(upstream, one),
                    "request": normal.lines_of(one.raw, self.names, self.address)}
                   for one in upstream.take_seen()]
            out += normal.remaining_timeouts(got)
        return out

    def conn_words(self, upstream, seen):
        """Which connection, and what became of its handshake if it is new and has one."""
        word = self.conn_word(seen)
        return {"conn": word, **({"tls": upstream.tls[seen.conn]}
                                 if word == "new" and seen.conn in upstream.tls else {})}

    def conn_word(self, seen):
        """`new` or `kept`; the number of the connection where the case is about that."""
        first = (seen.server, seen.conn) not in self.used
        self.used.add((seen.server, seen.conn))
        if self.case.spec.get("numbered"):
            return seen.conn
        return "new" if first else "kept"

    def stats(self):
        pattern = self.case.spec.get("stats", self.counted)
        if pattern == "none":
            return {}
        drop = re.compile(self.case.spec.get("stats_drop") or r"(?!)")
        return {self.names.put(k): v for k, v in sorted(self.proxy.stats(pattern).items())
                if v and not self.uncounted.search(k) and not drop.search(k)}

    def stats_at_rest(self):
        """The counters when they are as recorded, but for those that may differ; without that, when they
        stand still."""
        allowed = {**(self.case.spec.get("allow_stats") or {}), **self.due.allowed.get("(counters)", {})}
        end = time.monotonic() + (SHORT_S if self.due.there and not self.due.failed else 0)
        last = self.stats()
        while last != self.due.stats:
            time.sleep(self.quiet)
            now = self.stats()
            if now == last and (time.monotonic() > end or
                                not golden.judge_stats(self.due.stats, now, allowed)):
                break
            last = now
        return last

    def logs(self):
        """Give each line of the access log to the exchange whose connection wrote it."""
        path = self.proxy.dir / "access.log"
        text = path.read_text(errors="surrogateescape") if path.exists() else ""
        for line in filter(None, text.split("\n")):  # splitlines() would split at U+2028, too
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"not JSON": line}
            key = (number(entry.get("_peer")), number(entry.get("_port")))
            at = self.owners.get(key)
            entry = normal.log_line(entry, self.names, self.address)
            if at is None:
                self.results.append({"name": "log line of no exchange", "client": [],
                                     "log": [entry]})
                continue
            for name in self.exchanges[at].drop_log:
                entry.pop(name, None)
            self.results[at].setdefault("log", []).append(entry)
        for result in self.results:  # the listener's own lines last: their place is not promised
            if "log" in result:
                result["log"].sort(key=lambda entry: entry.get("log") == "listener")

    def file(self, name):
        path = self.proxy.dir / name
        text = path.read_text(errors="surrogateescape") if path.exists() else "<no such file>"
        return [normal.shorten(normal.text_of(line, self.names, self.address))
                for line in text.splitlines()]


def number(value):
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


class Steps:
    """Plays the steps of one exchange; connections have names, the first is `a`."""

    def __init__(self, run, exchange):
        self.run = run
        self.exchange = exchange
        self.conns = {}
        self.current = None
        self.due = {}
        self.shown = {}  # goes into the result as it is
        self.tls = exchange.tls
        self.h2 = None

    def play(self):
        for verb, arg in self.exchange.steps:
            getattr(self, "do_" + verb)(arg)
        for key, conn in self.conns.items():
            self.finish(key, conn)
        return self.conns

    def finish(self, key, conn):
        """How does the connection stand in the end?"""
        after = self.run.due.client(self.exchange, key).get("after")
        if conn.sock.fileno() < 0:
            conn.state = "we closed"
        elif conn.state == "refused":
            pass
        elif after in ("eof", "rst") or not after and conn.announces_close():
            conn.wait_end(self.run.due.patience(self.exchange))
            self.run.due.failed |= bool(after) and conn.state == "open"
        elif not after or self.run.due.may_differ(self.exchange):
            conn.settle(self.run.quiet)
        else:
            self.wait(key, conn, lambda quiet: conn.settle(quiet) != "open")

    def wait(self, key, conn, attempt):
        """attempt(seconds) until it succeeds, the peer ends, or this client has all of the record."""
        recorded = self.run.due.client(self.exchange, key)

        def over():
            if conn.state != "open":
                return True
            return recorded.get("after") not in ("eof", "rst") and "client" in recorded and \
                self.run.client_view(self.exchange, conn)["client"] == recorded["client"]
        return self.run.due.wait(self.exchange, attempt, self.run.quiet, over)

    def conn(self):
        if self.current is None:
            self.do_conn("a")
        return self.conns[self.current]

    def do_conn(self, key):
        if key not in self.conns:
            self.conns[key] = self.connect()
            self.due[key] = 0
        self.current = key

    def connect(self):
        """A connection whose local port no earlier connection of this run had."""
        used = {port for port, _ in self.run.owners}
        port = self.run.target(self.exchange)
        if self.tls is None:
            conn = Connection(port, used, **self.exchange.where)
        else:
            conn = TlsConnection(port, self.tls or {}, self.run.contexts, used=used,
                                 **self.exchange.where)
        self.run.names.add(conn.port, "{client}")
        return conn

    def handshake(self, conn):
        """With TLS 1.3 the server's word on us comes behind our part: if one came, wait for it."""
        if not isinstance(conn, TlsConnection) or conn.begun:
            return
        patience = self.run.due.patience(self.exchange)
        conn.handshake(patience)
        recorded = self.run.due.client(self.exchange, self.current)
        if conn.tls.get("version") != "TLSv1.3":
            return
        if not self.run.due.there:
            conn.settle(self.run.quiet)
        elif recorded.get("tls", {}).get("alert"):
            conn.wait_end(patience)

    def do_raw(self, text):
        conn = self.conn()
        self.handshake(conn)
        data = self.run.layout.fill(text).encode("latin-1")
        conn.send(data, methods_of(data))

    def do_h2(self, step):
        if self.h2 is None:
            self.h2 = h2_steps.H2Steps(self, filled)
        self.h2.play(step)

    def do_tls(self, spec):
        """How the connections from here on speak TLS; null: not at all."""
        self.tls = spec

    def do_handshake(self, _):
        self.handshake(self.conn())

    def do_proxy_v2(self, spec):
        self.conn().send(proxy_header.v2(
            **{k: self.run.layout.fill(filled(v)) if isinstance(v, str) else v
               for k, v in spec.items()}), methods_of(spec.get("behind", "").encode("latin-1")))

    def do_pieces(self, arg):
        """Send a text in pieces of so many bytes: {of: 1, raw: text}."""
        data = self.run.layout.fill(arg["raw"]).encode("latin-1")
        for at in range(0, len(data), arg["of"]):
            self.conn().send(data[at:at + arg["of"]],
                             methods_of(data) if at + arg["of"] >= len(data) else ())

    def do_response(self, n):
        self.due[self.current] += int(n)
        if n:
            conn, due = self.conn(), self.due[self.current]
            self.wait(self.current, conn, lambda seconds: conn.wait_responses(due, seconds))

    def do_text(self, text):
        conn = self.conn()
        text = self.run.layout.fill(filled(text)).encode("latin-1")
        self.wait(self.current, conn, lambda seconds: conn.wait_text(text, seconds))

    def do_bytes(self, n):
        conn = self.conn()
        self.wait(self.current, conn, lambda seconds: conn.wait_bytes(n, seconds))

    def do_end(self, _):
        conn = self.conn()
        self.wait(self.current, conn, lambda seconds: conn.wait_end(seconds) != "open")

    def do_half_close(self, _):
        self.conn().half_close()

    def do_close(self, _):
        self.conn().close()

    def do_reset(self, _):
        self.conn().reset()

    def do_release(self, name):
        self.run.layout.upstreams[name].release()

    def do_release_one(self, name):
        self.run.layout.upstreams[name].release_one()

    def do_close_idle(self, name):
        self.run.layout.upstreams[name].close_idle()

    def do_seen(self, arg):
        """Wait until an upstream has seen n requests of this exchange: n, or {name: n}; {all: n}:
        all of them together."""
        upstreams = self.run.layout.upstreams
        for name, n in (arg if isinstance(arg, dict) else {next(iter(upstreams)): arg}).items():
            if name == "all":
                wait_until(lambda: sum(len(u.seen) for u in upstreams.values()) >= n, "requests")
            else:
                upstreams[name].wait_seen(n)

    def do_stat(self, arg):
        for name, value in arg.items():
            self.run.proxy.wait_stat(self.run.layout.fill(name), value)

    def do_admin_shows(self, arg):
        """Wait until GET path of the admin shows the text: {path: ..., text: ...}."""
        proxy = self.run.proxy
        proxy.wait_for(f"{arg['text']!r} at {arg['path']}",
                       lambda: arg["text"].encode() in proxy.admin(arg["path"])[1])

    def do_admin(self, arg):
        method, _, path = arg.partition(" ")
        status, body = self.run.proxy.admin(path, method)
        if status != 200:
            raise AssertionError(f"admin {arg}: status {status}: {body[:200]!r}")


def run_cli(case, binary, scratch):
    """The `cli:` entries: finished runs of the binary, compared by exit code and by words."""
    out = []
    for one in case.cli:
        where = scratch / re.sub(r"\W+", "_", one["name"])
        where.mkdir(exist_ok=True)
        for name, text in (one.get("files") or {}).items():
            (where / name).write_text(text)
        done = run_once(binary, one["args"], cwd=where)
        text = " ".join((done.stdout + done.stderr).split())
        missing = [w for w in one.get("says", []) if str(w).lower() not in text.lower()]
        result = {"name": one["name"], "exit": done.returncode}
        if one.get("stdout"):
            result["stdout"] = done.stdout.splitlines()
        if missing:
            result["does not say"] = missing
            result["said"] = text[-600:]
        found = harness_proxy.REPORTS.search(done.stderr)
        if found:
            result["report"] = done.stderr[found.start():found.start() + 3000]
        out.append(result)
    return {"exchanges": out, "stats": {}}


def run_refused(case, binary):
    """What the subject says to a configuration that it is documented to refuse."""
    layout = Layout(case.config, case.spec.get("upstreams"))
    proxy = Proxy(binary, lambda scratch: layout.resolved(log=str(scratch / "access.log"),
                                                          dir=str(scratch)), start=False)
    try:
        return run_once(binary, ["-c", str(proxy.config_file), "--mode", "validate"])
    finally:
        layout.stop()


def run(case, binary, hints=None, scratch=None):
    if case.protocols:
        from . import xds_runner  # which needs grpcio
        return xds_runner.run(case, binary, hints)
    return run_cli(case, binary, scratch) if case.cli else Run(case, binary, hints).run()
