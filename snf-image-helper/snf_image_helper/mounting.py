"""Mount what the image holds, and unmount it again in reverse. Nothing is decided here.

    /mnt            the root                    RootFs opens everything below here
    /mnt/boot       other file systems          at the folder that openat2(2) finds inside the root, not at a path

A mount point that is a link leads to another folder of the image or nowhere. Everything is nosuid, nodev and noexec.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from snf_image_helper.image import FilesystemKind, ImageError, RootPath
from snf_image_helper.modules import load
from snf_image_helper.mount_points import mount_points
from snf_image_helper.rootfs import RootFs
from snf_image_helper.syscalls import MS_NOATIME, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, mount, umount
from synnefo_light.errors import EnvironmentFault
from synnefo_light.log import logger

MOUNT_POINT = "/mnt"
FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME
#: nouuid: another file system with its UUID, on an instance's other disk, is no reason to refuse. quiet: FAT knows
#: neither owners nor modes, and to set them is no error.
OPTIONS = {FilesystemKind.XFS: "nouuid", FilesystemKind.VFAT: "quiet,utf8"}
#: A look must not replay a journal: it would write.
LOOK_OPTIONS = {
    FilesystemKind.EXT3: "noload",
    FilesystemKind.EXT4: "noload",
    FilesystemKind.XFS: "nouuid,norecovery",
    FilesystemKind.BTRFS: "rescue=nologreplay",
    FilesystemKind.F2FS: "norecovery",
}


class MountStack:
    """What is mounted, the root first. `root` is None while nothing is."""

    def __init__(self) -> None:
        self.root: RootFs | None = None
        self._ended: Callable[[], None] | None = None

    def mount_root(self, node: str, kind: FilesystemKind, *, subvolume: str = "", read_only: bool = False) -> None:
        """Raises EnvironmentFault with the kernel's reason."""
        options = (LOOK_OPTIONS if read_only else OPTIONS).get(kind, "")
        _mount(node, MOUNT_POINT, kind, subvolume=subvolume, options=options, flags=MS_RDONLY if read_only else 0)
        self.root = RootFs(MOUNT_POINT)

    def recover(self, node: str, kind: FilesystemKind) -> None:
        """Have the kernel do what a crash left to do, which the tools of f2fs cannot: what was synced after the last
        checkpoint is lost once resize.f2fs has written a new one (Documentation/filesystems/f2fs.rst).

        A file system that cannot be mounted stays as it is: its checker comes next, and the real mount says why.
        """
        try:
            _mount(node, MOUNT_POINT, kind, subvolume="", options="", flags=0)
        except EnvironmentFault as e:
            logger.warning("%s; it is checked first", e)
        else:
            umount(MOUNT_POINT)

    def take_root(self, *, ended: Callable[[], None]) -> None:
        """A program has mounted the root; after it is unmounted `ended` waits until that program has."""
        self.root = RootFs(MOUNT_POINT)
        self._ended = ended

    def mount_below(self, node: str, kind: FilesystemKind, point: RootPath, *, subvolume: str = "") -> None:
        """Mount over a folder of the root. Raises ImageError when there is no such folder inside of it."""
        assert self.root is not None
        folder = self.root.open_folder(point)
        try:
            place = f"/proc/self/fd/{folder}"
            real = _real(folder, point)
            options = OPTIONS.get(kind, "")
            _mount(node, place, kind, subvolume=subvolume, options=options, flags=0, shown=f" for {point}")
        finally:
            os.close(folder)
        self.root.cross_into(real)

    def umount(self) -> bool:
        """Unmount all, where it is by now: a custom task can have renamed a folder above a mount point.

        A second call does nothing and returns False. Raises EnvironmentFault.
        """
        if self.root is None:
            return False
        self.root.close()
        self.root = None
        for point in reversed(mount_points(MOUNT_POINT)):
            try:
                umount(point)
            except OSError as e:
                raise EnvironmentFault(f"the image cannot be unmounted: {e.strerror}") from e
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()
        return True


def _real(folder: int, point: RootPath) -> str:
    try:
        return str(Path(f"/proc/self/fd/{folder}").readlink())
    except OSError as e:  # an image's folders can be deeper than a path can say
        raise ImageError(f"{point} of the image cannot be mounted over: {e.strerror}") from e


def _mount(
    node: str, place: str, kind: FilesystemKind, *, subvolume: str, options: str, flags: int, shown: str = ""
) -> None:
    options = ",".join(word for word in (options, f"subvol=/{subvolume}" if subvolume else "") if word)
    try:
        load(kind.value)
        mount(node, place, kind.value, flags=FLAGS | flags, options=options)
    except OSError as e:
        raise EnvironmentFault(f"the image's {kind.value} file system{shown} cannot be mounted: {e.strerror}") from e
