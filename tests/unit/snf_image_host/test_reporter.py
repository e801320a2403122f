"""Telling of a deployment never harms it, and each listener tells it in its own words."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from snf_image_host.announcer import LIMIT, Announcer
from snf_image_host.journal import CopyDone, Entry, Finished, HelperStarted, Started
from snf_image_host.monitor import messages_of
from snf_image_host.reporter import WARNINGS, Reporter

from synnefo_light import events, manifest
from synnefo_light.errors import EnvironmentFault
from synnefo_light.log import logger
from synnefo_light.records import RecordError

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


def tell(reporter: Reporter) -> None:
    reporter.started(Started(instance="web1", image="x.raw", size=1, disk=2, pid=1))
    reporter.copying(1, 2)
    reporter.copied(CopyDone(written=1, copy_ms=1))
    reporter.helper(HelperStarted(accel="tcg", reason="because"))
    reporter.message(manifest.TaskStarted(task="mount"))
    reporter.message(manifest.Progressed(task="mount", done=3, total=4))
    reporter.message(manifest.Warned(task="mount", text="odd"))
    reporter.message(manifest.TaskDone(task="mount"))
    reporter.message(manifest.TaskSkipped(task="swap", reason="none asked for"))


def announced(spool: Path, act: Callable[[Reporter], None]) -> list[events.Event]:
    act(Reporter("web1", listeners={"spool": Announcer("web1", image="x.raw", spool=spool)}))
    return [events.from_json(path.read_bytes()) for path in events.pending(spool)]


def test_a_deployment_is_told_as_events(tmp_path: Path) -> None:
    def act(reporter: Reporter) -> None:
        tell(reporter)
        reporter.finished(FINISHED)

    told = announced(tmp_path, act)
    assert all(e.source == "/1/instances/web1" for e in told)
    ended = events.ImageTaskEnded
    done = next(e.detail for e in told if e.type == "image-task-ended")
    assert isinstance(done, ended)
    assert [e.detail for e in told] == [
        events.ImageProgressed(instance="web1", step="copy", done=1, total=2),
        events.ImageProgressed(instance="web1", step="helper"),
        events.ImageProgressed(instance="web1", step="task", task="mount"),
        events.ImageProgressed(instance="web1", step="task", task="mount", done=3, total=4),
        events.ImageWarned(instance="web1", task="mount", text="odd"),
        ended(instance="web1", task="mount", outcome="done", ms=done.ms),
        ended(instance="web1", task="swap", outcome="skipped", ms=0, reason="none asked for"),
        events.ImageDeployed(instance="web1", image="x.raw", copied=5, copy_ms=2000, helper_ms=4100, accel="tcg"),
    ]


def test_a_failure_says_at_which_step(tmp_path: Path) -> None:
    def act(reporter: Reporter) -> None:
        tell(reporter)
        reporter.failed("why")

    last = announced(tmp_path, act)[-1]
    assert last.detail == events.ImageFailed(instance="web1", image="x.raw", step="mount", reason="why")


def test_the_same_percent_is_told_once_and_the_number_of_events_is_bounded_but_the_end_is_told(tmp_path: Path) -> None:
    def act(reporter: Reporter) -> None:
        for done in range(1000):
            reporter.copying(done, 1000)
        for n in range(500):
            reporter.message(manifest.TaskSkipped(task=f"t{n}", reason="x"))
        reporter.failed("why")

    told = announced(tmp_path, act)
    assert sum(e.type == "image-progressed" for e in told) == 100
    assert len(told) == LIMIT + 1
    assert told[-1].type == "image-failed"


@pytest.mark.parametrize("trouble", [OSError("full"), EnvironmentFault("full"), RecordError("no text")])
def test_a_listener_in_trouble_is_one_line_in_the_log_and_the_others_hear_on(
    trouble: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Entry] = []

    def broken(entry: Entry) -> None:
        raise trouble

    logger.propagate = True
    with caplog.at_level(logging.WARNING):
        tell(Reporter("web1", listeners={"journal": broken, "report": heard.append}))
    assert len(heard) == 9
    assert [r.message for r in caplog.records if "stays silent" in r.message] == [
        "instance=web1 the journal cannot be written and stays silent: " + str(trouble)
    ]


def test_warnings_of_the_helper_are_escaped_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    logger.propagate = True
    heard: list[Entry] = []
    reporter = Reporter("web1", listeners={"report": heard.append})
    with caplog.at_level(logging.WARNING):
        for _ in range(400):
            reporter.message(manifest.Warned(task=None, text="a\x1b[2J\nb"))
    assert len(caplog.records) == len(heard) == WARNINGS
    assert "a\\x1b[2J\\x0ab" in caplog.records[0].getMessage()


def monitored(act: Callable[[Reporter], None]) -> list[dict[str, object]]:
    """What snf-image's monitor is told, without the times."""
    heard: list[Entry] = []
    act(Reporter("web1", listeners={"monitor": heard.append}))
    names = {"mount": "MountImage"}
    told = [m for entry in heard for m in messages_of(entry, names=names, running="mount")]
    assert all(isinstance(m.pop("timestamp"), float) for m in told)
    assert json.loads(json.dumps(told)) == told
    return told


def test_the_messages_of_the_monitor_are_snf_images() -> None:
    told = monitored(tell)
    assert {tuple(sorted(m)) for m in told if m["type"] == "image-info"} == {("messages", "type")}
    assert [m for m in told if m["type"] != "image-info"] == [
        {"type": "image-copy-progress", "position": 1, "total": 2, "progress": 50.0},
        {"type": "image-helper", "subtype": "task-start", "task": "MountImage"},
        {"type": "image-copy-progress", "position": 3, "total": 4, "progress": 75.0},
        {"type": "image-helper", "subtype": "warning", "messages": ["odd"]},
        {"type": "image-helper", "subtype": "task-end", "task": "MountImage"},
    ]


def test_the_monitor_hears_of_a_failure_in_a_task_and_why() -> None:
    assert monitored(lambda reporter: reporter.failed("why")) == [
        {"type": "image-helper", "subtype": "error", "messages": ["The task MountImage failed"]},
        {"type": "image-error", "messages": ["why"]},
    ]
