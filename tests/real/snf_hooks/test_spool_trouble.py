"""A spool that takes nothing: one line of syslog, no event, and Ganeti goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.snf_hooks.apart import IN_MEMORY, run

TROUBLES = {
    "read-only": 'mount -t tmpfs -o ro none "$1/spool"',
    "without space": 'mount -t tmpfs -o size=4k none "$1/spool"; yes | head -c 4096 >"$1/spool/x"',
    "without inodes": 'mount -t tmpfs -o nr_inodes=1 none "$1/spool"',
    "absent": 'rmdir "$1/spool"',
    "a file": 'rmdir "$1/spool"; touch "$1/spool"',
}


def test_without_trouble_there_is_an_event_and_no_line(folder: Path) -> None:
    outcome = run(folder, IN_MEMORY)
    assert (outcome.stderr, outcome.syslog, len(outcome.spool)) == ("", [], 1)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_spool_that_takes_nothing_is_one_line_of_syslog(folder: Path, trouble: str) -> None:
    outcome = run(folder, TROUBLES[trouble])
    assert len(outcome.syslog) == 1 and "snf-hooks[" in outcome.syslog[0], outcome
    assert "hook instance-start post: no event was left: " in outcome.syslog[0]
    assert outcome.stderr.count("\n") == 1 and outcome.spool in ([], ["x"])


def test_nics_that_cannot_be_remembered_are_one_line_and_the_event_is_there(folder: Path) -> None:
    outcome = run(folder, IN_MEMORY + '; mount -t tmpfs -o ro none "$1/memory"')
    assert len(outcome.syslog) == 1 and "will not say what was before" in outcome.syslog[0] and len(outcome.spool) == 1
