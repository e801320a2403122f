"""`./lab x N CMD...`: one command on a node."""

from __future__ import annotations

import argparse

from snf_lab.command import Command, add_node_argument
from snf_lab.lab import Lab
from synnefo_light.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_node_argument(parser)
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="CMD", help="the command and its arguments")


def run(arguments: argparse.Namespace, lab: Lab) -> int:
    if not arguments.words:
        raise UsageError("a command is missing, such as ./lab x 1 gnt-node list")
    lab.node(arguments.node).replace_process(arguments.words)
    return 0


COMMAND = Command(
    name="x",
    summary="run a command on node N",
    details="No shell is in between. Input, output, signals and exit status are the command's.",
    arguments=add_arguments,
    run=run,
)
