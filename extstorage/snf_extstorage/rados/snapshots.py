"""Snapshots of volumes: one by one as RBD's snapshots, several disks in one cut as an RBD group's.

Making one: 1 record (making), 2 the snapshot, 3 record (ready, with the snapshot's own size, for a volume may grow
before 2): the commit point. A cut of several: 1 all records,
2 the group's snapshot, for which librbd takes all images' locks, so that no write is between two of them, 3 the
records, one by one. Died before 3: the same names can be used again, and what is there is dropped first; in the midst
of 3 some of a cut's snapshots are there, each of them whole.

RBD before Ceph 19 cannot clone a group's snapshot: what begins as one is copied, or cloned from its map once there is
one.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from snf_extstorage.rados.images import Frozen
from snf_extstorage.rados.kept import GONE, Kept
from snf_extstorage.rados.record import SnapshotRecord
from snf_extstorage.volume import Exists, InUse, NotFound, SnapshotName, Still
from synnefo_light.errors import Error
from synnefo_light.ganeti import VolumeName

#: How the groups of our cuts are called.
CUT: Final = "snf.cut-"


def take(kept: Kept, cut: Mapping[VolumeName, SnapshotName], still: Still) -> None:
    """See `Volumes.snapshot`."""
    records: dict[VolumeName, SnapshotRecord] = {}
    group = f"{CUT}{secrets.token_hex(8)}" if len(cut) > 1 else ""
    for volume, name in cut.items():
        found = kept.snapshots.get(name)
        if found is not None and found.state == "ready":
            raise Exists(f"a snapshot {name} is to be made, but there is one of that name")
        record = kept.volume(volume)
        with kept.images.opened(volume) as image:
            identity, size = str(image.id()), int(image.size())
            if group:
                _leave_other_cut(kept, volume, kept.images.group_of(image))
        records[volume] = SnapshotRecord(
            state="making",
            volume=volume,
            image=identity,
            number=0,
            size=size,
            map=record.map,
            group=group,
            made_s=int(time.time()),
        )
    begun: list[SnapshotName] = []
    try:
        for volume, name in cut.items():
            _begin(kept, name, records[volume])
            begun.append(name)
        with still:
            frozen = _cut(kept, cut, group)
        for volume in cut:
            # One that was removed meanwhile has gone with what was no snapshot of ours yet.
            kept.volume(volume)
    except BaseException:
        for name in begun:
            with contextlib.suppress(Error):
                drop(kept, name)
        raise
    for volume, name in cut.items():
        kept.trace("snapshot publish")
        has = frozen[volume]
        ready = replace(records[volume], state="ready", number=has.number, size=has.size)
        if not kept.snapshots.swap(name, records[volume], ready):
            raise InUse(f"the snapshot {name} was dropped by another process while it was made")
    kept.trace("snapshot done")


def drop(kept: Kept, name: SnapshotName) -> None:
    """See `Volumes.drop_snapshot`. A cut's snapshots go when the last of them is dropped: RBD keeps them together."""
    found = kept.snapshots.get(name)
    if found is None:
        return
    going = replace(found, state="removing")
    kept.trace("drop record")
    if found != going and not kept.snapshots.swap(name, found, going):
        raise InUse(f"the snapshot {name} was changed by another process while it was to be dropped; try again")
    kept.trace("drop image")
    if going.group:
        _drop_of_group(kept, going.group)
        return
    _drop_from_image(kept, going, name)
    kept.snapshots.swap(name, going, None)
    _let_go(kept, going.image)


def clone_source(kept: Kept, name: SnapshotName) -> tuple[str, str, SnapshotRecord]:
    """Names of the image and the snapshot to clone. Raises NotFound."""
    found = kept.snapshot(name)
    with kept.images.opened(image=found.image) as image:
        return str(image.get_name()), name, found


def _begin(kept: Kept, name: SnapshotName, record: SnapshotRecord) -> None:
    found = kept.snapshots.get(name)
    if found is not None:  # of somebody who died
        drop(kept, name)
        if kept.snapshots.get(name) is not None:
            raise InUse(f"a snapshot {name} of an earlier cut waits for others of that cut to be dropped")
    kept.trace("snapshot record")
    if not kept.snapshots.swap(name, None, record):
        raise InUse(f"a snapshot {name} is being made by another process")


def _cut(kept: Kept, cut: Mapping[VolumeName, SnapshotName], group: str) -> dict[VolumeName, Frozen]:
    kept.trace("snapshot image")
    if group:
        made = kept.images.cut(group, list(cut), kept.trace)
        return {volume: made[volume] for volume in cut}
    frozen = {}
    for volume, name in cut.items():
        with kept.images.opened(volume, read_only=False) as image:
            frozen[volume] = kept.images.take_snapshot(image, name)
    return frozen


def _leave_other_cut(kept: Kept, volume: VolumeName, group: str) -> None:
    """An image is in one group at most: that of a cut that died, or of one that then fails. Raises InUse."""
    if group and not group.startswith(CUT):
        raise InUse(f"volume {volume} is to be cut, but it is in the RBD group {group}; take it out first")
    if group:
        kept.images.leave_group(group, volume)


def _drop_of_group(kept: Kept, group: str) -> None:
    kept.snapshots.require_whole()
    members = {name: record for name, record in kept.snapshots.items() if record.group == group}
    if any(record.state == "ready" for record in members.values()):
        return
    kept.images.drop_cut(group)
    for name, record in members.items():
        kept.snapshots.swap(name, record, None)
    for record in members.values():
        _let_go(kept, record.image)


def _drop_from_image(kept: Kept, record: SnapshotRecord, name: SnapshotName) -> None:
    with contextlib.suppress(NotFound), kept.images.opened(image=record.image, read_only=False) as image:
        kept.images.drop_snapshot(image, name)


def _let_go(kept: Kept, identity: str) -> None:
    """An image whose volume is gone already stays for its snapshots alone; after the last one it goes."""
    gone = f"{GONE}{identity}"
    with contextlib.suppress(NotFound), kept.images.opened(image=identity) as image:
        if image.get_name() != gone:
            return
    kept.dispose(gone)
    kept.images.empty_trash(prefix=GONE)
