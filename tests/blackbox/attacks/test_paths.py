# SPDX-License-Identifier: Apache-2.0
"""Spellings of a path, and rules that go by it: what a rule decides is decided about the path that the
upstream receives, in every mode of normalisation; where all of it is on, also about the path that an
upstream makes of it by normalising once more."""

import re

import pytest

from .recorded import ask, recorded

MODES = {
    "plain": {},
    "normalize": {"normalize_path": True},
    "merge": {"normalize_path": True, "merge_slashes": True},
    "reject": {"normalize_path": True, "merge_slashes": True, "path_with_escaped_slashes_action": "REJECT_REQUEST"},
    "redirect": {"normalize_path": True, "merge_slashes": True,
                 "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT"},
    "forward": {"normalize_path": True, "merge_slashes": True,
                "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"},
}
STRICT = ("reject", "redirect", "forward")
PATHS = [
    "/admin", "/admin/", "/admin/x", "/admin?x", "/admin#x", "/x/../admin", "/x/./../admin", "/./admin", "//admin",
    "///admin", "/x//../admin", "/%2e/admin", "/x/%2e%2e/admin", "/x/%2E%2e/admin", "/x/.%2e/admin", "/x/..%2fadmin",
    "/x%2f../admin", "/x%2f..%2fadmin", "/%2fadmin", "/%2Fadmin", "/%5cadmin", "/\\admin", "/x\\..\\admin",
    "/x/..\\admin", "/x/%5c../admin", "/%61dmin", "/%41dmin", "/adm%69n", "/admin%00", "/admin%00/x", "/%00/../admin",
    "/admin;a=b", "/x;/../admin", "/x/..;/admin", "/x/%252e%252e/admin", "/%252fadmin", "/x/..%252fadmin",
    "/x/%c0%ae%c0%ae/admin", "/x/%e0%80%ae%e0%80%ae/admin", "/%c0%afadmin", "/x/..%c0%afadmin", "/ADMIN",
    "/x?/../admin", "/x#/../admin", "/x/..", "/..", "/../admin", "/../../admin", "/admin/..", "/admin/../x",
    "/admin/%2e%2e/x", "/admin%2f..%2fx", "/%", "/%2", "/%zz/../admin", "/x/%/../admin", "/x/%2/../admin",
    "/x/%%32e%%32e/admin", "/x/...%2fadmin", "/.%2fadmin", "/x/.%09./admin", "/admin%20", "/admin.", "/admin%23",
    "/admin%3fx", "/x/../../../admin", "http://other.test/admin", "/x/%2e%2e%2fadmin", "/x/%2e./%61dmin",
]


def policy(action, prefix):
    return [{"rbac": {"rules": {"action": action, "policies": {"p": {
        "permissions": [{"url_path": {"path": {"prefix": prefix}}}], "principals": [{"any": True}]}}}}}]


def resolved(path):
    """As a careful upstream reads it, once: what may be written plainly is, backslashes are slashes, no dots, one slash."""
    path = re.sub(r"%([0-9a-fA-F]{2})", lambda m: chr(int(m.group(1), 16)) if re.match(
        r"[A-Za-z0-9._~/\\-]", chr(int(m.group(1), 16))) else m.group(0), re.split(r"[?#]", path)[0])
    out = []
    for part in path.replace("\\", "/").split("/"):
        if part == "..":
            out = out[:-1]
        elif part not in ("", "."):
            out.append(part)
    return "/" + "/".join(out)


@pytest.fixture(scope="module")
def outcome(binary):
    """(mode, rule, protocol, number of the path): (status, the target that the upstream received)."""
    listeners = {f"{mode}_{rule.lower()}": {"log": "none", "hcm": hcm, "filters": policy(rule, "/admin")}
                 for mode, hcm in MODES.items() for rule in ("DENY", "ALLOW")}
    out = {}
    with recorded(binary, listeners) as one:
        for mode in MODES:
            for rule in ("deny", "allow"):
                for protocol in ("h1", "h2"):
                    for number, path in enumerate(PATHS):
                        one.recorder.requests.clear()
                        status = ask(one, protocol, path, name=f"{mode}_{rule}")
                        targets = list(one.recorder.requests)
                        assert len(targets) <= 1
                        out[mode, rule, protocol, number] = (status, targets[0] if targets else None)
        assert one.recorder.faults == []
    return out


@pytest.mark.parametrize("number", range(len(PATHS)), ids=PATHS)
@pytest.mark.parametrize("mode", MODES)
def test_decided_about_what_is_received(outcome, mode, number):
    for protocol in ("h1", "h2"):
        denied, allowed = outcome[mode, "deny", protocol, number], outcome[mode, "allow", protocol, number]
        for rule, (status, target) in (("deny", denied), ("allow", allowed)):
            assert (status == 200) == (target is not None)
            if target is not None:
                path = re.split(r"[?#]", target)[0]
                assert path.startswith("/admin") == (rule == "allow"), (protocol, rule, target)
                assert mode not in STRICT or resolved(target).startswith("/admin") == (rule == "allow"), target
        # one of both rules is right, unless the path itself is refused
        assert (denied[1] is None) != (allowed[1] is None) or denied[0] == allowed[0] != 403


@pytest.mark.parametrize("mode", STRICT)
def test_normalised_once_and_for_all(outcome, mode):
    for (of, _, _, number), (_, target) in outcome.items():
        if of == mode and target is not None:
            path = re.split(r"[?#]", target)[0]
            assert not re.search(r"//|\\|%2f|%5c|/\.\.?(/|$)", path, re.I), (PATHS[number], target)
