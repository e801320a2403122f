"""A snapshot that is committed while a disk is made of it: the disk begins as its map instead."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import cast

import pytest
from snf_extstorage.archipelago import Archipelago
from snf_extstorage.volume import FromBase, FromSnapshot, NotFound, Origin, SnapshotName, Volumes

from synnefo_light.errors import UserError
from synnefo_light.ganeti import CreateEnv, VolumeName
from synnefo_light.store.identity import MapId
from synnefo_light.units import MiB

SNAPSHOT = FromSnapshot(snapshot=SnapshotName("golden-1"))
BASE = FromBase(map=MapId("0" * 64))
ENV = CreateEnv(
    volume=VolumeName("v"), uuid=None, cname=None, access="kernelspace", params={"origin": "golden"}, size=MiB(1)
)


class OnlyBases:
    """An engine whose snapshots are all gone."""

    def __init__(self) -> None:
        self.asked: list[Origin] = []

    def clone(self, origin: Origin, name: VolumeName, **_: object) -> None:
        self.asked.append(origin)
        if origin == SNAPSHOT:
            raise NotFound("there is no snapshot golden-1")


def provider(volumes: OnlyBases, *found: Origin) -> Archipelago:
    answers: Iterator[Origin] = iter(found)
    return Archipelago(cast("Volumes", volumes), lambda text: next(answers))


def test_a_snapshot_that_is_committed_meanwhile_is_looked_up_again() -> None:
    volumes = OnlyBases()
    provider(volumes, SNAPSHOT, BASE).create(ENV)
    assert volumes.asked == [SNAPSHOT, BASE]


def test_a_snapshot_that_is_lost_is_told() -> None:
    volumes = OnlyBases()
    with pytest.raises(NotFound, match="no snapshot golden-1"):
        provider(volumes, SNAPSHOT, SNAPSHOT).create(ENV)
    assert volumes.asked == [SNAPSHOT]


def test_a_file_that_ganeti_cannot_hand_to_qemu_is_refused_before_anything_is_made() -> None:
    volumes = OnlyBases()
    ours = Archipelago(cast("Volumes", volumes), lambda text: BASE, userspace=False)
    with pytest.raises(UserError, match="leave access out, which is kernelspace"):
        ours.create(dataclasses.replace(ENV, access="userspace"))
    assert volumes.asked == []
    ours.create(ENV)
    assert volumes.asked == [BASE]
