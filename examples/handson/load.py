#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A steady load from inside a pod: so many requests a second over a few connections that are kept.

usage: load.py ADDRESS PORT [--host HOST] [--path PATH] [--rate N] [--connections N] [--header NAME:VALUE]
It reads commands from its standard input, a line each, and answers with a line of JSON:
  count    of the requests that were begun since the last count, once all of them have ended: {"sent", "statuses": {"200": n}, "colours": {"blue": n},
           "failures": {text: n}, "again": n, "milliseconds": [p50, p99, max], "seconds"}
The end of its input ends it, once the requests under way have their answers.

A kept connection that the server closes just as a request leaves on it is no failed request: the
request had no answer's first byte, and is sent again on a new connection, once, as RFC 9110, section
9.2.2 lets a client do; `again` counts these.
"""

import argparse
import asyncio
import collections
import json
import sys
import time

TIMEOUT_SECONDS = 15


class Broken(Exception):
    """The connection ended; `clean` when no byte of an answer had come."""

    def __init__(self, text, clean):
        super().__init__(text)
        self.clean = clean


class Counts:
    """Requests that were begun in one stretch of time."""

    def __init__(self):
        self.began = self.ended = time.monotonic()
        self.under_way = 0
        self.at_rest = asyncio.Event()
        self.statuses = collections.Counter()
        self.colours = collections.Counter()
        self.failures = collections.Counter()
        self.again = 0
        self.milliseconds = []

    def begin(self):
        self.under_way += 1
        self.at_rest.clear()

    def end(self):
        self.under_way -= 1
        if self.under_way == 0:
            self.at_rest.set()

    async def text(self):
        """The stretch ends now; what it counted, when its last request has ended."""
        self.ended = time.monotonic()
        if self.under_way:
            await self.at_rest.wait()
        times = sorted(self.milliseconds) or [0.0]
        shown = [times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)], times[-1]]
        return json.dumps({
            "sent": sum(self.statuses.values()) + sum(self.failures.values()), "statuses": self.statuses,
            "colours": self.colours, "failures": self.failures, "again": self.again,
            "milliseconds": [round(one, 2) for one in shown], "seconds": round(self.ended - self.began, 3)})


class Load:
    def __init__(self, arguments):
        self.where = (arguments.address, arguments.port)
        self.path = arguments.path
        self.head = f"host: {arguments.host}\r\n" + "".join(f"{one}\r\n" for one in arguments.header)
        self.rate, self.connections = arguments.rate, arguments.connections
        self.counts = Counts()
        self.next = time.monotonic()
        self.ending = False

    async def turn(self):
        """Wait for this request's time in the row; being late is made up for only a little."""
        now = time.monotonic()
        self.next = max(self.next + 1 / self.rate, now - 0.05)
        if self.next > now:
            await asyncio.sleep(self.next - now)

    async def exchange(self, reader, writer):
        """One request; gives (status, colour, may the connection be kept)."""
        got = False
        try:
            writer.write(f"GET {self.path} HTTP/1.1\r\n{self.head}\r\n".encode())
            line = await reader.readline()
            got = bool(line)
            if not line:
                raise Broken("closed before an answer", True)
            status, headers = int(line.split()[1]), {}
            while (line := await reader.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            if "content-length" in headers:
                await reader.readexactly(int(headers["content-length"]))
            elif headers.get("transfer-encoding") == "chunked":
                while size := int(await reader.readline(), 16):
                    await reader.readexactly(size + 2)
                await reader.readline()
            return status, headers.get("x-colour"), headers.get("connection") != "close"
        except (OSError, asyncio.IncompleteReadError, ValueError, IndexError) as error:
            raise Broken(f"{type(error).__name__}: {error}", not got) from error

    async def one(self, kept, counts):
        """One request, on the kept connection if there is one; gives the connection to keep."""
        began = time.monotonic()
        while True:
            fresh = kept is None
            try:
                if fresh:
                    kept = await asyncio.open_connection(*self.where)
                status, colour, keep = await self.exchange(*kept)
            except Broken as error:
                kept[1].close()
                kept = None
                if error.clean and not fresh:
                    counts.again += 1
                    continue
                counts.failures[str(error)] += 1
                return None
            except OSError as error:
                counts.failures[f"cannot connect: {error}"] += 1
                await asyncio.sleep(0.05)
                return None
            counts.statuses[str(status)] += 1
            if colour:
                counts.colours[colour] += 1
            counts.milliseconds.append((time.monotonic() - began) * 1000)
            if not keep:
                kept[1].close()
                kept = None
            return kept

    async def worker(self):
        kept = None
        while not self.ending:
            await self.turn()
            counts = self.counts
            counts.begin()
            try:
                kept = await asyncio.wait_for(self.one(kept, counts), TIMEOUT_SECONDS)
            except asyncio.TimeoutError:
                counts.failures[f"no answer within {TIMEOUT_SECONDS} s"] += 1
                kept = None
            finally:
                counts.end()

    async def commands(self):
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := (await reader.readline()).decode().strip():
            if line == "count":
                done, self.counts = self.counts, Counts()
                print(await done.text(), flush=True)

    async def run(self):
        workers = [asyncio.create_task(self.worker()) for _ in range(self.connections)]
        await self.commands()
        self.ending = True
        await asyncio.gather(*workers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--host", default="handson:8080")
    parser.add_argument("--path", default="/colour")
    parser.add_argument("--rate", type=float, default=150)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--header", action="append", default=[])
    asyncio.run(Load(parser.parse_args()).run())


if __name__ == "__main__":
    main()
