"""`./lab bench NAME`: measure, and say it in one line of JSON."""

from __future__ import annotations

import argparse
import json

from snf_lab import bench
from snf_lab.command import Command
from snf_lab.lab import Lab
from snf_lab.state import RELEASES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help=f"one of: {', '.join(bench.BENCHES)}")
    parser.add_argument("--release", default="bookworm", choices=sorted(RELEASES), help="what the node runs")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often; the median counts (3)")
    parser.add_argument("--no-peers", action="store_true", help="measure ours alone, which is much quicker")


def run(arguments: argparse.Namespace, lab: Lab) -> int:
    figures = bench.run_bench(
        lab,
        arguments.name,
        release=arguments.release,
        rounds=arguments.rounds,
        peers=not arguments.no_peers,
    )
    lab.progress.say(json.dumps(figures))
    return 0


COMMAND = Command(
    name="bench",
    summary="measure, and print the figures as one line of JSON",
    details="\n".join(f"  {name:10} {known.summary}" for name, known in bench.BENCHES.items()),
    arguments=add_arguments,
    run=run,
)
