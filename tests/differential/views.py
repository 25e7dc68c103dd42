# SPDX-License-Identifier: Apache-2.0
"""Views of a response for bodies that cannot be equal byte for byte (statistics, dumps)."""

from . import normal


def apply(view, raw, names):
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = normal.lines_of(head, names)
    if view == "head":
        return lines
    raise ValueError(f"unknown view {view!r}")
