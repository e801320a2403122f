"""A short round of `./lab torture storage-fio`, and that its check can fail."""

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
    one = Round(ready, tmp_path, acts=3, seed=1)
    device = one.work()
    assert one.faults == []
    # The control: one block of them all.
    at = one.written(device)[0]
    with open(device, "r+b") as file:
        os.pwrite(file.fileno(), bytes(BLOCK), at)
        os.fsync(file.fileno())
    one.verify(device, "the device")
    assert "fio read back the device" in one.faults.pop()
    one.end()
    assert one.faults == []
