#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Proves that every rule of tidy.py can fail: one clean tree, and one fault at a time put into it."""

import pathlib
import re
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import tidy  # noqa: E402

SPDX = "/* SPDX-License-Identifier: Apache-2.0 */\n"

CLEAN = {
    "base/str.h": SPDX + "/* Strings. */\n#pragma once\n\n#include <uv.h>\n\n#define KB_MUST_USE\n\n"
    "struct kb_str {\n    int (*hook)(int n);\n};\n\n"
    "/* Compares; borrowed. */\nKB_MUST_USE int kb_str_cmp(int a,\n                           int b);\n\n"
    "/* Lengths, in bytes. */\n\nint kb_str_len(void);\nint kb_str_cap(void) __attribute__((pure));\n\n"
    "static inline int kb_str_one(void)\n{\n    return 1;\n}\n",
    "proxy/api/stats.h": SPDX + '/* S. */\n#pragma once\n#include "proxy/stats/http.def"\n',
    "base/str.c": SPDX + '/* Strings. */\n#include "base/str.h"\n\n/* strcpy( in a comment */\n'
    'static const char *text = "atoi(1)";\n\nint kb_str_len(void)\n{\n    return text[0];\n}\n',
    "proto/json.c": SPDX + '/* JSON. */\n#include "base/str.h"\n#include "envoy/x.pb-c.h"\n',
    "proxy/http/h1_parse.c": SPDX + '/* llhttp. */\n#include <llhttp.h>\n#include "proxy/stats/store.h"\n',
    "proxy/http/h2_session.c": SPDX + "/* nghttp2. */\n#include <nghttp2/nghttp2.h>\n",
    "proxy/server/main.c": SPDX + '/* Start. */\n#include "proxy/ext/http/router.h"\n#include "xds/xds.h"\n',
    "tls/tls.c": SPDX + '/* TLS. */\n#include <openssl/ssl.h>\n#include "proxy/api/secret.h"\n',
    "README.md": "A text.\n",
}

PATH = "/ho" + "me/someone/x"
LONG = "int f(void)\n{\n" + "    f();\n" * 99 + "}\n"


def append(path, text):
    return path, lambda old: old + text


def swap(path, old_text, new_text):
    return path, lambda old: old.replace(old_text, new_text)


def new(path, text):
    return path, lambda old: text


CASES = [
    ("empty", new("proxy/http/empty.c", "\n")),
    ("place", append("README.md", PATH + "\n")),
    ("spdx", swap("base/str.c", SPDX, "\n")),
    ("purpose", swap("base/str.c", "/* Strings. */", "")),
    ("pragma-once", swap("base/str.h", "#pragma once\n", "")),
    ("tab", append("base/str.c", "\tint x;\n")),
    ("trailing-space", append("base/str.c", "int x; \n")),
    ("columns", append("base/str.c", "/* " + "x" * 120 + " */\n")),
    ("file-length", append("base/str.c", "int x;\n" * 800)),
    ("function-length", append("base/str.c", LONG)),
    ("brace", append("base/str.c", "int f(void) {\n    return 1;\n}\n")),
    ("include-direction", append("base/str.c", '#include "proxy/http/hcm.h"\n')),
    ("include-direction", append("base/str.c", '#include "envoy/x.pb-c.h"\n')),
    ("include-direction", append("proxy/http/h1_parse.c", '#include "proxy/router/router.h"\n')),
    ("include-direction", append("proxy/http/h1_parse.c", '#include "xds/xds.h"\n')),
    ("include-direction", new("xds/a.c", SPDX + '/* A. */\n#include "proxy/api/codec.h"\n')),
    ("include-direction", new("proxy/ext/http/a.c", SPDX + '/* A. */\n#include "proxy/admin/admin.h"\n')),
    ("include-form", append("base/str.c", '#include "str.h"\n')),
    ("include-form", append("base/str.c", "#include <base/str.h>\n")),
    ("third-party", append("proxy/http/h1_parse.c", "#include <openssl/ssl.h>\n")),
    ("third-party", append("proxy/http/h1_parse.c", "#include <nghttp2/nghttp2.h>\n")),
    ("third-party", append("proxy/http/h2_session.c", "#include <llhttp.h>\n")),
    ("third-party", append("proxy/http/h1_parse.c", "#include <uv.h>\n")),
    ("typedef", append("base/str.c", "typedef struct kb_x kb_x_t;\n")),
    ("name", append("base/str.h", "\n/* Said. */\nint str_len(void);\n")),
    ("header-comment", append("base/str.h", "\nint kb_str_silent(void);\n")),
    ("header-comment", append("base/str.h", "\n/* Far away. */\n\n\nint kb_str_silent(void);\n")),
    ("header-comment", append("base/str.h", "\n/* Its own. */\nint kb_str_a(void);\n\nint kb_str_silent(void);\n")),
    ("include-direction", append("proxy/api/stats.h", '#include "proxy/stats/store.h"\n')),
    ("header-comment", append("base/str.h", "\nKB_MUST_USE int kb_str_silent(int a,\n    int b);\n")),
] + [("banned-call", append("base/str.c", f"int x(void)\n{{\n    {name} (a);\n}}\n")) for name in tidy.BANNED]

SOFT = [
    ("columns", append("base/str.c", "/* " + "x" * 100 + " */\n")),
    ("file-length", append("base/str.c", "int x;\n" * 700)),
    ("function-length", append("base/str.c", LONG.replace("    f();\n", "", 20))),
]


def check(change):
    """The rules broken, and the rules warned of, in the clean tree with this change."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        tree = dict(CLEAN)
        if change:
            path, edit = change
            tree[path] = edit(tree.get(path, ""))
            assert tree[path] != CLEAN.get(path), "the change changes nothing"
        for path, text in tree.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        found = tidy.Tidy(root)
        found.run()
        rule = re.compile(r"^\S+?:\d+: (?:warning: )?([\w-]+):")
        return [rule.match(f).group(1) for f in found.faults], [rule.match(w).group(1) for w in found.warnings], found


def main():
    failed = 0
    faults, warnings, found = check(None)
    if faults or warnings:
        failed += 1
        print("the clean tree is not clean:", found.faults, found.warnings)
    for rule, change in CASES:
        faults, _, found = check(change)
        if faults != [rule]:
            failed += 1
            print(f"expected one fault of '{rule}' in {change[0]}, got {found.faults}")
    for rule, change in SOFT:
        faults, warnings, found = check(change)
        if faults or warnings != [rule]:
            failed += 1
            print(f"expected one warning of '{rule}', got {found.faults} {found.warnings}")
    total = 1 + len(CASES) + len(SOFT)
    print(f"{total - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
