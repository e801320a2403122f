"""The NICs that a node saw last."""

from __future__ import annotations

from pathlib import Path

import pytest
from snf_hooks.environment import Hook
from snf_hooks.memory import note, recall
from snf_hooks.views import nics

from tests.hook_environments import NIC_A, environment, instance, nic


def told(operation: str, phase: str, folder: Path, **given: str) -> None:
    note(Hook(environment(operation, phase, instance(**given))), str(folder))


def test_nics_are_remembered_as_the_event_tells_them(tmp_path: Path) -> None:
    hostile = nic(0, NIC_A, NAME="a\nINSTANCE_NIC_COUNT=0\x1b", NETWORK_TAGS="b a")
    told("instance-start", "post", tmp_path, **hostile)
    known = recall(str(tmp_path), "web1")
    assert known is not None and nics(known) == nics(instance(**hostile))


@pytest.mark.parametrize("operation", ["instance-add", "instance-modify"])
def test_nics_that_are_only_planned_are_not_remembered(tmp_path: Path, operation: str) -> None:
    told(operation, "pre", tmp_path)
    assert recall(str(tmp_path), "web1") is None
    told(operation, "post", tmp_path)
    assert recall(str(tmp_path), "web1") is not None


def test_a_removed_instance_is_forgotten_and_a_renamed_one_is_known_by_its_new_name(tmp_path: Path) -> None:
    told("instance-start", "pre", tmp_path)
    told("instance-rename", "post", tmp_path, INSTANCE_NEW_NAME="web2")
    assert [path.name for path in tmp_path.iterdir()] == ["web2"]
    told("instance-remove", "post", tmp_path, INSTANCE_NAME="web2")
    assert list(tmp_path.iterdir()) == []


def test_a_new_master_knows_nothing(tmp_path: Path) -> None:
    told("instance-start", "post", tmp_path)
    note(Hook(environment("master-ip-turnup", "pre", {})), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    told("instance-start", "post", tmp_path)
    first = (tmp_path / "web1").stat().st_ino
    told("instance-stop", "pre", tmp_path)
    assert (tmp_path / "web1").stat().st_ino == first
    told("instance-stop", "post", tmp_path, INSTANCE_NIC_COUNT="0")
    assert (tmp_path / "web1").stat().st_ino != first


@pytest.mark.parametrize(
    "content", [b"", b"INSTANCE_NIC_COUNT=1\n", b"END\n", b"INSTANCE_NIC_COUNT=x\nEND\n", b"\xff\nEND\n"]
)
def test_what_is_half_written_or_strange_is_not_known(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "web1").write_bytes(content)
    assert recall(str(tmp_path), "web1") is None


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    told("instance-start", "post", tmp_path)
    (tmp_path / "web2").symlink_to(tmp_path / "web1")
    assert recall(str(tmp_path), "web2") is None
