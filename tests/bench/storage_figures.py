"""Figures from samples, and what each is wanted to be: pure.

Ours and the peer are measured in turns, so that other work on the machine falls on both; a ratio is of the medians.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that this many percent of them do not exceed (nearest rank); with few it is the greatest."""
    if not samples:
        raise ValueError("there is no percentile of nothing")
    return sorted(samples)[max(0, math.ceil(len(samples) * percent / 100) - 1)]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of ours by the median of theirs."""
    return round(statistics.median(ours) / statistics.median(theirs), 3)


def ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


@dataclass(frozen=True, slots=True)
class Goal:
    way: Literal["<=", ">="]
    limit: float

    def is_met(self, value: float) -> bool:
        return value <= self.limit if self.way == "<=" else value >= self.limit


GOALS: Final[Mapping[str, Goal]] = {
    "clone_100GiB_ms_p99": Goal("<=", 15),
    "clone_rados_ratio": Goal("<=", 1.2),
    "clone_16TiB_ratio": Goal("<=", 2),
    "rados_first_writes_ratio": Goal("<=", 0.5),
    "snapshot_pause_ms_p99": Goal("<=", 60),
    "snapshot_extents": Goal(">=", 1000),
    "dir_ratio_qd1": Goal(">=", 0.75),
    "dir_ratio_qd32": Goal(">=", 0.60),
    "rbd_ratio": Goal(">=", 0.95),
    "nbdkit_ratio": Goal(">=", 1),
    "gc_entries_per_s": Goal(">=", 1e6),
}


def plan_verdicts(figures: Mapping[str, object]) -> list[tuple[str, str, str, str]]:
    """A row for each goal whose figure was measured: name, figure, goal, "met" or "missed"."""
    rows = []
    for name, goal in GOALS.items():
        value = figures.get(name)
        if isinstance(value, (int, float)):
            rows.append((name, f"{value:g}", f"{goal.way} {goal.limit:g}", "met" if goal.is_met(value) else "missed"))
    return rows
