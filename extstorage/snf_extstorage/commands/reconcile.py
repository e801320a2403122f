"""`snf-store reconcile`: compare Ganeti's disks with our volumes."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Final

from snf_extstorage.commands import Out
from snf_extstorage.placement import load_disks
from snf_extstorage.providers import open_elsewhere, open_volumes
from snf_extstorage.readable import readable_facts
from snf_extstorage.reconciliation import Difference, GanetiDisk, compare, parse_disks, parse_unfinished, plan_rename
from snf_extstorage.settings import Settings
from snf_extstorage.volume import VolumeFacts, Volumes
from synnefo_light.errors import EnvironmentFault, Error, ToolError, UsageError, UserError
from synnefo_light.ganeti import VolumeName, cluster_name
from synnefo_light.run import run as run_program

NAME: Final = "reconcile"
SUMMARY: Final = "say which volumes Ganeti does not know, and which it misses; run it on the master"


#: Where each volume was found.
Facts = dict[VolumeName, tuple[VolumeFacts, Volumes]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--remove", action="store_true", help="remove the volumes that belong to no disk of Ganeti's")
    parser.add_argument(
        "--rename", metavar="OLD", help="after gnt-cluster rename: volumes of disks of cluster OLD are ours"
    )
    parser.add_argument(
        "--of", metavar="OLD", help="what was made for cluster OLD, which is no more, and is no disk's counts as ours"
    )
    parser.add_argument(
        "--fence", action="store_true", help="with --remove: also those that a node that is gone may write"
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ganeti:
    """What this node's Ganeti says. Only the master knows."""

    unfinished: str  # jobs that may yet make or remove a disk; "": none
    disks: Mapping[str, GanetiDisk]
    detached: frozenset[str]
    cluster: str


def ask_ganeti() -> Ganeti:
    """Ask after our own volumes were looked at, so that what a job made that has ended is among Ganeti's disks."""
    unfinished = parse_unfinished(_list("gnt-job", "id,status,summary"))
    disks = parse_disks(_list("gnt-instance", "name,pnode,disk_template,disk.uuids"))
    return Ganeti(
        unfinished=", ".join(unfinished[:5]),
        disks=disks,
        detached=load_disks() - set(disks),
        cluster=cluster_name(),
    )


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    if arguments.fence and not arguments.remove:
        raise UsageError("--fence says which volumes --remove removes, and that was not given; give both")
    if arguments.of == "":
        raise UsageError("--of wants the name of a cluster that is no more, and was given none")
    facts, lost = _look(open_volumes(settings), open_elsewhere(settings).volumes())
    ganeti = ask_ganeti()
    shown = ganeti.unfinished
    if shown and arguments.remove:
        raise UserError(f"volumes are to be removed, but jobs that may make some have not ended ({shown}); wait")
    if shown:
        out(f"these jobs have not ended, and some of what follows may be theirs: {shown}")
    if arguments.rename is not None:
        _rename(facts, ganeti, arguments.rename, out)
    compared = compare(
        [one for one, _ in facts.values()],
        ganeti.disks,
        cluster=ganeti.cluster,
        of=arguments.of,
        detached=ganeti.detached,
    )
    found = [*lost, *compared]
    for one in found:
        out(f"{one.volume or '-'}: {one.why}")
        wanted = arguments.remove and one.removable and (arguments.fence or not one.held)
        if wanted and one.volume is not None:
            facts[one.volume][1].remove(one.volume, deserted=arguments.fence)
            out(f"{one.volume}: removed")
    return 1 if found else 0


def _look(here: Volumes, elsewhere: Iterable[Volumes]) -> tuple[Facts, list[Difference]]:
    """All that there is, and a sentence for each other pool that is lost, which is no reason to leave the rest."""
    facts, lost = _facts(here), []
    for volumes in elsewhere:
        try:
            facts |= _facts(volumes)
        except Error as e:
            why = f"a pool that disks of the provider rados are in is left out, `snf-store fsck` says which: {e}"
            lost.append(Difference(volume=None, why=why))
    return facts, lost


def _facts(volumes: Volumes) -> Facts:
    return {one.name: (one, volumes) for one in readable_facts(volumes)}


def _rename(facts: Facts, ganeti: Ganeti, old: str, out: Out) -> None:
    """Also in `facts`: looked at again, what was made since Ganeti was asked would seem to belong to no disk."""
    ours = [one for one, _ in facts.values()]
    for name in plan_rename(ours, ganeti.disks, old=old, cluster=ganeti.cluster):
        known, volumes = facts[name]
        volumes.set_cluster(name, ganeti.cluster)
        facts[name] = dataclasses.replace(known, cluster=ganeti.cluster), volumes
        out(f"{name}: is of cluster {ganeti.cluster} now")


def _list(command: str, columns: str) -> str:
    try:
        return run_program([command, "list", "--no-headers", "--separator=|", "-o", columns], timeout_s=120).text
    except ToolError as e:
        if e.outcome != "was not found":
            raise
        why = f"Ganeti is to be asked which disks it has, but {command} is not on this node; call this on the master"
        raise EnvironmentFault(why) from e
