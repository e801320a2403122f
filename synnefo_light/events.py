"""The contract for everything that happened, and the spool that carries it.

Whoever sees something happen drops one file into the spool of its node and goes on: no writer waits for a daemon.
Whoever reads takes the files in the order of their names and removes them when the event is safe elsewhere.

    /var/spool/synnefo-light/events/<time in ns, 19 digits>-<event id>

Commit point of `drop`: the rename into the spool. A crash before it leaves a `.tmp-` file that `files.sweep_temporary`
removes; after it the event is delivered at least once, and `id` tells doubles apart (a power cut may take with it the
last events of how something goes, never of how it ended). What nobody takes within 30 days
systemd-tmpfiles removes. No event holds a secret: details are classes with named fields, never a free dictionary.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

from synnefo_light import spool as _spool
from synnefo_light.changes import InstanceChange, InstanceEventType, ObjectChange, ObjectEventType
from synnefo_light.errors import ProtocolError
from synnefo_light.log import escape, logger
from synnefo_light.records import RecordError, build, dump_json, load_json, plain
from synnefo_light.spool import SpoolFull, event_id

__all__ = [
    "LIMIT",
    "SPOOL",
    "SPOOL_LIMIT",
    "Cause",
    "Detail",
    "Event",
    "EventType",
    "ImageDeployed",
    "ImageDetail",
    "ImageFailed",
    "ImageProgressed",
    "ImageTaskEnded",
    "ImageWarned",
    "InstanceResumed",
    "SpoolFull",
    "StorageDetail",
    "StorageLevelChanged",
    "VolumeSnapshotted",
    "drop",
    "event_id",
    "from_json",
    "image_event",
    "pending",
    "storage_event",
    "summary",
    "to_json",
]

SPOOL: Final = Path(_spool.FOLDER)
SPOOL_LIMIT: Final = _spool.LIMIT
_PROGRESS_SHARE: Final = 0.9  # of it is open to reports of progress: they must not crowd out how things ended
LIMIT: Final = _spool.EVENT_LIMIT
_NAME = re.compile(r"\d{19,20}-[0-9a-f-]{36}")

EventType = Literal[
    "image-progressed",
    "image-task-ended",
    "image-warned",
    "image-deployed",
    "image-failed",
    "volume-snapshotted",
    "instance-resumed",
    "storage-level-changed",
    InstanceEventType,
    ObjectEventType,
]
#: How something goes, not how it ended: what the last of the spool's places are not for.
_PASSING: Final = ("image-progressed", "image-task-ended", "image-warned")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageProgressed:
    """A deployment went on: bytes copied so far, the helper VM or a task of it begun, bytes that the task has done."""

    instance: str
    step: Literal["copy", "helper", "task"]
    task: str | None = None
    done: int = 0  # bytes
    total: int = 0  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTaskEnded:
    """A task of the helper VM ended; `reason` says why it was skipped."""

    instance: str
    task: str
    outcome: Literal["done", "skipped"]
    ms: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageWarned:
    """A person should look at what was deployed."""

    instance: str
    task: str | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDeployed:
    instance: str
    image: str
    copied: int  # bytes of data written, holes not counted
    copy_ms: int
    helper_ms: int
    accel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFailed:
    instance: str
    image: str
    step: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSnapshotted:
    """A disk of an instance became an image."""

    instance: str
    volume: str
    image: str
    stopped_ms: int  # how long the guest stood still for it
    frozen: bool  # whether its agent had frozen its file systems


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceResumed:
    """A guest that stood still goes on: there is space again, or who had stopped it was killed."""

    instance: str
    reason: Literal["space", "forgotten"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageLevelChanged:
    """The free space of a node's volumes crossed a mark, down or up."""

    place: str
    level: Literal["ok", "warning", "critical"]
    before: Literal["ok", "warning", "critical"]
    free: int  # bytes
    total: int  # bytes


ImageDetail = ImageProgressed | ImageTaskEnded | ImageWarned | ImageDeployed | ImageFailed
StorageDetail = VolumeSnapshotted | InstanceResumed | StorageLevelChanged
Detail = ImageDetail | StorageDetail | InstanceChange | ObjectChange

