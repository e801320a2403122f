"""The words of the command `snf-store`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from snf_extstorage.commands import (
    Command,
    commit,
    diff,
    fsck,
    gc,
    image,
    init,
    reconcile,
    recv,
    resume,
    scrub,
    send,
    snapshot,
    stats,
    upkeep,
    volume,
)
from snf_extstorage.settings import settings_file
from synnefo_light.errors import UsageError

COMMANDS: tuple[Command, ...] = (
    init,
    image,
    volume,
    snapshot,
    commit,
    resume,
    send,
    recv,
    diff,
    gc,
    fsck,
    scrub,
    stats,
    reconcile,
    upkeep,
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def parse(words: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    """Raises UsageError; `--help` prints and exits, as argparse has it."""
    parser = _Parser(prog="snf-store", description="Look after images, snapshots and volumes.")
    parser.add_argument("--config", metavar="FILE", type=Path, default=settings_file(), help="another configuration")
    listed = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_arguments(listed.add_parser(command.NAME, help=command.SUMMARY, description=command.SUMMARY))
    arguments = parser.parse_args(words)
    return {c.NAME: c for c in COMMANDS}[arguments.command], arguments
