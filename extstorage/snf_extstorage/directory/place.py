"""The folder of an engine: one folder a volume, a snapshot and a base, which appears and goes as a whole.

    FORMAT                            what this is
    volumes/NAME/{disk,record,lock}   the raw file, what is known of it, who is changing that
    snapshots/NAME/{disk,record}      frozen
    bases/MAP/{disk,record}           images composed; nobody writes them
    trash/                            on its way out
    store/                            the content-addressed store, which shares extents with the above

A thing is made under a temporary name and renamed when all of it is durable: the rename is the commit point of whatever
makes one. Removing is a rename to the trash. A crash leaves a temporary name or something in the trash, which `sweep`
removes, and never half a volume.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snf_extstorage.directory.record import Kind, PlaceRecord, decode, encode
from snf_extstorage.volume import Exists, NoSpace
from synnefo_light.errors import EnvironmentFault, UserError
from synnefo_light.files import TEMPORARY, read_bounded, sync_folder, write_atomic
from synnefo_light.units import human

KINDS: Final = ("volumes", "snapshots", "bases")
RECORD_LIMIT: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Place:
    root: Path
    reserve_percent: int = 5

    def folder(self, kind: str, name: str = "") -> Path:
        return self.root / kind / name

    def disk(self, kind: str, name: str) -> Path:
        return self.root / kind / name / "disk"

    @property
    def trash(self) -> Path:
        return self.root / "trash"

    def names(self, kind: str) -> list[str]:
        """What is there, temporary names left out."""
        return sorted(e.name for e in os.scandir(self.root / kind) if not e.name.startswith("."))

    def sync(self, kind: str) -> None:
        """Make what was renamed in there durable."""
        sync_folder(self.root / kind)

    def require_format(self) -> PlaceRecord:
        """Raises EnvironmentFault when this is no such folder, or one of a newer format."""
        path = self.root / "FORMAT"
        try:
            raw = read_bounded(path, limit=RECORD_LIMIT)
        except FileNotFoundError:
            raise EnvironmentFault(
                f"{self.root} holds no volumes: it has no FORMAT. Is its file system mounted? "
                "If it is new, make it with `snf-store init`"
            ) from None
        except OSError as e:
            raise EnvironmentFault(f"{path} cannot be read: {e.strerror}") from e
        return decode(raw, "snf-volumes", PlaceRecord, place=str(path))

    def require_space(self) -> None:
        """Raises NoSpace below the reserve."""
        found = os.statvfs(self.root)
        free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
        reserve = total * self.reserve_percent // 100
        if free < reserve:
            raise NoSpace(
                f"{self.root} has {human(free)} of {human(total)} free, and {human(reserve)} are reserved for what "
                "running instances write; make room (`snf-store gc`, remove volumes) or enlarge it"
            )

    @contextlib.contextmanager
    def making(self, kind: str, name: Callable[[], str]) -> Iterator[Path]:
        """A new folder that gets its name when the context ends well. Raises Exists when another was quicker."""
        folder = self.root / kind
        temporary = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
        temporary.mkdir(mode=0o700)
        try:
            yield temporary
            sync_folder(temporary)
            os.rename(temporary, folder / name())
        except BaseException as e:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(e, OSError) and e.errno in (errno.EEXIST, errno.ENOTEMPTY):
                raise Exists(f"{folder / name()} is there already") from None
            raise
        sync_folder(folder)

    def discard(self, kind: str, name: str) -> None:
        """Take it away, durably, then free its space."""
        away = self.trash / f"{name[:180]}-{secrets.token_hex(8)}"
        os.rename(self.root / kind / name, away)
        sync_folder(self.root / kind)
        shutil.rmtree(away, ignore_errors=True)

    def sweep(self, *, older_than_s: float = 3600.0) -> list[Path]:
        """Remove what dead processes left; younger things may be somebody's work. Returns what was removed."""
        found = [self.trash / e.name for e in os.scandir(self.trash)]
        for kind in KINDS:
            found += [Path(e.path) for e in os.scandir(self.root / kind) if e.name.startswith(TEMPORARY)]
        old = [p for p in found if time.time() - p.lstat().st_mtime > older_than_s]
        for path in old:
            shutil.rmtree(path, ignore_errors=True)
        return old


def init_place(root: Path) -> Place:
    """Make an empty folder one for volumes; one that is so already stays. Raises UserError if something else is in it.

    The commit point is FORMAT, which is written last.
    """
    place = Place(root)
    if (root / "FORMAT").exists():
        place.require_format()
        return place
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    foreign = sorted({e.name for e in os.scandir(root)} - {*KINDS, "trash", "store", "lost+found"})
    foreign = [name for name in foreign if not name.startswith(TEMPORARY)]
    if foreign:
        raise UserError(f"{root} is to hold volumes, but {foreign[0]!r} is in it; name an empty folder")
    for name in (*KINDS, "trash"):
        (root / name).mkdir(mode=0o711, exist_ok=True)
    write_atomic(root / "FORMAT", encode_place(PlaceRecord(uuid=_uuid())))
    return place


def encode_place(record: PlaceRecord) -> bytes:
    kind: Kind = "snf-volumes"
    return encode(kind, record)


def _uuid() -> str:
    raw = secrets.token_hex(16)
    return "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:]))
