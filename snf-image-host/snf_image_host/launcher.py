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
import os
import selectors
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Final

import psutil

from snf_image_host.channel import ConsoleLog, Conversation, HelperFailed
from snf_image_host.interrupts import undisturbed
from snf_image_host.memory import sealed_memory
from snf_image_host.vm import MANIFEST_SERIAL, ROOT_SERIAL, RSS_MIB, Vm, VmDisk, plan_command
from synnefo_light.errors import EnvironmentFault
from synnefo_light.log import escape, logger
from synnefo_light.manifest import Message
from synnefo_light.run import PATH, outcome
from synnefo_light.units import MIB

STDERR_LIMIT: Final = 64 << 10
SAMPLE_S: Final = 0.25
DEATH_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a run went that succeeded."""

    duration_ms: int
    boot_ms: int  # to the first message
    cpu_ms: int
    peak_rss: int  # bytes, of all processes of the VM together


OnMessage = Callable[[Message], None]


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
            fd = stack.enter_context(sealed_memory(manifest, name="snf-manifest"))
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
            # One malloc arena: each thread of QEMU's pool would reserve 64 MiB of address space, and a check of a large
            # file system starts dozens. Past the limit QEMU aborts.
            env={"PATH": PATH, "LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1"},
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
            if watch.peak_rss > (vm.memory_mib + RSS_MIB) * MIB:
                raise HelperFailed(_greedy(vm), task=conversation.running)
            if time.monotonic() - started > vm.limit_s:
                raise HelperFailed(_late(vm, conversation), task=conversation.running)
    returncode = process.wait(timeout=DEATH_S)
    if returncode != 0 and not conversation.over:
        raise HelperFailed(_ended_badly(returncode, bytes(errors), conversation), task=conversation.running)
    conversation.conclude()
    if returncode != 0:
        raise HelperFailed(_ended_badly(returncode, bytes(errors), conversation))
    return Ran(duration_ms=_ms_since(started), boot_ms=boot_ms, cpu_ms=watch.cpu_ms, peak_rss=watch.peak_rss)


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
    key = "convert_limit_s" if conversation.running == "convert" else f"{vm.accel}_limit_s"
    return (
        f"the helper VM did not end within {vm.limit_s} s{where} and was killed; {key} in the configuration raises that"
    )


def _greedy(vm: Vm) -> str:
    return f"the helper VM took more than {vm.memory_mib + RSS_MIB} MiB of the node's memory and was killed"


def _ended_badly(returncode: int, stderr: bytes, conversation: Conversation) -> str:
    said = stderr.decode("utf-8", "replace").strip().splitlines()
    where = f" in the task {conversation.running}" if conversation.running else ""
    why = f": {escape(said[-1], limit=300)}" if said else ""
    return f"the helper VM's QEMU {outcome(returncode)}{where}{why}"


def _ms_since(start: float) -> int:
    return round((time.monotonic() - start) * 1000)
