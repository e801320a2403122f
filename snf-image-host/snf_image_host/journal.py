"""The story of one deployment, as JSON lines in the run folder: written by the deployment, followed by `watch`.

    /run/snf-image/NAME.jsonl   replaced (a new file) by each deployment of the instance; gone after a reboot
    /run/snf-image/NAME.lock    held as long as a deployment of the instance runs, also by one that is killed

The last line of a deployment that ended is `finished` or `failed`. If there is none and nobody holds the lock, the
deployment was killed. The file grows to 1 MiB at most: later progress is left out, the end is not.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from synnefo_light.errors import EnvironmentFault, ProtocolError
from synnefo_light.files import locked
from synnefo_light.records import RecordError, build, dump_json, load_json, plain

LIMIT: Final = 1 << 20
LINE_LIMIT: Final = 16 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    instance: str
    image: str
    size: int  # bytes of the image
    disk: int  # bytes of disk 0
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyProgressed:
    done: int  # bytes
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyDone:
    written: int  # bytes of data; holes and zeros not counted
    copy_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloned:
    """In place of a copy: disk 0 is a clone of the image already."""

    volume: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HelperStarted:
    accel: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStarted:
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskProgressed:
    task: str
    done: int  # bytes
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDone:
    task: str
    task_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSkipped:
    task: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    task: str | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    step: str
    reason: str  # the sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The figures. Times in ms, sizes in bytes; a `host_` figure is of the OS script, a `helper_` one of the VM."""

    copied: int
    copy_ms: int
    accel: str  # kvm, tcg, none
    helper_ms: int
    helper_boot_ms: int
    helper_cpu_ms: int
    helper_peak_rss: int
    host_peak_rss: int
    total_ms: int


Record = (
    Started
    | CopyProgressed
    | CopyDone
    | Cloned
    | HelperStarted
    | TaskStarted
    | TaskProgressed
    | TaskDone
    | TaskSkipped
    | Warned
    | Failed
    | Finished
)

_KINDS: Final[Mapping[str, type[Record]]] = {
    "started": Started,
    "copy-progressed": CopyProgressed,
    "copy-done": CopyDone,
    "cloned": Cloned,
    "helper-started": HelperStarted,
    "task-started": TaskStarted,
    "task-progressed": TaskProgressed,
    "task-done": TaskDone,
    "task-skipped": TaskSkipped,
    "warned": Warned,
    "failed": Failed,
    "finished": Finished,
}
_NAMES: Final = {cls: name for name, cls in _KINDS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    at_ms: int  # since 1970
    record: Record


def encode(entry: Entry) -> bytes:
    fields = plain(entry.record)
    assert isinstance(fields, dict)
    return dump_json({"at_ms": entry.at_ms, "type": _NAMES[type(entry.record)], **fields}) + b"\n"


def decode(line: bytes) -> Entry:
    """Raises ProtocolError."""
    try:
        data = load_json(line, limit=LINE_LIMIT)
        if not isinstance(data, dict):
            raise RecordError("a record is a JSON object")
        at, kind = data.pop("at_ms", None), data.pop("type", None)
        if type(at) is not int or not isinstance(kind, str) or kind not in _KINDS:
            raise RecordError("a record has at_ms and a type that is known")
        record: Record = build(data, _KINDS[kind])
        return Entry(at_ms=at, record=record)
    except RecordError as e:
        raise ProtocolError(f"a line of the journal cannot be read: {e}") from None


def path_of(run_dir: Path, instance: str) -> Path:
    return run_dir / f"{instance}.jsonl"


def lock_of(run_dir: Path, instance: str) -> Path:
    return run_dir / f"{instance}.lock"


@contextlib.contextmanager
def only_deployment(run_dir: Path, instance: str) -> Iterator[None]:
    """Be the only one that works on the instance's disks. Raises EnvironmentFault when somebody else is."""
    with contextlib.ExitStack() as held:
        try:
            run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
            # `watch` holds the lock for an instant to see whether it is free.
            held.enter_context(locked(lock_of(run_dir, instance), wait_s=0.5))
        except OSError as e:
            raise EnvironmentFault(f"{lock_of(run_dir, instance)} cannot be locked: {e.strerror}") from e
        except EnvironmentFault:
            raise EnvironmentFault(
                f"another deployment of {instance} is running; wait for its end (snf-image watch {instance})"
            ) from None
        yield


def entry_of(record: Record) -> Entry:
    """`record`, happening now."""
    return Entry(at_ms=time.time_ns() // 1_000_000, record=record)


class Journal:
    """The writer. A full or read-only run folder is not worth a deployment."""

    def __init__(self, run_dir: Path, instance: str) -> None:
        path = path_of(run_dir, instance)
        path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o644)
        os.fchmod(self._fd, 0o644)
        self._written = 0

    def write(self, entry: Entry) -> None:
        """Raises OSError."""
        line = encode(entry)
        last = isinstance(entry.record, Failed | Finished)
        if self._written + len(line) > LIMIT - (0 if last else LINE_LIMIT):
            return
        self._written += os.write(self._fd, line)

    def close(self) -> None:
        os.close(self._fd)
