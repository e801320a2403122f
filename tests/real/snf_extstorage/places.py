"""A file system that shares extents, made for these tests, and the scripts as Ganeti calls them."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from snf_extstorage.directory.engine import DirectoryVolumes
from snf_extstorage.directory.place import Place
from snf_extstorage.volume import Trace, no_trace

from synnefo_light.ganeti import VolumeName, cluster_name

TREE = Path(__file__).resolve().parents[3]
INSTALLED = Path("/usr/share/ganeti/extstorage/archipelago")
SCRIPTS = INSTALLED if INSTALLED.is_dir() else TREE / "extstorage" / "archipelago"


def own_names(count: int) -> tuple[VolumeName, ...]:
    """Names of an instance's disks, in their order, that no other run of tests on this machine has.

    A loop device is found again by its node and its volume's name, and all who share a kernel see each other's.
    """
    instance = uuid4()
    return tuple(VolumeName(f"{instance}.ext.disk{number}") for number in range(count))


@contextlib.contextmanager
def mounted_xfs(folder: Path, *, size: int) -> Iterator[Path]:
    """An XFS of `size` bytes that shares extents, in a file in `folder`."""
    image, mount = folder / "xfs.img", folder / "mnt"
    with open(image, "wb") as file:
        file.truncate(size)
    mount.mkdir()
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True, timeout=60)
    make_loop_nodes()
    subprocess.run(["mount", "-o", "loop", image, mount], check=True, timeout=60)
    try:
        yield mount
    finally:
        release(mount)
        subprocess.run(["umount", "--lazy", mount], check=True, timeout=60)


def make_loop_nodes() -> None:
    """A container's /dev lacks the nodes of devices that were added since."""
    for number in range(64):
        if not Path(f"/dev/loop{number}").exists() and Path(f"/sys/block/loop{number}").exists():
            os.mknod(f"/dev/loop{number}", 0o660 | stat.S_IFBLK, os.makedev(7, number))


def release(mount: Path) -> None:
    """Clear what a test that failed left on files in there, which would keep the file system busy."""
    listed = subprocess.run(
        ["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"], capture_output=True, text=True, check=True
    )
    for line in listed.stdout.splitlines():
        name, _, file = line.partition(" ")
        if file.strip().startswith(f"{mount}/"):
            subprocess.run(["blockdev", "--setrw", name], check=False, timeout=60)
            subprocess.run(["losetup", "--detach", name], check=False, timeout=60)


@dataclass
class Site:
    """One folder of volumes, as several nodes see it."""

    place: Place
    hints: Path

    def node(self, name: str = "node1", trace: Trace = no_trace) -> DirectoryVolumes:
        return DirectoryVolumes(self.place, node=name, hints=self.hints / name, cluster=cluster_name(), trace=trace)

    def config(self, node: str = "node1") -> Path:
        """The configuration file of one node."""
        self.hints.mkdir(parents=True, exist_ok=True)
        path = self.hints / f"{node}.toml"
        path.write_text(f'folder = "{self.place.root}"\nrun = "{self.hints}/{node}"\nnode = "{node}"\n')
        return path

    def script_env(self, volume: str, *, node: str = "node1", **more: str) -> dict[str, str]:
        return {
            "LC_ALL": "C",
            "SNF_STORE_CONFIG": str(self.config(node)),
            "EXTP_PROVIDER": "archipelago",
            "EXTP_ACCESS": "kernelspace",
            "VOL_NAME": volume,
            "VOL_UUID": "efa8d6e0-c062-4b14-b829-467e6499f266",
            **more,
        }

    def script(self, name: str, volume: str, *, node: str = "node1", **more: str) -> subprocess.CompletedProcess[str]:
        given = self.script_env(volume, node=node, **more)
        return subprocess.run(
            [SCRIPTS / name], cwd=SCRIPTS, env=given, capture_output=True, text=True, timeout=60, check=False
        )


def read(path: str, count: int = 4096) -> bytes:
    """The first bytes of a device as another program gets them, past our page cache."""
    words = ["dd", f"if={path}", "bs=4096", f"count={count // 4096}", "iflag=direct", "status=none"]
    return subprocess.run(words, check=True, capture_output=True, timeout=60).stdout


def write(path: str, data: bytes, *, block: int = 0) -> bool:
    """Whether dd could write this at a block of 4 KiB of a device."""
    words = ["dd", f"of={path}", "bs=4096", f"seek={block}", "oflag=direct", "conv=notrunc,fsync", "status=none"]
    return subprocess.run(words, input=data, check=False, capture_output=True, timeout=60).returncode == 0
