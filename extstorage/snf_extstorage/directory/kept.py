"""One volume's record: read it, or hold it and change it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from snf_extstorage.directory.copies import parse_copies, rewrite
from snf_extstorage.directory.place import RECORD_LIMIT, Place
from snf_extstorage.directory.record import NewerFormat, VolumeRecord
from snf_extstorage.volume import Damaged, InUse, NotFound
from synnefo_light.errors import EnvironmentFault
from synnefo_light.files import is_same_file, read_bounded
from synnefo_light.log import logger

#: A snapshot of an old volume takes seconds; Ganeti waits for minutes.
WAIT_S: Final = 60.0
#: Longer than it takes to rewrite a record.
MOMENT_S: Final = 0.1


def load(place: Place, name: str) -> VolumeRecord:
    """Raises NotFound, and Damaged."""
    try:
        return _read(place, name)
    except NewerFormat:
        raise
    except Damaged:
        # Who holds no lock may have read the first copy and the second while each was being written.
        time.sleep(MOMENT_S)
        return _read(place, name)


def _read(place: Place, name: str) -> VolumeRecord:
    path = place.folder("volumes", name) / "record"
    try:
        raw = read_bounded(path, limit=RECORD_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no volume {name} in {place.root}") from None
    except EnvironmentFault as e:
        raise Damaged(str(e)) from None
    except OSError as e:
        raise Damaged(f"{path} cannot be read: {e.strerror}") from e
    return parse_copies(raw, place=str(path))[0]


def save(place: Place, name: str, record: VolumeRecord) -> None:
    """Durable when it returns; the commit point of whatever changes a volume but not its file.

    Done also when it says what was said before: who asks again may be told so by a record that is not durable yet.
    """
    path = place.folder("volumes", name) / "record"
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        rewrite(fd, record, place=str(path))
    finally:
        os.close(fd)


@contextlib.contextmanager
def held(place: Place, name: str) -> Iterator[VolumeRecord]:
    """The record, and nobody else who holds it, on any node that sees the folder. Raises NotFound, InUse.

    flock(2) goes over NFS as well, and the kernel drops it when the process dies.
    """
    path = place.folder("volumes", name) / "lock"
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            fd = _open_lock(path)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"there is no volume {name} in {place.root}") from None
        try:
            if _lock(fd) and is_same_file(fd, path):  # and it was not made anew while we waited
                yield load(place, name)
                return
        finally:
            os.close(fd)
        if time.monotonic() > deadline:
            raise InUse(f"volume {name} is being worked on by another process for over {WAIT_S:g} s; try again later")
        time.sleep(0.02)


def _open_lock(path: Path) -> int:
    """A lock says nothing, so one that was lost is made anew; what has a record is a volume."""
    how = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, how)
    except FileNotFoundError:
        if not path.with_name("record").exists():
            raise
        logger.warning("%s was lost, and is made anew", path)
        return os.open(path, how | os.O_CREAT, 0o600)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def refuse_half(place: Place, name: str) -> None:
    """Raises Damaged for the rest of a volume, which is none, and which nobody may take for gone."""
    folder = place.folder("volumes", name)
    if any((folder / part).exists() for part in ("disk", "record")):
        raise Damaged(
            f"volume {name} is to be removed, but {folder} is no whole volume; see `snf-store fsck`, and remove it by "
            "hand"
        )


@contextlib.contextmanager
def passing_over(name: str) -> Iterator[None]:
    """Whatever looks for one volume among all goes on where this one was removed meanwhile, or is damaged."""
    try:
        yield
    except NotFound:
        pass
    except Damaged as e:
        logger.warning("volume=%s is left out: %s", name, e)
