"""What people call: one module a command of snf-store(8).

A module has NAME, SUMMARY, `add_arguments(parser)` and `run(settings, arguments, out) -> exit code`. It raises Error
for what a person may be told, and prints through `out` alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Protocol

from snf_extstorage.settings import Settings

#: One line on standard output, held by main.
Out = Callable[[str], None]


class Command(Protocol):
    """What a module of this package is."""

    NAME: str
    SUMMARY: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, settings: Settings, arguments: argparse.Namespace, out: Out) -> int: ...


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns as wide as they must be; the last column as it is."""
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in (head, *rows)
    ]
