"""Deploy an image onto an instance's disks, or give an instance its new name inside.

    lock ─ plan ─ open the disks ─ look at the helper and choose KVM or TCG ─ open the image ─ check its size
        ─ check it if an old system is there and it is a file ─ copy ─ helper VM ─ fsync ─ done

Commit point: the return of `create`. A failure before it, SIGTERM included, sees the VM dead and may wipe the first and
last MiB of disk 0, so that what is there cannot boot:

    new instance    from the opening of disk 0 on: the new volume may hold an earlier tenant's system
    reinstall       from the copy on; before it the disk is untouched and the old system still boots
    img_id=null     never: nothing on the disk is a copy of ours
    a clone         as a new instance or a reinstall; nothing is copied, and "the copy" is its new beginning. Refused
                    that (no space, the disk is in use), a reinstall leaves the old system

After `kill -9` the VM is dead too (launcher.py) and nothing is left but that half-made disk, which Ganeti does not
start; the next deployment begins from scratch.
"""

from __future__ import annotations

import contextlib
import enum
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from snf_image_host import accel, intake, provenance
from snf_image_host.channel import ConsoleLog, Conversation, HelperFailed
from snf_image_host.copy import Copied
from snf_image_host.interrupts import Interrupted, undisturbed
from snf_image_host.journal import Cloned, CopyDone, Finished, HelperStarted, Started, only_deployment
from snf_image_host.launcher import Ran, launch
from snf_image_host.params import Parameters
from snf_image_host.plan import PlannedDisk, check_size, needs_helper, plan_disks, plan_manifest, plan_rename
from snf_image_host.reporter import Reporter
from snf_image_host.settings import Settings
from snf_image_host.sources import NoImage, OpenImage
from snf_image_host.sources.store import Way, compare, plan_way, reset
from snf_image_host.target import DiskTarget, Target, open_target
from snf_image_host.userspace import EXPORT, RbdAddress, UserspaceTarget, open_address
from snf_image_host.vm import SOURCE_SERIAL, Accel, HelperImage, VmDisk, limit_of, plan_vm
from synnefo_light.errors import EnvironmentFault, Error, UserError
from synnefo_light.ganeti import OsEnv, is_uuid
from synnefo_light.log import logger
from synnefo_light.manifest import Manifest, Source, encode


class DiskState(enum.Enum):
    """What a failed deployment leaves, in words for the sentence."""

    UNTOUCHED = "its disk was not touched"
    WIPED = "both ends of its disk were wiped, so it cannot boot"
    COMPLETE = "its disk was complete already"
    KEPT = "its disk may be changed in part and was not wiped"
    LEFT = "its disk holds a part of the image or an old system and could not be wiped, so do not start it"


@dataclass(slots=True)
class Deployment:
    """How far a deployment got; what the sentence about its failure needs."""

    disk: DiskState = DiskState.UNTOUCHED


def create(
    env: OsEnv,
    parameters: Parameters,
    settings: Settings,
    helper: HelperImage,
    reporter: Reporter,
    console: ConsoleLog,
    state: Deployment,
) -> Finished:
    """Deploy; the caller holds the instance's lock. Raises Error; then `state` says what became of the disk."""
    begun = time.monotonic()
    planned = plan_disks(env.disks, swap_disk=parameters.properties.swap.disk if parameters.properties.swap else None)
    copies = not isinstance(parameters.source, NoImage)
    way = _way(env, parameters, settings)
    cloned = way is not None and way.volume is not None
    with contextlib.ExitStack() as opened:
        targets = _open_disks(planned[:1], opened)
        undo = opened.enter_context(contextlib.ExitStack())
        if copies and not env.reinstall:
            undo.callback(_wipe, targets[0], state)
        targets += _open_disks(planned[1:], opened)
        image = helper if needs_helper(parameters, helper.tasks) else None
        choice = accel.choose(image, settings) if image else None
        limit = min(targets[0].size, planned[0].size or targets[0].size)
        source, signature = (None, None) if cloned else _open_source(env, parameters, settings, opened, limit)
        manifest = plan_manifest(
            env,
            parameters,
            settings,
            sizes=[target.size for target in targets],
            image=helper,
            nonce=secrets.token_hex(16),
            source=_to_convert(parameters, source),
            answer_file=intake.answer_file(parameters, settings),
        )
        framed = encode(manifest) if manifest else None
        reporter.started(_started(env, parameters, source, limit))
        if way is not None:
            _tell(way, reporter, reinstall=env.reinstall)
        brought = time.monotonic()
        staged = _stage(source, parameters, settings, signature, reporter, opened)

        def writing() -> None:
            provenance.forget(way, env, parameters, settings)
            if env.reinstall:
                undo.callback(_wipe, targets[0], state)

        if source is not None and env.reinstall and not parameters.converts:
            reporter.step = "copy"
            intake.check_first(source, parameters, settings, signature=signature)
        if way is not None and cloned:
            _begin_anew(way, parameters, settings, writing, undo)
        copied = _bring(source, targets[0], parameters, settings, signature, reporter, writing)
        copy_ms = _ms(brought) if source is not None else 0
        if source is not None:
            reporter.copied(CopyDone(written=copied.written, copy_ms=copy_ms))
        ran: Ran | None = None
        if image and choice and manifest and framed:
            reporter.helper(HelperStarted(accel=choice.accel, reason=choice.reason))
            if not copies:
                state.disk = DiskState.KEPT
            disks = _vm_disks(planned, targets, staged, opened)
            largest = max(target.size for target in targets)
            ran = _customise(image, choice.accel, manifest, framed, disks, largest, settings, reporter, console)
        reporter.step = "sync"
        for target, disk in zip(targets, planned, strict=True):
            if not disk.readonly:
                target.sync()
        undo.pop_all()
        state.disk = DiskState.COMPLETE
    provenance.remember(way, env, parameters, settings, reporter)
    return Finished(
        copied=copied.written,
        copy_ms=copy_ms,
        accel=choice.accel if choice else "none",
        helper_ms=ran.duration_ms if ran else 0,
        helper_boot_ms=ran.boot_ms if ran else 0,
        helper_cpu_ms=ran.cpu_ms if ran else 0,
        helper_peak_rss=ran.peak_rss if ran else 0,
        host_peak_rss=peak_rss(),
        total_ms=_ms(begun),
    )


