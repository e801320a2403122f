"""Where the bytes of a new image come from, before the store takes them.

    a raw file or a device, nothing asked of it    read as it is                                         no copy
    all else: an address, another format,          `snf-image convert` ─► a file without a name ─►       the store
    a compression, a checksum, a signature         (its guards, its helper VM)

This room never looks into an image. The file without a name, and whoever fills it, is gone with this process, however
that ends.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snf_extstorage.catalog import open_source
from snf_extstorage.settings import Settings
from synnefo_light import rooms
from synnefo_light.encodings import encoding_of
from synnefo_light.errors import EnvironmentFault, UserError
from synnefo_light.manifest import Compression, SourceFormat
from synnefo_light.run import Runner, run_bound
from synnefo_light.units import GIB, Bytes

#: snf-image has limits of its own for fetching and for converting; this one is for what stands still.
LIMIT_S: Final = 86400.0
SIZE_LIMIT: Final = Bytes(128 * GIB)


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


@contextlib.contextmanager
def arrived(wanted: Wanted, settings: Settings, *, runner: Runner = run_bound) -> Iterator[tuple[int, Bytes]]:
    """The image's bytes as an open file, raw, checked, and their number. Raises Error."""
    with _nameless(settings) as (fd, path):
        command = plan_conversion(wanted, path, program=settings.snf_image)
        if command is not None:
            rooms.ask(command, package="snf-image-host", timeout_s=LIMIT_S, runner=runner)
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


@contextlib.contextmanager
def _nameless(settings: Settings) -> Iterator[tuple[int, Path]]:
    """An empty file, and a path by which another process gets at it as long as we live.

    Beside the volumes, where the store can share its extents; for Ceph on a disk of this node.
    """
    folder = settings.folder if settings.engine == "directory" else Path("/var/tmp")  # noqa: S108 - no name
    try:
        file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed below
    except OSError as e:
        raise EnvironmentFault(f"{folder} cannot hold the image while it is converted: {e.strerror}") from e
    with file:
        yield file.fileno(), Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")
