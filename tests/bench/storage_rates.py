"""Reads and writes of volumes, beside files, loop devices and RBD's own clones: each pattern on each path in turn."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from snf_extstorage.volume import FromBase

from synnefo_light.ceph import load
from synnefo_light.run import run, serve
from synnefo_light.store.identity import MapId
from synnefo_light.units import Bytes
from tests.bench.storage_fio import LOADS, Rate, Target, measure
from tests.bench.storage_place import DirectorySite, RadosSite, new_name, wait_for, write_data
from tests.bench.storage_sizes import Sizes

#: For a path and a load, a rate a round.
Rates = dict[tuple[str, str], list[Rate]]
FLAT, FLAT_LOOP, OURS, OURS_FILE, NBDKIT = "raw_file", "raw_loop", "dir", "dir_file", "nbdkit"
#: The same device once more: what its ratio is not 1 by is the machine's.
AGAIN: Final = "raw_loop_again"
#: What no goal is compared with has one turn.
ASIDE: Final = (FLAT, OURS_FILE)
RBD, OURS_RADOS = "rbd", "rados"
SMALL: Final = ("read_qd1", "write_qd1", "read_qd32", "write_qd32")
#: What is written over once is written in tens of MB/s there.
RADOS_DISK: Final = 256 << 20
#: nbdkit writes into the page cache, which is no write yet.
NOT_CACHED: Final = ("read_qd1", "read_qd32", "flush_qd1")


def measure_directory(site: DirectorySite, image: MapId, sizes: Sizes) -> dict[str, object]:
    """A fresh clone a round and path, of an image of `sizes.disk` bytes without a hole."""
    flat = [site.scratch / name for name in ("flat", "flat-loop")]
    for number, path in enumerate(flat):
        write_data(path, size=sizes.disk, data=sizes.disk, runs=1, stamp=10 + number)
    rates: Rates = {}
    with contextlib.ExitStack() as opened:
        loop = opened.enter_context(_loop(str(flat[1])))
        for _ in range(sizes.rounds):
            with _clones(site, image, sizes) as ours:
                flats = [Target.of_file(FLAT, flat[0]), *(Target.of_file(name, loop) for name in (FLAT_LOOP, AGAIN))]
                _round([*flats, *ours], rates, sizes)
    for path in flat:
        path.unlink()
    figures = flat_rates(rates) | ratios(rates, OURS, FLAT_LOOP, ["first_qd32"], name="dir_first_writes_ratio")
    for depth in ("qd1", "qd32"):
        loads = [f"read_{depth}", f"write_{depth}"]
        figures |= ratios(rates, OURS, FLAT_LOOP, loads, name=f"dir_ratio_{depth}")
        figures |= ratios(rates, AGAIN, FLAT_LOOP, loads, name=f"noise_ratio_{depth}")
    return (
        figures
        | ratios(rates, OURS, NBDKIT, NOT_CACHED, name="nbdkit_ratio")
        | ratios(rates, AGAIN, FLAT_LOOP, NOT_CACHED, name="noise_ratio_flushed")
        | ratios(rates, OURS, FLAT_LOOP, ["seqread", "seqwrite"], name="dir_ratio_seq")
    )


def measure_rados(site: RadosSite, image: MapId, sizes: Sizes) -> dict[str, object]:
    """A fresh clone a round and path."""
    rbd: Any = load("rbd")
    rates: Rates = {}
    size = min(sizes.disk, sizes.rados_data, RADOS_DISK)
    for _ in range(sizes.rounds):
        name = new_name()
        site.volumes.clone(FromBase(map=image), name, uuid=None, size=Bytes(sizes.rados_data))
        rbd.RBD().clone(site.images.io, f"base.{image}", "base", site.images.io, "plain")
        targets = [site.target(RBD, "plain"), site.target(OURS_RADOS, name)]
        _round(targets, rates, sizes, size=size)
        site.volumes.remove(name)
        rbd.RBD().remove(site.images.io, "plain")
    return flat_rates(rates) | ratios(rates, OURS_RADOS, RBD, SMALL, name="rbd_ratio")


def _round(targets: Sequence[Target], into: Rates, sizes: Sizes, *, size: int = 0) -> None:
    """A disk and its other users are faster and slower by whole seconds: who is first in a turn is last in the next."""
    for one in LOADS:
        turns = sizes.turns if one.steady else 1
        for turn in range(turns):
            for target in targets[:: -1 if turn % 2 else 1]:
                if turn and target.name in ASIDE:
                    continue
                rate = measure(target, one, size=size or sizes.disk, seconds=sizes.seconds / turns)
                into.setdefault((target.name, one.name), []).append(rate)


@contextlib.contextmanager
def _clones(site: DirectorySite, image: MapId, sizes: Sizes) -> Iterator[list[Target]]:
    """One attached as Ganeti has it, one as QEMU opens the file, one served by nbdkit."""
    names = [new_name() for _ in range(3)]
    for name in names:
        site.volumes.clone(FromBase(map=image), name, uuid=None, size=Bytes(sizes.disk))
    files = [str(site.root / "volumes" / name / "disk") for name in names]
    socket = site.config.parent / "nbd.sock"
    words: list[str | Path] = ["nbdkit", "--foreground", "--unix", socket, "file", files[2], "cache=none"]
    try:
        device = site.volumes.attach(names[0]).device
        site.volumes.open(names[0], exclusive=True)
        with serve(words) as serving:
            wait_for(socket.exists, serving.check)
            yield [
                Target.of_file(OURS, str(device)),
                Target.of_file(OURS_FILE, files[1]),
                Target.of_nbd(NBDKIT, socket),
            ]
    finally:
        socket.unlink(missing_ok=True)
        for name in names:
            site.volumes.detach(name)
            site.volumes.remove(name)


@contextlib.contextmanager
def _loop(path: str) -> Iterator[str]:
    device = run(["losetup", "--find", "--show", "--direct-io=on", path], timeout_s=30).text.strip()
    try:
        yield device
    finally:
        run(["losetup", "--detach", device], timeout_s=30)


def flat_rates(rates: Mapping[tuple[str, str], Sequence[Rate]]) -> dict[str, object]:
    """PATH_LOAD_iops, or PATH_LOAD_MBps of what goes one after the other: medians."""
    figures: dict[str, object] = {}
    for (path, one), found in rates.items():
        if one.startswith("seq") or one == "overwrite":
            figures[f"{path}_{one}_MBps"] = round(statistics.median(rate.MBps for rate in found), 1)
        else:
            figures[f"{path}_{one}_iops"] = round(statistics.median(rate.iops for rate in found))
    return figures


def ratios(
    rates: Mapping[tuple[str, str], Sequence[Rate]], ours: str, theirs: str, loads: Sequence[str], *, name: str
) -> dict[str, object]:
    """NAME: the geometric mean of the loads' ratios; NAME_LOAD: each, if there are several.

    A ratio is the median of those of single turns: what slows the machine down for seconds slows both down.
    """
    each = {}
    for one in loads:
        turns = zip(rates[ours, one], rates[theirs, one], strict=True)
        each[f"{name}_{one}"] = round(statistics.median(mine.iops / other.iops for mine, other in turns), 3)
    mean = round(math.prod(each.values()) ** (1 / len(each)), 3)
    return {name: mean, **(each if len(each) > 1 else {})}
