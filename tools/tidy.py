#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks what a compiler does not: who includes whom, sizes, banned calls, header comments.

Runs as a test (meson test tidy). Prints one line a fault, `file:line: rule: what to do`, and ends
with 1 if there was one. Warnings (soft limits) are printed and do not fail. Needs only Python's own
library. `tools/tidy_selftest.py` proves that every rule can fail.
"""

import argparse
import pathlib
import re
import subprocess
import sys

FUNCTION_WARN, FUNCTION_MAX = 70, 100
FILE_WARN, FILE_MAX = 650, 800
COLUMNS_WARN, COLUMNS_MAX = 100, 120

C_SUFFIXES = {".c", ".h", ".cc", ".def"}
CODE_SUFFIXES = {".c", ".h", ".cc"}
TEXT_SUFFIXES = C_SUFFIXES | {
    ".py", ".sh", ".md", ".txt", ".in", ".build", ".yaml", ".yml", ".json", ".toml", ".proto", ".options", "",
}

# Room -> the rooms that it may include besides itself. The list of core rooms is in order: each may
# include those before it.
CORE = ["stats", "network", "matcher", "http", "upstream", "router", "grpc", "access_log", "tracing", "listener"]


def rooms():
    allowed = {
        "base": set(),
        "proto": {"base"},
        "proxy/api": {"base", "proto"},
        "tls": {"base", "proto", "proxy/api"},
        "xds": {"base", "proto"},
        "iptables": set(),
    }
    seen = {"base", "proto", "proxy/api"}
    for name in CORE:
        allowed["proxy/" + name] = set(seen)
        seen.add("proxy/" + name)
    allowed["proxy/ext"] = set(seen)
    allowed["proxy/admin"] = set(seen)
    allowed["proxy/server"] = set(allowed) | {"proxy/server"}
    return allowed


ROOMS = rooms()

# Third-party header -> where it may be included (pattern of the path), and the words for it.
THIRD_PARTY = [
    (re.compile(r"^openssl/"), re.compile(r"^tls/"), "OpenSSL belongs to tls/"),
    (re.compile(r"^nghttp2/"), re.compile(r"^proxy/http/h2_"), "nghttp2 belongs to proxy/http/h2_*"),
    (re.compile(r"^llhttp\.h$"), re.compile(r"^proxy/http/h1_parse\.c$|^tests/fuzz/"), "llhttp belongs to proxy/http/h1_parse.c"),
    (re.compile(r"^uv\.h$|^uv/"), re.compile(r"^base/"), "libuv belongs to base/"),
]

BANNED = {
    "strcpy": "kb_str or memcpy with a known length",
    "strcat": "kb_str or an append with a known length",
    "sprintf": "snprintf",
    "vsprintf": "vsnprintf",
    "strtok": "a loop over a kb_str",
    "atoi": "the checked number parsers of base/str.h",
    "atol": "the checked number parsers of base/str.h",
    "alloca": "an arena",
    "gets": "fgets",
}
BANNED_RE = re.compile(r"(?<![\w.>])(" + "|".join(BANNED) + r")\s*\(")

# Names that the build makes of Envoy's: such a line has no place to break.
GENERATED = re.compile(r"\b\w+__\w{40,}|\S{60,}\.pb-c\.h")

# Written in pieces, so that this file passes its own check.
PLACES = re.compile(
    r"(?<![\w.])(/" + r"home/\w+/|/" + r"work/|/" + r"tmp/\w{1,2}/)"
    r"|\b(py" + r"pi\.org|python" + r"hosted\.org|deb\.deb" + r"ian\.org|proxy\.go" + r"lang\.org)\b"
)

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')
PROTOTYPE_NAME = re.compile(r"\b([A-Za-z_]\w*)\s*\(")


class Tidy:
    def __init__(self, root):
        self.root = root
        self.faults = []
        self.warnings = []

    def fault(self, path, line, rule, text):
        self.faults.append(f"{path}:{line}: {rule}: {text}")

    def warn(self, path, line, rule, text):
        self.warnings.append(f"{path}:{line}: warning: {rule}: {text}")

    def files(self):
        """Every file that git tracks or would track; without git, every file outside build/."""
        try:
            listed = subprocess.run(
                ["git", "ls-files", "-co", "--exclude-standard", "-z"],
                cwd=self.root, capture_output=True, check=True,
            ).stdout.decode().split("\0")
        except (OSError, subprocess.CalledProcessError):
            listed = [str(p.relative_to(self.root)) for p in self.root.rglob("*") if p.is_file()]
            listed = [p for p in listed if not p.startswith(("build/", ".git/", ".venv/"))]
        return sorted(p for p in listed if p and (self.root / p).is_file())

    def run(self):
        for path in self.files():
            self.check_file(path)
        return not self.faults

    def check_file(self, path):
        suffix = pathlib.PurePath(path).suffix
        if suffix not in TEXT_SUFFIXES or "/corpus/" in path:
            return
        raw = (self.root / path).read_bytes()
        if not raw.strip():
            self.fault(path, 1, "empty", "an empty file: make it when it has content")
            return
        if b"\0" in raw:
            return
        text = raw.decode("utf-8", "replace")
        self.check_places(path, text)
        if suffix in C_SUFFIXES:
            self.check_source(path, suffix, text)

    def check_places(self, path, text):
        for match in PLACES.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            self.fault(path, line, "place", f"'{match.group(0)}' names a machine or a registry host: leave it out")

    def check_source(self, path, suffix, text):
        lines = text.split("\n")
        if lines and lines[-1] == "":
            lines.pop()
        self.check_opening(path, suffix, lines)
        self.check_layout(path, lines)
        if suffix not in CODE_SUFFIXES:
            return
        code = strip_comments(text).split("\n")
        self.check_file_length(path, lines)
        self.check_includes(path, lines)
        self.check_calls(path, code)
        self.check_functions(path, code)
        if suffix == ".h" and not path.startswith("tests/"):
            self.check_header_comments(path, lines, code)

    def check_opening(self, path, suffix, lines):
        if lines[0] != "/* SPDX-License-Identifier: Apache-2.0 */":
            self.fault(path, 1, "spdx", "the first line is /* SPDX-License-Identifier: Apache-2.0 */")
        if len(lines) < 2 or not lines[1].startswith("/*"):
            self.fault(path, 2, "purpose", "the second line opens a comment that says what this file is for")
        if suffix == ".h" and "#pragma once" not in lines:
            self.fault(path, 1, "pragma-once", "a header has #pragma once")

    def check_layout(self, path, lines):
        for number, line in enumerate(lines, 1):
            if "\t" in line:
                self.fault(path, number, "tab", "indent with spaces (./dev fmt)")
            if line != line.rstrip():
                self.fault(path, number, "trailing-space", "spaces at the end of the line (./dev fmt)")
            if len(line) > COLUMNS_MAX:
                self.fault(path, number, "columns", f"{len(line)} columns, at most {COLUMNS_MAX} (./dev fmt)")
            elif len(line) > COLUMNS_WARN and not GENERATED.search(line):
                self.warn(path, number, "columns", f"{len(line)} columns, better {COLUMNS_WARN} (./dev fmt)")

    def check_file_length(self, path, lines):
        if any("tidy: table" in line for line in lines[:12]):
            return
        if len(lines) > FILE_MAX:
            self.fault(path, len(lines), "file-length", f"{len(lines)} lines, at most {FILE_MAX}: split it")
        elif len(lines) > FILE_WARN:
            self.warn(path, len(lines), "file-length", f"{len(lines)} lines, better under {FILE_WARN}")

    def check_includes(self, path, lines):
        for number, line in enumerate(lines, 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            quote, name = match.groups()
            if quote == '"':
                self.check_own_include(path, number, name)
            else:
                self.check_third_party(path, number, name)

    def check_third_party(self, path, number, name):
        if path.startswith(("tests/", "bench/")):
            return
        for header, where, words in THIRD_PARTY:
            if header.search(name) and not where.search(path):
                self.fault(path, number, "third-party", f"<{name}>: {words}")
        if room_of(name) is not None and (self.root / name).is_file():
            self.fault(path, number, "include-form", f"<{name}> is ours: include it with quotes")

    def check_own_include(self, path, number, name):
        mine = room_of(path)
        theirs = "proto" if name.endswith(".pb-c.h") else room_of(name)
        if mine is None:
            return
        if theirs is None and name.endswith((".inc", "version.h", "commit.h")):
            return  # made by the build, in its own folder
        if theirs is None:
            self.fault(path, number, "include-form", f'"{name}": include by the path from the top')
        elif mine == "proxy/api" and name.endswith(".def") and theirs in ROOMS["proxy/server"]:
            return  # a closed list (statistics, names) lies in its room and gives the contract its enum
        elif theirs != mine and theirs not in ROOMS[mine]:
            self.fault(path, number, "include-direction", f'{mine} may not include {theirs} ("{name}")')

    def check_calls(self, path, code):
        for number, line in enumerate(code, 1):
            for match in BANNED_RE.finditer(line):
                name = match.group(1)
                self.fault(path, number, "banned-call", f"{name}: use {BANNED[name]}")
            if re.match(r"\s*typedef\s+(struct|union)\b(?!.*\(\*)", line):
                self.fault(path, number, "typedef", "no typedef of a struct: write struct kb_x")

    def check_functions(self, path, code):
        start = None
        for number, line in enumerate(code, 1):
            if line == "{" and start is None:
                start = self.signature_line(code, number)
            elif line == "}" and start is not None:
                self.check_function_length(path, start, number, code)
                start = None
            elif re.match(r"^[A-Za-z_][^=;#]*\)\s*\{$", line) and "extern" not in line:
                self.fault(path, number, "brace", "the opening brace of a function is on its own line (./dev fmt)")

    @staticmethod
    def signature_line(code, brace):
        first = brace
        while first > 1 and code[first - 2].strip() and not code[first - 2].startswith(("}", "#")):
            if code[first - 2].rstrip().endswith((";", "*/")):
                break
            first -= 1
        return first

    def check_function_length(self, path, start, end, code):
        length = end - start + 1
        found = PROTOTYPE_NAME.search(" ".join(code[start - 1 : start + 3]))
        name = found.group(1) if found else "?"
        if length > FUNCTION_MAX:
            self.fault(path, start, "function-length", f"{name}: {length} lines, at most {FUNCTION_MAX}: split it")
        elif length > FUNCTION_WARN:
            self.warn(path, start, "function-length", f"{name}: {length} lines, better under {FUNCTION_WARN}")

    def check_header_comments(self, path, lines, code):
        for first, last, name in prototypes(code):
            if not name.startswith(("kb_", "KB_")):
                self.fault(path, first, "name", f"{name}: an exported function is named kb_noun_verb")
            if not has_comment(lines, code, first):
                self.fault(
                    path, first, "header-comment",
                    f"{name}: say above it (or above the prototypes that it stands with) when it is called, who owns "
                    "what, units, results",
                )


def room_of(path):
    parts = path.split("/")
    if len(parts) < 2:
        return None
    if parts[0] == "proxy":
        room = "/".join(parts[:2])
        return room if len(parts) > 2 and room in ROOMS else None
    return parts[0] if parts[0] in ROOMS else None


STRIP = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)


def strip_comments(text):
    """The text with comments and the insides of strings blanked, line numbers kept."""

    def blank(match):
        found = match.group(0)
        if found[0] == "/":
            return re.sub(r"[^\n]", "", found)
        return found[0] * 2

    return STRIP.sub(blank, text)


def prototypes(code):
    """(first line, last line, name) of each prototype at file level that is not static."""
    depth, statement, first, macro = 0, "", 0, False
    for number, line in enumerate(code, 1):
        bare = line.strip()
        if macro or bare.startswith("#"):
            macro = bare.endswith("\\")
            continue
        if re.match(r'^extern ""\s*\{$|^extern\s+"C"', bare):
            continue
        if depth == 0 and bare and bare != "}":
            if not statement:
                first = number
            statement += " " + bare
        depth = max(0, depth + line.count("{") - line.count("}"))
        if depth == 0 and bare.endswith((";", "}")):
            found = exported_name(statement)
            if found:
                yield first, number, found
            statement = ""


def exported_name(statement):
    statement = statement.strip()
    if re.match(r"^(static|typedef|struct\s+\w+\s*[{;]|enum|union)\b", statement) or "{" in statement:
        return None
    if "=" in statement or not statement.endswith(";"):
        return None
    flat = re.sub(r"__attribute__\s*\(\(.*?\)\)", "", statement)
    flat = re.sub(r"\b[A-Z][A-Z0-9_]*\s*\([^()]*\)", "", flat)
    match = PROTOTYPE_NAME.search(flat)
    return match.group(1) if match and match.start() > 0 else None


def has_comment(lines, code, first):
    """A comment right above the prototype, or above the run of prototypes (no blank line between) that it is in; one
    blank line may part that comment from the run."""
    above, blanks = first - 2, 0
    while above >= 0 and blanks < 2:
        if not lines[above].strip():
            blanks += 1
            above -= 1
            continue
        if blanks and code[above].strip():
            return False
        if not code[above].strip() and lines[above].rstrip().endswith("*/"):
            return True
        if lines[above].lstrip().startswith(("#", "}")):
            return False
        above -= 1
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    parser.add_argument("-q", "--quiet", action="store_true", help="no warnings")
    options = parser.parse_args()
    tidy = Tidy(options.root)
    passed = tidy.run()
    for line in ([] if options.quiet else tidy.warnings) + tidy.faults:
        print(line)
    print(f"tidy: {len(tidy.faults)} faults, {len(tidy.warnings)} warnings")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
