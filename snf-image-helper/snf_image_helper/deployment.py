"""One deployment: the manifest's tasks, in order, each planned just before it is applied."""

from __future__ import annotations

import time
import traceback

from snf_image_helper.actions import describe
from snf_image_helper.apply import Machine
from snf_image_helper.channel import Channel
from snf_image_helper.disks import Disks, read_node
from snf_image_helper.hashing import hash_passwords
from snf_image_helper.image import Skipped
from snf_image_helper.inspection import Found, find_root, snapshot, unread
from snf_image_helper.tasks import TASKS
from synnefo_light import __version__
from synnefo_light.errors import Error, ProtocolError
from synnefo_light.log import logger, set_up
from synnefo_light.manifest import (
    FRAMED_LIMIT,
    Failed,
    Finished,
    Manifest,
    Measured,
    TaskDone,
    TaskSkipped,
    TaskStarted,
    decode,
)
from synnefo_light.run import run
from synnefo_light.tasks import OsFamily, Phase, TaskInfo, order

MANIFEST = "snf-manifest"
CUSTOMISED = (OsFamily.LINUX, OsFamily.FREEBSD, OsFamily.WINDOWS)
DAY_S = 86400


def deploy(channel: Channel) -> None:
    """Do what the manifest says and tell the host how it ended, by `finished` or by `failed`. Never raises."""
    set_up()
    run_of = _Run(channel)
    try:
        run_of.all_tasks()
    except Exception as e:
        logger.error("%s", traceback.format_exc())
        reason = str(e) if isinstance(e, Error) else f"the helper broke: {type(e).__name__}: {e}"
        run_of.give_up()
        channel.send(Failed(task=run_of.task, reason=reason, changed=run_of.changed))


class _Run:
    """The state of one deployment: which task is at work, and the machine it works on."""

    def __init__(self, channel: Channel) -> None:
        self.task: str | None = None
        self._channel = channel
        self._machine: Machine | None = None

    @property
    def changed(self) -> bool:
        return self._machine is not None and self._machine.changed

    def all_tasks(self) -> None:
        machine = self._machine = Machine(Disks(), run, self._warn, self._progress)
        manifest = read_manifest(machine)
        today = int(time.time()) // DAY_S
        root: Found | None = None
        for info in order(task.INFO for task in TASKS.values()):
            # An image of which nothing is to be changed is not looked at either.
            if root is None and info.phase is not Phase.SOURCE and info.name not in manifest.skip:
                root = find_root(machine, manifest)
                if root.family is not OsFamily.WINDOWS and "password" not in manifest.skip:
                    manifest = hash_passwords(manifest)
            self._one(machine, info, manifest, root, today)
        machine.umount()
        self._channel.send(Finished(nonce=manifest.nonce))

    def _one(self, machine: Machine, info: TaskInfo, manifest: Manifest, root: Found | None, today: int) -> None:
        self.task = info.name
        try:
            must_apply(info, manifest, family=root.family if root else None, mounted=machine.root is not None)
            image = snapshot(machine, root=root, today=today) if root else unread(machine, today=today)
            plan = TASKS[info.name].plan(image, manifest)
        except Skipped as e:
            logger.info("task=%s skipped: %s", info.name, e)
            self._channel.send(TaskSkipped(task=info.name, reason=str(e)))
        else:
            self._channel.send(TaskStarted(task=info.name))
            for action in plan:
                logger.info("task=%s %s", info.name, describe(action))
                machine.apply(action)
            if info.phase is Phase.SOURCE and machine.image_size is not None:
                self._channel.send(Measured(task=info.name, size=machine.image_size))
            self._channel.send(TaskDone(task=info.name))
        self.task = None

    def give_up(self) -> None:
        """Unmount what the failure left mounted. What fails here is only worth a line in the log."""
        try:
            if self._machine is not None:
                self._machine.umount()
        except Exception:
            logger.error("while giving up: %s", traceback.format_exc())

    def _progress(self, done: int, total: int) -> None:
        assert self.task is not None
        self._channel.progress(self.task, done, total)

    def _warn(self, text: str) -> None:
        logger.warning("%s", text)
        self._channel.warn(self.task, text)


def must_apply(info: TaskInfo, manifest: Manifest, *, family: OsFamily | None, mounted: bool) -> None:
    """Raises Skipped, with the reason, when a task is not for this image, whatever it would plan."""
    if info.phase is Phase.SOURCE and manifest.source is None:
        raise Skipped("the host has copied the image")
    if info.name in manifest.skip:
        raise Skipped("it is excluded by the image's properties")
    if family is not None and family not in info.os_families:
        raise Skipped(f"it is not for the family {family.value}")
    if manifest.cloud_init is not None and "cloud-init" in info.groups:
        raise Skipped("cloud-init does it in the instance")
    if info.phase is Phase.MOUNTED and not mounted:
        raise Skipped("the image is not mounted")


def read_manifest(machine: Machine) -> Manifest:
    """The manifest of its disk. Raises ProtocolError when it is not for this helper, or asks for what it cannot do."""
    manifest = decode(read_node(machine.disks.node(MANIFEST), 0, FRAMED_LIMIT))
    if manifest.helper_version != __version__:
        raise ProtocolError(
            f"the host speaks to helper {manifest.helper_version}, this is helper {__version__}; "
            "install the same version of snf-image-host and snf-image-helper"
        )
    if unknown := sorted(manifest.skip - TASKS.keys()):
        raise ProtocolError(f"the task {unknown[0]} is to be left out, but the tasks are {', '.join(TASKS)}")
    if manifest.os_family not in (None, *CUSTOMISED):
        raise ProtocolError(
            f"images of the family {manifest.os_family.value} cannot be customised; "
            "deploy such an image with EXCLUDE_ALL_TASKS=yes"
        )
    return manifest
