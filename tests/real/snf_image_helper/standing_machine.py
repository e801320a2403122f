"""The helper VM, booted once for many deployments: each gets disks plugged in for it, and a process of its own.

Without KVM a boot is most of what a deployment takes. Here process 1 is told how many disks to wait for, forks, and the
child is the helper as it is behind its start: it says hello, deploys and ends. Kernel modules that it loaded are taken
out again, and what it leaves behind is looked for and told: a VM with a mount, a device, a module, a process or a file
in /dev too many ends as a helper VM does, by its power, and the next one is booted anew. /run and /tmp are emptied.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.initrd import newc

WAIT_S = 120.0
SLOTS = 5  # the manifest, the source, and three disks to deploy on
READY, CLEAN, DIRTY = b"ready\n", b"clean\n", b"dirty\n"
LEFT = b"\nleft "  # and a list in JSON
_END: Mapping[bytes, Literal["clean", "dirty", "died"]] = {CLEAN: "clean", DIRTY: "dirty", b"": "died"}

_INIT = f"""\
#!/usr/bin/python3.11 -ISB
import gc, os, sys
from snf_image_helper.start import COLLECT_AFTER, enter_root
gc.set_threshold(COLLECT_AFTER)
enter_root()
import ctypes, errno, json, shutil, socket, termios
from pathlib import Path
from snf_image_helper import deployment
from snf_image_helper.channel import LINE, Channel
from synnefo_light import __version__
from synnefo_light.manifest import Hello

events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)  # the kernel's, of disks that come and go
events.bind((0, 1))

def disks():
    return len([path for path in os.listdir("/sys/block") if path.startswith("vd")])

def wait_for(count):
    while disks() != count:
        try:
            events.recv(65536)
        except OSError:  # there were more than are kept for us
            pass

def modules():
    return [line.split()[0] for line in Path("/proc/modules").read_text().splitlines()]

def unload():
    # Whoever needs one loads it, as in a VM that has just started. The last one loaded is the first of the list.
    for name in modules():
        if name not in modules_at_first:
            ctypes.CDLL(None).syscall(176, name.encode(), os.O_NONBLOCK)  # delete_module(2)

def entry(path):
    found = os.lstat(path)
    return path, found.st_mode, found.st_rdev, os.readlink(path) if os.path.islink(path) else ""

def below(folder):
    paths = [os.path.join(at, name) for at, folders, files in os.walk(folder) for name in folders + files]
    return [entry(path) for path in paths if not path.startswith("/dev/vd")]

def state():
    # What a deployment may not change, each with its name.
    mounts = [("mount " + line,) for line in Path("/proc/self/mounts").read_text().splitlines()]
    others = [("block device " + path,) for path in os.listdir("/sys/block") if not path.startswith("vd")]
    return {{*mounts, *others, *(("module " + name,) for name in modules()), *below("/dev")}}

def deploy():
    try:
        BEFORE
        channel = Channel()
        channel.send(Hello(helper_version=__version__, mode="run"))
        deployment.deploy(channel)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

def processes():
    # Whom nobody waits for is ours, as this is process 1.
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return ["process " + Path("/proc", pid, "comm").read_text().strip() for pid in os.listdir("/proc")
                if pid.isdecimal() and pid != "1" and os.path.exists(f"/proc/{{pid}}/exe")]
    except ChildProcessError:
        return []

def empty(folder):
    for entry in os.scandir(folder):
        shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)

