"""What may be adopted, and when a removal gives back instead of freeing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import pytest
from snf_extstorage.archipelago import Archipelago
from snf_extstorage.directory.record import VolumeRecord
from snf_extstorage.provider import VolumeProvider
from snf_extstorage.refusals import formerly_after_open, is_lent, refuse_adopting, refuse_other
from snf_extstorage.volume import Exists

from synnefo_light.errors import ProtocolError, UserError
from synnefo_light.ganeti import CreateEnv, SnapshotEnv, VolumeName, cluster_name
from synnefo_light.units import MiB

ONE, TWO = "efa8d6e0-c062-4b14-b829-467e6499f266", "11111111-c062-4b14-b829-467e6499f266"
V, W = VolumeName("v"), VolumeName("a.ext.disk0")
FREE = VolumeRecord(uuid=None, size=1 << 20, origin="zeros", map=None)
ADOPTED = dataclasses.replace(FREE, uuid=ONE, formerly=V)


def asked(volumes: Any, **params: str) -> None:
    env = CreateEnv(volume=W, uuid=ONE, cname=None, access="kernelspace", params=params, size=MiB(1))
    Archipelago(volumes, Mock()).create(env)


@pytest.mark.parametrize("source", ["../trash/v-1", "..", "/etc", "a/b", ".tmp-1", "-v", "v\n", "a@b", "v" * 201])
def test_what_is_to_be_adopted_is_named_as_volumes_are(source: str) -> None:
    volumes = Mock()
    with pytest.raises(ProtocolError, match=r"adopt=.* cannot name a volume"):
        asked(volumes, adopt=source)
    assert volumes.mock_calls == []
    asked(volumes, adopt=V)
    assert volumes.mock_calls == [call.adopt(V, W, uuid=ONE, size=1 << 20)]


@pytest.mark.parametrize("source", ["base." + "0" * 64, "gone.12ab"])
def test_an_image_that_the_engine_keeps_for_itself_is_not_adopted(source: str) -> None:
    with pytest.raises(UserError, match="are the engine's own; name a volume"):
        refuse_adopting(source, W, record=None, uuid=ONE)


def test_a_volume_that_ganeti_made_for_another_disk_is_not_adopted() -> None:
    made = dataclasses.replace(FREE, uuid=TWO)
    with pytest.raises(UserError, match=f"Ganeti made it for its disk {TWO}; adopt one that is no disk's"):
        refuse_adopting(V, W, record=made, uuid=ONE)
    used = dataclasses.replace(made, formerly="before", opened=True)
    with pytest.raises(UserError, match="Ganeti made it for its disk"):
        refuse_adopting(V, W, record=used, uuid=ONE)
    for free in (None, FREE, dataclasses.replace(made, uuid=ONE)):
        refuse_adopting(V, W, record=free, uuid=ONE)


def test_a_volume_whose_adoption_died_may_be_adopted_by_another_disk_and_one_that_ended_may_not() -> None:
    refuse_adopting(V, W, record=ADOPTED, uuid=TWO)
    with pytest.raises(UserError, match="Ganeti made it for its disk"):
        refuse_adopting(W, V, record=ADOPTED, uuid=TWO)


def test_what_was_adopted_is_lent_until_the_second_open() -> None:
    """Ganeti opens a disk when it makes it, and when it assembles the instance's disks."""
    assert is_lent(W, ADOPTED)
    once = dataclasses.replace(ADOPTED, opened=True, formerly=formerly_after_open(ADOPTED))
    assert is_lent(W, once)
    twice = dataclasses.replace(once, formerly=formerly_after_open(once))
    assert not is_lent(W, twice)
    assert not is_lent(W, FREE)


def test_a_crash_while_adopting_or_giving_back_leaves_it_lent_and_what_was_given_back_can_be_removed() -> None:
    assert is_lent(V, ADOPTED)
    returned = dataclasses.replace(ADOPTED, uuid=None, opened=True)
    assert is_lent(W, returned)
    assert not is_lent(V, returned)


def test_what_was_adopted_is_not_what_a_creation_asks_for() -> None:
    with pytest.raises(Exists, match="has been in use"):
        refuse_other(W, ADOPTED, dataclasses.replace(FREE, uuid=ONE))


def test_what_a_dead_nodes_export_left_does_not_stop_the_next() -> None:
    volumes = Mock()
    snapshot = VolumeName(f"{W}.snap")
    env = SnapshotEnv(volume=W, uuid=None, cname=None, access="kernelspace", params={}, snapshot=snapshot, size=MiB(1))
    VolumeProvider(volumes).snapshot(env)
    assert call.remove(snapshot, deserted=True) in volumes.mock_calls


@pytest.mark.parametrize(
    ("text", "name"),
    [("one.example.org\n", "one.example.org"), ("", ""), ("two words\n", ""), ("\xff", ""), ("x" * 256, "")],
)
def test_the_clusters_name_is_what_ganeti_wrote_down_or_none(tmp_path: Path, text: str, name: str) -> None:
    file = tmp_path / "ssconf_cluster_name"
    assert cluster_name(file) == ""
    file.write_text(text, encoding="latin-1")
    assert cluster_name(file) == name
