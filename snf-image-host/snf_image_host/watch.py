"""`snf-image watch INSTANCE`: follow a deployment's journal as lines, or on a terminal as one that is redrawn."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snf_image_host import journal
from snf_image_host.journal import Entry
from synnefo_light.errors import UserError
from synnefo_light.log import escape
from synnefo_light.units import human

POLL_S: Final = 0.2
BAR: Final = 24
NAME_LIMIT: Final = 255 - len(".jsonl")  # bytes of an instance's name, whose journal must be a file's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line for the person watching; a passing one is overwritten by the next on a terminal."""

    text: str
    passing: bool = False


@dataclass(slots=True)
class View:
    """What was seen so far, which later lines need: times since the start, the speed of the copy."""

    started_ms: int | None = None
    last_ms: int = 0
    last_done: int = 0

    def lines(self, entry: Entry) -> Iterator[Line]:
        record = entry.record
        if isinstance(record, journal.Started):
            self.started_ms = self.last_ms = entry.at_ms
            yield Line(text=f"{record.instance}: {record.image}, {human(record.size)} onto {human(record.disk)}")
            return
        if self.started_ms is None:  # one that failed before it began has no `started`
            self.started_ms = entry.at_ms
        elapsed = f"{(entry.at_ms - self.started_ms) / 1000:6.1f} s"
        text = self._text(entry)
        passing = isinstance(record, journal.CopyProgressed | journal.TaskStarted | journal.TaskProgressed)
        if text:
            yield Line(text=f"{elapsed}  {text}", passing=passing)

    def _text(self, entry: Entry) -> str:
        record = entry.record
        if isinstance(record, journal.CopyProgressed):
            return f"copy     {self._bar(record, entry.at_ms)}"
        if isinstance(record, journal.TaskProgressed):
            return f"task     {record.task} {self._bar(record, entry.at_ms)}"
        if isinstance(record, journal.CopyDone):
            return f"copy     {human(record.written)} of data written in {record.copy_ms / 1000:.1f} s"
        if isinstance(record, journal.Cloned):
            return f"clone    nothing is copied: disk 0 is a clone of the image ({record.volume})"
        if isinstance(record, journal.HelperStarted):
            return f"helper   {record.accel}: {record.reason}"
        if isinstance(record, journal.TaskStarted):
            self.last_ms, self.last_done = entry.at_ms, 0
            return f"task     {record.task} ..."
        if isinstance(record, journal.TaskDone):
            return f"task     {record.task} done in {record.task_ms / 1000:.1f} s"
        if isinstance(record, journal.TaskSkipped):
            return f"task     {record.task} skipped: {record.reason}"
        if isinstance(record, journal.Warned):
            return f"warning  {record.task or ''}: {record.text}"
        if isinstance(record, journal.Failed):
            return f"failed   {record.reason}"
        assert isinstance(record, journal.Finished)
        return f"done     copy {record.copy_ms / 1000:.1f} s, helper {record.helper_ms / 1000:.1f} s ({record.accel})"

    def _bar(self, record: journal.CopyProgressed | journal.TaskProgressed, at_ms: int) -> str:
        spent, done = at_ms - self.last_ms, record.done - self.last_done
        rate = f"  {human(done * 1000 // spent)}/s" if spent > 0 and done > 0 else ""
        self.last_ms, self.last_done = at_ms, record.done
        full = BAR * record.done // record.total if record.total else BAR
        percent = 100 * record.done // record.total if record.total else 100
        return f"[{'#' * full}{'.' * (BAR - full)}] {percent:3d}% of {human(record.total)}{rate}"


def follow(run_dir: Path, instance: str, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[Entry]:
    """The records of the last deployment of `instance`, until it has ended or was killed. Raises UserError."""
    path = journal.path_of(run_dir, instance)
    if "/" in instance or instance.startswith(".") or len(os.fsencode(instance)) > NAME_LIMIT or not path.exists():
        shown = escape(instance, limit=80)
        raise UserError(f"no deployment of {shown!r} was begun on this node since it booted; is it this node's?")
    rest = b""
    with open(path, "rb", buffering=0) as file:
        while True:
            alive = is_held(journal.lock_of(run_dir, instance))
            data = file.read(1 << 20)
            if not data:
                if not alive:
                    return
                sleep(POLL_S)
                continue
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                entry = journal.decode(line)
                yield entry
                if isinstance(entry.record, journal.Failed | journal.Finished):
                    return


def is_held(path: Path) -> bool:
    """Whether a deployment holds the instance's lock."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        raise UserError(
            "watch needs to see whether the deployment lives, which only root can; run it as root"
        ) from None
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
