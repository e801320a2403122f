"""One place of volumes with its store, on each engine, as tests of both use it; processes that fork may share one."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol
from unittest.mock import patch
from uuid import uuid4

from snf_extstorage.catalog import Catalog
from snf_extstorage.directory.engine import DirectoryVolumes
from snf_extstorage.directory.place import init_place
from snf_extstorage.rados import upkeep
from snf_extstorage.rados.engine import RadosVolumes
from snf_extstorage.rados.fence import fence
from snf_extstorage.rados.images import Client, Images
from snf_extstorage.volume import Trace, Volumes, no_trace
from snf_lab.ceph import CLIENT, POOLS, Ceph

from synnefo_light.ceph import Access, Cluster
from synnefo_light.store import gc
from synnefo_light.store.backend import Instant
from synnefo_light.store.directory import Directory, make_directory
from synnefo_light.store.formats import Format
from synnefo_light.store.rados import RadosBackend, make_rados
from synnefo_light.store.store import Store, open_store
from tests import child

GRACE_S = 3600
FORGETTING_S = 60  # Ceph ends what a client watched after half a minute without it


def collect(catalog: Catalog) -> None:
    """All that may go, as if it were long after what was done so far."""
    with patch("snf_extstorage.catalog.YOUNG_S", -5):
        catalog.collect(dry_run=False)
    catalog.volumes.sweep()
    gc.collect(catalog.store, now=_later(catalog))


def uncollected(catalog: Catalog) -> list[str]:
    """What `collect` left that it should not have."""
    with patch("snf_extstorage.catalog.YOUNG_S", -5):
        left = catalog.collect(dry_run=True)
    objects = gc.collect(catalog.store, dry_run=True, now=_later(catalog)).removed
    return left + ([f"{objects} objects of the store"] if objects else [])


def _later(catalog: Catalog) -> Instant:
    return Instant(catalog.store.backend.now() + 10 * GRACE_S)


class Storage(Protocol):
    """`trace` is told each step of what is done with what it was given to."""

    engine: Literal["directory", "rados"]

    def volumes(self, trace: Trace = no_trace, *, node: str = "node1") -> Volumes: ...

    def store(self, trace: Trace = no_trace) -> Store: ...

    def write(self, name: str, at: int, data: bytes) -> None:
        """As a guest does, and durably."""

    def read(self, kind: Literal["volumes", "snapshots"], name: str) -> bytes:
        """All of it, as a guest finds it."""

    def sweep(self) -> None:
        """What the dead left, as if they had died an hour ago."""

    def close(self) -> None: ...


def catalog_of(storage: Storage, trace: Trace = no_trace) -> Catalog:
    return Catalog(storage.store(trace), storage.volumes(trace), engine=storage.engine)


def run_and_die(storage: Storage, act: Callable[[Catalog], object], at: int | str) -> bool:
    """Whether a child that does it, and is killed at step `at`, by its number or name, was."""
    told = 0

    def die(step: str) -> None:
        nonlocal told
        if at in (told, step):
            os.kill(os.getpid(), signal.SIGKILL)
        told += 1

    died = child.was_killed(child.start(lambda: act(catalog_of(storage, die))))
    if isinstance(storage, OnRados):
        storage.forget_the_dead()
    return died


class OnDirectory:
    engine: Literal["directory", "rados"] = "directory"

    def __init__(self, root: Path, *, grace_s: int = GRACE_S) -> None:
        self._root = root
        self.place = init_place(root)
        make_directory(root / "store", Format(uuid=uuid4(), grace_s=grace_s))

    def volumes(self, trace: Trace = no_trace, *, node: str = "node1") -> DirectoryVolumes:
        return DirectoryVolumes(self.place, node=node, hints=self._root.with_suffix(".run"), trace=trace)

    def store(self, trace: Trace = no_trace) -> Store:
        return open_store(Directory(self._root / "store", trace=trace), trace=trace)

    def write(self, name: str, at: int, data: bytes) -> None:
        with open(self.place.disk("volumes", name), "r+b") as file:
            file.seek(at)
            file.write(data)

    def read(self, kind: Literal["volumes", "snapshots"], name: str) -> bytes:
        return self.place.disk(kind, name).read_bytes()

    def sweep(self) -> None:
        self.place.sweep(older_than_s=-5)

    def close(self) -> None:
        shutil.rmtree(self._root)


class NamespaceVolumes(RadosVolumes):
    """In a namespace of the pool, which is a place of its own to a test; Ganeti 3.1 could not name it."""

    def _require_usable(self, name: str) -> None:
        pass


class OnRados:
    engine: Literal["directory", "rados"] = "rados"

    def __init__(self, ceph: Ceph, *, grace_s: int = GRACE_S) -> None:
        self.ceph = ceph
        self._clusters: dict[tuple[int, str], Cluster] = {}
        self.namespace = f"place-{uuid4()}"
        images = self._images("node1")
        images.ask("make the namespace", lambda: images._rbd.RBD().namespace_create(images.io, self.namespace))
        form = Format(uuid=uuid4(), grace_s=grace_s)
        make_rados(self._cluster("node1"), form, pool=POOLS[2], namespace=self.namespace)

    def volumes(self, trace: Trace = no_trace, *, node: str = "node1") -> RadosVolumes:
        def spare(client: Client) -> bool:
            return client.address in ours

        images = self._images(node)
        ours = {str(cluster.connect().get_addrs()) for (_, name), cluster in self._clusters.items() if name == node}
        return NamespaceVolumes(images, node=node, patience_s=15, spare=spare, trace=trace)

    def store(self, trace: Trace = no_trace) -> Store:
        backend = RadosBackend(self._cluster("node1"), pool=POOLS[2], namespace=self.namespace, trace=trace)
        return open_store(backend, trace=trace)

    def write(self, name: str, at: int, data: bytes) -> None:
        images = self._images("node1")
        with images.opened(name, read_only=False) as image:
            images.ask("write", lambda: (image.write(data, at), image.flush()))

    def read(self, kind: Literal["volumes", "snapshots"], name: str) -> bytes:
        images = self._images("node1")
        record = self.volumes()._kept.snapshot(name) if kind == "snapshots" else None
        which = {"image": record.image, "number": record.number} if record else {"name": name}
        with images.opened(**which) as image:
            return images.ask("read", lambda: bytes(image.read(0, image.size())))

    def forget_the_dead(self) -> None:
        """Ceph does so by itself after half a minute, for which whoever composes a base again would wait."""
        images = self._images("node1")
        for name in images.names():
            if name.startswith("base.") and fence(images, name, spare=lambda _: False, trace=no_trace):
                deadline = time.monotonic() + FORGETTING_S
                while there := images.clients(name):
                    assert time.monotonic() < deadline, f"{name} still has the clients {there} after {FORGETTING_S} s"
                    time.sleep(0.05)
                # A child has our generator of addresses as it stood, so our next connection has the address of its own.
                self.ceph.run(["ceph", "osd", "blocklist", "clear"])

    def sweep(self) -> None:
        upkeep.sweep(self.volumes()._kept, older_than_s=-5)

    def close(self) -> None:
        """What is in the namespace stays: the cluster goes with the session."""
        for cluster in self._clusters.values():
            cluster.close()

    def _images(self, node: str) -> Images:
        return Images(self._cluster(node), pool=POOLS[0], namespace=self.namespace)

    def _cluster(self, node: str) -> Cluster:
        """A child needs a connection of its own: the parent's threads are not in it."""
        access = Access(conf=self.ceph.client_conf, user=CLIENT)
        return self._clusters.setdefault((os.getpid(), node), Cluster(access))
