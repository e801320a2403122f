"""Carry out actions. Nothing is decided here.

Commit points: a partition table counts once its sector 0 or primary header is written (`layout` orders the writes so);
a file counts once its new content is renamed to its name. When an action fails the disk stays as it is then: the host
makes it unbootable and says so.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from snf_image_helper import actions, growing
from snf_image_helper.actions import Action
from snf_image_helper.custom_task import run_script
from snf_image_helper.disks import Disks, read_node, write_node
from snf_image_helper.image import FilesystemKind, Place, RootPath
from snf_image_helper.mounting import MOUNT_POINT, MountStack
from snf_image_helper.partitions import SECTOR, TableError, parse_table
from snf_image_helper.rootfs import RootFs
from synnefo_light.errors import Error
from synnefo_light.run import Runner

if TYPE_CHECKING:
    from snf_image_helper.lvm import VolumeManager
    from snf_image_helper.windows import Facts

DISK = "snf-disk0"
WORK = Path("/run")
TOOL_TIMEOUT_S = 3600.0  # the host's own limit is the one that counts


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
        self.mounts = MountStack()
        self._volumes: VolumeManager | None = None
        self.changed = False
        self.image_size: int | None = None  # of what was converted onto disk 0
        self._windows: Facts | None = None

    @property
    def volumes(self) -> VolumeManager:
        """The image's LVM. Its module is only imported where there is any: every import takes time in the VM."""
        if self._volumes is None:
            from snf_image_helper.lvm import VolumeManager

            self._volumes = VolumeManager(self.disks, DISK, self.runner)
        return self._volumes

    @property
    def root(self) -> RootFs | None:
        """The mounted image's files; None while it is not mounted."""
        return self.mounts.root

    def apply(self, action: Action) -> None:
        """Raises synnefo_light.errors.Error with a sentence, or OSError."""
        if not isinstance(action, actions.Warn | actions.UmountRoot | actions.CheckSource):
            self.changed = True
        if isinstance(action, actions.SourceAction):
            from snf_image_helper import conversion  # only now: loading decompressors takes time

            size = conversion.apply(action, self.disks, self.runner, warn=self.warn, progress=self.progress)
            self.image_size = size if size is not None else self.image_size
        elif isinstance(action, actions.FileAction):
            self._apply_to_files(action)
        else:
            self._apply_to_disks(action)

    def _apply_to_disks(self, action: actions.DiskAction) -> None:
        match action:
            case actions.CheckFilesystem(place=place, kind=kind):
                if kind is FilesystemKind.F2FS:
                    self.mounts.recover(self.node(place), kind)
                growing.check(self.runner, self.node(place), kind)
            case actions.GrowFilesystem(place=place, kind=kind):
                growing.grow(self.runner, self.node(place), kind)
            case actions.GrowMounted(kind=kind):
                growing.grow_mounted(self.runner, MOUNT_POINT, kind)
            case actions.MountRoot(place=place, kind=kind, subvolume=subvolume):
                self.mount(place, kind, subvolume=subvolume)
            case actions.MountBelow():
                self._mount_below(action)
            case actions.UmountRoot():
                self.umount()
            case actions.Warn(text=text):
                self.warn(text)
            case _:
                self._apply_to_table(action)

    def _apply_to_table(self, action: actions.TableAction) -> None:
        match action:
            case actions.WriteTable():
                self._write_table(action)
            case actions.GrowVolume(volume=volume, partitions=partitions):
                self.volumes.grow(volume, partitions=partitions)
                self.volumes.node(volume)
            case actions.GrowNtfs(place=place, check=check):
                from snf_image_helper import ntfs

                ntfs.grow(self.runner, self.node(place), check=check)
            case actions.MakeSwap(disk=disk, partition=partition, uuid=uuid, label=label):
                node = self.disks.partition_node(f"snf-disk{disk}", partition)
                self._tool("/usr/sbin/mkswap", "-U", uuid, *(("-L", label) if label else ()), node)
            case actions.MakeSeed(partition=partition, files=files):
                from snf_image_helper.seed import make_seed

                make_seed(self.runner, self.disks.partition_node(DISK, partition), files)

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
            case actions.SetRegistryValue(hive=hive, key=key, name=name, value=value):
                from snf_image_helper import hives

                # What was read of the registry stays: to read it again takes seconds, and no task asks for this value.
                hives.set_dword(self._files(), hive, key, name, value)
            case actions.GenerateHostKey():
                self._generate_host_key(action)
            case actions.MakeSwapFile():
                self._make_swap_file(action)
            case actions.RunScript(script=script, environment=environment):
                run_script(self.runner, script, dict(environment), MOUNT_POINT)

    def node(self, place: Place) -> str:
        """The device node of a place on disk 0; a logical volume is active when this returns."""
        if place.volume is not None:
            return self.volumes.node(place.volume)
        return self.disks.partition_node(DISK, place.partition)

    def mount(self, place: Place, kind: FilesystemKind, *, subvolume: str = "", read_only: bool = False) -> None:
        """Mount a file system as the image's root. Raises EnvironmentFault with the kernel's reason."""
        if kind is FilesystemKind.NTFS:
            from snf_image_helper import ntfs

            ntfs.mount(self.runner, self.node(place), MOUNT_POINT, read_only=read_only, warn=self.warn)
            self.mounts.take_root(ended=ntfs.wait_for_end)
            return
        self.mounts.mount_root(self.node(place), kind, subvolume=subvolume, read_only=read_only)

    def _mount_below(self, action: actions.MountBelow) -> None:
        try:
            self.mounts.mount_below(self.node(action.place), action.kind, action.point, subvolume=action.subvolume)
        except Error as e:
            if action.needed:
                raise
            self.warn(f"what the image's fstab mounts at {action.point} is left out: {e}")

    def umount_files(self) -> None:
        """Unmount and flush. A second call does nothing."""
        self._windows = None
        if self.mounts.umount() and self.changed:
            self.disks.flush(DISK)

    def umount(self) -> None:
        """Unmount, flush, and close what LVM has open, even if the first fails. A second call does nothing."""
        try:
            self.umount_files()
        finally:
            if self._volumes is not None:
                self._volumes.deactivate()

    def windows(self) -> Facts:
        """What the registry of the mounted Windows says; read once while it is mounted."""
        if self._windows is None:
            from snf_image_helper import hives

            self._windows = hives.read_facts(self._files())
        return self._windows

    def _files(self) -> RootFs:
        if self.root is None:
            raise RuntimeError("an action on files came while the image was not mounted")
        return self.root

    def _tool(self, *argv: str, ok: tuple[int, ...] = (0,)) -> None:
        self.runner(argv, ok=ok, timeout_s=TOOL_TIMEOUT_S)

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

    def _make_swap_file(self, action: actions.MakeSwapFile) -> None:
        """mkswap writes one page: into a file of that size which is all hole. The page goes to the image."""
        made = WORK / "swap"
        try:
            with made.open("wb") as file:
                file.truncate(action.size)
            self._tool("/usr/sbin/mkswap", "-U", action.uuid, str(made))
            with made.open("rb") as file:
                head = file.read(mmap.PAGESIZE)
        finally:
            made.unlink(missing_ok=True)
        self._files().allocate(action.path, action.size, head=head, in_place=action.in_place)
