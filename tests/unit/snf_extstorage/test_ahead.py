"""Who keeps writers out goes before others, and not for longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from snf_extstorage.directory import ahead
from snf_extstorage.directory.ahead import before_others, share_ahead
from snf_extstorage.directory.sharing import Mapped


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Policies and priorities that were set."""
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "sched_getscheduler", lambda pid: os.SCHED_BATCH)
    monkeypatch.setattr(os, "sched_getparam", lambda pid: os.sched_param(0))
    monkeypatch.setattr(os, "sched_setscheduler", lambda pid, policy, p: told.append((policy, p.sched_priority)))
    return told


def test_a_thread_goes_before_others_and_is_what_it_was_afterwards(told: list[tuple[int, int]]) -> None:
    with before_others():
        assert told == [(os.SCHED_RR, 1)]
    assert told[1:] == [(os.SCHED_BATCH, 0)]


def test_it_is_what_it_was_also_when_what_it_did_failed(told: list[tuple[int, int]]) -> None:
    with pytest.raises(OSError, match="no space"), before_others():
        raise OSError("no space")
    assert told[1:] == [(os.SCHED_BATCH, 0)]


def test_where_that_is_not_allowed_it_is_done_as_ever(
    told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def refuse(pid: int, policy: int, priority: os.sched_param) -> None:
        tried.append(policy)
        raise PermissionError(1, "no")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with before_others():
        tried.append(-1)
    assert tried == [os.SCHED_RR, -1]


def test_a_failure_of_what_it_does_is_not_taken_for_a_refusal(told: list[tuple[int, int]]) -> None:
    with pytest.raises(PermissionError), before_others():
        raise PermissionError(1, "of the clone")
    assert len(told) == 2


def test_what_changes_as_fast_as_it_is_shared_is_left_to_the_clone_and_each_step_goes_before_others(
    told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is shared has other places the next time for every second extent, again and again."""
    path = tmp_path / "source"
    path.touch()
    os.truncate(path, 1024)
    there: dict[int, int] = {}
    writes = 0
    shared: list[int] = []

    def extents(fd: int) -> list[Mapped]:
        places = there if fd == -1 else {n: 5000 + n + (writes * 10000 if n % 2 else 0) for n in range(1024)}
        return [Mapped(n, 1, place) for n, place in sorted(places.items())]

    def share(source: int, start: int, length: int, target: int, at: int) -> None:
        nonlocal writes
        assert told[-1] == (os.SCHED_RR, 1)
        now = {one.start: one.place for one in extents(source)}
        there.update({n: place for n, place in now.items() if start <= n < start + length and place is not None})
        shared.append(length)
        writes += 1

    monkeypatch.setattr(ahead, "extents", extents)
    monkeypatch.setattr(ahead, "clone_range", share)
    with open(path, "rb") as source:
        share_ahead(source.fileno(), -1)
    assert sum(shared) >= 1024  # all of it once
    assert 1024 // ahead.STEP <= len(shared) <= 3 * 1024 // ahead.STEP  # and not for ever
    assert max(shared) <= ahead.STEP
    assert told[-1] == (os.SCHED_BATCH, 0)
