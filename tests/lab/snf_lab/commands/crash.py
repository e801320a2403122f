"""`./lab crash N`: a power cut."""

from __future__ import annotations

import argparse

from snf_lab.command import Command, add_node_argument
from snf_lab.lab import Lab


def run(arguments: argparse.Namespace, lab: Lab) -> int:
    lab.crash(arguments.node)
    return 0


COMMAND = Command(
    name="crash",
    summary="cut the power of node N; its disk stays",
    details="All processes die at once, with the instances, and the network cables go dead. ./lab boot N follows.\n"
    "Not lost, other than with real power: what programs wrote and did not sync.",
    arguments=add_node_argument,
    run=run,
)
