"""`snf-store init`: make the folder of volumes and the store in it, and the file system for both where it is needed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final
from uuid import uuid4

from snf_extstorage.commands import Out
from snf_extstorage.directory.mount import require_shared_locks
from snf_extstorage.directory.place import init_place
from snf_extstorage.directory.sharing import require_sharing
from snf_extstorage.settings import FILE, Settings
from synnefo_light.errors import EnvironmentFault, UserError
from synnefo_light.run import run as run_program
from synnefo_light.store.directory import make_directory
from synnefo_light.store.formats import Format
from synnefo_light.units import GIB, human, parse_size

NAME: Final = "init"
SUMMARY: Final = "make the folder of volumes and the store, on a file system that can share extents"

#: mkfs.xfs makes smaller ones, with a log that is most of it.
SMALLEST: Final = GIB
#: The image's blocks are given out as they are written, and one that outgrows what it lies on takes all guests down.
COSTS: Final = (
    "An image costs: reads reach 60 to 77 percent of the file system underneath and large ones less, since each goes "
    "through another loop device; and when the file system underneath is full, every volume in the image stops. Use "
    "a disk or logical volume with XFS for anything that matters."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", metavar="FILE", type=Path, help="make an XFS image in FILE and mount it first")
    parser.add_argument("--size", metavar="SIZE", help="of that image, as 100G; it grows to that as it is used")
    parser.add_argument("--grace", metavar="SECONDS", type=int, default=86400, help="how long unused blocks stay")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    if settings.engine == "rados":
        return _on_rados(settings, arguments, out)
    folder = settings.folder
    if arguments.image is not None:
        _make_image(arguments.image, arguments.size, folder, out)
    elif arguments.size is not None:
        raise UserError("--size is that of an image; name its file with --image")
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    require_sharing(folder)
    require_shared_locks(folder)
    init_place(folder)
    if not (folder / "store" / "FORMAT").exists():
        make_directory(folder / "store", Format(uuid=uuid4(), grace_s=arguments.grace))
    found = os.statvfs(folder)
    out(f"{folder} holds volumes and the store; {human(found.f_bavail * found.f_frsize)} are free")
    return 0


def _on_rados(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    """The pools are an administrator's to make: how many copies and where is not for us to guess."""
    from snf_extstorage.providers import open_volumes
    from snf_extstorage.stores import make_rados_store

    if arguments.image is not None or arguments.size is not None:
        raise UserError(f"{FILE} has engine 'rados', whose store needs no image; leave out --image and --size")
    place = make_rados_store(settings, grace_s=arguments.grace)
    count = len(list(open_volumes(settings).volumes()))
    out(f"{place} is the store, and the pool {settings.ceph.pool} is for volumes, of which there are {count}")
    return 0


def _make_image(image: Path, size: str | None, folder: Path, out: Out) -> None:
    if os.path.ismount(folder):
        raise UserError(f"an image is to be mounted at {folder}, but something is mounted there already")
    if image.exists():
        raise UserError(f"{image} is to become an XFS image, but it exists; mount it at {folder}, or name another file")
    if size is None:
        raise UserError("the image needs a size; give one as --size 100G")
    wanted = parse_size(size)
    if wanted < SMALLEST:
        raise UserError(f"an image of {human(wanted)} is too small for a store; ask for {human(SMALLEST)} or more")
    found = os.statvfs(image.parent)
    free = found.f_bavail * found.f_frsize
    if wanted > free:
        raise EnvironmentFault(
            f"the image is to have {human(wanted)}, but {image.parent} has {human(free)} free; a thin image that "
            "outgrows its disk stops every guest, so ask for less"
        )
    making = image.with_name(f"{image.name}.tmp")
    with open(making, "wb") as file:
        file.truncate(wanted)
    run_program(["mkfs.xfs", "-q", "-f", "-m", "reflink=1", making], timeout_s=300)
    making.rename(image)
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    run_program(["mount", "-o", "loop", image, folder], timeout_s=60)
    out(f"made {image} and mounted it at {folder}; to have it after a boot, add to /etc/fstab:")
    out(f"{image} {folder} xfs loop,nofail 0 0")
    out(COSTS)
