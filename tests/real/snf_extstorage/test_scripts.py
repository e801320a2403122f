"""The scripts as Ganeti calls them: what they say, how they end, and that nothing is half made."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from snf_extstorage.directory.place import init_place

from synnefo_light.errors import UserError
from synnefo_light.ganeti import VolumeName
from synnefo_light.units import MIB, Bytes
from tests.real.snf_extstorage.places import SCRIPTS, Site, mounted_xfs, own_names, read, release, write

(V,) = own_names(1)
OURS = "one.example.org"
STORE = SCRIPTS.parents[1] / "extstorage" / "snf-store"
COMMAND = STORE if STORE.exists() else Path("/usr/sbin/snf-store")


def snf_store(site: Site, *words: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    env = {"SNF_STORE_CONFIG": str(site.config())}
    return subprocess.run([COMMAND, *words], env=env, input=stdin, capture_output=True, timeout=120, check=False)


@pytest.fixture
def image(site: Site, tmp_path: Path) -> bytes:
    """6 MiB and a bit, registered as `debian`; a file system that is not the store's."""
    content = os.urandom(6 * MIB + 512)
    path = tmp_path / "image.raw"
    path.write_bytes(content)
    assert snf_store(site, "init").returncode == 0
    done = snf_store(site, "image", "add", "debian", path)
    assert done.returncode == 0, done.stderr
    return content


def test_attach_alone_prints_and_without_a_newline_at_the_end(site: Site) -> None:
    for name, more in (
        ("create", {"VOL_SIZE": "8"}),
        ("open", {"VOL_OPEN_EXCLUSIVE": "True"}),
        ("setinfo", {"VOL_METADATA": "originstname+web1"}),
        ("snapshot", {"VOL_SNAPSHOT_NAME": f"{V}.snap", "VOL_SNAPSHOT_SIZE": "8"}),
        ("grow", {"VOL_SIZE": "8", "VOL_NEW_SIZE": "16"}),
        ("close", {}),
        ("verify", {}),
    ):
        done = site.script(name, V, **more)
        assert (done.returncode, done.stdout) == (0, ""), (name, done.stderr)
    device, uri = site.script("attach", V).stdout.split("\n")
    assert device.startswith("/dev/loop")
    assert uri == f"kvm:{site.place.disk('volumes', V)}"
    for name in ("detach", "remove"):
        done = site.script(name, V)
        assert (done.returncode, done.stdout) == (0, ""), (name, done.stderr)


def test_a_disk_from_an_image_copies_nothing_and_reads_as_the_image(site: Site, image: bytes) -> None:
    before = os.statvfs(site.place.root).f_bfree
    done = site.script("create", V, VOL_SIZE="16", EXTP_ORIGIN="debian")
    assert done.returncode == 0, done.stderr
    vfs = os.statvfs(site.place.root)
    assert (before - vfs.f_bfree) * vfs.f_frsize < MIB
    device = site.script("attach", V).stdout.split("\n")[0]
    padded = image + bytes(16 * MIB - len(image))
    assert read(device, 16 * MIB) == padded
    # Later calls bring the same option along, and it means nothing to them.
    assert site.script("open", V, VOL_OPEN_EXCLUSIVE="True", EXTP_ORIGIN="debian").returncode == 0
    assert write(device, b"A" * 4096)
    assert snf_store(site, "image", "rm", "debian").returncode == 0
    assert read(device, 16 * MIB) == b"A" * 4096 + padded[4096:]
    assert site.script("grow", V, VOL_SIZE="16", VOL_NEW_SIZE="17", EXTP_ORIGIN="debian").returncode == 0


def test_a_snapshot_becomes_a_map_that_reads_as_it_did_and_shares_the_rest(site: Site, image: bytes) -> None:
    site.script("create", V, VOL_SIZE="16", EXTP_ORIGIN="debian")
    site.script("setinfo", V, VOL_METADATA="originstname+web1")
    site.script("open", V, VOL_OPEN_EXCLUSIVE="True")
    device = site.script("attach", V).stdout.split("\n")[0]
    assert write(device, b"A" * 4096, block=1024)  # in the second block of 4 MiB
    done = snf_store(site, "snapshot", "--commit", "web1", "golden")
    assert done.returncode == 0, done.stderr
    assert write(device, b"B" * 4096, block=1024)
    other = V.replace("disk0", "disk1")
    assert site.script("create", other, VOL_SIZE="16", EXTP_ORIGIN="golden").returncode == 0
    expected = (image + bytes(16 * MIB - len(image)))[: 4 * MIB] + b"A" * 4096
    clone = site.script("attach", other).stdout.split("\n")[0]
    assert read(clone, 4 * MIB + 4096) == expected
    differ = snf_store(site, "diff", "debian", "golden").stdout.split()
    assert differ[::2] == [str(4 * MIB).encode()]
    stats = snf_store(site, "stats", "--json").stdout
    assert b'"garbage":0' in stats
    assert b'"blocks":3' in stats
    for words in (["fsck"], ["scrub"], ["gc"], ["stats"], ["image", "list"], ["volume", "list"], ["commit"]):
        done = snf_store(site, *words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)


