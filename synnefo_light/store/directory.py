"""A store in a directory of a file system that several nodes may share.

    FORMAT GC               what the store is; the collector's state
    blocks/ab/abcd...       immutable, named by a hash; a folder for its first byte. pages/ and roots/ likewise
    names/ab/debian-12      records; the folder is the first byte of the SHA-256 of the name. pins/ likewise
    tmp/                    files that are being written
    trash/CUTOFF/           what the collector took away, with the cut-off in milliseconds; for another grace
    quarantine/             damaged objects, for people
    locks/                  flock(2) for compare-and-swap

`create` and `Batch.flush`: 1 the bytes are in `tmp/`, 2 that file is synced, 3 it is renamed to its name, 4 the folder
is synced; then it is acknowledged. A crash before 3 leaves a file in `tmp/`; after 3 a whole object, which the next
writer of the same content finds and whose folder he syncs again before he relies on it. Renaming over an object that
somebody else created meanwhile puts the same bytes in its place.

`replace`, under the lock of the kind: 1 the record is compared, 2 the new one is in `tmp/` and synced, 3 it is renamed
over the old one (the commit point), 4 the folder is synced. A crash before 3 leaves the old record, after 3 the new.

`retire`: 1 the object is renamed into the trash, 2 its time is looked at again; was it touched in between, it comes
back. `touch` and `read` that miss an object look in the trash and bring it back. A crash between 1 and 2 leaves an
object in the trash that may be needed: any use brings it back, and `sweep_leftovers` does when it is younger than the
cut-off in the folder's name; otherwise it is removed a grace later.

A failed fsync, or an error that is not for want of space: nothing is acknowledged and this object refuses to write from
then on, because after a failed fsync the kernel may have dropped the data and would report success the next time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from synnefo_light.errors import EnvironmentFault
from synnefo_light.files import locked, read_bounded
from synnefo_light.store.backend import (
    IMMUTABLE,
    LIMIT,
    Found,
    Instant,
    Kind,
    Loaded,
    Space,
    Stray,
    Trace,
    Version,
    check_key,
)
from synnefo_light.store.directory_batch import DirectoryBatch
from synnefo_light.store.directory_layout import FOLDERS, is_ours, is_shard, shard_of
from synnefo_light.store.directory_upkeep import find_strays, sweep
from synnefo_light.store.errors import Absent, Conflict, Corrupt, FormatRefused, StoreBroken, StoreFault, StoreFull
from synnefo_light.store.filesystem import FileSystem
from synnefo_light.store.formats import Format, encode_format
from synnefo_light.store.identity import BlockId
from synnefo_light.store.store import FORMAT_KEY, no_trace

logger = logging.getLogger(__name__)
T = TypeVar("T")

_LOCK_WAIT_S = 30.0
_LOST = (errno.ENOSPC, errno.EDQUOT)


class Directory:
    """See `backend.Backend` and `sharing.SharesExtents`. Use from one thread; several processes and nodes may."""

    def __init__(self, path: Path, *, files: FileSystem | None = None, trace: Trace = no_trace) -> None:
        self.path = path
        self.place = str(path)
        self.fresh_s = 0.0
        self.files = files or FileSystem()
        self.trace = trace
        self._broken = ""
        self._folders: set[Path] = set()

    def now(self) -> Instant:
        """By the file system's clock, which is another machine's on NFS: the time of a file touched now.

        Where nothing can be touched nothing gets old either, and this machine's clock will do.
        """
        clock = self.path / "locks" / "clock"
        with self.writing():
            try:
                self.files.touch(clock)
            except FileNotFoundError:
                os.close(os.open(clock, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            except OSError as e:
                if e.errno not in (errno.EROFS, errno.EACCES):
                    raise
                return Instant(time.time())
        return Instant(os.stat(clock).st_mtime)

    # --- immutable objects

    def create(self, kind: Kind, key: str, data: bytes) -> None:
        with self.batch() as batch:
            batch.create(kind, key, data)

    def batch(self) -> DirectoryBatch:
        return DirectoryBatch(self)

    def read(self, kind: Kind, key: str) -> bytes:
        fd = self.open(kind, key)
        try:
            with self.reading(f"{kind.value} {key}"):
                size = os.fstat(fd).st_size
                data = os.pread(fd, min(size, LIMIT[kind]), 0)
        finally:
            os.close(fd)
        if size > LIMIT[kind]:
            raise Corrupt(f"{kind.value[:-1]} {key}", f"is larger than the {LIMIT[kind]} bytes that it may have")
        return data

    def stat(self, kind: Kind, key: str) -> Found:
        with self.reading(f"{kind.value} {key}"):
            found = self._wherever(kind, key, _stat_file)
        if found is None:
            raise self._absent(kind, key)
        return Found(key=key, size=found.st_size, touched=Instant(found.st_mtime))

    def touch(self, kind: Kind, key: str) -> None:
        if not self.touched(kind, key):
            raise self._absent(kind, key)

    def touched(self, kind: Kind, key: str) -> os.stat_result | None:
        """`touch`, and what the file was; None when there is none."""
        with self.reading(f"{kind.value} {key}"):
            found = self._wherever(kind, key, _stat_file)
        if found is not None and not found.st_mtime > self.now() - self.fresh_s:
            with self.writing():
                found = self._wherever(kind, key, self._touch_file)
        return found

    def _touch_file(self, path: Path) -> os.stat_result:
        self.files.touch(path)
        return _stat_file(path)

    def keys(self, kind: Kind) -> Iterator[str]:
        folder = self.path / kind.value
        with self.reading(kind.value):
            shards = sorted(filter(is_shard, os.listdir(folder)))
        for shard in shards:
            with self.reading(f"{kind.value}/{shard}"):
                entries = os.listdir(folder / shard)
            for name in entries:
                if is_ours(kind, shard, name):
                    yield name

    def retire(self, kind: Kind, key: str, *, untouched_since: Instant) -> bool:
        final = self.final(kind, key)
        try:
            if _stat_file(final).st_mtime >= untouched_since:
                return False
        except FileNotFoundError:
            return False
        bin_ = self.path / "trash" / f"{int(untouched_since * 1000):016d}"
        gone = bin_ / f"{kind.value}.{key}"
        try:
            with self.writing():
                with contextlib.suppress(FileExistsError):
                    self.files.mkdir(bin_)
                self.files.rename(final, gone)
                self.trace("retire.1 in the trash")
        except FileNotFoundError:
            return False
        try:
            if os.stat(gone, follow_symlinks=False).st_mtime < untouched_since:
                self.trace("retire.2 looked at again")
                return True
        except FileNotFoundError:
            return False
        self.bring_back(kind, key)
        return False

    def set_aside(self, kind: Kind, key: str, *, is_good: Callable[[bytes], bool] = lambda _: False) -> str | None:
        """What was moved is looked at again: only then is it certain which file it was. See "retire" above."""
        final, aside = self.final(kind, key), self.path / "quarantine" / f"{kind.value}.{key}.{secrets.token_hex(4)}"
        with self.writing():
            try:
                self.files.rename(final, aside)
            except FileNotFoundError:
                raise self._absent(kind, key) from None
            good = _reads_good(aside, kind, is_good)
            if good:
                self.files.rename(aside, final)
            self.files.sync_folder(aside.parent)
            self.files.sync_folder(final.parent)
        return None if good else str(aside)

    def open_block(self, block: BlockId) -> int:
        return self.open(Kind.BLOCK, block.hex())

    # --- records

    def load(self, kind: Kind, key: str) -> Loaded:
        data = self.read(kind, key)
        return Loaded(data=data, version=_version(data))

    def replace(self, kind: Kind, key: str, data: bytes, *, expected: Version | None) -> Version:
        if len(data) > LIMIT[kind]:
            raise ValueError(f"{kind.value} {key} would have {len(data)} bytes, more than {LIMIT[kind]}")
        final = self.final(kind, key)
        with self.writing(), self._compared(kind, key, expected):
            self.trace("replace.1 compared")
            temporary = self.temporary()
            try:
                fd = self.files.create(temporary)
                try:
                    self.files.write(fd, data)
                    self.sync(fd)
                finally:
                    os.close(fd)
                self.trace("replace.2 written")
                self.make_folder(final.parent)
                self.files.rename(temporary, final)
            except BaseException:
                with contextlib.suppress(OSError):
                    self.files.unlink(temporary)
                raise
            self.trace("replace.3 renamed")
            self.sync_folder(final.parent)
            self.trace("replace.4 folder synced")
        return _version(data)

    def delete(self, kind: Kind, key: str, *, expected: Version) -> None:
        final = self.final(kind, key)
        with self.writing(), self._compared(kind, key, expected):
            try:
                self.files.unlink(final)
            except FileNotFoundError:
                raise self._absent(kind, key) from None
            self.trace("delete.1 removed")
            self.sync_folder(final.parent)
            self.trace("delete.2 folder synced")

    # --- the whole

    def space(self) -> Space:
        found = os.statvfs(self.path)
        return Space(total=found.f_frsize * found.f_blocks, free=found.f_frsize * found.f_bavail)

    def strays(self) -> Iterator[Stray]:
        return find_strays(self)

    def sweep_leftovers(self, *, untouched_since: Instant) -> int:
        return sweep(self, untouched_since)

    # --- for the batch and the upkeep as well

    def final(self, kind: Kind, key: str) -> Path:
        """Where an object lies. Raises UserError for what is no key."""
        check_key(kind, key)
        if kind is Kind.STORE:
            return self.path / key
        folder: str = kind.value
        return self.path / folder / shard_of(kind, key) / key

    def temporary(self) -> Path:
        return self.path / "tmp" / secrets.token_hex(16)

    def make_folder(self, folder: Path) -> None:
        """A folder of objects exists and will be there after a power cut, also when somebody else has just made it."""
        if folder not in self._folders and folder != self.path:
            with self.writing(), contextlib.suppress(FileExistsError):
                self.files.mkdir(folder)
            self.sync_folder(folder.parent)
            self._folders.add(folder)

    def sync(self, fd: int) -> None:
        try:
            self.files.sync(fd)
        except OSError as e:
            raise self._break("syncing a file", e) from e

    def sync_folder(self, folder: Path) -> None:
        try:
            self.files.sync_folder(folder)
        except OSError as e:
            raise self._break(f"syncing {folder}", e) from e

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Around calls that change something. Raises StoreFull, or StoreBroken, also for what broke before."""
        if self._broken:
            raise StoreBroken(self._broken)
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as e:
            if e.errno in _LOST:
                raise StoreFull(f"the store {self.place} has no space left ({e.strerror}); nothing was kept") from e
            raise self._break("a write", e) from e

    @contextlib.contextmanager
    def reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise StoreFault(f"{what} in the store {self.place} cannot be read: {e.strerror}") from e

    def open(self, kind: Kind, key: str) -> int:
        with self.reading(f"{kind.value} {key}"):
            fd = self._wherever(kind, key, _open_file)
        if fd is None:
            raise self._absent(kind, key)
        return fd

    # --- parts

    def _break(self, what: str, error: OSError) -> StoreBroken:
        self._broken = (
            f"{what} in the store {self.place} failed ({error.strerror});"
            " nothing is written to it any more, look at the kernel's log and run `snf-store fsck`"
        )
        logger.warning("%s", self._broken)
        return StoreBroken(self._broken)

    def _wherever(self, kind: Kind, key: str, act: Callable[[Path], T]) -> T | None:
        """Do something to an object, brought back from the trash if it is there; None when it is nowhere.

        The collector and others who miss it may move it to and fro meanwhile, so one look in each place is not enough.
        """
        final = self.final(kind, key)
        missed = 0
        while missed < 3:
            with contextlib.suppress(FileNotFoundError):
                return act(final)
            if kind not in IMMUTABLE:
                return None
            missed += not self.bring_back(kind, key)
        return None

    def bring_back(self, kind: Kind, key: str) -> bool:
        """Look for an object in the trash and make it what it was."""
        for bin_ in self.entries(self.path / "trash"):
            gone = Path(bin_.path) / f"{kind.value}.{key}"
            with contextlib.suppress(FileNotFoundError), self.writing():
                self.files.touch(gone)
                self.files.rename(gone, self.final(kind, key))
                return True
        return False

    def entries(self, folder: Path) -> list[os.DirEntry[str]]:
        with self.reading(str(folder)), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return list(os.scandir(folder))
        return []

    @contextlib.contextmanager
    def _compared(self, kind: Kind, key: str, expected: Version | None) -> Iterator[None]:
        check_key(kind, key)
        with locked(self.path / "locks" / kind.value, wait_s=_LOCK_WAIT_S):
            try:
                current: Version | None = self.load(kind, key).version
            except Absent:
                current = None
            if current is None and expected is not None:
                raise self._absent(kind, key)
            if current != expected:
                raise Conflict(f"{kind.value} {key} of the store {self.place} was replaced by somebody else")
            yield

    def _absent(self, kind: Kind, key: str) -> Absent:
        return Absent(f"the store {self.place} has no {kind.value[:-1]} {key}")