def rename(env: OsEnv, parameters: Parameters, settings: Settings, image: HelperImage, console: ConsoleLog) -> bool:
    """Write the new host name into the image; False when it is not to be done. Never wipes anything. Raises Error."""
    nonce = secrets.token_hex(16)
    with contextlib.ExitStack() as opened:
        opened.enter_context(only_deployment(settings.run_dir, env.instance))
        first = env.disks[:1]
        sizes = [1]  # not known before the disk is open, which it need not be when there is nothing to do
        if plan_rename(env, parameters, settings, sizes=sizes, image=image, nonce=nonce) is None:
            return False
        planned = plan_disks(first, swap_disk=None)
        targets = _open_disks(planned, opened)
        sizes = [target.size for target in targets]
        manifest = plan_rename(env, parameters, settings, sizes=sizes, image=image, nonce=nonce)
        assert manifest is not None
        choice = accel.choose(image, settings)
        reporter = Reporter(env.instance, listeners={})
        reporter.helper(HelperStarted(accel=choice.accel, reason=choice.reason))
        disks = _vm_disks(planned, targets, None, opened)
        _customise(image, choice.accel, manifest, encode(manifest), disks, sizes[0], settings, reporter, console)
        targets[0].sync()
        return True


def explain(instance: str, error: BaseException, state: Deployment, *, remedy: str | None = None) -> str:
    """The one sentence about a failed deployment: what failed, what became of the disk, what to do."""
    what = (
        str(error)
        if isinstance(error, Error | Interrupted)
        else f"a fault of snf-image itself ({type(error).__name__}: {error})"
    )
    by_ganeti = (
        f"mend that and run `gnt-instance reinstall {instance}`, or give up with `gnt-instance remove {instance}`"
    )
    return f"{instance} was not deployed: {what}; {state.disk.value}; {remedy or by_ganeti}"


def explain_rename(env: OsEnv, error: BaseException) -> str:
    changed = not isinstance(error, HelperFailed) or error.changed
    disk = "some of the change may be on its disk" if changed else "its disk was not changed"
    return (
        f"{env.old_name or env.instance} is renamed to {env.instance} in Ganeti, but the image keeps its host name: "
        f'{error}; {disk}; change it inside, or set rename="noop" in the configuration to not try'
    )


