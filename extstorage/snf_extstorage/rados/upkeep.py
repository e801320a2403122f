"""What nobody is at work on any more is finished or thrown away; what is not as it should be is told."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TypeVar

from snf_extstorage.rados import snapshots
from snf_extstorage.rados.claims import drop_old
from snf_extstorage.rados.kept import ADOPTED, GONE, Kept, base_image
from snf_extstorage.rados.record import BaseRecord, State, Table, VolumeRecord
from snf_extstorage.volume import InUse, NotFound, SnapshotName

R = TypeVar("R", VolumeRecord, BaseRecord)


def sweep(kept: Kept, *, older_than_s: float) -> list[str]:
    """Finish what was being made or removed by who died so long ago. Returns what went, for people."""
    before = time.time() - older_than_s
    drop_old(kept.claims, older_than_s=older_than_s)
    return [
        *_snapshots(kept, before),
        *_volumes(kept, before),
        *_bases(kept, before),
        *_gone(kept),
    ]


def _snapshots(kept: Kept, before: float) -> Iterator[str]:
    for name, record in list(kept.snapshots.items()):
        if record.state == "removing" or (record.state == "making" and record.made_s < before):
            snapshots.drop(kept, SnapshotName(name))
            if kept.snapshots.get(name) is None:  # of a cut: when the last of it goes
                yield f"snapshot {name}"


def _volumes(kept: Kept, before: float) -> Iterator[str]:
    for name, record in list(kept.volumes.items()):
        if record.state != "ready" and record.made_s < before and not record.origin.startswith(ADOPTED):
            with contextlib.suppress(InUse):  # its maker lives after all
                kept.remove_volume(name, record)
                yield f"volume {name}"
    for name, record in _adopted(kept, "ready"):
        if record.state == "ready" and kept.volumes.swap(name, record, None):
            yield f"record of volume {name}, which was adopted,"


def _adopted(kept: Kept, *states: State) -> Iterator[tuple[str, VolumeRecord]]:
    """Volumes whose images have become others', by adoptions that died in one of these states."""
    there, records = set(kept.images.names()), dict(kept.volumes.items())
    for record in records.values():
        old = record.origin.removeprefix(ADOPTED)
        if record.origin.startswith(ADOPTED) and record.state in states and old in records and old not in there:
            yield old, records[old]


def _bases(kept: Kept, before: float) -> Iterator[str]:
    for key, record in list(kept.bases.items()):
        if record.state != "ready" and record.made_s < before:
            with contextlib.suppress(InUse):
                kept.remove_base(key)
                yield f"base of map {key}"


def _gone(kept: Kept) -> Iterator[str]:
    for name in _unneeded(kept):
        kept.dispose(name)
        if not kept.images.is_there(name):
            yield f"image {name}, which nothing of ours needed any more,"
    emptied = kept.images.empty_trash(prefix=GONE)
    if emptied:
        yield f"{emptied} images that no clone needed any more"


def _unneeded(kept: Kept) -> list[str]:
    """Images that had to go, and that no snapshot of ours keeps: their remover died on the way to the trash.

    Ours are those alone that are called by their own id; anybody may call his own image `gone.something`.
    """
    found = kept.images.identities().items()
    ours = [(name, identity) for name, identity in found if identity and name == f"{GONE}{identity}"]
    return [name for name, identity in ours if not kept.snapshots_of(identity)]


def _is_lost(kept: Kept, table: Table[R], key: str, record: R, image: str) -> bool:
    """Looked at again: what was made after the images were listed is not lost, nor what was removed since."""
    return not kept.images.is_there(image) and table.get(key) == record


def check(kept: Kept) -> Iterator[str]:
    """A sentence for each record that cannot be read, each without its image, and each thing half made."""
    there = set(kept.images.names())
    for table in (kept.volumes, kept.snapshots, kept.bases, kept.places, kept.claims):
        for _, fault in table.damaged():
            yield str(fault)
    adopted = {name for name, _ in _adopted(kept, "making", "ready")}
    for name, volume in kept.volumes.items():
        if volume.state != "ready" or name in adopted:
            yield f"volume {name} is half made or half removed; creating or removing it again finishes that"
        elif name not in there and _is_lost(kept, kept.volumes, name, volume, name):
            yield f"volume {name} has a record and no image in pool {kept.images.place}"
    for key, base in kept.bases.items():
        image = base_image(key)
        if base.state == "ready" and image not in there and _is_lost(kept, kept.bases, key, base, image):
            yield f"the base of map {key} has a record and no image in pool {kept.images.place}"
    for name, snapshot in kept.snapshots.items():
        if snapshot.state == "ready":
            try:
                with kept.images.opened(image=snapshot.image, number=snapshot.number):
                    pass
            except NotFound:
                if kept.snapshots.get(name) == snapshot:  # not dropped meanwhile
                    yield f"snapshot {name} has a record, and its image has no such snapshot"
    for name in _unneeded(kept):
        yield f"image {name} was to be removed by a process that died; `snf-store gc --do` removes it"
