"""How much is measured: in full, or for a quick look. The JSON names what was used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    rounds: int
    xfs: int  # of the file system; what lies under it must have as much as is written
    image: int = 100 * GIB
    huge: int = 16 * TIB
    data: int  # in an image
    runs: int  # in so many stretches
    full: int  # an image that is full
    rados_data: int
    rados: int  # of the OSD
    clones: int  # a round
    scripts: int  # calls a round
    disk: int  # what fio reads and writes
    seconds: float  # of fio on one path, in all turns of a round
    turns: int  # of a path in a round
    snapshots: int
    deploys: int  # of each kind; one takes as long as a helper VM
    dedup_clones: int

    def named(self) -> dict[str, object]:
        """What the figures' names do not say."""
        return {
            "rounds": self.rounds,
            "image_data_MiB": self.data // MIB,
            "full_GiB": self.full // GIB,
            "rados_image_data_MiB": self.rados_data // MIB,
            "clones_a_round": self.clones,
            "fio_disk_MiB": self.disk // MIB,
            "fio_s": self.seconds,
            "fio_turns": self.turns,
            "deploys": self.deploys,
            "dedup_clones": self.dedup_clones,
        }


def sizes(rounds: int) -> Sizes:
    """One round is a quick look at everything; the figures to be believed are those of two and more."""
    if rounds == 1:
        return Sizes(
            rounds=1,
            xfs=24 * GIB,
            data=GIB // 4,
            runs=16,
            full=GIB,
            rados_data=64 * MIB,
            rados=8 * GIB,
            clones=20,
            scripts=3,
            disk=GIB // 4,
            seconds=0.6,
            turns=2,
            snapshots=20,
            deploys=1,
            dedup_clones=4,
        )
    return Sizes(
        rounds=rounds,
        xfs=48 * GIB,
        data=2 * GIB,
        runs=64,
        full=16 * GIB,
        rados_data=GIB,
        rados=16 * GIB,
        clones=50,
        scripts=5,
        disk=GIB // 2,
        seconds=1.2,
        turns=4,
        snapshots=100,
        deploys=2,
        dedup_clones=20,
    )
