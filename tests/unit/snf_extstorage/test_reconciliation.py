from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from snf_extstorage.commands import reconcile
from snf_extstorage.reconciliation import (
    GanetiDisk,
    compare,
    parse_disks,
    parse_unfinished,
    plan_rename,
    refuse_releasing,
)
from snf_extstorage.settings import Settings
from snf_extstorage.volume import VolumeFacts

from synnefo_light.errors import EnvironmentFault, Error, ProtocolError, UsageError, UserError
from synnefo_light.ganeti import VolumeName
from synnefo_light.units import Bytes

OURS = "one.example.org"
ONE, TWO = "efa8d6e0-c062-4b14-b829-467e6499f266", "11111111-c062-4b14-b829-467e6499f266"
LISTS = {"gnt-job": "", "gnt-instance": f"web1|node1|ext|['{ONE}']\n"}
DISKS = {ONE: GanetiDisk(instance="web1", node="node1", template="ext")}


def volume(
    name: str = "a.ext.disk0", uuid: str | None = ONE, holders: tuple[str, ...] = (), cluster: str = OURS
) -> VolumeFacts:
    return VolumeFacts(
        name=VolumeName(name),
        uuid=uuid,
        size=Bytes(1),
        origin=None,
        generation=0,
        info="",
        holders=holders,
        exclusive=bool(holders),
        stored=None,
        extents=None,
        cluster=cluster,
    )


def test_ganetis_list_is_read_by_disk() -> None:
    text = f"web1|node1|ext|['{ONE}', '{TWO}']\nweb2|node2|diskless|[]\nweb3|node2|plain|-\n"
    assert parse_disks(text) == {
        ONE: GanetiDisk(instance="web1", node="node1", template="ext"),
        TWO: GanetiDisk(instance="web1", node="node1", template="ext"),
    }
    with pytest.raises(ProtocolError, match="Failure"):
        parse_disks("Failure: no cluster")


@pytest.mark.parametrize("field", ["", ONE, f"{ONE},{TWO}", "['x']", "[1]", f"('{ONE}',)", "[", f"['{ONE}'"])
def test_a_list_of_disks_that_is_not_understood_is_refused(field: str) -> None:
    """Else each of its disks would be taken for gone, and its volume offered for removal."""
    with pytest.raises(ProtocolError, match=r"disk\.uuids, not a list of UUIDs"):
        parse_disks(f"web1|node1|ext|{field}")


def test_jobs_that_may_yet_make_a_disk_are_found() -> None:
    text = "3|success|A(x)\n4|running|INSTANCE_CREATE(a|b)\n5|queued|B\n6|canceling|C\n7|error|D\n8|canceled|E\n"
    assert parse_unfinished(text) == ("4 INSTANCE_CREATE(a|b)", "5 B", "6 C")
    with pytest.raises(ProtocolError, match="Failure"):
        parse_unfinished("Failure: no cluster")


def test_what_agrees_is_no_difference() -> None:
    assert list(compare([volume()], DISKS, cluster=OURS)) == []
    assert list(compare([volume(holders=("node1",))], DISKS, cluster=OURS)) == []
    assert list(compare([volume(holders=("node1", "node2"))], DISKS, cluster=OURS)) == []  # migrating


@pytest.mark.parametrize(
    ("node", "holder", "differ"),
    [
        ("node1.example.org", "node1", False),
        ("node1", "node1.example.org", False),
        ("node1.example.org", "node1.example.org", False),
        ("node1.example.org", "node1.example.com", True),
        ("node1.example.org", "node10", True),
        ("node1.example.org", "node2", True),
    ],
)
def test_a_node_is_known_by_its_full_name_and_by_its_first_label(node: str, holder: str, differ: bool) -> None:
    disks = {ONE: GanetiDisk(instance="web1", node=node, template="ext")}
    assert bool(list(compare([volume(holders=(holder,))], disks, cluster=OURS))) is differ


@pytest.mark.parametrize(
    ("found", "why", "removable"),
    [
        (volume(uuid=TWO), "belongs to no disk of Ganeti's", True),
        (volume(uuid=TWO, cluster="two.example.org"), "was made for cluster two.example.org", False),
        (volume(uuid=TWO, cluster=""), "a cluster whose name was not written down", False),
        (volume(uuid=None), "was not made by Ganeti", False),
        (volume(name="golden.snap", uuid=None), "was not made by Ganeti", False),
        (volume(name="a.ext.disk0.snap", uuid=None), "export that died", True),
        (volume(name="a.ext.disk0.snap", uuid=None, cluster="two.example.org"), "export that died", False),
    ],
)
def test_a_volume_without_a_disk_is_explained(found: VolumeFacts, why: str, removable: bool) -> None:
    (one,) = compare([found], {}, cluster=OURS)
    assert (one.volume, why in one.why, one.removable) == (found.name, True, removable)


