"""Telling of a deployment never harms it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from snf_image_host.journal import Finished, HelperStarted, Started
from snf_image_host.reporter import WARNINGS, Reporter, open_journal

from synnefo_light import events, manifest
from synnefo_light.log import logger

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
    reporter.helper(HelperStarted(accel="tcg", reason="because"))
    reporter.message(manifest.TaskStarted(task="mount"))
    reporter.message(manifest.TaskDone(task="mount"))


def seen(spool: Path) -> list[events.Event]:
    return [events.from_json(path.read_bytes()) for path in events.pending(spool)]


def test_a_success_is_told_as_events(tmp_path: Path) -> None:
    reporter = Reporter("web1", image="x.raw", spool=tmp_path, journal=None)
    tell(reporter)
    reporter.finished(FINISHED)
    told = seen(tmp_path)
    assert [e.type for e in told] == [*["image-progressed"] * 3, "image-deployed"]
    assert all(e.source == "/1/instances/web1" for e in told)
    assert told[0].detail == events.ImageProgressed(instance="web1", step="copy", done=1, total=2)
    assert told[2].detail == events.ImageProgressed(instance="web1", step="task", task="mount")
    assert told[3].detail == events.ImageDeployed(
        instance="web1", image="x.raw", copied=5, copy_ms=2000, helper_ms=4100, accel="tcg"
    )


def test_a_failure_says_at_which_step(tmp_path: Path) -> None:
    reporter = Reporter("web1", image="x.raw", spool=tmp_path, journal=None)
    tell(reporter)
    reporter.failed("why")
    (last,) = seen(tmp_path)[-1:]
    assert last.type == "image-failed"
    assert last.detail == events.ImageFailed(instance="web1", image="x.raw", step="mount", reason="why")


def test_a_spool_that_is_not_there_is_one_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger.propagate = True
    with caplog.at_level(logging.WARNING):
        tell(Reporter("web1", image="x.raw", spool=tmp_path / "absent", journal=None))
    assert [r.message.split(":")[0] for r in caplog.records] == [
        "instance=web1 the event spool cannot be written and stays silent"
    ]


def test_a_run_folder_that_is_not_there_is_no_journal(tmp_path: Path) -> None:
    assert open_journal(tmp_path / "absent", "web1") is None


def test_warnings_of_the_helper_are_escaped_and_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger.propagate = True
    reporter = Reporter("web1", image="x.raw", spool=None, journal=None)
    with caplog.at_level(logging.WARNING):
        for _ in range(400):
            reporter.message(manifest.Warned(task=None, text="a\x1b[2J\nb"))
    assert len(caplog.records) == WARNINGS
    assert "a\\x1b[2J\\x0ab" in caplog.records[0].getMessage()
