"""fio: what it is asked, and what it says."""

from __future__ import annotations

import bisect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from synnefo_light.errors import PeerError
from synnefo_light.run import Runner, run

#: Of what one fio does besides its work: starting, opening, the first look at a Ceph.
MARGIN_S: Final = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One pattern of reads or writes, for a time or for a number of them."""

    name: str
    pattern: str  # fio's --rw
    depth: int
    block: int = 4096
    flush: bool = False  # after each write
    once: bool = False  # every block, in any order, and then no more
    steady: bool = False  # it leaves the disk as it was, so it may be done again


#: In this order: reads of what a clone shares, first writes into it, and then it is used as a guest uses its disk.
LOADS: Final = (
    Load(name="read_qd1", pattern="randread", depth=1, steady=True),
    Load(name="read_qd32", pattern="randread", depth=32, steady=True),
    Load(name="seqread", pattern="read", depth=4, block=1 << 20),
    Load(name="first_qd32", pattern="randwrite", depth=32),
    Load(name="overwrite", pattern="randwrite", depth=32, block=64 << 10, once=True),
    Load(name="write_qd1", pattern="randwrite", depth=1, steady=True),
    Load(name="flush_qd1", pattern="randwrite", depth=1, flush=True, steady=True),
    Load(name="write_qd32", pattern="randwrite", depth=32, steady=True),
    Load(name="seqwrite", pattern="write", depth=4, block=1 << 20),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where fio reads and writes: fio's own words for it."""

    name: str
    words: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_file(cls, name: str, path: str | Path) -> Target:
        """A file or a block device, past the page cache."""
        return cls(name=name, words=("--ioengine=libaio", "--direct=1", f"--filename={path}"))

    @classmethod
    def of_rbd(cls, name: str, *, conf: Path, user: str, pool: str, image: str) -> Target:
        words = ("--ioengine=rbd", f"--clientname={user}", f"--pool={pool}", f"--rbdname={image}")
        # librbd reads the place of its configuration from the environment; fio has no word for it.
        return cls(name=name, words=words, env={"CEPH_CONF": str(conf)})

    @classmethod
    def of_nbd(cls, name: str, socket: Path) -> Target:
        return cls(name=name, words=("--ioengine=nbd", f"--uri=nbd+unix:///?socket={socket}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    iops: float
    MBps: float  # 10^6 bytes a second
    seconds: float
    count: int


def plan_run(target: Target, load: Load, *, size: int, seconds: float = 0, count: int = 0) -> list[str]:
    """fio's words: for `seconds`, or for `count` blocks, each in a stretch of its own, in order."""
    words = ["fio", "--name=bench", "--output-format=json", *target.words]
    words += [f"--rw={load.pattern}", f"--bs={load.block}", f"--iodepth={load.depth}", f"--size={size}"]
    # The same places each time, and content that nothing on the way makes small.
    words += ["--randseed=7", "--refill_buffers", "--thread"]
    if load.flush:
        words += ["--fsync=1"]
    if seconds and not load.once:
        words += ["--norandommap", "--time_based", f"--runtime={round(seconds * 1000)}ms"]
    if count:
        words += [f"--number_ios={count}"]
    return words


def parse_fio(text: str) -> Rate:
    """The JSON of one job. Raises PeerError when it did not work, or did nothing."""
    # Notes of the engine may stand before it.
    try:
        job = json.loads(text[text.index("{") :])["jobs"][0]
        error, parts = int(job["error"]), [job[kind] for kind in ("read", "write")]
        total = sum(int(part["total_ios"]) for part in parts)
        part = max(parts, key=lambda one: int(one["total_ios"]))
        found = Rate(
            iops=float(part["iops"]),
            MBps=round(float(part["bw_bytes"]) / 1e6, 1),
            seconds=float(part["runtime"]) / 1000,
            count=total,
        )
    except (KeyError, IndexError, TypeError, ValueError) as e:
        raise PeerError(f"fio's answer cannot be read ({type(e).__name__}: {e}): {text[:200]!r}") from e
    if error or not total:
        raise PeerError(f"fio did {total} reads and writes and ended with error {error}; its rate counts for nothing")
    return found


def measure(target: Target, load: Load, *, size: int, seconds: float, runner: Runner = run) -> Rate:
    words = plan_run(target, load, size=size, seconds=seconds)
    return parse_fio(runner(words, env=target.env, timeout_s=seconds + MARGIN_S).text)


def touch(target: Target, *, count: int, stride: int, depth: int, runner: Runner = run) -> Rate:
    """`count` writes of 4 KiB, each at the beginning of a stretch of `stride` bytes that was not written before."""
    load = Load(name="touch", pattern=f"write:{stride - 4096}", depth=depth)
    words = plan_run(target, load, size=count * stride, count=count)
    found = parse_fio(runner(words, env=target.env, timeout_s=MARGIN_S).text)
    if found.count != count:
        raise PeerError(f"fio was to write {count} times and did so {found.count} times")
    return found


@dataclass(frozen=True, slots=True)
class Done:
    """One read or write that ended, of a latency log: seconds of the clock."""

    ended: float
    took: float


def parse_latency_log(text: str) -> list[Done]:
    """fio's --write_lat_log with --log_unix_epoch=1 (milliseconds, nanoseconds, ...). Raises PeerError."""
    try:
        rows = [line.split(",", 2) for line in text.splitlines()]
        return [Done(ended=int(row[0]) / 1e3, took=int(row[1]) / 1e9) for row in rows]
    except (ValueError, IndexError) as e:
        raise PeerError(f"fio's log of latencies cannot be read: {e}") from e


def plan_latency_log(target: Target, load: Load, *, size: int, seconds: float, prefix: Path) -> list[str]:
    """As `plan_run`, with each read or write noted in PREFIX_lat.1.log."""
    words = plan_run(target, load, size=size, seconds=seconds)
    log = [f"--write_lat_log={prefix}", "--log_unix_epoch=1", "--disable_slat=1", "--disable_clat=1"]
    return [*words, *log]


class Latencies:
    """Reads and writes by their end."""

    def __init__(self, done: Sequence[Done]) -> None:
        self._done = sorted(done, key=lambda one: one.ended)
        self._longest = max((one.took for one in done), default=0.0)

    def worst(self, start: float, end: float) -> float:
        """The longest that any of them took which was under way between two times; 0 without any."""
        first = bisect.bisect_left(self._done, start, key=lambda one: one.ended)
        last = bisect.bisect_right(self._done, end + self._longest, key=lambda one: one.ended)
        return max((one.took for one in self._done[first:last] if one.ended - one.took <= end), default=0.0)