@pytest.mark.parametrize("cluster", ["", "old"])
@pytest.mark.parametrize(("name", "uuid"), [("a.ext.disk0", TWO), ("a.ext.disk0.snap", None)])
def test_a_node_that_does_not_know_its_clusters_name_removes_nothing(name: str, uuid: str | None, cluster: str) -> None:
    """Else what nobody knows whose it is would be of the same name: none."""
    (one,) = compare([volume(name, uuid, cluster=cluster)], {}, cluster="", of=cluster)
    assert not one.removable
    (one,) = compare([volume(name, uuid, cluster=cluster)], {}, cluster=OURS, of=cluster)
    assert one.removable is (cluster == "old")


def test_a_volume_that_nobody_has_any_more_but_a_node_may_write_is_told_apart() -> None:
    """The node is dead, or making it just now; a person has to say which."""
    for name, uuid in (("a.ext.disk0", TWO), ("a.ext.disk0.snap", None)):
        (one,) = compare([volume(name, uuid, holders=("node2",))], {}, cluster=OURS)
        assert (one.removable, one.held, "node2 may write" in one.why) == (True, True, True)


def test_an_exports_snapshot_stays_for_the_next_export_while_its_volume_is_there() -> None:
    volumes = [volume(), volume("a.ext.disk0.snap", None)]
    (one,) = compare(volumes, DISKS, cluster=OURS)
    assert (one.volume, one.removable) == ("a.ext.disk0.snap", False)
    assert "the next one replaces it" in one.why


def test_a_writer_that_is_not_the_primary_and_a_disk_without_a_volume_are_told() -> None:
    (one,) = compare([volume(holders=("node2",))], DISKS, cluster=OURS)
    assert "web1 is on node1, but node2 may write" in one.why
    assert not one.removable
    (lost,) = compare([], DISKS, cluster=OURS)
    assert (lost.volume, ONE in lost.why) == (None, True)
    assert list(compare([], {ONE: GanetiDisk(instance="web1", node="node1", template="plain")}, cluster=OURS)) == []


@dataclass
class Place:
    """Volumes of one pool."""

    there: dict[str, VolumeFacts]
    after_renaming: Callable[[], None] = lambda: None
    fault: Error | None = None

    def volumes(self) -> list[str]:
        if self.fault is not None:
            raise self.fault
        return list(self.there)

    def facts(self, name: str) -> VolumeFacts:
        return self.there[name]

    def remove(self, name: str, *, deserted: bool) -> None:
        del self.there[name]

    def set_cluster(self, name: str, cluster: str) -> None:
        self.there[name] = dataclasses.replace(self.there[name], cluster=cluster)
        self.after_renaming()


@dataclass
class Site:
    """What the command is called for, on a master whose Ganeti has the disk ONE."""

    here: Place
    elsewhere: list[Place]
    told: list[str] = field(default_factory=list)

    def reconcile(self, *, remove: bool = False, rename: str | None = None, of: str | None = None) -> int:
        words = Namespace(remove=remove, fence=False, rename=rename, of=of)
        return reconcile.run(Settings(), words, self.told.append)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    found = Site(here=Place({}), elsewhere=[])
    where = "snf_extstorage.commands.reconcile"
    monkeypatch.setattr(f"{where}.open_volumes", lambda _: found.here)
    monkeypatch.setattr(f"{where}.open_elsewhere", lambda _: SimpleNamespace(volumes=lambda: found.elsewhere))
    monkeypatch.setattr(f"{where}._list", lambda command, columns: LISTS[command])
    monkeypatch.setattr(f"{where}.cluster_name", lambda: OURS)
    monkeypatch.setattr(f"{where}.load_disks", lambda: frozenset({ONE}))
    return found


def test_what_is_left_in_another_pool_is_told_and_removed_there(site: Site) -> None:
    site.here.there = {"a.ext.disk0": volume(), "b.ext.disk0": volume("b.ext.disk0", TWO)}
    site.elsewhere = [Place({"c.ext.disk0": volume("c.ext.disk0", TWO)})]
    assert site.reconcile(remove=True) == 1
    assert [one for one in site.told if one.endswith(": removed")] == ["b.ext.disk0: removed", "c.ext.disk0: removed"]
    assert (list(site.here.there), site.elsewhere[0].there) == (["a.ext.disk0"], {})


def test_what_ganeti_makes_while_volumes_are_renamed_is_not_removed(site: Site) -> None:
    """Ganeti was asked before, so it is among the disks of nobody who was asked."""
    new = volume("b.ext.disk0", TWO)
    site.here.there = {"a.ext.disk0": volume(cluster="old")}
    site.here.after_renaming = lambda: site.here.there.update({new.name: new})
    assert site.reconcile(remove=True, rename="old") == 0
    assert site.here.there == {"a.ext.disk0": volume(), "b.ext.disk0": new}
    assert site.told == [f"a.ext.disk0: is of cluster {OURS} now"]


