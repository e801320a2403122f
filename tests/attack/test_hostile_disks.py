"""Partition tables that lie and superblocks with the host's names (threat A8): the tables by the parser of the VM, some
of both deployed; `./lab torture tables` and `./lab torture signatures` deploy all. Controls: test_controls.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from snf_image_helper.partitions import SECTOR, TableError, parse_table

from tests.attack.attempt import Attack, attempt
from tests.attack.corpus import signatures, tables
from tests.attack.time_limit import time_limit
from tests.real.snf_image_host.node import real_helper

#: Tables that can be read; what is wrong or odd about them shows later, or never.
READABLE = {"ebr-circle", "mbr-empty", "gpt-128-partitions", "gpt-name-of-halves"}
DEPLOYED = (
    *("table-ebr-circle-of-two", "table-gpt-4-billion-entries", "table-gpt-128-partitions", "table-gpt-overlap"),
    *("signature-lvm-of-the-host", "signature-lvm-name-leads-out", "signature-md-of-two", "signature-all-at-once"),
    *("signature-ext4-journal-elsewhere", "signature-lvm-text-at-the-end-of-numbers"),
)
SAMPLE = {attack.name: attack for attack in (*tables.corpus(), *signatures.corpus()) if attack.name in DEPLOYED}


def test_the_sample_is_there() -> None:
    assert set(SAMPLE) == set(DEPLOYED)


@pytest.mark.parametrize("name", tables.TABLES)
def test_a_lying_table_is_refused_with_its_reason_after_few_reads(tmp_path: Path, name: str) -> None:
    (attack,) = (attack for attack in tables.corpus() if attack.name == f"table-{name}")
    attack.make(tmp_path / "image")
    reads: list[int] = []
    with open(tmp_path / "image", "rb") as disk, time_limit(name):

        def read(offset: int, length: int) -> bytes:
            reads.append(length)
            disk.seek(offset)
            return disk.read(length)

        try:
            parse_table(read, disk_sectors=(tmp_path / "image").stat().st_size // SECTOR)
            refused = None
        except TableError as e:
            refused = str(e)
    assert len(reads) < 100 and sum(reads) < 1 << 20, "a table makes the parser read without end"
    if name not in READABLE:
        assert refused is not None and re.search(attack.cause, refused), refused


@pytest.mark.vm
@pytest.mark.parametrize("attack", SAMPLE.values(), ids=SAMPLE)
def test_a_hostile_disk_harms_nobody_but_its_instance(attack: Attack) -> None:
    helper = real_helper()
    assert helper is not None, "there is no image of the helper VM"
    assert attempt(attack, helper=helper).faults == ()
