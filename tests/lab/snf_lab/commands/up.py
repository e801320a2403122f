"""`./lab up`: a running, verified cluster with our packages."""

from __future__ import annotations

import argparse

from snf_lab.command import Command, add_lab_arguments
from snf_lab.lab import Lab
from snf_lab.progress import render_seconds


def run(arguments: argparse.Namespace, lab: Lab) -> int:
    lab.ensure_up(nodes=arguments.nodes, release=arguments.release, dev=arguments.dev, storage=arguments.storage)
    took = render_seconds(sum(lab.progress.taken.values()))
    lab.progress.say(f"The lab is up ({took}). Enter it with ./lab sh 1; end it with ./lab down.")
    return 0


COMMAND = Command(
    name="up",
    summary="start the lab, or bring it up to what is asked",
    details="What is there already is kept: a lab grows, boots its nodes again and gets the tree's latest packages.",
    arguments=add_lab_arguments,
    run=run,
)
