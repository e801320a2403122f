"""What Ganeti says there is against what there is: pure.

Ganeti takes a disk for removed when its `attach` failed meanwhile, so an outage during a removal leaves a volume that
nobody will ever ask for again. A volume is its disk's by the UUID that Ganeti passed at its creation.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from snf_extstorage.volume import VolumeFacts
from synnefo_light.errors import ProtocolError, UserError
from synnefo_light.ganeti import VolumeName, is_uuid
from synnefo_light.log import escape

#: Of a job (gnt-job(8)); in every other state it may yet make or remove a disk.
FINISHED: Final = ("success", "error", "canceled")
#: What an export makes of a disk, beside it.
_SNAPSHOT: Final = re.compile(r"(.+\.ext\.disk[0-9]+)\.snap")


@dataclass(frozen=True, slots=True, kw_only=True)
class GanetiDisk:
    instance: str
    node: str  # the instance's primary
    template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`removable`: nobody but a person could miss the volume. `held`: somebody is written down as a writer of it."""

    volume: VolumeName | None
    why: str
    removable: bool = False
    held: bool = False


def parse_disks(text: str) -> dict[str, GanetiDisk]:
    """`gnt-instance list --no-headers --separator='|' -o name,pnode,disk_template,disk.uuids`, by disk UUID.

    Raises ProtocolError for a line that is not that: a disk that is read past would look like one that is gone.
    """
    found: dict[str, GanetiDisk] = {}
    for line in text.splitlines():
        words = line.strip().split("|")
        if len(words) != 4:
            raise ProtocolError(f"gnt-instance list answered {escape(line)!r}, which is not name|node|template|disks")
        name, node, template, uuids = words
        for uuid in _parse_uuids(uuids):
            found[uuid] = GanetiDisk(instance=name, node=node, template=template)
    return found


def _parse_uuids(text: str) -> list[str]:
    """Ganeti 3.0 and 3.1 print the field as Python's repr of a list, or "-"."""
    if text == "-":
        return []
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        found = None
    if not isinstance(found, list) or not all(isinstance(uuid, str) and is_uuid(uuid) for uuid in found):
        raise ProtocolError(f"gnt-instance list answered {escape(text[:200])!r} for disk.uuids, not a list of UUIDs")
    return found


def parse_unfinished(text: str) -> tuple[str, ...]:
    """`gnt-job list --no-headers --separator='|' -o id,status,summary`: "ID SUMMARY" of jobs that may yet change disks.

    Raises ProtocolError for a line that is not that.
    """
    found = []
    for line in text.splitlines():
        words = line.strip().split("|", maxsplit=2)
        if len(words) != 3 or not words[0].isdecimal():
            raise ProtocolError(f"gnt-job list answered {escape(line)!r}, which is not id|status|summary")
        if words[1] not in FINISHED:
            found.append(f"{words[0]} {words[2]}")
    return tuple(found)


def compare(
    volumes: Iterable[VolumeFacts],
    disks: Mapping[str, GanetiDisk],
    *,
    cluster: str,
    of: str | None = None,
    detached: Collection[str] = frozenset(),
) -> Iterator[Difference]:
    """In the order of the volumes, then what Ganeti has and we have not.

    `cluster`: the name of the Ganeti that was asked. Several may use one folder or pool, and none knows the others'
    disks, so what was made for another, or for nobody knows whom, is told and not removable. `of`: a cluster that is no
    more; what was made for it and is no disk's is as if made for this. `detached`: disks of which Ganeti says that no
    instance has them.
    """
    volumes = list(volumes)
    names = {volume.name for volume in volumes}
    ours = {cluster, of} - {"", None} if cluster else set()
    seen = set()
    for volume in volumes:
        disk = disks.get(volume.uuid or "")
        seen.add(volume.uuid)
        if disk is None and volume.uuid in detached:
            yield Difference(volume=volume.name, why=f"is Ganeti's disk {volume.uuid}, which no instance has: detached")
        elif disk is None:
            yield _without_disk(volume, names, volume.cluster in ours)
        elif volume.cluster not in ("", cluster):
            yield Difference(
                volume=volume.name,
                why=f"is a disk of {disk.instance}, but was made for cluster {volume.cluster}; if that was the name of "
                f"this one, `snf-store reconcile --rename {volume.cluster}` writes down the new one",
            )
        elif volume.holders and not any(is_same_node(disk.node, holder) for holder in volume.holders):
            who = ", ".join(volume.holders)
            yield Difference(
                volume=volume.name,
                why=f"{disk.instance} is on {disk.node}, but {who} may write; starting it there takes the volume over",
            )
    for uuid, disk in disks.items():
        if disk.template == "ext" and uuid not in seen:
            yield Difference(
                volume=None, why=f"disk {uuid} of {disk.instance} has no volume here: another provider's, or lost"
            )


