"""The commands of the package's timers, as their unit files have them."""

from __future__ import annotations

import configparser
import dataclasses
import os
import shlex
import signal
import subprocess
from pathlib import Path

from synnefo_light.store import blocks, fsck, maps, names
from synnefo_light.store.backend import Kind
from synnefo_light.store.directory import Directory
from synnefo_light.store.identity import BLOCK_SIZE
from synnefo_light.store.store import open_store
from tests.real.snf_extstorage.places import Site, own_names, write
from tests.real.snf_extstorage.test_scripts import COMMAND, snf_store

UNITS = Path(__file__).resolve().parents[3] / "debian"
(V,) = own_names(1)
#: Nothing of it is twice there.
CONTENT = os.urandom(6 * BLOCK_SIZE)


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((UNITS / f"snf-extstorage.{name}").read_text())
    return parser


def command_of(service: str) -> list[str | Path]:
    """What the unit runs, with this tree's program where it is not installed."""
    program, *words = shlex.split(unit(service)["Service"]["ExecStart"])
    assert program == "/usr/sbin/snf-store"
    return [COMMAND, *words]


def test_each_timer_comes_again_and_has_a_service_of_its_name() -> None:
    for name in ("snf-store-commit", "snf-store-upkeep"):
        timer = unit(f"{name}.timer")
        assert {"OnUnitInactiveSec", "OnUnitActiveSec", "OnCalendar"} & set(timer["Timer"])
        assert timer["Install"]["WantedBy"] == "timers.target"
        assert unit(f"{name}.service")["Service"]["Type"] == "oneshot"


def test_a_commit_that_was_killed_halfway_is_finished_by_the_timers_command(site: Site) -> None:
    """Killed when it has stored some blocks: by strace(1), which counts the links that publish them."""
    assert snf_store(site, "init").returncode == 0
    site.script("create", V, VOL_SIZE="24")
    site.script("setinfo", V, VOL_METADATA="originstname+web1")
    device = site.script("attach", V).stdout.splitlines()[0]
    assert site.script("open", V, VOL_OPEN_EXCLUSIVE="True").returncode == 0
    assert write(device, CONTENT)
    assert snf_store(site, "snapshot", "--no-commit", "web1", "golden").returncode == 0
    store = open_store(Directory(site.place.root / "store"))
    named = names.load(store, "golden")
    names.publish(store, "golden", dataclasses.replace(named.entry, created_ms=0), under=None, over=named)

    timer = command_of("snf-store-commit.service")
    env = {"SNF_STORE_CONFIG": str(site.config())}
    calls = "link,linkat,rename,renameat,renameat2"
    strace = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={calls}",
        "-e",
        f"inject={calls}:signal=KILL:when=6",
    ]
    killed = subprocess.run([*strace, *timer], env=env, capture_output=True, timeout=120, check=False)
    assert killed.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), killed
    assert names.load(store, "golden").entry.map is None
    half = set(store.backend.keys(Kind.BLOCK))
    assert 0 < len(half) < 6

    done = subprocess.run(timer, env=env, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.split()[:3]) == (0, [b"golden", b"is", b"map"]), done.stderr
    map_id = names.load(store, "golden").entry.map
    assert map_id is not None
    opened = maps.open_map(store, map_id)
    assert b"".join(blocks.get(store, found) for _, found in opened.blocks()) == CONTENT
    assert half <= set(store.backend.keys(Kind.BLOCK))
    assert fsck.check(store).exit_code == 0
    assert subprocess.run(timer, env=env, capture_output=True, timeout=120, check=False).stdout == b""
