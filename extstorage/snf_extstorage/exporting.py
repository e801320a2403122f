"""An image out of the store, each block compared with its name while it is read.

    to a file    sparse, under a temporary name; *the link to its name* is the commit point, which replaces nothing
    as ranges    for a program: "OFFSET LENGTH\\n" and that many bytes, again and again; at the end "SIZE 0\\n"

A crash before the link leaves a temporary file beside, which nobody takes for an image. A stream without its last line
is not whole.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from synnefo_light.errors import EnvironmentFault, UserError
from synnefo_light.files import TEMPORARY, sync_folder
from synnefo_light.store import copying
from synnefo_light.store.identity import BLOCK_SIZE
from synnefo_light.store.maps import Map


def write_ranges(content: Map, write: Callable[[bytes], object]) -> None:
    """Raises Absent and Corrupt naming the block."""
    for index, _ in content.blocks():
        found = content.content(index)
        write(b"%d %d\n" % (index * BLOCK_SIZE, len(found)))
        write(found)
    write(b"%d 0\n" % content.size)


def write_file(content: Map, path: Path) -> None:
    """A new file, durable. Raises UserError when there is one, EnvironmentFault when it cannot be written."""
    taken = f"the image is to become {path}, but that is there already; choose another name, or remove it"
    if os.path.lexists(path):
        raise UserError(taken)
    temporary = path.with_name(f"{TEMPORARY}{path.name[:100]}-{secrets.token_hex(4)}")
    try:
        with _new(temporary) as fd:
            copying.write_file(content, fd)
            os.fsync(fd)
            os.link(temporary, path)
        sync_folder(path.parent)
    except FileExistsError:
        raise UserError(taken) from None
    except OSError as e:
        raise EnvironmentFault(f"the image cannot be written to {path}: {e.strerror}") from e


@contextlib.contextmanager
def _new(path: Path) -> Iterator[int]:
    """A file that only we may read: what an image holds may be secret. Its name is gone afterwards."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(path)
