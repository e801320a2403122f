"""Finding the VM's own root among the disks of a machine that may have any."""

from __future__ import annotations

from pathlib import Path

import pytest
from snf_image_helper.start import find_disk


def block(folder: Path, **serials: str | None) -> str:
    for name, serial in serials.items():
        (folder / name).mkdir()
        if serial is not None:
            (folder / name / "serial").write_text(serial)
    return str(folder)


def test_the_root_is_found_by_its_serial_among_disks_that_have_none(tmp_path: Path) -> None:
    assert find_disk(block(tmp_path, sr0=None, vda="snf-disk0", vdb="snf-root\n", vdc="snf-root2")) == "vdb"


def test_without_a_root_the_machine_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no disk has the serial snf-root"):
        find_disk(block(tmp_path, vda="snf-disk0"))
