# SPDX-License-Identifier: Apache-2.0
"""Prints recorded answers, one line each: python -m tests.differential.show NAME [word]"""

import json
import sys

from . import casefile


def main():
    name, *words = sys.argv[1:]
    kept = json.loads((casefile.GOLDEN / f"{name}.json").read_text())["result"]
    for one in kept["exchanges"]:
        if words and not any(w in one["name"] for w in words):
            continue
        log = " / ".join(f"{e.get('code')} {e.get('flags')} {e.get('details')} x{e.get('attempts')}"
                         for e in one.get("log", []))
        for key, view in (one.get("clients") or {"": one}).items():
            lines = view.get("client") or [""]
            print(f"{one['name']} {key}| {lines[0]} | {view.get('after')} | {log}")
        if words:
            print(json.dumps(one, indent=1))


if __name__ == "__main__":
    main()
