"""What a subcommand of ./lab is, and how one is found.

To add a subcommand, add a module to `snf_lab/commands/` with a `COMMAND`; nothing else lists them.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from snf_lab import commands
from snf_lab.lab import Lab


def no_arguments(parser: argparse.ArgumentParser) -> None:
    """For a subcommand that takes none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`run` returns the exit status; what it raises of `synnefo_light.errors` is shown as one sentence."""

    name: str
    summary: str  # one line, for ./lab --help
    run: Callable[[argparse.Namespace, Lab], int]
    arguments: Callable[[argparse.ArgumentParser], None] = no_arguments
    details: str = ""  # for ./lab NAME --help
    needs_root: bool = True


def discover() -> dict[str, Command]:
    """All subcommands by name, in alphabetical order."""
    modules = [
        importlib.import_module(f"{commands.__name__}.{m.name}") for m in pkgutil.iter_modules(commands.__path__)
    ]
    found = [module.COMMAND for module in modules]
    return {command.name: command for command in sorted(found, key=lambda c: c.name)}


def add_lab_arguments(parser: argparse.ArgumentParser) -> None:
    """What describes a lab, the same for each subcommand that may have to make one."""
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="nodes that the lab has at least, 1 to 4 (1)")
    parser.add_argument("--release", default="bookworm", metavar="NAME", help="bookworm (Ganeti 3.0) or trixie (3.1)")
    parser.add_argument(
        "--storage",
        default="directory",
        metavar="KIND",
        help="of volumes: directory, or rados (directory)",
    )
    parser.add_argument("--dev", action="store_true", help="bind the tree's Python packages over the installed ones")


def add_node_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", type=int, metavar="N", help="number of the node")
