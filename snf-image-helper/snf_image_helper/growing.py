"""Check file systems and make them larger, by their own tools. Nothing is decided here.

Sources: e2fsck(8), resize2fs(8), fsck.f2fs(8), resize.f2fs(8), xfs_growfs(8), btrfs-filesystem(8).
"""

from __future__ import annotations

from snf_image_helper.image import FilesystemKind, ImageError
from synnefo_light.run import Runner

TIMEOUT_S = 3600.0  # the host's own limit is the one that counts


def check(runner: Runner, node: str, kind: FilesystemKind) -> None:
    """Mend what is safe to mend. Raises ImageError when the file system needs a person."""
    if kind is FilesystemKind.F2FS:
        # -a looks at what the kernel has marked as wrong and mends it (1), and only --dry-run looks at everything.
        whole = all(
            runner(("/usr/sbin/fsck.f2fs", word, node), ok=(0, 1, 4, 255), timeout_s=TIMEOUT_S).returncode in good
            for word, good in (("-a", (0, 1)), ("--dry-run", (0,)))
        )
    else:
        # 1: mended. 2: mended, and the machine should reboot, which is for a mounted root. 4: it wants a person.
        whole = runner(("/usr/sbin/e2fsck", "-fp", node), ok=(0, 1, 2, 4), timeout_s=TIMEOUT_S).returncode != 4
    if not whole:
        tool = "fsck.f2fs" if kind is FilesystemKind.F2FS else "e2fsck"
        raise ImageError(
            f"the image's {kind.value} file system has damage that {tool} does not mend by itself; "
            "give an image of a file system that was unmounted and is whole"
        )


def grow(runner: Runner, node: str, kind: FilesystemKind) -> None:
    """To the size of its device. A file system that has it already stays as it is."""
    tool = "/usr/sbin/resize.f2fs" if kind is FilesystemKind.F2FS else "/usr/sbin/resize2fs"
    runner((tool, node), timeout_s=TIMEOUT_S)


def grow_mounted(runner: Runner, folder: str, kind: FilesystemKind) -> None:
    """As `grow`, for those that grow while they are mounted."""
    if kind is FilesystemKind.BTRFS:
        runner(("/usr/bin/btrfs", "filesystem", "resize", "max", folder), timeout_s=TIMEOUT_S)
    else:
        runner(("/usr/sbin/xfs_growfs", folder), timeout_s=TIMEOUT_S)
