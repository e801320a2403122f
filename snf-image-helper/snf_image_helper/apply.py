"""Carry out actions. Nothing is decided here.

Commit points: a partition table counts once its sector 0 or primary header is written (`layout` orders the writes so);
a file counts once its new content is renamed to its name. When an action fails the disk stays as it is then: the host
makes it unbootable and says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from snf_image_helper import actions
from snf_image_helper.actions import Action
from snf_image_helper.disks import Disks, read_node, write_node
from snf_image_helper.image import FilesystemKind, RootPath
from snf_image_helper.partitions import SECTOR, TableError, parse_table
from snf_image_helper.rootfs import RootFs
from snf_image_helper.syscalls import MS_NOATIME, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, mount, umount
from synnefo_light.errors import EnvironmentFault
from synnefo_light.run import Runner

DISK = "snf-disk0"
MOUNT_POINT = "/mnt"
WORK = Path("/run")
CHECK_TIMEOUT_S = GROW_TIMEOUT_S = 3600.0  # the host's own limit is the one that counts
FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME
OPTIONS = {FilesystemKind.XFS: "nouuid"}


class Warner(Protocol):
    def __call__(self, text: str) -> None: ...


class Machine:
    """The VM as actions see it: its disks, the mounted image if it is mounted, programs, and a voice.

    `changed` tells whether a byte of the instance's disks may have changed.
    """

    def __init__(self, disks: Disks, runner: Runner, warn: Warner, progress: Callable[[int, int], None]) -> None:
        self.disks = disks
        self.runner = runner
        self.warn = warn
        self.progress = progress
        self.root: RootFs | None = None
        self.changed = False

    def apply(self, action: Action) -> None:
        """Raises synnefo_light.errors.Error with a sentence, or OSError."""
        if not isinstance(action, actions.Warn | actions.UmountRoot | actions.CheckSource):
            self.changed = True
        if isinstance(action, actions.SourceAction):
            from snf_image_helper import conversion  # only now: loading decompressors takes time

            conversion.apply(action, self.disks, self.runner, warn=self.warn, progress=self.progress)
        elif isinstance(action, actions.FileAction):
            self._apply_to_files(action)
        else:
            self._apply_to_disks(action)

    def _apply_to_disks(self, action: actions.DiskAction) -> None:
        match action:
            case actions.WriteTable():
                self._write_table(action)
            case actions.CheckFilesystem(partition=partition):
                # 1: mended. 2: mended, and the machine should reboot, which is for a mounted root.
                self._tool("/usr/sbin/e2fsck", "-fp", self.disks.partition_node(DISK, partition), ok=(0, 1, 2))
            case actions.GrowFilesystem(partition=partition):
                self._tool("/usr/sbin/resize2fs", self.disks.partition_node(DISK, partition))
            case actions.MakeSwap(disk=disk, partition=partition, uuid=uuid):
                node = self.disks.partition_node(f"snf-disk{disk}", partition)
                self._tool("/usr/sbin/mkswap", "-U", uuid, node)
            case actions.MountRoot(partition=partition, kind=kind):
                self.mount(self.disks.partition_node(DISK, partition), kind)
            case actions.UmountRoot():
                self.umount()
            case actions.Warn(text=text):
                self.warn(text)

    def _apply_to_files(self, action: actions.FileAction) -> None:
        match action:
            case actions.WriteFile(path=path, content=content, mode=mode, owner=owner):
                self._files().write(path, content, mode=mode, owner=owner)
            case actions.RemoveFile(path=path):
                self._files().remove(path)
            case actions.Symlink(path=path, target=target):
                self._files().symlink(path, target)
            case actions.MakeFolder(path=path, mode=mode, owner=owner):
                self._files().make_folder(path, mode=mode, owner=owner)
            case actions.GenerateHostKey():
                self._generate_host_key(action)

    def mount(self, node: str, kind: FilesystemKind, *, read_only: bool = False) -> None:
        """Mount a file system of the image. Raises EnvironmentFault with the kernel's reason."""
        options = OPTIONS.get(kind, "")
        if read_only and kind in (FilesystemKind.EXT3, FilesystemKind.EXT4):
            options = "noload"  # a look must not replay the journal
        try:
            mount(node, MOUNT_POINT, kind.value, flags=FLAGS | (MS_RDONLY if read_only else 0), options=options)
        except OSError as e:
            raise EnvironmentFault(f"the image's {kind.value} file system cannot be mounted: {e.strerror}") from e
        self.root = RootFs(MOUNT_POINT)

    def umount(self) -> None:
        """Unmount and flush. A second call does nothing."""
        if self.root is not None:
            self.root.close()
            self.root = None
            umount(MOUNT_POINT)
            if self.changed:
                self.disks.flush(DISK)

    def _files(self) -> RootFs:
        if self.root is None:
            raise RuntimeError("an action on files came while the image was not mounted")
        return self.root

    def _tool(self, *argv: str, ok: tuple[int, ...] = (0,)) -> None:
        self.runner(argv, ok=ok, timeout_s=CHECK_TIMEOUT_S)

    def _write_table(self, action: actions.WriteTable) -> None:
        node = self.disks.node(DISK)
        for write in action.writes:
            write_node(node, write.sector * SECTOR, write.data)
        size = self.disks.size(DISK)
        table = parse_table(lambda offset, length: read_node(node, offset, length), disk_sectors=size // SECTOR)
        if table is None:
            raise TableError("the partition table that was written cannot be read back")
        self.disks.reread(DISK, expected={p.number: p.sectors for p in table.partitions})

    def _generate_host_key(self, action: actions.GenerateHostKey) -> None:
        made = WORK / action.path.name
        try:
            self._tool("/usr/bin/ssh-keygen", "-q", "-N", "", "-C", action.comment, "-t", action.kind, "-f", str(made))
            public = made.with_name(f"{made.name}.pub")
            self._files().write(action.path, made.read_bytes(), mode=0o600, owner=(0, 0))
            self._files().write(RootPath(f"{action.path}.pub"), public.read_bytes(), mode=0o644, owner=(0, 0))
        finally:
            for name in (action.path.name, f"{action.path.name}.pub"):
                if os.path.exists(WORK / name):  # noqa: PTH110
                    os.unlink(WORK / name)
