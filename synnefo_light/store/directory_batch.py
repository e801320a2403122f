"""Several objects of a directory become durable together: write all, sync all, rename all, sync each folder once."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from synnefo_light.reflink import CANNOT_SHARE
from synnefo_light.store.backend import LIMIT, Kind
from synnefo_light.store.errors import Conflict
from synnefo_light.store.formats import stored_length
from synnefo_light.store.identity import BLOCK_SIZE, BlockId, stripped_length

if TYPE_CHECKING:
    from synnefo_light.store.directory import Directory

logger = logging.getLogger(__name__)


class DirectoryBatch:
    """See `backend.Batch` and `sharing.SharingBatch`. `shared` and `copied` count adopted blocks that were new."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._staged: dict[Path, tuple[int, Path]] = {}
        self._folders: set[Path] = set()
        self._buffer = bytearray()
        self.shared = 0
        self.copied = 0

    def create(self, kind: Kind, key: str, data: bytes) -> None:
        if not 0 < len(data) <= LIMIT[kind]:
            raise ValueError(f"{kind.value} {key} would have {len(data)} bytes, not 1 to {LIMIT[kind]}")
        if self._there(kind, key, len(data)):
            return
        fd, temporary = self._open()
        with self._or_nothing(fd, temporary):
            self._directory.files.write(fd, data)
        self._stage(kind, key, fd, temporary)

    def adopt(self, source: int, offset: int, length: int) -> BlockId | None:
        if not 0 < length <= LIMIT[Kind.BLOCK]:
            raise ValueError(f"a block has 1 to {LIMIT[Kind.BLOCK]} bytes, not {length}")
        fd, temporary = self._open()
        with self._or_nothing(fd, temporary):
            length = min(length, max(0, os.fstat(source).st_size - offset))
            shared = self._share(source, offset, length, fd)
            data = self._read(fd if shared else source, length, 0 if shared else offset)
            content = stripped_length(data)
            block = BlockId(hashlib.sha256(memoryview(data)[:content]).digest())
            stored = stored_length(content)
            if content == 0 or self._there(Kind.BLOCK, block.hex(), stored):
                self._drop(fd, temporary)
                return block if content else None
            if not shared:
                self._directory.files.write(fd, memoryview(data)[:stored])
            self._directory.files.truncate(fd, stored)
        self.shared += shared
        self.copied += not shared
        self._stage(Kind.BLOCK, block.hex(), fd, temporary)
        return block

    def flush(self) -> None:
        directory = self._directory
        try:
            with directory.writing():
                directory.trace("create.1 written")
                for fd, _ in self._staged.values():
                    directory.sync(fd)
                directory.trace("create.2 synced")
                for final, (fd, temporary) in list(self._staged.items()):
                    directory.make_folder(final.parent)
                    directory.files.rename(temporary, final)
                    os.close(fd)
                    del self._staged[final]
                directory.trace("create.3 renamed")
                for folder in sorted(self._folders):
                    directory.sync_folder(folder)
                self._folders.clear()
                directory.trace("create.4 folders synced")
        except FileNotFoundError as e:
            self.discard()
            raise Conflict(f"what was written to {directory.place} stood still for so long that it was removed") from e
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        for fd, temporary in self._staged.values():
            self._drop(fd, temporary)
        self._staged.clear()
        self._folders.clear()

    def __enter__(self) -> DirectoryBatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()
        else:
            self.discard()

    def _there(self, kind: Kind, key: str, length: int) -> bool:
        """The object exists and is young now; its folder is synced with the flush, for its creator may not have yet."""
        final = self._directory.final(kind, key)
        if final in self._staged:
            return True
        found = self._directory.touched(kind, key)
        if found is None:
            return False
        if found.st_size != length:
            logger.warning(
                "store=%s %s=%s has %d bytes instead of %d and was set aside: %s",
                self._directory.place,
                kind.value[:-1],
                key,
                found.st_size,
                length,
                self._directory.set_aside(kind, key),
            )
            return False
        self._directory.make_folder(final.parent)
        self._folders.add(final.parent)
        return True

    def _open(self) -> tuple[int, Path]:
        temporary = self._directory.temporary()
        with self._directory.writing():
            return self._directory.files.create(temporary), temporary

    @contextlib.contextmanager
    def _or_nothing(self, fd: int, temporary: Path) -> Iterator[None]:
        try:
            with self._directory.writing():
                yield
        except BaseException:
            self._drop(fd, temporary)
            raise

    def _read(self, fd: int, length: int, offset: int) -> bytes | bytearray:
        """A whole block goes to the same memory each time: fresh pages for each cost more than the hash."""
        if not self._buffer:
            self._buffer = bytearray(BLOCK_SIZE)
        if length == len(self._buffer) == os.preadv(fd, [self._buffer], offset):
            return self._buffer
        return os.pread(fd, length, offset)

    def _share(self, source: int, offset: int, length: int, fd: int) -> bool:
        try:
            self._directory.files.share(source, offset, length, fd)
        except OSError as e:
            if e.errno not in CANNOT_SHARE:
                raise
            return False
        return True

    def _stage(self, kind: Kind, key: str, fd: int, temporary: Path) -> None:
        final = self._directory.final(kind, key)
        self._staged[final] = (fd, temporary)
        self._folders.add(final.parent)

    def _drop(self, fd: int, temporary: Path) -> None:
        os.close(fd)
        with contextlib.suppress(OSError):
            self._directory.files.unlink(temporary)
