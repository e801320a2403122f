"""Hooks in a real cluster: what Ganeti itself runs and says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from snf_hooks.operations import directories

from synnefo_light.events import from_json
from tests.cluster.instances import Cluster


def told(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    """The details of the events that hooks left of an instance, with their types, oldest first."""
    mine = [e for e in cluster.events() if e["source"] == f"/1/instances/{name}" and e["cause"]["phase"]]  # type: ignore[index]
    assert [from_json(json.dumps(e).encode()).id for e in mine] == [e["id"] for e in mine]
    return [{"type": e["type"], **e["detail"]} for e in mine]  # type: ignore[dict-item]


@pytest.fixture
def diskless(cluster: Cluster, name: str) -> str:
    words = "-t diskless -o snf-image+default -O img_id=x,img_format=diskdump -B memory=128m"
    words += " --no-install --no-start --no-name-check --no-ip-check"
    cluster.gnt(f"gnt-instance add {words} -n {cluster.node.name} --net 0:name=front {name}")
    return name


def test_each_hook_that_is_installed_is_in_a_folder_that_ganeti_looks_into(cluster: Cluster) -> None:
    found = cluster.node.run(["sh", "-c", "cd /etc/ganeti/hooks && ls */50-synnefo-light"]).text.split()
    assert sorted(found) == sorted(f"{folder}/50-synnefo-light" for folder in directories())


def test_an_instance_that_is_added_leaves_its_nic_and_its_disk_before_and_after(
    cluster: Cluster, name: str, image: str
) -> None:
    added = cluster.add(name, img_id=image)
    assert added.ok, added.output
    begun, done = told(cluster, name)
    assert (begun["type"], done["type"]) == ("instance-change-begun", "instance-created")
    for detail in (begun, done):
        assert detail["before"] is None and detail["after"]["primary"].startswith(cluster.node.name.partition(".")[0])
        assert [disk["size"] for disk in detail["after"]["disks"]] == [96]
        assert len(detail["after"]["nics"]) == 1 and detail["after"]["nics"][0]["mac"].count(":") == 5


def test_nics_tags_and_memory_that_change_are_told_as_changes_and_no_hook_fails(
    cluster: Cluster, diskless: str
) -> None:
    cluster.gnt(f"gnt-instance modify --net add:name=back {diskless}")
    cluster.gnt(f"gnt-instance add-tags {diskless} blue")
    cluster.gnt(f"gnt-instance modify -B memory=192m --net 0:name=first {diskless}")
    shown = [d for d in told(cluster, diskless) if d["type"] == "instance-modified"]
    first, second = ([(c["kind"], c["action"], c["field"] or c["item"]) for c in d["changes"]] for d in shown)
    assert [change[:2] for change in first] == [("nic", "added")]
    assert second == [("nic", "modified", "name"), ("backend", "modified", "maxmem"), ("backend", "modified", "minmem")]
    assert shown[1]["after"]["tags"] == ["blue"]
    said = cluster.node.run(["sh", "-c", "journalctl --quiet --no-pager -t snf-hooks 2>/dev/null || true"]).text
    assert said == ""


def test_an_instance_that_is_removed_has_nothing_after_and_is_forgotten(cluster: Cluster, diskless: str) -> None:
    cluster.remove(diskless)
    last = told(cluster, diskless)[-1]
    assert (last["type"], last["after"], last["before"]["name"]) == ("instance-removed", None, diskless)
    assert diskless not in cluster.node.run(["ls", "/var/lib/synnefo-light/hooks"]).text
