from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import pytest
from snf_image_host import journal
from snf_image_host.journal import (
    CopyDone,
    CopyProgressed,
    Entry,
    Failed,
    Finished,
    HelperStarted,
    Journal,
    Started,
    TaskDone,
    TaskProgressed,
    TaskSkipped,
    TaskStarted,
    Warned,
)
from snf_image_host.watch import View, follow

from synnefo_light.errors import EnvironmentFault, ProtocolError, UserError

STARTED = Started(instance="web1", image="debian.raw", size=1 << 30, disk=2 << 30, pid=1)
FINISHED = Finished(
    copied=5,
    copy_ms=2000,
    accel="tcg",
    helper_ms=4100,
    helper_boot_ms=1,
    helper_cpu_ms=1,
    helper_peak_rss=1,
    host_peak_rss=1,
    total_ms=1,
)
RECORDS: list[journal.Record] = [
    STARTED,
    CopyProgressed(done=0, total=1 << 30),
    CopyProgressed(done=1 << 29, total=1 << 30),
    CopyDone(written=1 << 20, copy_ms=2000),
    HelperStarted(accel="tcg", reason="there is no /dev/kvm"),
    TaskStarted(task="mount"),
    TaskProgressed(task="mount", done=1 << 28, total=1 << 30),
    TaskDone(task="mount", task_ms=120),
    TaskSkipped(task="swap", reason="none asked for"),
    Warned(task="network", text="odd"),
    Failed(step="mount", reason="sentence"),
    FINISHED,
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_a_record_survives_the_journal(record: journal.Record) -> None:
    entry = Entry(at_ms=5, record=record)
    assert journal.decode(journal.encode(entry).rstrip(b"\n")) == entry


@pytest.mark.parametrize(
    "line", [b"", b"[]", b'{"type":"started"}', b'{"at_ms":1,"type":"x"}', b'{"at_ms":1,"type":"failed"}']
)
def test_a_line_that_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        journal.decode(line)


def test_the_view_of_a_deployment() -> None:
    view = View()
    lines = [line for n, r in enumerate(RECORDS) for line in view.lines(Entry(at_ms=1000 * n, record=r))]
    assert [line.text for line in lines] == [
        "web1: debian.raw, 1 GiB onto 2 GiB",
        "   1.0 s  copy     [........................]   0% of 1 GiB",
        "   2.0 s  copy     [############............]  50% of 1 GiB  512 MiB/s",
        "   3.0 s  copy     1 MiB of data written in 2.0 s",
        "   4.0 s  helper   tcg: there is no /dev/kvm",
        "   5.0 s  task     mount ...",
        "   6.0 s  task     mount [######..................]  25% of 1 GiB  256 MiB/s",
        "   7.0 s  task     mount done in 0.1 s",
        "   8.0 s  task     swap skipped: none asked for",
        "   9.0 s  warning  network: odd",
        "  10.0 s  failed   sentence",
        "  11.0 s  done     copy 2.0 s, helper 4.1 s (tcg)",
    ]
    assert [n for n, line in enumerate(lines) if line.passing] == [1, 2, 5, 6]


def write(folder: Path, *records: journal.Record) -> Journal:
    writer = Journal(folder, "web1")
    for record in records:
        writer.write(journal.entry_of(record))
    return writer


def test_watch_follows_to_the_end(tmp_path: Path) -> None:
    write(tmp_path, STARTED, FINISHED).close()
    assert [e.record for e in follow(tmp_path, "web1")] == [STARTED, FINISHED]


def test_watch_waits_while_the_deployment_lives_and_ends_when_it_was_killed(tmp_path: Path) -> None:
    writer = write(tmp_path, STARTED)
    lock = os.open(journal.lock_of(tmp_path, "web1"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            writer.write(journal.entry_of(TaskStarted(task="mount")))
        if len(slept) == 5:
            os.close(lock)  # what the kernel does for a process that dies

    seen = [e.record for e in follow(tmp_path, "web1", sleep=sleep)]
    assert seen == [STARTED, TaskStarted(task="mount")]
    assert len(slept) == 5


@pytest.mark.parametrize("name", ["web2", "../web1", ".web1", "a/b", "x" * 250, "x" * 5000])
def test_watch_of_nothing_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no deployment of"):
        list(follow(tmp_path, name))


def test_a_journal_is_bounded_and_keeps_its_end(tmp_path: Path) -> None:
    writer = Journal(tmp_path, "web1")
    for n in range(30_000):
        writer.write(journal.entry_of(CopyProgressed(done=n, total=30_000)))
    writer.write(journal.entry_of(FINISHED))
    writer.close()
    path = journal.path_of(tmp_path, "web1")
    assert path.stat().st_size <= journal.LIMIT
    assert [e.record for e in follow(tmp_path, "web1")][-1] == FINISHED
    assert path.stat().st_mode & 0o777 == 0o644


def test_each_deployment_has_a_journal_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, STARTED, FINISHED).close()
    write(tmp_path, STARTED).close()
    assert [e.record for e in follow(tmp_path, "web1")] == [STARTED]


def test_the_same_instance_twice_is_refused_and_another_is_not(tmp_path: Path) -> None:
    with contextlib.ExitStack() as held:
        held.enter_context(journal.only_deployment(tmp_path, "web1"))
        held.enter_context(journal.only_deployment(tmp_path, "web2"))
        with pytest.raises(EnvironmentFault, match="another deployment of web1 is running"):
            held.enter_context(journal.only_deployment(tmp_path, "web1"))
    with journal.only_deployment(tmp_path, "web1"):
        pass
