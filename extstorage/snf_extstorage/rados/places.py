"""Where each disk of the provider `rados` is: the object `snf.places` in the site's own pool.

Ganeti passes a disk's parameters on each call, and an administrator may change them meanwhile. Taken from there, the
pool of a removal would be another than that of the creation, and the volume would be left behind.
"""

from __future__ import annotations

from snf_extstorage.rados.record import PLACES, PlaceRecord, Table
from snf_extstorage.settings import Settings
from snf_extstorage.volume import InUse
from synnefo_light.ceph import Access, Cluster
from synnefo_light.store.rados_objects import Objects


class Places:
    """One connection for each user."""

    def __init__(self, settings: Settings) -> None:
        ceph = settings.ceph
        self._conf = ceph.conf
        self._clusters: dict[str, Cluster] = {}
        objects = Objects(self.cluster_of(ceph.user), pool=ceph.pool, namespace=ceph.namespace)
        self._table = Table(objects, PLACES, PlaceRecord)

    def cluster_of(self, user: str) -> Cluster:
        return self._clusters.setdefault(user, Cluster(Access(conf=self._conf, user=user)))

    def get(self, name: str) -> PlaceRecord | None:
        """Raises DamagedRecord."""
        return self._table.get(name)

    def put(self, name: str, before: PlaceRecord | None, place: PlaceRecord) -> None:
        """Raises InUse when it is not `before` any more."""
        if place != before and not self._table.swap(name, before, place) and self.get(name) != place:
            raise InUse(f"volume {name} is being made by another process in another place; try again later")

    def forget(self, name: str, place: PlaceRecord) -> None:
        self._table.swap(name, place, None)
