"""A fresh store on each backend; every test of this folder that asks for `store` runs on each of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from snf_lab.ceph import CLIENT, POOLS, Ceph

from synnefo_light.ceph import Access, Cluster
from synnefo_light.store.directory import make_directory
from synnefo_light.store.filesystem import FileSystem
from synnefo_light.store.formats import Format
from synnefo_light.store.rados import make_rados
from synnefo_light.store.store import Store, open_store

UUID_OF_STORE = UUID("6f6a2cb0-4d0d-4f0c-8a53-2d2d5c8d9a10")

#: Makes an empty store with this grace, in seconds.
MakeStore = Callable[[int], Store]


class Unsynced(FileSystem):
    """Nothing waits for the disk: what a test of durability asks is asked with the real one."""

    def sync(self, fd: int) -> None:
        pass

    def sync_folder(self, folder: Path) -> None:
        pass


@pytest.fixture(scope="session")
def cluster(ceph: Ceph) -> Iterator[Cluster]:
    """One connection to the tests' Ceph, as a client that may use block devices and no more."""
    with Cluster(Access(conf=ceph.client_conf, user=CLIENT)) as cluster:
        yield cluster


@pytest.fixture(params=["directory", "rados"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    def in_directory(grace_s: int) -> Store:
        form = Format(uuid=UUID_OF_STORE, grace_s=grace_s)
        return open_store(make_directory(tmp_path / f"store-{grace_s}", form, files=Unsynced()))

    def on_rados(grace_s: int) -> Store:
        form = Format(uuid=UUID_OF_STORE, grace_s=grace_s)
        cluster: Cluster = request.getfixturevalue("cluster")
        return open_store(make_rados(cluster, form, pool=POOLS[2], namespace=f"store-{uuid4()}"))

    return on_rados if request.param == "rados" else in_directory


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder in memory, where there is one: for thousands of small files whose syncs do not matter."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store(3600)
