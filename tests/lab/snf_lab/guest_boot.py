"""Boot a disk in plain QEMU on this machine, without a cluster: a serial console as a socket, SSH through a port of
loopback. The network is QEMU's own: 10.0.2.0/24, the gateway 10.0.2.2 answers, nothing outside is reached.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from snf_lab.guest_console import Console, SocketLine
from snf_lab.guest_deploy import parse_fingerprint
from snf_lab.guest_layout import Firmware
from synnefo_light.errors import EnvironmentFault, ToolError
from synnefo_light.run import run

ADDRESS, PREFIX, GATEWAY = "10.0.2.15", 24, "10.0.2.2"
MAC = "52:54:00:12:34:56"
OVMF = Path("/usr/share/ovmf/OVMF.fd")
MEMORY_MIB = 768
LOGIN_S = 420.0
SSH_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A guest that runs. Its console can be had once."""

    folder: Path
    port: int

    def log_in(self, *, password: str, told: Callable[[str], None] = lambda text: None) -> str:
        """Log in as root at the serial console; "USER HOSTNAME" as the shell there has it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connected:
            connected.connect(str(self.folder / "console"))
            console = Console(SocketLine(connected), told=told)
            console.log_in(user="root", password=password, timeout_s=LOGIN_S)
            return console.ask('echo "$(id -un) $(hostname)"', timeout_s=60)

    def ssh(self, key: Path, script: str, *words: str) -> str:
        """What a shell script prints that is run in the guest over SSH; tried again until its sshd answers."""
        options = {
            **{"BatchMode": "yes", "ConnectTimeout": "10", "IdentitiesOnly": "yes", "LogLevel": "ERROR"},
            **{"StrictHostKeyChecking": "accept-new", "UserKnownHostsFile": str(self.folder / "known_hosts")},
            **{"HashKnownHosts": "no", "Port": str(self.port)},
        }
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        argv = ["ssh", "-i", str(key), *given, "root@127.0.0.1", shlex.join(["sh", "-s", *words])]
        deadline = time.monotonic() + SSH_S
        while True:
            try:
                return run(argv, stdin=script.encode(), timeout_s=60).text
            except ToolError as e:
                if "Permission denied" in e.stderr or time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def presented(self) -> str:
        """The fingerprint of the host key with which its sshd answered."""
        place = f"[127.0.0.1]:{self.port}"
        return parse_fingerprint(
            run(["ssh-keygen", "-l", "-F", place, "-f", self.folder / "known_hosts"], timeout_s=20).text
        )


@contextlib.contextmanager
def booted(disk: Path, *, firmware: Firmware, folder: Path) -> Iterator[Running]:
    """Boot `disk` (raw, written to); the VM is killed at the end. Raises EnvironmentFault for UEFI without OVMF."""
    if firmware == "uefi" and not OVMF.exists():
        raise EnvironmentFault(f"{OVMF} is needed to boot with UEFI; install the package ovmf")
    port = free_port()
    pid_file = folder / "qemu.pid"
    forward = f"hostfwd=tcp:127.0.0.1:{port}-{ADDRESS}:22"
    run(
        [
            *(
                "qemu-system-x86_64",
                "-machine",
                "q35",
                "-accel",
                "tcg",
                "-cpu",
                "max",
                "-smp",
                "2",
                "-m",
                str(MEMORY_MIB),
            ),
            *("-nodefaults", "-display", "none", "-no-reboot", "-daemonize", "-pidfile", pid_file),
            *(("-bios", OVMF) if firmware == "uefi" else ()),
            *("-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"),
            *("-netdev", f"user,id=net0,restrict=on,{forward}", "-device", f"virtio-net-pci,netdev=net0,mac={MAC}"),
            *("-chardev", f"socket,id=console,path={folder / 'console'},server=on,wait=off"),
            *("-serial", "chardev:console"),
        ],
        timeout_s=60,
    )
    pid = int(pid_file.read_text())
    try:
        yield Running(folder=folder, port=port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
