from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snf_extstorage.directory.extents import plan_dirty, plan_shares
from snf_extstorage.directory.sharing import Mapped


def spans(now: list[Mapped], base: list[Mapped], size: int = 100) -> list[tuple[int, int]]:
    return [(e.start, e.length) for e in plan_dirty(now, base, size=size)]


@pytest.mark.parametrize(
    ("now", "base", "dirty"),
    [
        ([], [], []),
        ([Mapped(0, 100, 1000)], [Mapped(0, 100, 1000)], []),
        ([Mapped(0, 100, 1000)], [], [(0, 100)]),
        ([], [Mapped(0, 100, 1000)], [(0, 100)]),  # discarded
        ([Mapped(0, 40, 1000), Mapped(40, 20, 5000), Mapped(60, 40, 1060)], [Mapped(0, 100, 1000)], [(40, 20)]),
        ([Mapped(0, 100, 1004)], [Mapped(0, 100, 1000)], [(0, 100)]),
        ([Mapped(10, 20, 0, written=False)], [], []),  # allocated, never written: zeros like a hole
        ([Mapped(10, 20, 0, written=False)], [Mapped(10, 20, 7)], [(10, 20)]),
        ([Mapped(0, 100, None)], [Mapped(0, 100, None)], [(0, 100)]),  # places that say nothing
        ([Mapped(0, 10, 5), Mapped(10, 10, 15)], [Mapped(0, 20, 5)], []),  # one extent split in two
        ([Mapped(0, 10, 5), Mapped(50, 10, 25)], [], [(0, 10), (50, 10)]),
        ([Mapped(90, 40, 5)], [], [(90, 10)]),  # an extent may reach beyond the end
    ],
)
def test_dirty(now: list[Mapped], base: list[Mapped], dirty: list[tuple[int, int]]) -> None:
    assert spans(now, base) == dirty


files = st.lists(st.sampled_from([None, *range(6)]), max_size=24)


def mapped(places: list[int | None]) -> list[Mapped]:
    return [Mapped(n, 1, place * 100 + n) for n, place in enumerate(places) if place is not None]


@given(files, files)
def test_exactly_the_units_that_lie_elsewhere_are_dirty(now: list[int | None], base: list[int | None]) -> None:
    size = 24
    padded = [[*f, *[None] * (size - len(f))] for f in (now, base)]
    found = {n for start, length in spans(mapped(now), mapped(base), size) for n in range(start, start + length)}
    assert found == {n for n in range(size) if padded[0][n] != padded[1][n]}


def test_steps_cover_all_extents_with_the_holes_between_and_end_with_the_file() -> None:
    found = [Mapped(0, 10, 500), Mapped(20, 10, 700), Mapped(30, 10, 100), Mapped(60, 40, 900), Mapped(120, 8, 0)]
    assert list(plan_shares(found, [], size=90, step=2)) == [(0, 30), (30, 60)]
    assert list(plan_shares(found, [], size=90, step=9)) == [(0, 90)]
    assert list(plan_shares([], found, size=90, step=2)) == []


def test_what_is_shared_already_is_not_shared_again_however_it_is_cut() -> None:
    found = [Mapped(0, 10, 500), Mapped(10, 10, 510), Mapped(30, 10, 100), Mapped(60, 10, 900), Mapped(80, 10, None)]
    assert list(plan_shares(found[:4], [Mapped(0, 20, 500), *found[2:4]], size=99, step=9)) == []
    assert list(plan_shares(found, [Mapped(0, 5, 500), Mapped(5, 5, 505), *found[2:]], size=99, step=3)) == [
        (10, 10),
        (80, 10),
    ]
    assert list(plan_shares([Mapped(0, 10, 7, written=False)], [], size=99, step=3)) == []


@given(files, files, st.integers(1, 5))
def test_what_lies_elsewhere_is_in_a_step_and_no_step_reaches_far(
    now: list[int | None], there: list[int | None], step: int
) -> None:
    steps = list(plan_shares(mapped(now), mapped(there), size=20, step=step))
    covered = [n for start, length in steps for n in range(start, start + length)]
    there = [*there, *[None] * len(now)]
    assert {n for n, place in enumerate(now[:20]) if place is not None and place != there[n]} <= set(covered)
    assert len(covered) == len(set(covered))
    assert all(sum(place is not None for place in now[start : start + length]) <= step for start, length in steps)
    assert all(now[start] not in (None, there[start]) for start, _ in steps)
