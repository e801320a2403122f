"""Images that are files of the node's image folder (`image_dir`, /var/lib/snf-image).

No link is followed below the folder, so a name cannot lead out of it; only regular files are opened, so no pipe or
device can hold us. Holes are skipped, not read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from snf_image_host.sources import CHUNK, LocalImage
from synnefo_light.errors import EnvironmentFault, UserError
from synnefo_light.log import escape


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    fd: int
    name: str
    size: int

    def chunks(self) -> Iterator[tuple[int, memoryview]]:
        buffer = memoryview(bytearray(CHUNK))
        position = 0
        while position < self.size:
            found = self._next_data(position)
            if found is None:
                return
            position, end = found
            while position < end:
                count = self._read(buffer[: min(CHUNK, end - position)], position)
                yield position, buffer[:count]
                position += count

    def _next_data(self, position: int) -> tuple[int, int] | None:
        """Where the next data begin and end; None when only a hole is left. Of a block device all is data."""
        try:
            start = os.lseek(self.fd, position, os.SEEK_DATA)
            return start, min(os.lseek(self.fd, start, os.SEEK_HOLE), self.size)
        except OSError as e:
            if e.errno == errno.ENXIO:
                return None
            if e.errno == errno.EINVAL:  # lseek(2): not every file can say
                return position, self.size
            raise EnvironmentFault(f"the image {self.name} cannot be read at {position}: {e.strerror}") from e

    def _read(self, into: memoryview, position: int) -> int:
        try:
            count = os.preadv(self.fd, [into], position)
        except OSError as e:
            raise EnvironmentFault(f"the image {self.name} cannot be read at {position}: {e.strerror}") from e
        if count == 0:
            raise EnvironmentFault(f"the image {self.name} became shorter than {self.size} bytes while it was copied")
        return count


def relative_name(image: LocalImage, folder: Path) -> str:
    """The image's path below `folder`. Raises UserError when it is an absolute path elsewhere."""
    if not image.name.startswith("/"):
        return image.name
    below = f"{folder}/"
    if not image.name.startswith(below):
        raise UserError(
            f"img_id names '{escape(image.name)}', which is not below the image folder {folder}; move the image there"
        )
    return image.name.removeprefix(below)


@contextlib.contextmanager
def open_local(image: LocalImage, folder: Path) -> Iterator[OpenFile]:
    """Raises UserError when there is no such image, or it is not a regular file below `folder`."""
    name = relative_name(image, folder)
    *folders, leaf = [part for part in name.split("/") if part not in ("", ".")] or [""]
    with contextlib.ExitStack() as opened:

        def opening(part: str, flags: int, at: int | None) -> int:
            fd = os.open(part, flags | os.O_RDONLY | os.O_CLOEXEC, dir_fd=at)
            opened.callback(os.close, fd)
            return fd

        try:
            at = opening(os.fspath(folder), os.O_DIRECTORY, None)
            for part in folders:
                at = opening(part, os.O_DIRECTORY | os.O_NOFOLLOW, at)
            # O_NONBLOCK: a pipe must not hold us before we know that it is one.
            fd = opening(leaf, os.O_NOFOLLOW | os.O_NONBLOCK, at)
        except OSError as e:
            raise UserError(_sentence(name, folder, e)) from e
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"the image '{escape(name)}' of {folder} is not a regular file")
        yield OpenFile(fd=fd, name=escape(name), size=found.st_size)


def _sentence(name: str, folder: Path, e: OSError) -> str:
    if e.errno in (errno.ELOOP, errno.ENOTDIR):
        why = "goes through a symbolic link or something that is not a folder; images are plain files below the folder"
    elif e.errno == errno.ENOENT:
        why = f"is not there; put it into {folder} on this node, or correct img_id"
    else:
        why = f"cannot be opened: {e.strerror}"
    return f"the image '{escape(name)}' of {folder} {why}"
