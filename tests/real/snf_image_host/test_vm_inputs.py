"""Images that are no raw disks, with QEMU and the helper VM's real image: from the source to a host name inside."""

from __future__ import annotations

import hashlib
import lzma
import subprocess
from pathlib import Path

import pytest
from snf_image_host.journal import Finished, TaskDone, TaskSkipped

from tests.disk_images import check_filesystem, filesystem_blocks, make_disk, read_back
from tests.filesystem_images import cut_out
from tests.real.snf_image_host.node import Fake
from tests.real.snf_image_host.test_create import OLD
from tests.real.snf_image_host.web_server import serving
from tests.windows_images import make_ntfs, read_ntfs, windows

MIB = 1 << 20
PASSIVE = '{"EXCLUDE_ALL_TASKS": "yes"}'
pytestmark = pytest.mark.vm


def converted(raw: Path, to: Path) -> Path:
    """`raw` in the format that the name of `to` ends in."""
    words = ["qemu-img", "convert", "-f", "raw", "-O", to.suffix[1:], str(raw), str(to)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    return to


def tasks_of(node: Fake) -> set[str]:
    return {r.task for r in node.records() if isinstance(r, TaskDone)}


def old_bytes(disk: Path) -> bytes:
    return subprocess.run(["grep", "-c", "former tenant", str(disk)], capture_output=True, check=False).stdout


def test_a_qcow2_of_the_image_folder_is_converted_and_customised(real_node: Fake) -> None:
    node = real_node
    raw = make_disk(node.folder / "raw")
    image = converted(raw, node.images / "small.qcow2")
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    disk = node.disk(96, pattern=OLD)
    done = node.create(disk, img_id="small.qcow2", img_checksum=f"sha256:{digest}")
    assert done.returncode == 0, done.output + node.log()
    check_filesystem(disk)
    blocks, size = filesystem_blocks(disk)
    assert 90 * MIB < blocks * size <= 95 * MIB
    assert read_back(disk, "/etc/hostname") == b"web1\n"
    assert old_bytes(disk) == b"0\n"
    assert {"convert", "hostname"} <= tasks_of(node)
    last = node.records()[-1]
    assert isinstance(last, Finished) and last.host_peak_rss <= 64 * MIB


def test_an_xz_from_the_web_is_staged_converted_and_customised(real_node: Fake) -> None:
    node = real_node
    node.configure(qemu=None, tcg_limit_s=120, http_networks=["127.0.0.0/8"])
    raw = make_disk(node.folder / "raw", table="mbr")
    with serving({"small.raw.xz": lzma.compress(raw.read_bytes(), preset=0)}) as base:
        disk = node.disk(96, pattern=OLD)
        done = node.create(disk, img_id=f"{base}/small.raw.xz")
    assert done.returncode == 0, done.output + node.log()
    check_filesystem(disk)
    assert read_back(disk, "/etc/hostname") == b"web1\n"
    assert old_bytes(disk) == b"0\n"


def test_an_image_that_is_only_converted_is_the_raw_one_byte_by_byte(real_node: Fake) -> None:
    node = real_node
    raw = make_disk(node.folder / "raw")
    converted(raw, node.images / "small.vmdk")
    disk = node.disk(96, pattern=OLD)
    done = node.create(disk, img_id="small.vmdk", img_properties=PASSIVE)
    assert done.returncode == 0, done.output + node.log()
    subprocess.run(["cmp", f"--bytes={raw.stat().st_size}", str(raw), str(disk)], check=True, timeout=60)
    assert old_bytes(disk) == b"0\n"
    assert tasks_of(node) == {"convert"}


def test_a_disk_that_is_too_small_for_what_the_image_becomes_is_wiped(real_node: Fake) -> None:
    node = real_node
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", str(node.images / "large.qcow2"), "1T"], check=True, timeout=20
    )
    disk = node.disk(32, pattern=OLD)
    done = node.create(disk, img_id="large.qcow2")
    assert done.returncode == 4 and "--disk 0:size=1048576M" in done.sentence, done.output
    assert "both ends of its disk were wiped" in done.sentence


def test_a_name_that_lies_is_no_way_to_have_a_raw_image_read_as_another(real_node: Fake) -> None:
    """A qcow2 that is called raw stays bytes: nobody looks into it (threat: a backing file)."""
    node = real_node
    raw = make_disk(node.folder / "raw")
    image = converted(raw, node.folder / "x.qcow2").rename(node.images / "small.raw")
    disk = node.disk(96)
    assert node.create(disk, img_properties=PASSIVE).returncode == 0
    subprocess.run(["cmp", f"--bytes={image.stat().st_size}", str(image), str(disk)], check=True, timeout=60)


def test_an_extdump_gets_a_table_and_grows(real_node: Fake) -> None:
    node = real_node
    whole = make_disk(node.images / "small.ext4", table="none")
    disk = node.disk(96, pattern=OLD)
    done = node.create(disk, img_id="small.ext4", img_format="extdump")
    assert done.returncode == 0, done.output + node.log()
    check_filesystem(disk)
    blocks, size = filesystem_blocks(disk)
    assert blocks * size > whole.stat().st_size + 40 * MIB
    assert read_back(disk, "/etc/hostname") == b"web1\n"
    shown = subprocess.run(["sfdisk", "--dump", str(disk)], capture_output=True, check=True, text=True, timeout=10)
    assert "start=        2048" in shown.stdout and "type=83, bootable" in shown.stdout
    assert not [r for r in node.records() if isinstance(r, TaskSkipped) and r.task == "partition_table"]


def test_an_ntfsdump_is_a_windows_that_gets_name_password_and_answers(real_node: Fake) -> None:
    node = real_node
    make_ntfs(node.images / "windows.ntfs", mib=40, tree=windows())
    answers = '<unattend xmlns="urn:schemas-microsoft-com:unattend"><!-- of ours --></unattend>'
    (node.images / "answers.xml").write_text(answers)
    disk = node.disk(96, pattern=OLD)
    done = node.create(
        disk,
        img_id="windows.ntfs",
        img_format="ntfsdump",
        img_passwd="correct horse",
        os_product_key="AAAAA-BBBBB-CCCCC-DDDDD-EEEEE",
        os_answer_file="answers.xml",
    )
    assert done.returncode == 0, done.output + node.log()
    assert "correct horse" not in done.output + node.log() and "BBBBB" not in done.output + node.log()
    written = read_ntfs(cut_out(disk, node.folder / "after", first_mib=1), "Windows/Panther/unattend.xml")
    assert written is not None
    for text in (b"web1", b"AAAAA-BBBBB-CCCCC-DDDDD-EEEEE", b"AdministratorPassword"):
        assert text in written
    assert b"correct horse" not in written, "not in clear"
    shown = subprocess.run(["sfdisk", "--dump", str(disk)], capture_output=True, check=True, text=True, timeout=10)
    assert "start=        2048" in shown.stdout and "type=7, bootable" in shown.stdout
