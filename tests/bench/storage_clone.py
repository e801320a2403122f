"""How long a clone takes: through the engines' API, beside what the file system and RBD do by themselves."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from snf_extstorage.catalog import Catalog
from snf_extstorage.volume import FromBase, Volumes

from synnefo_light.ceph import load
from synnefo_light.files import sync_folder
from synnefo_light.reflink import clone_file
from synnefo_light.store.identity import MapId
from synnefo_light.store.maps import open_map
from synnefo_light.units import Bytes
from tests.bench.storage_figures import ms, percentile, ratio
from tests.bench.storage_place import BLOCK, DirectorySite, RadosSite, new_name, spread_data, write_data
from tests.bench.storage_sizes import GIB, Sizes


def register(catalog: Catalog, name: str, path: Path) -> MapId:
    """An image of a raw file."""
    with open(path, "rb") as file:
        size = Bytes(os.fstat(file.fileno()).st_size)
        found = catalog.register(name, file.fileno(), size, origin=path.name, properties={}).entry.map
    assert found is not None
    return found


def timed(act: Callable[[], object]) -> float:
    """Seconds."""
    began = time.monotonic()
    act()
    return time.monotonic() - began


def clone_seconds(volumes: Volumes, image: MapId, size: int) -> float:
    """One clone, which is removed again outside of the time."""
    name = new_name()
    spent = timed(lambda: volumes.clone(FromBase(map=image), name, uuid=None, size=Bytes(size)))
    volumes.remove(name)
    return spent


def measure_directory(site: DirectorySite, sizes: Sizes) -> dict[str, object]:
    small, huge = site.scratch / "image", site.scratch / "huge"
    blocks = sizes.data // BLOCK
    write_data(small, size=sizes.image, data=sizes.data, runs=sizes.runs)
    spread_data(small, huge, size=sizes.huge, blocks=blocks, runs=sizes.runs)
    image, huge_image = register(site.catalog, "image", small), register(site.catalog, "huge", huge)
    ours: list[float] = []
    larger: list[float] = []
    plain: list[float] = []
    for _ in range(sizes.rounds * sizes.clones):
        ours.append(clone_seconds(site.volumes, image, sizes.image))
        larger.append(clone_seconds(site.volumes, huge_image, sizes.huge))
        plain.append(_plain_clone(site.root / "bases" / image / "disk", site.scratch / "plain"))
    for path in (small, huge):
        path.unlink()
    return {
        "clone_100GiB_ms_p50": ms(percentile(ours, 50)),
        "clone_100GiB_ms_p99": ms(percentile(ours, 99)),
        "clone_16TiB_ms_p50": ms(percentile(larger, 50)),
        "clone_16TiB_ratio": ratio(larger, ours),
        "clone_reflink_ms_p50": ms(percentile(plain, 50)),
        "clone_reflink_ms_p99": ms(percentile(plain, 99)),
        "clone_reflink_ratio": ratio(ours, plain),
        "samples_clone_100GiB_ms": [ms(one) for one in ours],
    }


def _plain_clone(source: Path, target: Path) -> float:
    """What `cp --reflink` and a `sync` of the new file and of its folder would take: no less makes it durable."""

    def act() -> None:
        with open(source, "rb") as old, open(target, "xb") as new:
            clone_file(old.fileno(), new.fileno())
            os.fsync(new.fileno())
        sync_folder(target.parent)

    spent = timed(act)
    target.unlink()
    return spent


def register_dense(catalog: Catalog, path: Path, *, size: int, stamp: int) -> MapId:
    """An image of so many bytes without a hole; `path` is where it is made, and it is not there afterwards."""
    write_data(path, size=size, data=size, runs=1, stamp=stamp)
    image = register(catalog, "dense", path)
    path.unlink()
    return image


def measure_full(site: DirectorySite, sizes: Sizes) -> dict[str, object]:
    """An image without a hole, whose base was composed from the store. Its blocks are few: the base has them all."""
    path = site.scratch / "full"
    write_data(path, size=sizes.full, data=64 * BLOCK, runs=1, stamp=1)
    with open(path, "r+b") as file:
        for at in range(64 * BLOCK, sizes.full, 64 * BLOCK):
            os.copy_file_range(file.fileno(), file.fileno(), 64 * BLOCK, 0, at)
    image = register(site.catalog, "full", path)
    path.unlink()
    site.volumes.drop_base(image)
    site.volumes.compose(open_map(site.catalog.store, image))
    spent = [clone_seconds(site.volumes, image, sizes.full) for _ in range(sizes.rounds * 10)]
    name = new_name()
    site.volumes.clone(FromBase(map=image), name, uuid=None, size=Bytes(sizes.full))
    extents = site.volumes.facts(name).extents
    site.volumes.remove(name)
    site.volumes.drop_base(image)
    return {
        f"clone_full_{sizes.full // GIB}GiB_ms": ms(percentile(spent, 50)),
        "clone_full_extents": extents,
    }


def measure_rados(site: RadosSite, folder: Path, sizes: Sizes) -> dict[str, object]:
    """What an image holds is all the same to RBD, so here it is little."""
    path = folder / "image"
    write_data(path, size=sizes.image, data=sizes.runs * BLOCK, runs=sizes.runs, stamp=2)
    image = register(site.catalog, "image", path)
    path.unlink()
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(sizes.rounds * sizes.clones):
        name, plain = new_name(), new_name()
        clone = partial(site.volumes.clone, FromBase(map=image), name, uuid=None, size=Bytes(sizes.image))
        # Whoever comes after a removal finds the OSD at work still, so they take that place in turn.
        turns = [(ours, clone), (theirs, partial(_rbd_clone, site, f"base.{image}", plain))]
        for times, act in turns if number % 2 else reversed(turns):
            times.append(timed(act))
        site.volumes.remove(name)
        load("rbd").RBD().remove(site.images.io, plain)
    return {
        "clone_rados_ms_p50": ms(percentile(ours, 50)),
        "clone_rados_ms_p99": ms(percentile(ours, 99)),
        "clone_rbd_ms_p50": ms(percentile(theirs, 50)),
        "clone_rados_ratio": ratio(ours, theirs),
        "rados_object_KiB": site.object_size >> 10,
    }


def _rbd_clone(site: RadosSite, parent: str, name: str) -> None:
    """RBD's own, with objects of our size, by its own binding on a connection that is there already."""
    rbd: Any = load("rbd")
    size, io = site.object_size, site.images.io
    kept = {"order": size.bit_length() - 1, "stripe_unit": size, "stripe_count": 1}
    rbd.RBD().clone(io, parent, "base", io, name, **kept)
