"""Tell of a deployment, in three places: the log (for Ganeti's and for an operator), the journal (for `watch`), the
event spool (for the world). No place's trouble is the deployment's: it is logged once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from snf_image_host import journal
from snf_image_host.journal import (
    CopyDone,
    CopyProgressed,
    Failed,
    Finished,
    HelperStarted,
    Journal,
    Record,
    Started,
    TaskDone,
    TaskSkipped,
    TaskStarted,
    Warned,
)
from synnefo_light import events, manifest
from synnefo_light.errors import Error
from synnefo_light.events import ImageDeployed, ImageFailed, ImageProgressed
from synnefo_light.log import escape, logger
from synnefo_light.units import human

WARNINGS: Final = 100


class Reporter:
    def __init__(self, instance: str, *, image: str, spool: Path | None, journal: Journal | None) -> None:
        """Without a journal or a spool nothing is told there."""
        self.instance = instance
        self.step = "start"  # where we are: for the failure's record
        self.image = image  # img_id as given: for the events
        self._spool = spool
        self._journal = journal
        self._silent: set[str] = set()
        self._task_started = 0.0
        self._warnings = 0

    def started(self, record: Started) -> None:
        logger.info("instance=%s deploy image=%s size=%s", self.instance, record.image, human(record.size))
        self._write(record)

    def copying(self, done: int, total: int) -> None:
        self.step = "copy"
        self._write(CopyProgressed(done=done, total=total))
        self._progressed("copy", done=done, total=total)

    def copied(self, record: CopyDone) -> None:
        logger.info("instance=%s copy done written=%s ms=%d", self.instance, human(record.written), record.copy_ms)
        self._write(record)

    def helper(self, record: HelperStarted) -> None:
        self.step = "helper"
        logger.info("instance=%s helper start accel=%s (%s)", self.instance, record.accel, record.reason)
        self._write(record)
        self._progressed("helper")

    def message(self, message: manifest.Message) -> None:
        """One message of the helper VM: hostile, but in shape."""
        if isinstance(message, manifest.TaskStarted):
            self.step = message.task
            self._task_started = time.monotonic()
            self._write(TaskStarted(task=message.task))
            self._progressed("task", task=message.task)
        elif isinstance(message, manifest.TaskDone):
            spent = round((time.monotonic() - self._task_started) * 1000)
            logger.info("instance=%s task=%s done ms=%d", self.instance, message.task, spent)
            self._write(TaskDone(task=message.task, task_ms=spent))
        elif isinstance(message, manifest.TaskSkipped):
            reason = escape(message.reason)
            logger.info("instance=%s task=%s skipped: %s", self.instance, message.task, reason)
            self._write(TaskSkipped(task=message.task, reason=reason))
        elif isinstance(message, manifest.Warned):
            self._warned(message.task, escape(message.text))

    def finished(self, record: Finished) -> None:
        logger.info("instance=%s deploy done ms=%d", self.instance, record.total_ms)
        self._write(record)
        self._drop(
            "image-deployed",
            ImageDeployed(
                instance=self.instance,
                image=self.image,
                copied=record.copied,
                copy_ms=record.copy_ms,
                helper_ms=record.helper_ms,
                accel=record.accel,
            ),
        )

    def failed(self, sentence: str) -> None:
        self._write(Failed(step=self.step, reason=sentence))
        failed = ImageFailed(instance=self.instance, image=self.image, step=self.step, reason=sentence)
        self._drop("image-failed", failed)

    def _warned(self, task: str | None, text: str) -> None:
        self._warnings += 1
        if self._warnings <= WARNINGS:
            logger.warning("instance=%s task=%s warns: %s", self.instance, task or "-", text)
            self._write(Warned(task=task, text=text))

    def _progressed(self, step: str, *, task: str | None = None, done: int = 0, total: int = 0) -> None:
        assert step in ("copy", "helper", "task")
        detail = ImageProgressed(instance=self.instance, step=step, task=task, done=done, total=total)  # type: ignore[arg-type]
        self._drop("image-progressed", detail)

    def _write(self, record: Record) -> None:
        writer = self._journal
        if writer is not None:
            self._quietly("journal", lambda: writer.write(record))

    def _drop(self, type_: events.EventType, detail: events.Detail) -> None:
        spool = self._spool
        if spool is not None:
            self._quietly("event spool", lambda: events.drop(events.image_event(type_, detail), spool))

    def _quietly(self, place: str, act: Callable[[], object]) -> None:
        if place in self._silent:
            return
        try:
            act()
        except (OSError, Error) as e:
            self._silent.add(place)
            logger.warning("instance=%s the %s cannot be written and stays silent: %s", self.instance, place, e)


def open_journal(run_dir: Path, instance: str) -> Journal | None:
    try:
        return journal.Journal(run_dir, instance)
    except OSError as e:
        logger.warning("instance=%s no journal: %s", instance, e)
        return None