def peak_rss() -> int:
    """Bytes of memory that this process had at most (VmHWM of proc(5)); getrusage would count our parent's too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


def _open_disks(planned: Sequence[PlannedDisk], opened: contextlib.ExitStack) -> list[Target | UserspaceTarget]:
    return [opened.enter_context(_open_disk(disk)) for disk in planned]


def _open_disk(disk: PlannedDisk) -> contextlib.AbstractContextManager[Target | UserspaceTarget]:
    if isinstance(disk.path, RbdAddress):
        return open_address(disk.path, size=disk.size, readonly=disk.readonly)
    return open_target(disk.path, size=disk.size, readonly=disk.readonly)


def _way(env: OsEnv, parameters: Parameters, settings: Settings) -> Way | None:
    """For an image of the store, whether disk 0 is a clone of it by now. Raises Error."""
    if parameters.stored is None:
        return None
    uuid = env.disks[0].uuid if env.disks else ""
    found = compare(parameters.stored, uuid, settings) if is_uuid(uuid) else None
    return plan_way(parameters.stored, found, reinstall=env.reinstall)


def _begin_anew(
    way: Way, parameters: Parameters, settings: Settings, writing: Callable[[], None], undo: contextlib.ExitStack
) -> None:
    """The clone that disk 0 is to be, if it was written to. Raises Error; then it may be a mixture.

    What was refused touched nothing, so the old system stays. That is no reason to copy: who has no room for a clone
    has less for a copy, and whoever else has the disk is not to be written under.
    """
    writing()
    if way.reset and way.volume is not None and parameters.stored is not None:
        try:
            reset(parameters.stored, way.volume, settings)
        except (UserError, EnvironmentFault):
            undo.pop_all()
            raise


def _tell(way: Way, reporter: Reporter, *, reinstall: bool) -> None:
    """A copy that a person could have spared is a warning; that a reinstall copies is as it must be."""
    if way.volume is not None:
        reporter.cloned(Cloned(volume=way.volume), way.why)
    elif reinstall:
        logger.info("instance=%s %s", reporter.instance, way.why)
    else:
        reporter.warned(None, way.why)


def _open_source(
    env: OsEnv, parameters: Parameters, settings: Settings, opened: contextlib.ExitStack, limit: int
) -> tuple[OpenImage | None, bytes | None]:
    """The image ready to be read, and its signature; None for `null`. Raises UserError when it cannot fit."""
    if isinstance(parameters.source, NoImage):
        return None, None
    signature = intake.signature_of(parameters, settings)
    source = intake.open_image(parameters, settings, opened)
    if parameters.converts:
        intake.check_staging(source, settings, image=parameters.image)
    lead = intake.lead_of(parameters.image_format)
    # How large a converted image is, only the VM may find out.
    size = min(source.size, limit) if parameters.converts else source.size
    check_size(parameters.image, size=size, lead=lead, disk=limit, instance=env.instance)
    return source, signature


def _to_convert(parameters: Parameters, source: OpenImage | None) -> Source | None:
    if source is None or not parameters.converts:
        return None
    return Source(format=parameters.source_format, compression=parameters.compression, size=source.size)


def _started(env: OsEnv, parameters: Parameters, source: OpenImage | None, limit: int) -> Started:
    size = source.size if source else parameters.stored.size if parameters.stored else 0
    return Started(
        instance=env.instance,
        image=parameters.image,
        size=size,
        disk=limit,
        pid=os.getpid(),
    )


def _stage(
    source: OpenImage | None,
    parameters: Parameters,
    settings: Settings,
    signature: bytes | None,
    reporter: Reporter,
    opened: contextlib.ExitStack,
) -> int | None:
    """A descriptor of what the VM is to convert; None when there is nothing to convert."""
    if source is None or not parameters.converts:
        return None
    reporter.step = "copy"
    return intake.stage_image(source, parameters, settings, opened, signature=signature, progress=reporter.copying)


def _bring(
    source: OpenImage | None,
    target: DiskTarget,
    parameters: Parameters,
    settings: Settings,
    signature: bytes | None,
    reporter: Reporter,
    writing: Callable[[], None],
) -> Copied:
    """Write the image onto the disk, or clear the disk for the VM that will; `writing` is called right before."""
    if source is None:
        return Copied(written=0, received=0, size=0)
    reporter.step = "copy"
    if parameters.converts:
        writing()
        target.erase()
        return Copied(written=0, received=source.size, size=source.size)
    return intake.copy_image(
        source, target, parameters, settings, signature=signature, progress=reporter.copying, writing=writing
    )


def _vm_disks(
    planned: Sequence[PlannedDisk],
    targets: Sequence[Target | UserspaceTarget],
    staged: int | None,
    opened: contextlib.ExitStack,
) -> list[VmDisk]:
    disks = []
    for disk, target in zip(planned, targets, strict=True):
        serial = f"snf-disk{disk.index}"
        if isinstance(target, UserspaceTarget):
            target.sync()
            fd = target.connect()
            opened.callback(os.close, fd)
            disks.append(VmDisk(serial=serial, fd=fd, readonly=disk.readonly, nbd=EXPORT))
        else:
            disks.append(VmDisk(serial=serial, fd=target.fd, readonly=disk.readonly, block=target.block))
    return disks + ([VmDisk(serial=SOURCE_SERIAL, fd=staged, readonly=True)] if staged is not None else [])


def _customise(
    image: HelperImage,
    how: Accel,
    manifest: Manifest,
    framed: bytes,
    disks: Sequence[VmDisk],
    largest: int,
    settings: Settings,
    reporter: Reporter,
    console: ConsoleLog,
) -> Ran:
    limit = limit_of(settings, how, converts=manifest.source is not None)
    vm = plan_vm(image, settings, accel=how, mode="run", limit_s=limit, largest_disk=largest)
    tasks = [task.name for task in image.tasks]
    conversation = Conversation(version=image.version, nonce=manifest.nonce, tasks=tasks, skip=manifest.skip)
    return launch(
        vm,
        disks=disks,
        manifest=framed,
        conversation=conversation,
        console=console,
        on_message=reporter.message,
    )


def _wipe(target: DiskTarget, state: Deployment) -> None:
    """The undo of a deployment. Goes on whatever happens, and leaves its outcome in `state`."""
    state.disk = DiskState.LEFT
    try:
        with undisturbed():
            target.wipe_ends()
            state.disk = DiskState.WIPED
    except (Error, OSError) as e:
        logger.error("disk=%s could not be wiped: %s", target.path, e)


def _ms(begun: float, now: Callable[[], float] = time.monotonic) -> int:
    return round((now() - begun) * 1000)
