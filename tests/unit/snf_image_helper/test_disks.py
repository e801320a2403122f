"""The VM's disks as /sys shows them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from snf_image_helper import disks

from synnefo_light.errors import EnvironmentFault


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two disks of the host in another order than their letters, and one that has no serial."""
    for name, serial in (("vda", "snf-manifest"), ("vdb", "snf-disk0\n"), ("vdc", ""), ("loop0", None)):
        (tmp_path / name).mkdir()
        if serial is not None:
            (tmp_path / name / "serial").write_text(serial)
    for name, number in (("vdb1", 1), ("vdb15", 15)):
        (tmp_path / "vdb" / name).mkdir()
        (tmp_path / "vdb" / name / "partition").write_text(f"{number}\n")
        (tmp_path / "vdb" / name / "size").write_text("2048\n")
    (tmp_path / "vdb" / "queue").mkdir()
    monkeypatch.setattr(disks, "SYS", tmp_path)
    return tmp_path


@pytest.mark.usefixtures("sysfs")
def test_disks_are_found_by_their_serial() -> None:
    found = disks.Disks()
    assert (found.node("snf-manifest"), found.node("snf-disk0")) == ("/dev/vda", "/dev/vdb")
    with pytest.raises(EnvironmentFault, match="no disk snf-disk1; the VM sees snf-disk0, snf-manifest"):
        found.partition_node("snf-disk1", 1)


def test_partitions_are_found_by_their_number_as_they_are_now(sysfs: Path) -> None:
    found = disks.Disks()
    assert found.partition_node("snf-disk0", 15) == "/dev/vdb15"
    assert found.partition_node("snf-disk0", None) == "/dev/vdb"
    with pytest.raises(EnvironmentFault, match=r"no partition 2 on snf-disk0, only \[1, 15\]"):
        found.partition_node("snf-disk0", 2)
    (sysfs / "vdb" / "vdb2").mkdir()
    (sysfs / "vdb" / "vdb2" / "partition").write_text("2\n")
    assert found.partition_node("snf-disk0", 2) == "/dev/vdb2"


def test_a_disk_that_cannot_be_read_is_said_so() -> None:
    """/proc/self/mem has a hole at its beginning, and EIO is what a disk with bad sectors answers."""
    with pytest.raises(EnvironmentFault, match=r"mem there\) cannot be read: Input/output error; look into the node's"):
        disks.read_node("/proc/self/mem", 0, 512)
    with disks.reading("/proc/self/mem") as read, pytest.raises(EnvironmentFault, match="cannot be read"):
        read(4096, 512)
    with pytest.raises(EnvironmentFault, match=r"full there\) cannot be written: "):
        disks.write_node("/dev/full", 0, b"x")


def test_pyudev_is_not_imported_to_find_disks(sysfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a VM without KVM its import takes longer than all that it was needed for."""
    monkeypatch.setitem(sys.modules, "pyudev", None)
    monkeypatch.delitem(sys.modules, "snf_image_helper.disks")
    again = importlib.import_module("snf_image_helper.disks")
    monkeypatch.setattr(again, "SYS", sysfs)
    found = again.Disks()
    assert found.partition_node("snf-disk0", 1) == "/dev/vdb1"
    monkeypatch.setattr(again, "DEV", sysfs)
    with pytest.raises(ImportError, match="pyudev"):
        found.reread("snf-disk0", expected={})
