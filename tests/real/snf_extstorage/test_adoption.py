"""What is adopted, given back, and removed from who will not come back; no device is needed for it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from uuid import uuid4

import pytest
from snf_extstorage.directory.kept import load
from snf_extstorage.directory.place import init_place
from snf_extstorage.volume import Exists, InUse, NotFound, Trace, no_trace

from synnefo_light.errors import UserError
from synnefo_light.ganeti import VolumeName
from synnefo_light.units import MIB, Bytes
from tests.real.snf_extstorage.places import Site, own_names

V, (W, X) = VolumeName(f"golden-{uuid4()}"), own_names(2)
ONE, TWO = "efa8d6e0-c062-4b14-b829-467e6499f266", "11111111-c062-4b14-b829-467e6499f266"
SIZE = Bytes(MIB)


class Died(Exception):
    pass


def dying_at(step: str) -> Trace:
    def trace(told: str) -> None:
        if told == step:
            raise Died

    return trace


@pytest.fixture
def place(tmp_path: Path) -> Site:
    """Any file system will do: nothing is cloned."""
    site = Site(place=init_place(tmp_path / "place"), hints=tmp_path / "run")
    site.node().create(V, uuid=None, size=SIZE)
    site.place.disk("volumes", V).write_bytes(b"A" * SIZE)
    return site


def adopt(place: Site, name: VolumeName = W, uuid: str = ONE, trace: Trace = no_trace) -> None:
    place.node(trace=trace).adopt(V, name, uuid=uuid, size=SIZE)


def is_back(place: Site) -> bool:
    node = place.node()
    assert place.place.disk("volumes", V).read_bytes() == b"A" * SIZE
    facts = node.facts(V)
    return (list(node.volumes()), facts.uuid, facts.holders, facts.cluster) == ([V], None, (), "")


def test_another_instances_stopped_volume_is_not_adopted(place: Site) -> None:
    adopt(place)
    place.node().open(W, exclusive=True)
    place.node().detach(W)
    with pytest.raises(UserError, match=f"Ganeti made it for its disk {ONE}"):
        place.node().adopt(W, X, uuid=TWO, size=SIZE)
    assert list(place.node().volumes()) == [W]


def test_a_creation_that_is_undone_gives_back_what_it_adopted(place: Site) -> None:
    """As `gnt-instance add` does when its second disk fails: made, opened once, removed, and perhaps once more."""
    adopt(place)
    node = place.node()
    node.open(W, exclusive=True)
    node.set_info(W, "originstname+web1")
    node.detach(W)
    node.remove(W)
    assert is_back(place)
    node.remove(W)
    assert is_back(place)
    adopt(place, X, TWO)
    assert load(place.place, X).formerly == V


def test_a_disk_that_was_used_is_removed_as_any(place: Site) -> None:
    adopt(place)
    for _ in range(2):
        place.node().open(W, exclusive=True)
    place.node().remove(W)
    assert list(place.node().volumes()) == []
    assert list(place.place.trash.iterdir()) == []


@pytest.mark.parametrize("step", ["adopt record", "adopt publish"])
def test_an_adoption_that_died_loses_nothing_whoever_comes_next(place: Site, step: str) -> None:
    with pytest.raises(Died):
        adopt(place, trace=dying_at(step))
    place.node().remove(W)
    assert place.place.disk("volumes", V).read_bytes() == b"A" * SIZE
    adopt(place, X, TWO)
    place.node().remove(X)
    assert is_back(place)


@pytest.mark.parametrize("step", ["return record", "return publish"])
def test_giving_back_that_died_is_finished_by_the_next_removal(place: Site, step: str) -> None:
    adopt(place)
    with pytest.raises(Died):
        place.node(trace=dying_at(step)).remove(W)
    place.node().remove(W)
    assert is_back(place)


def test_what_reconcile_finds_of_an_adoption_that_died_gets_free_and_what_was_given_back_can_go(place: Site) -> None:
    with pytest.raises(Died):
        adopt(place, trace=dying_at("adopt publish"))
    assert place.node().facts(V).uuid == ONE
    place.node().remove(V)
    assert is_back(place)
    place.node().remove(V)
    assert list(place.node().volumes()) == []


def test_another_volume_of_the_old_name_is_not_written_over(place: Site) -> None:
    adopt(place)
    place.node().create(V, uuid=TWO, size=SIZE)
    with pytest.raises(Exists, match=f"is to be {V} again, but there is another of that name"):
        place.node().remove(W)
    assert sorted(place.node().volumes()) == [W, V]


def test_what_a_dead_node_has_is_removed_only_when_it_is_said_that_it_is_dead(place: Site) -> None:
    place.node("node2").open(V, exclusive=True)
    with pytest.raises(InUse, match="node2 has it open"):
        place.node().remove(V)
    # QEMU locks what it opens, and so its processes are looked for.
    hold = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    words = ["/usr/bin/python3", "-c", hold, str(place.place.disk("volumes", V))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holding:
        assert holding.stdout is not None
        holding.stdout.readline()
        with pytest.raises(InUse, match="is held by python3"):
            place.node().remove(V, deserted=True)
        holding.communicate(b"\n", timeout=60)
    place.node().remove(V, deserted=True)
    with pytest.raises(NotFound):
        place.node().facts(V)


def test_a_volume_of_a_disk_that_is_gone_is_released_and_adopted_by_another(place: Site) -> None:
    adopt(place)
    node = place.node()
    for _ in range(2):
        node.open(W, exclusive=True)
    node.set_info(W, "originstname+web1")
    node.close(W)
    node.release(W)
    facts = node.facts(W)
    assert (facts.uuid, facts.cluster, facts.info, facts.holders) == (None, "", "", ())
    node.release(W)
    node.adopt(W, X, uuid=TWO, size=SIZE)
    assert place.place.disk("volumes", X).read_bytes() == b"A" * SIZE
    assert list(node.volumes()) == [X]


def test_what_is_open_anywhere_is_not_released(place: Site) -> None:
    adopt(place)
    place.node("node2").open(W, exclusive=True)
    with pytest.raises(InUse, match=f"volume {W} is to be released, but node2 has it open"):
        place.node().release(W)
    place.node("node2").close(W)
    hold = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    words = ["/usr/bin/python3", "-c", hold, str(place.place.disk("volumes", W))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holding:
        assert holding.stdout is not None
        holding.stdout.readline()
        with pytest.raises(InUse, match="is held by python3"):
            place.node().release(W)
        holding.communicate(b"\n", timeout=60)
    assert place.node().facts(W).uuid == ONE
    with pytest.raises(Died):
        place.node(trace=dying_at("release record")).release(W)
    assert place.node().facts(W).uuid == ONE
    with pytest.raises(NotFound):
        place.node().release(X)


def test_a_volumes_cluster_can_be_written_down_anew(place: Site) -> None:
    place.node().set_cluster(V, "two.example.org")
    assert place.node().facts(V).cluster == "two.example.org"
