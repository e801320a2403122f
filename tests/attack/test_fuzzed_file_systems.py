"""File systems with bytes changed where it hurts (threat A8): one of each kind and region here, all by
`./lab torture fuzz`.

Positive control: the same images, mounted by the kernel of this machine in a mount namespace of its own, make that
kernel complain, which a deployment never does (test_controls.py).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attack.attempt import Attack, attempt
from tests.attack.corpus import mutations
from tests.attack.test_hostile_images import ASKED
from tests.real.snf_image_helper import virtual_machine
from tests.real.snf_image_host.node import real_helper

SAMPLE = {attack.name: attack for attack in mutations.sample()}


@pytest.fixture(scope="module", autouse=True)
def bases() -> Iterator[None]:
    yield
    mutations.forget_bases()


def test_the_corpus_has_at_least_200_images_and_no_name_twice() -> None:
    names = [attack.name for attack in mutations.corpus()]
    assert len(names) == len(set(names)) >= 200


@pytest.mark.parametrize("kind", mutations.KINDS)
def test_each_mutation_is_made_the_same_again_and_differs_from_the_base(kind: str) -> None:
    base, regions = mutations.base_disk(kind), mutations.regions_of(kind)
    for region, where in regions.items():
        path = base.with_name("mutated")
        made = []
        for _ in range(2):
            mutations.mutated(path, kind=kind, region=region, seed=region)
            with open(path, "rb") as file:
                file.seek((1 << 20) + where.offset)
                made.append(file.read(where.length))
        with open(base, "rb") as file:
            file.seek((1 << 20) + where.offset)
            good = file.read(where.length)
        assert made[0] == made[1] != good and any(good), f"{kind} {region}"


@pytest.mark.parametrize("kind", ["xfs", "btrfs", "f2fs"])
def test_a_checksum_that_is_made_right_again_is_the_makers(kind: str) -> None:
    """Else every mutation would be refused for its checksum, and nothing behind it tried."""
    base = mutations.base_disk(kind)
    for region, where in mutations.regions_of(kind).items():
        with open(base, "rb") as file:
            file.seek((1 << 20) + where.offset)
            block = file.read(where.length)
        sealed = bytearray(block)
        where.seal(sealed)
        assert bytes(sealed) == block, f"{kind} {region}"


@pytest.mark.vm
@pytest.mark.parametrize("kind", ["btrfs", "f2fs"])
def test_the_same_disk_without_damage_is_deployed(tmp_path: Path, kind: str) -> None:
    """The control: nothing else about these images stops a helper. NTFS is refused: there is no Windows on it."""
    attack, disk = mutations.good(kind), tmp_path / "disk"
    attack.make(disk)
    os.truncate(disk, attack.disk_mib << 20)
    outcome = virtual_machine.run(disk, asked=ASKED)
    assert outcome.finished, outcome.console
    assert "password" in outcome.done


@pytest.mark.vm
@pytest.mark.parametrize(
    "kind", ["ext4", "vfat", "xfs", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("btrfs", "f2fs"))]
)
def test_the_same_disk_without_damage_is_deployed_by_the_script(kind: str) -> None:
    """The control by the attacks' own path."""
    helper = real_helper()
    assert helper is not None, "there is no image of the helper VM"
    verdict = attempt(dataclasses.replace(mutations.good(kind), must="succeed"), helper=helper)
    assert verdict.faults == ()


@pytest.mark.vm
@pytest.mark.parametrize("attack", SAMPLE.values(), ids=SAMPLE)
def test_a_damaged_file_system_harms_nobody_but_its_instance(attack: Attack) -> None:
    helper = real_helper()
    assert helper is not None, "there is no image of the helper VM"
    assert attempt(attack, helper=helper).faults == ()
