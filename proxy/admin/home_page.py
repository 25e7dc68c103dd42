#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes C of the home page: what stands before and behind the endpoints, and a policy for browsers
that lets exactly this style and this script run.

usage: home_page.py HOME.HTML OUT.C
"""

import base64
import hashlib
import re
import sys

PLACE = "<!--endpoints-->\n"
MAX_BYTES = 60_000  # of the page in the browser; the rest is for the endpoints
ENDPOINTS_BYTES = 16_000


def inner_hash(page, tag):
    inner = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    if len(inner) != 1:
        sys.exit(f"home_page.py: one <{tag}> is wanted, there are {len(inner)}")
    digest = hashlib.sha256(inner[0].encode()).digest()
    return "'sha256-" + base64.b64encode(digest).decode() + "'"


def literal(name, text):
    """An array of bytes: the standard bounds the length of string literals."""
    data = text.encode()
    rows = [", ".join(str(byte) for byte in data[i:i + 24]) for i in range(0, len(data), 24)]
    return (f"static const unsigned char {name}_bytes[] = {{\n    " + ",\n    ".join(rows) + "};\n"
            f"const struct kb_str {name} = {{(const char *){name}_bytes, {len(data)}}};\n")


def main():
    source, out = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        page = file.read()
    page = re.sub(r"<!-- .*? -->\n", "", page, flags=re.DOTALL)
    if len(page.encode()) > MAX_BYTES - ENDPOINTS_BYTES:
        sys.exit(f"home_page.py: {source} is too large")
    for word in (" style=", " onclick=", "innerHTML =", "http://", "https://"):
        if word in page.replace("http://www.w3.org/2000/svg", ""):
            sys.exit(f"home_page.py: {source} has {word.strip()!r}")
    head, tail = page.split(PLACE)
    policy = "; ".join([
        "default-src 'none'", "style-src " + inner_hash(page, "style"),
        "script-src " + inner_hash(page, "script"), "connect-src 'self'", "img-src data:",
        "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"])
    with open(out, "w", encoding="utf-8") as file:
        file.write('/* Made by home_page.py. */\n#include "proxy/admin/home_page.h"\n\n'
                   + literal("kb_home_page_head", head) + literal("kb_home_page_tail", tail)
                   + f'const char kb_home_page_policy[] = "{policy}";\n')


if __name__ == "__main__":
    main()
