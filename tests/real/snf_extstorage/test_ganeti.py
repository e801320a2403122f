"""Ganeti's own classes call our scripts: what they call in which order, and that each operation ends as it should.

The table of sequences is what Ganeti 3.0.2 does; when it fails with another version, that one does something else and
the promises in volume.py want to be looked at again. A folder of Ganeti's library may be named with SNF_GANETI.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from synnefo_light.ganeti import VolumeName
from synnefo_light.units import Bytes
from tests.real.snf_extstorage.places import SCRIPTS, Site, own_names, read, write

LIBRARIES = [Path(p) for p in (os.environ.get("SNF_GANETI"), "/usr/share/ganeti/3.1", "/usr/share/ganeti/3.0") if p]
(VOLUME,) = own_names(1)
PYTHON = "/usr/bin/python3"


@dataclass
class Node:
    """One node's Ganeti and what it has called since it was last asked."""

    site: Site
    name: str
    state: Path
    library: Path
    params: dict[str, str] = field(default_factory=dict)
    access: str = "kernelspace"
    size: int = 32

    def run(self, *steps: str) -> list[Any]:
        disk = {
            "provider": "archipelago",
            "volume": VOLUME,
            "uuid": "efa8d6e0-c062-4b14-b829-467e6499f266",
            "size": self.size,
            "grow": 32,
            "params": self.params,
            "access": self.access,
        }
        order = {"search": str(self.state / "search"), "state": str(self.state), "disk": disk, "steps": steps}
        done = subprocess.run(
            [PYTHON, Path(__file__).with_name("ganeti_node.py")],
            input=json.dumps(order),
            env={
                "PYTHONPATH": str(self.library),
                "SNF_STORE_CONFIG": str(self.site.config(self.name)),
                "CALLS": str(self.state / "calls"),
                "PATH": os.environ["PATH"],
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        results = json.loads(done.stdout)
        for step, (outcome, value) in zip(steps, results, strict=True):
            assert outcome == "ok", f"{step}: {value}"
        return [value for _, value in results]

    def fails(self, step: str) -> str:
        with pytest.raises(AssertionError) as caught:
            self.run(step)
        return str(caught.value)

    def calls(self) -> str:
        """The scripts called so far, and forget them."""
        path = self.state / "calls"
        said = " ".join(path.read_text().split()) if path.exists() else ""
        path.unlink(missing_ok=True)
        return said


def make_node(site: Site, name: str, folder: Path, library: Path) -> Node:
    state = folder / name
    provider = state / "search" / "archipelago"
    provider.mkdir(parents=True)
    (provider / "parameters.list").write_bytes((SCRIPTS / "parameters.list").read_bytes())
    for script in SCRIPTS.iterdir():
        if script.name not in ("parameters.list", "dispatch"):
            recorder = provider / script.name
            recorder.write_text(f'#!/bin/sh\necho {script.name}$VOL_OPEN_EXCLUSIVE >> "$CALLS"\nexec {script}\n')
            recorder.chmod(0o755)
    return Node(site=site, name=name, state=state, library=library)


@pytest.fixture
def nodes(site: Site, tmp_path: Path) -> tuple[Node, Node]:
    library = next((p for p in LIBRARIES if (p / "ganeti" / "backend.py").exists()), None)
    if library is None:
        pytest.skip("Ganeti's library is missing (package ganeti-3.0, or SNF_GANETI=a folder with it)")
    return make_node(site, "node1", tmp_path, library), make_node(site, "node2", tmp_path, library)


def test_ganeti_finds_the_provider_and_its_parameters(nodes: tuple[Node, Node]) -> None:
    (facts,) = nodes[0].run("diagnose")
    listed = [line.split(" ", 1) for line in (SCRIPTS / "parameters.list").read_text().splitlines()]
    assert facts == [[True, sorted(listed)]]


def test_an_instances_life_and_the_sequence_of_each_operation(nodes: tuple[Node, Node]) -> None:
    node, _ = nodes
    node.run("create")
    assert node.calls() == "create attach openTrue setinfo"
    ((device, link, _),) = node.run("assemble")
    assert node.calls() == "attach openTrue"
    assert str(Path(link).readlink()) == device
    assert write(device, b"A" * 4096)
    node.run("find")
    assert node.calls() == "attach"
    assert node.run("sizes") == [[[32 << 20, None]]]
    node.calls()
    node.run("grow dry", "grow")
    assert node.calls() == "attach attach attach attach grow"
    node.size = 64
    assert node.run("sizes") == [[[64 << 20, None]]]
    node.calls()
    node.run("shutdown")
    assert node.calls() == "attach detach"
    assert node.site.node("node1").facts(VOLUME).holders == ()
    node.run("remove")
    assert node.calls() == "attach detach remove"
    assert list(node.site.node("node1").volumes()) == []
    node.run("remove")


def test_what_was_adopted_is_given_back_when_the_creation_is_undone_and_removed_once_it_was_used(
    nodes: tuple[Node, Node],
) -> None:
    """Ganeti undoes the disks that it made when another of the instance fails."""
    node, _ = nodes
    volumes = node.site.node("node1")
    volumes.create(VolumeName("golden"), uuid=None, size=Bytes(32 << 20))
    node.params = {"adopt": "golden"}
    node.run("create")
    assert node.calls() == "create attach openTrue setinfo"
    node.run("remove")
    assert node.calls() == "attach detach remove"
    assert list(volumes.volumes()) == ["golden"]
    node.run("create", "assemble", "remove")
    assert list(volumes.volumes()) == []


def test_export_reads_a_snapshot_of_the_running_disk(nodes: tuple[Node, Node]) -> None:
    node, _ = nodes
    node.run("create")
    ((device, _, _),) = node.run("assemble")
    assert write(device, b"A" * 4096)
    node.calls()
    node.run("snapshot")
    assert node.calls() == "attach snapshot"
    assert write(device, b"B" * 4096)
    node.run("open snapshot")
    assert node.calls() == "attach openTrue"
    snapshot = node.site.node("node1").attach(VolumeName(f"{VOLUME}.snap"))
    assert read(str(snapshot.device)) == b"A" * 4096
    # An export that died leaves it; the next one makes it anew.
    node.run("snapshot")
    snapshot = node.site.node("node1").attach(VolumeName(f"{VOLUME}.snap"))
    assert read(str(snapshot.device)) == b"B" * 4096
    node.calls()
    node.run("remove snapshot")
    assert node.calls() == "attach detach remove"
    assert list(node.site.node("node1").volumes()) == [VOLUME]


def test_live_migration(nodes: tuple[Node, Node]) -> None:
    source, target = nodes
    source.run("create")
    ((before, _, _),) = source.run("assemble")
    assert write(before, b"A" * 4096)
    target.run("find", "close")
    assert target.calls() == "attach attach close"
    source.run("open shared")
    target.run("open shared")
    after = str(target.site.node("node2").attach(VOLUME).device)
    assert write(after, b"B" * 4096)
    source.run("close")
    target.run("open exclusive")
    source.run("shutdown")
    assert target.site.node("node2").facts(VOLUME).holders == ("node2",)
    assert read(after) == b"B" * 4096


def test_a_migration_that_failed_goes_back(nodes: tuple[Node, Node]) -> None:
    source, target = nodes
    source.run("create")
    ((device, _, _),) = source.run("assemble")
    target.run("close")
    source.run("open shared")
    target.run("open shared")
    target.run("close", "shutdown")
    source.run("open exclusive")
    assert write(device, b"A" * 4096)
    assert source.site.node("node1").facts(VOLUME).holders == ("node1",)


def test_failover_from_a_dead_node_takes_the_disk_and_what_the_dead_one_still_writes_is_lost(
    nodes: tuple[Node, Node],
) -> None:
    dead, living = nodes
    dead.run("create")
    ((old, _, _),) = dead.run("assemble")
    assert write(old, b"A" * 4096)
    ((new, _, _),) = living.run("assemble")
    assert living.calls() == "attach openTrue"
    assert write(old, b"C" * 4096)
    assert read(new) == b"A" * 4096
    assert write(new, b"B" * 4096)
    dead.run("shutdown")
    assert living.site.node("node2").facts(VOLUME).holders == ("node2",)
    assert read(new) == b"B" * 4096


def test_the_uri_for_qemu_is_the_file_and_the_same_on_every_node(nodes: tuple[Node, Node]) -> None:
    for node in nodes:
        node.access = "userspace"
    nodes[0].run("create")
    uris = {nodes[0].run("uri")[0], nodes[1].run("uri")[0]}
    assert uris == {str(nodes[0].site.place.disk("volumes", VOLUME))}


def test_a_misspelt_parameter_fails_the_creation_and_ganeti_shows_the_sentence(nodes: tuple[Node, Node]) -> None:
    node, _ = nodes
    node.params = {"orgin": "debian-12"}
    assert "the disk option 'orgin' is not known to provider archipelago" in node.fails("create")
    assert list(node.site.node("node1").volumes()) == []


def test_a_volume_that_is_not_there_is_not_attached(nodes: tuple[Node, Node]) -> None:
    assert "there is no volume" in nodes[0].fails("assemble")
