# SPDX-License-Identifier: Apache-2.0
"""What the record says is still to come: what a run waits for, so that no answer is judged before it
is there, and nothing is waited for that never comes."""

import time

from tests.harness.patience import DEADLINE_S

SHORT_S = 6.0  # without a record, where it may differ, and once the case has failed anyway


class Due:
    """The record of a case, beside the case that runs; without a record while one is made."""

    def __init__(self, record, allowed):
        self.there = bool(record and record.get("exchanges"))
        self.stats = (record or {}).get("stats")
        self.collected = (record or {}).get("collected") or {}
        self.exchanges = {e["name"]: e for e in (record or {}).get("exchanges", [])}
        self.allowed = allowed
        self.failed = False

    def client(self, exchange, key):
        """What is recorded of one client of an exchange."""
        one = self.exchanges.get(exchange.name) or {}
        return one["clients"].get(key, {}) if "clients" in one else one

    def count(self, exchange, what):
        """How many entries of a kind the exchange has in the record."""
        return len((self.exchanges.get(exchange.name) or {}).get(what, ()))

    def may_differ(self, exchange):
        return bool(exchange.allow or self.allowed.get(exchange.name))

    def patience(self, exchange):
        short = not self.there or self.failed or self.may_differ(exchange)
        return SHORT_S if short else DEADLINE_S

    def wait(self, exchange, attempt, quiet, over):
        """attempt(seconds) until it succeeds, or `over()` says that all there is to come came."""
        if not self.there:
            return attempt(SHORT_S)
        end = time.monotonic() + self.patience(exchange)
        while not attempt(quiet):
            if over():
                return False
            if time.monotonic() > end:
                self.failed = True
                return False
        return True
