"""How long a guest's writes wait for a snapshot, on a volume of many extents, while 32 writes are always under way.

A pause is the longest that any write took which was under way during the snapshot. The peer is the same writer left
alone for as long: what the disk and this machine's other work do by themselves.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import uuid4

from snf_extstorage.volume import FromBase, SnapshotName

from synnefo_light.ganeti import VolumeName
from synnefo_light.run import Completed, run
from synnefo_light.store.identity import MapId
from synnefo_light.units import Bytes
from tests.bench.storage_figures import ms, percentile
from tests.bench.storage_fio import Latencies, Load, Target, parse_fio, parse_latency_log, plan_latency_log, touch
from tests.bench.storage_place import DirectorySite, new_name
from tests.bench.storage_sizes import MIB, Sizes

WRITER: Final = Load(name="writer", pattern="randwrite", depth=32)
#: What is written to again and again: a guest's journal and its busiest tables.
BUSY: Final = 4 * MIB
#: Single blocks written far apart before that, each of which splits what was one extent.
AGED: Final = 512
#: After a snapshot, for what it left to do, and as long again without one.
REST_S: Final = 0.05
LEAST_S: Final = 20.0
#: Of one snapshot and its rests; the writer may go on for nothing, and must not end before.
EACH_S: Final = 0.8


#: Steps of the engine.
BEFORE, AFTER = "snapshot disk", "snapshot cut"


@dataclass
class Windows:
    """Beginnings and ends, in seconds of the clock."""

    snapshots: list[tuple[float, float]] = field(default_factory=list)
    alone: list[tuple[float, float]] = field(default_factory=list)
    extents: list[int] = field(default_factory=list)
    steps: dict[str, list[float]] = field(default_factory=dict)

    def note(self, step: str) -> None:
        self.steps.setdefault(step, []).append(time.monotonic())

    def cuts(self) -> list[float]:
        """Seconds of each clone alone, in which nobody can write."""
        return [end - start for start, end in zip(self.steps[BEFORE], self.steps[AFTER], strict=True)]


def measure_pause(site: DirectorySite, image: MapId, sizes: Sizes) -> dict[str, object]:
    """`image` has `sizes.disk` bytes and no hole."""
    name = new_name()
    site.volumes.clone(FromBase(map=image), name, uuid=None, size=Bytes(sizes.disk))
    try:
        target = Target.of_file("ours", str(site.volumes.attach(name).device))
        site.volumes.open(name, exclusive=True)
        touch(target, count=AGED, stride=sizes.disk // AGED, depth=1)
        prefix = site.scratch / "writer"
        seconds = max(LEAST_S, sizes.snapshots * EACH_S)
        words = plan_latency_log(target, WRITER, size=BUSY, seconds=seconds, prefix=prefix)
        with ThreadPoolExecutor(1) as threads:
            writer = threads.submit(run, words, timeout_s=seconds + 60)
            windows = _take_snapshots(site, name, writer, count=sizes.snapshots)
            rate = parse_fio(writer.result().text)
        log = Path(f"{prefix}_lat.1.log")
        latencies = Latencies(parse_latency_log(log.read_text()))
        log.unlink()
    finally:
        site.volumes.detach(name)
        site.volumes.remove(name)
    paused = [latencies.worst(*window) for window in windows.snapshots]
    alone = [latencies.worst(*window) for window in windows.alone]
    return {
        "snapshot_pause_ms_p50": ms(percentile(paused, 50)),
        "snapshot_pause_ms_p99": ms(percentile(paused, 99)),
        "snapshot_cut_ms_p50": ms(percentile(windows.cuts(), 50)),
        "snapshot_cut_ms_p99": ms(percentile(windows.cuts(), 99)),
        "snapshot_none_ms_p50": ms(percentile(alone, 50)),
        "snapshot_none_ms_p99": ms(percentile(alone, 99)),
        "snapshot_call_ms_p50": ms(percentile([end - start for start, end in windows.snapshots], 50)),
        "snapshot_extents": min(windows.extents),
        "snapshot_extents_p50": int(statistics.median(windows.extents)),
        "snapshot_writer_iops": round(rate.iops),
        "snapshots": len(windows.snapshots),
    }


def _take_snapshots(site: DirectorySite, name: VolumeName, writer: Future[Completed], *, count: int) -> Windows:
    """So many, as long as the writer writes."""
    found = Windows()
    volumes = site.seen_by(found.note)
    time.sleep(1)
    while len(found.snapshots) < count and not writer.done():
        found.extents.append(site.volumes.facts(name).extents or 0)
        snapshot = SnapshotName(f"s-{uuid4().hex}")
        began = time.time()
        volumes.snapshot({name: snapshot})
        ended = time.time()
        found.snapshots.append((began, ended))
        time.sleep(REST_S)
        site.volumes.drop_snapshot(snapshot)
        time.sleep(REST_S)
        alone = time.time()
        time.sleep(ended - began)
        found.alone.append((alone, time.time()))
    return found