def test_a_snapshot_gets_into_the_store_by_itself(site: Site, image: bytes) -> None:
    site.script("create", V, VOL_SIZE="16", EXTP_ORIGIN="debian")
    site.script("setinfo", V, VOL_METADATA="originstname+web1")
    done = snf_store(site, "snapshot", "web1/0", "golden")
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 30
    while b'"map":null' in snf_store(site, "image", "show", "--json", "golden").stdout:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert snf_store(site, "commit").stdout == b""


def test_a_map_travels_to_another_store_and_what_changed_travels_alone(site: Site, image: bytes, xfs: Path) -> None:
    site.script("create", V, VOL_SIZE="16", EXTP_ORIGIN="debian")
    site.script("setinfo", V, VOL_METADATA="originstname+web1")
    site.script("open", V, VOL_OPEN_EXCLUSIVE="True")
    assert write(site.script("attach", V).stdout.split("\n")[0], b"A" * 4096)
    assert snf_store(site, "snapshot", "--commit", "web1", "golden").returncode == 0
    whole = snf_store(site, "send", "debian").stdout
    change = snf_store(site, "send", "--since", "debian", "golden").stdout
    assert len(image) < len(whole) < len(image) + 4096
    assert len(change) < 4 * MIB + 4096
    root = xfs / f"{site.place.root.name}-other"
    there = Site(place=init_place(root), hints=site.hints / "other")
    try:
        assert snf_store(there, "init").returncode == 0
        assert snf_store(there, "recv", "debian", stdin=whole).returncode == 0
        torn = snf_store(there, "recv", "torn", "--since", "debian", stdin=change[:-1])
        assert torn.returncode == 5
        assert snf_store(there, "recv", "golden", "--since", "debian", stdin=change).returncode == 0
        assert [line.split()[0] for line in snf_store(there, "image", "list").stdout.splitlines()[1:]] == [
            b"debian",
            b"golden",
        ]
        # What was received has no base yet; the first disk of it makes one.
        assert there.script("create", V, VOL_SIZE="16", EXTP_ORIGIN="golden").returncode == 0
        device = there.script("attach", V).stdout.split("\n")[0]
        assert read(device, 4 * MIB) == b"A" * 4096 + image[4096 : 4 * MIB]
    finally:
        release(root)


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        ({"VOL_SIZE": "16", "EXTP_ORIGIN": "none"}, 2, "there is no image, snapshot or object none"),
        ({"VOL_SIZE": "1", "EXTP_ORIGIN": "debian"}, 2, "is to have 1 MiB, but its origin"),
        ({"VOL_SIZE": "16", "EXTP_ORIGIN": "map:" + "0" * 64}, 2, "no image, snapshot or object has the map"),
        ({"VOL_SIZE": "16", "EXTP_ORIGIN": "map:xyz"}, 2, "neither a name nor map:HASH"),
        ({"VOL_SIZE": "16", "EXTP_ORIGIN": "../debian"}, 2, "neither a name nor map:HASH"),
        ({"VOL_SIZE": "16", "EXTP_ORIGIN": "debian", "EXTP_ADOPT": "x"}, 2, "give one of the two"),
        ({"VOL_SIZE": "16", "EXTP_ADOPT": "none"}, 2, "there is no volume none"),
        ({"VOL_SIZE": "16", "EXTP_ADOPT": "../snapshots/none"}, 5, "adopt='../snapshots/none' cannot name a volume"),
        ({"VOL_SIZE": "16", "EXTP_ORIGINS": "debian"}, 2, "'origins' is not known to provider archipelago"),
        ({"VOL_SIZE": "0"}, 5, "VOL_SIZE='0'"),
        ({"VOL_SIZE": str((16 << 20) + 1)}, 5, "16 TiB"),
        ({}, 5, "VOL_SIZE is not set"),
        ({"VOL_SIZE": "16", "VOL_NAME": "a/../b"}, 5, "cannot name a volume"),
    ],
)
def test_bad_input_is_refused_in_one_last_line_and_makes_nothing(
    site: Site, image: bytes, more: dict[str, str], code: int, sentence: str
) -> None:
    done = site.script("create", V, **more)
    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(site.node().volumes()) == []
    assert [p.name for p in site.place.folder("volumes").iterdir()] == []


