"""Copy an image onto a disk: as bytes, unread but for their being zero.

What is a hole or zeros in the image becomes zeros on the disk without being written, if the disk can do that. After the
copy no byte that was there before is left within the image's size, on a file anywhere, and the last MiB of the disk
is zeros (unless it belongs to the image), so that no backup of an old GPT is found there.

Commit point: none. A copy that ends early leaves a disk that must be wiped (Target.wipe_ends) or copied onto again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from snf_image_host.params import Checksum
from snf_image_host.sources import CHUNK
from snf_image_host.target import END, Target
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


class Hasher:
    """SHA-256 or SHA-512 of the image's bytes, holes included; without a checksum it does nothing."""

    def __init__(self, checksum: Checksum | None) -> None:
        self._wanted = checksum
        self._hash = hashlib.new(checksum.algorithm) if checksum else None

    def update(self, data: memoryview) -> None:
        if self._hash is not None:
            self._hash.update(data)

    def zeros(self, count: int) -> None:
        if self._hash is not None:
            for start in range(0, count, CHUNK):
                self._hash.update(memoryview(_ZEROS)[: min(CHUNK, count - start)])

    def check(self) -> None:
        """Raises PeerError when the sum is not the wanted one."""
        if self._wanted is None or self._hash is None:
            return
        found = self._hash.hexdigest()
        if found != self._wanted.hexdigest:
            name = {"sha256": "SHA-256", "sha512": "SHA-512"}[self._wanted.algorithm]
            raise PeerError(
                f"the image's {name} is {found}, but img_checksum asks for {self._wanted.hexdigest}; "
                f"the image is damaged, or another one"
            )


def copy(
    chunks: Iterator[tuple[int, memoryview]],
    *,
    size: int,
    target: Target,
    checksum: Checksum | None = None,
    progress: Progress = lambda done, total: None,
    now: Callable[[], float] = time.monotonic,
) -> Copied:
    """Write an image of `size` bytes, given as chunks in rising order, onto `target`, which must be at least as large.

    Raises PeerError (a wrong sum, a bad source) or EnvironmentFault; then the disk holds a part of the image.
    `progress` is called at the start, about once a second, and at the end. Nothing is synced here.
    """
    hasher = Hasher(checksum)
    cleared = target.clear()
    position = written = 0
    said = now()
    progress(0, size)
    for offset, data in chunks:
        if offset < position or offset + len(data) > size:
            raise PeerError(f"the image gave bytes at {offset}, which is not where they were due")
        hasher.zeros(offset - position)
        if not cleared:
            target.zero(position, offset)
        hasher.update(data)
        written += _write(data, offset, target, cleared=cleared)
        position = offset + len(data)
        if now() - said >= PROGRESS_S:
            said = now()
            progress(position, size)
    received = position
    hasher.zeros(size - position)
    if not cleared:
        target.zero(position, size)
    target.zero(max(size, target.size - END), target.size)
    hasher.check()
    progress(size, size)
    return Copied(written=written, received=received, size=size)


def _write(data: memoryview, offset: int, target: Target, *, cleared: bool) -> int:
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
