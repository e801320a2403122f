"""Is the store whole? Reads every name, pin, root and page, and looks for every block; `scrub.py` reads the blocks.

Runs beside everything else: what is written meanwhile is found whole or not at all, for references come last. Nothing
is mended but what can be without a choice: leftovers of dead writers older than the grace, and cuts that were not
finished. Garbage is no problem; the collector removes it.

Exit codes, as fsck(8) orders them: 0 whole; 1 only leftovers, and they were removed; 2 something is in the store
that is not the store's or was left behind, no data is in danger; 4 something that is needed is missing or damaged.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

from synnefo_light.store import cuts, names, pins, reach
from synnefo_light.store.backend import Instant, Kind
from synnefo_light.store.errors import Absent, Corrupt, StoreFault
from synnefo_light.store.formats import HOLE, PAGE_ENTRIES, Root, blocks_covered, parse_page, stored_length, subtree_of
from synnefo_light.store.identity import MapId
from synnefo_light.store.names import Named
from synnefo_light.store.reach import Digests, Reference
from synnefo_light.store.store import CUTS_KEY, Store


class Weight(enum.IntEnum):
    MENDED = 1
    STRAY = 2
    DAMAGE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    place: str
    why: str
    weight: Weight

    def __str__(self) -> str:
        return f"{self.place} {self.why}"


@dataclass(slots=True, kw_only=True)
class Report:
    problems: list[Problem] = field(default_factory=list)
    names: int = 0
    maps: int = 0
    pages: int = 0
    blocks: int = 0

    @property
    def exit_code(self) -> int:
        return max((int(problem.weight) for problem in self.problems), default=0)


def check(store: Store, *, mend: bool = False) -> Report:
    """Raises nothing for what is wrong in the store: it is in the report. With `mend`, leftovers go."""
    report = Report()
    walk = _Walk(store, report)
    for reference in walk.references():
        walk.map(reference)
    walk.blocks_exist()
    report.maps, report.pages = len(walk.roots), len({key[:32] for key in walk.pages})
    _cuts(walk, mend=mend)
    before = _strays(store, report)
    if mend and before:
        store.backend.sweep_leftovers(untouched_since=Instant(store.backend.now() - store.format.grace_s))
        left = set(_strays(store, report))
        report.problems += [_problem(place, why, Weight.MENDED) for place, why in before if (place, why) not in left]
        before = [stray for stray in before if stray in left]
    report.problems += [_problem(place, why, Weight.STRAY) for place, why in before]
    return report


def _cuts(walk: _Walk, *, mend: bool) -> None:
    """Those that were not finished when this began, and are not now."""
    with _Noting(walk, CUTS_KEY):
        cuts.begun(walk.store)
    mended = cuts.finish(walk.store) if mend and walk.heads else []
    for before in walk.heads:
        place = f"name {before.name}"
        with _Noting(walk, place):
            if before.name in mended:
                walk.report.problems.append(_problem(place, "begins a cut that was finished now", Weight.MENDED))
            elif names.load(walk.store, before.name).version == before.version:
                walk.report.problems.append(_problem(place, "begins a cut that was not finished", Weight.STRAY))


def _strays(store: Store, report: Report) -> list[tuple[str, str]]:
    try:
        return [(stray.place, stray.why) for stray in store.backend.strays()]
    except StoreFault as e:
        report.problems.append(_problem(store.backend.place, f"cannot be listed: {e}", Weight.DAMAGE))
        return []


def _problem(place: str, why: str, weight: Weight = Weight.DAMAGE) -> Problem:
    return Problem(place=place, why=why, weight=weight)


class _Walk:
    def __init__(self, store: Store, report: Report) -> None:
        self.store = store
        self.report = report
        self.roots: dict[MapId, Root | None] = {}
        self.pages: dict[bytes, bool] = {}
        self.blocks = Digests()
        self.heads: list[Named] = []
        self._whole: list[Reference] = []

    def references(self) -> Iterator[Reference]:
        """Names and live pins, each that cannot be read a problem."""
        for key in self._keys(Kind.NAME):
            with _Noting(self, f"name {key}"):
                named = names.load(self.store, key)
                map_id = named.entry.map
                self.report.names += 1
                if named.entry.cut:
                    self.heads.append(named)
                if map_id is not None:
                    yield Reference(who=f"name {key}", map_id=map_id)
        for key in self._keys(Kind.PIN):
            with _Noting(self, f"pin {key}"):
                held = pins.load(self.store, key)
                if held.pin.alive(self.store.backend.now()):
                    yield from (Reference(who=f"pin {key}", map_id=MapId(m)) for m in held.pin.maps)

    def map(self, reference: Reference) -> None:
        map_id = reference.map_id
        if map_id not in self.roots:
            self.roots[map_id] = None
            with _Noting(self, reference.who, missing=True):
                self.roots[map_id] = reach.read_root(self.store, map_id)
        root = self.roots[map_id]
        if root is None:
            return
        whole = [self._page(reference, root, number) for number in range(len(root.pages))]
        if all(whole):
            self._whole.append(reference)

    def _page(self, reference: Reference, root: Root, number: int) -> bool:
        entry = root.pages[number]
        entries: tuple[bytes, ...] = ()
        covered = blocks_covered(root.size, number)
        known = (entry.page + entry.subtree + covered.to_bytes(4, "big")) if entry.page != HOLE else b""
        if known in self.pages:
            return self.pages[known]
        good = False
        with _Noting(self, f"{reference.who}, page {number} of its map {reference.map_id}", missing=True):
            if entry.page != HOLE:
                data = self.store.backend.read(Kind.PAGE, entry.page.hex())
                entries = parse_page(data, entry.page.hex())
                self.blocks.add(b"".join(entries))
            if len(entries) > covered:
                raise Corrupt(f"page {number} of map {reference.map_id}", "reaches beyond the map's end")
            if subtree_of(entries, covered=covered, alone=len(root.pages) == 1) != entry.subtree:
                raise Corrupt(f"page {number} of map {reference.map_id}", "has another hash than its root says")
            good = True
        if known:
            self.pages[known] = good
        return good

    def blocks_exist(self) -> None:
        missing: dict[bytes, str] = {}
        for number in range(256):
            for block in self.blocks.part(number):
                self.report.blocks += 1
                try:
                    size = self.store.backend.stat(Kind.BLOCK, block.hex()).size
                    if size == 0 or size != stored_length(size):
                        missing[block] = f"has {size} bytes, which no block is stored with"
                except Absent:
                    missing[block] = "is missing"
                except StoreFault as e:
                    missing[block] = str(e)
        self.blocks.close()
        if missing:
            self._tell_whose(missing)

    def _tell_whose(self, missing: dict[bytes, str]) -> None:
        for reference in self._whole:
            root = self.roots[reference.map_id]
            assert root is not None
            for number, entry in enumerate(root.pages):
                if entry.page == HOLE:
                    continue
                with _Noting(self, reference.who, missing=True):
                    entries = parse_page(self.store.backend.read(Kind.PAGE, entry.page.hex()), entry.page.hex())
                    for index, block in enumerate(entries, number * PAGE_ENTRIES):
                        if block in missing:
                            self.report.problems.append(
                                _problem(f"{reference.who}, block {index}: block {block.hex()}", missing[block])
                            )

    def _keys(self, kind: Kind) -> list[str]:
        with _Noting(self, kind.value):
            return sorted(self.store.backend.keys(kind))
        return []


class _Noting:
    """What is raised in here becomes a problem. Absent is one if `missing`; else somebody removed it meanwhile."""

    def __init__(self, walk: _Walk, place: str, *, missing: bool = False) -> None:
        self._walk, self._place, self._missing = walk, place, missing

    def __enter__(self) -> _Noting:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: object) -> bool:
        if isinstance(error, StoreFault) or (isinstance(error, Absent) and self._missing):
            self._walk.report.problems.append(_problem(self._place, f"cannot be read: {error}"))
            return True
        return isinstance(error, Absent)
