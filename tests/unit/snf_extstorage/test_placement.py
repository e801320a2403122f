"""Which volumes are an instance's disks, and in which order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from snf_extstorage.placement import Placement, load_disks, load_placement, parse_placement, plan_disks
from snf_extstorage.volume import VolumeFacts

from synnefo_light.errors import EnvironmentFault, ProtocolError, UserError
from synnefo_light.ganeti import VolumeName
from synnefo_light.units import Bytes

CONFIG = {
    "cluster": {},
    "nodes": {"n-1": {"name": "node1"}, "n-2": {"name": "node2"}},
    "instances": {"i-1": {"name": "web1", "primary_node": "n-2", "disks": ["u-c", "u-a"]}},
}


def volume(name: str, uuid: str | None, instance: str = "web1") -> VolumeFacts:
    return VolumeFacts(
        name=VolumeName(name),
        uuid=uuid,
        size=Bytes(1),
        origin=None,
        generation=0,
        info=f"originstname+{instance}",
        holders=(),
        exclusive=False,
        stored=None,
        extents=None,
    )


A, B = volume("x.ext.disk0", "u-a"), volume("y.ext.disk1", "u-b")
C = volume("z.ext.disk1", "u-c")
OTHER, SNAP = volume("o.ext.disk0", "u-o", "web2"), volume("x.ext.disk0.snap", None)
EVERY = [A, B, C, OTHER, SNAP]


def test_the_order_is_that_of_ganetis_configuration_whatever_the_names_say() -> None:
    placement = parse_placement(json.dumps(CONFIG).encode(), "web1")
    assert placement == Placement(node="node2", disks=("u-c", "u-a"))
    assert plan_disks("web1", "", placement, EVERY) == {0: C, 1: A}
    assert plan_disks("web1", "1", placement, EVERY) == {1: A}


def test_without_ganetis_configuration_the_names_tell() -> None:
    assert plan_disks("web1", "", None, [B, OTHER, A, SNAP]) == {0: A, 1: B}
    assert plan_disks("web1", "1,0", None, [A, B]) == {1: B, 0: A}


def test_two_volumes_that_were_made_as_the_same_disk_are_not_guessed_between() -> None:
    with pytest.raises(UserError, match=r"y.ext.disk1 and z.ext.disk1 were both made as disk 1 of web1"):
        plan_disks("web1", "", None, EVERY)
    assert plan_disks("web1", "z.ext.disk1,u-a", None, EVERY) == {0: C, 1: A}


@pytest.mark.parametrize("wanted", ["2", "x", "-1", "0,2", ",", "0,"])
def test_a_disk_that_is_not_there_is_refused(wanted: str) -> None:
    with pytest.raises(UserError, match="it has 0, 1"):
        plan_disks("web1", wanted, None, [A, B])


def test_another_instances_disk_is_refused_by_its_name() -> None:
    with pytest.raises(UserError, match=r"o\.ext\.disk0 is no disk of web1"):
        plan_disks("web1", "o.ext.disk0", None, EVERY)
    with pytest.raises(UserError, match=r"y\.ext\.disk1 is no disk of web1"):
        plan_disks("web1", "u-b", Placement(node="node2", disks=("u-c",)), EVERY)


def test_an_instance_without_volumes_is_refused() -> None:
    for placement in (None, Placement(node="node1", disks=("u-x",))):
        with pytest.raises(UserError, match="no volume here belongs to the instance web3"):
            plan_disks("web3", "", placement, EVERY)


def test_a_node_without_the_configuration_or_an_instance_that_is_not_in_it_has_no_placement(tmp_path: Path) -> None:
    assert load_placement("web1", file=tmp_path / "config.data") is None
    assert parse_placement(json.dumps(CONFIG).encode(), "web9") is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"instances": []}',
        b'{"instances": {"i": {"name": "web1", "primary_node": "n", "disks": [1]}}, "nodes": {"n": {"name": "n"}}}',
        b'{"instances": {"i": {"name": "web1", "primary_node": "n", "disks": []}}, "nodes": {}}',
        b'{"instances": {"i": {"name": "web1"}}, "nodes": {}}',
    ],
)
def test_a_configuration_of_another_shape_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_placement(raw, "web1")


def test_all_disks_of_the_configuration_are_known_also_those_that_no_instance_has(tmp_path: Path) -> None:
    file = tmp_path / "config.data"
    with pytest.raises(EnvironmentFault, match=r"config\.data is not on this node; call this on the master"):
        load_disks(file=file)
    file.write_text(json.dumps(CONFIG | {"disks": {"u-c": {}, "u-z": {}}}))
    assert load_disks(file=file) == {"u-c", "u-z"}
    for raw in (json.dumps(CONFIG), '{"disks": []}', "{"):
        file.write_text(raw)
        with pytest.raises(ProtocolError, match=r"config\.data does not say which disks there are"):
            load_disks(file=file)
