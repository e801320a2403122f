"""`snf-store reconcile`: compare Ganeti's disks with our volumes."""

from __future__ import annotations

import argparse
from typing import Final

from snf_extstorage.commands import Out
from snf_extstorage.providers import open_volumes
from snf_extstorage.reconciliation import compare, parse_disks
from snf_extstorage.settings import Settings
from synnefo_light.run import run as run_program

NAME: Final = "reconcile"
SUMMARY: Final = "say which volumes Ganeti does not know, and which it misses; run it on the master"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--remove", action="store_true", help="remove the volumes that belong to no disk of Ganeti's")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    volumes = open_volumes(settings)
    # Volumes first: one that is made in between has its disk in Ganeti's answer already, or is not looked at.
    facts = [volumes.facts(name) for name in volumes.volumes()]
    words = ["gnt-instance", "list", "--no-headers", "--separator=|", "-o", "name,pnode,disk_template,disk.uuids"]
    found = list(compare(facts, parse_disks(run_program(words, timeout_s=120).text)))
    for one in found:
        out(f"{one.volume or '-'}: {one.why}")
        if arguments.remove and one.removable and one.volume is not None:
            volumes.remove(one.volume)
            out(f"{one.volume}: removed")
    return 1 if found else 0
