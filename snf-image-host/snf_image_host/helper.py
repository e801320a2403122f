"""Run the helper VM once: start QEMU as a stranger, listen, and see it dead.

    this process ── setpriv(dies with us) ─ prlimit ─ unshare(own network, IPC, names, mounts, processes)
                                                         └─ timeout, process 1 of its namespace
                                                              └─ setpriv(no user, no capabilities) ─ sh ─ qemu

Whatever ends this process, or `unshare`, or `timeout`, ends all that is below at once: the kernel kills a process
namespace whose process 1 dies. But prctl(PR_SET_PDEATHSIG) comes too late for a parent that has died just before, so
`sh` is a gate: it says that everything before it is in place and starts QEMU only when we answer.

QEMU gets no path to a disk: it is handed descriptors that are already open, the manifest among them as a sealed memory
file that never touches a host disk. What comes back are sockets: console, messages and QEMU's own errors, each bounded
(channel.py). Their end shows that no process of the VM holds them any more, so after it nothing writes to the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import selectors
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import psutil

from snf_image_host.channel import ConsoleLog, Conversation, HelperFailed
from snf_image_host.interrupts import undisturbed
from snf_image_host.settings import Settings
from synnefo_light.errors import EnvironmentFault
from synnefo_light.files import read_bounded
from synnefo_light.log import escape, logger
from synnefo_light.manifest import Message
from synnefo_light.records import RecordError, load_json
from synnefo_light.run import PATH, outcome
from synnefo_light.units import MIB

Accel = Literal["kvm", "tcg"]

ROOT_SERIAL: Final = "snf-root"
MANIFEST_SERIAL: Final = "snf-manifest"
OVERHEAD_MIB: Final = 1792  # QEMU's address space besides the guest's memory; it touches about 60 MiB of it
STDERR_LIMIT: Final = 64 << 10
SAMPLE_S: Final = 0.25
DEATH_S: Final = 30.0
KERNEL_OPTIONS: Final = "console=ttyS0 quiet panic=-1 reboot=t nokaslr mitigations=off"

#: Says on stdin, a socket, that it is there; an answer starts QEMU, an end of the socket (we died) ends it.
GATE: Final = 'echo ready >&0; read -r go && exec "$@" </dev/null'

#: -cpu by accelerator. Bare "host" aborts where the host offers MSRs that KVM cannot set.
CPU: Final[dict[Accel, str]] = {"kvm": "max,-arch-capabilities", "tcg": "max"}
ACCEL: Final[dict[Accel, str]] = {"kvm": "kvm", "tcg": "tcg,tb-size=64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HelperImage:
    """The installed image of the helper VM, its version as helper.json has it."""

    folder: Path
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VmDisk:
    """An open descriptor that QEMU shows as a virtio disk with this serial."""

    serial: str
    fd: int
    readonly: bool
    block: bool = False


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a run went that succeeded."""

    duration_ms: int
    boot_ms: int  # to the first message
    cpu_ms: int
    peak_rss: int  # bytes, of all processes of the VM together


OnMessage = Callable[[Message], None]


def find_image(folder: Path, *, version: str) -> HelperImage:
    """The helper's image in `folder`. Raises EnvironmentFault when it is absent, damaged or not of `version`."""
    remedy = "install the package snf-image-helper of the same version"
    try:
        data = load_json(read_bounded(folder / "helper.json", limit=MIB), limit=MIB)
        found, files = (data.get("version"), data.get("files")) if isinstance(data, dict) else (None, None)
        if not isinstance(found, str) or not isinstance(files, dict):
            raise RecordError("it has no version or no files")
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
    return HelperImage(folder=folder, version=found)


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
    try:
        user = pwd.getpwnam(settings.user)
    except KeyError:
        logger.warning("user=%s absent, the helper VM runs as nobody; install the package's user", settings.user)
        user = pwd.getpwnam("nobody")
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


