"""`./lab torture NAME`: hostile images, many of them, deployed in node 1; the figures are one line of JSON."""

from __future__ import annotations

import argparse

from snf_lab import torture
from snf_lab.command import Command
from snf_lab.lab import Lab


def add_arguments(parser: argparse.ArgumentParser) -> None:
    others = ", ".join(torture.OTHERS)
    parser.add_argument("name", metavar="NAME", help=f"all, a group (fuzz, tables, ...), a single attack, or {others}")
    parser.add_argument("--count", type=int, metavar="N", help="only so many of each group")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="deployments at the same time (2)")


def run(arguments: argparse.Namespace, lab: Lab) -> int:
    lab.ensure_up(nodes=1)
    figures = torture.run_torture(lab, arguments.name, count=arguments.count, jobs=arguments.jobs)
    lab.progress.say(figures.line)
    return 0 if figures.passed == figures.total else 1


COMMAND = Command(
    name="torture",
    summary="deploy hostile images by the hundred, and print how many did no harm as one line of JSON",
    details="Each is deployed under strace, with the host's folders, kernel log and uevents watched.",
    arguments=add_arguments,
    run=run,
)
