"""The pools that disks of the provider `rados` are in, besides the engine's own: what died there is finished as here.

They are those of `snf.places`; a pool that cannot be looked at is told, and the others are looked at nevertheless.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Final

from snf_extstorage.rados.engine import LEFT_S, RadosVolumes
from snf_extstorage.rados.places import Places
from snf_extstorage.rados.record import PlaceRecord
from snf_extstorage.settings import Settings
from synnefo_light.errors import EnvironmentFault, Error
from synnefo_light.log import logger

#: Whether there is a volume of that name says no more than that the pool can be read.
_ANY: Final = "any"
_UNSWEPT: Final = "pool {}, which disks of the provider rados are in, could not be swept: {}"
_UNCHECKED: Final = "pool {}, which disks of the provider rados are in, could not be checked: {}"
_KEPT: Final = "the place of disk {} is kept, for whether the disk is in pool {} could not be told: {}"


def plan_pools(places: Iterable[PlaceRecord], own: tuple[str, str] | None) -> dict[tuple[str, str], list[PlaceRecord]]:
    """By pool and namespace, without the engine's own: for each user that disks are used by there, a place of his."""
    found: dict[tuple[str, str], dict[str, PlaceRecord]] = {}
    for place in places:
        key = (place.pool, place.namespace)
        if key != own:
            found.setdefault(key, {}).setdefault(place.user, place)
    return {key: list(of_users.values()) for key, of_users in found.items()}


class Elsewhere:
    """Empty on a node without Ceph."""

    def __init__(self, settings: Settings) -> None:
        """Raises an EnvironmentFault where the engine is `rados` and its pool cannot be looked at."""
        ceph = settings.ceph
        self._is_engine = settings.engine == "rados"
        self._listed: list[tuple[str, PlaceRecord]] = []
        self._damaged: list[str] = []
        if self._is_engine or ceph.conf.exists():
            try:
                self._places = Places(settings)
                self._listed = list(self._places.items())
                self._damaged = [str(fault) for _, fault in self._places.damaged()]
            except EnvironmentFault as e:
                if self._is_engine:
                    raise
                # Ceph is here for somebody else, or is down, which is no reason to leave the engine's own folder.
                logger.warning("disks of the provider rados are left out: %s", e)
        own = (ceph.pool, ceph.namespace) if self._is_engine else None
        pools = plan_pools((place for _, place in self._listed), own)
        self._pools = {"/".join(filter(None, key)): found for key, found in pools.items()}

    def volumes(self) -> list[RadosVolumes]:
        return [self._volumes_in(places) for places in self._pools.values()]

    def sweep(self) -> list[str]:
        """Finish what was being made or removed by who died an hour ago. Returns what went, for people."""
        gone = []
        for pool, places in self._pools.items():
            try:
                gone += [f"{text} in pool {pool}" for text in self._volumes_in(places).sweep()]
            except Error as e:
                logger.warning(_UNSWEPT.format(pool, e))
        return [*gone, *self._forgotten()]

    def _forgotten(self) -> Iterator[str]:
        for name, place in self._listed:
            if place.since_s < time.time() - LEFT_S:
                try:
                    if not self._places.volumes_at(place).has(name) and self._places.forget(name, place):
                        yield f"place of disk {name}, which is not in pool {place.pool} any more,"
                except Error as e:
                    logger.warning(_KEPT.format(name, place.pool, e))

    def check(self) -> Iterator[str]:
        """A sentence for each thing that is not as it should be; mends nothing."""
        if not self._is_engine:  # which tells them itself
            yield from self._damaged
        for pool, places in self._pools.items():
            try:
                yield from (f"pool {pool}: {text}" for text in self._volumes_in(places).check())
            except Error as e:
                yield _UNCHECKED.format(pool, e)

    def _volumes_in(self, places: list[PlaceRecord]) -> RadosVolumes:
        """As the first user that can read there, for others may be gone with their disks; else as the last one."""
        for place in places[:-1]:
            volumes = self._places.volumes_at(place)
            with contextlib.suppress(Error):
                volumes.has(_ANY)
                return volumes
        return self._places.volumes_at(places[-1])
