"""Write the image of the disk `snf-source` onto disk 0.

    raw, perhaps compressed    streams.py, block by block; blocks of zeros are left out, since the host zeroed the disk
    qcow2, vmdk, vhdx, vdi     qemu-img, by the format that was said

What an image says of its size is never trusted: `check` refuses before a byte is written what is too large by its own
header, and `write` stops at the end of the disk whatever was said.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from snf_image_helper.actions import CheckSource, SourceAction, WriteSource
from snf_image_helper.apply import DISK
from snf_image_helper.disks import Disks, explained, read_node
from snf_image_helper.qemu_img import (
    CHECKED,
    ENVIRONMENT,
    check_command,
    convert_command,
    info_command,
    parse_info,
    parse_percent,
)
from snf_image_helper.source_headers import Header, SourceError, parse_header
from synnefo_light.errors import EnvironmentFault, ToolError
from synnefo_light.manifest import Source, SourceFormat
from synnefo_light.run import Runner, run_watched
from synnefo_light.units import mib_at_least

SOURCE = "snf-source"
LOOK_TIMEOUT_S, WRITE_TIMEOUT_S = 600.0, 86400.0  # the host's own limit is the one that counts
PIECE = 256 << 10  # read at a time
HOLE = 64 << 10  # zeros of this length are not written
_ZEROS = bytes(HOLE)

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """From which node to which, and their bytes: exactly those of the image, and those of the whole disk."""

    source: Source
    node: str
    target: str
    limit: int


def apply(
    action: SourceAction, disks: Disks, runner: Runner, *, warn: Callable[[str], None], progress: OnProgress
) -> int | None:
    """Check the image, or write it. When it is written, the kernel knows the disk's new partitions.

    Returns how many bytes of the disk are the image, once it is written.
    """
    way = Way(source=action.source, node=disks.node(SOURCE), target=disks.node(DISK), limit=disks.size(DISK))
    match action:
        case CheckSource():
            for note in check(way, available=disks.size(SOURCE), runner=runner):
                warn(note)
            return None
        case WriteSource():
            size = write(way, progress=progress)
            disks.flush(DISK)
            disks.rescan(DISK)
            return size


def check(way: Way, *, available: int, runner: Runner) -> tuple[str, ...]:
    """Refuse what cannot be written, before anything is; returns notes for the admin. Reads the source only.

    `available`: bytes of the source's disk. Raises SourceError, EnvironmentFault.
    """
    kind, size = way.source.format, way.source.size
    if available < size:
        raise EnvironmentFault(f"the image has {size} bytes, but the disk that holds it has {available}")
    if kind is SourceFormat.RAW:
        return ()

    header = _header(way)
    if header.virtual_size == 0:
        raise SourceError("the image holds a disk of no bytes")
    if header.virtual_size > way.limit:
        needed = mib_at_least(header.virtual_size)
        raise SourceError(
            f"the image holds a disk of {needed} MiB, but disk 0 has {way.limit >> 20} MiB; "
            f"ask for --disk 0:size={needed}M or more"
        )
    try:
        told = runner(info_command(kind, way.node), timeout_s=LOOK_TIMEOUT_S, env=ENVIRONMENT)
        parse_info(told.stdout, kind=kind, node=way.node, header=header)
        runner(check_command(kind, way.node), ok=CHECKED, timeout_s=LOOK_TIMEOUT_S, env=ENVIRONMENT)
    except ToolError as e:
        raise _damaged(kind, e) from e
    return header.notes


def _header(way: Way) -> Header:
    size = way.source.size

    def read(offset: int, length: int) -> bytes:
        return read_node(way.node, offset, min(length, size - offset)) if 0 <= offset < size else b""

    return parse_header(way.source.format, read, size=size)


def write(way: Way, *, progress: OnProgress) -> int:
    """Write the image, and nothing behind the end of the disk; returns the bytes that it is there.

    Raises SourceError; then the disk is half written.
    """
    if way.source.format is SourceFormat.RAW:
        return _write_stream(way, progress)
    _write_by_qemu_img(way, progress)
    return _header(way).virtual_size


def _write_by_qemu_img(way: Way, progress: OnProgress) -> None:
    kind, tail = way.source.format, b""

    def watch(output: bytes) -> None:
        nonlocal tail
        tail = (tail + output)[-64:]
        percent = parse_percent(tail)
        if percent is not None:
            progress(way.source.size * percent // 100, way.source.size)

    command = convert_command(kind, way.node, way.target)
    try:
        run_watched(command, on_output=watch, timeout_s=WRITE_TIMEOUT_S, env=ENVIRONMENT)
    except ToolError as e:
        raise _damaged(kind, e) from e


def _write_stream(way: Way, progress: OnProgress) -> int:
    from snf_image_helper.streams import decompress  # only now: qemu-img does without these libraries

    read_bytes = written = 0
    with Path(way.node).open("rb", buffering=0) as file:

        def read() -> bytes:
            nonlocal read_bytes
            with explained(way.node, "read"):
                piece = file.read(min(PIECE, way.source.size - read_bytes))
            read_bytes += len(piece)
            return piece

        target = os.open(way.target, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for block in decompress(way.source.compression, read):
                if written + len(block) > way.limit:
                    raise SourceError(
                        f"the image goes on behind the end of disk 0, which has {way.limit >> 20} MiB; "
                        "ask for a larger one by --disk 0:size"
                    )
                with explained(way.target, "written"):
                    for offset, data in not_zero(block):
                        write_all(target, data, written + offset)
                written += len(block)
                progress(read_bytes, way.source.size)
            if not written:
                raise SourceError("the image holds not a byte; it cannot be a disk")
            with explained(way.target, "written"):
                os.fsync(target)
        finally:
            os.close(target)
    return written


def not_zero(block: bytes) -> Iterator[tuple[int, bytes]]:
    """The stretches of a block that are not holes, with their offsets: pieces of HOLE bytes, put together."""
    start: int | None = None
    for offset in range(0, len(block), HOLE):
        piece = block[offset : offset + HOLE]
        empty = piece == _ZEROS[: len(piece)]
        if empty and start is not None:
            yield start, block[start:offset]
            start = None
        elif not empty and start is None:
            start = offset
    if start is not None:
        yield start, block[start:]


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Raises OSError."""
    while data:
        done = os.pwrite(fd, data, offset)
        data, offset = data[done:], offset + done


def _damaged(kind: SourceFormat, error: ToolError) -> SourceError:
    said = error.stderr.strip().splitlines()[-1:] or [""]
    detail = said[0].removeprefix("qemu-img: ")[:200]
    return SourceError(f"the image is a {kind.value} that is damaged or not whole: qemu-img {error.outcome}: {detail}")
