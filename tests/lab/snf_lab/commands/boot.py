"""`./lab boot N`: power again."""

from __future__ import annotations

import argparse

from snf_lab.command import Command, add_node_argument
from snf_lab.lab import Lab


def run(arguments: argparse.Namespace, lab: Lab) -> int:
    lab.boot(arguments.node)
    return 0


COMMAND = Command(
    name="boot",
    summary="switch node N on again after ./lab crash",
    details="Returns when the node's systemd has started everything and Ganeti's daemons run. Instances stay down\n"
    "until Ganeti is told otherwise, or ganeti-watcher runs.",
    arguments=add_node_argument,
    run=run,
)
