"""Promise 1: the host never reads guest-controlled bytes (threat A8).

A whole deployment runs under strace(1). Everything the host executes, opens, mounts and asks of a device is held
against a list; whatever is not on it fails the test. Positive control: naive deployments (blkid, fdisk, a read) of the
same disk are caught by the same check.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deployments import SCRIPTS, environment, images, new_disk
from tests.disk_images import make_disk

BIRTHS = "clone,clone3,fork,vfork"
TRACED = f"{BIRTHS},execve,execveat,open,openat,openat2,mount,move_mount,fsopen,ioctl,read,pread64,readv,preadv,mmap"

#: Programs that a deployment may execute.
MAY_EXECUTE = {
    *("create", "python3", "python3.11", "python3.12", "python3.13", "env"),
    *("setpriv", "timeout", "prlimit", "unshare", "sh", "qemu-system-x86_64"),
}
#: ioctls that ask nothing about content: terminals, file flags, KVM, eventfd-like plumbing, extent sharing.
MAY_IOCTL = re.compile(
    r"TCGETS2?|TCSETS\w*|TIOC\w+|FIOCLEX|FIONBIO|FIONREAD|FS_IOC_FIEMAP|FICLONE\w*|KVM_\w+|"
    r"BLKGETSIZE64|BLKSSZGET|BLKPBSZGET|BLKZEROOUT|BLKDISCARD|BLKFLSBUF|CDROM_\w+|SG_\w+|FS_IOC_FSGETXATTR|"
    r"XFS_IOC_DIOINFO|0x[0-9a-f]+"
)

#: A new process or thread, whether or not strace saw the call in one piece: it is its parent's program until it execs.
#: In a PID namespace of its own the number that strace uses stands in a comment.
_CHILD = re.compile(
    r"^(?P<pid>\d+)\s+(<\.\.\. )?(clone3?|v?fork)\b.* = (?P<own>\d+)( /\* (?P<outside>\d+) in strace's PID NS \*/)?$"
)
_CALL = re.compile(r"^(?P<pid>\d+)\s+(?P<name>\w+)\((?P<rest>.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What the processes of a deployment did, by pid."""

    lines: tuple[str, ...]
    disk: Path
    image: Path | None

    def violations(self) -> list[str]:
        """The calls that a deployment must not make."""
        programs: dict[str, str] = {}
        found: list[str] = []
        for line in self.lines:
            if (born := _CHILD.match(line)) is not None:
                programs.setdefault(born["outside"] or born["own"], programs.get(born["pid"], ""))
                continue
            match = _CALL.match(line)
            if match is None:
                continue
            pid, name, rest = match["pid"], match["name"], match["rest"]
            if name in ("execve", "execveat") and not rest.endswith("ENOENT (No such file or directory)"):
                program = Path(_quoted(rest)).name
                programs[pid] = program
                if program not in MAY_EXECUTE:
                    found.append(f"executed {program}: {line[:200]}")
            elif name in ("mount", "move_mount", "fsopen") and not _own_namespace(rest):
                found.append(f"mounted: {line[:200]}")
            elif name == "ioctl":
                request = rest.split(", ")[1] if ", " in rest else rest
                if not MAY_IOCTL.match(request):
                    found.append(f"ioctl {request}: {line[:200]}")
            elif name in ("read", "pread64", "readv", "preadv", "mmap"):
                if f"<{self.disk}>" in rest and not programs.get(pid, "").startswith("qemu"):
                    found.append(f"read the disk: {line[:200]}")
            elif name in ("open", "openat", "openat2") and _may_not_open(_quoted(rest), self.disk):
                found.append(f"opened {_quoted(rest)}: {line[:200]}")
        return found


def _quoted(rest: str) -> str:
    match = re.search(r'"((?:[^"\\]|\\.)*)"', rest)
    return match[1] if match else ""


def _own_namespace(rest: str) -> bool:
    """unshare(1) makes the mount tree of its new namespace private: a change of propagation, not a mount."""
    return "MS_PRIVATE" in rest or "MS_SLAVE" in rest


def _may_not_open(path: str, disk: Path) -> bool:
    """Device nodes of disks, mapper and loop devices, and partitions of our disk."""
    return bool(re.match(r"/dev/(loop|sd|vd|nvme|dm-|mapper|disk|nbd|md)", path)) or (
        path.startswith(str(disk)) and path != str(disk)
    )


def traced(argv: Sequence[str], *, env: dict[str, str], disk: Path, image: Path | None, log: Path) -> Trace:
    strace = ["strace", "-f", "-y", "--pidns-translation", "-s", "256", "-e", f"trace={TRACED}", "-o", str(log), *argv]
    subprocess.run(strace, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=400, check=False)
    with open(log, errors="replace") as file:
        return Trace(lines=tuple(_joined(file)), disk=disk, image=image)


def _joined(lines: Iterable[str]) -> Iterable[str]:
    """strace splits a call that another process interrupts; the first half carries what is checked."""
    for line in lines:
        yield line.rstrip("\n").replace(" <unfinished ...>", "")


@pytest.mark.vm
def test_a_deployment_only_does_what_is_on_the_list(tmp_path: Path) -> None:
    image = make_disk(images() / "traced.raw")
    disk = new_disk(tmp_path / "disk", size_mib=80)
    env = environment(
        "create",
        instance="traced",
        disk=disk,
        parameters={"img_id": "traced.raw", "img_format": "diskdump", "img_passwd": "secret"},
    )
    try:
        trace = traced([str(SCRIPTS / "create")], env=env, disk=disk, image=image, log=tmp_path / "trace")
    finally:
        image.unlink()
    ran = {Path(_quoted(line)).name for line in trace.lines if " execve(" in line}
    assert "qemu-system-x86_64" in ran, "the deployment was not seen to start the helper VM"
    with open(disk, "rb") as file:
        file.seek(510)
        assert file.read(2) == b"\x55\xaa", "the deployment did not succeed"
    assert trace.violations() == []


@pytest.mark.parametrize(
    "naive",
    ["blkid {disk}", "fdisk -l {disk}", "losetup -Pf {disk}", 'python3 -c \'open("{disk}", "rb").read(512)\''],
)
def test_a_naive_deployment_is_caught(tmp_path: Path, naive: str) -> None:
    """The positive control: the check above does see what it is there to see."""
    disk = make_disk(tmp_path / "disk")
    script = shutil.which("sh") or "/bin/sh"
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    trace = traced([script, "-c", naive.format(disk=disk)], env=env, disk=disk, image=None, log=tmp_path / "trace")
    made = subprocess.run(["losetup", "-j", str(disk)], check=True, capture_output=True, text=True, timeout=10)
    for line in made.stdout.splitlines():
        subprocess.run(["losetup", "-d", line.split(":")[0]], check=True, timeout=10)
    caught = [v for v in trace.violations() if not v.startswith("executed sh:")]
    assert caught, f"{naive} went unseen"
