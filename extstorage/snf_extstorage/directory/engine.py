"""The engine `directory`: see volume.py for its promises, place.py for the folder, access.py for who may write.

Steps of what makes a thing, each told to `trace` before it is taken:

    1 disk     the file, sparse or a clone that shares all extents
    2 record   beside it
    3 publish  both are synced, and their folder is renamed: commit point

Died before 3: a temporary folder, which `sweep` removes; the same call makes it anew. Died after 3: it is there, and
the same call finds that it is what was asked for. Removing: 1 device, 2 rename to the trash (commit point), 3 freeing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast

from snf_extstorage.directory import sharing
from snf_extstorage.directory.access import Access
from snf_extstorage.directory.ahead import before_others, share_ahead
from snf_extstorage.directory.bases import Bases
from snf_extstorage.directory.copies import render_copy
from snf_extstorage.directory.handles import new_file, reading
from snf_extstorage.directory.kept import held, load, passing_over, refuse_half, save
from snf_extstorage.directory.loops import Loops
from snf_extstorage.directory.mount import require_shared_locks
from snf_extstorage.directory.place import Place
from snf_extstorage.directory.record import VolumeRecord
from snf_extstorage.directory.snapshots import Snapshots
from snf_extstorage.refusals import (
    is_lent,
    refuse_adopting,
    refuse_other,
    refuse_resizing,
    refuse_returning,
    refuse_smaller,
)
from snf_extstorage.settings import Settings
from snf_extstorage.volume import (
    RUNNING,
    Attachment,
    Exists,
    Extent,
    FromBase,
    FromSnapshot,
    FromVolume,
    NotFound,
    Origin,
    SnapshotFacts,
    SnapshotName,
    Space,
    Still,
    Trace,
    VolumeFacts,
    no_trace,
)
from synnefo_light.files import write_atomic
from synnefo_light.ganeti import VolumeName, cluster_name
from synnefo_light.reflink import clone_file
from synnefo_light.units import KIB, MIB, Bytes

if TYPE_CHECKING:
    from synnefo_light.store.commit import Commit
    from synnefo_light.store.identity import MapId
    from synnefo_light.store.maps import Map

COW_EXTENT: Final = MIB


class DirectoryVolumes:
    """The volumes of one folder, as seen from one node."""

    # Guests are stopped between the clones of a cut; each takes about 3 us an extent, and 25 us if that just changed.
    cuts_together = False
    resets = True

    def __init__(
        self,
        place: Place,
        *,
        node: str,
        hints: Path,
        cluster: str = "",
        cow_extent: int = COW_EXTENT,
        trace: Trace = no_trace,
    ) -> None:
        self.place = place
        self._cluster = cluster
        self._cow_extent = cow_extent
        self._trace = trace
        self._snapshots = Snapshots(place, trace)
        self._bases = Bases(place, self._snapshots, trace)
        self._access = Access(place, Loops(node, hints), node=node, cow_extent=cow_extent, trace=trace)

    # --- making and removing

    def create(self, name: VolumeName, *, uuid: str | None, size: Bytes) -> None:
        self._make(name, uuid=uuid, size=size, origin="zeros", map=None, source=None)

    def clone(self, origin: Origin, name: VolumeName, *, uuid: str | None, size: Bytes) -> None:
        source, has, map, shown = self._origin(origin)
        refuse_smaller(name, size, origin=shown, has=has)
        live = isinstance(origin, FromVolume)
        self._make(name, uuid=uuid, size=size, origin=shown, map=map, source=source, live=live)

    def adopt(self, source: VolumeName, name: VolumeName, *, uuid: str | None, size: Bytes) -> None:
        """The volume `source` gets another name. The new uuid is written first, the rename is the commit point."""
        with contextlib.suppress(NotFound):
            found = load(self.place, name)
            if found.uuid == uuid and found.size == size and not self._exists("volumes", source):
                self.place.sync("volumes")
                return
            raise Exists(f"volume {source} is to become {name}, but there is one of that name")
        with held(self.place, source) as record:
            refuse_adopting(source, name, record=record, uuid=uuid)
            refuse_resizing(source, name, has=record.size, size=size)
            with self._access.leaving(source, record, wanted="adopted"):
                self._trace("adopt record")
                kept = VolumeRecord(
                    uuid=uuid,
                    size=size,
                    origin=record.origin,
                    map=record.map,
                    generation=record.generation + 1,
                    owed=record.owed,
                    formerly=source,
                    cluster=self._cluster,
                )
                save(self.place, source, kept)
                self._trace("adopt publish")
                os.rename(self.place.folder("volumes", source), self.place.folder("volumes", name))
                self.place.sync("volumes")

    def remove(self, name: VolumeName, *, deserted: bool = False) -> None:
        try:
            with held(self.place, name) as record, self._access.leaving(name, record, deserted=deserted):
                if is_lent(name, record):
                    self._give_back(name, record)
                else:
                    self._trace("remove publish")
                    self.place.discard("volumes", name)
        except NotFound:
            refuse_half(self.place, name)
            self._access.detach(name)
            self.place.sync("volumes")

    def _give_back(self, name: VolumeName, record: VolumeRecord) -> None:
        """As `adopt`: the record first, which keeps the old name, then the rename."""
        if record.formerly != name and self._exists("volumes", record.formerly):
            refuse_returning(name, record.formerly)
        self._trace("return record")
        save(self.place, name, _freed(record))
        self._trace("return publish")
        old, new = (self.place.folder("volumes", one) for one in (name, record.formerly))
        self.place.roomy(lambda: os.rename(old, new))
        self.place.sync("volumes")

    def release(self, name: VolumeName) -> None:
        with held(self.place, name) as record, self._access.leaving(name, record, wanted="released"):
            self._trace("release record")
            save(self.place, name, dataclasses.replace(_freed(record), formerly=""))

    def set_cluster(self, name: VolumeName, cluster: str) -> None:
        with held(self.place, name) as record:
            self._trace("setcluster record")
            save(self.place, name, dataclasses.replace(record, cluster=cluster))

    def _make(
        self,
        name: VolumeName,
        *,
        uuid: str | None,
        size: Bytes,
        origin: str,
        map: str | None,
        source: Path | None,
        live: bool = False,
    ) -> None:
        record = VolumeRecord(uuid=uuid, size=size, origin=origin, map=map, cluster=self._cluster)
        if self._is_there(name, record):
            return
        self.place.require_space()
        try:
            with self.place.making("volumes", lambda: name) as folder:
                self._trace("create disk")
                _make_disk(folder / "disk", size=size, source=source, cow_extent=self._cow_extent, live=live)
                self._trace("create record")
                copy = render_copy(record, place=f"the record of volume {name}")
                write_atomic(folder / "record", 2 * copy, mode=0o600, durable=False)
                self._trace("create publish")
        except Exists:
            if not self._is_there(name, record):
                raise
        self._trace("create done")

    def _is_there(self, name: VolumeName, wanted: VolumeRecord) -> bool:
        """Whether an earlier call made it, durably. Raises Exists if it is another, or may have been written since."""
        try:
            found = load(self.place, name)
        except NotFound:
            return False
        refuse_other(name, found, wanted)
        self.place.sync("volumes")
        return True

    def _origin(self, origin: Origin) -> tuple[Path, int, str | None, str]:
        """The file to clone, its size, the map it began as, and its name for a message."""
        match origin:
            case FromBase(map=map):
                return self.place.disk("bases", map), self._bases.record(map).size, map, f"map {map}"
            case FromSnapshot(snapshot=snapshot):
                kept = self._snapshots.record(snapshot)
                return self.place.disk("snapshots", snapshot), kept.size, kept.map, f"snapshot {snapshot}"
            case FromVolume(volume=volume):
                record = load(self.place, volume)
                return self.place.disk("volumes", volume), record.size, record.map, f"volume {volume}"

    # --- snapshots

    def snapshot(self, cut: Mapping[VolumeName, SnapshotName], *, still: Still = RUNNING) -> None:
        self.place.require_space()
        self._snapshots.cut(cut, still)

    def snapshot_facts(self, name: SnapshotName) -> SnapshotFacts:
        kept = self._snapshots.record(name)
        return SnapshotFacts(name=name, volume=kept.volume, size=Bytes(kept.size), origin=_map_id(kept.map))

    def flush(self, names: Iterable[VolumeName]) -> None:
        for name in names:
            with reading(self.place.disk("volumes", name), name) as fd:
                os.fdatasync(fd)

    def drop_snapshot(self, name: SnapshotName) -> None:
        self._drop("snapshots", name)

    def drop_base(self, map: MapId) -> None:
        self._drop("bases", map)

    def _drop(self, kind: str, name: str) -> None:
        try:
            self.place.discard(kind, name)
        except FileNotFoundError:
            self.place.sync(kind)

    # --- from the store and into it

    def dirty(self, source: SnapshotName, since: MapId | None) -> Iterator[Extent]:
        yield from self._snapshots.dirty(source, since)

    def claim(self, source: SnapshotName, *, wait_s: float) -> AbstractContextManager[None]:
        return self._snapshots.claim(source, wait_s=wait_s)

    def commit(self, source: SnapshotName, into: Commit, since: MapId | None) -> MapId:
        return self._bases.commit(source, into, since)

    def register(self, source: int, size: Bytes, into: Commit) -> MapId:
        return self._bases.register(source, size, into)

    def compose(self, content: Map) -> None:
        self._bases.compose(content)

    # --- use

    def grow(self, name: VolumeName, new: Bytes) -> None:
        self._access.grow(name, new)

    def attach(self, name: VolumeName) -> Attachment:
        return self._access.attach(name)

    def detach(self, name: VolumeName) -> None:
        self._access.detach(name)

    def open(self, name: VolumeName, *, exclusive: bool) -> None:
        self._access.open(name, exclusive=exclusive)

    def close(self, name: VolumeName) -> None:
        self._access.close(name)

    def set_info(self, name: VolumeName, text: str) -> None:
        self._access.set_info(name, text)

    def set_origin(self, name: VolumeName, map: MapId | None) -> None:
        self._access.set_origin(name, map)

    # --- looking

    def facts(self, name: VolumeName) -> VolumeFacts:
        record = load(self.place, name)
        with reading(self.place.disk("volumes", name), name) as fd:
            stored = os.fstat(fd).st_blocks * 512
            extents = sharing.count_extents(fd)
        return VolumeFacts(
            name=name,
            uuid=record.uuid,
            size=Bytes(record.size),
            origin=_map_id(record.map),
            generation=record.generation,
            info=record.info,
            holders=record.holders,
            exclusive=record.exclusive,
            stored=Bytes(stored),
            extents=extents,
            cluster=record.cluster,
        )

    def find(self, uuid: str) -> VolumeName | None:
        for name in self.volumes():
            with passing_over(name):
                if load(self.place, name).uuid == uuid:
                    return name
        return None

    def changed(self, name: VolumeName, origin: Origin) -> int | None:
        from snf_extstorage.directory import contents

        source, has, *_ = self._origin(origin)
        size = load(self.place, name).size
        if has > size:
            return size
        return contents.changed(self.place.disk("volumes", name), source, size=size)

    def reset(self, name: VolumeName, origin: Origin) -> None:
        source, has, map, shown = self._origin(origin)
        refuse_smaller(name, load(self.place, name).size, origin=shown, has=has)
        self.place.require_space()
        self._access.reset(name, source, origin=shown, map=map)

    def age_s(self, kind: Literal["snapshots", "bases"], name: str) -> float:
        try:
            return time.time() - self.place.folder(kind, name).stat().st_mtime
        except FileNotFoundError:
            raise NotFound(f"there is no {name} among the {kind} in {self.place.root}") from None

    def volumes(self) -> Iterable[VolumeName]:
        return [VolumeName(n) for n in self.place.names("volumes")]

    def snapshots(self) -> Iterable[SnapshotName]:
        return [SnapshotName(n) for n in self.place.names("snapshots")]

    def bases(self) -> Iterable[MapId]:
        return [m for n in self.place.names("bases") if (m := _map_id(n))]

    def has_base(self, map: MapId) -> bool:
        return self._exists("bases", map)

    def space(self) -> Space:
        return self.place.space()

    def sweep(self) -> list[str]:
        return [str(path) for path in self.place.sweep()]

    def check(self) -> Iterator[str]:
        from snf_extstorage.directory.check import check_place

        yield from check_place(self.place)

    def _exists(self, kind: str, name: str) -> bool:
        return self.place.folder(kind, name).exists()


def volumes(settings: Settings) -> DirectoryVolumes:
    """Raises EnvironmentFault when the folder is none of ours, or not mounted."""
    place = Place(settings.folder, settings.reserve_percent)
    place.require_format()
    require_shared_locks(place.root)
    cow_extent = settings.cow_extent_kib * KIB
    hints = settings.run / "loops"
    return DirectoryVolumes(place, node=settings.node_name, hints=hints, cluster=cluster_name(), cow_extent=cow_extent)


def _freed(record: VolumeRecord) -> VolumeRecord:
    """As no disk's."""
    return dataclasses.replace(record, uuid=None, holders=(), exclusive=False, opened=True, info="", cluster="")


def _map_id(text: str | None) -> MapId | None:
    return cast("MapId", text) if text else None


def _make_disk(path: Path, *, size: int, source: Path | None, cow_extent: int, live: bool = False) -> None:
    """Not durable yet. `live`: somebody may be writing to `source`, and is not to wait for long."""
    with new_file(path) as target:
        if source is not None:
            with reading(source, source.parent.name) as fd:
                if live:
                    share_ahead(fd, target)
                with before_others() if live else contextlib.nullcontext():
                    clone_file(fd, target)
        os.ftruncate(target, size)
        if source is not None:
            # Only now: an origin that ends within a block has that block copied by ftruncate, and no more.
            sharing.hint_cow_extents(target, cow_extent)
