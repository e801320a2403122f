"""The provider `rados`: disks as RBD images, for a site that wants these and no store.

It is the engine `rados` on the pool that the disk's parameters name: the same records, the same fence. What a disk
begins as is any snapshot of any image of the pool. Parameters count when a disk is made; a change later does not
move it, or lose it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from snf_extstorage.provider import Parameter, VolumeProvider
from snf_extstorage.rados.engine import RadosVolumes
from snf_extstorage.rados.places import Places, is_same_place
from snf_extstorage.rados.record import PlaceRecord
from snf_extstorage.settings import Settings, load_settings
from snf_extstorage.volume import Attachment, Exists
from synnefo_light.errors import Error, UserError
from synnefo_light.ganeti import (
    CreateEnv,
    GrowEnv,
    OpenEnv,
    SetInfoEnv,
    SnapshotEnv,
    VolumeEnv,
    VolumeName,
)
from synnefo_light.log import escape
from synnefo_light.units import KIB, bytes_of, parse_size

PARAMETERS: Final = (
    Parameter(name="pool", help="Pool of the image; else the site's, [ceph] pool in snf-store.toml"),
    Parameter(name="data_pool", help="Pool of the image's data, as an erasure-coded one; else the same"),
    Parameter(name="namespace", help="Namespace in the pool; only with the kernel's driver (krbd = true)"),
    Parameter(name="user", help="Ceph client without its client. prefix; else the site's"),
    Parameter(name="origin", help="Snapshot that the disk begins as: IMAGE@SNAPSHOT of the same pool"),
    Parameter(name="features", help="Features of the image, comma-separated or joined by +; else Ceph's own choice"),
    Parameter(name="object_size", help="Size of the image's objects, a power of two from 4K to 32M; else 1M"),
    Parameter(name="fence", help="Whether a node that takes over shuts the other out first: yes (default) or no"),
)

#: Without these there are no clones, and no lock by which a writer could be found.
REQUIRED: Final = ("layering", "exclusive-lock")
KNOWN: Final = {
    "layering": 1,
    "striping": 2,
    "exclusive-lock": 4,
    "object-map": 8,
    "fast-diff": 16,
    "deep-flatten": 32,
    "journaling": 64,
}
_ORIGIN: Final = re.compile(r"([A-Za-z0-9_.][A-Za-z0-9_.:+-]{0,199})@([A-Za-z0-9_.][A-Za-z0-9_.:+-]{0,199})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """What a disk's parameters say."""

    place: PlaceRecord
    origin: tuple[str, str] | None


def parse_disk(params: Mapping[str, str], settings: Settings) -> Disk:
    """Raises UserError naming the parameter and what would be right."""
    ceph = settings.ceph
    fence = params.get("fence", "yes")
    if fence not in ("yes", "no"):
        raise UserError(f"the disk option fence is {escape(fence)!r}; it can be yes or no")
    place = PlaceRecord(
        pool=params.get("pool") or ceph.pool,
        data_pool=params.get("data_pool") or ceph.data_pool or None,
        namespace=params.get("namespace") or ceph.namespace,
        user=params.get("user") or ceph.user,
        features=_features(params["features"]) if params.get("features") else None,
        object_size=_object_size(params["object_size"]) if params.get("object_size") else ceph.object_kib * KIB,
        fence=fence == "yes",
    )
    return Disk(place=place, origin=_origin(params["origin"]) if params.get("origin") else None)


def _origin(text: str) -> tuple[str, str]:
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise UserError(f"the disk option origin is {escape(text)!r}, which is not IMAGE@SNAPSHOT")
    return match[1], match[2]


def _features(text: str) -> int:
    names = [name for name in re.split(r"[,+]", text) if name]
    for name in names:
        if name not in KNOWN:
            raise UserError(f"the disk option features has {escape(name)!r}; known are {', '.join(KNOWN)}")
    for name in REQUIRED:
        if name not in names:
            raise UserError(f"the disk option features is {escape(text)!r}, which lacks {name}; add it")
    return sum(KNOWN[name] for name in set(names))


def _object_size(text: str) -> int:
    size = parse_size(text)
    if size not in (2**n for n in range(12, 26)):
        raise UserError(f"the disk option object_size is {escape(text)!r}, which is not a power of two from 4K to 32M")
    return size


class Rados:
    """A disk is where its parameters said when it was made, and is used by that user; see `places.py`."""

    def __init__(self, settings: Settings, params: Mapping[str, str], places: Places) -> None:
        self._settings = settings
        self._params = params
        self._places = places

    def create(self, env: CreateEnv) -> None:
        """1 where it is to be, 2 the volume. A place without a volume, as a crash leaves it, is in nobody's way."""
        disk = parse_disk(env.params, self._settings)
        before = self._places.get(env.volume)
        if before is not None and not is_same_place(before, disk.place) and self._volumes_at(before).has(env.volume):
            raise Exists(
                f"volume {env.volume} is to be made in pool {disk.place.pool} by client.{disk.place.user}, but it was "
                f"made in pool {before.pool} by client.{before.user}; remove it first"
            )
        volumes = self._volumes_at(disk.place)
        volumes.require_place(env.volume)
        written = self._places.put(env.volume, before, disk.place)
        try:
            if disk.origin is None:
                volumes.create(env.volume, uuid=env.uuid, size=bytes_of(env.size))
            else:
                image, snapshot = disk.origin
                volumes.clone_image(image, snapshot, env.volume, uuid=env.uuid, size=bytes_of(env.size))
        except Error:
            with contextlib.suppress(Error):
                if written is not None and not volumes.has(env.volume):
                    self._places.forget(env.volume, written)
            raise

    def remove(self, env: VolumeEnv) -> None:
        """1 the volume, 2 where it was."""
        place = self._places.get(env.volume)
        self._at(env.volume).remove(env)
        if place is not None:
            self._places.forget(env.volume, place)

    def grow(self, env: GrowEnv) -> None:
        self._at(env.volume).grow(env)

    def attach(self, env: VolumeEnv) -> Attachment:
        return self._at(env.volume).attach(env)

    def detach(self, env: VolumeEnv) -> None:
        self._at(env.volume).detach(env)

    def snapshot(self, env: SnapshotEnv) -> None:
        """Beside its volume; what an earlier export left of that name may be elsewhere."""
        place, before = self._place(env.volume), self._places.get(env.snapshot)
        if before is not None and not is_same_place(before, place):
            self._volumes_at(before).remove(env.snapshot, deserted=True)
        self._places.put(env.snapshot, before, place)
        VolumeProvider(self._volumes_at(place)).snapshot(env)

    def set_info(self, env: SetInfoEnv) -> None:
        self._at(env.volume).set_info(env)

    def open(self, env: OpenEnv) -> None:
        self._at(env.volume).open(env)

    def close(self, env: VolumeEnv) -> None:
        self._at(env.volume).close(env)

    def _at(self, name: VolumeName) -> VolumeProvider:
        return VolumeProvider(self._volumes_at(self._place(name)))

    def _place(self, name: VolumeName) -> PlaceRecord:
        """Of a disk that has none, as one that is gone, what its parameters say now."""
        return self._places.get(name) or parse_disk(self._params, self._settings).place

    def _volumes_at(self, place: PlaceRecord) -> RadosVolumes:
        return self._places.volumes_at(place)


def provider(params: Mapping[str, str]) -> Rados:
    """See providers.ProviderModule."""
    settings = load_settings()
    return Rados(settings, params, Places(settings))
