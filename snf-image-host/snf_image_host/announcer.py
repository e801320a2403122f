"""The deployment's records as events of snf-events(7), dropped into the node's spool: at most 400 of how it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from snf_image_host.journal import (
    CopyProgressed,
    Entry,
    Failed,
    Finished,
    HelperStarted,
    TaskDone,
    TaskProgressed,
    TaskSkipped,
    TaskStarted,
    Warned,
)
from synnefo_light import events
from synnefo_light.events import (
    EventType,
    ImageDeployed,
    ImageDetail,
    ImageFailed,
    ImageProgressed,
    ImageTaskEnded,
    ImageWarned,
)

LIMIT: Final = 400


class Announcer:
    def __init__(self, instance: str, *, image: str, spool: Path) -> None:
        self.image = image  # img_id as given
        self._instance = instance
        self._spool = spool
        self._dropped = 0
        self._percent: tuple[str | None, int] = (None, -1)

    def __call__(self, entry: Entry) -> None:
        """Raises OSError or EnvironmentFault when the spool does not take it."""
        last = isinstance(entry.record, Finished | Failed)
        if not last and (self._dropped >= LIMIT or self._is_same_percent(entry)):
            return
        found = event_of(self._instance, self.image, entry)
        if found is not None:
            self._dropped += 1
            events.drop(events.image_event(*found), self._spool)

    def _is_same_percent(self, entry: Entry) -> bool:
        record = entry.record
        if not isinstance(record, CopyProgressed | TaskProgressed):
            return False
        before = self._percent
        task = record.task if isinstance(record, TaskProgressed) else None
        self._percent = (task, 100 * record.done // record.total if record.total else 100)
        return before == self._percent


def event_of(instance: str, image: str, entry: Entry) -> tuple[EventType, ImageDetail] | None:
    """The event that a record is; None for those that the world need not know of. Pure."""
    record = entry.record
    if isinstance(record, CopyProgressed):
        return "image-progressed", ImageProgressed(instance=instance, step="copy", done=record.done, total=record.total)
    if isinstance(record, HelperStarted):
        return "image-progressed", ImageProgressed(instance=instance, step="helper")
    if isinstance(record, TaskStarted):
        return "image-progressed", ImageProgressed(instance=instance, step="task", task=record.task)
    if isinstance(record, TaskProgressed):
        return "image-progressed", ImageProgressed(
            instance=instance, step="task", task=record.task, done=record.done, total=record.total
        )
    if isinstance(record, TaskDone):
        return "image-task-ended", ImageTaskEnded(
            instance=instance, task=record.task, outcome="done", ms=record.task_ms
        )
    if isinstance(record, TaskSkipped):
        return "image-task-ended", ImageTaskEnded(
            instance=instance, task=record.task, outcome="skipped", ms=0, reason=record.reason
        )
    if isinstance(record, Warned):
        return "image-warned", ImageWarned(instance=instance, task=record.task, text=record.text)
    if isinstance(record, Failed):
        return "image-failed", ImageFailed(instance=instance, image=image, step=record.step, reason=record.reason)
    if isinstance(record, Finished):
        return "image-deployed", ImageDeployed(
            instance=instance,
            image=image,
            copied=record.copied,
            copy_ms=record.copy_ms,
            helper_ms=record.helper_ms,
            accel=record.accel,
        )
    return None
