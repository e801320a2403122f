"""`./lab status`: what each node is doing."""

from __future__ import annotations

import argparse

from snf_lab.command import Command
from snf_lab.lab import Lab
from snf_lab.progress import render_table


def run(arguments: argparse.Namespace, lab: Lab) -> int:
    nodes = lab.status()
    if not nodes:
        lab.progress.say(f"There is no lab in {lab.state.path}; make one with ./lab up.")
        return 0
    rows = [("NODE", "STATE", "RELEASE", "GANETI", "INSTANCES")]
    for node in nodes:
        instances = ", ".join(f"{i.name} ({i.status})" for i in node.instances) or "-"
        rows.append((node.name, node.state, node.release, node.ganeti or "-", instances))
    lab.progress.say(render_table(rows))
    return 0


COMMAND = Command(name="status", summary="the nodes, their Ganeti and instances", run=run)
