"""`./lab demo`: the main job, shown and checked."""

from __future__ import annotations

import argparse
from typing import cast

from snf_lab.command import Command
from snf_lab.demo import run_demo
from snf_lab.guest_recipe import Release
from snf_lab.lab import Lab
from snf_lab.state import RELEASES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--release", default="bookworm", choices=sorted(RELEASES), help="what the node runs")
    parser.add_argument("--guest", default="bookworm", choices=sorted(RELEASES), help="what the image holds")


def run(arguments: argparse.Namespace, lab: Lab) -> int:
    held = run_demo(lab, release=arguments.release, guest=cast(Release, arguments.guest))
    lab.progress.say(f"\nAll {held} checks held.")
    return 0


COMMAND = Command(
    name="demo",
    summary="deploy a real VM on a real Ganeti, log in, and check what was asked for",
    details="Installs what is missing, builds the packages, brings the lab up, makes a Debian image without a mount,\n"
    "deploys it with gnt-instance add, logs in at the serial console and over SSH, and checks from inside.\n"
    "Run again it keeps the lab and the image. Exit status 1 when a check fails.",
    arguments=add_arguments,
    run=run,
)
