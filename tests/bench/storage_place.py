"""Where storage is measured: an XFS in a file, and a Ceph of one monitor and one OSD; both go away with the context."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from snf_extstorage.catalog import Catalog
from snf_extstorage.directory.engine import DirectoryVolumes
from snf_extstorage.directory.place import init_place
from snf_extstorage.rados.engine import RadosVolumes
from snf_extstorage.rados.images import Images
from snf_extstorage.volume import Trace
from snf_lab.bench_storage import clear
from snf_lab.ceph import CLIENT, POOLS, Ceph, Objectstore, Shape, free_ports, new_fsid
from snf_lab.state import TREE

from synnefo_light.ceph import Access, Cluster
from synnefo_light.errors import PeerError
from synnefo_light.ganeti import VolumeName
from synnefo_light.reflink import clone_range
from synnefo_light.run import run
from synnefo_light.store.directory import make_directory
from synnefo_light.store.formats import Format
from synnefo_light.store.rados import make_rados
from synnefo_light.store.store import open_store
from tests.bench.storage_fio import Target

BLOCK: Final = 4 << 20
NODE: Final = "bench"


def new_name() -> VolumeName:
    return VolumeName(f"{uuid4()}.ext.disk0")


@dataclass(frozen=True, slots=True)
class DirectorySite:
    """The engine `directory` with its store, as a node sees it; `config` is for the scripts."""

    root: Path
    scratch: Path  # on the same file system
    config: Path
    volumes: DirectoryVolumes
    catalog: Catalog

    def seen_by(self, trace: Trace) -> DirectoryVolumes:
        """The same volumes, whose steps are told."""
        return DirectoryVolumes(self.volumes.place, node=NODE, hints=self.config.parent / "loops", trace=trace)

    def script(self, name: str, volume: str, **more: str) -> tuple[list[str], dict[str, str]]:
        """Words and environment of a script of the provider `archipelago`, as Ganeti calls it."""
        env = {
            "SNF_STORE_CONFIG": str(self.config),
            "EXTP_PROVIDER": "archipelago",
            "EXTP_ACCESS": "kernelspace",
            "VOL_NAME": volume,
            "VOL_UUID": str(uuid4()),
            **more,
        }
        return [str(TREE / "extstorage/archipelago" / name)], env


@dataclass(frozen=True, slots=True)
class RadosSite:
    """The engine `rados` with its store. `conf` is a client's without a cache, as QEMU's cache=none makes it."""

    ceph: Ceph
    conf: Path
    cluster: Cluster
    images: Images
    volumes: RadosVolumes
    catalog: Catalog
    object_size: int

    def target(self, name: str, image: str) -> Target:
        return Target.of_rbd(name, conf=self.conf, user=CLIENT, pool=POOLS[0], image=image)


@contextlib.contextmanager
def directory_site(folder: Path, *, size: int) -> Iterator[DirectorySite]:
    """An XFS of `size` bytes in a file that is given out as it is written."""
    mount = folder / "xfs"
    with mounted_xfs(folder / "xfs.img", mount, size=size):
        root, scratch = mount / "volumes", mount / "scratch"
        scratch.mkdir()
        store = open_store(make_directory(init_place(root).root / "store", Format(uuid=uuid4())))
        volumes = DirectoryVolumes(init_place(root), node=NODE, hints=folder / "loops")
        config = folder / "snf-store.toml"
        config.write_text(f'folder = "{root}"\nrun = "{folder}"\nnode = "{NODE}"\n')
        yield DirectorySite(root, scratch, config, volumes, Catalog(store, volumes, engine="directory"))


@contextlib.contextmanager
def mounted_xfs(image: Path, mount: Path, *, size: int) -> Iterator[None]:
    """Its loop device passes the page cache by: what is in the host's memory is no measure of a disk."""
    mount.mkdir(parents=True)
    with open(image, "wb") as file:
        file.truncate(size)
    run(["mkfs.xfs", "-q", "-m", "reflink=1", image], timeout_s=60)
    device = run(["losetup", "--find", "--show", "--direct-io=on", image], timeout_s=30).text.strip()
    try:
        run(["mount", "-t", "xfs", device, mount], timeout_s=60)
        run(["losetup", "--detach", device], timeout_s=30)  # when it is not mounted any more
        yield
    finally:
        clear(image.parent)


@contextlib.contextmanager
def rados_site(folder: Path, *, objectstore: Objectstore, size: int, object_size: int | None) -> Iterator[RadosSite]:
    """`object_size` of volumes; None: the product's."""
    from snf_extstorage.settings import CephSettings

    ceph = Ceph(folder / "ceph")
    try:
        ports, fsid = free_ports(), new_fsid()
        ceph.start(Shape(folder=ceph.folder, fsid=fsid, ports=ports, objectstore=objectstore, size=size))
        conf = ceph.folder / "bench.conf"
        conf.write_text(ceph.client_conf.read_text() + "rbd cache = false\n")
        with Cluster(Access(conf=conf, user=CLIENT)) as cluster:
            wanted = object_size or CephSettings().object_kib << 10
            images = Images(cluster, pool=POOLS[0], object_size=wanted)
            volumes = RadosVolumes(images, bases=Images(cluster, pool=POOLS[0]), node=NODE)
            backend = make_rados(cluster, Format(uuid=uuid4()), pool=POOLS[2], namespace="bench")
            catalog = Catalog(open_store(backend), volumes, engine="rados")
            yield RadosSite(ceph, conf, cluster, images, volumes, catalog, wanted)
    finally:
        clear(folder)


def wait_for(there: Callable[[], bool], check: Callable[[], None], *, limit_s: float = 20.0) -> None:
    """`check` raises when there is no use in waiting. Raises PeerError after a time."""
    deadline = time.monotonic() + limit_s
    while not there():
        check()
        if time.monotonic() > deadline:
            raise PeerError(f"a peer was not ready within {limit_s:g} s")
        time.sleep(0.02)


def write_data(path: Path, *, size: int, data: int, runs: int, stamp: int = 0) -> None:
    """A file of `size` bytes with `data` of them in so many runs, spread over it; no two blocks are alike."""
    stuff = bytearray(os.urandom(BLOCK))
    blocks = data // BLOCK
    with open(path, "wb") as file:
        file.truncate(size)
        for number, at in enumerate(plan_runs(size=size, blocks=blocks, runs=runs)):
            stuff[:16] = stamp.to_bytes(8, "big") + number.to_bytes(8, "big")
            os.pwrite(file.fileno(), stuff, at)
        os.fsync(file.fileno())


def plan_runs(*, size: int, blocks: int, runs: int) -> Sequence[int]:
    """Where each of so many blocks lies, when they are in so many runs at equal distances."""
    each, pitch = blocks // runs, size // runs // BLOCK * BLOCK
    return [run_ * pitch + n * BLOCK for run_ in range(runs) for n in range(each)]


def spread_data(source: Path, path: Path, *, size: int, blocks: int, runs: int) -> None:
    """A file of another size with the same data in as many runs, shared with `source` of `write_data`."""
    with open(source, "rb") as old, open(path, "wb") as new:
        new.truncate(size)
        before = plan_runs(size=os.fstat(old.fileno()).st_size, blocks=blocks, runs=runs)
        after = plan_runs(size=size, blocks=blocks, runs=runs)
        for start, at in zip(before, after, strict=True):
            clone_range(old.fileno(), start, BLOCK, new.fileno(), at)
        os.fsync(new.fileno())
