"""The helper VM, decided: which image, which disks, whom it runs as, under which limits; its command line is pure."""

from __future__ import annotations

import contextlib
import grp
import pwd
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from snf_image_host.settings import Settings
from synnefo_light.errors import EnvironmentFault
from synnefo_light.files import read_bounded
from synnefo_light.log import escape, logger
from synnefo_light.records import RecordError, build, load_json
from synnefo_light.tasks import TaskInfo
from synnefo_light.units import MIB

Accel = Literal["kvm", "tcg"]

ROOT_SERIAL: Final = "snf-root"
MANIFEST_SERIAL: Final = "snf-manifest"
SOURCE_SERIAL: Final = "snf-source"
SPACE_MIB: Final = 3072  # QEMU's address space besides the guest's memory: stacks of its threads, mostly not touched
RSS_MIB: Final = 512  # memory that it may really touch besides the guest's; about 60 MiB are usual
#: Parts of the kernel that the VM never uses and that take a second of an emulated boot: the type information of BPF
#: (which the first of several of these reads), self-tests, certificates, kprobes, the block tracer, IPv6.
UNUSED_INITCALLS: Final = (
    *("bpf_rstat_kfunc_init", "bpf_key_sig_kfuncs_init", "kfunc_init", "bpf_prog_test_run_init"),
    *("bpf_tcp_ca_kfunc_init", "cubictcp_register", "crypto_kdf108_init", "load_system_certificate_list"),
    *("init_kprobe_trace", "init_blk_tracer", "inet6_init"),
)
#: The second line is about time only, but no_timer_check: on a loaded host the check sees a timer that does not tick.
KERNEL_OPTIONS: Final = (
    "console=ttyS0 quiet panic=-1 reboot=t nokaslr mitigations=off "
    "cryptomgr.notests apparmor=0 audit=0 nowatchdog tsc=reliable no_timer_check init_on_alloc=0 "
    f"initcall_blacklist={','.join(UNUSED_INITCALLS)}"
)

#: Says on stdin, a socket, that it is there; an answer starts QEMU, an end of the socket (we died) ends it.
GATE: Final = 'echo ready >&0; read -r go && exec "$@" </dev/null'

