"""Disk images for tests: a tree of files described in Python, made into a real file system on a real partition table.

No mount and no loop device: `mke2fs -d` fills the file system, `sfdisk` writes the table, and `debugfs` reads it all
back (e2fsprogs' own reader, while the product changes disks with the kernel).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MIB = 1 << 20
FIRST_MIB = 1

Table = Literal["gpt", "mbr", "logical", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    content: bytes | str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fifo:
    mode: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    kind: Literal["c", "b"] = "c"
    major: int = 1
    minor: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    mode: int = 0o755


Entry = File | Link | Fifo | Device | Folder
Tree = Mapping[str, Entry | None]

DEBIAN: Tree = {
    "etc/os-release": File(content='PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'),
    "etc/debian_version": File(content="12.9\n"),
    "etc/hostname": File(content="image\n"),
    "etc/hosts": File(content="127.0.0.1\tlocalhost\n127.0.1.1\timage\n"),
    "etc/machine-id": File(content="0123456789abcdef0123456789abcdef\n", mode=0o444),
    "etc/passwd": File(
        content="root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/usr/sbin:/usr/sbin/nologin\n"
        "user:x:1000:1000::/home/user:/bin/bash\n"
    ),
    "etc/group": File(content="root:x:0:\ndaemon:x:1:\nuser:x:1000:\nadm:x:4:\n"),
    "etc/shadow": File(
        content="root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\nuser:!:19000:1:90:7:::\n", mode=0o640, gid=42
    ),
    "etc/fstab": File(content="LABEL=root / ext4 defaults 0 1\n"),
    "etc/network/interfaces": File(content="source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n"),
    "etc/network/interfaces.d": Folder(),
    "etc/systemd/system": Folder(),
    "etc/ssh/sshd_config": File(content="PermitRootLogin prohibit-password\n"),
    "etc/ssh/ssh_host_ed25519_key": File(content="OLD HOST KEY\n", mode=0o600),
    "etc/ssh/ssh_host_ed25519_key.pub": File(content="ssh-ed25519 OLD image\n"),
    "usr/sbin/ifup": File(content="#!/bin/sh\n", mode=0o755),
    "usr/lib/systemd/systemd": File(content="", mode=0o755),
    "var/lib/dbus": Folder(),
    "root": Folder(mode=0o700),
    "home/user": Folder(),
    "tmp": Folder(mode=0o1777),
    "dev": Folder(),
    "proc": Folder(),
    "sys": Folder(),
    "run": Folder(),
    "bin": Link(target="usr/bin"),
    "sbin": Link(target="usr/sbin"),
    "lib": Link(target="usr/lib"),
    "usr/bin": Folder(),
    "usr/lib": Folder(),
}


def make_disk(
    path: Path, *, tree: Tree | None = None, table: Table = "gpt", filesystem_mib: int = 48, slack_mib: int = 2
) -> Path:
    """A sparse disk image at `path`: one ext4 root with `tree` (changes to a small Debian: None removes an entry).

    `logical` puts the root on partition 5 of an MBR. `slack_mib` stays free at the end, at least 1 for a GPT's backup.
    """
    whole = {name: entry for name, entry in {**DEBIAN, **(tree or {})}.items() if entry is not None}
    first = {"none": 0, "logical": FIRST_MIB + 1}.get(table, FIRST_MIB)
    with open(path, "wb") as disk:
        disk.truncate((first + filesystem_mib + (0 if table == "none" else slack_mib)) * MIB)
    if table != "none":
        sfdisk(path, _script(table, first, filesystem_mib))
    with tempfile.TemporaryDirectory() as folder:
        populate(Path(folder), whole)
        run_tool(
            [
                *("mke2fs", "-q", "-t", "ext4", "-L", "root", "-U", "11111111-2222-3333-4444-555555555555"),
                *("-E", f"offset={first * MIB},nodiscard", "-d", folder, str(path), f"{filesystem_mib}M"),
            ]
        )
    return path


def read_back(path: Path, name: str, *, first_mib: int = FIRST_MIB) -> bytes:
    """The content of a file of the image; empty when there is none. debugfs does not follow links."""
    return debugfs(path, f"cat {name}", first_mib)


def stat_back(path: Path, name: str, *, first_mib: int = FIRST_MIB) -> str:
    """debugfs' description of an inode: type, mode, user, group, link target."""
    return debugfs(path, f"stat {name}", first_mib).decode("utf-8", "replace")


def list_back(path: Path, name: str, *, first_mib: int = FIRST_MIB) -> list[str]:
    """The names in a folder of the image, without . and .. ones."""
    lines = debugfs(path, f"ls -p {name}", first_mib).decode("utf-8", "replace").splitlines()
    names = [line.split("/")[5] for line in lines if line.count("/") >= 6]
    return sorted(n for n in names if n not in (".", "..", ""))


def filesystem_blocks(path: Path, *, first_mib: int = FIRST_MIB) -> tuple[int, int]:
    """Block count and block size, by debugfs (dumpe2fs of e2fsprogs 1.47.2 does not take an offset)."""
    shown = debugfs(path, "show_super_stats -h", first_mib).decode()
    fields = dict(line.split(":", 1) for line in shown.splitlines() if ":" in line)
    return int(fields["Block count"]), int(fields["Block size"])


def check_filesystem(path: Path, *, first_mib: int = FIRST_MIB) -> None:
    """e2fsck finds nothing to mend."""
    run_tool(["e2fsck", "-fn", f"{path}?offset={first_mib * MIB}"])


def _script(table: Table, first: int, size: int) -> str:
    if table == "gpt":
        return f"label: gpt\nstart={first}MiB, size={size}MiB, type=linux\n"
    if table == "mbr":
        return f"label: dos\nstart={first}MiB, size={size}MiB, type=83, bootable\n"
    return (
        f"label: dos\nstart={first - 1}MiB, size={size + 1}MiB, type=f\n5: start={first}MiB, size={size}MiB, type=83\n"
    )


def populate(folder: Path, tree: Mapping[str, Entry]) -> None:
    folder.chmod(0o755)
    for name, entry in sorted(tree.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(entry, Folder):
            path.mkdir(exist_ok=True)
            path.chmod(entry.mode)
        elif isinstance(entry, Link):
            path.symlink_to(entry.target)
        elif isinstance(entry, Fifo):
            os.mkfifo(path, entry.mode)
        elif isinstance(entry, Device):
            run_tool(["mknod", str(path), entry.kind, str(entry.major), str(entry.minor)])
        else:
            path.write_bytes(entry.content if isinstance(entry.content, bytes) else entry.content.encode())
            path.chmod(entry.mode)
            os.chown(path, entry.uid, entry.gid)


def sfdisk(path: Path, script: str) -> None:
    run_tool(["sfdisk", "-q", str(path)], stdin=script.encode())


def debugfs(path: Path, request: str, first_mib: int) -> bytes:
    return run_tool(["debugfs", "-R", request, f"{path}?offset={first_mib * MIB}"])


def run_tool(argv: list[str], *, stdin: bytes = b"", folder: Path | None = None) -> bytes:
    env = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(argv, input=stdin, capture_output=True, timeout=60, env=env, cwd=folder, check=False)
    assert done.returncode == 0, f"{argv}: {done.returncode}: {done.stderr.decode()} {done.stdout.decode()}"
    return done.stdout
