"""Where each disk of the provider `rados` is: the object `snf.places` in the site's own pool.

Ganeti passes a disk's parameters on each call, and an administrator may change them meanwhile. Taken from there, the
pool of a removal would be another than that of the creation, and the volume would be left behind.

A place is written down *before* the volume is made, and goes after it: whatever there is of a disk, in whichever pool,
is found from here. What a crash leaves is a place without a volume, which `Elsewhere.sweep` forgets an hour later.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from snf_extstorage.rados.engine import RadosVolumes
from snf_extstorage.rados.images import Images
from snf_extstorage.rados.kept import ATTEMPTS
from snf_extstorage.rados.record import PLACES, DamagedRecord, PlaceRecord, Table
from snf_extstorage.rados.uri import reads_user
from snf_extstorage.settings import Settings
from snf_extstorage.volume import InUse
from synnefo_light.ceph import Access, Cluster
from synnefo_light.ganeti import cluster_name
from synnefo_light.store.rados_objects import Objects


def is_same_place(one: PlaceRecord, other: PlaceRecord) -> bool:
    """Whenever they were written down."""
    return replace(one, since_s=0) == replace(other, since_s=0)


class Places:
    """One connection for each user."""

    def __init__(self, settings: Settings) -> None:
        ceph = settings.ceph
        self._settings = settings
        self._clusters: dict[str, Cluster] = {}
        objects = Objects(self._cluster_of(ceph.user), pool=ceph.pool, namespace=ceph.namespace)
        self._table = Table(objects, PLACES, PlaceRecord)

    def get(self, name: str) -> PlaceRecord | None:
        """Raises DamagedRecord."""
        return self._table.get(name)

    def items(self) -> Iterator[tuple[str, PlaceRecord]]:
        """All that can be read."""
        return self._table.items()

    def damaged(self) -> Iterator[tuple[str, DamagedRecord]]:
        return self._table.damaged()

    def put(self, name: str, before: PlaceRecord | None, place: PlaceRecord) -> PlaceRecord | None:
        """What to forget if nothing is made there; None where another call has written a place, and may make it yet.

        Each call writes a record of its own, so that who forgets his does not forget another's. Raises InUse when it is
        not `before` any more, but another place.
        """
        for _ in range(ATTEMPTS):
            new = replace(place, since_s=max(int(time.time()), before.since_s + 1 if before else 0))
            if self._table.swap(name, before, new):
                return new if before is None else None
            before = self.get(name)
            if before is not None and not is_same_place(before, place):
                break
        raise InUse(f"volume {name} is being made by another process in another place; try again later")

    def forget(self, name: str, place: PlaceRecord) -> bool:
        """False when it is another by now."""
        return self._table.swap(name, place, None)

    def volumes_at(self, place: PlaceRecord) -> RadosVolumes:
        settings = self._settings
        images = Images(
            self._cluster_of(place.user),
            pool=place.pool,
            namespace=place.namespace,
            data_pool=place.data_pool,
            object_size=place.object_size,
            features=place.features,
        )
        return RadosVolumes(
            images,
            node=settings.node_name,
            krbd=settings.ceph.krbd,
            user_in_uri=reads_user(settings.ceph.user_in_uri),
            reserve_percent=settings.reserve_percent,
            fencing=place.fence,
            cluster=cluster_name(),
        )

    def _cluster_of(self, user: str) -> Cluster:
        return self._clusters.setdefault(user, Cluster(Access(conf=self._settings.ceph.conf, user=user)))
