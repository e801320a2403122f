"""Who may write, in every order in which Ganeti was seen to ask."""

from __future__ import annotations

import pytest
from snf_extstorage.volume import InUse
from snf_extstorage.writers import Opening, Writers, plan_close, plan_open

A = Writers(("a",), True)
SHARED_A = Writers(("a",), False)
SHARED = Writers(("a", "b"), False)
NOBODY = Writers()


def open_as(now: Writers, node: str, *, exclusive: bool, used_here: bool = False) -> Opening:
    return plan_open(now, node, exclusive=exclusive, used_here=used_here, volume="v")


@pytest.mark.parametrize(
    ("now", "node", "exclusive", "used_here", "then", "fence"),
    [
        (NOBODY, "a", True, False, A, False),
        (A, "a", True, False, A, False),  # Ganeti opens twice at each start
        (A, "a", True, True, A, False),
        (A, "a", False, True, SHARED_A, False),  # a migration begins at its source
        (SHARED_A, "b", False, False, SHARED, False),
        (SHARED, "b", False, True, SHARED, False),
        (Writers(("b",), False), "b", True, True, Writers(("b",), True), False),  # the source has closed
        # It failed, the target is cut off, the guest goes on at the source: a fence is owed.
        (SHARED, "a", True, True, Writers(("a",), True, ("b",)), False),
        (Writers(("a",), True, ("b",)), "a", True, True, Writers(("a",), True, ("b",)), False),
        (Writers((), False, ("b",)), "a", True, False, A, True),  # stopped and started: now it is done
        (Writers(("a",), True, ("b",)), "c", True, False, Writers(("c",), True), True),
        (Writers(("a",), True, ("b",)), "a", False, True, Writers(("a",), False, ("b",)), False),  # owed while it moves
        (Writers(("a",), False, ("b",)), "c", False, False, Writers(("a", "c"), False, ("b",)), False),
        (Writers((), False, ("b",)), "b", True, False, Writers(("b",), True), False),  # nobody but itself
        (SHARED, "b", True, False, Writers(("b",), True), True),  # the source died and nothing runs here yet
        (A, "b", True, False, Writers(("b",), True), True),  # failover from a dead node
    ],
)
def test_open(now: Writers, node: str, exclusive: bool, used_here: bool, then: Writers, fence: bool) -> None:
    assert open_as(now, node, exclusive=exclusive, used_here=used_here) == Opening(then, fence)


@pytest.mark.parametrize(
    ("now", "node", "exclusive", "used_here", "sentence"),
    [
        (A, "b", False, False, "a has it for itself"),
        (SHARED, "c", False, False, "a and b do so already"),
        (A, "b", True, True, "a process here has it open already"),
        (Writers(("a",), True, ("b",)), "b", True, True, "was taken from it, but a process here still has it open"),
        (Writers((), False, ("b",)), "b", False, True, "was taken from it, but a process here still has it open"),
    ],
)
def test_what_is_refused(now: Writers, node: str, exclusive: bool, used_here: bool, sentence: str) -> None:
    with pytest.raises(InUse, match=sentence):
        open_as(now, node, exclusive=exclusive, used_here=used_here)


def test_close_leaves_the_other_end_as_it_was() -> None:
    assert plan_close(A, "a") == NOBODY
    assert plan_close(SHARED, "a") == Writers(("b",), False)
    assert plan_close(A, "b") == A
    assert plan_close(NOBODY, "a") == NOBODY
    owed = Writers(("b",), True, ("a",))
    assert plan_close(owed, "b") == Writers((), False, ("a",))
    assert plan_close(owed, "a") == Writers(("b",), True)


def test_whoever_lost_it_without_a_close_is_fenced_or_written_down() -> None:
    for now in (
        NOBODY,
        A,
        SHARED_A,
        SHARED,
        Writers(("b",), True),
        Writers(("b",), True, ("a",)),
        Writers((), False, ("a",)),
    ):
        for node in ("a", "b", "c"):
            for used in (False, True):
                try:
                    plan = open_as(now, node, exclusive=True, used_here=used)
                except InUse:
                    continue
                assert plan.writers.nodes == (node,)
                assert plan.fence or {*now.nodes, *now.owed} - {node} == set(plan.writers.owed)
                assert not (plan.fence and used)