def test_a_pool_that_is_lost_is_told_and_the_others_are_reconciled_nevertheless(site: Site) -> None:
    site.here.there = {"a.ext.disk0": volume(), "b.ext.disk0": volume("b.ext.disk0", TWO)}
    lost = Place({}, fault=EnvironmentFault("the pool 'hdd' does not exist"))
    site.elsewhere = [lost, Place({"c.ext.disk0": volume("c.ext.disk0", TWO)})]
    assert site.reconcile(remove=True) == 1
    assert (list(site.here.there), site.elsewhere[1].there) == (["a.ext.disk0"], {})
    assert [line for line in site.told if "the pool 'hdd' does not exist" in line] == site.told[:1]
    assert site.reconcile() == 1  # though nothing else differs
    site.here.fault = lost.fault
    with pytest.raises(EnvironmentFault, match="hdd"):  # all disks of the engine's would seem lost
        site.reconcile()


def test_what_a_rename_left_without_a_disk_goes_once_it_is_said_that_nobody_has_that_name(site: Site) -> None:
    left = [volume("b.ext.disk0", TWO, cluster="old"), volume("c.ext.disk0.snap", None, cluster="old")]
    other = [volume("d.ext.disk0", TWO, cluster="other"), volume("e.ext.disk0", TWO, cluster="")]
    site.here.there = {one.name: one for one in [volume(), *left, *other]}
    assert site.reconcile(remove=True) == 1
    assert len(site.here.there) == 5
    assert [one.partition(":")[0] for one in site.told if "--of old says" in one] == [one.name for one in left]
    assert site.reconcile(remove=True, of="old") == 1
    assert list(site.here.there) == ["a.ext.disk0", "d.ext.disk0", "e.ext.disk0"]
    with pytest.raises(UsageError, match="--of wants the name of a cluster"):
        site.reconcile(remove=True, of="")


def test_a_detached_disks_volume_is_nobodys_to_remove() -> None:
    """Ganeti lists the disks of instances, and a detached one is of none: only its configuration has it."""
    (one,) = compare([volume(uuid=TWO)], {}, cluster=OURS, detached={TWO})
    assert (one.removable, "detached" in one.why) == (False, True)
    (one,) = compare([volume(uuid=TWO)], {}, cluster=OURS)
    assert one.removable


def test_a_volume_of_the_clusters_old_name_is_told_and_taken_over() -> None:
    volumes = [volume(cluster="old"), volume("b", TWO, cluster="old"), volume("c", None, cluster="old"), volume("d")]
    told = {one.volume: one for one in compare(volumes, DISKS, cluster=OURS)}
    assert "reconcile --rename old" in told[volumes[0].name].why
    assert [name for name, one in told.items() if one.removable] == []
    assert plan_rename(volumes, DISKS, old="old", cluster=OURS) == (volumes[0].name,)
    assert plan_rename(volumes, DISKS, old="other", cluster=OURS) == ()
    for old, cluster in ((OURS, OURS), ("old", "")):
        with pytest.raises(UserError, match="is to be the name that this cluster had, but it is called"):
            plan_rename(volumes, DISKS, old=old, cluster=cluster)


@pytest.mark.parametrize(
    ("found", "of", "detached", "sentence"),
    [
        (volume(), None, set(), "it is a disk of web1"),
        (volume(), OURS, set(), "it is a disk of web1"),
        (volume(uuid=TWO), None, {TWO}, "which was detached"),
        (volume(uuid=TWO, cluster="two"), None, set(), "cannot speak for; call this there, or, .* give --of two"),
        (volume(uuid=TWO, cluster="two"), "three", set(), "cannot speak for"),
        (volume(uuid=TWO, cluster="two"), "two", {TWO}, "which was detached"),
        (volume(uuid=TWO, cluster="two"), "", set(), "cannot speak for"),
        (volume(uuid=TWO, cluster=""), None, set(), "was not written down; .* give --of ''"),
        (volume(uuid=TWO, cluster=""), OURS, set(), "was not written down; .* give --of ''"),
    ],
)
def test_what_ganeti_has_or_another_may_have_is_not_released(
    found: VolumeFacts, of: str | None, detached: set[str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        refuse_releasing(found, DISKS, cluster=OURS, of=of, detached=detached)


def test_what_no_disk_has_is_released() -> None:
    for found, of in (
        (volume(uuid=TWO), None),
        (volume(uuid=TWO, cluster=""), ""),
        (volume(uuid=None, cluster=""), None),
        (volume(uuid=TWO, cluster="two"), "two"),
    ):
        refuse_releasing(found, DISKS, cluster=OURS, of=of, detached=set())
    assert found.cluster == "two"
