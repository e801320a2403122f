"""Where the bytes of a new image come from, before the store takes them.

    a raw file or a device, nothing asked of it    read as it is                                         no copy
    all else: an address, another format,          `snf-image convert` ─► a file without a name ─►       the store
    a compression, a checksum, a signature         (its guards, its helper VM)

This room never looks into an image. The file without a name, and whoever fills it, is gone with this process, however
that ends. It may become as large as there is room above the reserve, and no larger, whatever the image says of itself;
whoever writes there too, the fetched file of snf-image among them, the converter is killed as soon as the reserve is
touched.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from snf_extstorage.catalog import open_source
from snf_extstorage.settings import Settings
from snf_extstorage.volume import NoSpace, Space
from synnefo_light import rooms
from synnefo_light.encodings import encoding_of
from synnefo_light.errors import EnvironmentFault, Error, UserError
from synnefo_light.manifest import Compression, SourceFormat
from synnefo_light.run import Runner, run_bound
from synnefo_light.units import GIB, MIB, Bytes, human

#: snf-image has limits of its own for fetching and for converting; this one is for what stands still.
LIMIT_S: Final = 86400.0
SIZE_LIMIT: Final = Bytes(128 * GIB)
#: Where an image for Ceph is converted, and the percent of it that others of this node need.
WAITING: Final = Path("/var/tmp")  # noqa: S108 - what is there has no name
WAITING_PERCENT: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An image that is to be registered: where it is, what it is, and what must be true of its bytes as they come."""

    source: str
    format: SourceFormat | None = None  # None: what the name's end says, else raw
    compression: Compression | None = None
    checksum: str = ""  # "sha256:HEX" or "sha512:HEX"
    signature: str = ""  # an address or a file
    size_limit: Bytes = SIZE_LIMIT

    @property
    def is_address(self) -> bool:
        scheme, mark, _ = self.source.partition("://")
        return bool(mark) and scheme.isalnum()

    @property
    def shown(self) -> str:
        """Without a query, where many servers want a secret."""
        return self.source.partition("?")[0] if self.is_address else self.source


def plan_conversion(wanted: Wanted, output: Path, *, program: str = "snf-image") -> tuple[str, ...] | None:
    """The command that makes a raw disk of it in `output`; None when it is one, of which nothing is to be checked."""
    by_name = encoding_of(wanted.shown.rpartition("/")[2])
    encoding = (wanted.format or by_name[0], wanted.compression or by_name[1])
    plain = encoding == (SourceFormat.RAW, Compression.NONE)
    if plain and not (wanted.is_address or wanted.checksum or wanted.signature):
        return None
    given = {"--checksum": wanted.checksum, "--signature": wanted.signature, "--max-size": str(wanted.size_limit)}
    return (
        *(program, "convert", f"--format={encoding[0].value}", f"--compression={encoding[1].value}"),
        *(f"{option}={value}" for option, value in given.items() if value),
        *("--", wanted.source, str(output)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The folder in which the file without a name is, and what there is of it."""

    folder: Path
    space: Space
    reserve_percent: int

    def __str__(self) -> str:
        free, total = human(self.space.free), human(self.space.total)
        return f"{self.folder} has {free} of {total} free, and {human(self.reserve)} are reserved for others"

    @property
    def reserve(self) -> int:
        return self.space.total * self.reserve_percent // 100


def plan_limit(wanted: Wanted, room: Room) -> Bytes:
    """How large the disk may become: as large as is wanted, and as can be written above the reserve, in whole MiB.

    A disk of which little is data is bounded by its size all the same: how much is data is known when it is written.
    Raises NoSpace.
    """
    spare = (room.space.free - room.reserve) // MIB * MIB
    if spare <= 0:
        raise NoSpace(f"the image is converted in a file, for which there is no room: {room}; make some")
    return min(wanted.size_limit, Bytes(spare))


@contextlib.contextmanager
def arrived(wanted: Wanted, settings: Settings, *, runner: Runner | None = None) -> Iterator[tuple[int, Bytes]]:
    """The image's bytes as an open file, raw, checked, and their number. Raises Error, before any work NoSpace."""
    room = _room(settings)
    with _nameless(room.folder) as (fd, path):
        if _convert(wanted, room, path, settings, runner or partial(run_bound, mind=lambda: _require(_room(settings)))):
            yield fd, Bytes(os.fstat(fd).st_size)
            return
    source, size = open_source(wanted.source)
    try:
        if size > wanted.size_limit:
            raise UserError(
                f"the image {wanted.source} has {size} bytes, more than the {wanted.size_limit} of --max-size; "
                "give a larger one if that is meant"
            )
        yield source, size
    finally:
        os.close(source)


def _convert(wanted: Wanted, room: Room, output: Path, settings: Settings, runner: Runner) -> bool:
    """Whether there was something to convert; then it is in `output`. Raises Error."""
    if plan_conversion(wanted, output) is None:
        return False
    limit = plan_limit(wanted, room)
    command = plan_conversion(replace(wanted, size_limit=limit), output, program=settings.snf_image)
    assert command is not None
    try:
        rooms.ask(command, package="snf-image-host", timeout_s=LIMIT_S, runner=runner)
    except Error as e:
        if limit == wanted.size_limit or "--max-size" not in str(e):
            raise
        raise NoSpace(f"{e}; but more than {human(limit)} cannot be converted here: {room}") from e
    return True


def _require(room: Room) -> None:
    if room.space.free < room.reserve:
        raise NoSpace(f"the image is not converted to its end, for there is not enough room: {room}; make some")


def _room(settings: Settings) -> Room:
    """Beside the volumes, where the store can share its extents; for Ceph on a disk of this node."""
    beside = settings.engine == "directory"
    folder = settings.folder if beside else WAITING
    try:
        found = os.statvfs(folder)
    except OSError as e:
        raise EnvironmentFault(f"{folder}, where images are converted, cannot be used: {e.strerror}") from e
    space = Space(total=Bytes(found.f_blocks * found.f_frsize), free=Bytes(found.f_bavail * found.f_frsize))
    return Room(folder=folder, space=space, reserve_percent=settings.reserve_percent if beside else WAITING_PERCENT)


@contextlib.contextmanager
def _nameless(folder: Path) -> Iterator[tuple[int, Path]]:
    """An empty file, and a path by which another process gets at it as long as we live."""
    try:
        file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed below
    except OSError as e:
        raise EnvironmentFault(f"{folder} cannot hold the image while it is converted: {e.strerror}") from e
    with file:
        yield file.fileno(), Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")
