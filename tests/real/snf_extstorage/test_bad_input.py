"""What Ganeti or an administrator asks for in vain: one sentence, the exit code that is written down, nothing made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synnefo_light.units import MIB
from tests.real.snf_extstorage.places import Site
from tests.real.snf_extstorage.test_scripts import COMMAND, V, snf_store

UUID = "efa8d6e0-c062-4b14-b829-467e6499f266"
METADATA = "originstname+web1"


def refused(done: subprocess.CompletedProcess[str], code: int, sentence: str) -> None:
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert sentence in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["", "..", ".tmp-disk", "a b", "ä", "n" * 256, "a\x1b[31m"])
def test_a_volume_with_an_odd_name_is_refused_and_none_is_made(site: Site, name: str) -> None:
    done = site.script("create", name, VOL_SIZE="8")
    assert (done.returncode, done.stdout) == (5, "")
    last = done.stderr.splitlines()[-1]
    assert "cannot name a volume" in last or "VOL_NAME is not set" in last
    assert "\x1b" not in done.stderr
    assert list(site.place.folder("volumes").iterdir()) == []


def test_a_volume_grows_to_16_tib_and_not_beyond(site: Site) -> None:
    assert site.script("create", V, VOL_SIZE="8").returncode == 0
    limit = 16 << 20
    refused(site.script("grow", V, VOL_SIZE="8", VOL_NEW_SIZE=str(limit + 1)), 5, "from 1 to 16777216 (16 TiB)")
    assert site.script("grow", V, VOL_SIZE="8", VOL_NEW_SIZE=str(limit)).returncode == 0
    assert site.place.disk("volumes", V).stat().st_size == limit * MIB


@pytest.fixture
def user(site: Site) -> Iterator[int]:
    """A process that has the volume's device open."""
    assert site.script("create", V, VOL_SIZE="8").returncode == 0
    device = site.script("attach", V).stdout.split("\n")[0]
    assert site.script("open", V, VOL_OPEN_EXCLUSIVE="True").returncode == 0
    code = "import os, sys; os.open(sys.argv[1], os.O_RDWR); print(flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, device]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_a_volume_in_use_is_neither_detached_nor_removed(site: Site, user: int) -> None:
    for name in ("detach", "remove"):
        refused(site.script(name, V), 3, f"(pid {user}) through /dev/loop")
    refused(site.script("remove", V, node="node2"), 3, "node1 has it open; stop its instance there first")
    assert site.node().facts(next(iter(site.node().volumes()))).holders == ("node1",)


def test_a_snapshot_whose_name_is_taken_is_refused_and_none_is_left(site: Site) -> None:
    assert snf_store(site, "init").returncode == 0
    assert site.script("create", V, VOL_SIZE="8").returncode == 0
    assert site.script("setinfo", V, VOL_METADATA=METADATA).returncode == 0
    assert snf_store(site, "snapshot", "--commit", "web1", "golden").returncode == 0
    done = snf_store(site, "snapshot", "web1", "golden")
    assert (done.returncode, done.stdout) == (2, b"")
    assert "there is a snapshot golden already; remove it first or choose another name" in done.stderr.decode()
    assert list(site.node().snapshots()) == []


def test_init_refuses_a_file_system_that_cannot_share_and_leaves_nothing(site: Site) -> None:
    folder = Path("/dev/shm") / site.place.root.name
    config = site.config()
    config.write_text(config.read_text().replace(str(site.place.root), str(folder)))
    try:
        words: list[str | Path] = [COMMAND, "init"]
        env = {"SNF_STORE_CONFIG": str(config)}
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
        refused(done, 3, "cannot share extents between files; use XFS (reflink=1, its default)")
        assert list(folder.iterdir()) == []
    finally:
        folder.rmdir()


def test_a_record_of_a_newer_program_is_refused_by_what_it_is(site: Site) -> None:
    assert site.script("create", V, VOL_SIZE="8").returncode == 0
    record = site.place.folder("volumes", V) / "record"
    newer = record.read_bytes().replace(b"snf-volume 1 ", b"snf-volume 2 ")
    record.write_bytes(newer)
    for name in ("attach", "open", "setinfo", "remove"):
        done = site.script(name, V, VOL_OPEN_EXCLUSIVE="True", VOL_METADATA=METADATA)
        refused(done, 3, f"{record} has format 2, this program knows 1; use a newer program")
    assert record.read_bytes() == newer


@pytest.mark.parametrize("theirs", ["file", "folder"])
def test_what_is_somebody_elses_under_a_volumes_name_stays_as_it_is(site: Site, theirs: str) -> None:
    assert snf_store(site, "init").returncode == 0
    path = site.place.folder("volumes", V)
    if theirs == "folder":
        path.mkdir()
        path /= "notes.txt"
    path.write_text("mine")
    refused(site.script("create", V, VOL_SIZE="8"), 2, "is there already")
    refused(site.script("attach", V), 2, f"there is no volume {V}")
    assert site.script("remove", V).returncode == 0
    assert path.read_text() == "mine"
    (site.place.folder("volumes") / "notes~").write_text("mine")
    done = snf_store(site, "gc", "--do")
    assert (done.returncode == 0) == (theirs == "file"), done.stderr
    done = snf_store(site, "volume", "list")
    assert (done.returncode, V.encode() in done.stderr) == (0, theirs == "folder"), done.stderr
    found = snf_store(site, "fsck")
    assert found.returncode == 4
    assert f"{site.place.folder('volumes')}/notes~ is not ours" in found.stdout.decode()
    assert str(site.place.folder("volumes", V)) in found.stdout.decode()
