"""The snapshots of a folder: files that nobody writes, each with a record of what it was cut from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from snf_extstorage.directory.ahead import before_others, share_ahead
from snf_extstorage.directory.handles import new_file, reading
from snf_extstorage.directory.kept import load
from snf_extstorage.directory.place import Place
from snf_extstorage.directory.record import SnapshotRecord, encode
from snf_extstorage.volume import Exists, Extent, InUse, SnapshotName, Still, Trace
from synnefo_light.errors import EnvironmentFault
from synnefo_light.files import locked, write_atomic
from synnefo_light.ganeti import VolumeName
from synnefo_light.reflink import clone_file

if TYPE_CHECKING:
    from synnefo_light.store.identity import MapId


class Snapshots:
    def __init__(self, place: Place, trace: Trace) -> None:
        self._place = place
        self._trace = trace

    def cut(self, cut: Mapping[VolumeName, SnapshotName], still: Still) -> None:
        """The clones are made one right after the other, then published; a crash between leaves the first ones.

        What was written goes to disk before the first clone, clones and records after the last one, and most of what
        there is to share is shared before, so that writers wait for what they wrote meanwhile.
        """
        for snapshot in cut.values():
            if self._place.folder("snapshots", snapshot).exists():
                raise Exists(f"a snapshot {snapshot} is to be made, but there is one of that name")
        with contextlib.ExitStack() as undo:
            sources = [(undo.enter_context(reading(self._place.disk("volumes", name), name)), name) for name in cut]
            for fd, _ in sources:
                os.fdatasync(fd)
            folders = [undo.enter_context(self._place.making("snapshots", partial(str, n))) for n in cut.values()]
            targets = [undo.enter_context(new_file(folder / "disk")) for folder in folders]
            for (source, _), target in zip(sources, targets, strict=True):
                self._trace("snapshot ahead")
                share_ahead(source, target)
            with still, before_others():
                for (source, _), target in zip(sources, targets, strict=True):
                    self._trace("snapshot disk")
                    clone_file(source, target)
                self._trace("snapshot cut")
            for (_, name), folder, target in zip(sources, folders, targets, strict=True):
                kept = SnapshotRecord(volume=name, size=os.fstat(target).st_size, map=load(self._place, name).map)
                self._trace("snapshot record")
                write_atomic(folder / "record", encode("snf-snapshot", kept), mode=0o600, durable=False)
            self._trace("snapshot publish")
        self._trace("snapshot done")

    def record(self, name: SnapshotName) -> SnapshotRecord:
        return self._place.record("snapshots", name, "snf-snapshot", SnapshotRecord, f"snapshot {name}")

    def dirty(self, source: SnapshotName, since: MapId | None) -> Iterator[Extent]:
        from snf_extstorage.directory import contents

        kept = self.record(source)
        base = self._place.disk("bases", since) if since else None
        yield from contents.dirty(self._place.disk("snapshots", source), base, size=kept.size)

    @contextlib.contextmanager
    def claim(self, source: SnapshotName, *, wait_s: float) -> Iterator[None]:
        """By its lock file, which is the same on every node. Raises InUse."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self._place.folder("snapshots", source) / "lock", wait_s=wait_s))
            except FileNotFoundError:
                pass  # committed and dropped already
            except EnvironmentFault:
                why = f"snapshot {source} is being committed by another process, perhaps on another node; wait for it"
                raise InUse(why) from None
            yield