def test_a_volume_does_not_shrink_and_one_that_is_not_there_does_not_grow(site: Site) -> None:
    site.script("create", V, VOL_SIZE="16")
    done = site.script("grow", V, VOL_SIZE="16", VOL_NEW_SIZE="8")
    assert (done.returncode, "can only grow" in done.stderr) == (5, True)
    done = site.script("grow", "other", VOL_SIZE="16", VOL_NEW_SIZE="32")
    assert (done.returncode, "there is no volume other" in done.stderr) == (2, True)


def test_a_folder_that_is_not_mounted_is_refused_by_every_script(site: Site) -> None:
    (site.place.root / "FORMAT").rename(site.place.root / "FORMAT.away")
    for name, more in (("create", {"VOL_SIZE": "8"}), ("attach", {}), ("detach", {}), ("remove", {})):
        done = site.script(name, V, **more)
        assert (done.returncode, done.stdout) == (3, "")
        assert "Is its file system mounted?" in done.stderr
    (site.place.root / "FORMAT.away").rename(site.place.root / "FORMAT")


def test_a_folder_of_a_newer_format_is_refused(site: Site) -> None:
    path = site.place.root / "FORMAT"
    path.write_bytes(path.read_bytes().replace(b"snf-volumes 1 ", b"snf-volumes 2 "))
    done = site.script("attach", V)
    assert (done.returncode, "has format 2, this program knows 1" in done.stderr) == (3, True)


def test_a_damaged_record_stops_its_volume_alone_and_is_named(site: Site) -> None:
    other = V.replace("disk0", "disk1")
    assert snf_store(site, "init").returncode == 0
    for name in (V, other):
        site.script("create", name, VOL_SIZE="8")
    record = site.place.folder("volumes", V) / "record"
    record.write_bytes(record.read_bytes().replace(b'"size":', b'"sizf":'))
    for name in ("attach", "open", "remove"):
        done = site.script(name, V, VOL_OPEN_EXCLUSIVE="True")
        assert (done.returncode, f"{record} is damaged" in done.stderr) == (3, True)
    assert site.script("attach", other).returncode == 0
    found = snf_store(site, "fsck")
    assert found.returncode == 4
    assert str(record).encode() in found.stdout


def test_somebody_elses_file_is_named_and_left_alone(site: Site) -> None:
    assert snf_store(site, "init").returncode == 0
    theirs = site.place.folder("volumes") / "notes.txt"
    theirs.write_text("mine")
    done = snf_store(site, "fsck", "--mend")
    assert done.returncode == 4
    assert f"{theirs} is not ours".encode() in done.stdout
    assert theirs.read_text() == "mine"
    with pytest.raises(UserError, match=r"'notes.txt' is in it"):
        init_place(make(site.place.root / "elsewhere", "notes.txt"))


def make(folder: Path, name: str) -> Path:
    folder.mkdir()
    (folder / name).touch()
    return folder


