"""Copy an image onto a disk: as bytes, unread but for their being zero.

What is a hole or zeros in the image becomes zeros on the disk without being written, if the disk can do that. After the
copy no byte that was there before is left within the image's size, on a file anywhere, and the last MiB of the disk
is zeros (unless it belongs to the image), so that no backup of an old GPT is found there.

What must be true of the image's bytes is a `Check`: it sees them all, in order, and holes as zeros.

Commit point: none. A copy that ends early leaves a disk that must be wiped (DiskTarget.wipe_ends) or copied onto again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from snf_image_host.sources import CHUNK
from snf_image_host.target import END, DiskTarget
from snf_image_host.values import Checksum
from synnefo_light.errors import PeerError

GRAIN: Final = 64 << 10  # zeros are looked for in pieces of this size
PROGRESS_S: Final = 1.0
_ZEROS: Final = bytes(CHUNK)

Progress = Callable[[int, int], None]  # bytes of the image done, in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    written: int  # bytes of data; holes and zeros not counted
    received: int  # up to the end of the last chunk
    size: int


class Check(Protocol):
    """Something that must be true of an image's bytes."""

    def update(self, data: memoryview) -> None: ...

    def zeros(self, count: int) -> None: ...

    def check(self) -> None:
        """Raises PeerError when it is not true; called once, at the end."""
        ...


class Hasher:
    """SHA-256 or SHA-512 of the image's bytes."""

    def __init__(self, checksum: Checksum) -> None:
        self._wanted = checksum
        self._hash = hashlib.new(checksum.algorithm)

    def update(self, data: memoryview) -> None:
        self._hash.update(data)

    def zeros(self, count: int) -> None:
        for start in range(0, count, CHUNK):
            self._hash.update(memoryview(_ZEROS)[: min(CHUNK, count - start)])

    def check(self) -> None:
        found = self._hash.hexdigest()
        if found != self._wanted.hexdigest:
            name = {"sha256": "SHA-256", "sha512": "SHA-512"}[self._wanted.algorithm]
            raise PeerError(
                f"the image's {name} is {found}, but img_checksum asks for {self._wanted.hexdigest}; "
                f"the image is damaged, or another one"
            )


def checked(
    chunks: Iterator[tuple[int, memoryview]],
    *,
    size: int,
    checks: Sequence[Check] = (),
    progress: Progress = lambda done, total: None,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[int, memoryview]]:
    """The same chunks, shown to the checks as they go by; at their end each check speaks.

    Raises PeerError (a check's, or for chunks that overlap or leave the size). `progress` is called at the start, about
    once a second, and at the end.
    """
    position = 0
    said = now()
    progress(0, size)
    for offset, data in chunks:
        if offset < position or offset + len(data) > size:
            raise PeerError(f"the image gave bytes at {offset}, which is not where they were due")
        for check in checks:
            check.zeros(offset - position)
            check.update(data)
        yield offset, data
        position = offset + len(data)
        if now() - said >= PROGRESS_S:
            said = now()
            progress(position, size)
    for check in checks:
        check.zeros(size - position)
        check.check()
    progress(size, size)


def copy(
    chunks: Iterator[tuple[int, memoryview]],
    *,
    size: int,
    target: DiskTarget,
    lead: bytes = b"",
    checks: Sequence[Check] = (),
    progress: Progress = lambda done, total: None,
    now: Callable[[], float] = time.monotonic,
) -> Copied:
    """Write an image of `size` bytes, given as chunks in rising order, onto `target`, which must be at least as large.

    `lead` is written before the image and no part of it: what the checks see and `progress` counts is the image alone.
    Raises PeerError (a check's, a bad source) or EnvironmentFault; then the disk holds a part of the image.
    Nothing is synced here.
    """
    cleared = target.clear()
    begin, end = len(lead), len(lead) + size
    written = _write(memoryview(lead), 0, target, cleared=cleared)
    position = begin
    for offset, data in checked(chunks, size=size, checks=checks, progress=progress, now=now):
        if not cleared:
            target.zero(position, begin + offset)
        written += _write(data, begin + offset, target, cleared=cleared)
        position = begin + offset + len(data)
    received = position - begin
    if not cleared:
        target.zero(position, end)
    target.zero(max(end, target.size - END), target.size)
    return Copied(written=written, received=received, size=size)


def _write(data: memoryview, offset: int, target: DiskTarget, *, cleared: bool) -> int:
    """Write the runs of `data` that are not zeros, zero the others; returns the bytes written."""
    written = 0
    start: int | None = None  # of the run of data that is being gathered
    for at in range(0, len(data), GRAIN):
        piece = data[at : at + GRAIN]
        if bytes(piece) != _ZEROS[: len(piece)]:
            start = at if start is None else start
            continue
        if start is not None:
            target.write(data[start:at], offset + start)
            written += at - start
            start = None
        if not cleared:
            target.zero(offset + at, offset + at + len(piece))
    if start is not None:
        target.write(data[start:], offset + start)
        written += len(data) - start
    return written
