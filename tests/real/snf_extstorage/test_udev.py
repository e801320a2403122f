"""A real systemd-udevd beside us while a guest's disk is attached (threat A15), with the package's rule and without.

The daemon has a mount namespace of its own, with its /run and /dev and only Debian's rules of storage; the kernel's
events come to it all the same, in a node of a lab too. Of other devices it looks into none. LVM is a script that notes
what it is asked.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from synnefo_light.units import MIB, Bytes
from tests.attack.corpus.signatures import lvm_volume
from tests.real.snf_extstorage.places import Site, make_loop_nodes, own_names

TREE = Path(__file__).resolve().parents[3]
RULE = TREE / "extstorage" / "58-snf-extstorage.rules"
RULES = ("60-block.rules", "60-persistent-storage.rules", "69-lvm.rules")
FOLDERS = (Path("lib/udev/rules.d"), Path("usr/lib/udev/rules.d"))
V, W = own_names(2)

START = """
set -e
rules=$1 udevd=$2 lvm=$3
mount -t tmpfs tmpfs /run
mkdir -p /run/udev /run/dev /run/none
cp -a /dev/null /dev/zero /dev/urandom /dev/loop* /run/dev/
mount --bind "$lvm" "$(readlink -f /sbin/lvm)"
mount --bind "$rules" /lib/udev/rules.d
[ ! -d /etc/udev/rules.d ] || mount --bind /run/none /etc/udev/rules.d
mount --bind /run/dev /dev
exec "$udevd"
"""
#: The note is in the daemon's own /run.
LVM = '#!/bin/sh\necho "$@" >>/run/asked-of-lvm\n'


@dataclass(frozen=True, slots=True)
class Udev:
    """Its namespace's files, and how to wait until it has done what the kernel told it."""

    root: Path
    settle: tuple[str, ...]

    def done(self) -> None:
        subprocess.run(self.settle, check=True, timeout=60)

    def links(self) -> dict[str, str]:
        """What it put below /dev/disk: path -> device."""
        disk = self.root / "dev" / "disk"
        return {str(p.relative_to(disk)): p.readlink().name for p in disk.rglob("*") if p.is_symlink()}

    def asked_of_lvm(self) -> list[str]:
        note = self.root / "run" / "asked-of-lvm"
        return note.read_text().splitlines() if note.exists() else []


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which packages that have what is missing here were taken apart."""
    work = tmp_path_factory.mktemp("udev")
    there = [Path("/bin/udevadm"), *(Path("/", FOLDERS[0], name) for name in RULES)]
    if not all(path.exists() for path in there):
        got = subprocess.run(
            ["apt-get", "download", "udev", "lvm2"], cwd=work, capture_output=True, text=True, check=False
        )
        if got.returncode != 0:
            pytest.skip(f"udev and lvm2 cannot be downloaded: {got.stderr.strip().splitlines()[-1:]}")
        for package in work.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, work], check=True, timeout=60)
    return work


def found(debian: Path, *names: str) -> Path:
    """Of several paths below / or below what was taken apart, the first that is there."""
    return next(path for root in (debian, Path("/")) for name in names if (path := root / name).exists())


@contextmanager
def running(debian: Path, folder: Path, site: Site, *, ours: bool) -> Iterator[Udev]:
    """systemd-udevd, with our rule or without it. Skips the test where there is no /sbin/lvm to put the script upon."""
    if not Path("/sbin/lvm").exists():
        pytest.skip("/sbin/lvm, of Debian's lvm2, is not there")
    rules, lvm = folder / "rules", folder / "lvm"
    rules.mkdir()
    for name in RULES:
        shutil.copy(found(debian, *(str(place / name) for place in FOLDERS)), rules)
    if ours:
        shutil.copy(RULE, rules)
    only = f'ATTRS{{loop/backing_file}}!="{site.place.root}/*", ENV{{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}}="1"\n'
    (rules / "10-only.rules").write_text(only)
    lvm.write_text(LVM)
    lvm.chmod(0o755)
    make_loop_nodes()
    udevadm, udevd = found(debian, "bin/udevadm"), folder / "systemd-udevd"
    udevd.symlink_to(udevadm)  # one program, which goes by its name
    words: list[str | Path] = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        START,
        "sh",
        rules,
        udevd,
        lvm,
    ]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        inside = ("nsenter", f"--target={daemon.pid}", "--mount", str(udevadm))
        try:
            udev = Udev(Path(f"/proc/{daemon.pid}/root"), (*inside, "settle", "--timeout=30"))
            subprocess.run(
                ["timeout", "30", "sh", "-c", f"until [ -S {udev.root}/run/udev/control ]; do sleep 0.05; done"],
                check=True,
            )
            subprocess.run([*inside, "control", "--ping"], check=True, timeout=60)
            yield udev
        finally:
            daemon.kill()


@pytest.mark.parametrize("ours", [True, False], ids=["rule", "control"])
def test_udev_neither_links_a_guests_file_system_nor_has_its_volume_group_scanned(
    site: Site, debian: Path, tmp_path: Path, *, ours: bool
) -> None:
    node = site.node()
    for name in (V, W):
        node.create(name, uuid=None, size=Bytes(48 * MIB))
    subprocess.run(["mke2fs", "-q", "-F", "-L", "guest", site.place.disk("volumes", V)], check=True, timeout=60)
    made = lvm_volume(tmp_path / "lvm-volume")
    with open(site.place.disk("volumes", W), "r+b") as disk:
        disk.write(made.read_bytes()[: 48 * MIB])
    with running(debian, tmp_path, site, ours=ours) as udev:
        devices = [str(node.attach(name).device) for name in (V, W)]
        assert all((udev.root / device.lstrip("/")).is_block_device() for device in devices)
        udev.done()
        links, asked = udev.links(), udev.asked_of_lvm()
        seen = [(udev.root / "run/udev/data" / f"b7:{device.removeprefix('/dev/loop')}").exists() for device in devices]
        for name in (V, W):
            node.detach(name)
        udev.done()
    if ours:
        assert (links, asked) == ({}, [])
    else:
        assert links["by-label/guest"] == Path(devices[0]).name
        assert [line for line in asked if line.startswith("pvscan") and line.endswith(devices[1])]
    assert seen == [True, True]  # the daemon has dealt with both
