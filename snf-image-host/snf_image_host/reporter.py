"""Tell of a deployment: one stream of records (journal.py), and whoever listens to it.

    deploy ─► Reporter ─┬─ the log        for Ganeti's and for an operator
                        ├─ Journal        for `watch`
                        ├─ Announcer      events, for the world
                        ├─ Monitor        snf-image's progress messages, for the program that the node names
                        └─ Account        the report that stays

A listener's trouble is never the deployment's: it is logged once, and that listener hears no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from snf_image_host.journal import (
    Cloned,
    CopyDone,
    CopyProgressed,
    Entry,
    Failed,
    Finished,
    HelperStarted,
    Record,
    Started,
    TaskDone,
    TaskProgressed,
    TaskSkipped,
    TaskStarted,
    Warned,
    entry_of,
)
from synnefo_light import manifest
from synnefo_light.errors import Error
from synnefo_light.log import escape, logger
from synnefo_light.records import RecordError
from synnefo_light.units import human

WARNINGS: Final = 100

Listener = Callable[[Entry], None]  # may raise OSError or Error


class Reporter:
    def __init__(self, instance: str, *, listeners: Mapping[str, Listener]) -> None:
        """`listeners` by what the log calls them when they fail."""
        self.instance = instance
        self.step = "start"  # where we are: for the failure's record
        self.image_size: int | None = None  # of the disk that the helper VM has made of the image, by its word
        self._listeners = dict(listeners)
        self._task_started = 0.0
        self._warnings = 0

    def started(self, record: Started) -> None:
        logger.info("instance=%s deploy image=%s size=%s", self.instance, record.image, human(record.size))
        self._tell(record)

    def copying(self, done: int, total: int) -> None:
        self.step = "copy"
        self._tell(CopyProgressed(done=done, total=total))

    def copied(self, record: CopyDone) -> None:
        logger.info("instance=%s copy done written=%s ms=%d", self.instance, human(record.written), record.copy_ms)
        self._tell(record)

    def cloned(self, record: Cloned, why: str) -> None:
        logger.info("instance=%s volume=%s cloned: %s", self.instance, record.volume, why)
        self._tell(record)

    def helper(self, record: HelperStarted) -> None:
        self.step = "helper"
        logger.info("instance=%s helper start accel=%s (%s)", self.instance, record.accel, record.reason)
        self._tell(record)

    def message(self, message: manifest.Message) -> None:
        """One message of the helper VM: hostile, but in shape."""
        if isinstance(message, manifest.TaskStarted):
            self.step = message.task
            self._task_started = time.monotonic()
            self._tell(TaskStarted(task=message.task))
        elif isinstance(message, manifest.Progressed):
            self._tell(TaskProgressed(task=message.task, done=message.done, total=message.total))
        elif isinstance(message, manifest.Measured):
            self.image_size = message.size
        elif isinstance(message, manifest.TaskDone):
            spent = round((time.monotonic() - self._task_started) * 1000)
            logger.info("instance=%s task=%s done ms=%d", self.instance, message.task, spent)
            self._tell(TaskDone(task=message.task, task_ms=spent))
        elif isinstance(message, manifest.TaskSkipped):
            reason = escape(message.reason)
            logger.info("instance=%s task=%s skipped: %s", self.instance, message.task, reason)
            self._tell(TaskSkipped(task=message.task, reason=reason))
        elif isinstance(message, manifest.Warned):
            self.warned(message.task, escape(message.text))

    def warned(self, task: str | None, text: str) -> None:
        """Something that a person should look at; from the helper VM `text` is escaped. The first 100 are told."""
        self._warnings += 1
        if self._warnings <= WARNINGS:
            logger.warning("instance=%s task=%s warns: %s", self.instance, task or "-", text)
            self._tell(Warned(task=task, text=text))

    def finished(self, record: Finished) -> None:
        logger.info("instance=%s deploy done ms=%d", self.instance, record.total_ms)
        self._tell(record)

    def failed(self, sentence: str) -> None:
        self._tell(Failed(step=self.step, reason=sentence))

    def _tell(self, record: Record) -> None:
        entry = entry_of(record)
        for name, listener in list(self._listeners.items()):
            try:
                listener(entry)
            except (OSError, Error, RecordError) as e:
                del self._listeners[name]
                logger.warning("instance=%s the %s cannot be written and stays silent: %s", self.instance, name, e)
