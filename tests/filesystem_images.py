"""File systems in plain files, made and filled without a mount, and read back without the kernel.

Each kind is filled by its own makers (`mke2fs -d`, `mkfs.xfs -p`, `mkfs.btrfs --rootdir`, `sload.f2fs`, `mcopy`,
`makefs`) and read by another program of the same project (`debugfs`, `xfs_db`, `btrfs restore`, `dump.f2fs`, `mcopy`),
while the product changes them through the kernel. What cannot be made so (btrfs subvolumes, LVM) is made inside a VM:
see tests/real/snf_image_helper/fixture_machine.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from tests.disk_images import MIB, Device, Entry, Fifo, File, Folder, Link, Tree, debugfs, populate, run_tool

Kind = Literal["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "ufs", "swap"]

UUID = "11111111-2222-3333-4444-555555555555"
#: What a maker refuses to go below, in MiB: nobody should wonder why.
SMALLEST_MIB: Mapping[str, int] = {"xfs": 300, "btrfs": 128, "f2fs": 100}


def make_filesystem(
    path: Path, kind: Kind, *, mib: int, tree: Tree | None = None, label: str = "root", uuid: str = UUID
) -> Path:
    """A sparse file at `path` that holds one file system with `tree`, and nothing of a partition table."""
    assert mib >= SMALLEST_MIB.get(kind, 1), f"{kind} cannot be made with {mib} MiB, only {SMALLEST_MIB[kind]} and more"
    path.unlink(missing_ok=True)
    with open(path, "wb") as file:
        file.truncate(mib * MIB)
    whole = {name: entry for name, entry in (tree or {}).items() if entry is not None}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "tree")
        folder.mkdir()
        if kind == "swap":
            run_tool(["mkswap", "-q", "-L", label, "-U", uuid, str(path)])
        elif kind == "vfat":
            _make_vfat(path, whole, label, uuid, Path(work))
        elif kind == "xfs":
            protofile = Path(work, "prototype")
            protofile.write_text(_xfs_prototype(whole, Path(work)))
            run_tool(["mkfs.xfs", "-q", "-L", label, "-m", f"uuid={uuid}", "-p", str(protofile), str(path)])
        else:
            populate(folder, whole)
            _make_from_folder(path, kind, folder, label, uuid)
    return path


def _make_from_folder(path: Path, kind: Kind, folder: Path, label: str, uuid: str) -> None:
    if kind == "btrfs":
        run_tool(["mkfs.btrfs", "-q", "-L", label, "-U", uuid, "--rootdir", str(folder), str(path)])
    elif kind == "f2fs":
        run_tool(["mkfs.f2fs", "-q", "-f", "-l", label, "-U", uuid, str(path)])
        run_tool(["sload.f2fs", "-P", "-f", str(folder), str(path)])
    elif kind == "ufs":
        size = path.stat().st_size
        run_tool(["makefs", "-t", "ffs", "-o", "version=2", "-s", str(size), str(path), str(folder)])
    else:
        run_tool(["mke2fs", "-q", "-t", kind, "-L", label, "-U", uuid, "-E", "nodiscard", "-d", str(folder), str(path)])


def _make_vfat(path: Path, tree: Mapping[str, Entry], label: str, uuid: str, work: Path) -> None:
    """FAT has files and folders; its serial number are the first eight digits of `uuid`."""
    run_tool(["mkfs.vfat", "-n", label, "-i", uuid.replace("-", "")[:8], str(path)])
    made: set[str] = set()
    for name, entry in sorted(tree.items()):
        parents = [*Path(name).parents][-2::-1] + ([Path(name)] if isinstance(entry, Folder) else [])
        for folder in map(str, parents):
            if folder not in made:
                made.add(folder)
                run_tool(["mmd", "-i", str(path), f"::/{folder}"])
        if isinstance(entry, File):
            source = work / "file"
            source.write_bytes(_bytes(entry))
            run_tool(["mcopy", "-i", str(path), str(source), f"::/{name}"])


def _xfs_prototype(tree: Mapping[str, Entry], work: Path) -> str:
    """mkfs.xfs(8), -p: a nested listing, folders closed by $. It has no sticky bit."""
    whole: dict[str, Entry] = dict(tree)
    for name in tree:
        for parent in [*Path(name).parents][:-1]:
            whole.setdefault(str(parent), Folder())
    lines = ["/", "0 0", "d--755 0 0"]

    def list_folder(folder: str) -> None:
        for name, entry in sorted(whole.items()):
            if name.rpartition("/")[0] != folder:
                continue
            base = name.rpartition("/")[2]
            if isinstance(entry, Folder):
                lines.append(f"{base} d--{entry.mode & 0o777:03o} 0 0")
                list_folder(name)
                lines.append("$")
            elif isinstance(entry, Link):
                lines.append(f"{base} l--777 0 0 {entry.target}")
            elif isinstance(entry, Fifo):
                lines.append(f"{base} p--{entry.mode & 0o777:03o} 0 0")
            elif isinstance(entry, Device):
                lines.append(f"{base} {entry.kind}--644 0 0 {entry.major} {entry.minor}")
            else:
                source = work / f"file{len(lines)}"
                source.write_bytes(_bytes(entry))
                lines.append(f"{base} ---{entry.mode & 0o777:03o} {entry.uid} {entry.gid} {source}")

    list_folder("")
    return "\n".join([*lines, "$", ""])


def _bytes(file: File) -> bytes:
    return file.content if isinstance(file.content, bytes) else file.content.encode()


# --- reading back


def cut_out(disk: Path, target: Path, *, first_mib: int, mib: int | None = None) -> Path:
    """A part of a disk as a file of its own, sparse. Up to the disk's end without `mib`."""
    size = disk.stat().st_size - first_mib * MIB if mib is None else mib * MIB
    target.unlink(missing_ok=True)
    with open(target, "wb") as file:
        file.truncate(size)
    copy_into(disk, target, source_offset=first_mib * MIB, target_offset=0, size=size)
    return target


