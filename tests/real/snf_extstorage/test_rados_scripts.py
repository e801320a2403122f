"""The scripts of both providers and snf-store on a real Ceph, as Ganeti and an administrator call them."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from snf_extstorage.commands import reconcile
from snf_extstorage.rados.elsewhere import Elsewhere
from snf_extstorage.rados.images import Images
from snf_extstorage.rados.places import Places
from snf_extstorage.rados.provider import Rados, parse_disk, provider
from snf_extstorage.settings import load_settings
from snf_lab.ceph import CLIENT

from synnefo_light.ganeti import CreateEnv, SnapshotEnv, VolumeName
from synnefo_light.units import MiB
from tests import child
from tests.real.snf_extstorage.places import TREE
from tests.real.snf_extstorage.rados_site import DATA_POOL, MIB, POOL, STORE_POOL, RadosSite

INSTALLED = Path("/usr/share/ganeti/extstorage/rados")
ROOM = INSTALLED.parent if INSTALLED.is_dir() else TREE / "extstorage"
COMMAND = Path("/usr/sbin/snf-store") if INSTALLED.is_dir() else TREE / "extstorage" / "snf-store"
UUID = "efa8d6e0-c062-4b14-b829-467e6499f266"


@dataclass(frozen=True, slots=True)
class Site:
    """A node's configuration for the tests' Ceph."""

    config: Path

    def script(self, provider: str, name: str, volume: str, **more: str) -> subprocess.CompletedProcess[str]:
        environ = {
            "SNF_STORE_CONFIG": str(self.config),
            "EXTP_PROVIDER": provider,
            "EXTP_ACCESS": "userspace",
            "VOL_NAME": volume,
            "VOL_UUID": UUID,
        }
        folder = ROOM / provider
        return subprocess.run(
            [folder / name], cwd=folder, env=environ | more, capture_output=True, text=True, timeout=100, check=False
        )

    def command(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        environ = {"SNF_STORE_CONFIG": str(self.config), "PATH": os.environ["PATH"]}
        return subprocess.run([COMMAND, *words], env=environ, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture
def scripts(rados: RadosSite, tmp_path: Path) -> Iterator[Site]:
    config = tmp_path / "snf-store.toml"
    config.write_text(
        f'engine = "rados"\nnode = "node1"\nrun = "{tmp_path}/run"\n[ceph]\nconf = "{rados.ceph.client_conf}"\n'
        f'user = "{CLIENT}"\npool = "{POOL}"\nstore_pool = "{STORE_POOL}"\nstore_namespace = "site-{uuid4()}"\n'
        'user_in_uri = "always"\n'
    )
    yield Site(config=config)


def test_a_plain_disk_lives_and_goes_through_the_scripts(rados: RadosSite, scripts: Site, name: VolumeName) -> None:
    def call(script: str, **more: str) -> str:
        done = scripts.script("rados", script, name, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for _ in range(2):
        assert call("create", VOL_SIZE="16", EXTP_OBJECT_SIZE="64K") == ""
    assert call("attach") == f"\nkvm:rbd:{POOL}/{name}:id={CLIENT}"
    call("open", VOL_OPEN_EXCLUSIVE="True")
    call("setinfo", VOL_METADATA="originstname+web1")
    assert rados.write(name, "A")
    call("grow", VOL_SIZE="16", VOL_NEW_SIZE="32")
    assert len(rados.read(name, count=64 * MIB)) == 32 * MIB
    assert "order 16 (64 KiB objects)" in rados.ceph.run(["rbd", "info", f"{POOL}/{name}"]).text

    frozen = f"{name}.snap"
    call("snapshot", VOL_SNAPSHOT_NAME=frozen, VOL_SNAPSHOT_SIZE="32")
    call("snapshot", VOL_SNAPSHOT_NAME=frozen, VOL_SNAPSHOT_SIZE="32")
    assert rados.write(name, "B")
    assert rados.read(frozen) == b"A" * 4096
    assert scripts.script("rados", "attach", frozen).stdout == f"\nkvm:rbd:{POOL}/{frozen}:id={CLIENT}"
    assert scripts.script("rados", "remove", frozen).returncode == 0

    call("detach")
    for _ in range(2):
        call("remove")
    assert name not in rados.images_there()
    assert scripts.script("rados", "attach", name).returncode == 2


def test_a_disk_begins_as_a_snapshot_of_any_image(rados: RadosSite, scripts: Site, name: VolumeName) -> None:
    image = f"golden-{uuid4()}"
    rados.ceph.run(["rbd", "create", "--size", "16", f"{POOL}/{image}"])
    assert rados.write(image, "G")
    rados.ceph.run(["rbd", "snap", "create", "--no-progress", f"{POOL}/{image}@v1"])
    refused = scripts.script("rados", "create", name, VOL_SIZE="16", EXTP_ORIGIN=f"{image}@v2")
    assert refused.returncode == 2
    assert f"there is no image {image}@v2" in refused.stderr.splitlines()[-1]
    refused = scripts.script("rados", "create", name, VOL_SIZE="8", EXTP_ORIGIN=f"{image}@v1")
    assert "ask for that much" in refused.stderr.splitlines()[-1]
    done = scripts.script("rados", "create", name, VOL_SIZE="32", EXTP_ORIGIN=f"{image}@v1")
    assert done.returncode == 0, done.stderr
    assert rados.read(name, count=64 * MIB) == b"G" * 4096 + bytes(32 * MIB - 4096)
    assert f"parent: {POOL}/{image}@v1" in rados.ceph.run(["rbd", "info", f"{POOL}/{name}"]).text


def test_where_a_disk_is_counts_when_it_is_made_and_a_change_later_loses_nothing(
    rados: RadosSite, scripts: Site, name: VolumeName
) -> None:
    """An administrator modifies a disk's parameters while it exists; Ganeti passes the new ones from then on."""
    made = {"EXTP_POOL": DATA_POOL, "EXTP_FENCE": "no"}
    changed = {"EXTP_POOL": "none", "EXTP_USER": "nobody", "EXTP_FENCE": "perhaps", "EXTP_OBJECT_SIZE": "3"}

    def call(script: str, volume: str = name, **more: str) -> str:
        done = scripts.script("rados", script, volume, **changed, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert scripts.script("rados", "create", name, VOL_SIZE="16", **made).returncode == 0
    for _ in range(2):
        assert scripts.script("rados", "create", name, VOL_SIZE="16", **made).returncode == 0
    refused = scripts.script("rados", "create", name, VOL_SIZE="16")
    assert f"it was made in pool {DATA_POOL}" in refused.stderr.splitlines()[-1]
    assert call("attach") == f"\nkvm:rbd:{DATA_POOL}/{name}:id={CLIENT}"
    call("open", VOL_OPEN_EXCLUSIVE="True")
    call("grow", VOL_SIZE="16", VOL_NEW_SIZE="32")
    call("setinfo", VOL_METADATA="originstname+web1")
    call("snapshot", VOL_SNAPSHOT_NAME=f"{name}.snap", VOL_SNAPSHOT_SIZE="32")
    assert f"{DATA_POOL}/{name}.snap" in call("attach", f"{name}.snap")
    call("detach")
    there = set(rados.ceph.run(["rbd", "ls", DATA_POOL]).text.split())
    assert {name, f"{name}.snap"} <= there
    for volume in (name, f"{name}.snap"):
        call("remove", volume)
    there = set(rados.ceph.run(["rbd", "ls", DATA_POOL]).text.split())
    assert {name, f"{name}.snap"} & there == set()
    listed = rados.ceph.run(["rados", "-p", POOL, "listomapkeys", "snf.places"]).text
    assert name not in listed
    # The name is free again, in any pool.
    assert scripts.script("rados", "create", name, VOL_SIZE="16").returncode == 0
    assert name in rados.images_there()


def kill_after(method: str, scripts: Site, act: Callable[[Rados], object], *, pool: str) -> None:
    """A child does it with a disk in that pool, and is killed when RBD has done this."""

    def act_and_die() -> None:
        real = getattr(Images, method)

        def die(*given: object, **named: object) -> None:
            real(*given, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(Images, method, die)
        os.environ["SNF_STORE_CONFIG"] = str(scripts.config)
        act(provider({"pool": pool}))

    assert child.was_killed(child.start(act_and_die)), f"it did not come to {method}"


def in_pool(rados: RadosSite, pool: str, name: str) -> list[str]:
    """What there is of a disk: images, records, and where it is."""
    listed = rados.ceph.run(["rbd", "ls", pool]).text.split()
    for place, table in ((pool, "snf.volumes"), (POOL, "snf.places")):
        there = rados.ceph.run(["rados", "-p", place, "listomapkeys", table], ok=(0, 2))
        listed += [f"{table}/{key}" for key in there.text.split()]
    return sorted(one for one in listed if name in one)


def test_what_the_dead_left_in_any_pool_is_told_and_swept(
    rados: RadosSite, scripts: Site, name: VolumeName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = CreateEnv(volume=name, uuid=UUID, cname=None, access="userspace", params={"pool": DATA_POOL}, size=MiB(16))
    kill_after("create", scripts, lambda disks: disks.create(made), pool=DATA_POOL)
    assert in_pool(rados, DATA_POOL, name) == [name, f"snf.places/{name}", f"snf.volumes/{name}"]
    assert scripts.command("init").returncode == 0
    told = scripts.command("fsck")
    assert (told.returncode, f"pool {DATA_POOL}: volume {name} is half made" in told.stdout) == (4, True)
    plain = Site(config=tmp_path / "plain.toml")  # a site with such disks and nothing else of ours
    given = scripts.config.read_text().replace('engine = "rados"', f'engine = "directory"\nfolder = "{tmp_path}/none"')
    plain.config.write_text(given)
    told = plain.command("fsck")
    assert (told.returncode, f"pool {DATA_POOL}: volume {name} is half made" in told.stdout) == (3, True)
    assert scripts.command("gc", "--do").returncode == 0
    assert len(in_pool(rados, DATA_POOL, name)) == 3, "its maker may live"

    monkeypatch.setattr("snf_extstorage.rados.engine.LEFT_S", -5)
    monkeypatch.setattr("snf_extstorage.rados.elsewhere.LEFT_S", -5)
    settings = load_settings(scripts.config)
    gone = [text for text in Elsewhere(settings).sweep() if name in text]
    assert gone == [
        f"volume {name} in pool {DATA_POOL}",
        f"place of disk {name}, which is not in pool {DATA_POOL} any more,",
    ]
    assert in_pool(rados, DATA_POOL, name) == []
    assert [text for text in Elsewhere(settings).check() if name in text] == []


def test_a_pool_that_is_gone_for_good_ends_no_reconcile_and_is_forgotten_by_hand(
    rados: RadosSite, scripts: Site, name: VolumeName, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scripts.script("rados", "create", name, VOL_SIZE="16", EXTP_POOL=DATA_POOL).returncode == 0
    settings = load_settings(scripts.config)
    lost = VolumeName(f"{name}.lost")
    Places(settings).put(lost, None, parse_disk({"pool": "removed"}, settings).place)
    ganeti = reconcile.Ganeti(unfinished="", disks={}, detached=frozenset(), cluster="one.example.org")
    monkeypatch.setattr(reconcile, "ask_ganeti", lambda: ganeti)
    words, told = argparse.Namespace(remove=False, fence=False, rename=None, of=None), list[str]()
    assert reconcile.run(settings, words, told.append) == 1
    assert len([line for line in told if "the pool 'removed' does not exist" in line]) == 1
    assert [line for line in told if line.startswith(f"{name}: ")]
    rados.ceph.run(["rados", "-p", POOL, "rmomapkey", "snf.places", lost])
    told.clear()
    reconcile.run(settings, words, told.append)
    assert [line.startswith(f"{name}: ") for line in told if "removed" in line or name in line] == [True]
    assert scripts.script("rados", "remove", name, EXTP_POOL=DATA_POOL).returncode == 0


def test_an_export_reads_a_disk_in_any_pool_as_it_was_and_one_that_died_is_in_nobodys_way(
    rados: RadosSite, scripts: Site, name: VolumeName
) -> None:
    """What Ganeti calls for `gnt-backup export`: snapshot, attach, read, remove; the disk's parameters all along."""
    frozen = VolumeName(f"{name}.snap")

    def call(script: str, volume: str, **more: str) -> str:
        done = scripts.script("rados", script, volume, EXTP_POOL=DATA_POOL, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def qemu_io(uri: str, command: str) -> str:
        words = ["qemu-io", "-f", "raw", "-c", command, f"{uri}:conf={rados.ceph.client_conf}"]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout

    call("create", name, VOL_SIZE="16")
    uri = call("attach", name).strip().removeprefix("kvm:")
    call("open", name, VOL_OPEN_EXCLUSIVE="True")
    qemu_io(uri, "write -P 65 0 4096")
    wanted = SnapshotEnv(
        volume=name, uuid=UUID, cname=None, access="userspace", params={}, snapshot=frozen, size=MiB(16)
    )
    kill_after("clone", scripts, lambda disks: disks.snapshot(wanted), pool=DATA_POOL)
    assert f"snf.volumes/{frozen}" in in_pool(rados, DATA_POOL, name)

    call("snapshot", name, VOL_SNAPSHOT_NAME=frozen, VOL_SNAPSHOT_SIZE="16")
    qemu_io(uri, "write -P 66 0 4096")
    exported = call("attach", frozen).strip().removeprefix("kvm:")
    assert exported == uri.replace(name, frozen)
    for disk, letter, other in ((exported, 65, 66), (uri, 66, 65)):
        assert "Pattern verification failed" in qemu_io(disk, f"read -P {other} 0 4096")
        found = qemu_io(disk, f"read -P {letter} 0 4096")
        assert ("read 4096/4096" in found, "failed" in found) == (True, False)
    call("remove", frozen)
    assert in_pool(rados, DATA_POOL, name) == [name, f"snf.places/{name}", f"snf.volumes/{name}"]
    assert "clone." not in rados.ceph.run(["rbd", "snap", "ls", f"{DATA_POOL}/{name}"]).text
    call("detach", name)
    call("remove", name)
    assert in_pool(rados, DATA_POOL, name) == []


def test_a_disk_that_could_not_be_made_leaves_no_place(rados: RadosSite, scripts: Site, name: VolumeName) -> None:
    done = scripts.script("rados", "create", name, VOL_SIZE="16", EXTP_POOL=DATA_POOL, EXTP_ORIGIN="none@v1")
    assert done.returncode == 2
    assert in_pool(rados, DATA_POOL, name) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"EXTP_COLOUR": "red"}, "'colour' is not known to provider rados"),
        ({"EXTP_POOL": "none"}, "the pool 'none' does not exist"),
        ({"EXTP_POOL": "with-hyphen"}, "Ganeti 3.1 cannot pass to QEMU"),
        ({"EXTP_NAMESPACE": "tenant"}, "Ganeti 3.1 cannot pass to QEMU"),
        ({"EXTP_USER": "nobody"}, "no keyring"),
        ({"VOL_SIZE": "0"}, "VOL_SIZE"),
        ({"EXTP_FEATURES": "layering"}, "lacks exclusive-lock"),
    ],
)
def test_bad_input_is_refused_in_the_last_line_and_makes_nothing(
    rados: RadosSite, scripts: Site, name: VolumeName, given: dict[str, str], words: str
) -> None:
    done = scripts.script("rados", "create", name, **{"VOL_SIZE": "16"} | given)
    assert done.returncode in (2, 3, 5)
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert name not in rados.images_there()


def test_an_image_of_the_store_becomes_disks_and_a_disk_an_image(
    rados: RadosSite, scripts: Site, name: VolumeName, other: VolumeName, tmp_path: Path
) -> None:
    def snf_store(*words: str | Path) -> str:
        done = scripts.command(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "is not a store" in scripts.command("image", "list").stderr
    assert "is the store" in snf_store("init")
    snf_store("init")
    image = tmp_path / "debian.raw"
    marker = uuid4().bytes
    with open(image, "wb") as file:
        file.write(marker)
        file.truncate(12 * MIB)
    snf_store("image", "add", "debian", image)
    assert "debian" in snf_store("image", "list")
    for volume in (name, other):
        done = scripts.script("archipelago", "create", volume, VOL_SIZE="16", EXTP_ORIGIN="debian")
        assert done.returncode == 0, done.stderr
        assert rados.read(volume, count=64 * MIB) == marker + bytes(16 * MIB - 16)
    assert scripts.script("archipelago", "setinfo", name, VOL_METADATA="originstname+web1").returncode == 0
    assert scripts.script("archipelago", "open", name, VOL_OPEN_EXCLUSIVE="True").returncode == 0
    assert rados.write(name, "W", at=4 * MIB)
    snf_store("snapshot", "web1/0", "golden", "--commit")
    third = name.replace("disk0", "disk7")
    done = scripts.script("archipelago", "create", third, VOL_SIZE="16", EXTP_ORIGIN="golden")
    assert done.returncode == 0, done.stderr
    assert rados.read(third, count=64 * MIB) == rados.read(name, count=64 * MIB)
    snf_store("fsck")
    snf_store("gc", "--do")
    assert rados.read(third, count=16) == marker
