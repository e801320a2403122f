"""KVM, or QEMU's own emulation (TCG): found out by really booting the helper VM, since a /dev/kvm proves nothing.

The answer holds until the node boots again or the helper's image changes, or until it is asked for again; it is kept in
.accel.json of the run folder: no instance's name begins with a dot.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snf_image_host.channel import ConsoleLog, Conversation
from snf_image_host.launcher import launch
from snf_image_host.settings import Settings
from snf_image_host.vm import Accel, HelperImage, plan_vm
from synnefo_light.errors import EnvironmentFault, Error
from synnefo_light.files import locked, read_bounded, write_atomic
from synnefo_light.log import escape, logger
from synnefo_light.records import RecordError, dump_json, parse_json
from synnefo_light.units import MIB

PROBE_S: Final = 8
KVM: Final = Path("/dev/kvm")
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    accel: Accel
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """The cache: what was found for this boot and this helper."""

    boot: str
    helper: str
    accel: Accel
    reason: str


def choose(image: HelperImage, settings: Settings, *, kvm: Path = KVM, again: bool = False) -> Choice:
    """Which accelerator to use. The first call of a boot takes up to 8 s on a machine whose /dev/kvm does not work.

    `again` forgets the answer that is kept: a busy node may have taken too long to boot the helper.
    """
    if settings.accel != "auto":
        return Choice(accel=settings.accel, reason="the configuration says so (accel)")
    if not kvm.exists():
        return Choice(accel="tcg", reason=f"there is no {kvm}")
    try:
        return _remembered(image, settings, again=again)
    except OSError as e:
        raise EnvironmentFault(f"{settings.run_dir} cannot be written ({e.strerror}); run this as root") from e


def foresee(image: HelperImage, settings: Settings, *, kvm: Path = KVM) -> Choice | None:
    """What `choose` would say, as far as that is known without booting anything; None: it will be found out."""
    if settings.accel != "auto" or not kvm.exists():
        return choose(image, settings, kvm=kvm)
    known = _read(settings.run_dir / ".accel.json")
    if known is None or (known.boot, known.helper) != (BOOT_ID.read_text().strip(), image.version):
        return None
    return Choice(accel=known.accel, reason=known.reason)


def _remembered(image: HelperImage, settings: Settings, *, again: bool) -> Choice:
    path = settings.run_dir / ".accel.json"
    settings.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    with locked(settings.run_dir / ".accel.lock", wait_s=2 * PROBE_S):
        boot = BOOT_ID.read_text().strip()
        known = None if again else _read(path)
        if known is not None and (known.boot, known.helper) == (boot, image.version):
            return Choice(accel=known.accel, reason=known.reason)
        choice = probe(image, settings)
        logger.info("accel=%s probed: %s", choice.accel, choice.reason)
        record = _Known(boot=boot, helper=image.version, accel=choice.accel, reason=choice.reason)
        write_atomic(path, dump_json(record) + b"\n")
        return choice


def probe(image: HelperImage, settings: Settings) -> Choice:
    """Boot the helper's selftest under KVM."""
    vm = plan_vm(image, settings, accel="kvm", mode="selftest", limit_s=PROBE_S, largest_disk=MIB)
    conversation = Conversation(version=image.version, nonce=None)
    try:
        ran = launch(vm, disks=(), manifest=None, conversation=conversation, console=ConsoleLog())
    except Error as e:
        return Choice(accel="tcg", reason=f"KVM was tried: {escape(str(e), limit=300)}")
    return Choice(accel="kvm", reason=f"the helper VM started with KVM in {ran.boot_ms} ms")


def _read(path: Path) -> _Known | None:
    try:
        return parse_json(read_bounded(path, limit=4096), _Known, limit=4096)
    except (OSError, Error, RecordError):
        return None
