"""`snf-store reconcile`: compare Ganeti's disks with our volumes."""

from __future__ import annotations

import argparse
from typing import Final

from snf_extstorage.commands import Out
from snf_extstorage.providers import open_elsewhere, open_volumes
from snf_extstorage.readable import readable_facts
from snf_extstorage.reconciliation import compare, parse_disks, parse_unfinished
from snf_extstorage.settings import Settings
from synnefo_light.errors import UsageError, UserError
from synnefo_light.ganeti import cluster_name
from synnefo_light.run import run as run_program

NAME: Final = "reconcile"
SUMMARY: Final = "say which volumes Ganeti does not know, and which it misses; run it on the master"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--remove", action="store_true", help="remove the volumes that belong to no disk of Ganeti's")
    parser.add_argument(
        "--fence", action="store_true", help="with --remove: also those that a node that is gone may write"
    )


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    if arguments.fence and not arguments.remove:
        raise UsageError("--fence says which volumes --remove removes, and that was not given; give both")
    places = [open_volumes(settings), *open_elsewhere(settings).volumes()]
    # Volumes, then jobs, then disks: what a job made that has ended is among Ganeti's disks, or was left behind.
    facts = {one.name: (one, volumes) for volumes in places for one in readable_facts(volumes)}
    if unfinished := parse_unfinished(_list("gnt-job", "id,status,summary")):
        shown = ", ".join(unfinished[:5])
        if arguments.remove:
            raise UserError(f"volumes are to be removed, but jobs that may make some have not ended ({shown}); wait")
        out(f"these jobs have not ended, and some of what follows may be theirs: {shown}")
    disks = parse_disks(_list("gnt-instance", "name,pnode,disk_template,disk.uuids"))
    found = list(compare([one for one, _ in facts.values()], disks, cluster=cluster_name()))
    for one in found:
        out(f"{one.volume or '-'}: {one.why}")
        wanted = arguments.remove and one.removable and (arguments.fence or not one.held)
        if wanted and one.volume is not None:
            facts[one.volume][1].remove(one.volume, deserted=arguments.fence)
            out(f"{one.volume}: removed")
    return 1 if found else 0


def _list(command: str, columns: str) -> str:
    return run_program([command, "list", "--no-headers", "--separator=|", "-o", columns], timeout_s=120).text
