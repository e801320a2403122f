"""The bases of a folder: files with the bytes of a map, which nobody writes and volumes are cloned from.

One is laid out of an open file whose blocks become a map at the same time, or composed of a map that is there.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from snf_extstorage.directory.handles import reading
from snf_extstorage.directory.place import Place
from snf_extstorage.directory.record import BaseRecord, encode
from snf_extstorage.directory.snapshots import Snapshots
from snf_extstorage.volume import Exists, SnapshotName, Trace
from synnefo_light.files import write_atomic
from synnefo_light.units import Bytes

if TYPE_CHECKING:
    from synnefo_light.store.commit import Commit
    from synnefo_light.store.dirty import DirtyBlocks
    from synnefo_light.store.identity import MapId
    from synnefo_light.store.maps import Map


class Bases:
    def __init__(self, place: Place, snapshots: Snapshots, trace: Trace) -> None:
        self._place = place
        self._snapshots = snapshots
        self._trace = trace

    def record(self, map: MapId) -> BaseRecord:
        return self._place.record("bases", map, "snf-base", BaseRecord, f"base of map {map}")

    def commit(self, source: SnapshotName, into: Commit, since: MapId | None) -> MapId:
        from snf_extstorage.directory import contents

        self._place.require_space()
        size = self._snapshots.record(source).size
        blocks = contents.blocks_of(self._snapshots.dirty(source, since), size=size)
        base = self._place.disk("bases", since) if since else None
        with reading(self._place.disk("snapshots", source), source) as fd:
            return self._lay_out(fd, Bytes(size), into, blocks, base=base)

    def register(self, source: int, size: Bytes, into: Commit) -> MapId:
        from synnefo_light.store.copying import data_blocks

        self._place.require_space()
        return self._lay_out(source, size, into, data_blocks(source, size), base=None)

    def _lay_out(self, source: int, size: Bytes, into: Commit, blocks: DirtyBlocks, *, base: Path | None) -> MapId:
        """Make a base of an open file, and a map of its blocks, whose name is that of the base."""
        from snf_extstorage.directory import contents

        map: list[MapId] = []
        with contextlib.suppress(Exists), self._place.making("bases", lambda: map[0]) as folder:
            self._trace("base disk")
            disk = folder / "disk"
            contents.lay_out(source, disk, blocks, base=base, size=size, require_space=self._place.require_space)
            self._trace("base blocks")
            # What was laid out may be a file that is still being written, and have data where there was none before.
            map.append(contents.commit(disk, blocks if base else None, into, size=size))
            self._trace("base record")
            write_atomic(folder / "record", encode("snf-base", BaseRecord(size=size)), mode=0o600, durable=False)
            self._trace("base publish")
        self._trace("base done")
        return map[0]

    def compose(self, content: Map) -> None:
        from snf_extstorage.directory import contents

        if self._place.folder("bases", content.id).exists():
            self._place.sync("bases")
            return
        self._place.require_space()
        with contextlib.suppress(Exists), self._place.making("bases", lambda: content.id) as folder:
            self._trace("compose disk")
            contents.compose(content, folder / "disk", require_space=self._place.require_space)
            self._trace("compose record")
            write_atomic(
                folder / "record", encode("snf-base", BaseRecord(size=content.size)), mode=0o600, durable=False
            )
            self._trace("compose publish")
        self._trace("compose done")
