"""export and import: a disk as one stream of all its bytes, which any version and any snf-image can read back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snf_image_host.copy import Copied, copy
from snf_image_host.sources import CHUNK
from snf_image_host.sources.local import OpenFile
from snf_image_host.target import Target, open_target
from snf_image_host.userspace import RbdAddress, UserspaceTarget, open_address, parse_address
from synnefo_light.errors import EnvironmentFault, PeerError, ProtocolError, UserError
from synnefo_light.units import MIB, mib_at_least

_ZEROS: Final = bytes(CHUNK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What Ganeti says about one run of export or import, which is about one disk."""

    disk: Path | RbdAddress
    index: int
    size_fd: int | None


def parse_transfer(environ: Mapping[str, str], *, prefix: str) -> Transfer:
    """`prefix` is EXPORT or IMPORT. A path is taken before an address. Raises ProtocolError, EnvironmentFault."""
    path, index = environ.get(f"{prefix}_DEVICE", ""), environ.get(f"{prefix}_INDEX", "0")
    size_fd = environ.get("EXP_SIZE_FD", "")
    uri = environ.get(f"{prefix}_DISK_URI", "")
    if not path.startswith("/") and (path or not uri):
        raise ProtocolError(f"Ganeti passed {prefix}_DEVICE={path[:200]!r}, which is not an absolute path")
    if not (index.isascii() and index.isdigit() and len(index) < 4):
        raise ProtocolError(f"Ganeti passed {prefix}_INDEX={index[:40]!r}, which is not a number")
    if size_fd and not (size_fd.isascii() and size_fd.isdigit() and len(size_fd) < 8):
        raise ProtocolError(f"Ganeti passed EXP_SIZE_FD={size_fd[:40]!r}, which is not a descriptor")
    return Transfer(
        disk=Path(path) if path else parse_address(uri), index=int(index), size_fd=int(size_fd) if size_fd else None
    )


def export_disk(transfer: Transfer, *, out: int = 1) -> int:
    """Write all bytes of the disk to `out`; returns how many. Raises EnvironmentFault, PeerError."""
    with _opened(transfer.disk, readonly=True) as disk:
        if transfer.size_fd is not None:
            with contextlib.suppress(OSError), os.fdopen(transfer.size_fd, "w", closefd=False) as told:
                told.write(str(mib_at_least(disk.size)))
        position = 0
        for offset, data in _chunks(disk):
            _zeros(out, offset - position)
            _send(out, data)
            position = offset + len(data)
        _zeros(out, disk.size - position)
        return disk.size


def import_disk(transfer: Transfer, *, source: int = 0) -> Copied:
    """Read a disk from `source` onto the disk, the rest of which becomes zeros.

    A failure wipes the disk's ends. Raises UserError when there is more than fits, EnvironmentFault.
    """
    with _opened(transfer.disk) as target, contextlib.ExitStack() as undo:
        undo.callback(target.wipe_ends)
        copied = copy(_received(source, target.size), size=target.size, target=target)
        if not copied.received:
            raise PeerError("the other side sent nothing; look at its log")
        target.sync()
        undo.pop_all()
        return copied


def _opened(
    disk: Path | RbdAddress, *, readonly: bool = False
) -> contextlib.AbstractContextManager[Target | UserspaceTarget]:
    if isinstance(disk, RbdAddress):
        return open_address(disk, size=None, readonly=readonly)
    return open_target(disk, size=None, readonly=readonly)


def _chunks(disk: Target | UserspaceTarget) -> Iterator[tuple[int, memoryview]]:
    if isinstance(disk, UserspaceTarget):
        return disk.chunks()
    return OpenFile(fd=disk.fd, name=str(disk.path), size=disk.size).chunks()


def _received(source: int, limit: int) -> Iterator[tuple[int, memoryview]]:
    buffer = memoryview(bytearray(CHUNK))
    position = 0
    while count := _fill(lambda part: os.readv(source, [part]), buffer):
        if position + count > limit:
            raise UserError(f"the export holds more than the {limit // MIB} MiB of the disk; import onto a larger disk")
        yield position, buffer[:count]
        position += count


def _fill(read: Callable[[memoryview], int], buffer: memoryview) -> int:
    """Fill the buffer as far as the stream goes: a pipe gives 64 KiB at a time."""
    filled = 0
    try:
        while filled < len(buffer) and (count := read(buffer[filled:])):
            filled += count
    except OSError as e:
        raise EnvironmentFault(f"the stream cannot be read: {e.strerror}") from e
    return filled


def _zeros(out: int, count: int) -> None:
    while count > 0:
        size = min(count, len(_ZEROS))
        _send(out, memoryview(_ZEROS)[:size])
        count -= size


def _send(out: int, data: memoryview) -> None:
    try:
        while data:
            data = data[os.write(out, data) :]
    except OSError as e:
        raise PeerError(f"the receiver of the export is gone: {e.strerror}") from e
