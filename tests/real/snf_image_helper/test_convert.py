"""Images in every format and compression, made by other programs, written by the VM, compared byte by byte."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from synnefo_light.manifest import Measured, Progressed
from tests.disk_images import make_disk, read_back
from tests.real.snf_image_helper.conversions import KINDS, MIB, blank, convert, make_raw, packed, qemu_img
from tests.real.snf_image_helper.virtual_machine import boot


@pytest.mark.vm
@pytest.mark.parametrize("name", KINDS)
def test_the_disk_is_the_image_byte_by_byte_and_zeros_behind(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    raw = make_raw(tmp_path / "raw")
    image, disk = tmp_path / "image", blank(tmp_path / "disk", size=24 * MIB)
    kind.make(raw, image)
    outcome = convert(image, disk, format=kind.format, compression=kind.compression)
    assert outcome.finished, outcome.console
    assert outcome.done == ["convert"]
    content, expected = disk.read_bytes(), raw.read_bytes()
    assert content[: len(expected)] == expected
    assert content[len(expected) :] == bytes(24 * MIB - len(expected))
    assert disk.stat().st_blocks * 512 < 6 * MIB, "holes of the image were written"
    told = [m for m in outcome.messages if isinstance(m, Progressed)]
    assert 1 <= len(told) <= 100
    assert told[-1].done == told[-1].total == image.stat().st_size
    assert [m.size for m in outcome.messages if isinstance(m, Measured)] == [virtual_size(image, kind.format, raw)]


def virtual_size(image: Path, format: str, raw: Path) -> int:
    """Of the disk in it, by qemu-img; some formats know only whole sectors, or more."""
    if format == "raw":
        return raw.stat().st_size
    told = subprocess.run(
        ["qemu-img", "info", "--output=json", "-f", format, image], check=True, capture_output=True, timeout=60
    )
    size: int = json.loads(told.stdout)["virtual-size"]
    return size


@pytest.mark.vm
def test_an_image_as_large_as_the_disk_fits(tmp_path: Path) -> None:
    raw = make_raw(tmp_path / "raw", size=8 * MIB)
    packed("gzip")(raw, tmp_path / "image")
    disk = blank(tmp_path / "disk", size=8 * MIB)
    assert convert(tmp_path / "image", disk, format="raw", compression="gzip").finished
    assert disk.read_bytes() == raw.read_bytes()


@pytest.mark.vm
def test_a_converted_image_is_customised_as_any_other(tmp_path: Path) -> None:
    """The kernel, which saw an empty disk when it started, knows the partitions that were written."""
    raw = make_disk(tmp_path / "raw")
    qemu_img("qcow2", convert=("-c",))(raw, tmp_path / "image")
    disk = blank(tmp_path / "disk", size=96 * MIB)
    source = {"format": "qcow2", "size": (tmp_path / "image").stat().st_size}
    outcome = boot(disk, source=tmp_path / "image", asked={"source": source})
    assert outcome.finished, outcome.console
    assert outcome.done[:2] == ["convert", "partition_table"]
    assert read_back(disk, "/etc/hostname") == b"web1\n"
    subprocess.run(["sfdisk", "--verify", disk], check=True, capture_output=True, timeout=60)


@pytest.mark.vm
def test_internal_snapshots_are_left_out_and_told_of(tmp_path: Path) -> None:
    old, new = make_raw(tmp_path / "old", seed=1), make_raw(tmp_path / "new", seed=2)
    image = tmp_path / "image"
    qemu_img("qcow2")(old, image)
    subprocess.run(["qemu-img", "snapshot", "-c", "before", image], check=True, timeout=60)
    with_new = ["qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", str(new), str(image)]
    subprocess.run(with_new, check=True, timeout=60)
    info = ["qemu-img", "info", "--output=json", str(image)]
    listed = json.loads(subprocess.run(info, check=True, capture_output=True, timeout=60).stdout)
    assert [s["name"] for s in listed["snapshots"]] == ["before"]
    disk = blank(tmp_path / "disk", size=24 * MIB)
    outcome = convert(image, disk, format="qcow2")
    assert outcome.finished, outcome.console
    assert outcome.warnings == ["the image has 1 internal snapshots; they are left out, its current state is used"]
    assert disk.read_bytes()[: new.stat().st_size] == new.read_bytes()


@pytest.mark.vm
@pytest.mark.parametrize("name", ["qcow2", "vmdk", "vmdk-stream", "vhdx", "vdi"])
def test_an_image_larger_than_the_disk_is_refused_before_a_byte_is_written(tmp_path: Path, name: str) -> None:
    raw = make_raw(tmp_path / "raw")
    KINDS[name].make(raw, tmp_path / "image")
    disk = blank(tmp_path / "disk", size=20 * MIB)
    outcome = convert(tmp_path / "image", disk, format=KINDS[name].format)
    assert outcome.failed is not None, outcome.console
    assert outcome.failed.reason == (
        "the image holds a disk of 21 MiB, but disk 0 has 20 MiB; ask for --disk 0:size=21M or more"
    )
    assert not outcome.failed.changed
    assert disk.stat().st_blocks == 0
