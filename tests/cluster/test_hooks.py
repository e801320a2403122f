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
    found: list[dict[str, Any]] = []
    for event in cluster.events():
        if event["source"] == f"/1/instances/{name}" and (read := from_json(json.dumps(event).encode())).cause.phase:
            detail = event["detail"]
            assert isinstance(detail, dict)
            found.append({"type": read.type, **detail})
    return found


@pytest.fixture
def small(cluster: Cluster, name: str) -> str:
    """An instance with a NIC and an empty disk."""
    words = "-t file --disk 0:size=8m -o snf-image+default -O img_id=x,img_format=diskdump -B memory=128m"
    words += " --no-install --no-start --no-name-check --no-ip-check --no-wait-for-sync"
    cluster.gnt(f"gnt-instance add {words} -n {cluster.node.name} --net 0:name=front {name}")
    return name


def test_our_hook_is_in_each_folder_that_ganeti_looks_into(cluster: Cluster) -> None:
    found = cluster.node.run(["sh", "-c", "cd /etc/ganeti/hooks && ls */50-synnefo-light"]).text.split()
    assert sorted(found) == sorted(f"{folder}/50-synnefo-light" for folder in directories())


def test_the_life_of_an_instance_is_told_with_what_changed(cluster: Cluster, small: str) -> None:
    begun, done = told(cluster, small)
    assert (begun["type"], done["type"]) == ("instance-change-begun", "instance-created")
    for detail in (begun, done):
        assert detail["before"] is None and detail["after"]["primary"] == cluster.node.name
        assert [disk["size"] for disk in detail["after"]["disks"]] == [8]
        assert [nic["name"] for nic in detail["after"]["nics"]] == ["front"]

    cluster.gnt(f"gnt-instance modify --net add:name=back {small}")
    cluster.gnt(f"gnt-instance add-tags {small} blue")
    cluster.gnt(f"gnt-instance modify -B memory=192m --net 0:name=first {small}")
    first, second = (detail for detail in told(cluster, small) if detail["type"] == "instance-modified")
    assert [(c["kind"], c["action"]) for c in first["changes"]] == [("nic", "added")]
    assert [(c["kind"], c["field"] or c["item"], c["before"], c["after"]) for c in second["changes"]] == [
        ("nic", "name", "front", "first"),
        ("backend", "maxmem", "128", "192"),
        ("backend", "minmem", "128", "192"),
    ]
    assert second["after"]["tags"] == ["blue"]

    cluster.remove(small)
    last = told(cluster, small)[-1]
    assert (last["type"], last["after"], last["before"]["name"]) == ("instance-removed", None, small)
    assert small not in cluster.node.run(["ls", "/var/lib/synnefo-light/hooks"]).text
