"""What an operation leaves: before, after, and what changed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from snf_hooks.environment import Hook, HookError
from snf_hooks.operations import OPERATIONS
from snf_hooks.translate import tells

from synnefo_light.changes import Change, InstanceChange, ObjectChange
from tests.hook_environments import DISK_A, DISK_B, NIC_A, NIC_B, disk, document, environment, event, instance, nic


def told(environ: dict[str, str], remembered: dict[str, str] | None = None) -> InstanceChange:
    detail = event(environ, remembered=remembered).detail
    assert isinstance(detail, InstanceChange)
    return detail


def told_of_object(environ: dict[str, str]) -> ObjectChange:
    detail = event(environ).detail
    assert isinstance(detail, ObjectChange)
    return detail


def minimal(operation: str, phase: str) -> dict[str, str]:
    """The least that each hook is given."""
    if OPERATIONS[operation][0] == "instance":
        extra = {"INSTANCE_NEW_NAME": "web2", "TARGET_NODE": "node2", "DISK": "0", "AMOUNT": "1", "ABSOLUTE": "False"}
        return environment(operation, phase, instance(**extra))
    names = {"OP_TARGET": "thing", "OLD_NAME": "a", "NEW_NAME": "b"}
    return environment(operation, phase, names)


@pytest.mark.parametrize(
    ("operation", "phase"), [(name, p) for name, (_, _, phases) in OPERATIONS.items() for p in phases]
)
def test_each_hook_leaves_an_event_that_the_contract_reads(operation: str, phase: str) -> None:
    found = event(minimal(operation, phase))
    assert (found.cause.phase, found.cause.job, found.at) == (phase, None, "2026-01-01T12:00:00.000000Z")
    assert found.type.endswith("-change-begun") is (phase == "pre")


def test_a_new_instance_has_nothing_before_and_its_nic_and_disk_after_in_both_phases() -> None:
    given = instance(INSTANCE_STATUS="True", ADD_MODE="create")
    begun, done = (told(environment("instance-add", phase, given)) for phase in ("pre", "post"))
    assert begun == done
    assert done.before is None and done.changes == () and done.options == {"add_mode": "create"}
    assert done.after is not None and done.after.nics is not None
    assert (done.after.status, done.after.nics[0].uuid, done.after.disks[0].size) == ("up", NIC_A, 1024)


def test_a_removed_instance_has_nothing_after() -> None:
    done = told(environment("instance-remove", "post", instance()))
    assert done.after is None and done.before is not None and done.before.tags == ("blue", "shop")


@pytest.mark.parametrize("phase", ["pre", "post"])
def test_an_instance_that_its_export_removes_has_nothing_after(phase: str) -> None:
    kept = told(environment("instance-export", phase, instance(REMOVE_INSTANCE="False")))
    assert kept.after is not None and kept.after == kept.before
    gone = told(environment("instance-export", phase, instance(REMOVE_INSTANCE="True")))
    assert gone.after is None and gone.changes == () and gone.before == kept.before and gone.instance == "web1"


CHANGES: dict[str, tuple[str, dict[str, str], dict[str, str], Change]] = {
    "grow": (
        *("disk-grow", instance(DISK="0", AMOUNT="4", ABSOLUTE="False"), instance(INSTANCE_DISK0_SIZE="1028")),
        Change(kind="disk", action="modified", item=DISK_A, field="size", before="1024", after="1028"),
    ),
    "new disk": (
        *("instance-modify", instance(), instance(INSTANCE_DISK_COUNT="2", **disk(1, DISK_B))),
        Change(kind="disk", action="added", item=DISK_B),
    ),
    "first disk gone": (
        *(
            "instance-modify",
            instance(INSTANCE_DISK_COUNT="2", **disk(1, DISK_B)),
            instance(**disk(0, DISK_B, ID=f"{DISK_B}.ext.disk1")),
        ),
        Change(kind="disk", action="removed", item=DISK_A),
    ),
    "tag": (
        *("instance-start", instance(), instance(INSTANCE_TAGS="blue shop new")),
        Change(kind="tag", action="added", item="new"),
    ),
    "memory": (
        *(
            "instance-modify",
            instance(INSTANCE_MAXMEM="1024"),
            instance(INSTANCE_MAXMEM="1024", INSTANCE_BE_maxmem="1024"),
        ),
        Change(kind="backend", action="modified", item="maxmem", before="512", after="1024"),
    ),
    "hypervisor": (
        *("instance-modify", instance(), instance(INSTANCE_HV_boot_order="cdrom")),
        Change(kind="hypervisor", action="modified", item="boot_order", before="disk", after="cdrom"),
    ),
    "start": (
        *("instance-start", instance(INSTANCE_STATUS="down"), instance()),
        Change(kind="status", action="modified", before="down", after="up"),
    ),
    "migrate": (
        *(
            "instance-migrate",
            instance(NEW_PRIMARY="node2.example.org"),
            instance(INSTANCE_PRIMARY="node2.example.org"),
        ),
        Change(kind="primary", action="modified", before="node1.example.org", after="node2.example.org"),
    ),
    "rename": (
        *("instance-rename", instance(INSTANCE_NEW_NAME="web2"), instance(INSTANCE_NEW_NAME="web2")),
        Change(kind="name", action="modified", before="web1", after="web2"),
    ),
    "move": (
        *("instance-move", instance(TARGET_NODE="node2"), instance(TARGET_NODE="node2")),
        Change(kind="primary", action="modified", before="node1.example.org", after="node2"),
    ),
    "reinstall": (
        *("instance-reinstall", instance(), instance(INSTANCE_OS_TYPE="other+default")),
        Change(kind="os", action="modified", before="snf-image+default", after="other+default"),
    ),
    "secondary": (
        *("mirrors-replace", instance(INSTANCE_SECONDARIES="b a"), instance(INSTANCE_SECONDARIES="c a")),
        Change(kind="secondaries", action="modified", before="a b", after="a c"),
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_one_thing_changed_is_one_change(case: str) -> None:
    operation, before, after, expected = CHANGES[case]
    assert told(environment(operation, "post", before, after)).changes == (expected,)


@pytest.mark.parametrize("case", ["grow", "start", "migrate", "rename", "move", "memory"])
def test_what_ganeti_says_beforehand_is_the_same_change(case: str) -> None:
    operation, before, _, expected = CHANGES[case]
    assert told(environment(operation, "pre", before)).changes == (expected,)


def test_a_disk_grows_to_an_absolute_size() -> None:
    begun = told(environment("disk-grow", "pre", instance(DISK="0", AMOUNT="4096", ABSOLUTE="True")))
    assert begun.after is not None and begun.after.disks[0].size == 4096


def test_the_nics_before_a_change_are_those_remembered_since_ganeti_gives_the_new_ones_twice() -> None:
    new = instance(INSTANCE_NIC_COUNT="2", INSTANCE_NIC0_IP="10.0.0.9", **nic(1, NIC_B))
    remembered = {"INSTANCE_NIC_COUNT": "1", **nic(0, NIC_A, IP="10.0.0.8")}
    done = told(environment("instance-modify", "post", new), remembered)
    assert done.changes == (
        Change(kind="nic", action="modified", item=NIC_A, field="ip", before="10.0.0.8", after="10.0.0.9"),
        Change(kind="nic", action="added", item=NIC_B),
    )
    gone = told(
        environment("instance-modify", "post", instance()),
        {"INSTANCE_NIC_COUNT": "2", **nic(0, NIC_A), **nic(1, NIC_B)},
    )
    assert gone.changes == (Change(kind="nic", action="removed", item=NIC_B),)


def test_nics_that_nobody_remembers_are_said_to_be_unknown_and_have_no_changes() -> None:
    done = told(environment("instance-modify", "post", instance()))
    assert done.before is not None and done.before.nics is None and done.changes == ()


def test_a_migration_that_only_tidies_up_says_no_new_node() -> None:
    given = instance(NEW_PRIMARY="node2", MIGRATE_CLEANUP="True")
    assert told(environment("instance-migrate", "pre", given)).changes == ()


def test_a_renamed_instance_is_the_new_one_afterwards() -> None:
    given = instance(INSTANCE_NEW_NAME="web2")
    sources = [event(environment("instance-rename", phase, given)).source for phase in ("pre", "post")]
    assert sources == ["/1/instances/web1", "/1/instances/web2"]


def test_other_things_have_their_properties_and_their_names() -> None:
    subnet = {"NETWORK_NAME": "lan", "NETWORK_SUBNET": "10.0.0.0/24", "NETWORK_TAGS": "a b"}
    added = told_of_object(environment("network-add", "post", subnet))
    assert (added.kind, added.name, added.before) == ("network", "lan", None)
    assert added.after == {"subnet": "10.0.0.0/24", "tags": "a b"}
    asked = {"OP_TARGET": "node2", "OFFLINE": "True", "DRAINED": "None"}
    assert told_of_object(environment("node-modify", "pre", asked)).after == {"offline": "True"}
    renamed = told_of_object(environment("group-rename", "post", {"OLD_NAME": "g2", "NEW_NAME": "g3"}))
    assert renamed.changes == (Change(kind="name", action="modified", before="g2", after="g3"),)
    assert told_of_object(environment("network-remove", "post", {"NETWORK_NAME": "lan"})).after is None


def test_which_network_was_connected_ganeti_does_not_say_and_the_path_is_safe() -> None:
    found = event(environment("network-connect", "post", {"GROUP_NAME": "g/../é", "GROUP_NETWORK_LINK": "br0"}))
    assert found.source == "/1/groups/g%2F..%2F%C3%A9/networks"
    assert isinstance(found.detail, ObjectChange) and found.detail.name is None


def test_no_secret_of_a_parameter_is_in_an_event() -> None:
    given = instance(INSTANCE_HV_cdrom_image_path="http://user:SECRET@example.org/x.iso", OSPARAMS_SECRET="SECRET")
    given |= {"INSTANCE_HV_brand_new_parameter": "SECRET", "INSTANCE_OSP_PASSWORD": "SECRET"}
    text = json.dumps(
        document(environment("instance-modify", "post", given, {**given, "INSTANCE_HV_kvm_extra": "SECRET2"}))
    )
    assert "SECRET" not in text and '"acpi"' in text


@pytest.mark.parametrize("phase", ["pre", "post"])
def test_the_node_of_an_export_is_told_and_what_lets_another_cluster_in_is_not(phase: str) -> None:
    here = told(environment("instance-export", phase, instance(EXPORT_MODE="local", EXPORT_NODE="node2")))
    assert here.options == {"export_mode": "local", "export_node": "node2"}
    ends = "[('192.0.2.1', 1234, 'SECRET', 'SECRET', 'SECRET')]"
    away = document(environment("instance-export", phase, instance(EXPORT_MODE="remote", EXPORT_NODE=ends)))
    assert "SECRET" not in json.dumps(away) and away["detail"]["options"] == {"export_mode": "remote"}
    unsaid = document(environment("instance-export", phase, instance(EXPORT_NODE=ends)))
    assert "SECRET" not in json.dumps(unsaid)


def test_a_hook_run_twice_has_one_id_and_the_same_operation_again_has_another() -> None:
    given = environment("instance-start", "post", instance())
    assert event(given).id == event(given).id
    assert event(given, call="other").id != event(given).id
    assert event({**given, "GANETI_HOOKS_PHASE": "pre"}).id != event(given).id


def test_the_id_does_not_change_with_what_was_remembered_meanwhile_nor_with_the_order_of_tags() -> None:
    given = environment("instance-modify", "post", instance())
    known = {"INSTANCE_NIC_COUNT": "0"}
    assert event(given, remembered=known).id == event(given).id
    other = environment("instance-modify", "post", instance(INSTANCE_TAGS="blue shop"))
    assert event(other) == replace(event(given), id=event(other).id) and event(other).id == event(given).id


@pytest.mark.parametrize(
    ("node", "master", "nodes", "expected"),
    [
        ("node1.example.org", "node1.example.org", ["node1.example.org", "node2.example.org"], True),
        ("node1", "node1.example.org", ["node1.example.org"], True),
        ("node2", "node1.example.org", ["node1.example.org", "node2.example.org"], False),
        ("node2.example.org", "node1.example.org", ["node1.example.org", "node2.example.org"], False),
        ("alias", "node1.example.org", ["node1.example.org", "node2.example.org"], True),
        ("node2", "node1.example.org", [], True),
        ("node1.other.org", "node1.example.org", ["node1.example.org", "node1.other.org"], False),
    ],
)
def test_the_master_tells_and_so_does_who_cannot_be_sure_not_to_be_it(
    node: str, master: str, nodes: list[str], expected: bool
) -> None:
    hook = Hook(environment("instance-start", "post", instance(), MASTER=master))
    assert tells(hook, node=node, nodes=nodes) is expected


def test_what_does_not_run_on_the_master_is_told_where_it_runs() -> None:
    hook = Hook(environment("network-connect", "post", {"GROUP_NAME": "g"}))
    assert tells(hook, node="node2", nodes=["node1.example.org", "node2.example.org"])


def test_the_master_address_says_which_cluster_it_is_of_although_ganeti_mixes_the_names_up() -> None:
    given = environment(
        "master-ip-turnup", "post", {"MASTER_IP": "10.0.0.1"}, CLUSTER="node1", OBJECT_TYPE="cluster.example.org"
    )
    del given["GANETI_MASTER"]
    found = event(given)
    assert (found.cluster, found.source) == ("cluster.example.org", "/1/cluster")
    assert isinstance(found.detail, ObjectChange) and found.detail.after == {"master_ip": "10.0.0.1"}
    assert found.detail.name == "cluster.example.org"


BAD: list[dict[str, Any]] = [
    {"INSTANCE_NAME": "../../etc/passwd"},
    {"INSTANCE_NAME": ""},
    {"INSTANCE_PRIMARY": "a b"},
    {"INSTANCE_NIC_COUNT": "-1"},
    {"INSTANCE_NIC_COUNT": "99999"},
    {"INSTANCE_DISK_COUNT": "1e9"},
    {"INSTANCE_DISK0_SIZE": "much"},
    {"INSTANCE_DISK0_SIZE": "٣"},
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_what_ganeti_would_never_write_is_refused_by_its_name(bad: dict[str, str]) -> None:
    with pytest.raises(HookError, match=next(iter(bad))):
        document(environment("instance-start", "post", instance(), instance(**bad)))
