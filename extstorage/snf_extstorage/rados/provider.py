"""The provider `rados`: disks as RBD images, for a site that wants these and no store.

It is the engine `rados` on the pool that the disk's parameters name: the same records, the same fence. What a disk
begins as is any snapshot of any image of the pool.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from snf_extstorage.provider import Parameter, VolumeProvider
from snf_extstorage.rados.engine import RadosVolumes
from snf_extstorage.rados.images import Images
from snf_extstorage.settings import Settings, load_settings
from synnefo_light.ceph import Access, Cluster
from synnefo_light.errors import UserError
from synnefo_light.ganeti import CreateEnv
from synnefo_light.log import escape
from synnefo_light.units import KIB, bytes_of, parse_size

PARAMETERS: Final = (
    Parameter(name="pool", help="Pool of the image; else the site's, [ceph] pool in snf-store.toml"),
    Parameter(name="data_pool", help="Pool of the image's data, as an erasure-coded one; else the same"),
    Parameter(name="namespace", help="Namespace in the pool; only with the kernel's driver (krbd = true)"),
    Parameter(name="user", help="Ceph client without its client. prefix; else the site's"),
    Parameter(name="origin", help="Snapshot that the disk begins as: IMAGE@SNAPSHOT of the same pool"),
    Parameter(name="features", help="Features of the image, comma-separated or joined by +; else Ceph's own choice"),
    Parameter(name="object_size", help="Size of the image's objects, a power of two from 4K to 32M; else 4M"),
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

    pool: str
    data_pool: str | None
    namespace: str
    user: str
    origin: tuple[str, str] | None
    features: int | None
    object_size: int | None
    fence: bool


def parse_disk(params: Mapping[str, str], settings: Settings) -> Disk:
    """Raises UserError naming the parameter and what would be right."""
    ceph = settings.ceph
    fence = params.get("fence", "yes")
    if fence not in ("yes", "no"):
        raise UserError(f"the disk option fence is {escape(fence)!r}; it can be yes or no")
    return Disk(
        pool=params.get("pool") or ceph.pool,
        data_pool=params.get("data_pool") or ceph.data_pool or None,
        namespace=params.get("namespace") or ceph.namespace,
        user=params.get("user") or ceph.user,
        origin=_origin(params["origin"]) if params.get("origin") else None,
        features=_features(params["features"]) if params.get("features") else None,
        object_size=_object_size(params["object_size"]) if params.get("object_size") else ceph.object_kib * KIB,
        fence=fence == "yes",
    )


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


class Rados(VolumeProvider):
    def __init__(self, volumes: RadosVolumes, disk: Disk) -> None:
        super().__init__(volumes)
        self._rados = volumes
        self._disk = disk

    def create(self, env: CreateEnv) -> None:
        if self._disk.origin is None:
            self._volumes.create(env.volume, uuid=env.uuid, size=bytes_of(env.size))
        else:
            image, snapshot = self._disk.origin
            self._rados.clone_image(image, snapshot, env.volume, uuid=env.uuid, size=bytes_of(env.size))


def provider(params: Mapping[str, str]) -> Rados:
    """See providers.ProviderModule."""
    settings = load_settings()
    disk = parse_disk(params, settings)
    images = Images(
        Cluster(Access(conf=settings.ceph.conf, user=disk.user)),
        pool=disk.pool,
        namespace=disk.namespace,
        data_pool=disk.data_pool,
        object_size=disk.object_size,
        features=disk.features,
    )
    volumes = RadosVolumes(
        images,
        node=settings.node_name,
        krbd=settings.ceph.krbd,
        user_in_uri=settings.ceph.user_in_uri,
        reserve_percent=settings.reserve_percent,
        fencing=disk.fence,
    )
    return Rados(volumes, disk)