def plan_command(vm: Vm, disks: Sequence[VmDisk], *, console: int, messages: int) -> tuple[str, ...]:
    """The whole command line; `console` and `messages` are descriptors of connected sockets. Pure."""
    folder = vm.image.folder
    words = [
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("prlimit", f"--as={(vm.memory_mib + OVERHEAD_MIB) * MIB}", f"--cpu={2 * vm.limit_s}"),
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
        driver = "host_device" if disk.block else "file"
        access = "on" if disk.readonly else "off"
        words += ["-add-fd", f"fd={disk.fd},set={n}"]
        # no-flush: the disk is synced once, by us, when the VM has ended; a crash before that fails the deployment.
        words += [
            "-blockdev",
            f"driver=raw,node-name=disk{n},read-only={access},cache.no-flush=on,"
            f"file.driver={driver},file.filename=/dev/fdset/{n},file.read-only={access}",
        ]
        # werror=report: the default pauses the machine when the host's disk is full.
        words += ["-device", f"virtio-blk-pci,drive=disk{n},serial={disk.serial},werror=report,rerror=report"]
    return tuple(words)


def launch(
    vm: Vm,
    *,
    disks: Sequence[VmDisk],
    manifest: bytes | None,
    conversation: Conversation,
    console: ConsoleLog,
    on_message: OnMessage = lambda message: None,
) -> Ran:
    """Run the VM to its end. When this returns or raises, no process of it is alive (EnvironmentFault if one is).

    Raises HelperFailed, ProtocolError; see Conversation. A second call starts a new VM.
    """
    with contextlib.ExitStack() as stack:
        root = os.open(vm.image.folder / "root.squashfs", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        all_disks = [VmDisk(serial=ROOT_SERIAL, fd=root, readonly=True)]
        if manifest is not None:
            fd = stack.enter_context(sealed_memory(manifest))
            all_disks.append(VmDisk(serial=MANIFEST_SERIAL, fd=fd, readonly=True))
        all_disks += disks
        return _run(vm, all_disks, stack, conversation=conversation, console=console, on_message=on_message)


def _run(
    vm: Vm,
    disks: Sequence[VmDisk],
    stack: contextlib.ExitStack,
    *,
    conversation: Conversation,
    console: ConsoleLog,
    on_message: OnMessage,
) -> Ran:
    pairs = [socket.socketpair() for _ in range(4)]
    ours, theirs = zip(*pairs, strict=True)
    for end in (*ours, *theirs):
        stack.callback(end.close)
    command = plan_command(vm, disks, console=theirs[0].fileno(), messages=theirs[1].fileno())
    logger.debug("run %s", " ".join(command))
    started = time.monotonic()
    with undisturbed():
        # Not through run.py: we must listen while it lives. From the main thread, to whose death `setpriv` binds it.
        process = subprocess.Popen(
            command,
            stdin=theirs[3],
            stdout=theirs[2],
            stderr=theirs[2],
            pass_fds=[disk.fd for disk in disks] + [theirs[0].fileno(), theirs[1].fileno()],
            env={"PATH": PATH, "LC_ALL": "C.UTF-8"},
            cwd="/",
            start_new_session=True,
        )
        stack.callback(_see_dead, process, ours)
        for end in theirs:
            end.close()
    watch = _Watch(process.pid)
    errors = bytearray()
    boot_ms = 0

    def messages(data: bytes) -> None:
        nonlocal boot_ms
        boot_ms = boot_ms or _ms_since(started)
        for message in conversation.feed(data):
            on_message(message)

    def stderr(data: bytes) -> None:
        errors.extend(data[: STDERR_LIMIT - len(errors)])

    def gate(data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            ours[3].send(b"go\n")

    sinks = dict(zip(ours, (console.feed, messages, stderr, gate), strict=True))
    with contextlib.closing(_listen(sinks)) as heard:
        for _ in heard:
            watch.sample()
            if time.monotonic() - started > vm.limit_s:
                raise HelperFailed(_late(vm, conversation), task=conversation.running)
    returncode = process.wait(timeout=DEATH_S)
    if returncode != 0 and not conversation.over:
        raise HelperFailed(_ended_badly(returncode, bytes(errors), conversation), task=conversation.running)
    conversation.conclude()
    if returncode != 0:
        raise HelperFailed(_ended_badly(returncode, bytes(errors), conversation))
    return Ran(duration_ms=_ms_since(started), boot_ms=boot_ms, cpu_ms=watch.cpu_ms, peak_rss=watch.peak_rss)


@contextlib.contextmanager
def sealed_memory(content: bytes) -> Iterator[int]:
    """A read-only descriptor of `content` in memory, which nobody can change or grow any more."""
    writable = os.memfd_create("snf-manifest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(os.dup(writable), "wb") as file:
            file.write(content)
        fcntl.fcntl(
            writable,
            fcntl.F_ADD_SEALS,
            fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL,
        )
        # QEMU matches the access mode of a descriptor with that of the disk, so it needs one opened read-only.
        fd = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)
    try:
        yield fd
    finally:
        os.close(fd)


def _listen(sinks: dict[socket.socket, Callable[[bytes], None]]) -> Generator[None, None, None]:
    """Feed what the sockets say to their sinks until all are closed; yields after each round (SAMPLE_S at most)."""
    with selectors.DefaultSelector() as selector:
        for end, sink in sinks.items():
            end.setblocking(False)
            selector.register(end, selectors.EVENT_READ, sink)
        while selector.get_map():
            for key, _ in selector.select(SAMPLE_S):
                assert isinstance(key.fileobj, socket.socket)
                data = _receive(key.fileobj)
                if data is None:
                    continue
                if data:
                    key.data(data)
                else:
                    selector.unregister(key.fileobj)
            yield


def _receive(end: socket.socket) -> bytes | None:
    """What is there, b"" at the end, None when there is nothing yet."""
    try:
        return end.recv(64 << 10)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        return b""


def _see_dead(process: subprocess.Popen[bytes], ends: Sequence[socket.socket]) -> None:
    """Kill what is alive and wait until no process of the VM holds its sockets. Raises EnvironmentFault if one does."""
    if process.poll() is None:
        process.kill()
    deadline = time.monotonic() + DEATH_S
    try:
        with undisturbed():
            process.wait(timeout=DEATH_S)
            for end in ends:
                while True:
                    end.settimeout(max(0.01, deadline - time.monotonic()))
                    try:
                        if not end.recv(64 << 10):
                            break
                    except ConnectionResetError:
                        break
    except (subprocess.TimeoutExpired, TimeoutError):
        raise EnvironmentFault(
            f"the helper VM (process {process.pid}) could not be killed within {DEATH_S:g} s and may still write "
            f"to the disk; is the node's storage stuck?"
        ) from None


class _Watch:
    """Memory and CPU time of the VM's processes, sampled."""

    def __init__(self, pid: int) -> None:
        try:
            self._process: psutil.Process | None = psutil.Process(pid)
        except psutil.Error:
            self._process = None
        self._next = 0.0
        self.peak_rss = 0
        self.cpu_ms = 0

    def sample(self) -> None:
        if self._process is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SAMPLE_S
        rss, cpu = 0, 0.0
        with contextlib.suppress(psutil.Error):
            for process in (self._process, *self._process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    rss += process.memory_info().rss
                    times = process.cpu_times()
                    cpu += times.user + times.system
        self.peak_rss = max(self.peak_rss, rss)
        self.cpu_ms = max(self.cpu_ms, round(cpu * 1000))


def _late(vm: Vm, conversation: Conversation) -> str:
    where = f" (in the task {conversation.running})" if conversation.running else ""
    key = f"{vm.accel}_limit_s"
    return (
        f"the helper VM did not end within {vm.limit_s} s{where} and was killed; {key} in the configuration raises that"
    )


def _ended_badly(returncode: int, stderr: bytes, conversation: Conversation) -> str:
    said = stderr.decode("utf-8", "replace").strip().splitlines()
    where = f" in the task {conversation.running}" if conversation.running else ""
    why = f": {escape(said[-1], limit=300)}" if said else ""
    return f"the helper VM's QEMU {outcome(returncode)}{where}{why}"


def _ms_since(start: float) -> int:
    return round((time.monotonic() - start) * 1000)


def limit_of(settings: Settings, accel: Accel) -> int:
    """Seconds that a helper VM may take."""
    return settings.kvm_limit_s if accel == "kvm" else settings.tcg_limit_s
