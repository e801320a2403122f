"""What people call: one module a command of snf-image(8).

A module has NAME, SUMMARY, `add_arguments(parser)` and `run(settings, arguments, out) -> exit code`. It raises Error
for what a person may be told, and prints through `out` alone.
"""

from __future__ import annotations

import argparse
from typing import Protocol

from snf_image_host.settings import Settings


class Out(Protocol):
    """Standard output, held by main."""

    def __call__(self, text: str, *, passing: bool = False) -> None:
        """One line; a passing one is overwritten by the next on a terminal."""


class Command(Protocol):
    """What a module of this package is."""

    NAME: str
    SUMMARY: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, settings: Settings, arguments: argparse.Namespace, out: Out) -> int: ...
