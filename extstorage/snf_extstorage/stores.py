"""The store beside the engine's volumes, and the catalogue of both."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from uuid import uuid4

from snf_extstorage.catalog import Catalog
from snf_extstorage.providers import open_volumes
from snf_extstorage.settings import Settings
from snf_extstorage.volume import Volumes
from synnefo_light.store.backend import Kind
from synnefo_light.store.directory import Directory
from synnefo_light.store.errors import Absent, FormatRefused
from synnefo_light.store.formats import Format
from synnefo_light.store.store import FORMAT_KEY, Store, open_store

if TYPE_CHECKING:
    from synnefo_light.ceph import Cluster
    from synnefo_light.store.rados import RadosBackend


def open_site_store(settings: Settings) -> Store:
    """Beside the engine's volumes: in the same folder, or in the same Ceph. Raises FormatRefused when there is none."""
    if settings.engine == "rados":
        return open_store(_on_rados(settings))
    return open_store(Directory(settings.folder / "store"))


def make_rados_store(settings: Settings, *, grace_s: int) -> str:
    """Make the store if there is none; where it is. Raises FormatRefused, CephFault."""
    from synnefo_light.store.rados import make_rados

    ceph = settings.ceph
    backend = _on_rados(settings)
    try:
        backend.load(Kind.STORE, FORMAT_KEY)
    except Absent:
        form = Format(uuid=uuid4(), grace_s=grace_s)
        try:
            make_rados(_cluster(settings), form, pool=ceph.store_pool, namespace=ceph.store_namespace)
        except FormatRefused:
            # Another node may have been faster.
            with contextlib.suppress(Absent):
                backend.load(Kind.STORE, FORMAT_KEY)
                return backend.place
            raise
    return backend.place


def _on_rados(settings: Settings) -> RadosBackend:
    from synnefo_light.store.rados import RadosBackend

    ceph = settings.ceph
    return RadosBackend(_cluster(settings), pool=ceph.store_pool, namespace=ceph.store_namespace)


def _cluster(settings: Settings) -> Cluster:
    from synnefo_light.ceph import Access, Cluster

    return Cluster(Access(conf=settings.ceph.conf, user=settings.ceph.user))


def open_catalog(settings: Settings, volumes: Volumes | None = None) -> Catalog:
    """Raises Error, as when the folder is not mounted."""
    return Catalog(open_site_store(settings), volumes or open_volumes(settings), engine=settings.engine)
