"""snf-image on disks that are clones: what the host writes is counted by what the file does not share any more."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from snf_image_host.journal import Cloned, CopyDone, Warned

from synnefo_light.units import MIB
from tests.deployments import Outcome
from tests.disk_images import check_filesystem, make_disk, read_back
from tests.real.snf_extstorage.places import Site, read, write
from tests.real.snf_extstorage.test_scripts import COMMAND, snf_store
from tests.real.snf_image_host.node import COMMAND as SNF_IMAGE
from tests.real.snf_image_host.node import Fake, fake_node, real_helper

UUID = "efa8d6e0-c062-4b14-b829-467e6499f266"
#: Loop devices are known to their node by the volume's name, all over the kernel.
V = f"{uuid4()}.ext.disk0"
SIZE_MIB = 96
EVERYTHING = '{"EXCLUDE_ALL_TASKS": "yes"}'
#: Of the image in `store`: its zeros are holes.
DATA = 16 * MIB


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

    def deploy(self, image: str = "store://debian", **more: str) -> Outcome:
        given = {"img_id": image, "img_format": "-", "DISK_0_SIZE": str(SIZE_MIB), "DISK_0_UUID": UUID} | more
        return self.node.create(Path(self.device), **given)

    def changed(self) -> int:
        """Bytes of the volume that are not shared with the image."""
        done = snf_store(self.site, "volume", "compare", "--json", UUID, "debian")
        found: int = json.loads(done.stdout)["changed"]
        return found

    def content(self) -> bytes:
        return read(self.device, SIZE_MIB * MIB)


def cluster_of(node: Fake, site: Site, image: Path) -> Cluster:
    """Both programs know of each other: `image` is registered with the help of snf-image if it is not raw."""
    assert snf_store(site, "init").returncode == 0
    config, store, host = (node.folder / name for name in ("snf-store.toml", "snf-store", "snf-image"))
    config.write_text(f'{site.config().read_text()}snf_image = "{host}"\n')
    store.write_text(f'#!/bin/sh\nSNF_STORE_CONFIG={config} exec {COMMAND} "$@"\n')
    host.write_text(f'#!/bin/sh\nSNF_IMAGE_CONFIG={node.folder}/snf-image.toml exec {SNF_IMAGE} "$@"\n')
    for program in (store, host):
        program.chmod(0o755)
    words = ["image", "add", "--property", "OSFAMILY=linux", "debian"]
    done = subprocess.run([store, *words, image], capture_output=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return Cluster(node=node, site=site)


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
        found = cluster_of(node, site, tmp_path / "image.raw")
        node.configure(snf_store=str(node.folder / "snf-store"))
        yield found


def test_onto_a_clone_the_host_writes_not_a_byte(cluster: Cluster, image: bytes) -> None:
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


@pytest.mark.parametrize("made", ["another image", "elsewhere"])
def test_onto_any_other_disk_the_image_is_copied_and_a_warning_says_so(
    cluster: Cluster, image: bytes, tmp_path: Path, made: str
) -> None:
    """The control: the same, without a matching origin."""
    if made == "another image":
        (tmp_path / "other").write_bytes(os.urandom(MIB))
        assert snf_store(cluster.site, "image", "add", "other", tmp_path / "other").returncode == 0
    cluster.make(**({"origin": "other"} if made == "another image" else {}))
    if made == "elsewhere":
        cluster.device = str(cluster.node.disk(SIZE_MIB, pattern=b"former tenant! "))
    done = cluster.deploy(
        img_properties=EVERYTHING, **({"DISK_0_UUID": UUID.replace("e", "f")} if made == "elsewhere" else {})
    )
    assert done.returncode == 0, done.output
    (copied,) = (r for r in cluster.node.records() if isinstance(r, CopyDone))
    assert copied.written == DATA
    (warned,) = (r for r in cluster.node.records() if isinstance(r, Warned))
    assert "origin=debian" in warned.text
    found = Path(cluster.device).read_bytes() if made == "elsewhere" else cluster.content()
    assert found[: len(image)] == image
    assert found[-MIB:] == bytes(MIB)
    if made != "elsewhere":
        assert cluster.changed() >= DATA


def test_a_reinstall_makes_the_disk_a_clone_again_and_copies_nothing(cluster: Cluster, image: bytes) -> None:
    cluster.make(origin="debian")
    assert cluster.deploy(img_properties=EVERYTHING).returncode == 0
    for block in (0, 5000, SIZE_MIB * 256 - 1):
        assert write(cluster.device, b"A" * 4096, block=block)
    done = cluster.deploy(img_properties=EVERYTHING, INSTANCE_REINSTALL="1")
    assert done.returncode == 0, done.output
    assert "disk 0 was written to and becomes a clone of debian again: nothing is copied" in done.output
    assert not [r for r in cluster.node.records() if isinstance(r, Warned | CopyDone)]
    assert cluster.changed() == 0
    assert cluster.content() == image.ljust(SIZE_MIB * MIB, b"\0")


def test_a_disk_that_is_in_use_or_not_open_here_does_not_become_an_image_again(cluster: Cluster) -> None:
    def refusal() -> str:
        done = snf_store(cluster.site, "volume", "reset", V, "debian")
        assert done.returncode == 3
        return done.stderr.decode()

    cluster.make(origin="debian")
    assert write(cluster.device, b"A" * 4096)
    # We have it open too, as snf-image has, which is no hindrance: we wait for the command.
    with open(cluster.device, "rb") as device, subprocess.Popen(["sleep", "60"], stdin=device) as user:
        assert f"sleep (pid {user.pid}) has it; stop that first" in refusal()
        user.kill()
    cluster.script("close")
    assert "which only its one writer may; that is nobody" in refusal()
    assert read(cluster.device) == b"A" * 4096


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


def test_verify_knows_whether_there_is_such_an_image(cluster: Cluster) -> None:
    disk = cluster.node.disk(16)
    fine = cluster.node.call("verify", disk, img_id="store://debian", img_format="-")
    assert fine.returncode == 0, fine.output
    none = cluster.node.call("verify", disk, img_id="store://debain", img_format="-")
    assert (none.returncode, "there is no image, snapshot or object debain" in none.sentence) == (2, True)
    cluster.node.configure(snf_store="snf-store-that-is-not-there")
    absent = cluster.node.call("verify", disk, img_id="store://debian", img_format="-")
    assert (absent.returncode, "install the package snf-extstorage" in absent.sentence) == (3, True)


def test_an_image_that_is_damaged_in_the_store_does_not_become_a_system(cluster: Cluster) -> None:
    cluster.make()
    block = max(cluster.site.place.root.glob("store/blocks/**/*"), key=lambda p: p.is_file() and p.stat().st_size)
    block.chmod(0o600)
    with open(block, "r+b") as file:
        file.write(b"damage")
    done = cluster.deploy(img_properties=EVERYTHING)
    assert (done.returncode, "has other bytes than its name says" in done.sentence) == (3, True), done.output
    assert "both ends of its disk were wiped" in done.sentence
    assert cluster.content()[:MIB] == bytes(MIB)


@pytest.mark.vm
def test_a_qcow2_is_registered_and_an_instance_on_its_clone_is_whole(site: Site, tmp_path: Path) -> None:
    helper = real_helper()
    if helper is None:
        pytest.skip("the helper VM's image is not built; SNF_HELPER_IMAGE names the folder of one")
    with fake_node(helper=helper) as node:
        raw, packed = make_disk(tmp_path / "image.raw"), tmp_path / "image.qcow2"
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, packed], check=True, timeout=60)
        node.configure(qemu=None, tcg_limit_s=120, snf_store=str(node.folder / "snf-store"))
        cluster = cluster_of(node, site, packed)
        exported = tmp_path / "exported"
        assert snf_store(site, "image", "export", "debian", exported).returncode == 0
        assert subprocess.run(["cmp", raw, exported], check=False).returncode == 0
        assert not [p for p in site.place.root.iterdir() if p.name.startswith("tmp")]
        cluster.make(origin="debian")
        done = cluster.deploy(img_passwd="correct horse")
        assert done.returncode == 0, done.output
        assert Cloned(volume=V) in node.records()
        disk = tmp_path / "read"
        subprocess.run(["cp", "--sparse=always", cluster.device, disk], check=True, timeout=60)
        check_filesystem(disk)
        assert read_back(disk, "/etc/hostname") == b"web1\n"
        assert node.alive() == []
