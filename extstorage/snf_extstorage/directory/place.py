"""The folder of an engine: one folder a volume, a snapshot and a base, which appears and goes as a whole.

    FORMAT                            what this is
    volumes/NAME/{disk,record,lock}   the raw file, what is known of it, who is changing that
    snapshots/NAME/{disk,record}      frozen
    bases/MAP/{disk,record}           images composed; nobody writes them
    trash/                            on its way out
    ballast                           room that is given up when a fence or a removal finds none left
    store/                            the content-addressed store, which shares extents with the above

A thing is made under a temporary name and renamed when all of it is durable: the rename is the commit point of whatever
makes one. Removing is a rename to the trash. A crash leaves a temporary name or something in the trash, which `sweep`
removes, and never half a volume. Who makes a thing holds the lock in its folder meanwhile, however long it takes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from snf_extstorage.directory.mount import logs_in_order, mount_of
from snf_extstorage.directory.record import Kind, PlaceRecord, decode, encode
from snf_extstorage.directory.sharing import write_out
from snf_extstorage.volume import Exists, NoSpace, NotFound, Space
from synnefo_light.errors import EnvironmentFault, UserError
from synnefo_light.files import TEMPORARY, read_bounded, sync_folder, write_atomic
from synnefo_light.log import logger
from synnefo_light.resource_names import is_name
from synnefo_light.units import MIB, Bytes, human

KINDS: Final = ("volumes", "snapshots", "bases")
#: What may be in the folder.
OURS: Final = frozenset({*KINDS, "trash", "store", "ballast", "FORMAT", "lost+found"})
#: A clone of a file in 100 000 pieces takes about 10 MiB of the file system's own records.
BALLAST: Final = 64 * MIB
RECORD_LIMIT: Final = 64 << 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    root: Path
    reserve_percent: int = 5
    #: By folder and device. Not for longer than this object lives: the kernel gives a device's number to others later.
    _in_order: dict[tuple[Path, int], bool] = field(default_factory=dict, init=False, compare=False, repr=False)

    def folder(self, kind: str, name: str = "") -> Path:
        return self.root / kind / name

    def disk(self, kind: str, name: str) -> Path:
        return self.root / kind / name / "disk"

    @property
    def trash(self) -> Path:
        return self.root / "trash"

    def names(self, kind: str) -> list[str]:
        """The folders there that have a name of ours; whatever else is there is somebody else's (see check.py)."""
        return sorted(
            e.name for e in os.scandir(self.root / kind) if is_name(e.name) and e.is_dir(follow_symlinks=False)
        )

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

    def require_space(self, needed: int = 0) -> None:
        """Raises NoSpace if less than the reserve is free, or would be when `needed` bytes are written."""
        space = self.space()
        free, total = space.free, space.total
        reserve = total * self.reserve_percent // 100
        if free - needed < reserve:
            what = f", {human(needed)} are needed" if needed else ""
            raise NoSpace(
                f"{self.root} has {human(free)} of {human(total)} free{what}, and {human(reserve)} are reserved for "
                "what running instances write; make room (`snf-store gc`, remove volumes) or enlarge it"
            )
        self._keep_ballast(free - needed - reserve, total)

    def record(self, folder: str, name: str, kind: Kind, into: type[T], shown: str) -> T:
        """What is kept beside a file; `shown` says of what. Raises NotFound, Damaged."""
        path = self.folder(folder, name) / "record"
        try:
            raw = read_bounded(path, limit=RECORD_LIMIT)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"there is no {shown} in {self.root}") from None
        return decode(raw, kind, into, place=str(path))

    def space(self) -> Space:
        found = os.statvfs(self.root)
        return Space(total=Bytes(found.f_blocks * found.f_frsize), free=Bytes(found.f_bavail * found.f_frsize))

    def _keep_ballast(self, spare: int, total: int) -> None:
        """Allocate it where it was given up, when there is room for it. Nothing depends on this."""
        path, size = self.root / "ballast", min(BALLAST, total // 100 // MIB * MIB)
        with contextlib.suppress(OSError):
            if 0 < size < spare and (not path.exists() or path.stat().st_size < size):
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(fd, 0, size)
                finally:
                    os.close(fd)

    def roomy(self, act: Callable[[], T]) -> T:
        """Do what must work on a full disk; if there is no room for it, give up the ballast and do it once more.

        Nothing in `act` may be a sync. Raises NoSpace when that was not enough.
        """
        try:
            return act()
        except OSError as e:
            if e.errno != errno.ENOSPC:
                raise
        logger.warning("%s is full: its ballast is given up", self.root)
        try:
            os.truncate(self.root / "ballast", 0)
            return act()
        except OSError as e:
            if e.errno not in (errno.ENOSPC, errno.ENOENT):
                raise
            raise NoSpace(
                f"{self.root} is full, and there is no ballast left that could be given up; make room (remove what "
                "is not ours, or volumes) or enlarge it"
            ) from e

    @contextlib.contextmanager
    def making(self, kind: str, name: Callable[[], str]) -> Iterator[Path]:
        """A new folder that gets its name, durably and with the files in it, when the context ends well.

        Raises Exists when another was quicker.
        """
        folder = self.root / kind
        temporary = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
        temporary.mkdir(mode=0o700)
        try:
            with _new_lock(temporary / "lock"):
                yield temporary
                self._settle(temporary)
                _publish(temporary, folder / name())
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(folder)

    def _settle(self, folder: Path) -> None:
        """What was made in there is durable when the name is that the folder gets next.

        Where all is logged in order a sync of that name is one of all that came before; data alone is in no log.
        """
        in_order = self._is_logged_in_order(folder.parent)
        with contextlib.ExitStack() as opened:
            fds = [os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC) for name in os.listdir(folder)]
            for fd in fds:
                opened.callback(os.close, fd)
            if in_order and all(write_out(fd) for fd in fds):
                return
            for fd in fds:
                os.fsync(fd)
        sync_folder(folder)

    def _is_logged_in_order(self, folder: Path) -> bool:
        """Asked once: the kernel's list of mounts is long, and slow to read while something is mounted."""
        key = (folder, folder.stat().st_dev)
        if key not in self._in_order:
            mount = mount_of(folder)
            self._in_order[key] = mount is not None and logs_in_order(mount)
        return self._in_order[key]

    def discard(self, kind: str, name: str) -> None:
        """Take it away, durably, then free its space. Raises FileNotFoundError."""
        away = self.trash / f"{name[:180]}-{secrets.token_hex(8)}"
        self.roomy(lambda: os.rename(self.root / kind / name, away))
        sync_folder(self.root / kind)
        shutil.rmtree(away, ignore_errors=True)

    def sweep(self, *, older_than_s: float = 3600.0) -> list[Path]:
        """Remove what dead processes left. What is younger, or has its lock held, is somebody's work.

        Returns what was removed.
        """
        gone = []
        for path, lock in self._leftovers():
            with contextlib.suppress(FileNotFoundError), _free(lock) as free:
                if free and time.time() - path.lstat().st_mtime > older_than_s:
                    _remove(path)
                    gone.append(path)
        return gone

    def _leftovers(self) -> Iterator[tuple[Path, Path]]:
        """Each thing that somebody may have left, and the lock that he would hold."""
        for path in [*self.trash.iterdir(), *_temporaries(self.root)]:
            yield path, path / "lock"
        for kind in KINDS:
            for path in _temporaries(self.root / kind):
                yield path, path / "lock"
            for name in self.names(kind):
                for path in _temporaries(self.root / kind / name):
                    yield path, path.parent / "lock"


def _publish(temporary: Path, path: Path) -> None:
    try:
        os.rename(temporary, path)
    except OSError as e:
        if e.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        sync_folder(path.parent)  # what another has made is durable when we say that it is there
        raise Exists(f"{path} is there already") from None


@contextlib.contextmanager
def _new_lock(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _free(path: Path) -> Iterator[bool]:
    """Whether nobody holds this lock; we hold it meanwhile. One that is not there is held by nobody."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        yield True
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(fd)


def _temporaries(folder: Path) -> list[Path]:
    try:
        return [Path(e.path) for e in os.scandir(folder) if e.name.startswith(TEMPORARY)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def init_place(root: Path) -> Place:
    """Make an empty folder one for volumes; one that is so already stays. Raises UserError if something else is in it.

    The commit point is FORMAT, which is written last.
    """
    place = Place(root)
    if (root / "FORMAT").exists():
        place.require_format()
        sync_folder(root)
        return place
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    foreign = sorted({e.name for e in os.scandir(root)} - (OURS - {"FORMAT"}))
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
