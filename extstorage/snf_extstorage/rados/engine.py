"""The engine `rados`: see volume.py for its promises, kept.py for what is written down, fence.py for who may write.

    map of the store ──compose, once──► base.MAP@base ──clone v2──► VOLUME ──snapshot──► VOLUME@NAME ──commit──► map

A volume is an RBD image with the volume's name, so its URI is the same on every node and for ever. Clones copy nothing;
a fresh one copies a whole object up at the first write into it, which is why volumes have smaller objects than bases.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, cast

from snf_extstorage.rados import contents, snapshots, upkeep
from snf_extstorage.rados.access import Use, VolumeAccess
from snf_extstorage.rados.claims import claimed
from snf_extstorage.rados.images import Client, Images
from snf_extstorage.rados.kept import ADOPTED, Beat, Kept
from snf_extstorage.rados.record import VolumeRecord
from snf_extstorage.rados.reserve import Reserve
from snf_extstorage.rados.sources import Source, foreign_source, source_of
from snf_extstorage.rados.uri import reads_user
from snf_extstorage.refusals import (
    is_lent,
    refuse_adopting,
    refuse_resizing,
    refuse_returning,
    refuse_shrinking,
    refuse_smaller,
)
from snf_extstorage.volume import (
    RUNNING,
    Attachment,
    Exists,
    Extent,
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
from synnefo_light.ceph import Access, Cluster, meanwhile
from synnefo_light.errors import UserError
from synnefo_light.ganeti import VolumeName, cluster_name
from synnefo_light.units import KIB, Bytes

if TYPE_CHECKING:
    from snf_extstorage.settings import Settings
    from synnefo_light.store.commit import Commit
    from synnefo_light.store.identity import MapId
    from synnefo_light.store.maps import Map


#: What has been half made for so long was left by somebody who died.
LEFT_S: Final = 3600.0
#: How long Ceph takes a client that was killed for alive, and a little more.
PATIENCE_S: Final = 35.0


class RadosVolumes:
    """The volumes of one pool, as seen from one node."""

    cuts_together = True
    # A clone's object that was written hides its parent's for good; only a new image would begin anew.
    resets = False

    def __init__(
        self,
        images: Images,
        *,
        node: str,
        bases: Images | None = None,
        krbd: bool = False,
        user_in_uri: bool = True,
        reserve_percent: int = 5,
        fencing: bool = True,
        cluster: str = "",
        patience_s: float = PATIENCE_S,
        spare: Callable[[Client], bool] | None = None,
        trace: Trace = no_trace,
    ) -> None:
        self._images = images
        self._bases = bases or images
        self._kept = Kept(images, trace=trace, patience_s=patience_s)
        self._node = node
        use = Use(node=node, krbd=krbd, user_in_uri=user_in_uri, fencing=fencing, spare=spare)
        self._access = VolumeAccess(self._kept, use)
        self._reserve = Reserve(self.space, percent=reserve_percent, place=images.place)
        self._cluster = cluster
        self._trace = trace

    # --- making and removing

    def create(self, name: VolumeName, *, uuid: str | None, size: Bytes) -> None:
        self._require_usable(name)
        looked = self._images.look_for(name)
        self._reserve.require()
        wanted = VolumeRecord(state="ready", uuid=uuid, size=size, origin="zeros", map=None, cluster=self._cluster)
        self._kept.make_volume(name, wanted, lambda beat: self._images.create(name, size), looked=looked)

    def clone(self, origin: Origin, name: VolumeName, *, uuid: str | None, size: Bytes) -> None:
        self._clone(lambda: source_of(self._kept, origin, name), name, uuid=uuid, size=size)

    def clone_image(self, image: str, snapshot: str, name: VolumeName, *, uuid: str | None, size: Bytes) -> None:
        """As `clone`, from a snapshot of an image that need not be ours. Raises NotFound."""
        self._clone(lambda: foreign_source(self._images, image, snapshot, name), name, uuid=uuid, size=size)

    def _clone(self, look: Callable[[], Source], name: VolumeName, *, uuid: str | None, size: int) -> None:
        """RBD's own clone takes some forty round trips to the OSDs; ours are to be few beside that."""
        self._require_usable(name)
        looked = self._images.look_for(name)
        with meanwhile(self._reserve.require):
            source = look()
        refuse_smaller(name, size, origin=source.shown, has=source.size)

        def fill(beat: Beat) -> None:
            source.fill(beat)
            beat()
            if size != source.size or not source.frozen:  # opening it takes half as long as cloning
                self._images.resize(name, size)

        wanted = VolumeRecord(
            state="ready", uuid=uuid, size=size, origin=source.shown, map=source.map, cluster=self._cluster
        )
        self._kept.make_volume(name, wanted, fill, looked=looked)

    def adopt(self, source: VolumeName, name: VolumeName, *, uuid: str | None, size: Bytes) -> None:
        """An image of that name, whether a volume of ours or not. Its rename is between the two swaps of the record."""
        self._require_usable(name)
        origin = f"{ADOPTED}{source}"
        old, found = self._kept.volumes.get(source), self._kept.volumes.get(name)
        wanted = VolumeRecord(
            state="ready",
            uuid=uuid,
            size=size,
            origin=origin,
            map=old.map if old else None,
            formerly=source,
            cluster=self._cluster,
        )
        if found is None or found.origin != origin:
            refuse_adopting(source, name, record=old, uuid=uuid)
            self._require_adoptable(source, old, name, size)
        elif (found.uuid, found.size) != (uuid, size):
            raise Exists(f"{source} is to become volume {name}, but there is one of that name")
        if found is None or found.state != "ready":
            self._kept.make_volume(name, wanted, lambda beat: self._rename(source, name))
        if old is not None:
            self._kept.volumes.swap(source, old, None)

    def _rename(self, source: str, name: str) -> None:
        try:
            self._images.rename(source, name)
        except NotFound:
            with self._images.opened(name):  # renamed already, by who died
                pass

    def _require_adoptable(self, source: str, old: VolumeRecord | None, name: str, size: int) -> None:
        self._kept.refuse_users(source, old, node=self._node, wanted="adopted")
        with self._images.opened(source) as image:
            has = int(image.size())
        refuse_resizing(source, name, has=has, size=size)

    def remove(self, name: VolumeName, *, deserted: bool = False) -> None:
        self._access.unmap(name)
        found = self._kept.volumes.get(name)
        if found is None:
            return
        if is_lent(name, found) and self._images.is_there(name) and self._images.is_there(found.formerly):
            refuse_returning(name, found.formerly)
        if found.state == "ready":
            self._kept.refuse_users(name, None if deserted else found, node=self._node)
        self._kept.remove_volume(name, found)

    def release(self, name: VolumeName) -> None:
        record = self._kept.volume(name)
        self._access.unmap(name)
        self._kept.refuse_users(name, record, node=self._node, wanted="released")
        self._trace("release record")
        self._kept.free_volume(name, record)

    def set_cluster(self, name: VolumeName, cluster: str) -> None:
        self._kept.change_volume(name, lambda found: replace(found, cluster=cluster))

    # --- snapshots, and the store

    def snapshot(self, cut: Mapping[VolumeName, SnapshotName], *, still: Still = RUNNING) -> None:
        self._reserve.require()
        snapshots.take(self._kept, cut, still)

    def flush(self, names: Iterable[VolumeName]) -> None:
        """Nothing is cached on this side: the writer's librbd has what there is, and writes it out for a snapshot."""

    def drop_snapshot(self, name: SnapshotName) -> None:
        snapshots.drop(self._kept, name)

    def dirty(self, source: SnapshotName, since: MapId | None) -> Iterator[Extent]:
        return contents.dirty(self._kept, self._kept.snapshot(source), since)

    def claim(self, source: SnapshotName, *, wait_s: float) -> contextlib.AbstractContextManager[None]:
        return claimed(self._kept.claims, source, node=self._node, wait_s=wait_s)

    def commit(self, source: SnapshotName, into: Commit, since: MapId | None) -> MapId:
        self._reserve.require()
        found = self._kept.snapshot(source)
        done = contents.commit(self._kept, found, into, since, mind=self._reserve.minding())
        # Told for later commits; lost, they look at everything.
        self._kept.snapshots.swap(source, found, replace(found, committed=done))
        return done

    def compose(self, content: Map) -> None:
        self._reserve.require()
        self._kept.make_base(
            content.id,
            content.size,
            lambda name, beat: contents.compose(self._bases, content, name, beat, mind=self._reserve.minding()),
        )

    def register(self, source: int, size: Bytes, into: Commit) -> MapId:
        self._reserve.require()
        return contents.register(self._kept, self._bases, source, size, into, mind=self._reserve.minding())

    def drop_base(self, map: MapId) -> None:
        self._kept.remove_base(map)

    # --- use

    def grow(self, name: VolumeName, new: Bytes) -> None:
        """1 the image, 2 the record. An image that is larger than its record is grown again."""
        record = self._kept.volume(name)
        refuse_shrinking(name, record.size, new)
        self._trace("grow image")
        self._images.resize(name, new)
        self._trace("grow record")
        self._kept.change_volume(name, lambda found: replace(found, size=max(found.size, new)))

    def attach(self, name: VolumeName) -> Attachment:
        return self._access.attach(name)

    def detach(self, name: VolumeName) -> None:
        self._access.detach(name)

    def open(self, name: VolumeName, *, exclusive: bool) -> None:
        self._access.open(name, exclusive=exclusive)

    def close(self, name: VolumeName) -> None:
        self._access.close(name)

    def set_info(self, name: VolumeName, text: str) -> None:
        self._kept.change_volume(name, lambda found: replace(found, info=text))

    def set_origin(self, name: VolumeName, map: MapId | None) -> None:
        # The record's `origin` stays: the image is a clone of that, whatever was copied onto it, and `changed` asks.
        self._kept.change_volume(name, lambda found: replace(found, map=map))

    # --- looking

    def facts(self, name: VolumeName) -> VolumeFacts:
        record = self._kept.volume(name)
        with self._images.opened(name) as image:
            parts = self._images.changed(image, since=None, with_parents=False)
        return VolumeFacts(
            name=name,
            uuid=record.uuid,
            size=Bytes(record.size),
            origin=cast("MapId | None", record.map),
            generation=record.generation,
            info=record.info,
            holders=record.holders,
            exclusive=record.exclusive,
            stored=None if parts is None else Bytes(sum(length for _, length in parts)),
            extents=None,
            cluster=record.cluster,
        )

    def has(self, name: str) -> bool:
        """Whether there is a volume, whole or not."""
        return self._kept.volumes.get(name) is not None

    def require_place(self, name: VolumeName) -> None:
        """Raises an Error for a pool that is not there, that our client may not read, or that no instance could use."""
        self._require_usable(name)
        self.has(name)

    def find(self, uuid: str) -> VolumeName | None:
        found = (name for name, record in self._kept.volumes.items() if record.uuid == uuid and record.state == "ready")
        return next((VolumeName(name) for name in found), None)

    def changed(self, name: VolumeName, origin: Origin) -> int | None:
        """Only a clone of the very origin is known to be like it: what it wrote is in its object map."""
        record = self._kept.volume(name)
        source = source_of(self._kept, origin, name)
        if record.origin != source.shown or record.size < source.size:
            return record.size
        with self._images.opened(name) as image:
            parts = self._images.changed(image, since=None, with_parents=False)
        return None if parts is None else sum(length for _, length in parts)

    def reset(self, name: VolumeName, origin: Origin) -> None:
        raise UserError(f"volume {name} is an image of RBD, which cannot begin anew; copy onto it")

    def snapshot_facts(self, name: SnapshotName) -> SnapshotFacts:
        found = self._kept.snapshot(name)
        origin = cast("MapId | None", found.map)
        return SnapshotFacts(name=name, volume=found.volume, size=Bytes(found.size), origin=origin)

    def volumes(self) -> Iterable[VolumeName]:
        return [VolumeName(name) for name, record in self._kept.volumes.items() if record.state == "ready"]

    def snapshots(self) -> Iterable[SnapshotName]:
        return [SnapshotName(name) for name, record in self._kept.snapshots.items() if record.state == "ready"]

    def bases(self) -> Iterable[MapId]:
        return [cast("MapId", key) for key, record in self._kept.bases.items() if record.state == "ready"]

    def has_base(self, map: MapId) -> bool:
        return self._kept.has_base(map)

    def age_s(self, kind: Literal["snapshots", "bases"], name: str) -> float:
        base = self._kept.bases.get(name) if kind == "bases" else None
        if kind == "bases" and base is None:
            raise NotFound(f"there is no base of map {name} in pool {self._images.place}")
        return time.time() - (base.made_s if base is not None else self._kept.snapshot(name).made_s)

    def space(self) -> Space:
        total, free = self._images.space()
        return Space(total=Bytes(total), free=Bytes(free))

    def sweep(self) -> list[str]:
        return upkeep.sweep(self._kept, older_than_s=LEFT_S)

    def check(self) -> Iterator[str]:
        return upkeep.check(self._kept)

    # --- parts

    def _require_usable(self, name: str) -> None:
        self._access.require_usable(name)


def volumes(settings: Settings) -> RadosVolumes:
    """Raises Error when the pool's name or the cluster's configuration will not do. Connects when it is first used."""
    ceph = settings.ceph
    cluster = Cluster(Access(conf=ceph.conf, user=ceph.user))
    images = Images(
        cluster,
        pool=ceph.pool,
        namespace=ceph.namespace,
        data_pool=ceph.data_pool or None,
        object_size=ceph.object_kib * KIB,
    )
    bases = Images(cluster, pool=ceph.pool, namespace=ceph.namespace, data_pool=ceph.data_pool or None)
    return RadosVolumes(
        images,
        bases=bases,
        node=settings.node_name,
        krbd=ceph.krbd,
        user_in_uri=reads_user(ceph.user_in_uri),
        reserve_percent=settings.reserve_percent,
        cluster=cluster_name(),
    )