_DETAILS: Final[Mapping[str, type[Detail]]] = {
    "image-progressed": ImageProgressed,
    "image-task-ended": ImageTaskEnded,
    "image-warned": ImageWarned,
    "image-deployed": ImageDeployed,
    "image-failed": ImageFailed,
    "volume-snapshotted": VolumeSnapshotted,
    "instance-resumed": InstanceResumed,
    "storage-level-changed": StorageLevelChanged,
    **dict.fromkeys(get_args(InstanceEventType), InstanceChange),
    **dict.fromkeys(get_args(ObjectEventType), ObjectChange),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why it happened, where that is known."""

    opcode: str | None = None
    phase: str | None = None
    job: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened. Delivered at least once; in order per job."""

    version: Literal[1] = 1
    id: str
    type: EventType
    at: str  # when it happened, UTC, RFC 3339 with microseconds
    cluster: str
    node: str
    source: str  # REST path of the thing, "/1/instances/web1"
    cause: Cause = field(default_factory=Cause)
    epoch: int = 0
    reconstructed: bool = False
    detail: Detail

    def __post_init__(self) -> None:
        if type(self.detail) is not _DETAILS[self.type]:
            raise ValueError(f"an event {self.type} carries {_DETAILS[self.type].__name__}")


def image_event(type_: EventType, detail: ImageDetail, *, cluster: str = "", now: datetime | None = None) -> Event:
    """An event of a deployment on this node, happening `now` (default: the clock)."""
    return _event(type_, detail, f"/1/instances/{detail.instance}", cluster=cluster, now=now)


def storage_event(type_: EventType, detail: StorageDetail, *, now: datetime | None = None) -> Event:
    """An event of this node's volumes, happening `now` (default: the clock)."""
    if isinstance(detail, StorageLevelChanged):
        return _event(type_, detail, f"/1/nodes/{socket.gethostname()}/storage", cluster="", now=now)
    return _event(type_, detail, f"/1/instances/{detail.instance}", cluster="", now=now)


def _event(type_: EventType, detail: Detail, source: str, *, cluster: str, now: datetime | None) -> Event:
    moment = now or datetime.now(UTC)
    node = socket.gethostname()
    return Event(
        id=event_id(node, type_, moment.isoformat(), dump_json(detail).decode()),
        type=type_,
        at=moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        cluster=cluster,
        node=node,
        source=source,
        detail=detail,
    )


def to_json(event: Event) -> bytes:
    return dump_json(event)


def from_json(raw: bytes) -> Event:
    """One event. Raises ProtocolError; a detail key that is not known yet is logged and left out."""
    try:
        data = load_json(raw, limit=LIMIT)
        if not isinstance(data, dict) or not isinstance(data.get("detail"), dict):
            raise RecordError("an event is an object with a detail object")
        kind, detail = data.get("type"), data.pop("detail")
        if not isinstance(kind, str) or kind not in _DETAILS:
            raise RecordError(f"type {escape(repr(kind), limit=80)} is not one of {', '.join(get_args(EventType))}")
        cls = _DETAILS[kind]
        known = {f.name for f in dataclasses.fields(cls)}
        for key in sorted(set(detail) - known):
            logger.info("event=%s detail key %s is not known here and was left out", kind, escape(key, limit=40))
        built = build({k: v for k, v in detail.items() if k in known}, cls, place="detail")
        envelope = build(data, _Envelope)
        return Event(**{f.name: getattr(envelope, f.name) for f in dataclasses.fields(envelope)}, detail=built)
    except (RecordError, ValueError) as e:
        raise ProtocolError(f"an event cannot be read: {e}") from None


def drop(event: Event, spool: Path = SPOOL) -> Path:
    """Put one event into the spool; returns its file. The same event twice is two files with one id.

    How something ended is durable when this returns. How it goes is not: there is much of it, and nobody who waits for
    a deployment should wait for the disk too.

    Raises SpoolFull, or OSError when the folder is absent, full or read-only.
    """
    passing = event.type in _PASSING
    limit = int(SPOOL_LIMIT * _PROGRESS_SHARE) if passing else SPOOL_LIMIT
    content = to_json(event) + b"\n"
    return Path(_spool.put(content, event.id, folder=os.fspath(spool), durable=not passing, limit=limit))


def pending(spool: Path = SPOOL) -> list[Path]:
    """The events waiting in the spool, oldest first; temporary and foreign files are left out."""
    return sorted(spool / name for name in os.listdir(spool) if _NAME.fullmatch(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Envelope:
    version: Literal[1]
    id: str
    type: EventType
    at: str
    cluster: str
    node: str
    source: str
    cause: Cause = field(default_factory=Cause)
    epoch: int = 0
    reconstructed: bool = False


def summary(event: Event) -> str:
    """One line for a person: time, type, source, and the detail's values."""
    fields: Any = plain(event.detail)
    shown = " ".join(f"{k}={escape(str(v), limit=120)}" for k, v in fields.items() if v is not None)
    return f"{event.at} {event.type} {event.source} {shown}"