Channel()  # which makes the line a raw one
line = open(LINE, "r+b", buffering=0)
modules_at_first = modules()
at_first = state()
while True:
    line.write({READY!r})
    wait_for(1 + int(line.readline()))
    child = os.fork() or deploy()
    status = os.waitpid(child, 0)[1]
    left = ["status %d" % status] * (status != 0) + processes()
    unload()
    left += sorted({{name for name, *_ in state() ^ at_first}})
    clean = not left
    left += [name for name, *_ in below("/run") + below("/tmp")]
    os.sync()
    if clean:
        empty("/run")
        empty("/tmp")
    termios.tcdrain(1)
    line.write({LEFT!r} + json.dumps(left).encode() + b"\\n" + ({CLEAN!r} if clean else {DIRTY!r}))
    wait_for(1)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The messages and the console's text of one, how it ended, and what it left behind.

    `end`: "clean"; "dirty" when nothing else may run in this VM any more; "died" when the VM ended.
    """

    messages: bytes
    console: str
    end: Literal["clean", "dirty", "died"]
    left: tuple[str, ...]


class StandingMachine:
    """One QEMU that waits for disks. Raises AssertionError when its VM does not boot.

    `before` is Python that each child runs before it deploys.
    """

    def __init__(self, image: Path, *, cpu: str, append: str, before: str = "") -> None:
        self._kept = contextlib.ExitStack()
        work = Path(self._kept.enter_context(tempfile.TemporaryDirectory()))
        self._console, initrd = work / "console", work / "initrd.img"
        self._told = 0  # of the console
        initrd.write_bytes(
            (image / "initrd.img").read_bytes() + newc({"init": (0o755, _INIT.replace("BEFORE", before or "pass"))})
        )
        root = {"driver": "file", "filename": str(image / "root.squashfs"), "read-only": True}
        self._qemu = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", "--"),  # a test run that is killed leaves nothing behind
                *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", cpu, "-m", "256", "-smp", "1"),
                *("-nodefaults", "-nic", "none", "-display", "none", "-no-user-config", "-no-reboot"),
                *("-kernel", image / "vmlinux", "-initrd", initrd, "-append", append),
                *("-chardev", f"file,id=console,path={self._console}", "-serial", "chardev:console"),
                *("-chardev", f"socket,id=channel,path={work / 'channel'},server=on", "-serial", "chardev:channel"),
                *("-qmp", f"unix:{work / 'qmp'},server=on,wait=off"),
                *("-blockdev", json.dumps({"driver": "raw", "file": root, "node-name": "root", "read-only": True})),
                *("-device", "virtio-blk-pci,drive=root,serial=snf-root"),
                *(w for n in range(SLOTS) for w in ("-device", f"pcie-root-port,id=slot{n},chassis={n + 1},slot={n}")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._kept.callback(self._qemu.wait)
        self._kept.callback(self._qemu.kill)
        try:
            self._channel = self._kept.enter_context(_connected(work / "channel"))
            monitor = self._kept.enter_context(_connected(work / "qmp"))
            self._qmp = self._kept.enter_context(monitor.makefile("rwb", buffering=0))
            self._deleted: set[str] = set()
            self._ask("qmp_capabilities")
            assert self._heard(READY)[1] == READY, self._said()
            initrd.unlink()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take its power. A second call does nothing."""
        self._kept.close()

    def deploy(self, disks: Mapping[str, tuple[Path, bool]]) -> Deployment:
        """Serial -> file, and whether it is only read. After another end than "clean" the VM is closed. Raises
        AssertionError when QEMU refuses a disk, TimeoutError when no end is seen, and closes it."""
        try:
            self._plug(disks)
            self._channel.sendall(b"%d\n" % len(disks))
            heard, end = self._heard(CLEAN, DIRTY)
            console = self._said()
            if end == CLEAN:
                self._unplug(disks)
        except BaseException:
            self.close()
            raise
        if end != CLEAN:
            self.close()
        messages, _, left = heard.rpartition(LEFT) if end else (heard, b"", b"[]")
        return Deployment(messages=messages, console=console, end=_END[end], left=tuple(json.loads(left)))

    def _plug(self, disks: Mapping[str, tuple[Path, bool]]) -> None:
        for n, (serial, (path, read_only)) in enumerate(disks.items()):
            file = {"driver": "file", "filename": str(path), "read-only": read_only}
            self._ask("blockdev-add", {"driver": "raw", "file": file, "node-name": serial, "read-only": read_only})
            device = {"driver": "virtio-blk-pci", "drive": serial, "serial": serial, "id": serial, "bus": f"slot{n}"}
            self._ask("device_add", device)

    def _unplug(self, disks: Mapping[str, object]) -> None:
        for serial in disks:
            self._ask("device_del", {"id": serial})
        assert self._heard(READY)[1] == READY, self._said()
        while not self._deleted >= disks.keys():
            self._answer()
        self._deleted.clear()
        for serial in disks:
            self._ask("blockdev-del", {"node-name": serial})

    def _heard(self, *ends: bytes) -> tuple[bytes, bytes]:
        """What is on the line before one of these, and which; b"" when the VM ended. Raises TimeoutError."""
        heard, deadline = b"", time.monotonic() + WAIT_S
        while not heard.endswith(ends):
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))
            part = self._channel.recv(65536)
            if not part:
                self._qemu.wait()
                return heard, b""
            heard += part
        end = next(end for end in ends if heard.endswith(end))
        return heard.removesuffix(end), end

    def _said(self) -> str:
        shown = self._console.read_bytes()
        text, self._told = shown[self._told :], len(shown)
        return text.decode("utf-8", "replace")

    def _ask(self, command: str, arguments: Mapping[str, object] | None = None) -> None:
        self._qmp.write(json.dumps({"execute": command, "arguments": arguments or {}}).encode() + b"\n")
        while "return" not in (answer := self._answer()):
            assert "error" not in answer, (command, answer)

    def _answer(self) -> Mapping[str, Any]:
        said: Mapping[str, Any] = json.loads(self._qmp.readline())
        if said.get("event") == "DEVICE_DELETED":
            self._deleted.add(said["data"].get("device", ""))
        return said


def _connected(path: Path) -> socket.socket:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(WAIT_S)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            time.sleep(0.02)
        else:
            return connection
    raise AssertionError("QEMU did not start")
