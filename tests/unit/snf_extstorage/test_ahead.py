"""Who keeps writers out goes before others, and not for longer."""

from __future__ import annotations

import os

import pytest
from snf_extstorage.directory.ahead import before_others


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
