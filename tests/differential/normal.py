# SPDX-License-Identifier: Apache-2.0
"""Turns what was seen into what may be compared.

Only values that cannot be the same in two runs are replaced, each by a word in angle brackets, and
only where they have the right form: a date that is no valid HTTP date stays and differs.
"""

import hashlib
import re

DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
DATE = re.compile(rf"{DAY}, \d\d {MONTH} 20[2-9]\d \d\d:\d\d:\d\d GMT")
UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-([0-9a-f])[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\b")
TIME = re.compile(r"20[2-9]\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
# of an event: protobuf writes it without a fraction where there is none
EVENT_TIME = re.compile(r'("timestamp":")20[2-9]\d-\d\d-\d\dT\d\d:\d\d:\d\dZ(?=")')
SERVICE_TIME = re.compile(r"(?i)(x-envoy-upstream-service-time: )\d+")
# how much a library made of a body is its own affair
COMPRESSED = re.compile(r"(-decompressor-\S+-compressed-bytes: )\d+")
# the duration in a line of the default access log format
DEFAULT_LOG = re.compile(r'^(\[<time>\] "[^ ]+ .*? \S+" \d+ \S+ \d+ \d+ )\d+(?= )')
# seconds until a bucket that fills in hours has a token again: they pass while a case runs
RESET = re.compile(r"(?i)^(x-ratelimit-reset|retry-after): (\d{3,})$")
RESET_STEP = 250
LONG = 240
LONG_REASON = 600


class Names:
    """Port numbers of one run and the words that stand for them, and `values`: {word: longer text}."""

    def __init__(self, numbers, values=None):
        self.words = {str(n): "{%s}" % name for name, n in numbers.items()}
        self.values = {value: "{%s}" % word for word, value in (values or {}).items()}

    def add(self, number, word):
        self.words.setdefault(str(number), word)

    def put(self, text):
        for value, word in self.values.items():
            text = text.replace(value, word)
        return re.sub(r"(?<!\d)\d{5}(?!\d)",
                      lambda m: self.words.get(m.group(0), m.group(0)), text)


def shorten(text, limit=LONG):
    """Long text by its length and digest; a run of one character readably."""
    if len(text) <= limit:
        return text
    digest = hashlib.sha256(text.encode("latin-1", "replace")).hexdigest()[:12]
    return f"{text[:60]}<... {len(text)} characters, sha256 {digest}>"


def text_of(text, names, own_address=None):
    text = DATE.sub("<date>", text)
    text = UUID.sub(lambda m: f"<uuid {m.group(1)}>", text)
    text = TIME.sub("<time>", text)
    text = EVENT_TIME.sub(r"\1<time>", text)
    text = SERVICE_TIME.sub(r"\1<ms>", text)
    text = COMPRESSED.sub(r"\1<n>", text)
    text = DEFAULT_LOG.sub(r"\1<ms>", text)
    text = RESET.sub(lambda m: f"{m[1]}: {-(-int(m[2]) // RESET_STEP) * RESET_STEP}", text)
    if own_address:
        text = text.replace(own_address, "<own address>")
    return names.put(text)


def lines_of(raw, names, own_address=None):
    """Bytes as a list of lines; only CRLF ends a line, so that a bare LF or CR can be seen."""
    text = raw.decode("latin-1")
    lines = [shorten(text_of(line, names, own_address)) for line in text.split("\r\n")]
    return lines


def log_line(entry, names, own_address=None):
    """One JSON access log line: durations become <int>, null is left out."""
    out = {}
    for key, value in sorted(entry.items()):
        if key.startswith("_") or value is None:
            continue
        if key.endswith(("_ms", "_us", "duration")) and isinstance(value, int):
            value = "<int>"
        elif key.endswith("port") and isinstance(value, int):
            value = names.put(str(value))
        elif isinstance(value, str):
            value = shorten(text_of(value, names, own_address),
                            LONG_REASON if key.endswith("failure") else LONG)
        out[key] = value
    return out


def remaining_timeouts(seen):
    """The time left that later attempts of one request announce cannot be the same twice."""
    first = True
    out = []
    for one in seen:
        request = one["request"]
        if not first:
            request = [re.sub(r"(?i)^(x-envoy-expected-rq-timeout-ms: )\d+$", r"\1<left>", line)
                       for line in request]
        first = False
        out.append({**one, "request": request})
    return out