def make_directory(path: Path, form: Format, *, files: FileSystem | None = None, trace: Trace = no_trace) -> Directory:
    """Make a store; `FORMAT` comes last and is the commit point, so that what a crash leaves can be made again.

    Raises FormatRefused when there is a store already, or anything that is not the beginning of one.
    """
    directory = Directory(path, files=files, trace=trace)
    with directory.writing():
        with contextlib.suppress(FileExistsError):
            directory.files.mkdir(path)
        present = {entry.name for entry in os.scandir(path)}
        if FORMAT_KEY in present:
            raise FormatRefused(f"{path} is a store already")
        if foreign := present - {*FOLDERS}:
            raise FormatRefused(
                f"{path} has {min(foreign)} in it, which is not a store's; a store is made in an empty folder"
            )
        for name in FOLDERS:
            with contextlib.suppress(FileExistsError):
                directory.files.mkdir(path / name)
        directory.sync_folder(path)
        directory.sync_folder(path.parent)
        trace("make.1 folders")
    directory.replace(Kind.STORE, FORMAT_KEY, encode_format(form), expected=None)
    trace("make.2 FORMAT")
    return directory


def _reads_good(path: Path, kind: Kind, is_good: Callable[[bytes], bool]) -> bool:
    try:
        return is_good(read_bounded(path, limit=LIMIT[kind]))
    except (EnvironmentFault, OSError):
        return False


def _stat_file(path: Path) -> os.stat_result:
    """Raises FileNotFoundError also for what is no file."""
    found = os.stat(path, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        raise FileNotFoundError(errno.ENOENT, "is no file", str(path))
    return found


def _open_file(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _version(data: bytes) -> Version:
    return Version(hashlib.sha256(data).hexdigest())
