"""The first write into each object of a fresh clone, which copies what its image has there."""

from __future__ import annotations

from typing import Any, Final

from snf_extstorage.volume import FromBase

from synnefo_light.ceph import load
from synnefo_light.store.identity import MapId
from synnefo_light.units import Bytes
from tests.bench.storage_figures import ratio
from tests.bench.storage_fio import touch
from tests.bench.storage_place import BLOCK, RadosSite, new_name
from tests.bench.storage_sizes import Sizes

#: Writes of 4 KiB, each into another 4 MiB.
WRITES: Final = 512
DEPTHS: Final = (1, 16)


def measure_first_writes(site: RadosSite, image: MapId, sizes: Sizes) -> dict[str, object]:
    """Ours beside a clone of the same base by RBD, as it makes one: objects of 4 MiB."""
    rbd: Any = load("rbd")
    figures: dict[str, object] = {}
    count = min(WRITES, sizes.rados_data // BLOCK)
    for depth in DEPTHS:
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(sizes.rounds):
            name = new_name()
            site.volumes.clone(FromBase(map=image), name, uuid=None, size=Bytes(sizes.rados_data))
            ours.append(touch(site.target("rados", name), count=count, stride=BLOCK, depth=depth).seconds)
            site.volumes.remove(name)
            rbd.RBD().clone(site.images.io, f"base.{image}", "base", site.images.io, "plain")
            theirs.append(touch(site.target("rbd", "plain"), count=count, stride=BLOCK, depth=depth).seconds)
            rbd.RBD().remove(site.images.io, "plain")
        figures[f"rados_first_writes_qd{depth}_s"] = round(sorted(ours)[len(ours) // 2], 3)
        figures[f"rbd_first_writes_qd{depth}_s"] = round(sorted(theirs)[len(theirs) // 2], 3)
        figures[f"rados_first_writes_ratio_qd{depth}"] = ratio(ours, theirs)
    worst = max(float(str(figures[f"rados_first_writes_ratio_qd{depth}"])) for depth in DEPTHS)
    return {"rados_first_writes_ratio": worst, "rados_first_writes": count, **figures}
