"""A short round of `./lab torture storage-fio`, and that its checks can fail."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.real.snf_extstorage.fio_rounds import BLOCK, Round
from tests.real.snf_extstorage.places import Site
from tests.real.snf_extstorage.test_scripts import snf_store


@pytest.fixture
def ready(site: Site) -> Site:
    if shutil.which("fio") is None:
        pytest.skip("fio is missing")
    assert snf_store(site, "init").returncode == 0
    return site


def test_no_write_is_lost_while_a_volume_is_cut_cloned_and_grown_by_processes_that_die(
    ready: Site, tmp_path: Path
) -> None:
    one = Round(ready, tmp_path, seconds=4, seed=1)
    one.run()
    assert one.faults == []
    assert one.acts > 2


def test_a_lost_block_is_found(ready: Site, tmp_path: Path) -> None:
    one = Round(ready, tmp_path, seconds=0.5, seed=2)
    one.begin()
    device = one.attach()
    with one.writing(device):
        pass
    one.verify(device, "the device")
    assert one.faults == []
    at = one.first_written(device)
    assert at is not None
    with open(device, "r+b") as file:
        os.pwrite(file.fileno(), bytes(BLOCK), at)
        os.fsync(file.fileno())
    one.verify(device, "the device")
    assert "fio read back the device" in one.faults[0]
