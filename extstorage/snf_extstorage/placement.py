"""Where Ganeti has an instance and in which order its disks are: its configuration, where this node has a copy of it.

The master and its candidates have one. Elsewhere the number in a volume's name has to do, which is the disk's at its
creation: removing or inserting a disk later moves the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from snf_extstorage.guests import instance_of
from snf_extstorage.volume import VolumeFacts
from synnefo_light.errors import EnvironmentFault, ProtocolError, UserError
from synnefo_light.files import read_bounded

CONFIGURATION: Final = Path("/var/lib/ganeti/config.data")
#: Ganeti writes about 10 kB an instance.
_LIMIT: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    node: str  # the instance's primary
    disks: tuple[str, ...]  # UUIDs, in order


def load_placement(instance: str, *, file: Path = CONFIGURATION) -> Placement | None:
    """None on a node without a copy of the configuration, or if the instance is not in it. Raises ProtocolError."""
    try:
        raw = read_bounded(file, limit=_LIMIT)
    except FileNotFoundError:
        return None
    return parse_placement(raw, instance)


def parse_placement(raw: bytes, instance: str) -> Placement | None:
    """Ganeti's `config.data` of 3.0 and 3.1; None for an instance that is not in it. Raises ProtocolError."""
    try:
        whole = json.loads(raw)
        found = [i for i in _objects(whole, "instances").values() if i["name"] == instance]
        if not found:
            return None
        disks, node = found[0]["disks"], _objects(whole, "nodes")[found[0]["primary_node"]]["name"]
        if not isinstance(node, str) or not all(isinstance(uuid, str) for uuid in disks):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise ProtocolError("config.data does not say whose disks are which, as Ganeti 3.0 and 3.1 do") from None
    return Placement(node=node, disks=tuple(disks))


def load_disks(*, file: Path = CONFIGURATION) -> frozenset[str]:
    """UUIDs of all disks in Ganeti's configuration, also of those that were detached and that no instance has.

    Raises ProtocolError, and EnvironmentFault on a node without a copy of it: no disk would look like one of these.
    """
    try:
        raw = read_bounded(file, limit=_LIMIT)
    except FileNotFoundError:
        why = f"Ganeti is to be asked which disks are detached, but {file} is not on this node; call this on the master"
        raise EnvironmentFault(why) from None
    try:
        return frozenset(_objects(json.loads(raw), "disks"))
    except (ValueError, KeyError, TypeError):
        raise ProtocolError("config.data does not say which disks there are, as Ganeti 3.0 and 3.1 do") from None


def plan_disks(
    instance: str, wanted: str, placement: Placement | None, volumes: Sequence[VolumeFacts]
) -> Mapping[int, VolumeFacts]:
    """The instance's volumes by the number of the disk: all, or those of `wanted`, a list with commas.

    The list has numbers; or names or UUIDs of volumes, in the order of the disks. Raises UserError when the instance
    has no such disk here, or when nothing tells which is which.
    """
    words = wanted.split(",") if wanted else []
    named = {key: volume for volume in volumes for key in (volume.name, volume.uuid) if key}
    if words and all(word in named for word in words):
        for word in words:
            _require_own(instance, placement, named[word])
        return {number: named[word] for number, word in enumerate(words)}
    found = _by_uuid(placement, volumes) if placement is not None else _by_name(instance, volumes)
    if not found:
        raise UserError(f"no volume here belongs to the instance {instance}; `snf-store volume list` shows whose are")
    if not all(word.isascii() and word.isdigit() and int(word) in found for word in words):
        numbers = ", ".join(map(str, sorted(found)))
        raise UserError(f"{instance} has no disk {wanted} here; it has {numbers}")
    return {number: found[number] for number in (map(int, words) if words else sorted(found))}


def _require_own(instance: str, placement: Placement | None, volume: VolumeFacts) -> None:
    own = volume.uuid in placement.disks if placement is not None else instance_of(volume.info) == instance
    if not own:
        raise UserError(f"volume {volume.name} is no disk of {instance}; `snf-store volume list` shows whose it is")


def _by_uuid(placement: Placement, volumes: Iterable[VolumeFacts]) -> Mapping[int, VolumeFacts]:
    by_uuid = {volume.uuid: volume for volume in volumes}
    return {n: by_uuid[uuid] for n, uuid in enumerate(placement.disks) if uuid in by_uuid}


def _by_name(instance: str, volumes: Iterable[VolumeFacts]) -> Mapping[int, VolumeFacts]:
    found: dict[int, VolumeFacts] = {}
    for volume in volumes:
        stem, dot, text = volume.name.rpartition(".disk")
        if not (dot and stem and text.isascii() and text.isdigit() and instance_of(volume.info) == instance):
            continue
        number = int(text)
        if number in found:
            raise UserError(
                f"{found[number].name} and {volume.name} were both made as disk {number} of {instance}, and Ganeti's "
                f"configuration is not on this node; name them in the order of the disks: {instance}/VOLUME,VOLUME"
            )
        found[number] = volume
    return found


def _objects(whole: Any, key: str) -> Mapping[str, Any]:
    found = whole[key]
    if not isinstance(found, dict):
        raise TypeError
    return found