def plan_rename(
    volumes: Iterable[VolumeFacts], disks: Collection[str], *, old: str, cluster: str
) -> tuple[VolumeName, ...]:
    """The volumes of Ganeti's disks that were made when it was called `old`. Raises UserError.

    What is no disk's stays as it is: another cluster may have that name by now; see `of` of `compare`.
    """
    if not cluster or old == cluster:
        raise UserError(f"{old} is to be the name that this cluster had, but it is called {cluster or 'nothing'} now")
    return tuple(v.name for v in volumes if v.cluster == old and v.uuid in disks)


def refuse_releasing(
    volume: VolumeFacts, disks: Mapping[str, GanetiDisk], *, cluster: str, of: str | None, detached: Collection[str]
) -> None:
    """Raises UserError for a volume that Ganeti has, or that may be another Ganeti's.

    `of`: the one that is gone; "": whichever it is that a volume was made for without its name, it is gone.
    """
    disk = disks.get(volume.uuid or "")
    if disk is not None:
        raise UserError(f"volume {volume.name} is to be released, but it is a disk of {disk.instance}")
    if volume.uuid in detached:
        raise UserError(
            f"volume {volume.name} is to be released, but it is Ganeti's disk {volume.uuid}, which was "
            "detached; attach that to the instance that is to have it (gnt-instance modify --disk attach)"
        )
    if volume.uuid is not None and not volume.cluster and of != "":
        raise UserError(
            f"volume {volume.name} is to be released, but it was made for Ganeti's disk {volume.uuid}, and of which "
            "cluster was not written down; if no other that uses this place has that disk, give --of ''"
        )
    if volume.cluster not in ("", cluster, of):
        raise UserError(
            f"volume {volume.name} is to be released, but it was made for cluster {volume.cluster}, which this one "
            f"({cluster or 'none'}) cannot speak for; call this there, or, if there is no such cluster any more, give "
            f"--of {volume.cluster}"
        )


def is_same_node(one: str, other: str) -> bool:
    """Ganeti has nodes by their full names; a record has what the host calls itself, often the first label alone."""
    if "." in one and "." in other:
        return one == other
    return one.partition(".")[0] == other.partition(".")[0]


def _without_disk(volume: VolumeFacts, names: Collection[str], ours: bool) -> Difference:
    snapshot = _SNAPSHOT.fullmatch(volume.name) if volume.uuid is None else None
    whose = ""
    if not ours:
        whose = f"cluster {volume.cluster}" if volume.cluster else "a cluster whose name was not written down"
        whose = f"; it was made for {whose}"
    if not ours and volume.cluster:
        whose += f"; --of {volume.cluster} says that there is none of that name any more"
    if snapshot is not None:
        why = "is a snapshot for an export that died"
        removable = ours and snapshot[1] not in names
        if snapshot[1] in names:
            why += "; the next one replaces it"
        why += whose
    elif volume.uuid is None:
        why, removable = "was not made by Ganeti", False
    elif ours:
        why, removable = "belongs to no disk of Ganeti's: a removal that failed, or a creation", True
    else:
        why, removable = f"belongs to no disk of Ganeti's here{whose}", False
    if volume.holders:
        why += f"; {', '.join(volume.holders)} may write"
    return Difference(volume=volume.name, why=why, removable=removable, held=bool(volume.holders))
