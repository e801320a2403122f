"""The NICs that a node saw last."""

from __future__ import annotations

from pathlib import Path

import pytest
from snf_hooks.environment import Hook
from snf_hooks.memory import forget_after_failure, forget_before, note, recall
from snf_hooks.views import nics

from synnefo_light.changes import InstanceChange
from tests.hook_environments import NIC_A, environment, event, instance, nic


def told(operation: str, phase: str, folder: Path, **given: str) -> None:
    note(Hook(environment(operation, phase, instance(**given))), str(folder))


def test_nics_are_remembered_as_the_event_tells_them(tmp_path: Path) -> None:
    hostile = nic(0, NIC_A, NAME="a\nINSTANCE_NIC_COUNT=0\x1b", NETWORK_TAGS="b a")
    told("instance-start", "post", tmp_path, **hostile)
    known = recall(str(tmp_path), "web1")
    assert known is not None and nics(known) == nics(instance(**hostile))


@pytest.mark.parametrize("text", ["n" * 300, '"\\\x1b\u2028\x85\r\n', "a\udcff\udc80", "é ✓", "=" * 900])
def test_a_nic_that_did_not_change_has_no_change_whatever_users_called_it(tmp_path: Path, text: str) -> None:
    given = instance(**nic(0, NIC_A, NAME=text, NETWORK_NAME=text, NETWORK_TAGS=f"{text} b"))
    note(Hook(environment("instance-start", "post", given)), str(tmp_path))
    known = recall(str(tmp_path), "web1")
    detail = event(environment("instance-modify", "post", given), remembered=known).detail
    assert isinstance(detail, InstanceChange) and detail.before is not None and detail.after is not None
    assert detail.changes == () and detail.before.nics == detail.after.nics is not None


def test_nics_that_are_too_long_to_be_read_again_are_forgotten(tmp_path: Path) -> None:
    told("instance-start", "post", tmp_path)
    told("instance-modify", "post", tmp_path, **nic(0, NIC_A, **{f"NAME{n}": "n" * 120_000 for n in range(9)}))
    assert list(tmp_path.iterdir()) == []


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


def test_an_instance_that_its_export_removed_is_forgotten_and_not_before_it_is_gone(tmp_path: Path) -> None:
    told("instance-export", "post", tmp_path, REMOVE_INSTANCE="False")
    told("instance-export", "pre", tmp_path, REMOVE_INSTANCE="True")
    assert [path.name for path in tmp_path.iterdir()] == ["web1"]
    told("instance-export", "post", tmp_path, REMOVE_INSTANCE="True")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("phase", ["pre", "post"])
@pytest.mark.parametrize("operation", ["master-ip-turnup", "master-ip-turndown"])
def test_who_becomes_the_master_or_ceases_to_be_it_knows_nothing(tmp_path: Path, operation: str, phase: str) -> None:
    told("instance-start", "post", tmp_path)
    forget_before(Hook(environment("instance-stop", "pre", instance())), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["web1"]
    forget_before(Hook(environment(operation, phase, {})), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_an_instance_whose_hook_failed_is_forgotten_and_no_other(tmp_path: Path) -> None:
    for instance_name in ("web1", "web2", "web3"):
        told("instance-start", "post", tmp_path, INSTANCE_NAME=instance_name)
    renamed = instance(INSTANCE_NEW_NAME="web2")
    forget_after_failure(Hook(environment("instance-rename", "post", renamed)), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["web3"]
    forget_after_failure(Hook(environment("instance-start", "pre", instance(INSTANCE_NAME="x/../web3"))), str(tmp_path))
    forget_after_failure(Hook(environment("node-modify", "pre", instance(INSTANCE_NAME="web3"))), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["web3"]


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    told("instance-start", "post", tmp_path)
    first = (tmp_path / "web1").stat().st_ino
    told("instance-stop", "pre", tmp_path)
    assert (tmp_path / "web1").stat().st_ino == first
    told("instance-stop", "post", tmp_path, INSTANCE_NIC_COUNT="0")
    assert (tmp_path / "web1").stat().st_ino != first


STRANGE = [
    b"",
    b"END\n",
    b'INSTANCE_NIC_COUNT="1"\n',
    b'INSTANCE_NIC_COUNT="1"\nEND',
    b"INSTANCE_NIC_COUNT=1\nEND\n",
    b'INSTANCE_NIC_COUNT="1"x\nEND\n',
    b'INSTANCE_NIC_COUNT="1\nEND\n',
    b'INSTANCE_NIC_COUNT="x"\nEND\n',
    b'INSTANCE_NIC_COUNT="99"\nEND\n',
    'INSTANCE_NIC_COUNT="٣"\nEND\n'.encode(),
    b'INSTANCE_NIC_COUNT="\xff"\nEND\n',
    b'INSTANCE_NIC_COUNT="1"\nA="' + b"a" * (1 << 20) + b'"\nEND\n',
]


@pytest.mark.parametrize("content", STRANGE, ids=range(len(STRANGE)))
def test_what_is_half_written_or_strange_is_not_known(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "web1").write_bytes(b'INSTANCE_NIC_COUNT="1"\nEND\n')
    assert recall(str(tmp_path), "web1") == {"INSTANCE_NIC_COUNT": "1"}
    (tmp_path / "web1").write_bytes(content)
    assert recall(str(tmp_path), "web1") is None


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    told("instance-start", "post", tmp_path)
    (tmp_path / "web2").symlink_to(tmp_path / "web1")
    assert recall(str(tmp_path), "web2") is None
