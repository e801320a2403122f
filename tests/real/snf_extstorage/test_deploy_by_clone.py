"""snf-image on disks that are clones: what the host writes is counted by what the file does not share any more."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from snf_extstorage.directory import contents
from snf_image_host.journal import Cloned, CopyDone, Warned

from synnefo_light.ganeti import VolumeName
from synnefo_light.units import MIB
from tests.deployments import Outcome
from tests.real.snf_extstorage.places import Site, read, write
from tests.real.snf_extstorage.test_images import snf_store
from tests.real.snf_extstorage.test_scripts import COMMAND
from tests.real.snf_image_host.node import Fake, fake_node

UUID = "efa8d6e0-c062-4b14-b829-467e6499f266"
#: Loop devices are known to their node by the volume's name, all over the kernel.
V = f"{uuid4()}.ext.disk0"
SIZE_MIB = 16
EVERYTHING = '{"EXCLUDE_ALL_TASKS": "yes"}'
#: Of the image in `store`: its zeros are holes.
DATA = 4 * MIB


@dataclass
class Cluster:
    """A node with the OS definition, the store, and one instance whose disk is a volume."""

    node: Fake
    site: Site
    device: str = ""

    def make(self, **options: str) -> None:
        """As `gnt-instance add` does before it calls the OS definition."""
        self.script("create", VOL_SIZE=str(SIZE_MIB), **{f"EXTP_{k.upper()}": v for k, v in options.items()})
        self.device = self.script("attach").split("\n")[0]
        self.script("open", VOL_OPEN_EXCLUSIVE="True")

    def script(self, name: str, **more: str) -> str:
        done = self.site.script(name, V, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def replace_store(self, before: str = ":") -> None:
        """The command snf-store of this node does something `before`, in the words of a shell."""
        command = self.node.folder / "snf-store"
        command.write_text(f'#!/bin/sh\n{before}\nSNF_STORE_CONFIG={self.site.config()} exec {COMMAND} "$@"\n')
        command.chmod(0o755)

    def deploy(self, image: str = "store://debian", **more: str) -> Outcome:
        given = {"img_id": image, "img_format": "-", "DISK_0_SIZE": str(SIZE_MIB), "DISK_0_UUID": UUID} | more
        return self.node.create(Path(self.device), **given)

    def changed(self) -> int:
        """Bytes of the volume that are not shared with the image."""
        done = snf_store(self.site, "volume", "compare", "--json", UUID, "debian")
        found: int = json.loads(done.stdout)["changed"]
        return found

    def told(self) -> tuple[CopyDone, Warned]:
        copied, warned = (r for r in self.node.records() if isinstance(r, CopyDone | Warned))
        if isinstance(copied, Warned):
            copied, warned = warned, copied
        assert isinstance(copied, CopyDone)
        assert isinstance(warned, Warned)
        return copied, warned

    def golden(self) -> tuple[str | None, str | None]:
        """OSFAMILY and the parent of a snapshot."""
        name = f"golden-{uuid4()}"
        self.script("setinfo", VOL_METADATA="originstname+web1")
        done = snf_store(self.site, "snapshot", "--no-commit", "web1", name)
        assert done.returncode == 0, done.sentence
        found = shown(self.site, name)
        return found["properties"].get("OSFAMILY"), found["parent"]

    def content(self) -> bytes:
        return read(self.device, SIZE_MIB * MIB)


def shown(site: Site, name: str) -> Any:
    return json.loads(snf_store(site, "image", "show", "--json", name).stdout)


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    """Half of it is a hole."""
    content = os.urandom(DATA // 2) + bytes(DATA) + os.urandom(DATA // 2)
    (tmp_path / "image.raw").write_bytes(content)
    return content


@pytest.fixture
def cluster(site: Site, tmp_path: Path, image: bytes) -> Iterator[Cluster]:
    """With a helper VM that is not one: it writes a few bytes at 2 MiB."""
    with fake_node() as node:
        assert snf_store(site, "init").returncode == 0
        done = snf_store(site, "image", "add", "--property", "OSFAMILY=linux", "debian", tmp_path / "image.raw")
        assert done.returncode == 0, done.sentence
        found = Cluster(node=node, site=site)
        found.replace_store()
        node.configure(snf_store=str(node.folder / "snf-store"))
        yield found


def test_onto_a_clone_the_host_writes_not_a_byte_and_a_reinstall_makes_it_one_again(
    cluster: Cluster, image: bytes
) -> None:
    cluster.make(origin="debian")
    done = cluster.deploy(img_properties=EVERYTHING)
    assert done.returncode == 0, done.output
    assert cluster.changed() == 0
    assert "disk 0 is a clone of debian that nobody wrote to: nothing is copied" in done.output
    assert Cloned(volume=V) in cluster.node.records()
    assert not [r for r in cluster.node.records() if isinstance(r, CopyDone | Warned)]
    # The helper's write is all that there is with one.
    assert cluster.deploy().returncode == 0
    assert 0 < cluster.changed() <= MIB
    assert cluster.content().replace(b"written by the fake helper", image[2 * MIB : 2 * MIB + 26]) == image.ljust(
        SIZE_MIB * MIB, b"\0"
    )
    for block in (0, 1500, SIZE_MIB * 256 - 1):
        assert write(cluster.device, b"A" * 4096, block=block)
    done = cluster.deploy(img_properties=EVERYTHING, INSTANCE_REINSTALL="1")
    assert done.returncode == 0, done.output
    assert "disk 0 was written to and becomes a clone of debian again: nothing is copied" in done.output
    assert not [r for r in cluster.node.records() if isinstance(r, Warned | CopyDone)]
    assert cluster.changed() == 0
    assert cluster.content() == image.ljust(SIZE_MIB * MIB, b"\0")


def test_onto_any_other_volume_the_image_is_copied_each_block_proved_and_a_warning_says_so(
    cluster: Cluster, image: bytes, tmp_path: Path
) -> None:
    """The control: the same, with another origin."""
    (tmp_path / "other").write_bytes(os.urandom(MIB))
    assert snf_store(cluster.site, "image", "add", "other", tmp_path / "other").returncode == 0
    cluster.make(origin="other")
    done = cluster.deploy(img_properties=EVERYTHING)
    assert done.returncode == 0, done.output
    copied, warned = cluster.told()
    assert copied.written == DATA
    assert "made with origin=debian" in warned.text
    assert cluster.content() == image.ljust(SIZE_MIB * MIB, b"\0")
    assert cluster.changed() >= DATA
    block = max(cluster.site.place.root.glob("store/blocks/**/*"), key=lambda p: p.is_file() and p.stat().st_size)
    block.chmod(0o600)
    with open(block, "r+b") as file:
        file.write(b"damage")
    done = cluster.deploy(img_properties=EVERYTHING)
    assert (done.returncode, "has other bytes than its name says" in done.sentence) == (3, True), done.output
    assert "both ends of its disk were wiped" in done.sentence
    assert cluster.content()[:MIB] == bytes(MIB)


def test_a_snapshot_has_the_properties_of_what_was_deployed_last_and_none_of_what_is_not_known(
    cluster: Cluster, tmp_path: Path
) -> None:
    # Two names of one content, and which of them was meant nobody knows.
    for name, file, family in (("other", "a", "windows"), ("same", "b", "linux"), ("twin", "b", "freebsd")):
        (tmp_path / file).write_bytes(file.encode() * MIB)
        added = snf_store(cluster.site, "image", "add", "--property", f"OSFAMILY={family}", name, tmp_path / file)
        assert added.returncode == 0, added.sentence
    cluster.make(origin="debian")
    found = [cluster.golden()]
    # Reinstalled from another image: it becomes that one without a copy.
    assert cluster.deploy("store://other", img_properties=EVERYTHING, INSTANCE_REINSTALL="1").returncode == 0
    found.append(cluster.golden())
    # As a new instance: that one is copied.
    assert cluster.deploy(img_properties=EVERYTHING).returncode == 0
    found.append(cluster.golden())
    (cluster.node.folder / "images" / "local.raw").write_bytes(os.urandom(MIB))
    local = {"img_format": "diskdump", "img_properties": EVERYTHING}
    assert cluster.deploy("local://local.raw", **local).returncode == 0
    found.append(cluster.golden())
    assert cluster.deploy("store://same", img_properties=EVERYTHING).returncode == 0
    found.append(cluster.golden())
    debian, other, same = (shown(cluster.site, name)["map"] for name in ("debian", "other", "same"))
    assert found == [("linux", debian), ("windows", other), ("linux", debian), (None, None), (None, same)]


def test_a_copy_that_failed_leaves_nothing_known(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(os.urandom(MIB))
    assert snf_store(cluster.site, "image", "add", "other", tmp_path / "other").returncode == 0
    cluster.make(origin="other")
    cluster.replace_store('[ "$2" != export ] || { echo "snf-store: torn" >&2; exit 5; }')
    assert cluster.deploy(img_properties=EVERYTHING).returncode == 5
    cluster.replace_store()
    assert cluster.golden() == (None, None)


def test_a_disk_of_other_storage_is_copied_onto_if_verify_finds_the_image(cluster: Cluster, image: bytes) -> None:
    disk = cluster.node.disk(SIZE_MIB, pattern=b"former tenant! ")
    none = cluster.node.call("verify", disk, img_id="store://debain", img_format="-")
    assert (none.returncode, "there is no image, snapshot or object debain" in none.sentence) == (2, True)
    fine = cluster.node.call("verify", disk, img_id="store://debian", img_format="-")
    assert fine.returncode == 0, fine.output
    cluster.device = str(disk)
    done = cluster.deploy(img_properties=EVERYTHING)
    assert done.returncode == 0, done.output
    copied, warned = cluster.told()
    assert copied.written == DATA
    assert "disk 0 is no volume of the store" in warned.text
    assert disk.read_bytes() == image.ljust(SIZE_MIB * MIB, b"\0")
    cluster.node.configure(snf_store="snf-store-that-is-not-there")
    absent = cluster.node.call("verify", disk, img_id="store://debian", img_format="-")
    assert (absent.returncode, "install the package snf-extstorage" in absent.sentence) == (3, True)


def test_a_failure_wipes_the_ends_of_the_clone_and_the_next_one_is_whole(cluster: Cluster, image: bytes) -> None:
    cluster.make(origin="debian")
    cluster.node.behave("fails-at:hostname")
    done = cluster.deploy()
    assert (done.returncode, "both ends of its disk were wiped" in done.sentence) == (4, True), done.output
    assert cluster.content()[:MIB] == bytes(MIB)
    cluster.node.behave("good")
    done = cluster.deploy(img_properties=EVERYTHING, INSTANCE_REINSTALL="1")
    assert done.returncode == 0, done.output
    assert cluster.content() == image.ljust(SIZE_MIB * MIB, b"\0")


def test_a_reinstall_that_is_refused_its_new_beginning_leaves_the_old_system(cluster: Cluster, image: bytes) -> None:
    cluster.make(origin="debian")
    assert write(cluster.device, b"A" * 4096)
    assert write(cluster.device, b"A" * 4096, block=SIZE_MIB * 256 - 1)
    old = cluster.content()
    filler = cluster.site.place.root.parent / "filler"
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 1200 * MIB)
    config = cluster.site.config()
    config.write_text(f"{config.read_text()}reserve_percent = 50\n")
    try:
        done = cluster.deploy(img_properties=EVERYTHING, INSTANCE_REINSTALL="1")
    finally:
        filler.unlink()
    assert (done.returncode, "its disk was not touched" in done.sentence) == (3, True), done.output
    assert "are reserved" in done.sentence
    assert cluster.content() == old
    # The control: with room it begins anew.
    cluster.site.config()
    done = cluster.deploy(img_properties=EVERYTHING, INSTANCE_REINSTALL="1")
    assert done.returncode == 0, done.output
    assert cluster.content() == image.ljust(SIZE_MIB * MIB, b"\0")


@pytest.mark.parametrize("code", [6, 70])
def test_a_new_beginning_that_failed_half_way_or_nobody_knows_where_is_wiped(cluster: Cluster, code: int) -> None:
    cluster.make(origin="debian")
    assert write(cluster.device, b"A" * 4096)
    cluster.replace_store(f'[ "$2" != reset ] || {{ echo "snf-store: half of it" >&2; exit {code}; }}')
    done = cluster.deploy(img_properties=EVERYTHING, INSTANCE_REINSTALL="1")
    assert done.returncode == (6 if code == 6 else 4)
    assert "half of it" in done.sentence
    assert "both ends of its disk were wiped" in done.sentence
    assert cluster.content()[:MIB] == bytes(MIB)


def test_what_fails_after_the_first_byte_is_told_from_a_refusal(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, whole: int) -> None:
        raise OSError(errno.EIO, "an error of the disk")

    cluster.make(origin="debian")
    (base,) = cluster.site.node().bases()
    monkeypatch.setattr(contents, "overwrite", fail)
    done = snf_store(cluster.site, "volume", "reset", V, "debian")
    assert (done.returncode, "in part only" in done.sentence) == (6, True), done
    assert cluster.site.node().facts(VolumeName(V)).origin is None
    monkeypatch.undo()
    assert snf_store(cluster.site, "volume", "reset", V, "debian").returncode == 0
    assert cluster.site.node().facts(VolumeName(V)).origin == base


def test_a_disk_that_is_in_use_or_not_open_here_does_not_become_an_image_again(cluster: Cluster) -> None:
    def refusal() -> str:
        done = snf_store(cluster.site, "volume", "reset", V, "debian")
        assert done.returncode == 3
        return done.sentence

    cluster.make(origin="debian")
    assert write(cluster.device, b"A" * 4096)
    # We have it open too, as snf-image has, which is no hindrance: we wait for the command.
    with open(cluster.device, "rb") as device, subprocess.Popen(["sleep", "60"], stdin=device) as user:
        assert f"sleep (pid {user.pid}) has it; stop that first" in refusal()
        user.kill()
    cluster.script("close")
    assert "which only its one writer may; that is nobody" in refusal()
    assert read(cluster.device) == b"A" * 4096
