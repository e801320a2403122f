"""`snf-store upkeep` and `resume` as timers and people call them."""

from __future__ import annotations

import dataclasses
import json
import os
from uuid import uuid4

from snf_extstorage.monitor import SOCKETS
from snf_extstorage.standstill import Wish

from synnefo_light.files import locked
from synnefo_light.records import dump_json
from synnefo_light.store import names
from synnefo_light.store.directory import Directory
from synnefo_light.store.store import open_store
from tests.guest_sockets import Qemu
from tests.real.snf_extstorage.places import Site
from tests.real.snf_extstorage.test_scripts import V, snf_store


def test_where_no_volumes_are_there_is_nothing_to_do_and_nothing_wrong(site: Site) -> None:
    (site.place.root / "FORMAT").unlink()
    for words in (["upkeep"], ["upkeep", "--commit"]):
        done = snf_store(site, *words)
        assert (done.returncode, done.stdout) == (0, b"")


def test_a_snapshot_that_nobody_committed_gets_into_the_store_when_it_is_old_enough(site: Site) -> None:
    assert snf_store(site, "init").returncode == 0
    site.script("create", V, VOL_SIZE="8")
    site.script("setinfo", V, VOL_METADATA="originstname+web1")
    assert snf_store(site, "snapshot", "--no-commit", "web1", "golden").returncode == 0
    done = snf_store(site, "upkeep", "--commit")
    assert (done.returncode, done.stdout) == (0, b"")  # young: whoever made it may be at it
    store = open_store(Directory(site.place.root / "store"))
    named = names.load(store, "golden")
    names.publish(store, "golden", dataclasses.replace(named.entry, created_ms=0), under=None, over=named)
    (snapshot,) = (site.place.root / "snapshots").iterdir()
    with locked(snapshot / "lock"):  # as another node that commits it
        done = snf_store(site, "upkeep", "--commit")
        assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert names.load(store, "golden").entry.map is None
    done = snf_store(site, "upkeep", "--commit")
    assert (done.returncode, done.stdout.split()[:3]) == (0, [b"golden", b"is", b"map"]), done.stderr
    assert names.load(store, "golden").entry.map is not None
    assert snf_store(site, "upkeep", "--commit").stdout == b""


def test_a_level_is_told_once(site: Site) -> None:
    assert snf_store(site, "init").returncode == 0
    config = site.config()
    marks = "warning_percent = 90\ncritical_percent = 90\nreserve_percent = 0\n"
    plain = config.read_text()

    def upkeep() -> bytes:
        # `snf_store` writes the file anew.
        other = config.with_name("marked.toml")
        other.write_text(plain + marks)
        done = snf_store(site, "--config", other, "upkeep")
        assert done.returncode == 0, done.stderr
        return done.stdout

    with open(site.place.root / "filling", "wb") as file:
        file.write(bytes(300 << 20))
        assert b"free space is critical, after ok" in upkeep()
        assert upkeep() == b""
    (site.place.root / "filling").unlink()
    shown = json.loads(snf_store(site, "stats", "--json").stdout)
    assert shown["level"] == "ok"
    assert 0 < shown["free"] < shown["total"]


def test_nothing_is_received_into_the_reserve(site: Site) -> None:
    assert snf_store(site, "init").returncode == 0
    other = site.config().with_name("reserved.toml")
    other.write_text(site.config().read_text() + "reserve_percent = 50\n")
    with open(site.place.root / "filling", "wb") as file:
        assert b"was broken off" in snf_store(site, "--config", other, "recv", "debian").stderr
        os.posix_fallocate(file.fileno(), 0, 1200 << 20)
        done = snf_store(site, "--config", other, "recv", "debian")
    (site.place.root / "filling").unlink()
    assert (done.returncode, b"50 % are reserved" in done.stderr) == (3, True), done.stderr


def test_a_guest_that_was_left_standing_still_goes_on(site: Site) -> None:
    assert snf_store(site, "init").returncode == 0
    instance = f"left-{uuid4()}"
    SOCKETS.mkdir(parents=True, exist_ok=True)
    notes = site.hints / "node1" / "standstill"
    notes.mkdir(parents=True)
    (notes / instance).write_bytes(dump_json(Wish(instance=instance, stop=True, freeze=False)))
    qemu = Qemu(SOCKETS, instance)
    try:
        qemu.status = "paused"
        done = snf_store(site, "upkeep")
        assert done.returncode == 0, done.stderr
        assert f"{instance} goes on" in done.stdout.decode()
        assert qemu.status == "running"
        assert list(notes.iterdir()) == []
    finally:
        qemu.close()


def test_an_instance_that_does_not_stand_still_is_not_resumed(site: Site) -> None:
    assert snf_store(site, "init").returncode == 0
    done = snf_store(site, "resume", "web1")
    assert done.returncode == 2
    assert b"web1 does not stand still on this node" in done.stderr
