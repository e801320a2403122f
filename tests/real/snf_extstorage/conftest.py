"""A file system that shares extents, for all tests here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from snf_extstorage.directory.place import init_place
from snf_extstorage.rados.engine import RadosVolumes
from snf_extstorage.volume import SnapshotName
from snf_lab.ceph import Ceph

from synnefo_light.ganeti import VolumeName
from tests.real.snf_extstorage.places import Site, mounted_xfs, release
from tests.real.snf_extstorage.rados_site import RadosSite


@pytest.fixture(scope="session")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    for tool in ("mkfs.xfs", "losetup"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing")
    if not Path("/dev/loop-control").exists():
        pytest.skip("/dev/loop-control is missing")
    with mounted_xfs(tmp_path_factory.mktemp("xfs"), size=2 << 30) as mount:
        yield mount


@pytest.fixture
def site(xfs: Path, tmp_path: Path) -> Iterator[Site]:
    root = xfs / tmp_path.name
    yield Site(place=init_place(root), hints=tmp_path / "run")
    release(root)
    shutil.rmtree(root)


@pytest.fixture
def rados(ceph: Ceph) -> Iterator[RadosSite]:
    site = RadosSite(ceph=ceph)
    yield site
    site.close()


@pytest.fixture
def engine(rados: RadosSite) -> RadosVolumes:
    return rados.node()


@pytest.fixture
def name() -> VolumeName:
    return VolumeName(f"{uuid4()}.ext.disk0")


@pytest.fixture
def other() -> VolumeName:
    return VolumeName(f"{uuid4()}.ext.disk1")


@pytest.fixture
def snap() -> SnapshotName:
    return SnapshotName(f"snap-{uuid4()}")
