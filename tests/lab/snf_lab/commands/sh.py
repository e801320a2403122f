"""`./lab sh N`: a shell on a node."""

from __future__ import annotations

import argparse
import sys

from snf_lab.command import Command, add_node_argument
from snf_lab.lab import Lab


def run(arguments: argparse.Namespace, lab: Lab) -> int:
    shell = ["bash", "--login"]
    # A terminal of the node's own: the host's is not in the node's /dev/pts, so `tty` and job control would fail.
    on_terminal = ["script", "--quiet", "--return", "--command", " ".join(shell), "/dev/null"]
    lab.node(arguments.node).replace_process(on_terminal if sys.stdin.isatty() else shell)
    return 0


COMMAND = Command(name="sh", summary="a shell on node N", arguments=add_node_argument, run=run)
