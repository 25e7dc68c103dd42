# SPDX-License-Identifier: Apache-2.0
"""README.md names tests that exist."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]
TABLE = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:blackbox|differential|fuzz|replay)/[^`]+)`", TABLE)))


@pytest.mark.parametrize("named", NAMED)
def test_it_exists(named):
    path, _, function = named.partition("::")
    text = (TESTS / path).read_text(encoding="utf-8")
    assert not function or re.search(rf"^def {function}\(", text, re.M)


def test_every_class_has_a_row():
    rows = [int(n) for n in re.findall(r"^\| (\d+) \|", TABLE, re.M)]
    assert rows == [*range(1, 20), *range(23, 28)]
    assert not [f.name for f in Path(__file__).parent.glob("test_*.py")
                if f.name not in TABLE and f.name != Path(__file__).name]
