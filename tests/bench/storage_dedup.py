"""How much the store saves: clones of a Debian, each with another package installed, committed one after the other.

The packages are put into the clones by mounting them, which the product never does with what a guest may have written;
here nobody but dpkg wrote.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from snf_extstorage.catalog import Cut
from snf_extstorage.volume import FromBase
from snf_lab.bench_peers import find_root_start

from synnefo_light.errors import UserError
from synnefo_light.run import run
from synnefo_light.store import stats
from synnefo_light.store.identity import MapId
from synnefo_light.units import Bytes
from tests.bench.storage_clone import register
from tests.bench.storage_place import DirectorySite, new_name
from tests.bench.storage_sizes import MIB, Sizes

SECTOR: Final = 512
LIMIT_S: Final = 300.0


def measure_dedup(site: DirectorySite, image: Path, debs: Path, sizes: Sizes) -> dict[str, object]:
    """In a store of its own: nothing else may be in there."""
    map_id = register(site.catalog, "debian", image)
    found = sorted(debs.glob("*.deb"))[: sizes.dedup_clones]
    if len(found) < sizes.dedup_clones:
        raise UserError(f"{debs} has {len(found)} packages, and {sizes.dedup_clones} are to be installed")
    table = run(["sfdisk", "--json", image], timeout_s=LIMIT_S).stdout
    start, size = find_root_start(table) * SECTOR, image.stat().st_size
    before = stats.measure(site.catalog.store)
    spent = unpacked = 0.0
    for number, deb in enumerate(found):
        unpacked += _install(site, map_id, deb, name=f"clone{number}", offset=start, size=size)
        began = time.monotonic()
        site.catalog.commit(f"clone{number}")
        spent += time.monotonic() - began
    after = stats.measure(site.catalog.store)
    return {
        "dedup_ratio": round(after.ratio, 2),
        "dedup_mapped_MiB": after.mapped // MIB,
        "dedup_stored_MiB": after.stored // MIB,
        "dedup_image_MiB": before.stored // MIB,
        "dedup_unpacked_MiB": round(unpacked / MIB),
        "dedup_commit_s": round(spent / len(found), 2),
    }


def _install(site: DirectorySite, image: MapId, deb: Path, *, name: str, offset: int, size: int) -> float:
    """A clone with this package unpacked, frozen as `name`; how many bytes its file system holds more."""
    volume = new_name()
    site.volumes.clone(FromBase(map=image), volume, uuid=None, size=Bytes(size))
    mount = site.config.parent / "guest"
    mount.mkdir(exist_ok=True)
    disk = site.root / "volumes" / volume / "disk"
    run(["mount", "-o", f"loop,offset={offset}", disk, mount], timeout_s=LIMIT_S)
    try:
        used = _used(mount)
        run(["dpkg", f"--root={mount}", "--force-all", "--unpack", deb], timeout_s=LIMIT_S)
        taken = _used(mount) - used
    finally:
        run(["umount", mount], timeout_s=LIMIT_S)
    site.catalog.snapshot([Cut(volume=volume, name=name)])
    site.volumes.remove(volume)
    return taken


def _used(mount: Path) -> int:
    found = os.statvfs(mount)
    return (found.f_blocks - found.f_bfree) * found.f_frsize
