"""The list of hooks, the contract and the package agree; the writer of JSON is the contract's."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import get_args

import pytest
from snf_hooks import views
from snf_hooks.document import to_json
from snf_hooks.operations import OPERATIONS, directories, event_type

from synnefo_light import spool
from synnefo_light.changes import Disk, Instance, InstanceEventType, Nic, ObjectEventType, ObjectKind
from synnefo_light.events import EventType, event_id
from synnefo_light.records import dump_json
from tests.hook_environments import document, environment, instance

TREE = Path(__file__).resolve().parents[3]


def test_each_type_of_the_contract_has_its_hook_and_each_hook_its_type() -> None:
    made = {event_type(name, phase) for name, (_, _, phases) in OPERATIONS.items() for phase in phases}
    assert made == {*get_args(InstanceEventType), *get_args(ObjectEventType)}
    assert made < set(get_args(EventType))
    assert {about for about, _, _ in OPERATIONS.values()} == {"instance", *get_args(ObjectKind)}


def test_the_package_puts_the_file_into_each_folder_and_no_other() -> None:
    lines = (TREE / "debian" / "snf-ganeti-hooks.install").read_text().splitlines()
    found = [line.removeprefix("hooks/50-synnefo-light etc/ganeti/hooks/") for line in lines if "50-" in line]
    assert sorted(found) == sorted(directories()) and len(set(found)) == len(found)


def test_ganeti_runs_a_file_of_that_name() -> None:
    (entry,) = (TREE / "hooks").glob("50-*")
    assert re.fullmatch(r"[a-zA-Z0-9_-]+", entry.name) and entry.stat().st_mode & 0o111


@pytest.mark.parametrize("page", ["snf-events.7.md"])
def test_the_manual_names_every_type_and_every_key(page: str) -> None:
    text = (TREE / "man" / page).read_text()
    words = [*get_args(EventType), *Instance.__slots__, *Nic.__slots__, *Disk.__slots__]
    assert [word for word in words if f"**{word}**" not in text] == []


def test_the_document_is_in_the_canonical_form_of_the_contract() -> None:
    made = document(environment("instance-modify", "post", instance(INSTANCE_NIC0_NAME='q"\\/\x1b é ✓')))
    assert to_json(made).encode() == dump_json(made)
    assert to_json([True, None, -3, "\u2028", {"b": 1, "a": []}]) == '[true,null,-3,"\u2028",{"a":[],"b":1}]'
    assert json.loads(to_json(made)) == made


def test_what_has_no_place_in_json_is_refused() -> None:
    with pytest.raises(TypeError, match="float"):
        to_json({"a": 1.5})


def test_ids_are_uuids_of_version_5() -> None:
    space = uuid.UUID("5f1a2c0e-4f5b-5d0c-9f3e-2f6c7d1b8a90")
    assert event_id("a", "é") == spool.event_id("a", "é") == str(uuid.uuid5(space, "a\x1fé"))


def test_parameters_that_may_hold_a_secret_are_not_on_the_list() -> None:
    free = {"kvm_extra", "kernel_args", "extra_config", "bootloader_args", "usb_devices", "init_script", "kvm_path"}
    told = {*views.HYPERVISOR, *views.HYPERVISOR_PATHS}
    assert not told & free and [name for name in told if "password" in name or "x509" in name or "domain" in name] == []
