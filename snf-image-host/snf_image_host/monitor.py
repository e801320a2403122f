"""snf-image's progress messages (PROGRESS_MONITOR), for a program or a file that the node's configuration names.

    program   started with the instance's name as its argument; a message a line on its stdin
    fifo      written to while somebody reads it
    file      appended to, at most 1 MiB a deployment

Nothing here waits: what a slow reader does not take is left out for it, a reader that is gone is forgotten. The program
is nobody's child and ends at the end of its stdin, or is killed after LIMIT_S seconds.

The words are those of snf-image's documentation, "Progress Monitoring Interface"; on its wire a task ends with
`task-end`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from snf_image_host.journal import (
    Cloned,
    CopyDone,
    CopyProgressed,
    Entry,
    Failed,
    Finished,
    HelperStarted,
    Started,
    TaskDone,
    TaskProgressed,
    TaskSkipped,
    TaskStarted,
    Warned,
)
from synnefo_light.errors import EnvironmentFault
from synnefo_light.log import escape
from synnefo_light.records import dump_json
from synnefo_light.run import start_listening
from synnefo_light.units import MIB, human

LIMIT_S: Final = 86400
TEXT_LIMIT: Final = 700  # so that a line fits a pipe at once (PIPE_BUF)

Say = Callable[[str], None]


class Monitor:
    """Turns records into messages for a descriptor. `names` are snf-image's for our tasks."""

    def __init__(self, fd: int, *, room: int | None) -> None:
        """`room` is how many bytes may be written in all, None for a pipe."""
        self.names: Mapping[str, str] = {}
        self._fd = fd
        self._room = room
        self._running: str | None = None

    def __call__(self, entry: Entry) -> None:
        """Raises OSError when the reader is gone."""
        for message in messages_of(entry, names=self.names, running=self._running):
            line = dump_json(message) + b"\n"
            if self._room is not None:
                if len(line) > self._room:
                    return
                self._room -= len(line)
            with contextlib.suppress(BlockingIOError):
                os.write(self._fd, line)
        if isinstance(entry.record, TaskStarted):
            self._running = entry.record.task
        elif isinstance(entry.record, TaskDone | TaskSkipped):
            self._running = None


def messages_of(entry: Entry, *, names: Mapping[str, str], running: str | None = None) -> Iterator[dict[str, object]]:
    """A record as snf-image's messages. `running` is the task that was begun and has not ended. Pure."""
    for message in _messages(entry, names, running):
        yield {**message, "timestamp": entry.at_ms / 1000}


def _messages(entry: Entry, names: Mapping[str, str], running: str | None) -> Iterator[dict[str, object]]:
    record = entry.record
    if isinstance(record, Started):
        yield _info(f"{record.instance}: {record.image}, {human(record.size)} onto {human(record.disk)}")
    elif isinstance(record, CopyProgressed | TaskProgressed):
        progress = round(100 * record.done / record.total, 2) if record.total else 100.0
        yield {"type": "image-copy-progress", "position": record.done, "total": record.total, "progress": progress}
    elif isinstance(record, CopyDone):
        yield _info(f"The image was copied in {record.copy_ms / 1000:.1f} s")
    elif isinstance(record, Cloned):
        yield _info("Nothing is copied: the disk is a clone of the image")
    elif isinstance(record, HelperStarted):
        yield _info(f"The helper VM was started ({record.accel})")
    elif isinstance(record, TaskStarted):
        yield _helper("task-start", task=names.get(record.task, record.task))
    elif isinstance(record, TaskDone) or (isinstance(record, TaskSkipped) and record.task == running):
        yield _helper("task-end", task=names.get(record.task, record.task))
    elif isinstance(record, Warned):
        yield _helper("warning", messages=[escape(record.text, limit=TEXT_LIMIT)])
    elif isinstance(record, Failed):
        if running is not None:
            yield _helper("error", messages=[f"The task {names.get(running, running)} failed"])
        yield {"type": "image-error", "messages": [escape(record.reason, limit=TEXT_LIMIT)]}
    elif isinstance(record, Finished):
        yield _info(f"The image was deployed in {record.total_ms / 1000:.1f} s")


def _info(text: str) -> dict[str, object]:
    return {"type": "image-info", "messages": [escape(text, limit=TEXT_LIMIT)]}


def _helper(subtype: str, **fields: object) -> dict[str, object]:
    return {"type": "image-helper", "subtype": subtype, **fields}


@contextlib.contextmanager
def open_monitor(path: Path, instance: str) -> Iterator[Monitor]:
    """The monitor at `path`. Raises OSError or Error; nothing waits, neither here nor at the end."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) and os.access(path, os.X_OK):
        with start_listening([path, instance], limit_s=LIMIT_S) as fd:
            yield Monitor(fd, room=None)
        return
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise EnvironmentFault(f"progress_monitor {path} is neither a program, a fifo nor a file")
    # A fifo that nobody reads refuses this (ENXIO) instead of waiting.
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield Monitor(fd, room=None if stat.S_ISFIFO(mode) else MIB)
    finally:
        os.close(fd)