def copy_into(source: Path, target: Path, *, source_offset: int, target_offset: int, size: int) -> None:
    """Copy bytes between files, holes left out; the target was zeros there."""
    with open(source, "rb") as given, open(target, "r+b") as taken:
        at = source_offset
        while at < source_offset + size:
            try:
                start = os.lseek(given.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            end = min(os.lseek(given.fileno(), start, os.SEEK_HOLE), source_offset + size)
            while start < end:
                given.seek(start)
                data = given.read(min(MIB, end - start))
                taken.seek(target_offset + start - source_offset)
                taken.write(data)
                start += len(data)
            at = max(end, at + 1)


def read_file(filesystem: Path, name: str, kind: Kind, *, subvolume: int | None = None) -> bytes:
    """A file's content, by the file system's own tool; empty when there is none. Links are not followed.

    `subvolume` is the number of the btrfs subvolume to look into (5 is the top).
    """
    if kind in ("ext2", "ext3", "ext4"):
        return debugfs(filesystem, f"cat {name}", 0)
    if kind == "xfs":
        return _read_xfs(filesystem, name)
    with tempfile.TemporaryDirectory() as work:
        if kind == "vfat":
            copied = Path(work, "file")
            done = _try(["mcopy", "-n", "-i", str(filesystem), f"::{name}", str(copied)])
            return copied.read_bytes() if done == 0 else b""
        if kind == "btrfs":
            root = ["-r", str(subvolume)] if subvolume is not None else []
            run_tool(["btrfs", "restore", "-i", *root, str(filesystem), work])
            found = Path(work, name.lstrip("/"))
            return found.read_bytes() if found.is_file() else b""
        assert kind == "f2fs", kind
        return _read_f2fs(filesystem, name, Path(work))


def _read_xfs(filesystem: Path, name: str) -> bytes:
    db = ["xfs_db", "-r", "-f"]
    shown = subprocess.run(
        [*db, "-c", f"path {name}", "-c", "print core.size", "-c", "bmap", str(filesystem)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "core.size" not in shown.stdout:
        return b""
    size = int(re.findall(r"core.size = (\d+)", shown.stdout)[0])
    content = bytearray(size)
    with open(filesystem, "rb") as file:
        block = int.from_bytes(file.read(8)[4:8], "big")
    for offset, start, count in re.findall(r"data offset (\d+) startblock (\d+) \S+ count (\d+)", shown.stdout):
        byte = run_tool([*db, "-c", f"convert fsblock {start} byte", str(filesystem)]).decode()
        (at,) = re.findall(r"\((\d+)\)", byte)
        with open(filesystem, "rb") as file:
            file.seek(int(at))
            data = file.read(int(count) * block)
        content[int(offset) * block : int(offset) * block + len(data)] = data
    return bytes(content[:size])


def _read_f2fs(filesystem: Path, name: str, work: Path) -> bytes:
    """fsck.f2fs prints the tree with inode numbers; dump.f2fs writes a file by its number, when told y."""
    shown = run_tool(["fsck.f2fs", "-t", "--dry-run", str(filesystem)]).decode("utf-8", "replace")
    trail: list[str] = []
    number = None
    for depth, base, inode in re.findall(r"^((?:\|   )*)(?:\|-- |`-- )(.+?) <ino = (0x[0-9a-f]+)>", shown, re.M):
        trail[len(depth) // 4 :] = [base]
        if "/".join(trail) == name.lstrip("/"):
            number = inode
    if number is None:
        return b""
    run_tool(["dump.f2fs", "-i", number, str(filesystem)], stdin=b"y\n", folder=work)
    (found,) = (path for path in Path(work, "lost_found").iterdir())
    return found.read_bytes()


def check_clean(filesystem: Path, kind: Kind) -> None:
    """The file system's own checker finds nothing to mend."""
    checkers = {
        "xfs": ["xfs_repair", "-n", "-f"],
        "btrfs": ["btrfs", "check", "--readonly"],
        "f2fs": ["fsck.f2fs", "--dry-run"],
        "vfat": ["fsck.vfat", "-n"],
    }
    run_tool([*checkers.get(kind, ["e2fsck", "-fn"]), str(filesystem)])


def _try(argv: list[str]) -> int:
    env = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return subprocess.run(argv, capture_output=True, timeout=60, env=env, check=False).returncode