#: -cpu by accelerator. Bare "host" aborts where the host offers MSRs that KVM cannot set. What is taken from an
#: emulated processor is slower than what kernel and C library use without it: vectors and their state, strings by
#: bytes, a fifth level of page tables. Without erms fsrm goes too: QEMU 10 has it, and Linux 6.1 was seen to hang
#: early in its boot with it alone.
CPU: Final[dict[Accel, str]] = {
    "kvm": "max,-arch-capabilities",
    "tcg": "max,-xsave,-avx,-avx2,-erms,-fsrm,-la57",
}
ACCEL: Final[dict[Accel, str]] = {"kvm": "kvm", "tcg": "tcg,tb-size=64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HelperImage:
    """The installed image of the helper VM: its version, and its tasks in the order they run, as helper.json has it."""

    folder: Path
    version: str
    tasks: tuple[TaskInfo, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VmDisk:
    """An open descriptor that QEMU shows as a virtio disk with this serial: a file, a block device or a socket."""

    serial: str
    fd: int
    readonly: bool
    block: bool = False
    nbd: str = ""  # the descriptor is a connected socket, behind which an NBD server has the disk under this name


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """One run of QEMU, decided."""

    image: HelperImage
    accel: Accel
    mode: Literal["run", "selftest"]
    qemu: str
    memory_mib: int
    limit_s: int  # wall clock
    file_limit: int  # bytes: no file may grow over this
    uid: int
    gid: int
    groups: tuple[int, ...]


def find_image(folder: Path, *, version: str) -> HelperImage:
    """The helper's image in `folder`. Raises EnvironmentFault when it is absent, damaged or not of `version`."""
    remedy = "install the package snf-image-helper of the same version"
    try:
        data = load_json(read_bounded(folder / "helper.json", limit=MIB), limit=MIB)
        found, files, listed = map(data.get, ("version", "files", "tasks")) if isinstance(data, dict) else [None] * 3
        if not isinstance(found, str) or not isinstance(files, dict) or not isinstance(listed, list):
            raise RecordError("it has no version, no files or no tasks")
        sizes = {name: entry.get("size") if isinstance(entry, dict) else None for name, entry in files.items()}
        wrong = [name for name, size in sizes.items() if "/" in name or (folder / name).stat().st_size != size]
    except (OSError, RecordError) as e:
        why = e.strerror if isinstance(e, OSError) else str(e)
        raise EnvironmentFault(f"the helper VM's image in {folder} cannot be used: {why}; {remedy}") from e
    if found != version:
        raise EnvironmentFault(
            f"the helper VM's image in {folder} is version {escape(found, limit=40)}, "
            f"this is snf-image {version}; {remedy}"
        )
    if wrong:
        raise EnvironmentFault(f"{folder}/{escape(wrong[0])} has not the size that helper.json says; {remedy}")
    try:
        tasks = tuple(build(task, TaskInfo, place=f"tasks[{n}]") for n, task in enumerate(listed))
    except RecordError as e:
        raise EnvironmentFault(f"the helper VM's image in {folder} cannot be used: {e}; {remedy}") from None
    return HelperImage(folder=folder, version=found, tasks=tasks)


def plan_vm(
    image: HelperImage,
    settings: Settings,
    *,
    accel: Accel,
    mode: Literal["run", "selftest"],
    limit_s: int,
    largest_disk: int,
) -> Vm:
    """Whom QEMU runs as and under which limits. Asks the user database only."""
    user = unprivileged(settings)
    groups: tuple[int, ...] = ()
    if accel == "kvm":
        with contextlib.suppress(KeyError):
            groups = (grp.getgrnam("kvm").gr_gid,)
    return Vm(
        image=image,
        accel=accel,
        mode=mode,
        qemu=settings.qemu,
        memory_mib=settings.memory_mib,
        limit_s=limit_s,
        file_limit=max(largest_disk, MIB),
        uid=user.pw_uid,
        gid=user.pw_gid,
        groups=groups,
    )


def unprivileged(settings: Settings) -> pwd.struct_passwd:
    """The user that works on what strangers made; nobody where the package's is absent."""
    try:
        return pwd.getpwnam(settings.user)
    except KeyError:
        logger.warning("user=%s absent, nobody is used in its place; install the package's user", settings.user)
        return pwd.getpwnam("nobody")


def plan_command(vm: Vm, disks: Sequence[VmDisk], *, console: int, messages: int) -> tuple[str, ...]:
    """The whole command line; `console` and `messages` are descriptors of connected sockets. Pure."""
    folder = vm.image.folder
    words = [
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("prlimit", f"--as={(vm.memory_mib + SPACE_MIB) * MIB}", f"--cpu={2 * vm.limit_s}"),
        *(f"--fsize={vm.file_limit}", "--nofile=256", "--core=0", "--"),
        *("unshare", "--net", "--ipc", "--uts", "--mount", "--pid", "--fork", "--kill-child=KILL", "--"),
        *("timeout", "-s", "KILL", str(vm.limit_s), "setpriv", "--reuid", str(vm.uid), "--regid", str(vm.gid)),
        *(("--groups", ",".join(map(str, vm.groups))) if vm.groups else ("--clear-groups",)),
        *("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--pdeathsig", "KILL", "--"),
        *("sh", "-c", GATE, "gate"),
        *(vm.qemu, "-name", "snf-image-helper", "-nodefaults", "-no-user-config", "-no-reboot"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-machine", "q35,usb=off,vmport=off", "-accel", ACCEL[vm.accel], "-cpu", CPU[vm.accel]),
        *("-smp", "1", "-m", str(vm.memory_mib), "-nic", "none", "-display", "none", "-monitor", "none"),
        *("-kernel", f"{folder}/vmlinux", "-initrd", f"{folder}/initrd.img"),
        *("-append", f"{KERNEL_OPTIONS} snf.helper={vm.mode}"),
        *("-chardev", f"socket,id=console,fd={console}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=messages,fd={messages}", "-serial", "chardev:messages"),
    ]
    for n, disk in enumerate(disks, 1):
        access = "on" if disk.readonly else "off"
        if disk.nbd:
            below = f"file.driver=nbd,file.server.type=fd,file.server.str={disk.fd},file.export={disk.nbd}"
        else:
            driver = "host_device" if disk.block else "file"
            below = f"file.driver={driver},file.filename=/dev/fdset/{n}"
            words += ["-add-fd", f"fd={disk.fd},set={n}"]
        # no-flush: the disk is synced once, by us, when the VM has ended; a crash before that fails the deployment.
        words += [
            "-blockdev",
            f"driver=raw,node-name=disk{n},read-only={access},cache.no-flush=on,{below},file.read-only={access}",
        ]
        # werror=report: the default pauses the machine when the host's disk is full.
        words += ["-device", f"virtio-blk-pci,drive=disk{n},serial={disk.serial},werror=report,rerror=report"]
    return tuple(words)


def limit_of(settings: Settings, accel: Accel, *, converts: bool = False) -> int:
    """Seconds that a helper VM may take; one that converts an image first may take longer."""
    limit = settings.kvm_limit_s if accel == "kvm" else settings.tcg_limit_s
    return limit + (settings.convert_limit_s if converts else 0)