def test_a_full_file_system_refuses_in_words_and_leaves_what_was(tmp_path: Path) -> None:
    """Ours below the reserve, and the storage itself when there is no reserve."""
    with mounted_xfs(tmp_path, size=320 * MIB) as mount:
        site = Site(place=init_place(mount / "site"), hints=tmp_path / "run")
        assert snf_store(site, "init").returncode == 0
        image = tmp_path / "big.raw"
        image.write_bytes(os.urandom(64 * MIB))
        assert snf_store(site, "image", "add", "debian", image).returncode == 0
        assert site.script("create", V, VOL_SIZE="100", EXTP_ORIGIN="debian").returncode == 0
        free = os.statvfs(mount).f_bavail * os.statvfs(mount).f_frsize
        with open(mount / "filler", "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, free - 8 * MIB)
        done = site.script("create", "other", VOL_SIZE="16")
        assert (done.returncode, "are reserved for what running instances write" in done.stderr) == (3, True)
        site.config().write_text(site.config().read_text() + "reserve_percent = 0\n")
        env = {"SNF_STORE_CONFIG": str(site.hints / "node1.toml")}
        (tmp_path / "other.raw").write_bytes(os.urandom(64 * MIB))
        words: list[str | Path] = [COMMAND, "image", "add", "other", tmp_path / "other.raw"]
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 3
        assert "64 MiB are needed" in done.stderr
        assert "Traceback" not in done.stderr
        (mount / "filler").unlink()
        assert [p.name for p in site.place.folder("bases").iterdir() if p.name.startswith(".")] == []
        assert snf_store(site, "fsck").returncode in (0, 2)
        assert snf_store(site, "image", "add", "other", tmp_path / "other.raw").returncode == 0


def test_reconcile_says_what_ganeti_does_not_know_and_removes_only_that(site: Site, tmp_path: Path) -> None:
    known, lost = own_names(2)
    site.script("create", known, VOL_SIZE="8")
    site.script("create", lost, VOL_SIZE="8", VOL_UUID="11111111-c062-4b14-b829-467e6499f266")
    for made in (known, lost):
        site.node().set_cluster(made, OURS)
    bin_folder = make(tmp_path / "bin", "gnt-instance")

    def answer(command: str, text: str) -> None:
        (bin_folder / command).write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\n")
        (bin_folder / command).chmod(0o755)

    answer("gnt-instance", "web1|node1|ext|['efa8d6e0-c062-4b14-b829-467e6499f266']\nweb2|node1|plain|-\n")
    answer("gnt-job", "1|success|INSTANCE_CREATE(web1)\n")
    code = (
        "import sys; from pathlib import Path; from synnefo_light import run; run.PATH = sys.argv[1] + ':' + run.PATH;"
        "from snf_extstorage.commands import reconcile; name, folder = sys.argv[2], Path(sys.argv[1]);"
        "load = reconcile.load_disks; reconcile.load_disks = lambda: load(file=folder / 'config.data');"
        "reconcile.cluster_name = lambda: name;"
        "from snf_extstorage.main import command; sys.argv[1:] = sys.argv[3:]; command()"
    )
    tree = Path(__file__).resolve().parents[3]
    env = {"SNF_STORE_CONFIG": str(site.config()), "PYTHONPATH": f"{tree}:{tree / 'extstorage'}"}
    python = ["/usr/bin/python3", "-c", code, str(bin_folder), OURS, "reconcile"]
    done = subprocess.run([*python, "--remove"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "config.data is not on this node" in done.stderr) == (3, True), done.stderr
    assert sorted(site.node().volumes()) == [known, lost]
    (bin_folder / "config.data").write_text('{"disks": {}}')
    done = subprocess.run(python, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"{lost}: belongs to no disk of Ganeti's: a removal that failed, or a creation"]
    assert sorted(site.node().volumes()) == [known, lost]
    answer("gnt-job", "1|success|INSTANCE_CREATE(web1)\n2|running|INSTANCE_CREATE(web3)\n")
    done = subprocess.run([*python, "--remove"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "jobs that may make some have not ended (2 INSTANCE_CREATE(web3))" in done.stderr
    assert sorted(site.node().volumes()) == [known, lost]
    answer("gnt-job", "1|success|INSTANCE_CREATE(web1)\n2|error|INSTANCE_CREATE(web3)\n")
    done = subprocess.run([*python, "--remove"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert list(site.node().volumes()) == [known]
    left = VolumeName(f"{lost}.snap")  # what an export left whose node died, and whose instance is gone
    site.node("node2").create(left, uuid=None, size=Bytes(MIB))
    site.node("node2").set_cluster(left, OURS)
    site.node("node2").open(left, exclusive=True)
    for words, there in ((["--fence"], True), (["--remove"], True), (["--remove", "--fence"], False)):
        done = subprocess.run([*python, *words], env=env, capture_output=True, text=True, timeout=60, check=False)
        assert (left in list(site.node().volumes())) is there, (words, done.stdout, done.stderr)
    done = subprocess.run(python, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")

    release = [*python[:-1], "volume", "release", known]
    done = subprocess.run(release, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1].endswith("it is a disk of web1")) == (2, True), done.stderr
    answer("gnt-instance", "web2|node1|plain|-\n")
    done = subprocess.run(release, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert site.node().facts(VolumeName(known)).uuid is None
