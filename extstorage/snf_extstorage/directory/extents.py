"""Where two files differ, by where their data is: pure.

Files that share an extent have it at the same place of the device. An extent that is shared is never written in place,
so the same place is the same content, as long as both files exist. A different place may still be the same content.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from snf_extstorage.directory.sharing import Mapped
from snf_extstorage.volume import Extent


def plan_dirty(now: Iterable[Mapped], base: Iterable[Mapped], *, size: int) -> Iterator[Extent]:
    """The parts of a file of `size` bytes that are not certainly the same in `base`; ascending, not touching.

    A hole and what is allocated but unwritten are zeros alike. Both lists are ascending, as FIEMAP gives them.
    """
    here, there = _Runs(now), _Runs(base)
    at, start = 0, None
    while at < size:
        mine, mine_end = here.at(at)
        theirs, theirs_end = there.at(at)
        end = min(mine_end, theirs_end, size)
        if mine == theirs and mine != _NOWHERE:
            if start is not None:
                yield Extent(start=start, length=at - start)
                start = None
        elif start is None:
            start = at
        at = end
    if start is not None:
        yield Extent(start=start, length=size - start)


def plan_shares(now: Iterable[Mapped], there: Iterable[Mapped], *, size: int, step: int) -> Iterator[tuple[int, int]]:
    """Runs (start, length) that hold all of `now` that is not at the same place `there`; none ends beyond `size`.

    Each reaches over at most `step` extents, holes and what is the same between them included. What is only `there`
    is left.
    """
    theirs = _Runs(there)
    first = start = end = None
    for number, run in enumerate(now):
        if run.start >= size:
            break
        if first is not None and start is not None and end is not None and number - first >= step:
            yield start, end - start
            first = None
        if run.written and not _is_at(run, theirs):
            if first is None:
                first, start = number, run.start
            end = min(run.start + run.length, size)
    if first is not None and start is not None and end is not None:
        yield start, end - start


def _is_at(run: Mapped, theirs: _Runs) -> bool:
    at, end = run.start, run.start + run.length
    while at < end:
        place, until = theirs.at(at)
        if run.place is None or place != run.place + at - run.start:
            return False
        at = until
    return True


#: A place that is not known: different from every other.
_NOWHERE = -1
_FAR = 1 << 62


class _Runs:
    """What is at a position that only ever rises: the place of its first byte (None: zeros), and where that ends."""

    def __init__(self, runs: Iterable[Mapped]) -> None:
        self._runs = iter(runs)
        self._run = next(self._runs, None)

    def at(self, position: int) -> tuple[int | None, int]:
        while self._run is not None and self._run.start + self._run.length <= position:
            self._run = next(self._runs, None)
        run = self._run
        if run is None:
            return None, _FAR
        if position < run.start:
            return None, run.start
        end = run.start + run.length
        if not run.written:
            return None, end
        return (_NOWHERE if run.place is None else run.place + position - run.start), end
