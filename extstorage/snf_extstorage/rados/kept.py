"""The engine's three tables, and the images behind them: how a thing is made, is read, and goes.

    making ──► ready ──► removing ──► no record            each arrow is one swap of the record

Making: 1 record (making), 2 the image, 3 record (ready): the commit point. Removing: 1 record (removing): the commit
point, 2 the image, 3 no record. Died in between: the record says what was going on, and whoever calls the same again
throws away what is half there, or goes on removing. What has no record is not ours and is never touched.

An image that is removed while clones or snapshots need it gets the name `gone.ID`: with snapshots of ours it stays
under that name until the last is dropped, otherwise it goes to RBD's trash, from where it is purged once no clone
needs it any more.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from snf_extstorage.rados.images import Images
from snf_extstorage.rados.record import BaseRecord, SnapshotRecord, Table, VolumeRecord
from snf_extstorage.refusals import refuse_other
from snf_extstorage.volume import Exists, InUse, NotFound, Trace
from synnefo_light.store.rados_objects import Objects

GONE: Final = "gone."
#: How the origin of a volume begins that had another name before.
ADOPTED: Final = "adopted from "
ATTEMPTS: Final = 20


class Kept:
    """What is in one pool, for one engine."""

    def __init__(self, images: Images, *, trace: Trace) -> None:
        self.images = images
        self.trace = trace
        objects = Objects(images.cluster, pool=images.pool, namespace=images.namespace)
        self.volumes = Table(objects, "snf.volumes", VolumeRecord)
        self.snapshots = Table(objects, "snf.snapshots", SnapshotRecord)
        self.bases = Table(objects, "snf.bases", BaseRecord)

    # --- reading

    def volume(self, name: str) -> VolumeRecord:
        """Raises NotFound; also for one that is being made or removed."""
        found = self.volumes.get(name)
        if found is None or found.state != "ready":
            raise NotFound(f"there is no volume {name} in pool {self.images.place}")
        return found

    def snapshot(self, name: str) -> SnapshotRecord:
        """Raises NotFound."""
        found = self.snapshots.get(name)
        if found is None or found.state != "ready":
            raise NotFound(f"there is no snapshot {name} in pool {self.images.place}")
        return found

    def change_volume(self, name: str, change: Callable[[VolumeRecord], VolumeRecord]) -> VolumeRecord:
        """Swap a record for what `change` makes of it, again if somebody else was faster. Raises NotFound, InUse."""
        for _ in range(ATTEMPTS):
            found = self.volume(name)
            new = change(found)
            if new == found or self.volumes.swap(name, found, new):
                return new
        raise InUse(f"the record of volume {name} was changed by others {ATTEMPTS} times in a row; try again later")

    # --- making

    def make_volume(self, name: str, wanted: VolumeRecord, fill: Callable[[], None]) -> None:
        """`fill` makes the image `name`. One as wanted that was never opened stays. Raises Exists, InUse."""
        found = self.volumes.get(name)
        if found is not None and found.state == "removing":
            self.finish_removing(name, found)
            found = None
        if found is not None and found.state == "ready":
            refuse_other(name, found, wanted)
            return
        if found is None:
            self._require_no_image(name)
        elif found.origin.startswith(ADOPTED) and found.origin != wanted.origin:
            raise Exists(f"volume {name} is to be made, but it was being {found.origin}; finish that, or remove it")
        wanted = replace(wanted, made_s=int(time.time()))
        making = replace(wanted, state="making", attempt=secrets.token_hex(8))
        self.trace("create record")
        if not self.volumes.swap(name, found, making):
            raise InUse(f"volume {name} is being made by another process; try again later")
        # What was adopted is not ours to throw away.
        if found is not None and not found.origin.startswith(ADOPTED):
            self.dispose(name)
        self.trace("create image")
        fill()
        self.trace("create publish")
        if not self.volumes.swap(name, making, replace(wanted, state="ready", attempt="")):
            raise InUse(f"volume {name} was made by another process meanwhile; try again later")
        self.trace("create done")

    def make_base(self, key: str, size: int, fill: Callable[[str], None]) -> None:
        """`fill` makes the image it is given the name of, with its snapshot. One that is ready stays."""
        found = self.bases.get(key)
        if found is not None and found.state == "ready":
            return
        name = base_image(key)
        if found is None:
            self._require_no_image(name)
        making = BaseRecord(state="making", size=size, attempt=secrets.token_hex(8), made_s=int(time.time()))
        self.trace("compose record")
        if not self.bases.swap(key, found, making):
            raise InUse(f"the base of map {key} is being made or removed by another process; try again later")
        if found is not None:
            self.dispose(name)
        self.trace("compose image")
        fill(name)
        self.trace("compose publish")
        if not self.bases.swap(key, making, replace(making, state="ready", attempt="")):
            raise InUse(f"the base of map {key} was made by another process meanwhile; try again later")
        self.trace("compose done")

    def _require_no_image(self, name: str) -> None:
        with contextlib.suppress(NotFound), self.images.opened(name):
            raise Exists(
                f"{name} is to be made, but pool {self.images.place} has an image of that name that is not ours; "
                "remove it, or adopt it"
            )

    # --- removing

    def remove_volume(self, name: str, found: VolumeRecord) -> None:
        if found.state != "removing":
            self.trace("remove record")
            gone = replace(found, state="removing")
            if not self.volumes.swap(name, found, gone):
                raise InUse(f"volume {name} was changed by another process while it was to be removed; try again")
            found = gone
        self.finish_removing(name, found)

    def finish_removing(self, name: str, found: VolumeRecord) -> None:
        self.trace("remove image")
        self.dispose(name)
        self.trace("remove done")
        self.volumes.swap(name, found, None)
        self.images.empty_trash(prefix=GONE)

    def remove_base(self, key: str) -> None:
        found = self.bases.get(key)
        if found is None:
            return
        gone = replace(found, state="removing")
        self.trace("remove record")
        if found.state != "removing" and not self.bases.swap(key, found, gone):
            raise InUse(f"the base of map {key} was changed by another process while it was to be removed; try again")
        self.trace("remove image")
        self.dispose(base_image(key))
        self.trace("remove done")
        self.bases.swap(key, gone, None)

    # --- looking after

    def sweep(self, *, older_than_s: float) -> list[str]:
        """Throw away what was being made, and finish removing what was being removed, by who died so long ago."""
        before = time.time() - older_than_s
        gone: list[str] = []
        for name, volume in list(self.volumes.items()):
            if volume.state != "ready" and volume.made_s < before and not volume.origin.startswith(ADOPTED):
                self.remove_volume(name, volume)
                gone.append(f"volume {name}")
        for key, base in list(self.bases.items()):
            if base.state != "ready" and base.made_s < before:
                self.remove_base(key)
                gone.append(f"base of map {key}")
        emptied = self.images.empty_trash(prefix=GONE)
        return gone + ([f"{emptied} images that no clone needed any more"] if emptied else [])

    def check(self) -> Iterator[str]:
        """A sentence for each record without its image, and for each thing half made."""
        there = set(self.images.names())
        for name, volume in self.volumes.items():
            if volume.state != "ready":
                yield f"volume {name} is half made or half removed; creating or removing it again finishes that"
            elif name not in there:
                yield f"volume {name} has a record and no image in pool {self.images.place}"
        for key, base in self.bases.items():
            if base.state == "ready" and base_image(key) not in there:
                yield f"the base of map {key} has a record and no image in pool {self.images.place}"
        for name, snapshot in self.snapshots.items():
            if snapshot.state == "ready":
                try:
                    with self.images.opened(image=snapshot.image, number=snapshot.number):
                        pass
                except NotFound:
                    yield f"snapshot {name} has a record, and its image has no such snapshot"

    def dispose(self, name: str) -> None:
        """Give the image's name free: it is removed, or kept apart for who still needs it. Absent is fine."""
        try:
            with self.images.opened(name, read_only=False) as image:
                identity = str(image.id())
                needed = {record.number for _, record in self.snapshots.items() if record.image == identity}
                self._drop_unneeded(image, needed)
        except NotFound:
            return
        if not needed and self.images.remove(name):
            return
        kept = f"{GONE}{identity}"
        if name != kept:
            self.images.rename(name, kept)
        if not needed:
            self.images.discard(kept)

    def _drop_unneeded(self, image: Any, needed: set[int]) -> None:
        for snapshot, number in self.images.user_snapshots(image).items():
            if number not in needed:
                self.images.drop_snapshot(image, snapshot)


def base_image(key: str) -> str:
    return f"base.{key}"
