"""Tables made by sfdisk, changed by us, judged by sgdisk and by sfdisk's own reader. On sparse files."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from snf_image_helper.filesystems import look
from snf_image_helper.image import Content, Filesystem, SwapSpace
from snf_image_helper.layout import NewPartition, plan_table
from snf_image_helper.partitions import SECTOR, Reader, TableError, parse_table

from tests.filesystem_images import UUID, Kind, copy_into, make_filesystem

MIB = 1 << 20
GPT = "label: gpt\nfirst-lba: 34\nstart=1MiB, size=40MiB, type=linux, name=root\n"
DEBIAN = (
    "label: gpt\nfirst-lba: 34\n1: start=8MiB, size=40MiB, type=linux\n"
    "14: start=1MiB, size=3MiB, type=21686148-6449-6E6F-744E-656564454649\n"
)
MBR = "label: dos\nstart=1MiB, size=40MiB, type=83, bootable\n"
LOGICAL = (
    "label: dos\nstart=1MiB, size=4MiB, type=83\nstart=5MiB, size=44MiB, type=5\n"
    "5: start=6MiB, size=4MiB, type=83\n6: start=11MiB, size=30MiB, type=83\n"
)


def make(path: Path, script: str, *, mib: int = 50) -> Path:
    with open(path, "wb") as disk:
        disk.truncate(mib * MIB)
    subprocess.run(["sfdisk", "-q", path], input=script, text=True, check=True, capture_output=True)
    return path


def grow(path: Path, *, root: int, swap: NewPartition | None = None) -> int:
    """What the task does, on a file. Returns the number of places written."""
    with open(path, "r+b") as disk:

        def read(offset: int, length: int) -> bytes:
            disk.seek(offset)
            return disk.read(length)

        sectors = path.stat().st_size // SECTOR
        table = parse_table(read, disk_sectors=sectors)
        assert table is not None
        writes = plan_table(table, root=root, disk_sectors=sectors, swap=swap)
        for write in writes:
            disk.seek(write.sector * SECTOR)
            disk.write(write.data)
    return len(writes)


def seen_by_sfdisk(path: Path) -> dict[int, tuple[int, int, str]]:
    """Number -> start, sectors, type; and sfdisk has nothing to complain about."""
    done = subprocess.run(["sfdisk", "--json", path], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    partitions = json.loads(done.stdout)["partitiontable"]["partitions"]
    return {int(p["node"].removeprefix(str(path))): (p["start"], p["size"], p["type"]) for p in partitions}


def judged_by_sgdisk(path: Path) -> str:
    done = subprocess.run(["sgdisk", "--verify", path], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def identity(path: Path, number: int) -> str:
    shown = subprocess.run(["sgdisk", f"--info={number}", path], capture_output=True, text=True, check=True).stdout
    return "\n".join(line for line in shown.splitlines() if "GUID" in line or "name" in line or "flags" in line)


SWAP = NewPartition(number=3, sectors=16 * 2048, seed="x")


@pytest.mark.parametrize(("script", "root"), [(GPT, 1), (DEBIAN, 1)])
@pytest.mark.parametrize("swap", [None, SWAP])
def test_a_grown_gpt_is_whole_to_sgdisk(tmp_path: Path, script: str, root: int, swap: NewPartition | None) -> None:
    disk = make(tmp_path / "disk", script)
    before, others = identity(disk, root), seen_by_sfdisk(disk)
    with open(disk, "r+b") as file:
        file.truncate(200 * MIB)
    assert "No problems found" not in judged_by_sgdisk(disk), "the control: a moved end is a problem to sgdisk"
    assert grow(disk, root=root, swap=swap) > 0
    assert "No problems found" in judged_by_sgdisk(disk)
    assert identity(disk, root) == before
    after = seen_by_sfdisk(disk)
    start = after[3][0] if swap is not None else 199 * 2048
    assert after.pop(root)[:2] == (others[root][0], start - others.pop(root)[0])
    if swap is not None:
        assert after.pop(3) == (183 * 2048, 16 * 2048, "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F")
    assert after == others
    content = disk.read_bytes()
    assert grow(disk, root=root, swap=swap) == 0 and disk.read_bytes() == content


@pytest.mark.parametrize("flaw", ["primary-header", "primary-entries"])
def test_a_damaged_gpt_is_a_problem_to_us_as_to_sgdisk(tmp_path: Path, flaw: str) -> None:
    disk = make(tmp_path / "disk", GPT)
    assert "nvalid" not in judged_by_sgdisk(disk) and "damaged" not in judged_by_sgdisk(disk)
    with open(disk, "r+b") as file:
        file.seek(512 + 41 if flaw == "primary-header" else 1024 + 41)
        file.write(b"\x5a")
    judged = judged_by_sgdisk(disk)
    assert "nvalid" in judged or "damaged" in judged or "CRC" in judged, judged
    with pytest.raises(TableError, match="damaged"):
        grow(disk, root=1)


@pytest.mark.parametrize(
    ("script", "root", "swap", "result"),
    [
        (MBR, 1, None, {1: (2048, 199 * 2048, "83")}),
        (MBR, 1, SWAP, {1: (2048, 183 * 2048, "83"), 3: (184 * 2048, 16 * 2048, "82")}),
        (
            LOGICAL,
            6,
            None,
            {
                1: (2048, 8192, "83"),
                2: (10240, 195 * 2048, "5"),
                5: (12288, 8192, "83"),
                6: (22528, 189 * 2048, "83"),
            },
        ),
        (
            LOGICAL,
            6,
            NewPartition(number=7, sectors=16 * 2048, seed="x"),
            {
                1: (2048, 8192, "83"),
                2: (10240, 195 * 2048, "5"),
                5: (12288, 8192, "83"),
                6: (22528, 172 * 2048, "83"),
                7: (184 * 2048, 16 * 2048, "82"),
            },
        ),
        (
            MBR,
            1,
            NewPartition(number=5, sectors=16 * 2048, seed="x"),
            {
                1: (2048, 182 * 2048, "83"),
                2: (183 * 2048, 17 * 2048, "f"),
                5: (184 * 2048, 16 * 2048, "82"),
            },
        ),
    ],
)
def test_a_grown_mbr_is_what_sfdisk_reads(
    tmp_path: Path, script: str, root: int, swap: NewPartition | None, result: dict[int, tuple[int, int, str]]
) -> None:
    disk = make(tmp_path / "disk", script)
    with open(disk, "r+b") as file:
        file.write(b"BOOT CODE STAYS")
        file.truncate(200 * MIB)
    grow(disk, root=root, swap=swap)
    assert seen_by_sfdisk(disk) == result
    done = subprocess.run(["sfdisk", "--verify", disk], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "overlap" not in done.stderr, done.stderr
    assert disk.read_bytes()[:15] == b"BOOT CODE STAYS"
    assert grow(disk, root=root, swap=swap) == 0


def reader(path: Path) -> Reader:
    def read(offset: int, length: int) -> bytes:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(length)

    return read


KINDS: dict[Kind, int] = {
    **{"ext2": 64, "ext3": 64, "ext4": 64, "xfs": 300, "btrfs": 128, "f2fs": 100, "vfat": 33, "ufs": 32},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", [0, MIB])
def test_a_filesystem_is_told_by_its_superblock_as_blkid_tells_it(tmp_path: Path, kind: Kind, start: int) -> None:
    mib = KINDS[kind]
    alone = make_filesystem(tmp_path / "alone", kind, mib=mib, tree={}, label="a label")
    disk = tmp_path / "disk"
    with open(disk, "wb") as file:
        file.truncate(start + mib * MIB)
    copy_into(alone, disk, source_offset=0, target_offset=start, size=mib * MIB)
    found = look(reader(disk), start=start, size=mib * MIB)
    assert isinstance(found, Filesystem) and (found.kind.value, found.size) == (kind, mib * MIB)
    shown = subprocess.run(["blkid", "-p", "-o", "export", alone], capture_output=True, text=True, check=True).stdout
    told = dict(line.split("=", 1) for line in shown.splitlines())
    if kind != "ufs":
        assert (found.uuid, found.label) == (told["UUID"], told["LABEL"].replace("\\", ""))
        assert look(reader(disk), start=start, size=mib * MIB // 2) is None, "larger than its place: not to be mounted"
    assert look(reader(disk), start=start + 512, size=mib * MIB // 2) is None


def test_swap_is_told_with_its_names(tmp_path: Path) -> None:
    swap = make_filesystem(tmp_path / "swap", "swap", mib=16, label="swap0", uuid=UUID)
    assert look(reader(swap), start=0, size=16 * MIB) == SwapSpace(uuid=UUID, label="swap0")
    with open(swap, "r+b") as file:
        file.seek(4086)
        file.write(b"S1SUSPEND\0")
    assert look(reader(swap), start=0, size=16 * MIB) is Content.HIBERNATED


@pytest.mark.parametrize(
    ("at", "what", "content"),
    [
        (512, b"LABELONE", Content.LVM),
        (0, b"LUKS\xba\xbe\0\2", Content.LUKS),
        (3, b"-FVE-FS-", Content.BITLOCKER),
        (4096, b"\xfc\x4e\x2b\xa9", Content.MD),
        (16 * MIB - 65536, b"\xfc\x4e\x2b\xa9", Content.MD),
        (16 * MIB - 8192, b"\xfc\x4e\x2b\xa9", Content.MD),
        (65536 + 64, b"_BHRfS_M" + bytes(64) + b"\2", Content.SPREAD),
    ],
)
def test_what_holds_no_file_system_of_its_own_is_named(tmp_path: Path, at: int, what: bytes, content: Content) -> None:
    """The magic alone: blkid, which knows them all, wants more of some."""
    path = tmp_path / "disk"
    with open(path, "wb") as file:
        file.truncate(16 * MIB)
        file.seek(at)
        file.write(what)
    assert look(reader(path), start=0, size=16 * MIB) is content
